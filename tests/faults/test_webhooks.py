"""Webhooks when servers are killed, receivers hang, servers share the outbox, and the database is an older one."""

import asyncio
import shutil
import signal
import socket
import subprocess
import sys
import textwrap
import time
from collections import defaultdict
from collections.abc import Callable, Coroutine, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path

import grpc
import psycopg
import pytest
from grpc_health.v1 import health_pb2
from grpc_health.v1.health_pb2_grpc import HealthStub
from playhouse.migrations import Runner

from headway.v1 import job_pb2
from headway.v1 import job_service_pb2 as pb
from headway.v1.job_service_pb2_grpc import JobServiceStub
from headway_server.domain.limits import MICROSECONDS
from headway_server.settings import Settings, read
from headway_server.storage.database import MIGRATIONS, migrate, open_engine
from headway_server.webhooks.delivery import CLAIM_TIME
from tests.conftest import ENGINES, empty_database
from tests.support.app import RunningApp
from tests.support.caller import Caller
from tests.support.postgres import Postgres
from tests.support.receiver import SECRET, Receiver
from tests.support.seeds import seeded
from tests.support.server import ServerProcess
from tests.support.waiting import until

ROUNDS = 4

NAME_SERVER = "127.53.53.53"

DELIVERY_TIMEOUT = 25.0
"""Seconds: longer than the longest pause between two attempts of these tests."""


@contextmanager
def telling(folder: Path, *receivers: Receiver | str, prefix: Sequence[str] = ()) -> Iterator[ServerProcess]:
    """A server process that tells these receivers, or those of these URLs."""
    urls = [receiver if isinstance(receiver, str) else receiver.url for receiver in receivers]
    config = folder / "headway.toml"
    config.write_text("".join(f'[[webhook]]\nurl = "{url}"\nsecret = "{SECRET}"\n' for url in urls))
    with ServerProcess(folder, "--config", str(config), "--allow-private-webhooks", prefix=prefix) as server:
        yield server


def finish_jobs(server: ServerProcess, count: int) -> list[str]:
    """Create so many jobs and finish them; their ids, sorted."""
    with grpc.insecure_channel(server.address, options=[("grpc.use_local_subchannel_pool", 1)]) as channel:
        stub = JobServiceStub(channel)
        job_ids = [stub.CreateJob(pb.CreateJobRequest(session_id="s"), timeout=10).id for _ in range(count)]
        for job_id in job_ids:
            stub.FinishJob(pb.FinishJobRequest(session_id="s", job_id=job_id), timeout=10)
    return sorted(job_ids)


def test_a_kill_between_the_commit_and_the_sending_loses_no_webhook(tmp_path: Path) -> None:
    receiver = Receiver()
    with telling(tmp_path, receiver) as server:
        job_ids = finish_jobs(server, 20)
        server.kill()
        with receiver:
            server.start()
            until(lambda: len(receiver.received) >= len(job_ids), DELIVERY_TIMEOUT)
            assert sorted(receiver.subjects) == job_ids
            assert receiver.times_each() == {1}


def test_a_kill_between_the_sending_and_its_answer_repeats_under_the_same_id(tmp_path: Path) -> None:
    with Receiver() as receiver, telling(tmp_path, receiver) as server:
        receiver.free.clear()
        job_ids = finish_jobs(server, 3)
        until(lambda: bool(receiver.received))
        server.kill()
        receiver.free.set()
        unanswered = {request.id: request.body for request in receiver.received}
        server.start()
        until(lambda: {request.subject for request in receiver.received} == set(job_ids), DELIVERY_TIMEOUT)
        until(lambda: len(receiver.received) == len(unanswered) + len(job_ids), DELIVERY_TIMEOUT)
        again = {request.id: request.body for request in receiver.received[len(unanswered) :]}
        assert again.items() >= unanswered.items()
        # Nothing came a third time.
        server.restart()
        more = finish_jobs(server, 1)
        until(lambda: receiver.subjects[-1] == more[0], DELIVERY_TIMEOUT)
        assert len(receiver.received) == len(unanswered) + len(job_ids) + 1


def test_kills_at_random_make_no_ending_untold_and_none_up(tmp_path: Path) -> None:
    chance = seeded("webhooks")
    acknowledged: set[str] = set()

    def work(address: str) -> None:
        with (
            suppress(grpc.RpcError),
            grpc.insecure_channel(address, options=[("grpc.use_local_subchannel_pool", 1)]) as channel,
        ):
            stub = JobServiceStub(channel)
            while True:
                job_id = stub.CreateJob(pb.CreateJobRequest(session_id="s"), timeout=10).id
                stub.FinishJob(pb.FinishJobRequest(session_id="s", job_id=job_id), timeout=10)
                acknowledged.add(job_id)

    with Receiver() as receiver, telling(tmp_path, receiver) as server:
        for _ in range(ROUNDS):
            with ThreadPoolExecutor(2) as workers:
                for _ in range(2):
                    workers.submit(work, server.address)
                time.sleep(chance.uniform(0.05, 0.3))
                server.kill()
            # Some of what is sent is not even received, and some not answered.
            receiver.status = chance.choice([204, 0, 503])
            server.start()
        receiver.status = 204
        # All that waits is due at a start, however often it was tried.
        server.restart()
        assert acknowledged
        until(lambda: {request.subject for request in receiver.received} >= acknowledged, DELIVERY_TIMEOUT)
        bodies = defaultdict(set)
        ids = defaultdict(set)
        for request in receiver.received:
            bodies[request.id].add(request.body)
            ids[request.subject].add(request.id)
        assert all(len(different) == 1 for different in bodies.values())
        assert all(len(different) == 1 for different in ids.values())
        with grpc.insecure_channel(server.address, options=[("grpc.use_local_subchannel_pool", 1)]) as channel:
            stub = JobServiceStub(channel)
            for job_id in ids:
                job = stub.GetJob(pb.GetJobRequest(session_id="s", job_id=job_id), timeout=10)
                assert job.status == job_pb2.JOB_STATUS_COMPLETED


def test_a_receiver_that_hangs_holds_nobody_up(tmp_path: Path) -> None:
    with Receiver() as hanging, Receiver() as quick, telling(tmp_path, hanging, quick) as server:
        hanging.free.clear()
        job_ids = finish_jobs(server, 30)
        until(lambda: len(quick.received) == len(job_ids))
        assert sorted(quick.subjects) == job_ids
        assert 0 < len(hanging.received) <= 8
        with grpc.insecure_channel(server.address) as channel:
            health = HealthStub(channel).Check(health_pb2.HealthCheckRequest(), timeout=5)
        assert health.status == health_pb2.HealthCheckResponse.SERVING
        begun = time.monotonic()
        assert server.stop() == 0
        assert time.monotonic() - begun < 5


def test_servers_that_share_the_outbox_share_the_sending(postgresql: Postgres, session: str) -> None:
    with Receiver() as receiver, sharing(postgresql.database(), receiver) as (one, other):
        caller = Caller(one, session)
        job_ids = caller.create_many(60)
        for job_id in job_ids:
            caller.finish(job_id)
        one.clock.forward(1)
        other.clock.forward(1)
        sendings = [(server, server.run(begun(deliver(server)))) for server in (one, other)]
        for server, sending in sendings:
            server.run(ended(sending))
        assert sorted(receiver.subjects) == sorted(job_ids)
        assert receiver.times_each() == {1}


def test_what_was_claimed_too_long_ago_is_left_to_others(
    postgresql: Postgres, session: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    with Receiver() as receiver, sharing(postgresql.database(), receiver) as (one, other):
        caller = Caller(one, session)
        caller.finish(caller.create().id)
        run_task = one.app.writer.run_task

        async def late(work: Callable[[], None]) -> None:
            """The server learns a minute late that its commit succeeded; meanwhile another one does the work."""
            await run_task(work)
            for server in (one, other):
                server.clock.forward(60)
            await asyncio.to_thread(other.run, deliver(other))

        monkeypatch.setattr(one.app.writer, "run_task", late)
        one.clock.forward(1)
        one.run(deliver(one))
        assert receiver.times_each() == {1}


def test_a_webhook_that_another_server_is_changing_holds_up_no_write(postgresql: Postgres, session: str) -> None:
    url = postgresql.database()
    with Receiver() as receiver, RunningApp(url, settings=told_to(receiver)) as app:
        caller = Caller(app, session)
        locked, *others = caller.create_many(5)
        for job_id in (locked, *others):
            caller.finish(job_id)
        app.clock.forward(1)
        with psycopg.connect(url) as other:
            other.execute("SELECT id FROM notice ORDER BY id LIMIT 1 FOR UPDATE")
            # While its commit takes long, this server sends what else is due, and its own commits do not wait.
            sending = app.run(begun(deliver(app)))
            until(lambda: len(receiver.received) == len(others))
            caller.finish(caller.create().id)
        app.run(ended(sending))
        app.clock.forward(1)
        app.run(deliver(app))
        assert set(receiver.subjects) >= {locked, *others}
        assert receiver.times_each() == {1}


@contextmanager
def silent_name_server(folder: Path) -> Iterator[Sequence[str]]:
    """What to put before a command so that it asks a name server that never answers. Skips where only root may."""
    with socket.socket(type=socket.SOCK_DGRAM) as server:
        try:
            server.bind((NAME_SERVER, 53))
        except PermissionError:
            pytest.skip("a name server's port needs root")
        resolver = folder / "resolv.conf"
        resolver.write_text(f"nameserver {NAME_SERVER}\noptions timeout:30\n")
        mount = 'mount --bind "$0" /etc/resolv.conf && exec "$@"'
        yield ("unshare", "--mount", "sh", "-c", mount, str(resolver))


def test_a_silent_name_server_holds_up_its_own_receiver_alone(tmp_path: Path) -> None:
    with Receiver() as healthy, silent_name_server(tmp_path) as prefix:
        names = [f"http://silent-{number}.test/" for number in range(4)]
        # A name that the hosts file holds, which the same kind of look-up finds.
        urls = [*names, healthy.url.replace("127.0.0.1", "localhost")]
        with telling(tmp_path, *urls, prefix=prefix) as server:
            job_ids = finish_jobs(server, 30)
            until(lambda: len(healthy.received) == len(job_ids))
            assert sorted(healthy.subjects) == job_ids
            until(lambda: server.log.count("could not be looked up") == len(names), DELIVERY_TIMEOUT)
            finish_jobs(server, 1)
            until(lambda: len(healthy.received) == len(job_ids) + 1)
            begun = time.monotonic()
            assert server.stop() == 0
            assert time.monotonic() - begun < 5
            told = sorted(
                line.partition("webhooks to ")[2] for line in server.log.splitlines() if "webhooks to" in line
            )
            why = "its name could not be looked up within 10 s; trying again"
            assert told == [f"{name.removesuffix('/')}: {why}" for name in names]


def test_a_server_takes_over_what_another_one_died_sending(postgresql: Postgres, session: str) -> None:
    with Receiver() as receiver, sharing(postgresql.database(), receiver) as (one, other):
        receiver.free.clear()
        caller = Caller(one, session)
        caller.finish(caller.create().id)
        one.clock.forward(1)
        dying = one.run(begun(deliver(one)))
        until(lambda: len(receiver.received) == 1)
        one.run(abandoned(dying))
        receiver.free.set()
        other.clock.forward(1)
        other.run(deliver(other))
        assert len(receiver.received) == 1
        other.clock.forward(CLAIM_TIME / MICROSECONDS + 1)
        other.run(deliver(other))
        assert len(receiver.received) == 2
        assert receiver.times_each() == {2}


@contextmanager
def sharing(database: str, receiver: Receiver) -> Iterator[tuple[RunningApp, RunningApp]]:
    """Two servers on one database."""
    with ExitStack() as running:
        one, other = (running.enter_context(RunningApp(database, settings=told_to(receiver))) for _ in range(2))
        yield one, other


def told_to(receiver: Receiver) -> Settings:
    """The settings of a server that tells this receiver of everything."""
    return read(["--allow-private-webhooks", "--webhook-url", receiver.url, "--webhook-secret", SECRET], {})


async def begun(work: Coroutine[object, object, None]) -> "asyncio.Task[None]":
    """The work as a task that has begun."""
    return asyncio.create_task(work)


async def abandoned(task: "asyncio.Task[None]") -> None:
    """End it as it stands."""
    task.cancel()
    await asyncio.wait([task])


async def ended(task: "asyncio.Task[None]") -> None:
    """Wait for it."""
    await task


async def deliver(server: RunningApp) -> None:
    """Send what is due."""
    for delivery in server.app.webhooks.deliveries:
        await delivery.deliver()


@pytest.fixture(params=ENGINES)
def older(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    """A database as it was before there were webhooks, with a job in it."""
    database = empty_database(request.param, request, tmp_path)
    folder = tmp_path / "migrations"
    folder.mkdir()
    shutil.copy(MIGRATIONS / "0001_initial.py", folder)
    engine = open_engine(database)
    try:
        assert Runner(engine.database, str(folder)).up() == ["0001_initial"]
    finally:
        engine.close()
    return database


def test_an_older_database_is_brought_up_to_date(older: str, session: str) -> None:
    with Receiver() as receiver, RunningApp(older, settings=told_to(receiver)) as app:
        job = Caller(app, session).create()
        Caller(app, session).finish(job.id)
        app.clock.forward(1)
        app.run(deliver(app))
        assert receiver.subjects == [job.id]


def test_a_kill_within_the_migration_leaves_the_database_as_it_was(older: str) -> None:
    script = """
        import os, signal, sys
        from headway_server.storage.database import MIGRATIONS, open_engine
        from playhouse.migrations import Runner

        runner = Runner(open_engine(sys.argv[1]).database, str(MIGRATIONS))
        # When the tables are made, and before it is noted that they are.
        runner.History.create = lambda **_: os.kill(os.getpid(), signal.SIGKILL)
        runner.up()
    """
    killed = subprocess.run([sys.executable, "-c", textwrap.dedent(script), older], check=False, timeout=30)
    assert killed.returncode == -signal.SIGKILL
    engine = open_engine(older)
    try:
        assert not engine.database.table_exists("notice")
        assert migrate(engine)[0] == "0002_notices"
        assert engine.database.table_exists("notice")
    finally:
        engine.close()

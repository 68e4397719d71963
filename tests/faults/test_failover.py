"""A PostgreSQL that can only be read, or is no longer safe: callers are told, and it heals by itself."""

import logging
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from functools import partial
from pathlib import Path

import psycopg
import pytest

from headway.v1 import job_service_pb2 as pb
from headway_server.domain.errors import DatabaseUnavailable
from headway_server.storage.database import MIGRATION_LOCK, StartError, migrate, open_engine
from headway_server.storage.server_facts import note_time
from tests.conftest import missing
from tests.support.app import RunningApp
from tests.support.postgres import Postgres, find_binaries
from tests.support.refusals import outcome
from tests.support.server import ServerProcess
from tests.support.waiting import until

SESSION = "failover"


@pytest.fixture(scope="module")
def primary() -> Iterator[Postgres]:
    """A PostgreSQL whose settings these tests change; each leaves it as it was."""
    binaries = find_binaries()
    if binaries is None:
        missing("PostgreSQL (Debian: apt-get install postgresql)")
    assert binaries is not None
    with Postgres(binaries) as running:
        yield running


@contextmanager
def setting(database: str, name: str, value: str) -> Iterator[None]:
    """Another value of a setting of the whole server, for as long as the block runs."""
    alter(database, name, f"SET {name} TO {value}", value)
    try:
        yield
    finally:
        alter(database, name, f"RESET {name}", "off" if value == "on" else "on")


def alter(database: str, name: str, change: str, value: str) -> None:
    with psycopg.connect(database, autocommit=True) as other:
        other.execute(f"ALTER SYSTEM {change}")
        other.execute("SELECT pg_reload_conf()")
        until(lambda: other.execute(f"SHOW {name}").fetchone() == (value,))


def cut(database: str) -> None:
    """End the server's sessions."""
    with psycopg.connect(database, autocommit=True) as other:
        other.execute(
            "SELECT pg_terminate_backend(pid, 5000) FROM pg_stat_activity "
            "WHERE datname = current_database() AND application_name LIKE 'headway %'"
        )


def new_job(app: RunningApp) -> str:
    return app.stub.CreateJob(pb.CreateJobRequest(session_id=SESSION), timeout=20).id


def create(app: RunningApp) -> str:
    """How creating a job ends."""
    return outcome(app.stub.CreateJob, pb.CreateJobRequest(session_id=SESSION), timeout=20)


def writes(app: RunningApp, job_id: str) -> list[Callable[[], object]]:
    """A call of each method that writes."""
    stub = app.stub
    report = pb.ReportProgressRequest(session_id=SESSION, job_id=job_id, advance=1)
    variables = pb.SetVariablesRequest(session_id=SESSION, job_id=job_id)
    variables.variables["v"] = "1"
    return [
        lambda: stub.CreateJob(pb.CreateJobRequest(session_id=SESSION), timeout=20),
        lambda: stub.StartJob(pb.StartJobRequest(session_id=SESSION, job_id=job_id, take_over=True), timeout=20),
        lambda: stub.ReportProgress(report, timeout=20),
        lambda: list(stub.StreamProgress(iter([pb.StreamProgressRequest(reports=[report])]), timeout=20)),
        lambda: stub.SetVariables(variables, timeout=20),
        lambda: stub.CancelJob(pb.CancelJobRequest(session_id=SESSION, job_id=job_id), timeout=20),
        lambda: stub.FinishJob(pb.FinishJobRequest(session_id=SESSION, job_id=job_id), timeout=20),
        lambda: stub.ClearJob(pb.ClearJobRequest(session_id=SESSION, job_id=job_id), timeout=20),
    ]


def test_a_database_that_can_only_be_read(primary: Postgres, caplog: pytest.LogCaptureFixture) -> None:
    database = primary.database()
    with RunningApp(database) as app, caplog.at_level(logging.WARNING):
        job_id = new_job(app)
        ended = new_job(app)
        app.stub.FinishJob(pb.FinishJobRequest(session_id=SESSION, job_id=ended))
        with setting(database, "default_transaction_read_only", "on"):
            calls = writes(app, job_id)[:-1]
            assert [outcome(call) for call in calls] == ["DATABASE_UNAVAILABLE"] * len(calls)
            assert outcome(writes(app, ended)[-1]) == "DATABASE_UNAVAILABLE"
            with pytest.raises(DatabaseUnavailable):
                app.run(app.app.writer.run_task(partial(note_time, app.app.store, 1)))
            with pytest.raises(StartError, match=r"cannot be reached: .*read-only") as caught:
                open_engine(database)
            assert "\n" not in str(caught.value)
        until(lambda: create(app) == "OK")
        assert [outcome(call) for call in writes(app, job_id)] == ["OK"] * (len(calls) + 1)
    assert "25006 ReadOnlySqlTransaction" in caplog.text
    assert "fault " not in caplog.text


def test_a_standby_takes_over(primary: Postgres) -> None:
    """With both hosts in the URL, in whatever order, the server finds the one that can be written."""
    database = primary.database()
    binaries = find_binaries()
    assert binaries is not None
    with Postgres(binaries, primary) as standby:
        name = database.rpartition("/")[2]
        hosts = f"127.0.0.1:{standby.port},127.0.0.1:{primary.port}"
        alone = f"postgresql://headway@127.0.0.1:{standby.port}/{name}"
        with RunningApp(f"postgresql://headway@{hosts}/{name}") as app:
            assert app.app.engine.name == f"postgresql://{hosts}/{name}"
            job_id = new_job(app)
            with pytest.raises(StartError, match="read-only"):
                open_engine(alone)
            with pytest.raises(StartError, match="has transaction_read_only on, not off: a standby"):
                open_engine(f"{alone}?target_session_attrs=any")
            with psycopg.connect(alone, autocommit=True) as other:
                until(lambda: other.execute("SELECT id FROM job WHERE id = %s", (job_id,)).fetchone() is not None)
            primary.stop("immediate")
            try:
                until(lambda: create(app) == "DATABASE_UNAVAILABLE")
                standby.promote()
                until(lambda: create(app) == "OK")
                assert app.stub.GetJob(pb.GetJobRequest(session_id=SESSION, job_id=job_id), timeout=20).id == job_id
            finally:
                primary.start()


def test_a_server_that_no_longer_waits_for_the_disk(primary: Postgres, caplog: pytest.LogCaptureFixture) -> None:
    database = primary.database()
    with RunningApp(database) as app, caplog.at_level(logging.WARNING):
        assert create(app) == "OK"
        with setting(database, "fsync", "off"):
            # Its next connection tells.
            cut(database)
            assert create(app) == "DATABASE_UNAVAILABLE"
            with pytest.raises(StartError, match="has fsync off, not on: acknowledged writes could be lost"):
                open_engine(database)
        until(lambda: create(app) == "OK")
    assert "fsync off, not on" in caplog.text


def test_a_table_that_changes_under_a_running_server(primary: Postgres) -> None:
    """Statements that PostgreSQL had prepared no longer fit; new connections prepare them anew."""
    database = primary.database()
    with RunningApp(database) as app:
        job_id = new_job(app)

        def get() -> object:
            return app.stub.GetJob(pb.GetJobRequest(session_id=SESSION, job_id=job_id), timeout=20)

        def read_often() -> set[str]:
            return {outcome(get) for _ in range(60)} | {create(app) for _ in range(12)}

        assert read_often() == {"OK"}
        with psycopg.connect(database, autocommit=True) as other:
            other.execute("ALTER TABLE job ALTER COLUMN status TYPE varchar(20)")
            other.execute("DEALLOCATE ALL")
        assert read_often() == {"OK"}


def test_a_migration_that_is_cut_holds_no_lock(primary: Postgres) -> None:
    """The session that held the lock is gone with it, so that the next start is not kept waiting."""
    database = primary.database()
    with psycopg.connect(database, autocommit=True) as other:
        other.execute(
            "CREATE FUNCTION cut() RETURNS event_trigger LANGUAGE plpgsql "
            "AS $$ BEGIN PERFORM pg_terminate_backend(pg_backend_pid()); END $$"
        )
        other.execute(
            "CREATE EVENT TRIGGER cut ON ddl_command_start WHEN TAG IN ('CREATE TABLE') EXECUTE FUNCTION cut()"
        )
        engine = open_engine(database)
        with pytest.raises(StartError, match="could not be migrated") as caught:
            migrate(engine)
        assert "\n" not in str(caught.value)
        other.execute("DROP EVENT TRIGGER cut")
        assert other.execute("SELECT count(*) FROM pg_locks WHERE locktype = 'advisory'").fetchone() == (0,)
    engine = open_engine(database)
    assert migrate(engine)
    engine.close()


def test_a_start_that_waits_for_a_migration_says_so_once(primary: Postgres, tmp_path: Path) -> None:
    database = primary.database()
    server = ServerProcess(tmp_path, database=database)
    with psycopg.connect(database, autocommit=True) as other, ThreadPoolExecutor(1) as pool:
        other.execute("SELECT pg_advisory_lock(%s)", (MIGRATION_LOCK,))
        starting = pool.submit(server.start)
        try:
            log = tmp_path / "server.log"
            until(lambda: log.exists() and "waiting until another server" in log.read_text(), timeout=60)
            assert not starting.done()
            advice = "SELECT pid FROM pg_locks WHERE locktype = 'advisory' AND objid = %s AND granted"
            assert advice % MIGRATION_LOCK in log.read_text()
            assert other.execute(advice, (MIGRATION_LOCK,)).fetchone() == (other.info.backend_pid,)
        finally:
            other.execute("SELECT pg_advisory_unlock(%s)", (MIGRATION_LOCK,))
        try:
            starting.result(timeout=60)
            assert server.log.count("waiting until another server") == 1
        finally:
            server.kill()

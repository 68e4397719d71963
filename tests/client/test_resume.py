"""Jobs that are carried on: by their id, by their key, and while no server can be asked."""

import socket
import threading
import time
from collections.abc import Iterator

import grpc
import pytest
from google.protobuf.duration_pb2 import Duration
from google.rpc import error_details_pb2, status_pb2

import headway
from headway import aio
from headway._engine import requests
from headway._spool import spool
from headway.v1 import job_pb2
from headway.v1 import job_service_pb2 as rpc
from tests.client.fakes import FakeServer, Proxy
from tests.support.server import ServerProcess


@pytest.fixture
def nobody() -> Iterator[str]:
    """An address where connections are refused."""
    with socket.socket() as held:
        held.bind(("127.0.0.1", 0))
        yield f"127.0.0.1:{held.getsockname()[1]}"


def broken_off(hw: headway.Client) -> str:
    """A job that failed in the middle."""
    with pytest.raises(OSError, match="disk"), hw.job(name="Import", size=10, key="night", labels={"a": "1"}) as job:
        job.progress = 7
        job.count("added", 6)
        job.checkpoint({"offset": 7})
        raise OSError("the disk is full")
    return job.id


def test_resume_continues_a_job_that_failed(hw: headway.Client) -> None:
    failed = broken_off(hw)
    with hw.resume(None, failed) as job:
        assert (job.name, job.size, job.progress, job.get("offset"), job.attempt) == ("Import", 10, 7, 7, 1)
        assert job.snapshot.continues == failed
        job.advance(3)
        job.count("added", 3)
    done = hw.get(None, job.id)
    assert (done.status, done.progress, done.counters["added"]) == (job_pb2.JOB_STATUS_COMPLETED, 10, 9)
    assert done.heartbeat_timeout.seconds == 60
    former = hw.get(None, failed)
    assert (former.status, former.progress, former.continued_by) == (job_pb2.JOB_STATUS_FAILED, 7, job.id)


def test_resume_takes_over_a_job_that_goes_on(hw: headway.Client) -> None:
    stopped = threading.Event()
    former = hw.job(name="Import", on_stopped=lambda error: stopped.set())
    former.advance(3)
    assert former.flush()
    job = hw.resume(None, former.id)
    assert (job.id, job.progress, job.attempt) == (former.id, 3, 2)
    former.advance()
    assert stopped.wait(20)


def test_resume_goes_to_the_end_of_a_chain(hw: headway.Client) -> None:
    failed = broken_off(hw)
    first = hw.resume(None, failed)
    assert hw.resume(None, failed).id == first.id
    hw.resume(None, failed).fail("again")
    last = hw.resume(None, failed)
    assert last.snapshot.continues == first.id
    assert last.progress == 7


def test_a_key_finds_the_job_at_every_start(hw: headway.Client) -> None:
    with hw.job(name="Nightly", key="nightly") as first:
        first.checkpoint({"offset": 3})
        first.advance(3)
        assert first.flush()
        again = hw.job(name="Nightly", key="nightly")
        assert (again.id, again.attempt, again.progress, again.get("offset")) == (first.id, 2, 3, 3)
        again.finish("done")
    assert hw.results(None, first.id) == "done"
    anew = hw.job(name="Nightly", key="nightly")
    assert (anew.id == first.id, anew.attempt, anew.progress) == (False, 1, 0)


def test_a_pending_job_with_the_key_is_started(hw: headway.Client) -> None:
    waiting = hw.job(name="Nightly", key="k", pending=True)
    job = hw.job(key="k")
    assert (job.id, job.status, job.attempt) == (waiting.id, headway.Status.RUNNING, 1)
    assert hw.job(key="k", pending=True).attempt == 1


def test_a_job_can_be_created_as_a_continuation(hw: headway.Client) -> None:
    failed = broken_off(hw)
    job = hw.job(name="Again", continues=failed, key="night")
    assert (job.name, job.size, job.progress, job.get("offset"), job.snapshot.key) == ("Again", 10, 7, 7, "night")
    with pytest.raises(headway.StateError) as refused:
        hw.job(continues=failed)
    assert refused.value.reason == "JOB_ALREADY_CONTINUED"
    with pytest.raises(headway.NotFoundError):
        hw.job(continues="0" * 32)
    with pytest.raises(headway.InvalidError):
        hw.job(key="x" * 257)


async def test_asyncio_carries_on_too(server: ServerProcess, session: str) -> None:
    async with aio.connect(server.address, session=session) as hw:
        async with hw.job(name="Nightly", key="k") as job:
            job.advance(3)
            job.checkpoint({"offset": 3})
            assert await job.flush()
            stopped: list[headway.HeadwayError] = []
            again = await hw.job(key="k", on_stopped=stopped.append)
            assert (again.id, again.name, again.progress, await again.get("offset")) == (job.id, "Nightly", 3, 3)
            await again.fail("broken")
        resumed = await hw.resume(None, job.id)
        assert (resumed.progress, resumed.attempt, resumed.snapshot.continues) == (3, 1, job.id)
        await resumed.fail("broken too")
        async with hw.job(name="Third", continues=resumed.id) as third:
            assert (third.name, third.progress) == ("Third", 3)
        assert (await hw.get(None, third.id)).status == job_pb2.JOB_STATUS_COMPLETED
        with pytest.raises(headway.StateError):
            await hw.job(continues=resumed.id)


def test_without_a_server_the_work_goes_on_and_the_key_is_asked_for_later(nobody: str, session: str) -> None:
    with headway.connect(nobody, session=session, exit_timeout=0.1) as away, away.job(name="Nightly", key="k") as job:
        job.advance(5)
    (spool_file,) = spool.spool_files()
    creation, *_ = spool.SpoolRecord.decode(spool_file.read_bytes()).requests
    assert isinstance(creation, rpc.CreateJobRequest)
    assert (creation.job_id, creation.key, creation.key_if_free) == (job.id, "k", True)


async def test_asyncio_without_a_server(nobody: str, session: str) -> None:
    async with aio.connect(nobody, session=session, exit_timeout=0.1) as hw:
        async with hw.job(name="Nightly", key="k") as job:
            job.advance(2)
        assert job.progress == 2


def test_a_server_that_says_nothing_holds_nobody_up(server: ServerProcess, proxy: Proxy, session: str) -> None:
    proxy.swallow()
    with headway.connect(proxy.address, session=session, exit_timeout=0.1) as hw:
        began = time.monotonic()
        job = hw.job(name="Nightly", key="k")
        # The limit for a call is 10 s, and there would be two of them.
        assert time.monotonic() - began < 8
        job.advance()


@pytest.mark.parametrize("seconds", [0, -(2**62)])
def test_a_server_that_is_overloaded_is_asked_again(fake: FakeServer, seconds: int) -> None:
    """To begin at once would be to do all work again."""
    refusal = status_pb2.Status(code=grpc.StatusCode.RESOURCE_EXHAUSTED.value[0])
    refusal.details.add().Pack(error_details_pb2.ErrorInfo(reason="OVERLOADED", domain="headway"))
    refusal.details.add().Pack(error_details_pb2.RetryInfo(retry_delay=Duration(seconds=seconds)))
    refusals = iter([True, True])

    def refuse(context: grpc.ServicerContext) -> None:
        if next(refusals, False):
            context.set_trailing_metadata((("grpc-status-details-bin", refusal.SerializeToString()),))
            context.abort(grpc.StatusCode.RESOURCE_EXHAUSTED, "")

    fake.service.on_create = refuse
    with headway.connect(fake.address, session="s", exit_timeout=1) as hw, hw.job(key="k") as job:
        job.advance()
    asked = [fake.service.created.get() for _ in range(3)]
    assert [request.key_if_free for request in asked] == [False, False, False]


def test_what_nobody_could_be_asked_for_spoils_no_other_job(hw: headway.Client) -> None:
    """The worker has begun before the server answers: what it says later must not go to the job with the key."""
    first = hw.job(name="Nightly", key="k")
    request = requests.create(first.session, "Nightly", {"key": "k"})
    request.key_if_free = True
    job = headway.Job(hw, first.session, requests.described(request), heartbeat=60.0, started=False)
    pending_call = job._begin_with(request)
    assert pending_call.tried.wait(20)
    job.advance(4)
    job.finish()
    assert hw.get(None, job.id).progress == 4
    assert hw.get(None, first.id).progress == 0

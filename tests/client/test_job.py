import asyncio
import threading
import time
from concurrent.futures import ThreadPoolExecutor

import grpc
import pytest

import headway
from headway.v1 import job_pb2
from headway.v1 import job_service_pb2 as rpc
from headway.v1.job_service_pb2_grpc import JobServiceStub
from tests.support.server import ServerProcess


def test_the_example_of_the_documentation(server: ServerProcess, session: str) -> None:
    batch = [f"record {n}" for n in range(500)]
    with headway.connect(server.address) as hw:
        with hw.job(session, "Stage MARC records", size=len(batch), unit="records") as job:
            for _record in job.track(batch):
                job.count("added")
            job.results = {"added": 412, "updated": 88}
        seen = hw.get(session, job.id)
        assert (seen.name, seen.size, seen.unit) == ("Stage MARC records", 500, "records")
        assert (seen.status, seen.progress) == (job_pb2.JOB_STATUS_COMPLETED, 500)
        assert dict(seen.counters) == {"added": 500}
        assert hw.results(session, job.id) == {"added": 412, "updated": 88}
        assert job.status is headway.Status.COMPLETED


def test_a_clock_that_is_set_back_between_two_processes_loses_nothing(
    own_server: ServerProcess, session: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    now, job_id = time.time_ns, "0190b5a1c8d07b2a9c3e5f60718293a4"

    def work(hours_back: int, runs: int) -> None:
        monkeypatch.setattr(time, "time_ns", lambda: now() - hours_back * 3_600_000_000_000)
        with headway.connect(own_server.address, session=session) as hw:
            job = hw.fetch(None, job_id) or hw.job(job_id=job_id)
            job.advance(1)
            job.part("other").advance(2)
            job.count("seen")
            assert job.flush(20)
            seen = hw.get(None, job_id)
            assert (seen.progress, seen.parts["other"], seen.counters["seen"]) == (3 * runs, 2 * runs, runs)

    for hours_back in (0, 1, 2):
        work(hours_back, hours_back + 1)


def test_a_process_goes_on_after_another_whose_clock_is_ahead(
    server: ServerProcess, session: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    now = time.time_ns
    with monkeypatch.context() as ahead, headway.connect(server.address, session=session) as hw:
        # Ahead of the server's clock too: no time that the server knows is above these sequences.
        ahead.setattr(time, "time_ns", lambda: now() + 3_600_000_000_000)
        earlier = hw.job()
        earlier.advance(1)
        earlier.part("other").advance(2)
        earlier.count("seen")
        assert earlier.flush(20)
    with headway.connect(server.address, session=session) as hw:
        later = hw.fetch(None, earlier.id)
        assert later is not None
        for done in (1, 2):
            later.advance(3)
            later.part("other").advance(1)
            later.part("new").advance(1)
            later.count("seen")
            assert later.flush(20)
            seen = hw.get(None, earlier.id)
            assert dict(seen.parts) == {"": 1 + 3 * done, "other": 2 + done, "new": done}
            assert dict(seen.counters) == {"seen": 1 + done}


def test_a_sequence_above_which_there_is_none_hides_no_other_part(server: ServerProcess, session: str) -> None:
    with headway.connect(server.address, session=session) as hw:
        job_id = hw.job().id
        report = rpc.ReportProgressRequest(session_id=session, job_id=job_id, part="far", advance=1, sequence=2**63 - 1)
        with grpc.insecure_channel(server.address) as channel:
            JobServiceStub(channel).ReportProgress(report, timeout=20)
        job = hw.fetch(None, job_id)
        assert job is not None
        for done in (1, 2):
            job.advance(1)
            assert job.flush(20)
            assert dict(hw.get(None, job_id).parts) == {"far": 1, "": done}


def test_an_exception_fails_the_job_and_goes_on_unchanged(hw: headway.Client) -> None:
    error = LookupError("no such thing")
    with pytest.raises(LookupError) as caught, hw.job() as job:
        job.advance(3)
        raise error
    assert caught.value is error
    seen = hw.get(None, job.id)
    assert (seen.status, seen.progress) == (job_pb2.JOB_STATUS_FAILED, 3)
    assert (seen.error.code, seen.error.message) == (2, "LookupError: no such thing")


@pytest.mark.parametrize(
    ("error", "status", "message"),
    [
        (KeyboardInterrupt(), job_pb2.JOB_STATUS_CANCELLED, "KeyboardInterrupt"),
        (asyncio.CancelledError("stop"), job_pb2.JOB_STATUS_CANCELLED, "CancelledError: stop"),
        (headway.JobCancelled("enough"), job_pb2.JOB_STATUS_CANCELLED, "JobCancelled: enough"),
        (SystemExit(3), job_pb2.JOB_STATUS_FAILED, "SystemExit: 3"),
        (SystemExit(0), job_pb2.JOB_STATUS_COMPLETED, ""),
        (SystemExit(), job_pb2.JOB_STATUS_COMPLETED, ""),
        (ValueError("x" * 5000 + "\ud800"), job_pb2.JOB_STATUS_FAILED, ("ValueError: " + "x" * 5000)[:1024]),
    ],
)
def test_how_a_job_ends(hw: headway.Client, error: BaseException, status: job_pb2.JobStatus, message: str) -> None:
    with pytest.raises(type(error)) as caught, hw.job() as job:
        raise error
    assert caught.value is error
    seen = hw.get(None, job.id)
    assert (seen.status, seen.error.message) == (status, message)


def test_a_job_ended_inside_its_block_is_not_ended_again(hw: headway.Client) -> None:
    with hw.job() as job:
        job.fail("no paper left")
        job.finish({"late": True})
    assert hw.get(None, job.id).error.message == "no paper left"
    with pytest.raises(RuntimeError), hw.job() as other:
        other.finish({"done": 1})
        raise RuntimeError
    assert hw.get(None, other.id).status == job_pb2.JOB_STATUS_COMPLETED
    assert hw.results(None, other.id) == {"done": 1}


def test_the_documented_methods(hw: headway.Client) -> None:
    job = hw.new(None, "Import", "admin", 100)
    assert (job.name, job.invoker, job.size, job.progress) == ("Import", "admin", 100, 0)
    assert job.status is headway.Status.RUNNING
    assert job.results is None
    job.set({"file": "a.mrc", "n": 3, "flags": [True, None, 0.5]})
    job.name, job.invoker, job.size = "Import 2", "cron", 200
    job.progress = 10
    job.progress += 5
    job.message = "reading"
    assert job.get("file") == "a.mrc"
    assert job.get("nothing") is None
    assert job.flush()

    again = hw.fetch(None, job.id)
    assert again is not None
    assert (again.id, again.name, again.invoker, again.size) == (job.id, "Import 2", "cron", 200)
    assert (again.progress, again.status, again.snapshot.message) == (15, headway.Status.RUNNING, "reading")
    assert again.get("file") == "a.mrc"
    assert again.get("flags") == [True, None, 0.5]
    assert again.results is None

    job.finish({"added": 15})
    done = hw.fetch(None, job.id)
    assert done is not None
    assert (done.status, done.results) == (headway.Status.COMPLETED, {"added": 15})
    assert again.refresh().results == {"added": 15}

    job.clear()
    assert hw.fetch(None, job.id) is None
    job.clear()


@pytest.mark.parametrize(
    "results", [None, 0, -1.5, "text", [1, [2]], {}, {"a": {"b": [None, True]}}, {"big": "9" * 700_000}]
)
def test_results_are_kept_as_given(hw: headway.Client, results: object) -> None:
    with hw.job() as job:
        job.results = results
    assert hw.results(None, job.id) == results


def test_results_that_the_server_refuses_do_not_keep_the_job_open(
    hw: headway.Client, caplog: pytest.LogCaptureFixture
) -> None:
    for size in (1_500_000, 5_000_000):
        with hw.job() as job:
            job.advance()
            job.results = {"big": "9" * size}
        seen = hw.get(None, job.id)
        assert (seen.status, seen.progress) == (job_pb2.JOB_STATUS_COMPLETED, 1)
        assert hw.results(None, job.id) is None
    assert ["were refused" in record.getMessage() for record in caplog.records] == [True, True]


def test_variables_that_the_server_refuses_take_nothing_else_with_them(
    hw: headway.Client, caplog: pytest.LogCaptureFixture
) -> None:
    with hw.job() as job:
        job.advance(4)
        job.count("added", 2)
        job.record_error("r")
        job.set({"big": "9" * 300_000})
        assert job.flush()
        job.set({"small": 1})
    seen = hw.get(None, job.id)
    assert (seen.progress, dict(seen.counters), seen.error_count) == (4, {"added": 2}, 1)
    assert hw.variables(None, job.id) == {"small": 1}
    assert len(caplog.records) == 1


def test_thousands_of_record_errors(hw: headway.Client) -> None:
    with hw.job() as job:
        for number in range(5000):
            job.record_error(number, "x" * 1000, "BAD")
    listed = hw.record_errors(None, job.id)
    assert listed.total == 5000
    assert (listed.first[0].record, listed.last[-1].record) == ("0", "4999")
    assert (listed.first[0].message, listed.first[0].code) == ("x" * 1000, "BAD")


def test_track_gives_an_unknown_size(hw: headway.Client) -> None:
    with hw.job() as unknown, hw.job(size=7) as known:
        assert len(list(unknown.track(range(5)))) == 5
        assert len(list(known.track([1, 2]))) == 2
        assert unknown.size == 5
    assert hw.get(None, unknown.id).size == 5
    assert hw.get(None, known.id).size == 7


def test_threads_share_a_job_by_parts_and_by_advance(hw: headway.Client) -> None:
    with hw.job(size=400) as job:

        def work(number: int) -> None:
            mine = job.part(f"worker {number}")
            assert job.part(f"worker {number}") is mine
            for _ in mine.track(range(50)):
                mine.count("added")
                job.advance()

        with ThreadPoolExecutor(4) as pool:
            list(pool.map(work, range(4)))
    seen = hw.get(None, job.id)
    assert dict(seen.parts) == {"": 200, **{f"worker {n}": 50 for n in range(4)}}
    assert seen.progress == 400
    assert seen.counters["added"] == 200


def test_a_cancelled_job_learns_of_it(hw: headway.Client) -> None:
    with pytest.raises(headway.JobCancelled, match="too slow"), hw.job() as job:
        job.raise_if_cancelled()
        assert not job.cancelled
        assert job.cancellation is None
        hw.cancel(None, job.id, reason="too slow", grace=30)
        job.advance()
        assert job.cancelled.wait(10)
        assert job.cancelled
        assert job.cancellation is not None
        assert job.cancellation.reason == "too slow"
        job.raise_if_cancelled()
    seen = hw.get(None, job.id)
    assert seen.status == job_pb2.JOB_STATUS_CANCELLED
    assert seen.cancellation.seen


def test_resume_takes_over_with_variables_and_progress(hw: headway.Client, caplog: pytest.LogCaptureFixture) -> None:
    first = hw.job(name="long")
    first.advance(40)
    first.checkpoint({"offset": 40})
    assert first.flush()
    second = hw.resume(None, first.id)
    assert (second.attempt, second.get("offset"), second.progress) == (2, 40, 40)
    with second:
        second.advance(2)
        assert second.flush()
        first.advance(1000)
        first.flush()
        assert first.stopped is not None
        assert first.stopped.reason == "STALE_ATTEMPT"
    first.finish()
    seen = hw.get(None, second.id)
    assert (seen.status, seen.progress) == (job_pb2.JOB_STATUS_COMPLETED, 42)
    assert len(caplog.records) == 1


def test_a_pending_job_is_reported_once_it_is_taken(hw: headway.Client) -> None:
    pending = hw.job(pending=True, size=3)
    assert pending.status is headway.Status.PENDING
    assert hw.get(None, pending.id).status == job_pb2.JOB_STATUS_PENDING
    with hw.resume(None, pending.id) as job:
        job.advance(3)
    assert hw.get(None, pending.id).progress == 3


def test_a_fetched_job_can_be_changed(hw: headway.Client) -> None:
    with hw.job() as job:
        job.advance(5)
        assert job.flush()
        for change in ("advance", "progress", "set", "part", "count"):
            other = hw.fetch(None, job.id)
            assert other is not None
            match change:
                case "advance":
                    other.advance(2)
                case "progress":
                    other.progress += 3
                case "set":
                    other.set({"seen": True})
                case "part":
                    other.part("helper").advance(7)
                case "count":
                    other.count("added", 4)
            assert other.flush()
        seen = hw.get(None, job.id)
        assert dict(seen.parts) == {"": 10, "helper": 7}
        assert dict(seen.counters) == {"added": 4}
        assert hw.variables(None, job.id) == {"seen": True}


def test_a_chosen_id_makes_creation_repeatable(hw: headway.Client) -> None:
    first = hw.job(name="a", job_id="0" * 32)
    assert hw.job(name="a", job_id="0" * 32).id == first.id == "0" * 32
    with pytest.raises(headway.HeadwayError) as caught:
        hw.job(name="b", job_id="0" * 32)
    assert caught.value.reason == "JOB_ALREADY_EXISTS"


def test_what_is_wrong_is_said_at_once(hw: headway.Client) -> None:
    with pytest.raises(headway.InvalidError) as caught:
        hw.job(job_id="x", labels={"k" * 64: "v"})
    assert caught.value.reason == "INVALID_REQUEST"
    assert {field for field, _ in caught.value.fields} == {"job_id", "labels"}


def test_a_session_is_needed(server: ServerProcess, session: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("HEADWAY_SESSION", raising=False)
    with headway.connect(server.address) as hw:
        with pytest.raises(ValueError, match="HEADWAY_SESSION"):
            hw.job()
        monkeypatch.setenv("HEADWAY_SESSION", session)
        with hw.job() as job:
            assert job.session == session
        assert session not in repr(job)


def test_wait_sees_the_end(hw: headway.Client) -> None:
    job = hw.job()
    other = hw.fetch(None, job.id)
    assert other is not None
    with pytest.raises(TimeoutError):
        other.wait(0.1)
    timer = threading.Timer(0.1, job.finish)
    timer.start()
    assert other.wait(10).status == job_pb2.JOB_STATUS_COMPLETED
    assert other.status is headway.Status.COMPLETED
    timer.join()

"""StreamProgress: what is acknowledged, what failed and where, what stays when the stream breaks."""

import queue
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import grpc
import pytest
from google.rpc import status_pb2

from headway.v1 import job_pb2
from headway.v1 import job_service_pb2 as pb
from headway_server.domain.errors import JobError
from headway_server.rpc import servicer, to_proto
from headway_server.service import command_costs
from tests.support.caller import TIMEOUT, Caller, seconds, struct
from tests.support.refusals import faults, from_error, from_status, only, refused_with
from tests.support.waiting import held_commits

METHOD = "/headway.v1.JobService/StreamProgress"


class Stream:
    """A stream whose requests a test sends one by one."""

    def __init__(self, caller: Caller) -> None:
        self.caller = caller
        self._requests: queue.Queue[pb.StreamProgressRequest | None] = queue.Queue()
        self.responses = caller.stream(iter(self._requests.get, None))
        self.received: list[pb.StreamProgressResponse] = []

    def send(self, *reports: dict[str, Any]) -> None:
        self._requests.put(self.caller.batch(*reports))

    def until_acked(self, count: int) -> pb.StreamProgressResponse:
        """Read until so many requests are acknowledged; the last response."""
        while not self.received or self.received[-1].acked < count:
            self.received.append(next(self.responses))
        return self.received[-1]

    def close(self) -> list[pb.StreamProgressResponse]:
        """Half-close, and read to the end; all responses."""
        self._requests.put(None)
        self.received.extend(self.responses)
        return self.received


def failures(responses: list[pb.StreamProgressResponse]) -> dict[tuple[int, int], status_pb2.Status]:
    """By request and report; each is named once."""
    found = {}
    for response in responses:
        for failure in response.failures:
            assert (failure.request, failure.report) not in found
            found[failure.request, failure.report] = failure.status
    return found


def test_each_request_is_acknowledged_when_it_is_committed(caller: Caller) -> None:
    """What is acknowledged can be read, at once."""
    job = caller.create()
    stream = Stream(caller)
    for number in range(1, 6):
        stream.send({"job_id": job.id, "progress": number})
        assert stream.until_acked(number).acked == number
        assert caller.get(job.id).progress == number
    stream.close()
    assert stream.responses.code() is grpc.StatusCode.OK


def test_acknowledgements_are_cumulative(caller: Caller) -> None:
    """One response can answer many requests; the last one answers all."""
    job = caller.create()
    stream = Stream(caller)
    for number in range(1, 301):
        stream.send({"job_id": job.id, "advance": 1, "sequence": number})
    acked = [response.acked for response in stream.close()]
    assert acked == sorted(set(acked))
    assert acked[-1] == 300
    assert caller.get(job.id).progress == 300


def test_reports_are_applied_in_their_order(caller: Caller) -> None:
    """Within a request and from one to the next."""
    job = caller.create()
    stream = Stream(caller)
    for number in range(20):
        stream.send(*({"job_id": job.id, "progress": p, "message": f"{p}"} for p in (number, 100 - number, 7 * number)))
    stream.close()
    now = caller.get(job.id)
    assert (now.progress, now.message) == (133, "133")


def test_one_stream_serves_many_jobs(caller: Caller) -> None:
    """More than the database is asked for at once, and a thousand reports in one request."""
    jobs = caller.create_many(200)
    reports: list[dict[str, Any]] = [{"job_id": i, "advance": 1, "part": f"{n}"} for n in range(5) for i in jobs]
    responses = list(caller.stream([caller.batch(*reports)]))
    assert [response.acked for response in responses] == [1]
    assert failures(responses) == {}
    assert {job.progress for job in caller.list(page_size=1000).jobs} == {5}


def test_reports_of_several_sessions(caller: Caller, stranger: Caller) -> None:
    """Each report names its session; one that names the wrong one is refused and no more."""
    mine, theirs = caller.create(), stranger.create()
    reports = [
        {"job_id": mine.id, "progress": 1},
        {"job_id": theirs.id, "progress": 2},
        {"session_id": stranger.session, "job_id": theirs.id, "progress": 3},
    ]
    assert failures(list(caller.stream([caller.batch(*reports)]))).keys() == {(0, 1)}
    assert (caller.get(mine.id).progress, stranger.get(theirs.id).progress) == (1, 3)


BAD: dict[str, tuple[dict[str, Any], str]] = {
    "a job that is not there": ({"job_id": "0" * 32}, "JOB_NOT_FOUND"),
    "a malformed id": ({"job_id": "x"}, "INVALID_REQUEST"),
    "no session": ({"session_id": ""}, "INVALID_REQUEST"),
    "all sessions": ({"session_id": "-"}, "SCOPE_MISSING"),
    "a negative progress": ({"progress": -1}, "INVALID_REQUEST"),
    "an advance below 0": ({"advance": -1000}, "INVALID_REQUEST"),
    "an attempt that was not given": ({"attempt": 3}, "INVALID_REQUEST"),
    "several faults": ({"job_id": "", "session_id": "", "sequence": -1, "part": "x" * 200}, "INVALID_REQUEST"),
    "too many variables": ({"variables": struct({f"{n}": n for n in range(257)})}, "INVALID_REQUEST"),
}


@pytest.mark.parametrize("kind", BAD)
def test_a_bad_report_spoils_none_of_its_neighbours(caller: Caller, kind: str) -> None:
    """It is named by request and report, from 0, with what ReportProgress would have answered."""
    bad, reason = BAD[kind]
    job = caller.create()
    good = {"job_id": job.id, "part": "good", "advance": 1}
    wrong = {"job_id": job.id, **bad}
    responses = list(
        caller.stream([caller.batch(good, good), caller.batch(good, wrong, good, wrong), caller.batch(good)])
    )
    assert responses[-1].acked == 3
    found = failures(responses)
    assert found.keys() == {(1, 1), (1, 3)}
    alone = refused_with(
        reason, lambda: caller.report(**wrong) if "session_id" not in wrong else report_in(caller, wrong)
    )
    for status in found.values():
        refusal = from_status(status)
        assert (refusal.code, refusal.message, refusal.details) == (alone.code, alone.message, alone.details)
    assert caller.get(job.id).progress == 5


def report_in(caller: Caller, fields: dict[str, Any]) -> object:
    return caller.app.stub.ReportProgress(pb.ReportProgressRequest(**fields), timeout=TIMEOUT)


def test_states_count_in_a_stream_too(caller: Caller) -> None:
    pending, ended, taken = caller.create(pending=True), caller.create(), caller.create()
    caller.finish(ended.id)
    caller.start(taken.id, take_over=True)
    reports: list[dict[str, Any]] = [
        {"job_id": pending.id},
        {"job_id": ended.id},
        {"job_id": taken.id, "attempt": 1},
        {"job_id": taken.id, "attempt": 2, "progress": 4},
    ]
    found = failures(list(caller.stream([caller.batch(*reports)])))
    reasons = {position: from_status(status).reason for position, status in found.items()}
    assert reasons == {(0, 0): "JOB_NOT_STARTED", (0, 1): "JOB_ENDED", (0, 2): "STALE_ATTEMPT"}
    assert caller.get(taken.id).progress == 4


def test_a_refused_report_changes_nothing_and_the_next_one_counts(caller: Caller) -> None:
    """All of a report or none of it, in a stream too."""
    job = caller.create()
    bad = {"job_id": job.id, "advance": 5, "sequence": 1, "message": "bad", "counters": {"": 1}}
    good = {"job_id": job.id, "advance": 5, "sequence": 1, "counters": {"a": 1}}
    assert failures(list(caller.stream([caller.batch(bad, good)]))).keys() == {(0, 0)}
    now = caller.get(job.id)
    assert (now.progress, now.message, dict(now.counters)) == (5, "", {"a": 1})


def test_a_stream_opened_again_sends_again_what_was_not_acknowledged(caller: Caller) -> None:
    """With sequences nothing counts twice, wherever the stream broke."""
    job = caller.create()
    requests = [caller.batch({"job_id": job.id, "advance": 1, "sequence": n}) for n in range(1, 31)]
    for begin in (0, 10, 5):
        responses = list(caller.stream(requests[begin : begin + 20]))
        assert responses[-1].acked == len(requests[begin : begin + 20])
        assert failures(responses) == {}
    assert caller.get(job.id).progress == 30


def test_a_worker_learns_of_a_cancellation(caller: Caller) -> None:
    """In the answer to the next request about the job; the workers of other jobs hear nothing of it."""
    job, other = caller.create(), caller.create()
    stream = Stream(caller)
    stream.send({"job_id": job.id}, {"job_id": other.id})
    assert list(stream.until_acked(1).cancellations) == []
    caller.cancel(job.id, "enough", 600)
    stream.send({"job_id": other.id})
    assert list(stream.until_acked(2).cancellations) == []
    assert not caller.get(job.id).cancellation.seen
    stream.send({"job_id": other.id}, {"job_id": job.id}, {"job_id": job.id})
    (told,) = stream.until_acked(3).cancellations
    assert told.job_id == job.id
    assert (told.cancellation.requested, told.cancellation.reason) == (True, "enough")
    assert caller.get(job.id).cancellation.seen
    stream.close()


def test_a_report_brings_a_lost_job_back(caller: Caller) -> None:
    job = caller.create(heartbeat_timeout=seconds(60))
    caller.app.pass_time(61)
    assert caller.get(job.id).status == job_pb2.JOB_STATUS_LOST
    list(caller.stream([caller.batch({"job_id": job.id})]))
    assert caller.get(job.id).status == job_pb2.JOB_STATUS_RUNNING


def test_the_server_paces_a_stream(caller: Caller) -> None:
    """By the job that is due soonest."""
    calm, hasty = caller.create(), caller.create(heartbeat_timeout=seconds(1.5))
    stream = Stream(caller)
    stream.send({"job_id": calm.id})
    slow = stream.until_acked(1).next_report_after.ToTimedelta().total_seconds()
    stream.send({"job_id": calm.id}, {"job_id": hasty.id})
    quick = stream.until_acked(2).next_report_after.ToTimedelta().total_seconds()
    assert 0 < quick <= 0.5 < slow
    stream.close()


def test_an_empty_request_asks_how_far_the_stream_has_come(caller: Caller) -> None:
    stream = Stream(caller)
    stream.send()
    assert stream.until_acked(1) == pb.StreamProgressResponse(acked=1)
    stream.send()
    assert stream.until_acked(2) == pb.StreamProgressResponse(acked=2)
    stream.close()


def test_a_stream_without_requests_ends_well(caller: Caller) -> None:
    stream = Stream(caller)
    assert stream.close() == []
    assert stream.responses.code() is grpc.StatusCode.OK


def test_too_many_reports_end_the_stream_and_what_came_before_stays(caller: Caller) -> None:
    job = caller.create()
    stream = Stream(caller)
    stream.send({"job_id": job.id, "progress": 1})
    stream.send(*[{"job_id": job.id, "advance": 1}] * 1000)
    stream.until_acked(2)
    stream.send(*[{"job_id": job.id, "advance": 1}] * 1001)
    assert faults(lambda: next(stream.responses)) == {"reports"}
    assert caller.get(job.id).progress == 1001


@pytest.mark.parametrize("bad", [b"\xff" * 50, b"\x0a\x05abc", b"\x0a\x04\x0a\x02\xc3\x28", b"\x00\x01", b"\x0b"])
def test_malformed_bytes_end_the_stream_and_what_came_before_stays(caller: Caller, bad: bytes) -> None:
    """Earlier requests are committed and acknowledged first."""
    job = caller.create()
    good = [caller.batch({"job_id": job.id, "advance": 1}).SerializeToString() for _ in range(3)]
    call: Callable[..., Any] = caller.app.channel.stream_stream(METHOD)
    responses = call(iter([*good, bad, *good]), timeout=TIMEOUT)
    acked = 0
    with pytest.raises(grpc.RpcError) as failure:
        for response in responses:
            acked = pb.StreamProgressResponse.FromString(response).acked
    refusal = from_error(failure.value)
    assert (refusal.code, refusal.reason) == ("INVALID_ARGUMENT", "MALFORMED_MESSAGE")
    assert acked == 3
    assert caller.get(job.id).progress == 3
    assert caller.report(job.id, advance=1).progress == 4


def test_a_cancelled_stream_keeps_what_was_acknowledged(caller: Caller) -> None:
    job = caller.create()
    stream = Stream(caller)
    stream.send({"job_id": job.id, "progress": 5})
    stream.until_acked(1)
    stream.responses.cancel()
    assert caller.get(job.id).progress == 5
    again = Stream(caller)
    again.send({"job_id": job.id, "progress": 6})
    assert again.until_acked(1).acked == 1, "a stream counts its own requests"
    again.close()


def test_many_faulty_reports_still_get_an_answer(caller: Caller) -> None:
    """However much is wrong with a request, what says so fits into a message, and every report is named."""
    job = caller.create()
    wrong = {"job_id": job.id, "record_errors": [job_pb2.RecordError()] * 90}
    responses = list(caller.stream([caller.batch(*[wrong] * 1000), caller.batch({"job_id": job.id, "progress": 1})]))
    assert responses[-1].acked == 2
    assert failures(responses).keys() == {(0, n) for n in range(1000)}
    assert caller.get(job.id).progress == 1


def test_many_refusals_are_named_each_with_its_own_reason(caller: Caller) -> None:
    """However they are mixed with each other and with reports that count."""
    job = caller.create()
    kinds = ["a malformed id", "a negative progress", "a job that is not there", "several faults", "all sessions"]
    wrong: list[dict[str, Any]] = [{"job_id": job.id, **BAD[kind][0]} for kind in kinds]
    alone = [failures(list(caller.stream([caller.batch(report)])))[0, 0] for report in wrong]
    batch = [
        report
        for number in range(100)
        for report in (wrong[number % 5], {"job_id": job.id, "progress": number, "sequence": number + 1})
    ]
    responses = list(caller.stream([caller.batch(*batch), caller.batch(*batch[::2])]))
    found = failures(responses)
    assert found == {(0, 2 * n): alone[n % 5] for n in range(100)} | {(1, n): alone[n % 5] for n in range(100)}
    assert caller.get(job.id).progress == 99


def test_faulty_reports_keep_the_event_loop_hardly_longer_than_good_ones(caller: Caller) -> None:
    """A few bytes can hold a thousand of them, and everybody else waits for the event loop."""
    job = caller.create()
    good = {"job_id": job.id, "progress": 1}
    faulty = {**good, **BAD["several faults"][0]}

    async def clock() -> float:
        return time.thread_time()

    def taken(report: dict[str, Any], refused: int) -> float:
        """Seconds of the CPU that the event loop takes for a thousand of it, at its best."""
        best = float("inf")
        for _ in range(3):
            began = caller.app.run(clock())
            responses = list(caller.stream([caller.batch(*[report] * 1000)]))
            best = min(best, caller.app.run(clock()) - began)
            assert len(failures(responses)) == refused
        return best

    assert taken(faulty, 1000) < 2.5 * taken(good, 0)


@pytest.mark.parametrize("kind", ["a job that is not there", "several faults"])
def test_equal_refusals_share_one_status(caller: Caller, monkeypatch: pytest.MonkeyPatch, kind: str) -> None:
    """To make one takes long, and a few bytes can hold a thousand reports that are refused."""
    made: list[JobError] = []
    status = to_proto.status

    def counted(error: JobError) -> status_pb2.Status:
        made.append(error)
        return status(error)

    monkeypatch.setattr(to_proto, "status", counted)
    wrong = {"job_id": "1" * 32, **BAD[kind][0]}
    assert len(failures(list(caller.stream([caller.batch(*[wrong] * 1000)])))) == 1000
    assert len(made) == 1


def test_a_stream_ends_by_itself_now_and_then(caller: Caller, monkeypatch: pytest.MonkeyPatch) -> None:
    """UNAVAILABLE, behind the answers to all that was received; the worker opens another."""
    monkeypatch.setattr(servicer, "STREAM_LIFE", (0.05, 0.05))
    job = caller.create()
    stream = Stream(caller)
    stream.send({"job_id": job.id, "progress": 1})
    stream.until_acked(1)
    assert refused_with("STREAM_EXPIRED", next, stream.responses).code == "UNAVAILABLE"
    assert caller.get(job.id).progress == 1


def test_a_stream_is_answered_though_its_worker_goes_on_sending(caller: Caller) -> None:
    """More requests than the server lets wait: it reads on as it commits."""
    job = caller.create()
    stream = Stream(caller)
    with held_commits(caller.app) as wait_for:
        for number in range(1, 201):
            stream.send({"job_id": job.id, "advance": 1, "sequence": number})
        wait_for(5)
    assert stream.until_acked(200).acked == 200
    assert caller.get(job.id).progress == 200
    stream.close()


def test_no_response_waits_for_the_next_request(caller: Caller) -> None:
    """A stream that goes quiet has been answered, and another stream's reports go on."""
    job = caller.create()
    quiet, busy = Stream(caller), Stream(caller)
    quiet.send({"job_id": job.id, "part": "quiet", "progress": 1})
    quiet.until_acked(1)
    for number in range(1, 21):
        busy.send({"job_id": job.id, "part": "busy", "progress": number})
        busy.until_acked(number)
    assert caller.get(job.id).progress == 21
    quiet.close()
    busy.close()


def test_a_report_of_a_job_cleared_meanwhile(caller: Caller) -> None:
    job = caller.create()
    stream = Stream(caller)
    stream.send({"job_id": job.id, "progress": 1})
    stream.until_acked(1)
    caller.clear(job.id)
    stream.send({"job_id": job.id, "progress": 2})
    response = stream.until_acked(2)
    assert only([failure.status for failure in response.failures]).reason == "JOB_NOT_FOUND"
    stream.close()


def test_others_come_in_between_the_parts_of_a_heavy_request(
    caller: Caller, stranger: Caller, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It takes several commits, in its order, and is acknowledged as a whole; the next request follows all of it."""
    monkeypatch.setattr(command_costs, "PART_WEIGHT", 10)
    job, other = caller.create(), stranger.create()
    errors = [job_pb2.RecordError(record=f"r{number}") for number in range(200)]
    reports = [{"job_id": job.id, "progress": n, "record_errors": errors[50 * n : 50 * n + 50]} for n in range(4)]
    stream = Stream(caller)
    with ThreadPoolExecutor(1) as pool, held_commits(caller.app) as wait_for:
        stream.send(*reports[:2], {"job_id": "f" * 32, "progress": 1}, *reports[2:])
        wait_for(1)
        stream.send({"job_id": job.id, "progress": 9})
        reported = pool.submit(stranger.report, other.id, advance=1)
        wait_for(2)
    stream.until_acked(2)
    assert failures(stream.close()).keys() == {(0, 2)}
    reported.result(TIMEOUT)
    assert (
        stranger.get(other.id).last_contact_time.ToNanoseconds() < caller.get(job.id).last_contact_time.ToNanoseconds()
    )
    assert [error.record for error in (*caller.errors(job.id).first, *caller.errors(job.id).last)] == [
        error.record for error in errors
    ]
    assert caller.get(job.id).progress == 9

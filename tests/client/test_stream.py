"""What the reporting thread sends, seen from a server that does as the test says."""

import time
from itertools import pairwise
from queue import Empty

import grpc
import pytest
from google.rpc import error_details_pb2, status_pb2

import headway
from headway.v1 import job_service_pb2 as rpc
from tests.client.fakes import FakeServer, Proxy, acknowledge
from tests.support.server import ServerProcess


def refuse(context: grpc.ServicerContext, code: grpc.StatusCode, reason: str, retry: float = 0) -> None:
    status = status_pb2.Status(code=code.value[0], message="no")
    status.details.add().Pack(error_details_pb2.ErrorInfo(reason=reason, domain="headway"))
    if retry:
        info = error_details_pb2.RetryInfo()
        info.retry_delay.FromMilliseconds(int(retry * 1000))
        status.details.add().Pack(info)
    context.set_trailing_metadata((("grpc-status-details-bin", status.SerializeToString()),))
    context.abort(code, "no")


def test_a_million_updates_are_few_reports(fake: FakeServer) -> None:
    with headway.connect(fake.address, session="s") as hw, hw.job() as job:
        for _ in range(1_000_000):
            job.advance()
    reports = [report for request in list(fake.service.requests.queue) for report in request.reports]
    assert len(reports) < 60
    assert max(report.progress for report in reports) == 1_000_000
    progress = [report.progress for report in reports if report.WhichOneof("amount")]
    assert progress == sorted(set(progress))
    sequences = [report.sequence for report in reports if report.sequence]
    assert all(earlier < later for earlier, later in pairwise(sequences))


def test_the_server_sets_the_pace(fake: FakeServer) -> None:
    def slowly(request: rpc.StreamProgressRequest, position: int) -> rpc.StreamProgressResponse:
        response = acknowledge(request, position)
        response.next_report_after.FromMilliseconds(300)
        return response

    fake.service.answer = slowly
    with headway.connect(fake.address, session="s") as hw, hw.job(heartbeat_timeout=60) as job:
        times = []
        for _ in range(4):
            job.advance()
            fake.service.reports()
            times.append(time.monotonic())
        assert all(0.28 < later - earlier < 0.6 for earlier, later in pairwise(times[1:]))


def test_an_idle_job_gives_heartbeats(fake: FakeServer) -> None:
    def lazily(request: rpc.StreamProgressRequest, position: int) -> rpc.StreamProgressResponse:
        response = acknowledge(request, position)
        response.next_report_after.FromSeconds(25)
        return response

    fake.service.answer = lazily
    with headway.connect(fake.address, session="s") as hw, hw.job(heartbeat_timeout=0.6):
        fake.service.reports()
        began = time.monotonic()
        (beat,) = fake.service.reports(timeout=2)
        assert 0.1 < time.monotonic() - began < 0.6
        assert beat.WhichOneof("amount") is None
        assert (beat.sequence, beat.attempt) == (0, 1)


def test_the_last_state_arrives_before_the_end(fake: FakeServer) -> None:
    with headway.connect(fake.address, session="s") as hw, hw.job() as job:
        fake.service.reports()
        job.advance(7)
        job.count("added", 2)
        job.results = {"n": 1}
    finish = fake.service.finished.get(timeout=1)
    assert (finish.attempt, finish.results.struct_value["n"]) == (1, 1)
    reports = [report for request in list(fake.service.requests.queue) for report in request.reports]
    assert [(r.progress, dict(r.counters)) for r in reports if r.progress] == [(7, {"added": 2})]


def test_a_report_whose_answer_got_lost_counts_once(server: ServerProcess, proxy: Proxy, session: str) -> None:
    with (
        headway.connect(server.address, session=session) as direct,
        headway.connect(proxy.address, session=session) as hw,
        hw.job() as job,
    ):
        job.advance(1)
        assert job.flush()
        for round_ in range(1, 4):
            proxy.swallow()
            job.advance(10)
            job.count("added", 5)
            job.record_error(round_)
            job.part("other").advance(2)
            for seen in direct.watch(None, job.id, timeout=10):
                if seen.counters["added"] == 5 * round_ and seen.parts["other"] == 2 * round_:
                    break
            assert proxy.swallowed.wait(5)
            proxy.cut()
            assert job.flush()
    seen = direct.get(None, job.id)
    assert (seen.parts[""], seen.parts["other"]) == (31, 6)
    assert (seen.counters["added"], seen.error_count) == (15, 3)


def test_reports_carry_the_token(fake: FakeServer) -> None:
    with headway.connect(fake.address, token="abc", session="s") as hw, hw.job() as job:
        job.advance()
    assert fake.service.finished.qsize() == 1
    assert fake.service.tokens == {"Bearer abc"}


def test_slips_of_the_worker_stop_no_report(fake: FakeServer) -> None:
    with headway.connect(fake.address, session="s") as hw, hw.job() as other, hw.job() as job:
        with pytest.raises(TypeError):
            job.progress = None  # type: ignore[assignment] # the slip
        job.count("", 2)
        job.count("half", 0.5)
        job.size = -5
        assert job.flush()
        job.progress = float("nan")
        other.advance(2)
        assert other.flush()
        job.progress = 4
    reports = [report for request in list(fake.service.requests.queue) for report in request.reports]
    assert {report.progress for report in reports if report.job_id == job.id} == {0, 4}
    assert [dict(report.counters) for report in reports if report.counters] == [{"?": 2}]


def test_overload_is_waited_out(fake: FakeServer) -> None:
    refusals = iter([0.2])

    def busy(context: grpc.ServicerContext) -> None:
        for retry in refusals:
            refuse(context, grpc.StatusCode.RESOURCE_EXHAUSTED, "OVERLOADED", retry)

    fake.service.on_finish = busy
    with headway.connect(fake.address, session="s") as hw, hw.job():
        pass
    assert fake.service.finished.qsize() == 2


def test_what_arrived_in_pieces_is_sent_again_as_it_was(fake: FakeServer) -> None:
    spoilt = iter([True])

    def malformed(context: grpc.ServicerContext) -> None:
        for _ in spoilt:
            refuse(context, grpc.StatusCode.INVALID_ARGUMENT, "MALFORMED_MESSAGE")

    fake.service.on_finish = malformed
    with headway.connect(fake.address, session="s") as hw, hw.job() as job:
        job.results = {"n": 1}
    first, again = fake.service.finished.queue
    assert first == again
    assert job.stopped is None


@pytest.mark.parametrize("reason", ["JOB_ENDED", "STALE_ATTEMPT", "JOB_NOT_FOUND"])
def test_a_job_that_is_gone_is_reported_no_more(
    fake: FakeServer, caplog: pytest.LogCaptureFixture, reason: str
) -> None:
    def gone(request: rpc.StreamProgressRequest, position: int) -> rpc.StreamProgressResponse:
        response = acknowledge(request, position)
        status = status_pb2.Status(code=9, message="It is gone.")
        status.details.add().Pack(error_details_pb2.ErrorInfo(reason=reason, domain="headway"))
        for number in range(len(request.reports)):
            response.failures.add(request=position - 1, report=number, status=status)
        return response

    fake.service.answer = gone
    with headway.connect(fake.address, session="s") as hw, hw.job() as job:
        job.advance()
        fake.service.reports()
        job.advance()
        with pytest.raises(Empty):
            fake.service.reports(timeout=0.3)
        assert job.stopped is not None
        assert job.stopped.reason == reason
    assert fake.service.finished.empty()
    assert len(caplog.records) == 1


def test_one_bad_report_spoils_no_other(fake: FakeServer, caplog: pytest.LogCaptureFixture) -> None:
    def picky(request: rpc.StreamProgressRequest, position: int) -> rpc.StreamProgressResponse:
        response = acknowledge(request, position)
        status = status_pb2.Status(code=3, message="Too many counters.")
        status.details.add().Pack(error_details_pb2.ErrorInfo(reason="INVALID_REQUEST", domain="headway"))
        for number, report in enumerate(request.reports):
            if report.counters:
                response.failures.add(request=position - 1, report=number, status=status)
        return response

    fake.service.answer = picky
    with headway.connect(fake.address, session="s") as hw, hw.job() as good, hw.job() as bad:
        bad.count("x")
        good.advance(5)
        assert bad.flush()
        bad.advance(2)
    ended = {request.job_id for request in list(fake.service.finished.queue)}
    assert ended == {good.id, bad.id}
    assert len(caplog.records) == 1


def test_many_jobs_share_the_stream(fake: FakeServer) -> None:
    with headway.connect(fake.address, session="s") as hw:
        jobs = [hw.job() for _ in range(50)]
        for job in jobs:
            job.advance(3)
        for job in jobs:
            assert job.flush()
        for job in jobs:
            job.finish()
    reports = [report for request in list(fake.service.requests.queue) for report in request.reports]
    assert {report.job_id for report in reports if report.progress == 3} == {job.id for job in jobs}
    assert fake.service.finished.qsize() == 50

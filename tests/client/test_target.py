import re
from collections.abc import Iterator
from concurrent import futures
from pathlib import Path

import grpc
import pytest

from headway import Target, errors
from headway.ids import uuid7
from headway.target import open_aio_channel, open_channel
from headway.v1 import job_pb2
from headway.v1 import job_service_pb2 as rpc
from headway.v1.job_service_pb2_grpc import JobServiceServicer, JobServiceStub, add_JobServiceServicer_to_server


@pytest.fixture(autouse=True)
def _no_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("HEADWAY_TARGET", "HEADWAY_TOKEN", "HEADWAY_CA"):
        monkeypatch.delenv(name, raising=False)


def test_the_default_is_this_machine() -> None:
    assert Target.from_environment() == Target("127.0.0.1:50051")


def test_arguments_win_over_the_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HEADWAY_TARGET", "a:1")
    monkeypatch.setenv("HEADWAY_TOKEN", "t1")
    assert Target.from_environment() == Target("a:1", "t1")
    assert Target.from_environment("b:2", "t2") == Target("b:2", "t2")


@pytest.mark.parametrize(
    ("text", "address", "tls"),
    [
        ("localhost:80", "localhost:80", False),
        ("http://h.example:8", "h.example:8", False),
        ("https://h.example:443/", "h.example:443", True),
        ("[::1]:50051", "[::1]:50051", False),
    ],
)
def test_addresses(text: str, address: str, tls: bool) -> None:
    target = Target.from_environment(text)
    assert (target.address, target.tls) == (address, tls)


@pytest.mark.parametrize(
    "text", ["localhost", ":1", "h:", "h:0", "h:70000", "h:-1", "ftp://h:1", "h:1/path", "a b:1", "::1:5", "h:1:2"]
)
def test_bad_addresses(text: str) -> None:
    with pytest.raises(ValueError, match=r"^The target must be host:port .*\.$"):
        Target.from_environment(text)


def test_a_ca_means_tls(tmp_path: Path) -> None:
    assert Target.from_environment("h:1", ca=tmp_path / "ca.pem").tls
    with pytest.raises(ValueError, match="plain text"):
        Target.from_environment("http://h:1", ca=tmp_path / "ca.pem")
    with pytest.raises(ValueError, match="cannot be read"):
        open_channel(Target.from_environment("h:1", ca=tmp_path / "absent.pem"))


def test_a_token_with_a_line_break_is_refused_and_not_shown() -> None:
    with pytest.raises(ValueError, match="visible ASCII") as caught:
        Target.from_environment(token="secret\n")
    assert "secret" not in str(caught.value)


def test_the_token_is_not_shown() -> None:
    assert "secret" not in repr(Target("h:1", "secret"))


class Echo(JobServiceServicer):
    """Answers with the token that it was shown."""

    def GetJob(self, request: rpc.GetJobRequest, context: grpc.ServicerContext) -> job_pb2.Job:
        return job_pb2.Job(name=str(dict(context.invocation_metadata()).get("authorization")))

    def WatchJob(self, request: rpc.WatchJobRequest, context: grpc.ServicerContext) -> Iterator[rpc.WatchJobResponse]:
        yield rpc.WatchJobResponse(job=self.GetJob(rpc.GetJobRequest(), context))

    def StreamProgress(
        self, request_iterator: Iterator[rpc.StreamProgressRequest], context: grpc.ServicerContext
    ) -> Iterator[rpc.StreamProgressResponse]:
        assert dict(context.invocation_metadata())["authorization"] == "Bearer abc"
        for _ in request_iterator:
            yield rpc.StreamProgressResponse(acked=1)


async def test_every_call_carries_the_token_in_plain_text() -> None:
    server = grpc.server(futures.ThreadPoolExecutor(4))
    # The generated types call abstract what answers UNIMPLEMENTED when it is left out.
    add_JobServiceServicer_to_server(Echo(), server)  # type: ignore[abstract]
    target = Target(f"127.0.0.1:{server.add_insecure_port('127.0.0.1:0')}", "abc")
    server.start()
    one = rpc.StreamProgressRequest()
    with open_channel(target) as channel:
        stub = JobServiceStub(channel)
        assert stub.GetJob(rpc.GetJobRequest()).name == "Bearer abc"
        assert next(iter(stub.WatchJob(rpc.WatchJobRequest()))).job.name == "Bearer abc"
        assert [answer.acked for answer in stub.StreamProgress(iter([one]))] == [1]
    async with open_aio_channel(target) as aio_channel:
        aio_stub = JobServiceStub(aio_channel)
        assert (await aio_stub.GetJob(rpc.GetJobRequest())).name == "Bearer abc"
        assert [answer.job.name async for answer in aio_stub.WatchJob(rpc.WatchJobRequest())] == ["Bearer abc"]
        assert [answer.acked async for answer in aio_stub.StreamProgress(iter([one]))] == [1]
    server.stop(0).wait(5)


def test_ids_are_uuids_that_sort_by_time() -> None:
    ids = [uuid7() for _ in range(2000)]
    assert all(re.fullmatch(r"[0-9a-f]{12}7[0-9a-f]{3}[89ab][0-9a-f]{15}", each) for each in ids)
    assert len(set(ids)) == 2000
    assert [each[:12] for each in ids] == sorted(each[:12] for each in ids)


def test_an_error_without_details_keeps_code_and_text() -> None:
    with open_channel(Target("127.0.0.1:9"), retry=False) as channel, pytest.raises(grpc.RpcError) as caught:
        JobServiceStub(channel).GetJob(rpc.GetJobRequest())
    error = errors.from_rpc_error(caught.value)
    assert isinstance(error, errors.UnavailableError)
    assert (error.reason, error.fields, error.retry_after) == ("", [], None)
    assert error.message

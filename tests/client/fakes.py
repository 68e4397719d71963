"""What a real server does not do on demand: a servicer that misbehaves as told, and a network that breaks."""

import socket
import threading
from collections.abc import Callable, Iterator
from concurrent import futures
from contextlib import suppress
from queue import Queue
from types import TracebackType
from typing import Self

import grpc

from headway.v1 import job_pb2
from headway.v1 import job_service_pb2 as rpc
from headway.v1.job_service_pb2_grpc import JobServiceServicer, add_JobServiceServicer_to_server

Answer = Callable[[rpc.StreamProgressRequest, int], rpc.StreamProgressResponse]


def acknowledge(request: rpc.StreamProgressRequest, position: int) -> rpc.StreamProgressResponse:
    """All is well, and the next report may come in 20 ms."""
    response = rpc.StreamProgressResponse(acked=position)
    response.next_report_after.FromMilliseconds(20)
    return response


class FakeService(JobServiceServicer):
    """Hands each request on to the test, and answers as the test says."""

    def __init__(self) -> None:
        self.created: Queue[rpc.CreateJobRequest] = Queue()
        self.requests: Queue[rpc.StreamProgressRequest] = Queue()
        self.finished: Queue[rpc.FinishJobRequest] = Queue()
        self.failed: Queue[rpc.FailJobRequest] = Queue()
        self.tokens: set[str | bytes | None] = set()
        self.answer: Answer = acknowledge
        self.on_create: Callable[[grpc.ServicerContext], None] = lambda _: None
        self.on_finish: Callable[[grpc.ServicerContext], None] = lambda _: None

    def CreateJob(self, request: rpc.CreateJobRequest, context: grpc.ServicerContext) -> job_pb2.Job:
        self.tokens.add(dict(context.invocation_metadata()).get("authorization"))
        self.created.put(request)
        self.on_create(context)
        return job_pb2.Job(
            id=request.job_id, name=request.name, status=job_pb2.JOB_STATUS_RUNNING, attempt=1, revision=1
        )

    def StreamProgress(
        self, request_iterator: Iterator[rpc.StreamProgressRequest], context: grpc.ServicerContext
    ) -> Iterator[rpc.StreamProgressResponse]:
        self.tokens.add(dict(context.invocation_metadata()).get("authorization"))
        for position, request in enumerate(request_iterator, 1):
            self.requests.put(request)
            yield self.answer(request, position)

    def FinishJob(self, request: rpc.FinishJobRequest, context: grpc.ServicerContext) -> job_pb2.Job:
        self.tokens.add(dict(context.invocation_metadata()).get("authorization"))
        self.finished.put(request)
        self.on_finish(context)
        return job_pb2.Job(id=request.job_id, status=job_pb2.JOB_STATUS_COMPLETED, attempt=1, revision=9)

    def FailJob(self, request: rpc.FailJobRequest, context: grpc.ServicerContext) -> job_pb2.Job:
        self.failed.put(request)
        return job_pb2.Job(id=request.job_id, status=job_pb2.JOB_STATUS_FAILED, attempt=1, revision=9)

    def GetJob(self, request: rpc.GetJobRequest, context: grpc.ServicerContext) -> job_pb2.Job:
        return job_pb2.Job(id=request.job_id, status=job_pb2.JOB_STATUS_COMPLETED, attempt=1, revision=9)

    def reports(self, timeout: float = 5.0) -> list[rpc.ReportProgressRequest]:
        """The reports of the next request."""
        return list(self.requests.get(timeout=timeout).reports)


class FakeServer:
    """A FakeService on a free port."""

    def __init__(self, *interceptors: grpc.ServerInterceptor) -> None:
        # The generated types call abstract what answers UNIMPLEMENTED when it is left out.
        self.service = FakeService()  # type: ignore[abstract]
        self._server = grpc.server(futures.ThreadPoolExecutor(8), interceptors=list(interceptors))
        add_JobServiceServicer_to_server(self.service, self._server)
        self.address = f"127.0.0.1:{self._server.add_insecure_port('127.0.0.1:0')}"

    def __enter__(self) -> Self:
        self._server.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._server.stop(0).wait(5)


class Proxy:
    """A TCP relay to a server, whose answers can be swallowed and whose connections can be cut."""

    def __init__(self, target: str) -> None:
        host, port = target.rsplit(":", 1)
        self._target = (host, int(port))
        self._listener = socket.create_server(("127.0.0.1", 0))
        self._sockets: list[socket.socket] = []
        self._threads: list[threading.Thread] = []
        self._muted: set[socket.socket] = set()
        self.swallowed = threading.Event()
        self.address = f"127.0.0.1:{self._listener.getsockname()[1]}"

    def swallow(self) -> None:
        """From now on no answer of the server comes through, until `cut`."""
        self.swallowed.clear()
        self._muted.update(self._sockets)

    def cut(self) -> None:
        """Breaks all connections; new ones work."""
        for end in list(self._sockets):
            _shut(end)

    def __enter__(self) -> Self:
        self._spawn(self._accept)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        _shut(self._listener)
        self._threads[0].join()
        self.cut()
        for thread in self._threads:
            thread.join()
        # Not before: a number that is closed is given to the next connection, under the hands of a relay.
        for end in [self._listener, *self._sockets]:
            end.close()

    def _spawn(self, work: Callable[..., None], *arguments: object) -> None:
        self._threads.append(threading.Thread(target=work, args=arguments, daemon=True))
        self._threads[-1].start()

    def _accept(self) -> None:
        while True:
            try:
                near, _ = self._listener.accept()
            except OSError:
                return
            self._sockets.append(near)
            try:
                far = socket.create_connection(self._target)
            except OSError:
                _shut(near)
                continue
            self._sockets.append(far)
            self._spawn(self._relay, near, far, False)
            self._spawn(self._relay, far, near, True)

    def _relay(self, source: socket.socket, sink: socket.socket, answers: bool) -> None:
        try:
            while data := source.recv(65536):
                if answers and source in self._muted:
                    self.swallowed.set()
                else:
                    sink.sendall(data)
        except OSError:
            pass
        _shut(sink)
        _shut(source)


def _shut(end: socket.socket) -> None:
    with suppress(OSError):
        end.shutdown(socket.SHUT_RDWR)

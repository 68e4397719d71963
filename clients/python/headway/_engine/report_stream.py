"""One open StreamProgress call."""

from collections.abc import Callable
from typing import TYPE_CHECKING, TypeAlias

import grpc

from headway._engine.native_threads import SimpleQueue, Thread
from headway.errors import HeadwayError, from_rpc_error
from headway.v1 import job_service_pb2 as rpc

if TYPE_CHECKING:
    from headway.v1.job_service_pb2_grpc import JobServiceStub

Arrival: TypeAlias = "Callable[[ReportStream, rpc.StreamProgressResponse | HeadwayError | None], None]"


class ReportStream:
    """Sends requests. A thread of its own hands each response to `arrived`, and at the end the error or None."""

    def __init__(self, stub: "JobServiceStub", arrived: Arrival) -> None:
        self.sent = 0
        self._outgoing: SimpleQueue[rpc.StreamProgressRequest | None] = SimpleQueue()
        self._call = stub.StreamProgress(iter(self._outgoing.get, None))
        self._arrived = arrived
        self._reader = Thread(self._read, "headway-acks")

    def send(self, request: rpc.StreamProgressRequest) -> None:
        self.sent += 1
        self._outgoing.put(request)

    def close(self) -> None:
        """Ends the call at once."""
        self._outgoing.put(None)
        self._call.cancel()

    def join(self, timeout: float) -> None:
        self._reader.join(timeout)

    def _read(self) -> None:
        error = None
        try:
            for response in self._call:
                self._arrived(self, response)
        except grpc.RpcError as reason:
            error = from_rpc_error(reason)
        self._arrived(self, error)

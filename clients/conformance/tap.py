"""Stands between a driver and the server: records the calls, and disturbs them as a case requires."""

import asyncio
import threading
from collections.abc import AsyncIterator, Coroutine
from dataclasses import dataclass
from functools import partial
from typing import Self, TypeAlias, TypeVar

import grpc
from google.protobuf import duration_pb2

from clients.conformance.record import Record
from headway.v1 import job_service_pb2 as rpc

Result = TypeVar("Result")
Handler: TypeAlias = "grpc.RpcMethodHandler[bytes, bytes]"
Context: TypeAlias = "grpc.aio.ServicerContext[bytes, bytes]"

_SERVICE = rpc.DESCRIPTOR.services_by_name["JobService"]
_OPTIONS = (
    ("grpc.max_receive_message_length", 16 * 1024 * 1024),
    ("grpc.max_send_message_length", 16 * 1024 * 1024),
    ("grpc.so_reuseport", 0),
    ("grpc.http2.min_ping_interval_without_data_ms", 5_000),
)


@dataclass
class Rules:
    """How calls are disturbed. Set by the runner, read by the tap."""

    fault: str = ""
    """`lose`: a call reaches the server, its answer does not come back; `hang`: it is accepted and never answered; the
    name of a code: it is answered with that in place of the server."""
    times: int = 0
    """The number of calls to disturb; 0 = until it is reset."""
    methods: tuple[str, ...] = ()
    """The methods to disturb; none = all."""
    delay: float = 0.0
    """Seconds that each answer is delayed."""
    pace: float = 0.0
    """Seconds in each `next_report_after` in place of the server's; 0 = the server's."""

    def strike(self, method: str) -> str:
        """How this call is disturbed."""
        if not self.fault or (self.methods and method not in self.methods):
            return ""
        struck = self.fault
        if self.times:
            self.times -= 1
            self.fault = self.fault if self.times else ""
        return struck


class _Struck(Exception):
    """The code that breaks a stream."""

    def __init__(self, code: str) -> None:
        super().__init__(code)
        self.code = grpc.StatusCode[code]


class Loop:
    """An event loop in a thread of its own, for all taps of a process."""

    def __init__(self) -> None:
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, daemon=True)

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join()
        self._loop.close()

    def run(self, work: Coroutine[object, object, Result]) -> Result:
        return asyncio.run_coroutine_threadsafe(work, self._loop).result(30)


class GrpcTap:
    """Accepts gRPC calls and passes them on to `target`."""

    def __init__(self, loop: Loop, target: str) -> None:
        self.record = Record()
        self.rules = Rules()
        self.address = ""
        self._loop = loop
        self._target = target

    def __enter__(self) -> Self:
        self._loop.run(self._start())
        return self

    def __exit__(self, *_: object) -> None:
        self._loop.run(self._stop())

    async def _start(self) -> None:
        self._channel = grpc.aio.insecure_channel(self._target, options=_OPTIONS)
        self._server = grpc.aio.server(options=_OPTIONS)
        handlers = {
            method.name: self._handler(method.name, method.client_streaming, method.server_streaming)
            for method in _SERVICE.methods
        }
        self._server.add_generic_rpc_handlers((grpc.method_handlers_generic_handler(_SERVICE.full_name, handlers),))
        self.address = f"127.0.0.1:{self._server.add_insecure_port('127.0.0.1:0')}"
        await self._server.start()

    async def _stop(self) -> None:
        await self._server.stop(None)
        await self._channel.close()

    def _handler(self, method: str, many_in: bool, many_out: bool) -> Handler:
        path = f"/{_SERVICE.full_name}/{method}"
        # gRPC checks whether they are coroutines, which it cannot see of a lambda.
        if many_in:
            return grpc.stream_stream_rpc_method_handler(partial(self._stream, path))
        if many_out:
            return grpc.unary_stream_rpc_method_handler(partial(self._watch, path, method))
        return grpc.unary_unary_rpc_method_handler(partial(self._call, path, method))

    async def _call(self, path: str, method: str, request: bytes, context: Context) -> bytes:
        reports = (rpc.ReportProgressRequest.FromString(request),) if method == "ReportProgress" else ()
        self.record.note(method, _token(context), reports)
        struck = self.rules.strike(method)
        if struck == "hang":
            await asyncio.Event().wait()
        elif struck and struck != "lose":
            await context.abort(grpc.StatusCode[struck], "refused on the way")
        try:
            call: grpc.aio.UnaryUnaryMultiCallable[bytes, bytes] = self._channel.unary_unary(path)
            answer = await call(request, timeout=context.time_remaining())
        except grpc.aio.AioRpcError as error:
            await _hand_on(error, context)
        if struck == "lose":
            await context.abort(grpc.StatusCode.UNAVAILABLE, "the answer was lost")
        await self._hold()
        return self._paced(answer, rpc.ReportProgressResponse) if method == "ReportProgress" else answer

    async def _watch(self, path: str, method: str, request: bytes, context: Context) -> AsyncIterator[bytes]:
        self.record.note(method, _token(context))
        struck = self.rules.strike(method)
        if struck:
            await context.abort(grpc.StatusCode[struck], "refused on the way")
        try:
            call: grpc.aio.UnaryStreamMultiCallable[bytes, bytes] = self._channel.unary_stream(path)
            async for response in call(request, timeout=context.time_remaining()):
                await self._hold()
                yield response
        except grpc.aio.AioRpcError as error:
            await _hand_on(error, context)

    async def _stream(self, path: str, requests: AsyncIterator[bytes], context: Context) -> AsyncIterator[bytes]:
        token = _token(context)
        call: grpc.aio.StreamStreamCall[bytes, bytes] = self._channel.stream_stream(path)()
        losing = asyncio.Event()

        async def feed() -> None:
            async for request in requests:
                self.record.note("StreamProgress", token, tuple(rpc.StreamProgressRequest.FromString(request).reports))
                struck = self.rules.strike("StreamProgress")
                if struck == "lose":
                    losing.set()
                elif struck == "hang":
                    await asyncio.Event().wait()
                elif struck:
                    raise _Struck(struck)
                await call.write(request)
            await call.done_writing()

        feeding = asyncio.create_task(feed())
        try:
            while True:
                reading = asyncio.create_task(call.read())
                await asyncio.wait({reading} if feeding.done() else {reading, feeding}, return_when="FIRST_COMPLETED")
                if not reading.done():
                    # Raises the error that broke the stream; returns if the requests have ended.
                    feeding.result()
                response = await reading
                if not isinstance(response, bytes):
                    # The end.
                    break
                if losing.is_set():
                    raise _Struck("UNAVAILABLE")
                await self._hold()
                yield self._paced(response, rpc.StreamProgressResponse)
            if await call.code() is not grpc.StatusCode.OK:
                await context.abort(await call.code(), await call.details())
        except _Struck as struck:
            await context.abort(struck.code, "broken off on the way")
        except grpc.aio.AioRpcError as error:
            await _hand_on(error, context)
        finally:
            feeding.cancel()
            call.cancel()

    async def _hold(self) -> None:
        if self.rules.delay:
            await asyncio.sleep(self.rules.delay)

    def _paced(self, answer: bytes, kind: type[rpc.ReportProgressResponse | rpc.StreamProgressResponse]) -> bytes:
        if not self.rules.pace:
            return answer
        response = kind.FromString(answer)
        response.next_report_after.CopyFrom(_span(self.rules.pace))
        return response.SerializeToString()


def _span(seconds: float) -> duration_pb2.Duration:
    return duration_pb2.Duration(seconds=int(seconds), nanos=round(seconds % 1 * 1e9))


def _token(context: Context) -> str:
    pairs = dict(context.invocation_metadata() or ())
    return str(pairs.get("authorization", "")).removeprefix("Bearer ")


async def _hand_on(error: grpc.aio.AioRpcError, context: Context) -> None:
    trailers = [(key, value) for key, value in error.trailing_metadata() or () if key == "grpc-status-details-bin"]
    await context.abort(error.code(), error.details() or "", tuple(trailers))

"""The gRPC transport: handlers for a gRPC server, which call methods through the guard."""

import asyncio
import math
from collections.abc import AsyncGenerator, AsyncIterator, Awaitable, Callable
from contextlib import AbstractContextManager, aclosing, nullcontext
from typing import TypeAlias, TypeVar

import grpc
import grpc.aio
from google.protobuf import message
from google.protobuf.descriptor import MethodDescriptor, ServiceDescriptor
from google.rpc import status_pb2

from headway_server.domain.errors import JobError
from headway_server.resources.budget import Share
from headway_server.rpc.call_guard import Answer, Caller, Guard, Method, Refused
from headway_server.rpc.open_calls import AUXILIARY_LIFE, Call, Context, OpenCalls, aborted

GRPC_TRANSPORT = "grpc"

COUNTED_MIN = 4 * 1024
"""Smaller messages (bytes) do not count towards the memory of requests: most calls have one, and end soon."""

Served = TypeVar("Served", bytes, None)
"""What a handler returns: the reply, or None for a stream."""

_Handler: TypeAlias = "grpc.RpcMethodHandler[bytes, bytes]"
_Request = message.Message | AsyncIterator[message.Message]
_Unary = Callable[[_Request, "Caller | Context"], Awaitable[Answer]]
_Streaming = Callable[[_Request, "Caller | Context"], AsyncGenerator[Answer, None]]


def handlers(
    guard: Guard, calls: OpenCalls, service: ServiceDescriptor, servicer: object, *, wants_context: bool = False
) -> grpc.GenericRpcHandler:
    """Handlers for all methods of a service.

    The servicer's methods take the request (or the iterator of requests) and the Caller. Methods of gRPC's own services
    take the context instead of the Caller. Raises KeyError if the guard's POLICY has no row for a method.
    """
    made = {}
    for method in service.methods:
        run = getattr(servicer, method.name)
        make = _streaming if method.server_streaming else _unary
        made[method.name] = make(guard, calls, method, run, wants_context)
    return grpc.method_handlers_generic_handler(service.full_name, made)


def _unary(guard: Guard, calls: OpenCalls, descriptor: MethodDescriptor, run: _Unary, wants_context: bool) -> _Handler:
    method = guard.method(descriptor, GRPC_TRANSPORT)
    if method.large:
        run = _in_turn(calls, run)

    async def serve(call: Call, _: AsyncIterator[bytes], context: Context) -> bytes:
        await call.arrive()
        with method.call(_given(context), context.time_remaining(), call.connection) as caller:
            with _share(guard, call.connection, call.size):
                request = [await method.parse(call.message())]
            # Pass the request on without keeping it: a call that waits long must not hold its request.
            answer = _serialized(await run(request.pop(), context if wants_context else caller))
            call.answer(len(answer))
            return answer

    return grpc.stream_unary_rpc_method_handler(_handler(calls, method, serve, wants_context))


def _streaming(
    guard: Guard, calls: OpenCalls, descriptor: MethodDescriptor, run: _Streaming, wants_context: bool
) -> _Handler:
    method = guard.method(descriptor, GRPC_TRANSPORT)

    async def serve(call: Call, raws: AsyncIterator[bytes], context: Context) -> None:
        if descriptor.client_streaming:
            call.due = math.inf
        else:
            await call.arrive()
        if wants_context:
            call.lives(AUXILIARY_LIFE)
        with method.call(_given(context), context.time_remaining(), call.connection) as caller:
            if descriptor.client_streaming:
                request: _Request = _parsed(raws, method, call.connection)
            else:
                with _share(guard, call.connection, call.size):
                    request = await method.parse(call.message())
            answers = run(request, context if wants_context else caller)
            # The call may last long, and its request can be large.
            del request
            async with aclosing(answers):
                async for answer in answers:
                    await call.write(_serialized(answer))

    return grpc.stream_stream_rpc_method_handler(_handler(calls, method, serve, wants_context))


def _handler(
    calls: OpenCalls,
    method: Method,
    serve: Callable[[Call, AsyncIterator[bytes], Context], Awaitable[Served]],
    wants_context: bool,
) -> Callable[[AsyncIterator[bytes], Context], Awaitable[Served]]:
    """Serve each call, and send a status if it fails."""

    async def handle(raws: AsyncIterator[bytes], context: Context) -> Served:
        call = None
        try:
            call = calls.begin(context, auxiliary=wants_context)
            return await serve(call, raws, context)
        except (JobError, Refused, asyncio.CancelledError) as error:
            status = _told(method, call, error)
            if status is None:
                raise
        aborts = [await _abort(context, call, status)]
        # gRPC keeps the exception that aborts a call, and with it this frame. If the frame referred to the call, only
        # the garbage collector could free both, which takes long.
        del raws, context, call, status
        raise aborts.pop()

    return handle


def _in_turn(calls: OpenCalls, run: _Unary) -> _Unary:
    async def run_in_turn(request: _Request, caller: "Caller | Context") -> Answer:
        assert isinstance(caller, Caller)
        async with calls.large_replies.turn(caller.connection):
            return await run(request, caller)

    return run_in_turn


def _given(context: Context) -> list[str | bytes]:
    return [value for key, value in context.invocation_metadata() or () if key == "authorization"]


def _serialized(answer: Answer) -> bytes:
    return answer if isinstance(answer, bytes) else answer.SerializeToString()


def _share(guard: Guard, connection: str, size: int) -> AbstractContextManager[object]:
    """The share of a message in the memory of requests. Small messages do not count."""
    return nullcontext() if size <= COUNTED_MIN else Share(guard.requests, connection, size)


async def _parsed(raws: AsyncIterator[bytes], method: Method, connection: str) -> AsyncIterator[message.Message]:
    async for raw in raws:
        with _share(method.guard, connection, len(raw)):
            request = [await method.parse(raw)]
            del raw
            # Yield the request without keeping it while waiting for the next one.
            yield request.pop()


def _told(
    method: Method, call: Call | None, error: JobError | Refused | asyncio.CancelledError
) -> status_pb2.Status | None:
    """The status for a call that failed. None if its caller cancelled it."""
    if isinstance(error, Refused):
        return error.status
    if isinstance(error, JobError):
        return method.refused(error).status
    if call is None or not call.ended:
        return None
    call.task.uncancel()
    return method.refused(call.late()).status


async def _abort(context: Context, call: Call | None, status: status_pb2.Status) -> grpc.aio.AbortError:
    """End the call with this status. Returns the exception that the caller of this function must raise."""
    if call is not None:
        # Drop the request: it must not be kept until the call has ended.
        call.message()
    code = next(code for code in grpc.StatusCode if code.value[0] == status.code)
    details = (("grpc-status-details-bin", status.SerializeToString()),)
    try:
        return await aborted(context, code, status.message, details)
    except grpc.aio.BaseError:
        # The caller has disconnected, but gRPC has not reported it yet: no error, and nothing to log.
        raise asyncio.CancelledError from None

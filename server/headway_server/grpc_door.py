"""The gRPC door: handlers for a gRPC server that lead through the guard."""

import asyncio
import math
from collections.abc import AsyncGenerator, AsyncIterator, Awaitable, Callable
from contextlib import aclosing
from typing import TypeAlias

import grpc
import grpc.aio
from google.protobuf import message
from google.protobuf.descriptor import MethodDescriptor, ServiceDescriptor
from google.rpc import status_pb2

from headway_server.errors import JobError
from headway_server.guard import Answer, Caller, Guard, Method, Refused
from headway_server.open_calls import AUXILIARY_LIFE, Call, Context, OpenCalls

DOOR = "grpc"

_Handler: TypeAlias = "grpc.RpcMethodHandler[bytes, bytes]"
_Request = message.Message | AsyncIterator[message.Message]
_Unary = Callable[[_Request, "Caller | Context"], Awaitable[Answer]]
_Streaming = Callable[[_Request, "Caller | Context"], AsyncGenerator[Answer, None]]


def handlers(
    guard: Guard, calls: OpenCalls, service: ServiceDescriptor, servicer: object, *, wants_context: bool = False
) -> grpc.GenericRpcHandler:
    """Handlers for all methods of a service.

    The servicer's methods take the request (or the iterator of requests) and the Caller; those of gRPC's own services
    take the context in its place. A method that the guard's POLICY does not name raises KeyError.
    """
    made = {}
    for method in service.methods:
        run = getattr(servicer, method.name)
        make = _streaming if method.server_streaming else _unary
        made[method.name] = make(guard, calls, method, run, wants_context)
    return grpc.method_handlers_generic_handler(service.full_name, made)


def _unary(guard: Guard, calls: OpenCalls, descriptor: MethodDescriptor, run: _Unary, wants_context: bool) -> _Handler:
    method = guard.method(descriptor, DOOR)
    parse = method.parse
    if method.large:
        run = _in_turn(calls, run)

    async def handle(_: AsyncIterator[bytes], context: Context) -> bytes:
        call = None
        try:
            call = calls.begin(context, auxiliary=wants_context)
            await call.arrive()
            with method.call(_given(context), context.time_remaining(), call.connection) as caller:
                answer = _serialized(await run(parse(call.message()), context if wants_context else caller))
                call.answer(len(answer))
                return answer
        except (JobError, Refused, asyncio.CancelledError) as error:
            status = _told(method, call, error)
            if status is None:
                raise
        await _abort(context, status)
        raise AssertionError("abort has raised")

    return grpc.stream_unary_rpc_method_handler(handle)


def _streaming(
    guard: Guard, calls: OpenCalls, descriptor: MethodDescriptor, run: _Streaming, wants_context: bool
) -> _Handler:
    method = guard.method(descriptor, DOOR)
    parse = method.parse

    async def handle(raws: AsyncIterator[bytes], context: Context) -> None:
        call = None
        try:
            call = calls.begin(context, auxiliary=wants_context)
            if descriptor.client_streaming:
                call.due = math.inf
            else:
                await call.arrive()
            if wants_context:
                call.lives(AUXILIARY_LIFE)
            with method.call(_given(context), context.time_remaining(), call.connection) as caller:
                request = _parsed(raws, parse) if descriptor.client_streaming else parse(call.message())
                answers = run(request, context if wants_context else caller)
                # The call lives long, and what it began with can be large.
                del request
                async with aclosing(answers):
                    async for answer in answers:
                        await call.write(_serialized(answer))
                return
        except (JobError, Refused, asyncio.CancelledError) as error:
            status = _told(method, call, error)
            if status is None:
                raise
        await _abort(context, status)

    return grpc.stream_stream_rpc_method_handler(handle)


def _in_turn(calls: OpenCalls, run: _Unary) -> _Unary:
    async def run_in_turn(request: _Request, caller: "Caller | Context") -> Answer:
        assert isinstance(caller, Caller)
        async with calls.turns.turn(caller.connection):
            return await run(request, caller)

    return run_in_turn


def _given(context: Context) -> list[str | bytes]:
    return [value for key, value in context.invocation_metadata() or () if key == "authorization"]


def _serialized(answer: Answer) -> bytes:
    return answer if isinstance(answer, bytes) else answer.SerializeToString()


async def _parsed(
    raws: AsyncIterator[bytes], parse: Callable[[bytes], message.Message]
) -> AsyncIterator[message.Message]:
    async for raw in raws:
        yield parse(raw)


def _told(
    method: Method, call: Call | None, error: JobError | Refused | asyncio.CancelledError
) -> status_pb2.Status | None:
    """What the caller of a call that failed is told; None if it was the caller who cancelled it."""
    if isinstance(error, Refused):
        return error.status
    if isinstance(error, JobError):
        return method.refused(error).status
    if call is None or not call.ended:
        return None
    call.task.uncancel()
    return method.refused(call.late()).status


async def _abort(context: Context, status: status_pb2.Status) -> None:
    code = next(code for code in grpc.StatusCode if code.value[0] == status.code)
    details = (("grpc-status-details-bin", status.SerializeToString()),)
    await context.abort(code, status.message, details)

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
            await _refuse(context, method, call, error)
        raise AssertionError("refused")

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
                del request
                async with aclosing(answers):
                    async for answer in answers:
                        await call.write(_serialized(answer))
        except (JobError, Refused, asyncio.CancelledError) as error:
            await _refuse(context, method, call, error)

    return grpc.stream_stream_rpc_method_handler(handle)


def _given(context: Context) -> list[str | bytes]:
    return [value for key, value in context.invocation_metadata() or () if key == "authorization"]


def _serialized(answer: Answer) -> bytes:
    return answer if isinstance(answer, bytes) else answer.SerializeToString()


async def _parsed(
    raws: AsyncIterator[bytes], parse: Callable[[bytes], message.Message]
) -> AsyncIterator[message.Message]:
    async for raw in raws:
        yield parse(raw)


async def _refuse(
    context: Context, method: Method, call: Call | None, error: JobError | Refused | asyncio.CancelledError
) -> None:
    """End a call with what its caller is told. One that its caller has cancelled just ends."""
    if isinstance(error, asyncio.CancelledError):
        if call is None or not call.ended:
            raise error
        call.task.uncancel()
        error = call.late()
    status = error.status if isinstance(error, Refused) else method.refused(error).status
    code = next(code for code in grpc.StatusCode if code.value[0] == status.code)
    details = (("grpc-status-details-bin", status.SerializeToString()),)
    await context.abort(code, status.message, details)

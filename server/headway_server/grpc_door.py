"""The gRPC door: handlers for a gRPC server that lead through the guard."""

from collections.abc import AsyncGenerator, AsyncIterator, Awaitable, Callable
from contextlib import aclosing
from typing import TypeAlias

import grpc
import grpc.aio
from google.protobuf import message
from google.protobuf.descriptor import MethodDescriptor, ServiceDescriptor
from google.rpc import status_pb2

from headway_server.guard import Answer, Caller, Guard, Refused

DOOR = "grpc"

Context: TypeAlias = "grpc.aio.ServicerContext[message.Message, message.Message]"

_Handler: TypeAlias = "grpc.RpcMethodHandler[bytes, Answer]"
_Request = message.Message | AsyncIterator[message.Message]
_Unary = Callable[[_Request, "Caller | Context"], Awaitable[Answer]]
_Streaming = Callable[[_Request, "Caller | Context"], AsyncGenerator[Answer, None] | Awaitable[None]]


def handlers(
    guard: Guard, service: ServiceDescriptor, servicer: object, *, wants_context: bool = False
) -> grpc.GenericRpcHandler:
    """Handlers for all methods of a service.

    The servicer's methods take the request (or the iterator of requests) and the Caller; those of gRPC's own services
    take the context in its place. A method that the guard's POLICY does not name raises KeyError.
    """
    made = {}
    for method in service.methods:
        run = getattr(servicer, method.name)
        make = _streaming if method.server_streaming else _unary
        made[method.name] = make(guard, method, run, wants_context)
    return grpc.method_handlers_generic_handler(service.full_name, made)


def _unary(guard: Guard, descriptor: MethodDescriptor, run: _Unary, wants_context: bool) -> _Handler:
    method = guard.method(descriptor, DOOR)
    parse = method.parse

    async def handle(raw: bytes, context: Context) -> Answer:
        try:
            with method.call(_given(context), context.time_remaining(), context.peer) as caller:
                return await run(parse(raw), context if wants_context else caller)
        except Refused as refused:
            await _abort(context, refused.status)
        raise AssertionError("abort has raised")

    return grpc.unary_unary_rpc_method_handler(handle, response_serializer=_serialized)


def _streaming(guard: Guard, descriptor: MethodDescriptor, run: _Streaming, wants_context: bool) -> _Handler:
    method = guard.method(descriptor, DOOR)
    parse = method.parse

    async def handle(raw: bytes | AsyncIterator[bytes], context: Context) -> AsyncIterator[Answer]:
        try:
            with method.call(_given(context), context.time_remaining(), context.peer) as caller:
                request = parse(raw) if isinstance(raw, bytes) else _parsed(raw, parse)
                answers = run(request, context if wants_context else caller)
                if isinstance(answers, Awaitable):
                    # gRPC's own health service writes through the context instead of yielding.
                    await answers
                    return
                async with aclosing(answers):
                    async for answer in answers:
                        yield answer
        except Refused as refused:
            await _abort(context, refused.status)

    if descriptor.client_streaming:
        return grpc.stream_stream_rpc_method_handler(handle, response_serializer=_serialized)
    return grpc.unary_stream_rpc_method_handler(handle, response_serializer=_serialized)


def _given(context: Context) -> list[str | bytes]:
    return [value for key, value in context.invocation_metadata() or () if key == "authorization"]


def _serialized(answer: Answer) -> bytes:
    return answer if isinstance(answer, bytes) else answer.SerializeToString()


async def _parsed(
    raws: AsyncIterator[bytes], parse: Callable[[bytes], message.Message]
) -> AsyncIterator[message.Message]:
    async for raw in raws:
        yield parse(raw)


async def _abort(context: Context, status: status_pb2.Status) -> None:
    code = next(code for code in grpc.StatusCode if code.value[0] == status.code)
    details = (("grpc-status-details-bin", status.SerializeToString()),)
    await context.abort(code, status.message, details)

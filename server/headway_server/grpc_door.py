"""The gRPC door: handlers for a gRPC server that lead through the guard."""

from collections.abc import AsyncGenerator, AsyncIterator, Awaitable, Callable
from contextlib import AbstractContextManager, aclosing, nullcontext
from typing import TypeAlias

import grpc
import grpc.aio
from google.protobuf import message
from google.protobuf.descriptor import MethodDescriptor, ServiceDescriptor
from google.rpc import status_pb2

from headway_server.budget import Share
from headway_server.guard import Answer, Caller, Guard, Method, Refused

DOOR = "grpc"

COUNTED_FROM = 4 * 1024
"""Smaller messages are not counted among the bytes that the server holds: most calls bring one, and end soon."""

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

    async def handle(raw: bytes, context: Context) -> Answer:
        try:
            with method.call(_given(context), context.time_remaining()) as caller, _share(guard, context, raw):
                return await run(await method.parse(raw), context if wants_context else caller)
        except Refused as refused:
            status = refused.status
        # gRPC keeps the exception by which it aborts, with this frame, until the collector comes: not the request too.
        del raw
        await _abort(context, status)
        raise AssertionError("abort has raised")

    return grpc.unary_unary_rpc_method_handler(handle, response_serializer=_serialized)


def _streaming(guard: Guard, descriptor: MethodDescriptor, run: _Streaming, wants_context: bool) -> _Handler:
    method = guard.method(descriptor, DOOR)

    async def handle(raw: bytes | AsyncIterator[bytes], context: Context) -> AsyncIterator[Answer]:
        try:
            with (
                method.call(_given(context), context.time_remaining()) as caller,
                _share(guard, context, raw if isinstance(raw, bytes) else b""),
            ):
                request = await method.parse(raw) if isinstance(raw, bytes) else _parsed(raw, method, context)
                answers = run(request, context if wants_context else caller)
                del request
                if isinstance(answers, Awaitable):
                    # gRPC's own health service writes through the context instead of yielding.
                    await answers
                    return
                async with aclosing(answers):
                    async for answer in answers:
                        yield answer
            return
        except Refused as refused:
            status = refused.status
        # As above.
        del raw
        await _abort(context, status)

    if descriptor.client_streaming:
        return grpc.stream_stream_rpc_method_handler(handle, response_serializer=_serialized)
    return grpc.unary_stream_rpc_method_handler(handle, response_serializer=_serialized)


def _given(context: Context) -> list[str | bytes]:
    return [value for key, value in context.invocation_metadata() or () if key == "authorization"]


def _serialized(answer: Answer) -> bytes:
    return answer if isinstance(answer, bytes) else answer.SerializeToString()


def _share(guard: Guard, context: Context, raw: bytes) -> AbstractContextManager[object]:
    """What a message takes of the bytes that the server holds of requests; small ones are not counted."""
    return nullcontext() if len(raw) <= COUNTED_FROM else Share(guard.requests, context.peer(), len(raw))


async def _parsed(raws: AsyncIterator[bytes], method: Method, context: Context) -> AsyncIterator[message.Message]:
    async for raw in raws:
        with _share(method.guard, context, raw):
            request = [await method.parse(raw)]
            del raw
            # Handed over: while the next one is awaited, this one is not kept here.
            yield request.pop()


async def _abort(context: Context, status: status_pb2.Status) -> None:
    code = next(code for code in grpc.StatusCode if code.value[0] == status.code)
    details = (("grpc-status-details-bin", status.SerializeToString()),)
    await context.abort(code, status.message, details)

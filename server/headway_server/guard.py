"""The one way in: around every method of every service stand who → may → parse → run → errors to status."""

from __future__ import annotations

import asyncio
import enum
import hashlib
import hmac
import logging
import secrets
from collections.abc import AsyncGenerator, AsyncIterator, Awaitable, Callable, Mapping
from contextlib import aclosing, suppress
from dataclasses import dataclass
from typing import TypeAlias

import grpc
import grpc.aio
from google.protobuf import message, message_factory
from google.protobuf.descriptor import MethodDescriptor, ServiceDescriptor
from google.rpc import status_pb2

from headway_server import replies
from headway_server.errors import (
    CredentialsInvalid,
    DeadlinePassed,
    JobError,
    MalformedMessage,
    ScopeMissing,
    ShuttingDown,
)

log = logging.getLogger(__name__)


ON_THEIR_WAY = 0.25
"""Seconds in which calls may still arrive from callers that have not heard of the end."""


DEADLINE_OVER = 0.001
"""A deadline that is less than this (seconds) away is over: gRPC rounds what is left up."""


class Scope(enum.Enum):
    """What a caller may do. OPEN methods ask nothing of anybody."""

    OPEN = "open"
    READ = "read"
    REPORT = "report"
    ADMIN = "admin"


@dataclass(frozen=True, slots=True)
class Caller:
    """Who calls, as far as that matters: what they may do."""

    scopes: frozenset[Scope]

    @property
    def is_admin(self) -> bool:
        return Scope.ADMIN in self.scopes


ANYBODY = Caller(frozenset({Scope.READ, Scope.REPORT}))
ADMIN = Caller(frozenset({Scope.READ, Scope.REPORT, Scope.ADMIN}))

_JOBS = "headway.v1.JobService"
_OPERATIONS = "google.longrunning.Operations"
_CHANNELZ = "grpc.channelz.v1.Channelz"

POLICY: Mapping[str, Scope] = {
    f"{_JOBS}.CreateJob": Scope.REPORT,
    f"{_JOBS}.StartJob": Scope.REPORT,
    f"{_JOBS}.GetJob": Scope.READ,
    f"{_JOBS}.ListJobs": Scope.READ,
    f"{_JOBS}.UpdateJob": Scope.REPORT,
    f"{_JOBS}.ReportProgress": Scope.REPORT,
    f"{_JOBS}.StreamProgress": Scope.REPORT,
    f"{_JOBS}.FinishJob": Scope.REPORT,
    f"{_JOBS}.FailJob": Scope.REPORT,
    f"{_JOBS}.CancelJob": Scope.REPORT,
    f"{_JOBS}.SetVariables": Scope.REPORT,
    f"{_JOBS}.GetVariables": Scope.READ,
    f"{_JOBS}.GetResults": Scope.READ,
    f"{_JOBS}.ListRecordErrors": Scope.READ,
    f"{_JOBS}.ClearJob": Scope.REPORT,
    f"{_JOBS}.WatchJob": Scope.READ,
    f"{_JOBS}.WatchJobs": Scope.READ,
    f"{_OPERATIONS}.GetOperation": Scope.READ,
    f"{_OPERATIONS}.ListOperations": Scope.READ,
    f"{_OPERATIONS}.WaitOperation": Scope.READ,
    f"{_OPERATIONS}.CancelOperation": Scope.REPORT,
    f"{_OPERATIONS}.DeleteOperation": Scope.REPORT,
    # Content-free, for load balancers that have no token.
    "grpc.health.v1.Health.Check": Scope.OPEN,
    "grpc.health.v1.Health.Watch": Scope.OPEN,
    "grpc.reflection.v1alpha.ServerReflection.ServerReflectionInfo": Scope.READ,
    f"{_CHANNELZ}.GetTopChannels": Scope.READ,
    f"{_CHANNELZ}.GetServers": Scope.READ,
    f"{_CHANNELZ}.GetServer": Scope.READ,
    f"{_CHANNELZ}.GetServerSockets": Scope.READ,
    f"{_CHANNELZ}.GetChannel": Scope.READ,
    f"{_CHANNELZ}.GetSubchannel": Scope.READ,
    f"{_CHANNELZ}.GetSocket": Scope.READ,
}
"""What each method asks of its caller. A method without a row here cannot be served."""


class Credentials:
    """Who a caller is, from the metadata of a call. Tokens are kept as hashes alone."""

    def __init__(self, admin_token: str) -> None:
        self._admin = self._hash(admin_token)

    @staticmethod
    def _hash(token: str) -> bytes:
        return hashlib.sha256(token.encode()).digest()

    def caller(self, metadata: grpc.aio.Metadata | tuple[tuple[str, str | bytes], ...]) -> Caller:
        """The caller. Raises CredentialsInvalid for a token that is malformed, unknown or given twice."""
        given = [value for key, value in metadata if key == "authorization"]
        if not given:
            return ANYBODY
        value = given[0]
        if len(given) > 1 or not isinstance(value, str):
            raise CredentialsInvalid
        kind, _, token = value.partition(" ")
        if kind.lower() != "bearer" or not hmac.compare_digest(self._hash(token), self._admin):
            raise CredentialsInvalid
        return ADMIN


Context: TypeAlias = "grpc.aio.ServicerContext[message.Message, message.Message]"


Answer: TypeAlias = message.Message | bytes
"""What a method answers with; bytes are a message as it goes over the wire."""

_Handler: TypeAlias = "grpc.RpcMethodHandler[bytes, Answer]"
_Request = message.Message | AsyncIterator[message.Message]
_Unary = Callable[[_Request, "Caller | Context"], Awaitable[Answer]]
_Streaming = Callable[[_Request, "Caller | Context"], AsyncGenerator[Answer, None] | Awaitable[None]]


class Guard:
    """Makes the handlers that a gRPC server is given."""

    def __init__(self, credentials: Credentials) -> None:
        self._credentials = credentials
        self._running = 0
        self._idle = asyncio.Event()
        self._closed = False

    async def close(self, grace: float) -> None:
        """Refuse new calls, and wait until those that run have ended, or `grace` seconds.

        gRPC's own stop answers calls that come too late with CANCELLED, which nobody tries again elsewhere: so those
        that are on their way now are refused first, with a reason to.
        """
        self._closed = True
        with suppress(TimeoutError):
            async with asyncio.timeout(grace):
                await asyncio.sleep(ON_THEIR_WAY)
                if self._running:
                    await self._idle.wait()

    def _begun(self) -> None:
        self._running += 1

    def _over(self) -> None:
        self._running -= 1
        if self._closed and not self._running:
            self._idle.set()

    def service(
        self, service: ServiceDescriptor, servicer: object, *, wants_context: bool = False
    ) -> grpc.GenericRpcHandler:
        """Handlers for all methods of a service.

        The servicer's methods take the request (or the iterator of requests) and the Caller; those of gRPC's own
        services take the context in its place. A method that POLICY does not name raises KeyError.
        """
        handlers = {}
        for method in service.methods:
            run = getattr(servicer, method.name)
            handlers[method.name] = (
                self._streaming(method, run, wants_context)
                if method.server_streaming
                else self._unary(method, run, wants_context)
            )
        return grpc.method_handlers_generic_handler(service.full_name, handlers)

    def _unary(self, method: MethodDescriptor, run: _Unary, wants_context: bool) -> _Handler:
        enter, parse = self._entrance(method, wants_context), _parser(method)

        async def handle(raw: bytes, context: Context) -> Answer:
            try:
                who = enter(context)
                self._begun()
                try:
                    return await run(parse(raw), who)
                finally:
                    self._over()
            except JobError as error:
                await _refuse(context, error)
            except (asyncio.CancelledError, grpc.aio.AbortError):
                raise
            except Exception as error:
                await _confess(context, method, error)
            raise AssertionError("abort has raised")

        return grpc.unary_unary_rpc_method_handler(handle, response_serializer=_serialized)

    def _streaming(self, method: MethodDescriptor, run: _Streaming, wants_context: bool) -> _Handler:
        enter, parse = self._entrance(method, wants_context), _parser(method)

        async def handle(raw: bytes | AsyncIterator[bytes], context: Context) -> AsyncIterator[Answer]:
            try:
                who = enter(context)
                request = parse(raw) if isinstance(raw, bytes) else _parsed(raw, parse)
                answers = run(request, who)
                if isinstance(answers, Awaitable):
                    # gRPC's own health service writes through the context instead of yielding.
                    await answers
                    return
                self._begun()
                try:
                    async with aclosing(answers):
                        async for answer in answers:
                            yield answer
                finally:
                    self._over()
            except JobError as error:
                await _refuse(context, error)
            except (asyncio.CancelledError, grpc.aio.AbortError, GeneratorExit):
                raise
            except Exception as error:
                await _confess(context, method, error)

        if method.client_streaming:
            return grpc.stream_stream_rpc_method_handler(handle, response_serializer=_serialized)
        return grpc.unary_stream_rpc_method_handler(handle, response_serializer=_serialized)

    def _entrance(self, method: MethodDescriptor, wants_context: bool) -> Callable[[Context], Caller | Context]:
        scope = POLICY[method.full_name]

        def enter(context: Context) -> Caller | Context:
            if self._closed and scope is not Scope.OPEN:
                raise ShuttingDown
            remaining = context.time_remaining()
            if remaining is not None and remaining < DEADLINE_OVER:
                raise DeadlinePassed
            caller = ANYBODY
            if scope is not Scope.OPEN:
                caller = self._credentials.caller(context.invocation_metadata() or ())
                if scope not in caller.scopes:
                    raise ScopeMissing
            return context if wants_context else caller

        return enter


def _parser(method: MethodDescriptor) -> Callable[[bytes], message.Message]:
    kind = message_factory.GetMessageClass(method.input_type)

    def parse(raw: bytes) -> message.Message:
        try:
            return kind.FromString(raw)
        except message.DecodeError:
            raise MalformedMessage from None

    return parse


def _serialized(answer: Answer) -> bytes:
    return answer if isinstance(answer, bytes) else answer.SerializeToString()


async def _parsed(
    raws: AsyncIterator[bytes], parse: Callable[[bytes], message.Message]
) -> AsyncIterator[message.Message]:
    async for raw in raws:
        yield parse(raw)


async def _refuse(context: Context, error: JobError) -> None:
    await _abort(context, replies.status(error))


async def _confess(context: Context, method: MethodDescriptor, error: Exception) -> None:
    """A fault of our own: the caller gets an id and nothing of our insides, the log gets the rest."""
    number = secrets.token_hex(8)
    log.error("fault %s in %s", number, method.full_name, exc_info=error)
    await _abort(context, replies.fault(number))


async def _abort(context: Context, status: status_pb2.Status) -> None:
    code = next(code for code in grpc.StatusCode if code.value[0] == status.code)
    details = (("grpc-status-details-bin", status.SerializeToString()),)
    await context.abort(code, status.message, details)

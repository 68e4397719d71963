"""The call guard around every method, for all transports: authenticate, authorize, call, map errors, count.

A transport only translates its protocol. The guard decides what is allowed and refused, and what callers are told.
"""

from __future__ import annotations

import asyncio
import enum
import hashlib
import hmac
import logging
import secrets
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from types import TracebackType
from typing import NamedTuple, ParamSpec, TypeAlias, TypeVar

import grpc.aio
from google.protobuf import message, message_factory
from google.protobuf.descriptor import MethodDescriptor
from google.rpc import status_pb2

from headway_server.domain.errors import (
    CredentialsInvalid,
    DeadlinePassed,
    JobError,
    MalformedMessage,
    MemoryLimit,
    Overloaded,
    ScopeMissing,
    ShuttingDown,
)
from headway_server.domain.limits import MICROSECONDS, Limits
from headway_server.resources.budget import Budget
from headway_server.resources.call_statistics import CANCELLED, CallStatistics
from headway_server.resources.offload import read_off_loop
from headway_server.rpc import to_proto, wire_fields

log = logging.getLogger(__name__)

T = TypeVar("T")
P = ParamSpec("P")


PARSED_INLINE_MAX = 64 * 1024
"""Larger requests (bytes) are parsed off the event loop. Smaller ones take at most 3 ms."""

FIELDS_A_VALUE = 4
"""The most fields on the wire for one value of JSON: an entry of an object, with its key and value."""

DRAIN_DELAY = 0.25
"""Seconds in which calls may still arrive from callers that do not know of the shutdown yet."""


REPLY_MARGIN = 0.5
REPLY_MARGIN_PART = 0.2
"""A wait ends this many seconds before the caller's deadline, or this part of the remaining time if that is less."""

DEADLINE_MIN = 0.001
"""A deadline that is less than this many seconds away has passed: gRPC rounds the remaining time up."""


class Scope(enum.Enum):
    """What a caller may do. OPEN methods need no permission."""

    OPEN = "open"
    READ = "read"
    REPORT = "report"
    ADMIN = "admin"


class Caller(NamedTuple):
    """The caller of a method: its scopes, its connection, and its deadline."""

    scopes: frozenset[Scope]
    connection: str = ""
    remaining: float | None = None
    """Seconds until the deadline, when the call began."""

    @property
    def is_admin(self) -> bool:
        return Scope.ADMIN in self.scopes

    def within_deadline(self, wait: int) -> int:
        """How long (µs) to wait, at most `wait`, so that the reply reaches the caller before the deadline."""
        if self.remaining is None:
            return wait
        left = self.remaining - min(REPLY_MARGIN, self.remaining * REPLY_MARGIN_PART)
        return min(wait, int(left * MICROSECONDS))


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
    # Reveals nothing, and load balancers have no token.
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
"""The scope that each method requires. A method without a row here cannot be served."""

LARGE_REPLIES = frozenset(
    {
        f"{_JOBS}.ListJobs",
        f"{_JOBS}.GetVariables",
        f"{_JOBS}.GetResults",
        f"{_JOBS}.ListRecordErrors",
        f"{_OPERATIONS}.GetOperation",
        f"{_OPERATIONS}.ListOperations",
    }
)
"""Methods with large replies: callers take turns. WaitOperation is not among them, because it takes its turn after its
long wait."""


class Credentials:
    """Authenticates callers by the `authorization` of a call. Only hashes of tokens are kept."""

    def __init__(self, admin_token: str) -> None:
        self._admin = self._hash(admin_token)

    @staticmethod
    def _hash(token: str) -> bytes:
        return hashlib.sha256(token.encode()).digest()

    def caller(self, given: Sequence[str | bytes]) -> Caller:
        """The caller. Raises CredentialsInvalid if the token is malformed, unknown or given twice."""
        if not given:
            return ANYBODY
        value = given[0]
        if len(given) > 1 or not isinstance(value, str):
            raise CredentialsInvalid
        kind, _, token = value.partition(" ")
        if kind.lower() != "bearer" or not hmac.compare_digest(self._hash(token), self._admin):
            raise CredentialsInvalid
        return ADMIN


Answer: TypeAlias = message.Message | bytes
"""The reply of a method. Bytes are a serialized message."""


class Refused(Exception):
    """A call failed. `status` is what its caller gets."""

    def __init__(self, status: status_pb2.Status) -> None:
        super().__init__(status.message)
        self.status = status


class Guard:
    """Authorizes calls, and counts those that run. `wait` returns how many seconds a write probably waits now."""

    def __init__(self, credentials: Credentials, limits: Limits, wait: Callable[[], float]) -> None:
        self._credentials = credentials
        self.limits = limits
        self.requests = Budget(limits.request_bytes, MemoryLimit)
        """Bytes of the requests that arrive or are being processed. Each connection is a holder."""
        self.expanding = asyncio.Lock()
        self._wait = wait
        self._running = 0
        self._idle = asyncio.Event()
        self._closed = False
        self.call_statistics: dict[tuple[str, str], CallStatistics] = {}
        """The statistics by transport and full name of the method."""

    async def close(self, grace: float) -> None:
        """Refuse new calls, and wait until the running calls have ended, at most `grace` seconds.

        gRPC's own stop answers late calls with CANCELLED, which callers do not retry. So calls that are on their way
        are first refused with SHUTTING_DOWN, which callers retry elsewhere.
        """
        self._closed = True
        with suppress(TimeoutError):
            async with asyncio.timeout(grace):
                await asyncio.sleep(DRAIN_DELAY)
                if self._running:
                    await self._idle.wait()

    def method(self, descriptor: MethodDescriptor, transport: str) -> Method:
        """The guard of a method for a transport. Raises KeyError if POLICY has no row for the method."""
        statistics = self.call_statistics.setdefault((transport, descriptor.full_name), CallStatistics())
        return Method(self, descriptor, POLICY[descriptor.full_name], statistics)

    def authorize(self, scope: Scope, given: Sequence[str | bytes], remaining: float | None = None) -> Caller:
        """The caller, from all values of `authorization`. `remaining`: seconds until the caller's deadline. Raises the
        error for a caller who is refused."""
        if self._closed and scope is not Scope.OPEN:
            raise ShuttingDown
        if remaining is not None:
            self._check_time(scope, remaining)
        if scope is Scope.OPEN:
            return ANYBODY
        caller = self._credentials.caller(given)
        if scope not in caller.scopes:
            raise ScopeMissing
        return caller

    def _check_time(self, scope: Scope, remaining: float) -> None:
        """Refuse a call that cannot succeed before its deadline."""
        if remaining < DEADLINE_MIN:
            raise DeadlinePassed
        if scope is Scope.REPORT and remaining < (wait := self._wait()):
            raise Overloaded(wait)

    def call_began(self) -> None:
        """Count a running call. `close` waits for it."""
        self._running += 1

    def call_ended(self) -> None:
        """Count a call as ended."""
        self._running -= 1
        if self._closed and not self._running:
            self._idle.set()


class Method:
    """The guard of one method for one transport."""

    def __init__(self, guard: Guard, descriptor: MethodDescriptor, scope: Scope, statistics: CallStatistics) -> None:
        self.guard = guard
        self.descriptor = descriptor
        self.scope = scope
        self.statistics = statistics
        self._kind = message_factory.GetMessageClass(descriptor.input_type)
        self.large = descriptor.full_name in LARGE_REPLIES
        """Whether callers of the method take turns."""

    async def parse(self, raw: bytes) -> message.Message:
        """Parse a request. Large ones are parsed off the event loop, one at a time. Raises MalformedMessage and
        InvalidRequest."""
        if len(raw) <= PARSED_INLINE_MAX:
            return self.parse_now(raw)
        return await self.expand(self.parse_now, raw)

    async def expand(self, work: Callable[P, T], *arguments: P.args, **named: P.kwargs) -> T:
        """Run work off the event loop that makes a request many times larger than it was sent.

        The next such work begins only after the caller of this one has continued to its next `await`. By then it has
        refused the request or begun to convert it. So only few requests are expanded at a time.
        """
        async with self.guard.expanding:
            return await read_off_loop(work, *arguments, **named)

    def parse_now(self, raw: bytes) -> message.Message:
        """`parse`, for code that already runs off the event loop."""
        limit = FIELDS_A_VALUE * self.guard.limits.values
        # Every field takes at least two bytes.
        if len(raw) > 2 * limit:
            wire_fields.check(raw, self.descriptor.input_type, limit)
        try:
            return self._kind.FromString(raw)
        except message.DecodeError:
            raise MalformedMessage from None

    def call(self, given: Sequence[str | bytes], remaining: float | None, connection: str) -> GuardedCall:
        """A context manager around all work for one call: `with method.call(…) as caller`. Raises Refused if the call
        fails.

        `connection` is the name of the call's connection.
        """
        return GuardedCall(self, given, remaining, connection)

    def refused(self, error: JobError) -> Refused:
        """The error for a call that failed before `call`."""
        self.statistics.add(to_proto.CODES[error.reason], 0.0)
        _drop_traceback(error)
        return Refused(to_proto.status(error))


class GuardedCall:
    """The context manager around one call."""

    __slots__ = ("_began", "_connection", "_given", "_method", "_remaining")

    def __init__(self, method: Method, given: Sequence[str | bytes], remaining: float | None, connection: str) -> None:
        self._method = method
        self._connection = connection
        self._given = given
        self._remaining = remaining
        self._began = time.perf_counter()

    def __enter__(self) -> Caller:
        method = self._method
        try:
            caller = method.guard.authorize(method.scope, self._given, self._remaining)
        except JobError as error:
            raise self._refused(error) from None
        if method.scope is not Scope.OPEN:
            method.guard.call_began()
        return Caller(caller.scopes, self._connection, self._remaining)

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, _: TracebackType | None) -> None:
        method = self._method
        if method.scope is not Scope.OPEN:
            method.guard.call_ended()
        if error is None:
            self._count(0)
        elif isinstance(error, grpc.aio.AbortError):
            # One of gRPC's own services has already sent the status.
            pass
        elif isinstance(error, Exception):
            raise self._refused(error) from None
        else:
            self._count(CANCELLED)

    def _refused(self, error: Exception) -> Refused:
        if isinstance(error, JobError):
            status = to_proto.status(error)
        else:
            # A bug of the server: the caller gets an error id without internals. The log gets the rest.
            number = secrets.token_hex(8)
            log.error("fault %s in %s", number, self._method.descriptor.full_name, exc_info=error)
            status = to_proto.fault(number)
        self._count(status.code)
        _drop_traceback(error)
        return Refused(status)

    def _count(self, code: int) -> None:
        self._method.statistics.add(code, time.perf_counter() - self._began)


def _drop_traceback(error: Exception) -> None:
    """Drop the traceback. It refers to the variables of all its functions, which may be megabytes of a request. If one
    of these variables is the error itself, only the garbage collector frees the cycle."""
    error.__traceback__ = error.__context__ = None

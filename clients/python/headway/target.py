"""The address of the server, and how to open a gRPC channel to it."""

import os
import re
import threading
import time
from collections.abc import AsyncIterable, Awaitable, Callable, Iterable, Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Self, TypeVar

import grpc

from headway._engine.native_threads import has_greenlets

if TYPE_CHECKING:
    from pathlib import Path

    from grpc import _CallFuture, _CallIterator

DEFAULT_TARGET = "127.0.0.1:50051"

Request = TypeVar("Request")
Response = TypeVar("Response")
Options = Sequence[tuple[str, str | int]]

_ADDRESS = r"(?:(?P<scheme>https?)://)?(?P<host>\[[0-9A-Fa-f:.%]+\]|[^\s:/\[\]@]+):(?P<port>\d{1,5})/?"

# Methods that can be repeated without a second effect: reads, ends, and CreateJob, because this client always chooses
# the id. Reports have sequences and a retry of their own.
_REPEATABLE = (
    "CreateJob",
    "GetJob",
    "ListJobs",
    "FinishJob",
    "FailJob",
    "GetVariables",
    "GetResults",
    "ListRecordErrors",
)
_METHODS = ",".join(f'{{"service":"headway.v1.JobService","method":"{method}"}}' for method in _REPEATABLE)
_SERVICE_CONFIG = f"""{{"methodConfig":[{{"name":[{_METHODS}],"retryPolicy":{{"maxAttempts":5,"initialBackoff":"0.1s",
"maxBackoff":"2s","backoffMultiplier":2.5,"retryableStatusCodes":["UNAVAILABLE"]}}}}]}}"""

_GRPC_THREADS = ("event_engine", "grpc_", "lifeguard")
_CLEAN_UP_LOOKS = 500
"""The number of checks, 1 ms apart, whether gRPC's threads have ended before a fork. That is half a second, and more on
a busy machine, where those threads wait for a processor too."""

_opened = False


@dataclass(frozen=True, slots=True)
class Target:
    """A server's address, token and TLS settings. `from_environment` creates it."""

    address: str
    """`host:port`."""
    token: str | None = field(default=None, repr=False)
    """The bearer token, or None if the server needs none."""
    ca: "Path | None" = None
    """PEM file with the trusted authorities; None = those of the system."""
    tls: bool = False
    """Whether the connection is encrypted."""

    @classmethod
    def from_environment(
        cls, target: str | None = None, token: str | None = None, ca: str | os.PathLike[str] | None = None
    ) -> Self:
        """Uses the arguments, else HEADWAY_TARGET, HEADWAY_TOKEN and HEADWAY_CA, else 127.0.0.1:50051.

        `target` is `host:port`, `http://host:port` (plain text) or `https://host:port` (TLS); `ca` means TLS
        as well. An IPv6 address stands in brackets. ValueError if it is none of these.
        """
        text = target or os.environ.get("HEADWAY_TARGET") or DEFAULT_TARGET
        authorities = ca or os.environ.get("HEADWAY_CA")
        match = re.fullmatch(_ADDRESS, text)
        if not match or not 0 < int(match["port"]) < 65536:
            raise ValueError(
                f"The target must be host:port or https://host:port, such as {DEFAULT_TARGET}; not {text!r}."
            )
        token = token or os.environ.get("HEADWAY_TOKEN") or None
        if token and not re.fullmatch(r"[!-~]+", token):
            raise ValueError("The token must be of visible ASCII characters; is there a line break at its end?")
        if match["scheme"] == "http" and authorities:
            raise ValueError(
                "The target says http:// (plain text), but there is a CA file: write https://, or drop it."
            )
        return cls(
            address=f"{match['host']}:{match['port']}",
            token=token,
            ca=_path(authorities) if authorities else None,
            tls=bool(authorities) or match["scheme"] == "https",
        )

    def credentials(self) -> grpc.ChannelCredentials:
        """The TLS side of a channel. ValueError if the CA file cannot be read."""
        if self.ca is None:
            return grpc.ssl_channel_credentials()
        try:
            return grpc.ssl_channel_credentials(self.ca.read_bytes())
        except OSError as error:
            raise ValueError(f"The CA file {str(self.ca)!r} cannot be read: {error.strerror}.") from None


def _path(name: str | os.PathLike[str]) -> "Path":
    # Imported here: CA files are rare, and pathlib takes a good part of the import time of headway.
    from pathlib import Path

    return Path(name)


def load_grpc() -> None:
    """Lets gRPC import its modules now, so that no other thread does: an import there may wait for a greenlet here."""
    grpc.insecure_channel("127.0.0.1:1").close()


def open_channel(target: Target, *, retry: bool = True) -> grpc.Channel:
    """Opens a channel for synchronous calls. Nothing is sent before the first call.

    Every call carries the target's token. `retry`: calls that are safe to repeat are tried up to 5 times,
    within about 3 s, while the server is UNAVAILABLE. ValueError if the CA file cannot be read.
    """
    global _opened
    _opened = True
    options = _options(retry)
    if has_greenlets():
        # Otherwise a thread reads the stream. With greenlets it would be a greenlet that stops all others.
        from grpc.experimental import ChannelOptions

        options = (*options, (ChannelOptions.SingleThreadedUnaryStream, 1))
    channel = (
        grpc.secure_channel(target.address, target.credentials(), options)
        if target.tls
        else grpc.insecure_channel(target.address, options)
    )
    return grpc.intercept_channel(channel, _Bearer(target.token)) if target.token else channel


def clean_up(threads: Iterable[int]) -> None:
    """After the last channel is closed, waits until the threads of gRPC, and those of these threads that have ended,
    are gone: about half a second at most.

    gRPC shuts down in threads of its own. A fork meanwhile would leave the child with locks that are never released.
    Linux alone tells of those threads. They stay as long as somebody else uses gRPC in this process, so they are not
    waited for where no channel was opened here since the last fork.
    """
    global _opened
    opened, _opened = _opened, False
    exiting = set(threads)
    for _ in range(_CLEAN_UP_LOOKS):
        if not (_is_any_left(exiting) or (opened and _is_grpc_there())):
            break
        time.sleep(0.001)


def _is_any_left(exiting: set[int]) -> bool:
    """Whether a thread has ended for Python but still exists. Python warns at a fork of each existing thread."""
    ended = exiting - {thread.native_id for thread in threading.enumerate()}
    return any(_path(f"/proc/self/task/{number}").exists() for number in ended)


def _is_grpc_there() -> bool:
    if any(_is_of_grpc(thread) for thread in threading.enumerate()):
        return True
    for name in _path("/proc/self/task").glob("*/comm"):
        # A thread that has just ended has no name.
        with suppress(OSError):
            if name.read_text().startswith(_GRPC_THREADS):
                return True
    return False


def _is_of_grpc(thread: threading.Thread) -> bool:
    return getattr(getattr(thread, "_target", None), "__module__", "") == "grpc._cython.cygrpc"


def open_aio_channel(target: Target) -> grpc.aio.Channel:
    """Opens a channel for asyncio, in the running loop. Otherwise like `open_channel`."""
    interceptors = _aio_bearers(target.token) if target.token else None
    options = _options(retry=True)
    if target.tls:
        return grpc.aio.secure_channel(target.address, target.credentials(), options, interceptors=interceptors)
    return grpc.aio.insecure_channel(target.address, options, interceptors=interceptors)


def _options(retry: bool) -> Options:
    always: Options = (
        ("grpc.max_receive_message_length", 8 * 1024 * 1024),
        # The server allows a ping every 10 s.
        ("grpc.keepalive_time_ms", 30_000),
        ("grpc.keepalive_timeout_ms", 10_000),
        ("grpc.keepalive_permit_without_calls", 0),
        # gRPC waits up to two minutes between attempts to connect, much longer than a restart takes.
        ("grpc.initial_reconnect_backoff_ms", 100),
        # In spite of its name, this is the timeout of an attempt to connect.
        ("grpc.min_reconnect_backoff_ms", 5_000),
        ("grpc.max_reconnect_backoff_ms", 2_000),
        ("grpc.enable_retries", int(retry)),
    )
    return (*always, ("grpc.service_config", _SERVICE_CONFIG)) if retry else always


class _Bearer(grpc.UnaryUnaryClientInterceptor, grpc.UnaryStreamClientInterceptor, grpc.StreamStreamClientInterceptor):
    """Adds the token to each call. gRPC's own call credentials refuse plain text, loopback included."""

    def __init__(self, token: str) -> None:
        self._token = token

    def _signed(self, details: grpc.ClientCallDetails) -> grpc.ClientCallDetails:
        return _Details(details, (*(details.metadata or ()), ("authorization", f"Bearer {self._token}")))

    def intercept_unary_unary(
        self,
        continuation: Callable[[grpc.ClientCallDetails, Request], "_CallFuture[Response]"],
        client_call_details: grpc.ClientCallDetails,
        request: Request,
    ) -> "_CallFuture[Response]":
        return continuation(self._signed(client_call_details), request)

    def intercept_unary_stream(
        self,
        continuation: Callable[[grpc.ClientCallDetails, Request], "_CallIterator[Response]"],
        client_call_details: grpc.ClientCallDetails,
        request: Request,
    ) -> "_CallIterator[Response]":
        return continuation(self._signed(client_call_details), request)

    def intercept_stream_stream(
        self,
        continuation: Callable[[grpc.ClientCallDetails, Iterator[Request]], "_CallIterator[Response]"],
        client_call_details: grpc.ClientCallDetails,
        request_iterator: Iterator[Request],
    ) -> "_CallIterator[Response]":
        return continuation(self._signed(client_call_details), request_iterator)


class _Details(grpc.ClientCallDetails):
    def __init__(self, details: grpc.ClientCallDetails, metadata: tuple[tuple[str, str | bytes], ...]) -> None:
        self.method = details.method
        self.timeout = details.timeout
        self.metadata = metadata
        self.credentials = details.credentials
        self.wait_for_ready = details.wait_for_ready
        self.compression = details.compression


def _aio_bearers(token: str) -> list[grpc.aio.ClientInterceptor]:
    # grpc.aio uses an interceptor for only one kind of call, so each kind needs its own object.
    return [_AioUnary(token), _AioWatch(token), _AioStream(token)]


class _AioBearer:
    def __init__(self, token: str) -> None:
        self._token = token

    def _signed(self, details: grpc.aio.ClientCallDetails) -> grpc.aio.ClientCallDetails:
        metadata = grpc.aio.Metadata(*(details.metadata or ()), ("authorization", f"Bearer {self._token}"))
        return grpc.aio.ClientCallDetails(
            details.method, details.timeout, metadata, details.credentials, details.wait_for_ready
        )


class _AioUnary(_AioBearer, grpc.aio.UnaryUnaryClientInterceptor):
    async def intercept_unary_unary(
        self,
        continuation: Callable[
            [grpc.aio.ClientCallDetails, Request], Awaitable[grpc.aio.UnaryUnaryCall[Request, Response]]
        ],
        client_call_details: grpc.aio.ClientCallDetails,
        request: Request,
    ) -> grpc.aio.UnaryUnaryCall[Request, Response]:
        return await continuation(self._signed(client_call_details), request)


class _AioWatch(_AioBearer, grpc.aio.UnaryStreamClientInterceptor):
    async def intercept_unary_stream(
        self,
        continuation: Callable[
            [grpc.aio.ClientCallDetails, Request], Awaitable[grpc.aio.UnaryStreamCall[Request, Response]]
        ],
        client_call_details: grpc.aio.ClientCallDetails,
        request: Request,
    ) -> grpc.aio.UnaryStreamCall[Request, Response]:
        return await continuation(self._signed(client_call_details), request)


class _AioStream(_AioBearer, grpc.aio.StreamStreamClientInterceptor):
    async def intercept_stream_stream(
        self,
        continuation: Callable[
            [grpc.aio.ClientCallDetails, AsyncIterable[Request] | Iterable[Request]],
            Awaitable[grpc.aio.StreamStreamCall[Request, Response]],
        ],
        client_call_details: grpc.aio.ClientCallDetails,
        request_iterator: AsyncIterable[Request] | Iterable[Request],
    ) -> grpc.aio.StreamStreamCall[Request, Response]:
        return await continuation(self._signed(client_call_details), request_iterator)

"""The HTTP transport: methods as JSON, an endpoint for polling pages, the page's files, and operators' endpoints."""

import asyncio
import json
import socket
import sys
from collections.abc import Callable, Collection, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import cast

import h11
import uvicorn
from google.protobuf.descriptor import ServiceDescriptor
from starlette.datastructures import Headers
from starlette.middleware.cors import CORSMiddleware
from starlette.responses import PlainTextResponse, Response
from starlette.types import ASGIApp, Message, Receive, Scope, Send
from uvicorn.protocols.http.h11_impl import H11Protocol

from headway_server.domain.errors import (
    ConnectionsLimit,
    JobError,
    MalformedMessage,
    MemoryLimit,
    MethodUnknown,
    RequestTooSlow,
)
from headway_server.http import connect_protocol, page_files, poll
from headway_server.http.http_errors import refusal
from headway_server.http.origin_policy import OriginPolicy
from headway_server.resources.budget import Budget
from headway_server.resources.large_replies import LargeReplies
from headway_server.rpc.call_guard import Guard
from headway_server.rpc.call_guard import Scope as Allowed

PAGE = Path(__file__).with_name("page")
OPENAPI = Path(__file__).with_name("openapi.json")

REQUEST_HEAD_BYTES_MAX = 16 * 1024
"""The largest head of a request, in bytes."""

HEAD_TIMEOUT = 10.0
"""Seconds from a connection to the first byte of a request, and from that byte to the end of the head."""

HTTP_WRITE_TIMEOUT = 60.0
"""Seconds after which the server closes the connection of a caller that does not receive its reply."""

HTTP_SHUTDOWN_WRITE_TIMEOUT = 0.5
"""The same during the shutdown."""

WRITE_BUFFER_BYTES = 16 * 1024
"""Bytes of a reply that may wait in a connection before they count as unsent."""

RESERVED_CONNECTIONS = 64
"""Connections beyond the limit that may still request the health. Other requests get CONNECTIONS_LIMIT."""

RESERVED_TIMEOUT = 2.0
"""Seconds in which such a connection must send its request."""

HEALTH_PATHS = frozenset({"/healthz", "/readyz"})

REFUSAL_CLOSE_DELAY = 1.0
"""Seconds that a connection stays open after a refusal."""

IDLE_CONNECTION_TIMEOUT = 75
"""Seconds that an idle connection stays open for the next request."""

ALLOWED_HEADERS = ("authorization", "connect-protocol-version", "connect-timeout-ms")
"""Headers that pages of allowed origins may send, besides those that any page may send."""


class Router:
    """Routes each request by its path, and checks its HTTP method."""

    def __init__(self, apps: Mapping[str, tuple[Collection[str], ASGIApp]]) -> None:
        self._apps = apps

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        verbs, app = self._apps.get(scope["path"], ((), None))
        if app is None:
            app = refusal(MethodUnknown())
        elif scope["method"] not in verbs:
            allowed = ", ".join(verbs)
            error = MethodUnknown(f"This path accepts only {allowed}.")
            app = refusal(error, 405, {"allow": allowed})
        await app(scope, receive, send)


def application(
    guard: Guard,
    service: ServiceDescriptor,
    servicer: object,
    *,
    listen: str,
    grpc_port: int,
    hosts: Collection[str],
    origins: Collection[str],
    limit: int,
    large_replies: LargeReplies,
    heartbeat: float,
    ready: Callable[[], JobError | None],
    metrics: Callable[[], Response],
    operator_scope: Allowed,
) -> ASGIApp:
    """The whole application. `operator_scope`: the scope for /readyz and /metrics. `limit`: the largest message in
    bytes."""
    methods = connect_protocol.applications(guard, service, servicer, limit, large_replies, heartbeat)
    get_job = service.methods_by_name["GetJob"]
    polled = connect_protocol.Unary(
        guard.method(get_job, connect_protocol.HTTP_TRANSPORT),
        getattr(servicer, get_job.name),
        limit,
        poll.encode,
        large_replies,
        json_only=True,
    )

    def answer_ready() -> Response:
        trouble = ready()
        return PlainTextResponse("ready\n") if trouble is None else refusal(trouble)

    looked: dict[str, ASGIApp] = {
        "/healthz": PlainTextResponse("alive\n", headers={"cache-control": "no-store"}),
        "/readyz": _OperatorEndpoint(guard, operator_scope, answer_ready),
        "/metrics": _OperatorEndpoint(guard, operator_scope, metrics),
        **dict(page_files.served(PAGE)),
    }
    if OPENAPI.exists():
        looked["/openapi.json"] = page_files.File(OPENAPI.read_bytes(), "application/json")
    # The page shows how to create a job.
    looked["/server.json"] = page_files.File(json.dumps({"grpcPort": grpc_port}).encode(), "application/json")
    called: dict[str, ASGIApp] = {"/poll": polled}
    called |= {f"/{service.full_name}/{name}": app for name, app in methods.items()}
    apps: ASGIApp = Router(
        {path: (("GET", "HEAD"), app) for path, app in looked.items()}
        | {path: (("POST",), app) for path, app in called.items()}
    )
    if origins:
        apps = CORSMiddleware(apps, origins, ("GET", "POST"), ALLOWED_HEADERS, max_age=7200)
    return OriginPolicy(apps, listen, hosts, origins)


class _OperatorEndpoint:
    """An endpoint for operators. It requires `scope` if other machines can reach the port."""

    def __init__(self, guard: Guard, scope: Allowed, answer: Callable[[], Response]) -> None:
        self._guard = guard
        self._scope = scope
        self._answer = answer

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        try:
            self._guard.authorize(self._scope, Headers(scope=scope).getlist("authorization"))
            response = self._answer()
        except JobError as error:
            response = refusal(error)
        await response(scope, receive, send)


class _Config(uvicorn.Config):
    """uvicorn's settings, and the limits of all connections together."""

    connections: int
    unsent: Budget
    ending = False
    """Whether the server is stopping and does not wait for slow callers."""


class _Protocol(H11Protocol):
    """HTTP/1.1 with timeouts, and a specific status for each error in a head."""

    config: _Config
    _head_timeout = 0.0
    _unsent = 0
    """Bytes of a reply that count as unsent for this caller."""
    _waiting: asyncio.TimerHandle | None = None
    _stuck: asyncio.TimerHandle | None = None
    _begun = False
    """Whether a part of a head has arrived."""
    _refused = False

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        super().connection_made(cast(asyncio.Transport, transport))
        self.transport.set_write_buffer_limits(WRITE_BUFFER_BYTES)
        self._served, self.app = self.app, self._bounded
        self._head_timeout = HEAD_TIMEOUT
        beyond = len(self.connections) - self.config.connections
        if beyond > RESERVED_CONNECTIONS:
            self._refuse(refusal(ConnectionsLimit(), 503), close_delay=0)
        elif beyond > 0:
            self._served = _only_health(self._served, self.transport)
            self._head_timeout = min(HEAD_TIMEOUT, RESERVED_TIMEOUT)
        self._wait()

    async def _bounded(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer a request. If the reply is larger than this connection may hold, send an error instead."""
        start: Message | None = None
        refused = False

        async def send_bounded(message: Message) -> None:
            nonlocal start, refused
            if message["type"] == "http.response.start":
                start = message
                return
            if start is not None:
                if not self._may_hold(len(message.get("body", b""))):
                    refused = True
                    await refusal(MemoryLimit())(scope, receive, send)
                else:
                    await send(start)
                start = None
            if not refused:
                await send(message)

        await self._served(scope, receive, send_bounded)

    def _may_hold(self, size: int) -> bool:
        return size <= WRITE_BUFFER_BYTES or self.config.unsent.allows(self._name, size)

    @property
    def _name(self) -> str:
        return connect_protocol.connection({"client": self.client})

    def data_received(self, data: bytes) -> None:
        if self._refused:
            return
        super().data_received(data)
        if self.cycle is not None and not self.cycle.response_complete:
            self._begun = False
            self._stop_waiting()
        elif not self._begun:
            self._begun = True
            self._wait()

    def _wait(self) -> None:
        self._stop_waiting()
        self._waiting = self.loop.call_later(self._head_timeout, self._too_slow)

    def _stop_waiting(self) -> None:
        if self._waiting is not None:
            self._waiting.cancel()

    def pause_writing(self) -> None:
        super().pause_writing()
        size = self.transport.get_write_buffer_size()
        if self.config.unsent.allows(self._name, size):
            self.config.unsent.take(self._name, size)
            self._unsent = size
            timeout = HTTP_SHUTDOWN_WRITE_TIMEOUT if self.config.ending else HTTP_WRITE_TIMEOUT
            self._stuck = self.loop.call_later(timeout, self.transport.abort)
        else:
            self.transport.abort()

    def resume_writing(self) -> None:
        super().resume_writing()
        self._sent()

    def shorten_timeouts(self) -> None:
        """The server is stopping: do not wait long for this caller to receive its reply."""
        if self._stuck is not None:
            self._stuck.cancel()
            self._stuck = self.loop.call_later(HTTP_SHUTDOWN_WRITE_TIMEOUT, self.transport.abort)

    def _sent(self) -> None:
        if self._stuck is not None:
            self._stuck.cancel()
            self._stuck = None
        self.config.unsent.give_back(self._name, self._unsent)
        self._unsent = 0

    def connection_lost(self, exc: Exception | None) -> None:
        self._stop_waiting()
        self._sent()
        super().connection_lost(exc)
        # Without this reference cycle the object is freed at once.
        self.app = self._served

    def _too_slow(self) -> None:
        if self._begun and self.conn.our_state is h11.IDLE:
            self._refuse(refusal(RequestTooSlow()))
        else:
            self.transport.close()

    def send_400_response(self, msg: str) -> None:
        error = sys.exc_info()[1]
        status = error.error_status_hint if isinstance(error, h11.RemoteProtocolError) else 400
        what = "is larger than the server accepts" if status == 431 else "is not valid HTTP/1.1"
        refused = MalformedMessage(f"The head of the request {what}.")
        self._refuse(refusal(refused, status))

    def _refuse(self, response: Response, *, close_delay: float = REFUSAL_CLOSE_DELAY) -> None:
        self._refused = True
        if self.cycle is not None and not self.cycle.response_complete:
            # A reply that has begun must not be completed as if nothing had happened.
            self.cycle.disconnected = True
            self.cycle.message_event.set()
        if self.conn.our_state not in (h11.IDLE, h11.SEND_RESPONSE):
            self.transport.close()
            return
        headers = [(b"connection", b"close"), *(item for item in response.raw_headers if item[0] != b"connection")]
        head = h11.Response(status_code=response.status_code, headers=headers)
        for event in (head, h11.Data(data=bytes(response.body)), h11.EndOfMessage()):
            self.transport.write(self.conn.send(event) or b"")
        # Close later: a caller that is still sending would not get the reply otherwise.
        self.loop.call_later(close_delay, self.transport.close)


def _only_health(served: ASGIApp, transport: asyncio.BaseTransport) -> ASGIApp:
    """The application for connections beyond the limit: load balancers must not consider a busy server dead."""

    async def serve(scope: Scope, receive: Receive, send: Send) -> None:
        app = served if scope["path"] in HEALTH_PATHS else refusal(ConnectionsLimit(), 503)
        await app(scope, receive, send)
        transport.close()

    return serve


class _Server(uvicorn.Server):
    """uvicorn within a process that handles signals itself."""

    def __init__(self, config: uvicorn.Config) -> None:
        super().__init__(config)
        self.ready = asyncio.Event()

    @contextmanager
    def capture_signals(self) -> Iterator[None]:
        yield

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        await super().startup(sockets)
        self.ready.set()


class HttpServer:
    """The server of the HTTP port. Call `start`, then `stop`."""

    def __init__(self, app: ASGIApp, sockets: list[socket.socket], connections: int, unsent: Budget) -> None:
        """`connections`: the most open connections. `unsent`: the budget for replies that callers have not received."""
        self._sockets = sockets
        config = self._config = _Config(
            app,
            http=_Protocol,
            ws="none",
            lifespan="off",
            loop="none",
            log_config=None,
            access_log=False,
            proxy_headers=False,
            server_header=False,
            timeout_keep_alive=IDLE_CONNECTION_TIMEOUT,
            timeout_graceful_shutdown=1,
            h11_max_incomplete_event_size=REQUEST_HEAD_BYTES_MAX,
        )
        config.connections, config.unsent = connections, unsent
        self._server = _Server(config)

    @property
    def connections(self) -> int:
        """The number of open connections."""
        return len(self._server.server_state.connections)

    async def start(self) -> None:
        self._task = asyncio.create_task(self._server.serve(self._sockets))
        await self._server.ready.wait()

    def shorten_timeouts(self) -> None:
        """The server is stopping: do not wait long for callers that do not read."""
        self._config.ending = True
        for protocol in self._server.server_state.connections:
            if isinstance(protocol, _Protocol):
                protocol.shorten_timeouts()

    async def stop(self) -> None:
        """Complete running requests, for at most a second, and close the port."""
        self._server.should_exit = True
        await self._task


def bind(address: str) -> list[socket.socket]:
    """Bound sockets for `host:port`. For port 0 all have the same port. Raises OSError."""
    host, _, port = address.rpartition(":")
    number = int(port)
    sockets: list[socket.socket] = []
    try:
        for family, kind, protocol, _, where in socket.getaddrinfo(
            host.strip("[]"), number, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE
        ):
            # Pass the protocol: asyncio sets TCP_NODELAY only if it knows that the socket is TCP.
            bound = socket.socket(family, kind, protocol)
            sockets.append(bound)
            bound.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            if family == socket.AF_INET6:
                bound.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
            bound.bind((where[0], number))
            number = bound.getsockname()[1]
    except OSError:
        for bound in sockets:
            bound.close()
        raise
    return sockets

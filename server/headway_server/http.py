"""The HTTP door: the methods as JSON, an endpoint for pages that poll, the page's files, and what operators ask for."""

import asyncio
import socket
import sys
from collections.abc import Callable, Collection, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

import h11
import uvicorn
from google.protobuf.descriptor import ServiceDescriptor
from starlette.datastructures import Headers
from starlette.middleware.cors import CORSMiddleware
from starlette.responses import PlainTextResponse, Response
from starlette.types import ASGIApp, Receive, Scope, Send
from uvicorn.protocols.http.h11_impl import H11Protocol

from headway_server import connect, files, poll, replies
from headway_server.errors import JobError, MalformedMessage, MethodUnknown, RequestTooSlow
from headway_server.guard import Guard
from headway_server.guard import Scope as Allowed
from headway_server.safety import Safety

PAGE = Path(__file__).with_name("page")
OPENAPI = Path(__file__).with_name("openapi.json")

HEAD_BYTES = 16 * 1024
"""So long may the head of a request be."""

HEAD_PATIENCE = 10.0
"""Seconds in which the head of a request must have arrived, from the connection or from the answer before."""

IDLE = 75
"""Seconds that a connection is kept for a next request."""

CALLERS_HEADERS = ("authorization", "connect-protocol-version", "connect-timeout-ms")
"""Headers that pages of allowed origins may send, besides what any page may."""


class Paths:
    """Sends each request to what its path names, if it has the right verb."""

    def __init__(self, apps: Mapping[str, tuple[Collection[str], ASGIApp]]) -> None:
        self._apps = apps

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        verbs, app = self._apps.get(scope["path"], ((), None))
        if app is None:
            app = connect.refusal(replies.status(MethodUnknown()))
        elif scope["method"] not in verbs:
            allowed = ", ".join(verbs)
            error = MethodUnknown(f"Nothing is done here but {allowed}.")
            app = connect.refusal(replies.status(error), 405, {"allow": allowed})
        await app(scope, receive, send)


def application(
    guard: Guard,
    service: ServiceDescriptor,
    servicer: object,
    *,
    listen: str,
    hosts: Collection[str],
    origins: Collection[str],
    limit: int,
    ready: Callable[[], JobError | None],
    metrics: Callable[[], Response],
    inward: Allowed,
) -> ASGIApp:
    """All that is served. `inward` is the scope that /readyz and /metrics ask for; `limit` a message's, in bytes."""
    methods = connect.applications(guard, service, servicer, limit)
    get_job = service.methods_by_name["GetJob"]
    polled = connect.Unary(
        guard.method(get_job, connect.DOOR), getattr(servicer, get_job.name), limit, poll.encode, json_only=True
    )

    def answer_ready() -> Response:
        trouble = ready()
        return PlainTextResponse("ready\n") if trouble is None else connect.refusal(replies.status(trouble))

    looked: dict[str, ASGIApp] = {
        "/healthz": PlainTextResponse("alive\n", headers={"cache-control": "no-store"}),
        "/readyz": _Inward(guard, inward, answer_ready),
        "/metrics": _Inward(guard, inward, metrics),
        **dict(files.served(PAGE)),
    }
    if OPENAPI.exists():
        looked["/openapi.json"] = files.File(OPENAPI.read_bytes(), "application/json")
    called: dict[str, ASGIApp] = {"/poll": polled}
    called |= {f"/{service.full_name}/{name}": app for name, app in methods.items()}
    apps: ASGIApp = Paths(
        {path: (("GET", "HEAD"), app) for path, app in looked.items()}
        | {path: (("POST",), app) for path, app in called.items()}
    )
    if origins:
        apps = CORSMiddleware(apps, origins, ("GET", "POST"), CALLERS_HEADERS, max_age=7200)
    return Safety(apps, listen, hosts, origins)


class _Inward:
    """What operators ask for, behind the guard where the port can be reached from elsewhere."""

    def __init__(self, guard: Guard, scope: Allowed, answer: Callable[[], Response]) -> None:
        self._guard = guard
        self._scope = scope
        self._answer = answer

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        try:
            self._guard.admit(self._scope, Headers(scope=scope).getlist("authorization"))
            response = self._answer()
        except JobError as error:
            response = connect.refusal(replies.status(error))
        await response(scope, receive, send)


class _Protocol(H11Protocol):
    """HTTP/1.1 that waits for nobody's head for ever, and says by its own status what is wrong with it."""

    _timer: asyncio.TimerHandle | None = None

    def connection_made(self, transport: asyncio.Transport) -> None:
        super().connection_made(transport)
        self._timer = self.loop.call_later(HEAD_PATIENCE, self._too_slow)

    def data_received(self, data: bytes) -> None:
        super().data_received(data)
        if self.conn.their_state is not h11.IDLE:
            self._hurry(False)
        elif self._timer is None:
            self._hurry(True)

    def connection_lost(self, exc: Exception | None) -> None:
        self._hurry(False)
        super().connection_lost(exc)

    def _hurry(self, wanted: bool) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        if wanted:
            self._timer = self.loop.call_later(HEAD_PATIENCE, self._too_slow)

    def _too_slow(self) -> None:
        if not self.transport.is_closing():
            self._refuse(connect.refusal(replies.status(RequestTooSlow())))

    def send_400_response(self, msg: str) -> None:
        error = sys.exc_info()[1]
        status = error.error_status_hint if isinstance(error, h11.RemoteProtocolError) else 400
        what = "is longer than the server takes" if status == 431 else "is not HTTP as the server speaks it"
        refused = MalformedMessage(f"The head of the request {what}.")
        self._refuse(connect.refusal(replies.status(refused), status))

    def _refuse(self, response: Response) -> None:
        headers = [*response.raw_headers, (b"connection", b"close")]
        head = h11.Response(status_code=response.status_code, headers=headers)
        for event in (head, h11.Data(data=bytes(response.body)), h11.EndOfMessage()):
            self.transport.write(self.conn.send(event) or b"")
        self.transport.close()


class _Server(uvicorn.Server):
    """uvicorn as one part of a process that has signals of its own."""

    def __init__(self, config: uvicorn.Config) -> None:
        super().__init__(config)
        self.ready = asyncio.Event()

    @contextmanager
    def capture_signals(self) -> Iterator[None]:
        yield

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        await super().startup(sockets)
        self.ready.set()


class Door:
    """The port. `start`, then `stop`."""

    def __init__(self, app: ASGIApp, sockets: list[socket.socket]) -> None:
        self._sockets = sockets
        config = uvicorn.Config(
            app,
            http=_Protocol,
            ws="none",
            lifespan="off",
            loop="none",
            log_config=None,
            access_log=False,
            proxy_headers=False,
            server_header=False,
            timeout_keep_alive=IDLE,
            timeout_graceful_shutdown=1,
            h11_max_incomplete_event_size=HEAD_BYTES,
        )
        self._server = _Server(config)

    async def start(self) -> None:
        self._task = asyncio.create_task(self._server.serve(self._sockets))
        await self._server.ready.wait()

    async def stop(self) -> None:
        """Answer what is being answered, for a second, and close the port."""
        self._server.should_exit = True
        await self._task


def bind(address: str) -> list[socket.socket]:
    """Sockets for `host:port`, bound; for port 0 all on the same one. Raises OSError."""
    host, _, port = address.rpartition(":")
    number = int(port)
    sockets: list[socket.socket] = []
    try:
        for family, _, _, _, where in socket.getaddrinfo(
            host.strip("[]"), number, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE
        ):
            sockets.append(socket.create_server((where[0], number), family=family, backlog=512))
            number = sockets[0].getsockname()[1]
    except OSError:
        for bound in sockets:
            bound.close()
        raise
    return sockets

"""A receiver of webhooks on a loopback port, that keeps what it is sent and answers as a test wants."""

import json
import ssl
import threading
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any, Self  # Any: JSON as it comes

from standardwebhooks import Webhook

SECRET = "whsec_" + "c2VjcmV0LW9mLXRoZS10ZXN0cy0zMi1ieXRlcy1sb25n"


@dataclass(frozen=True, slots=True)
class Received:
    """A request that came in."""

    headers: Mapping[str, str]
    body: bytes
    subject: str
    """The job that it says it is about; nothing is verified yet."""

    @property
    def id(self) -> str:
        return self.headers["webhook-id"]

    def event(self, secret: str = SECRET) -> dict[str, Any]:
        """The CloudEvent, once its signature is verified by a library that nobody here wrote."""
        Webhook(secret).verify(self.body, dict(self.headers))
        event: dict[str, Any] = json.loads(self.body)
        return event


@dataclass(slots=True)
class Receiver:
    """Down until it is started; keeps its port while it is down. `status` 0: closes the connection unanswered."""

    status: int = 204
    headers: Mapping[str, str] = field(default_factory=dict)
    disliked: str = ""
    """Whatever holds this is answered with `disliked_status`."""
    disliked_status: int = 400
    tls: ssl.SSLContext | None = None
    received: list[Received] = field(default_factory=list)
    free: threading.Event = field(default_factory=threading.Event)
    """While it is clear no request is answered, if it holds the text `held`."""
    held: str = ""
    port: int = 0
    _server: ThreadingHTTPServer | None = None

    def __post_init__(self) -> None:
        self.free.set()
        with self:
            # To learn of a free port.
            pass

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}/hook?key=of-the-receiver"

    @property
    def subjects(self) -> list[str]:
        """The job of every request, in order."""
        return [request.event()["subject"] for request in self.received]

    def events(self) -> list[tuple[str, str]]:
        """Type and job of every request, in order."""
        events = [request.event() for request in self.received]
        return [(event["type"], event["subject"]) for event in events]

    def times_each(self) -> set[int]:
        """How often each id came."""
        return set(Counter(request.id for request in self.received).values())

    def start(self) -> Self:
        self._server = _Server(("127.0.0.1", self.port), _Handler)
        self._server.receiver = self
        self.port = self._server.server_port
        threading.Thread(target=self._server.serve_forever, args=(0.01,), daemon=True).start()
        return self

    def stop(self) -> None:
        """Refuse connections from now on."""
        assert self._server is not None
        self.free.set()
        self._server.shutdown()
        self._server.server_close()

    def __enter__(self) -> Self:
        return self.start()

    def __exit__(self, *_: object) -> None:
        self.stop()


class _Server(ThreadingHTTPServer):
    receiver: Receiver
    # Several senders connect at once.
    request_queue_size = 128

    def get_request(self) -> Any:
        connection, address = super().get_request()
        if self.receiver.tls is not None:
            connection = self.receiver.tls.wrap_socket(connection, server_side=True, do_handshake_on_connect=False)
        return connection, address

    def handle_error(self, request: object, client_address: object) -> None:
        """A client that goes away is no error here."""


class _Handler(BaseHTTPRequestHandler):
    server: _Server

    def do_POST(self) -> None:
        receiver = self.server.receiver
        body = self.rfile.read(int(self.headers["content-length"]))
        headers = {name.lower(): value for name, value in self.headers.items()}
        receiver.received.append(Received(headers, body, json.loads(body).get("subject", "")))
        if receiver.held in body.decode():
            receiver.free.wait()
        dislikes = receiver.disliked and receiver.disliked in body.decode()
        status = receiver.disliked_status if dislikes else receiver.status
        if status:
            self.send_response(status)
            for name, value in receiver.headers.items():
                self.send_header(name, value)
            self.end_headers()

    def log_message(self, *_: object) -> None:
        """Say nothing."""

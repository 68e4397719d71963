"""Requests to the HTTP transport as any client could send them, and answers as they came."""

import http.client
import json
import struct
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import Any  # JSON

from tests.support.http_channel import told
from tests.support.refusals import Refusal, from_error

JSON: Mapping[str, str] = MappingProxyType({"content-type": "application/json"})
STREAM: Mapping[str, str] = MappingProxyType({"content-type": "application/connect+json"})

PREFIX = "/headway.v1.JobService/"

REQUEST_TIMEOUT = 20.0


@dataclass(frozen=True, slots=True)
class Answer:
    """An HTTP response; names of headers are in lower case."""

    status: int
    headers: Mapping[str, str]
    body: bytes

    @property
    def json(self) -> Any:
        return json.loads(self.body)

    @property
    def refusal(self) -> Refusal:
        """The error that it holds, checked as those of gRPC are."""
        assert self.status != 200, self.body[:300]
        assert self.headers["content-type"] == "application/json"
        return from_error(told(self.json))

    @property
    def messages(self) -> tuple[list[Any], dict[str, Any]]:
        """The messages of a stream, and how it ended."""
        assert self.status == 200, self.body[:300]
        found: list[Any] = []
        rest = self.body
        while rest:
            flags, length = struct.unpack(">BI", rest[:5])
            content, rest = json.loads(rest[5 : 5 + length]), rest[5 + length :]
            if flags == 2:
                assert rest == b"", "something follows the end of the stream"
                return found, content
            assert flags == 0
            found.append(content)
        raise AssertionError("the stream has no end")


class Client:
    """One connection; `headers` go with every request."""

    def __init__(self, address: str, headers: Mapping[str, str] = MappingProxyType({})) -> None:
        self._connection = http.client.HTTPConnection(address, timeout=REQUEST_TIMEOUT)
        self._headers = headers

    def send(self, verb: str, path: str, headers: Iterable[tuple[str, str]] = (), body: bytes | None = None) -> Answer:
        """A request as it is given; Host and Content-Length are added where they are missing."""
        given = [*self._headers.items(), *headers]
        names = {name.lower() for name, _ in given}
        self._connection.putrequest(verb, path, skip_host="host" in names, skip_accept_encoding=True)
        for name, value in given:
            self._connection.putheader(name, value)
        if body is not None and not names & {"content-length", "transfer-encoding"}:
            self._connection.putheader("content-length", str(len(body)))
        self._connection.endheaders(body)
        response = self._connection.getresponse()
        content = response.read()
        found = Answer(response.status, {n.lower(): v for n, v in response.getheaders()}, content)
        if response.will_close:
            self._connection.close()
        return found

    def get(self, path: str, **headers: str) -> Answer:
        return self.send("GET", path, _dashed(headers))

    def call(self, method: str, body: object, **headers: str) -> Answer:
        """A unary method; the body is bytes, or something to say as JSON."""
        return self.post(PREFIX + method, body, **headers)

    def post(self, path: str, body: object, **headers: str) -> Answer:
        """The same to any path."""
        raw = body if isinstance(body, bytes) else json.dumps(body).encode()
        given = dict(_dashed(headers))
        return self.send("POST", path, ({**JSON, **given}).items(), raw)

    def stream(self, method: str, *messages: object, **headers: str) -> Answer:
        """A method that streams, with these messages; read until it ends."""
        given = dict(_dashed(headers))
        raw = b"".join(enveloped(message) for message in messages)
        return self.send("POST", PREFIX + method, ({**STREAM, **given}).items(), raw)

    def close(self) -> None:
        self._connection.close()


def enveloped(message: object, flags: int = 0) -> bytes:
    """A message of a stream as it travels."""
    raw = message if isinstance(message, bytes) else json.dumps(message).encode()
    return struct.pack(">BI", flags, len(raw)) + raw


def _dashed(headers: Mapping[str, str]) -> list[tuple[str, str]]:
    return [(name.replace("_", "-"), value) for name, value in headers.items()]

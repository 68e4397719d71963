"""A channel to the HTTP transport that looks like gRPC's own: every test of the RPCs runs through both transports.

Messages travel as JSON; what JSON cannot say (bytes that are no message, NaN), or not in as many bytes as the server
takes, travels as protobuf.
"""

import base64
import http.client
import json
import socket
import struct
import threading
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import suppress
from typing import Any  # grpc's interface, and JSON

import grpc
from google.protobuf import json_format, message, message_factory
from google.protobuf.descriptor import MethodDescriptor
from google.rpc import status_pb2

from headway.v1 import job_service_pb2

SERVICE = job_service_pb2.DESCRIPTOR.services_by_name["JobService"]

CALL_TIMEOUT = 10.0
"""Seconds that a test waits longer than the server should take."""

LARGEST = 4 * 1024 * 1024
"""Bytes of a message that the server takes."""

CODES = {code.name.lower().replace("cancelled", "canceled"): code for code in grpc.StatusCode}

Metadata = Iterable[tuple[str, str]] | None
Pairs = tuple[tuple[str, str | bytes], ...]


class HttpError(grpc.RpcError, grpc.Call):
    """A call that failed, as gRPC tells it."""

    def __init__(self, status: status_pb2.Status, headers: Pairs = ()) -> None:
        super().__init__(status.message)
        self._status = status
        self._headers = headers

    def code(self) -> grpc.StatusCode:
        return next(code for code in grpc.StatusCode if code.value[0] == self._status.code)

    def details(self) -> str:
        return self._status.message

    def initial_metadata(self) -> Any:
        return self._headers

    def trailing_metadata(self) -> Any:
        return (("grpc-status-details-bin", self._status.SerializeToString()),)

    def is_active(self) -> bool:
        return False

    def time_remaining(self) -> Any:
        return None

    def cancel(self) -> Any:
        return False

    def add_callback(self, callback: Callable[[], None]) -> bool:
        return False


def told(error: dict[str, Any], headers: Pairs = ()) -> HttpError:
    """From an error of the Connect protocol."""
    status = status_pb2.Status(code=CODES[error["code"]].value[0], message=error.get("message", ""))
    for detail in error.get("details", ()):
        value = base64.b64decode(detail["value"] + "=" * (-len(detail["value"]) % 4))
        packed = status.details.add(type_url=f"type.googleapis.com/{detail['type']}", value=value)
        assert "debug" in detail, packed
    return HttpError(status, headers)


class Codec:
    """One method's messages as they travel."""

    def __init__(self, path: str) -> None:
        method: MethodDescriptor | None = SERVICE.methods_by_name.get(path.rpartition("/")[2])
        self.streams = method is not None and method.server_streaming
        self.client_streams = method is not None and method.client_streaming
        self._request = message_factory.GetMessageClass(method.input_type) if method is not None else None
        self._response = message_factory.GetMessageClass(method.output_type) if method is not None else None

    def encode(self, raw: bytes) -> bytes | None:
        """JSON that says the same, or None."""
        if self._request is None:
            return b"{}"
        try:
            wanted = self._request.FromString(raw)
            text = json_format.MessageToJson(wanted)
            same = json_format.Parse(text, self._request()) == wanted
        except (message.DecodeError, json_format.Error, ValueError, TypeError, RecursionError):
            return None
        return text.encode() if same and len(text) < LARGEST else None

    def decode(self, body: bytes, *, in_json: bool) -> bytes:
        """The response, on gRPC's wire."""
        if not in_json:
            return body
        assert self._response is not None
        return json_format.Parse(body.decode(), self._response()).SerializeToString()


def _headers(kind: str, timeout: float | None, metadata: Metadata) -> list[tuple[str, str]]:
    headers = [("content-type", kind), ("connect-protocol-version", "1")]
    if timeout is not None:
        headers.append(("connect-timeout-ms", str(max(0, int(timeout * 1000)))))
    return [*headers, *(metadata or ())]


class HttpChannel(grpc.Channel):
    """Connections to one address, kept and used again."""

    def __init__(self, address: str) -> None:
        self._address = address
        self._idle: list[http.client.HTTPConnection] = []
        self._pool = ThreadPoolExecutor(32)

    def connect(self) -> http.client.HTTPConnection:
        """One that is idle, or a new one."""
        try:
            return self._idle.pop()
        except IndexError:
            return http.client.HTTPConnection(self._address, timeout=CALL_TIMEOUT)

    def keep(self, connection: http.client.HTTPConnection) -> None:
        """For the next call."""
        if connection.sock is not None:
            self._idle.append(connection)

    def start(self, work: Callable[[], bytes]) -> "Future[bytes]":
        """Do it in a thread."""
        return self._pool.submit(work)

    def unary_unary(
        self, method: str, request_serializer: Any = None, response_deserializer: Any = None, *_: Any, **__: Any
    ) -> Any:
        return Unary(self, method, request_serializer or _as_is, response_deserializer or _as_is)

    def unary_stream(
        self, method: str, request_serializer: Any = None, response_deserializer: Any = None, *_: Any, **__: Any
    ) -> Any:
        return Streaming(self, method, request_serializer or _as_is, response_deserializer or _as_is)

    stream_stream = unary_stream

    def stream_unary(self, *_: Any, **__: Any) -> Any:
        raise NotImplementedError

    def subscribe(self, *_: Any, **__: Any) -> None:
        raise NotImplementedError

    def unsubscribe(self, *_: Any, **__: Any) -> None:
        raise NotImplementedError

    def close(self) -> None:
        self._pool.shutdown()
        for connection in self._idle:
            connection.close()

    def __enter__(self) -> "HttpChannel":
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


def _as_is(raw: Any) -> Any:
    return raw


class Unary:
    """A method that is called with one message and answers with one."""

    def __init__(self, channel: HttpChannel, path: str, serialize: Any, deserialize: Any) -> None:
        self._channel = channel
        self._path = path
        self._serialize = serialize
        self._deserialize = deserialize
        self._codec = Codec(path)

    def __call__(self, request: Any, timeout: float | None = None, metadata: Metadata = None) -> Any:
        connection = self._channel.connect()
        return self._deserialize(self.answer(connection, self._serialize(request), timeout, metadata))

    def future(self, request: Any, timeout: float | None = None, metadata: Metadata = None) -> "Pending":
        connection = self._channel.connect()
        connection.connect() if connection.sock is None else None
        raw = self._serialize(request)
        work = self._channel.start(lambda: self.answer(connection, raw, timeout, metadata))
        return Pending(connection, work, self._deserialize)

    def answer(
        self, connection: http.client.HTTPConnection, raw: bytes, timeout: float | None, metadata: Metadata
    ) -> bytes:
        """The response, on gRPC's wire. Raises HttpError."""
        body, headers = self.exchange(connection, raw, timeout, metadata)
        return self._codec.decode(body, in_json=("content-type", "application/json") in headers)

    def exchange(
        self, connection: http.client.HTTPConnection, raw: bytes, timeout: float | None, metadata: Metadata
    ) -> tuple[bytes, Pairs]:
        """The body as it came, and the headers."""
        text = self._codec.encode(raw)
        kind = "application/proto" if text is None else "application/json"
        connection.timeout = CALL_TIMEOUT + (timeout or 0)
        content = raw if text is None else text
        try:
            connection.putrequest("POST", self._path)
            for name, value in [*_headers(kind, timeout, metadata), ("content-length", str(len(content)))]:
                connection.putheader(name, value)
            connection.endheaders(content)
            response = connection.getresponse()
            body = response.read()
        except (OSError, http.client.HTTPException):
            connection.close()
            raise
        headers = tuple((name.lower(), value) for name, value in response.getheaders())
        self._channel.keep(connection)
        if response.status != 200:
            raise told(json.loads(body), headers)
        return body, headers


class Pending:
    """A call that is under way."""

    def __init__(self, connection: http.client.HTTPConnection, work: "Future[bytes]", deserialize: Any) -> None:
        self._socket = connection.sock
        self._work = work
        self._deserialize = deserialize

    def result(self) -> Any:
        return self._deserialize(self._work.result(timeout=30))

    def done(self) -> bool:
        return self._work.done()

    def cancel(self) -> bool:
        self._socket.shutdown(socket.SHUT_RDWR)
        return True


class Streaming:
    """A method that answers with a stream; a unary one is a stream of one."""

    def __init__(self, channel: HttpChannel, path: str, serialize: Any, deserialize: Any) -> None:
        self._channel = channel
        self._path = path
        self._serialize = serialize
        self._deserialize = deserialize
        self._codec = Codec(path)

    def __call__(self, request: Any, timeout: float | None = None, metadata: Metadata = None) -> "Running":
        if self._codec.client_streams:
            raws: Iterator[bytes] = map(self._serialize, request)
        else:
            raws = iter([self._serialize(request)])
        connection = self._channel.connect()
        if self._codec.streams:
            return Running(self._path, self._codec, connection, raws, timeout, metadata, self._deserialize)
        (raw,) = raws
        unary = Unary(self._channel, self._path, _as_is, _as_is)
        return Running.of_one(unary, connection, raw, timeout, metadata, self._deserialize)


class Running(Iterator[Any]):
    """The responses of a stream as they come."""

    def __init__(
        self,
        path: str,
        codec: Codec,
        connection: http.client.HTTPConnection,
        raws: Iterator[bytes],
        timeout: float | None,
        metadata: Metadata,
        deserialize: Any,
    ) -> None:
        self._codec = codec
        self._deserialize = deserialize
        self._error: HttpError | None = None
        self._code: grpc.StatusCode | None = None
        self._headers: Pairs = ()
        self._connection = connection
        connection.timeout = CALL_TIMEOUT + (timeout or 0)
        if connection.sock is None:
            connection.connect()
        self._socket = connection.sock
        self._response: http.client.HTTPResponse | None = None
        self._in_json = True
        self._begun = threading.Event()
        headers = timeout, metadata
        threading.Thread(target=self._send, args=(path, raws, *headers), daemon=True).start()

    @classmethod
    def of_one(
        cls,
        unary: Unary,
        connection: http.client.HTTPConnection,
        raw: bytes,
        timeout: float | None,
        metadata: Metadata,
        deserialize: Any,
    ) -> "Running":
        """A unary call."""
        self = cls.__new__(cls)
        self._error, self._code, self._headers = None, None, ()
        self._response, self._connection, self._deserialize = None, connection, deserialize
        self._one = unary.exchange, (connection, raw, timeout, metadata)
        return self

    _one: Any = None

    def _send(self, path: str, raws: Iterator[bytes], timeout: float | None, metadata: Metadata) -> None:
        try:
            first = next(raws, None)
            self._in_json = first is None or self._codec.encode(first) is not None
            kind = "application/connect+json" if self._in_json else "application/connect+proto"
            self._connection.putrequest("POST", path)
            for name, value in [*_headers(kind, timeout, metadata), ("transfer-encoding", "chunked")]:
                self._connection.putheader(name, value)
            self._connection.endheaders()
            self._begun.set()
            for raw in () if first is None else _chain(first, raws):
                text = self._codec.encode(raw) if self._in_json else raw
                part = struct.pack(">BI", 0, len(text or b"")) + (text or b"")
                self._socket.sendall(b"%x\r\n%s\r\n" % (len(part), part))
            self._socket.sendall(b"0\r\n\r\n")
        except OSError:
            pass  # The server has ended the stream, or the test cancelled it.

    def __next__(self) -> Any:
        if self._error is not None or self._code is not None:
            raise self._error or StopIteration
        try:
            raw = self._once() if self._one is not None else self._read()
        except HttpError as error:
            self._error, self._code = error, error.code()
            raise
        except (OSError, http.client.HTTPException):
            self._code = grpc.StatusCode.CANCELLED
            self._error = HttpError(status_pb2.Status(code=1, message="cancelled"))
            raise self._error from None
        if raw is None:
            self._code = grpc.StatusCode.OK
            raise StopIteration
        return self._deserialize(raw)

    def _once(self) -> bytes | None:
        if self._one == ():
            return None
        exchange, arguments = self._one
        self._one = ()
        try:
            body, self._headers = exchange(*arguments)
        except HttpError as error:
            self._headers = error.initial_metadata()
            raise
        found: bytes = body
        return found

    def _read(self) -> bytes | None:
        if self._response is None:
            self._begun.wait(CALL_TIMEOUT)
            self._response = self._connection.getresponse()
            self._headers = tuple((name.lower(), value) for name, value in self._response.getheaders())
            if self._response.status != 200:
                raise told(json.loads(self._response.read()), self._headers)
        flags, length = struct.unpack(">BI", self._exactly(5))
        body = self._exactly(length)
        if not flags & 2:
            return self._codec.decode(body, in_json=self._in_json)
        assert self._response.read() == b"", "something follows the end of the stream"
        self._connection.close()
        end = json.loads(body)
        if "error" in end:
            raise told(end["error"], self._headers)
        return None

    def _exactly(self, size: int) -> bytes:
        assert self._response is not None
        found = self._response.read(size) if size else b""
        if len(found) < size:
            raise http.client.IncompleteRead(found)
        return found

    def cancel(self) -> bool:
        if self._one is not None:
            return False
        with suppress(OSError):
            self._socket.shutdown(socket.SHUT_RDWR)
        self._connection.close()
        if self._response is not None:
            self._response.close()
        return True

    def __del__(self) -> None:
        self.cancel()

    def code(self) -> grpc.StatusCode:
        if self._code is None:
            for _ in self:
                pass
        assert self._code is not None
        return self._code

    def details(self) -> str:
        return "" if self._error is None else self._error.details()

    def initial_metadata(self) -> Pairs:
        return self._headers

    def trailing_metadata(self) -> Any:
        return () if self._error is None else self._error.trailing_metadata()


def _chain(first: bytes, rest: Iterator[bytes]) -> Iterator[bytes]:
    yield first
    yield from rest

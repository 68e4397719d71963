"""HTTP/2 by hand: a client that can say what no gRPC library would."""

import socket
import time
from base64 import b64decode
from collections.abc import Iterable, Iterator
from contextlib import suppress
from dataclasses import dataclass, field
from typing import Self

from google.rpc import error_details_pb2, status_pb2
from hpack import Decoder, Encoder
from hyperframe.frame import (
    ContinuationFrame,
    DataFrame,
    Frame,
    GoAwayFrame,
    HeadersFrame,
    PingFrame,
    RstStreamFrame,
    SettingsFrame,
    WindowUpdateFrame,
)

PREFACE = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"

FRAME_MAX = 16_384

Text = str | bytes
Headers = list[tuple[Text, Text]]


def connect(address: str) -> socket.socket:
    """A TCP connection to `host:port`, with a deadline on everything."""
    host, _, port = address.rpartition(":")
    connection = socket.create_connection((host, int(port)), timeout=10)
    connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    return connection


def is_closed(connection: socket.socket, within: float) -> bool:
    """Whether the other side closes the connection in time; what it sends before does not matter."""
    end = time.monotonic() + within
    while (left := end - time.monotonic()) > 0:
        connection.settimeout(left)
        try:
            if not connection.recv(65_536):
                return True
        except TimeoutError:
            return False
        except OSError:
            return True
    return False


def prefixed(message: bytes, *, flag: int = 0, length: int | None = None) -> bytes:
    """A gRPC message: flag, length, bytes; flag and length may lie."""
    return bytes([flag]) + (len(message) if length is None else length).to_bytes(4, "big") + message


def call_headers(path: Text, *, without: Iterable[str] = (), **changed: Text) -> Headers:
    """The headers of a good call to `path`, but for the changes; pseudo-headers first, as HTTP/2 wants it."""
    headers: dict[str, Text] = {
        ":method": "POST",
        ":scheme": "http",
        ":path": path,
        ":authority": "localhost",
        "content-type": "application/grpc",
        "te": "trailers",
    }
    for name, value in changed.items():
        plain = name.replace("_", "-")
        headers[f":{plain}" if f":{plain}" in headers else plain] = value
    return [(name, value) for name, value in headers.items() if name not in set(without)]


@dataclass(slots=True)
class Answer:
    """What the server said to one stream, or to the connection, until it had said enough."""

    headers: dict[bytes, bytes] = field(default_factory=dict)
    data: bytes = b""
    reset: int | None = None
    goaway: int | None = None
    goaway_text: bytes = b""
    closed: bool = False

    @property
    def status(self) -> int | None:
        """The number of the gRPC status, or None if there was none."""
        number = self.headers.get(b"grpc-status")
        return None if number is None else int(number)

    @property
    def reason(self) -> str:
        """The reason of the error, or "" if there is none."""
        given = self.headers.get(b"grpc-status-details-bin", b"")
        status = status_pb2.Status.FromString(b64decode(given + b"=" * (-len(given) % 4)))
        for detail in status.details:
            info = error_details_pb2.ErrorInfo()
            if detail.Unpack(info):
                return info.reason
        return ""

    @property
    def messages(self) -> Iterator[bytes]:
        """The gRPC messages of the reply, as far as they came whole."""
        rest = self.data
        while len(rest) >= 5 + (length := int.from_bytes(rest[1:5], "big")):
            yield rest[5 : 5 + length]
            rest = rest[5 + length :]

    @property
    def everything(self) -> bytes:
        """All bytes that could tell something."""
        return b"\n".join([*self.headers, *self.headers.values(), self.data, self.goaway_text])


class Connection:
    """One HTTP/2 connection. Nothing is checked on the way out.

    It begins as a polite client does: a server's limits on headers hold only once the client has agreed to them.
    """

    def __init__(self, address: str, *, polite: bool = True) -> None:
        self.socket = connect(address)
        self._encoder = Encoder()
        self._decoder = Decoder()
        self._buffer = b""
        self._stream = -1
        self._window = 65_535
        """Bytes that the server takes at first on each stream."""
        self.pings_answered = 0
        self.socket.sendall(PREFACE + SettingsFrame(0, settings={}).serialize())
        frame: Frame | None = None
        while polite and not (isinstance(frame, SettingsFrame) and "ACK" not in frame.flags):
            frame = self._frame(time.monotonic() + 5)
            assert frame is not None, "the server did not answer the preface"
            if isinstance(frame, SettingsFrame):
                self._window = frame.settings.get(SettingsFrame.INITIAL_WINDOW_SIZE, self._window)
        if polite:
            self.send(SettingsFrame(0, flags=["ACK"]))

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.socket.close()

    def encode(self, headers: Headers) -> bytes:
        """A header block, with every text as it is: sizes on the wire are the sizes asked for."""
        return self._encoder.encode(headers, huffman=False)

    def send(self, *frames: Frame | bytes) -> None:
        """Frames, or bytes that pass for some. A connection that the server has closed swallows them."""
        data = b"".join(frame if isinstance(frame, bytes) else frame.serialize() for frame in frames)
        with suppress(BrokenPipeError, ConnectionResetError):
            self.socket.sendall(data)

    def open(self, headers: Headers, *, end: bool = False, stream: int = 0) -> int:
        """Open a stream, the next one if it is not named; its number."""
        if not stream:
            self._stream += 2
            stream = self._stream
        block = self.encode(headers)
        first, rest = block[:FRAME_MAX], block[FRAME_MAX:]
        flags = (["END_STREAM"] if end else []) + ([] if rest else ["END_HEADERS"])
        self.send(HeadersFrame(stream, first, flags=flags))
        while rest:
            piece, rest = rest[:FRAME_MAX], rest[FRAME_MAX:]
            self.send(ContinuationFrame(stream, piece, flags=[] if rest else ["END_HEADERS"]))
        return stream

    def write(self, stream: int, data: bytes, *, end: bool = True) -> None:
        """Data on a stream, in frames of the usual size, as long as the windows at the start allow."""
        pieces = [data[at : at + FRAME_MAX] for at in range(0, len(data), FRAME_MAX)] or [b""]
        for piece in pieces:
            self.send(DataFrame(stream, piece))
        if end:
            self.send(DataFrame(stream, b"", flags=["END_STREAM"]))

    def write_in_turn(self, stream: int, data: bytes) -> None:
        """The same for any amount of data, on the first stream of the connection: it waits for room as HTTP/2 says."""
        room = {0: 65_535, stream: self._window}
        end = time.monotonic() + 10
        while data:
            if not (size := min(FRAME_MAX, len(data), *room.values())):
                frame = self._frame(end)
                assert frame is not None, "the server did not take the data"
                if isinstance(frame, WindowUpdateFrame):
                    room[frame.stream_id] += frame.window_increment
                elif isinstance(frame, SettingsFrame):
                    window = frame.settings.get(SettingsFrame.INITIAL_WINDOW_SIZE, self._window)
                    room[stream] += window - self._window
                    self._window = window
                elif isinstance(frame, PingFrame) and "ACK" not in frame.flags:
                    self.send(PingFrame(0, frame.opaque_data, flags=["ACK"]))
                continue
            self.send(DataFrame(stream, data[:size]))
            data = data[size:]
            for number in room:
                room[number] -= size
        self.send(DataFrame(stream, b"", flags=["END_STREAM"]))

    def call(self, headers: Headers, data: bytes) -> Answer:
        """A whole call."""
        stream = self.open(headers)
        self.write(stream, data)
        return self.answer(stream)

    def answer(self, stream: int = 0, within: float = 5) -> Answer:
        """All that comes until the stream is over, the connection is closed, or time is up.

        Stream 0: until the connection is closed or GOAWAY has come.
        """
        answer = Answer()
        end = time.monotonic() + within
        while (frame := self._frame(end)) is not None:
            if isinstance(frame, SettingsFrame) and "ACK" not in frame.flags:
                self.send(SettingsFrame(0, flags=["ACK"]))
            elif isinstance(frame, PingFrame):
                if "ACK" in frame.flags:
                    self.pings_answered += 1
                else:
                    self.send(PingFrame(0, frame.opaque_data, flags=["ACK"]))
            elif isinstance(frame, GoAwayFrame):
                answer.goaway, answer.goaway_text = frame.error_code, frame.additional_data
                if not stream:
                    return answer
            elif isinstance(frame, HeadersFrame):
                # Decoded for every stream: the decoder's table must not miss any.
                pairs = self._decoder.decode(frame.data, raw=True)
                if frame.stream_id == stream:
                    answer.headers.update((bytes(name), bytes(value)) for name, value, *_ in pairs)
            elif isinstance(frame, DataFrame) and frame.stream_id == stream:
                answer.data += frame.data
                if frame.flow_controlled_length:
                    room = frame.flow_controlled_length
                    self.send(WindowUpdateFrame(0, room), WindowUpdateFrame(stream, room))
            elif isinstance(frame, RstStreamFrame) and frame.stream_id == stream:
                answer.reset = frame.error_code
                return answer
            if frame.stream_id and frame.stream_id == stream and "END_STREAM" in frame.flags:
                return answer
        answer.closed = time.monotonic() < end
        return answer

    def answers(self, streams: Iterable[int], within: float, *, enough: int | None = None) -> dict[int, Answer]:
        """What came on each of these streams until all (or `enough`) of them were over, or time was up.

        Nothing of the data is acknowledged: no window grows.
        """
        answers = {stream: Answer() for stream in streams}
        going = set(answers)
        left = 0 if enough is None else len(going) - enough
        end = time.monotonic() + within
        while len(going) > left and (frame := self._frame(end)) is not None:
            if isinstance(frame, SettingsFrame) and "ACK" not in frame.flags:
                self.send(SettingsFrame(0, flags=["ACK"]))
            elif isinstance(frame, PingFrame) and "ACK" not in frame.flags:
                self.send(PingFrame(0, frame.opaque_data, flags=["ACK"]))
            elif isinstance(frame, HeadersFrame):
                pairs = self._decoder.decode(frame.data, raw=True)
                if frame.stream_id in answers:
                    answers[frame.stream_id].headers.update((bytes(n), bytes(v)) for n, v, *_ in pairs)
            elif isinstance(frame, DataFrame) and frame.stream_id in answers:
                answers[frame.stream_id].data += frame.data
            elif isinstance(frame, RstStreamFrame) and frame.stream_id in answers:
                answers[frame.stream_id].reset = frame.error_code
                going.discard(frame.stream_id)
            if "END_STREAM" in frame.flags:
                going.discard(frame.stream_id)
        return answers

    def _frame(self, end: float) -> Frame | None:
        """The next frame; None at the end of the connection or of the time."""
        while True:
            if len(self._buffer) >= 9:
                frame, length = Frame.parse_frame_header(memoryview(self._buffer[:9]))
                if len(self._buffer) >= 9 + length:
                    frame.parse_body(memoryview(self._buffer[9 : 9 + length]))
                    self._buffer = self._buffer[9 + length :]
                    return frame
            left = end - time.monotonic()
            if left <= 0:
                return None
            self.socket.settimeout(left)
            try:
                more = self.socket.recv(65_536)
            except OSError:
                return None
            finally:
                self.socket.settimeout(10)
            if not more:
                return None
            self._buffer += more

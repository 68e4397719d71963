"""A load generator that sends calls when they are due, whether or not earlier ones were answered: `python -m`.

Clients that wait for each answer slow down with the server and so never overload it. This one speaks HTTP/2 by itself,
with prepared frames: it costs a few µs a call, where a gRPC client costs more than the server. Reads its Order as JSON
from standard input, writes its Findings to standard output.
"""

import base64
import json
import select
import socket
import struct
import sys
import time
from collections import deque
from dataclasses import asdict, dataclass, field
from itertools import cycle

import hpack
from google.rpc import error_details_pb2, status_pb2

DATA, HEADERS, RST_STREAM, SETTINGS, PING, GOAWAY, WINDOW_UPDATE = 0, 1, 3, 4, 6, 7, 8
REFUSED_STREAM = 7
END_STREAM, ACK, END_HEADERS = 1, 1, 4
MAX_CONCURRENT_STREAMS, INITIAL_WINDOW = 3, 4
WINDOW = 2**30

OK, CANCELLED, DEADLINE_EXCEEDED, RESOURCE_EXHAUSTED = 0, 1, 4, 8

TICK = 0.001
"""Seconds between two looks at what is due."""

SLOW = 0.5
"""Seconds after which an answer is slow."""

LATEST = 5.0
"""Seconds behind a call's deadline after which nothing more is expected."""


@dataclass(slots=True)
class Order:
    """What to send. `rate` 0 is a closed loop: each connection keeps `in_flight` calls open."""

    address: str
    path: str
    bodies: list[str]
    """Messages in hex, sent in turn."""
    seconds: float
    connections: int
    rate: float = 0.0
    in_flight: int = 16
    timeout: float = 1.0


@dataclass(slots=True)
class Findings:
    """What became of the calls, by when they were due."""

    sent: int = 0
    statuses: dict[str, int] = field(default_factory=dict)
    """Calls by code; `held` were never sent, for the connection had as many open calls as the server allows; `reset`
    were closed without a status."""
    retry_delays: list[float] = field(default_factory=list)
    """Seconds, of each RetryInfo."""
    latencies: list[float] = field(default_factory=list)
    """Seconds from when a call was due to its answer, of those that succeeded."""
    unwell_until: float = 0.0
    """Seconds from the begin to when the last call was due that failed or took longer than SLOW."""
    seconds: float = 0.0
    late: float = 0.0
    """Seconds that the generator was behind at worst: it must stay small against the timeout."""


def frame(kind: int, flags: int, stream: int, payload: bytes = b"") -> bytes:
    return struct.pack(">IBI", len(payload) << 8 | kind, flags, stream) + payload


def _literal(name: str, value: str) -> bytes:
    return b"\0" + bytes([len(name)]) + name.encode() + bytes([len(value)]) + value.encode()


class Connection:
    """One HTTP/2 connection, and the calls that are open on it."""

    def __init__(self, order: Order, findings: Findings) -> None:
        host, _, port = order.address.rpartition(":")
        self.socket = socket.create_connection((host, int(port)))
        self.socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self.socket.setblocking(False)
        self._findings = findings
        self._timeout = order.timeout
        self.began = 0.0
        headers = b"".join(
            _literal(name, value)
            for name, value in (
                (":method", "POST"),
                (":scheme", "http"),
                (":path", order.path),
                (":authority", order.address),
                ("te", "trailers"),
                ("content-type", "application/grpc"),
            )
        )
        # What is left of the deadline when a call is sent, as gRPC's own clients do.
        timeouts = [_literal("grpc-timeout", f"{left:04}m") for left in range(int(order.timeout * 1000) + 1)]
        self._timeouts = [headers + timeout for timeout in timeouts]
        self._head = struct.pack(">I", len(self._timeouts[0]) << 8 | HEADERS) + bytes([END_HEADERS])
        messages = [struct.pack(">BI", 0, len(body) // 2) + bytes.fromhex(body) for body in order.bodies]
        heads = [struct.pack(">I", len(message) << 8 | DATA) + bytes([END_STREAM]) for message in messages]
        self._tails = cycle(zip(heads, messages, map(len, messages), strict=True))
        self._out = bytearray(b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n")
        # No table of headers to keep on either side, so that trailers can be read as they are.
        self._out += frame(SETTINGS, 0, 0, struct.pack(">HIHI", 1, 0, INITIAL_WINDOW, WINDOW))
        self._out += frame(WINDOW_UPDATE, 0, 0, struct.pack(">I", WINDOW))
        self._in = bytearray()
        self._stream = 1
        self._window = 65535
        self._received = 0
        self.allowed = 100
        """Calls that may be open at once; from the server's SETTINGS."""
        self.open: dict[int, float] = {}
        self.due: deque[float] = deque()
        self.closed = False
        self.ready = False

    def push(self, now: float) -> None:
        """Send what is due, as far as the server allows."""
        findings = self._findings
        while self.due and self.due[0] + self._timeout <= now:
            self._failed("held", self.due.popleft())
        while self.due and len(self.open) < self.allowed and self.ready and not self.closed:
            middle, message, size = next(self._tails)
            if self._window < size:
                break
            self._window -= size
            stream = struct.pack(">I", self._stream)
            due = self.due.popleft()
            headers = self._timeouts[int((due + self._timeout - now) * 1000)]
            self._out += b"".join((self._head, stream, headers, middle, stream, message))
            self.open[self._stream] = due
            self._stream += 2
            findings.sent += 1
        late = now - self._timeout
        while self.open and (due := self.open[oldest := next(iter(self.open))]) <= late:
            del self.open[oldest]
            self._out += frame(RST_STREAM, 0, oldest, struct.pack(">I", 8))
            self._failed(str(DEADLINE_EXCEEDED), due)
        if self._out and not self.closed:
            try:
                del self._out[: self.socket.send(self._out)]
            except BlockingIOError:
                pass
            except OSError:
                self._lost()

    def pull(self, now: float) -> None:
        """Read what has come."""
        try:
            received = self.socket.recv(1 << 20)
        except BlockingIOError:
            return
        except OSError:
            received = b""
        if not received:
            self._lost()
            return
        self._received += len(received)
        if self._received > WINDOW // 4:
            self._out += frame(WINDOW_UPDATE, 0, 0, struct.pack(">I", self._received))
            self._received = 0
        data = self._in
        data += received
        place = 0
        while len(data) - place >= 9:
            length = int.from_bytes(data[place : place + 3], "big")
            end = place + 9 + length
            if len(data) < end:
                break
            kind, flags = data[place + 3], data[place + 4]
            if kind != DATA:
                stream = int.from_bytes(data[place + 5 : place + 9], "big")
                self._take(kind, flags, stream, bytes(data[place + 9 : end]), now)
            place = end
        del data[:place]

    def _take(self, kind: int, flags: int, stream: int, payload: bytes, now: float) -> None:
        if kind == HEADERS:
            if flags & END_STREAM and (due := self.open.pop(stream, None)) is not None:
                code, delay = outcome(payload)
                if code == OK:
                    self._succeeded(due, now - due)
                else:
                    self._failed(str(code), due)
                    if delay is not None:
                        self._findings.retry_delays.append(delay)
        elif kind == RST_STREAM:
            if (due := self.open.pop(stream, None)) is not None:
                self._failed(f"reset {int.from_bytes(payload, 'big')}", due)
        elif kind == SETTINGS and not flags & ACK:
            for place in range(0, len(payload), 6):
                key, value = struct.unpack_from(">HI", payload, place)
                if key == MAX_CONCURRENT_STREAMS:
                    self.allowed = value
            self.ready = True
            self._out += frame(SETTINGS, ACK, 0)
        elif kind == PING and not flags & ACK:
            self._out += frame(PING, ACK, 0, payload)
        elif kind == WINDOW_UPDATE and stream == 0:
            self._window += int.from_bytes(payload, "big")
        elif kind == GOAWAY:
            self._lost()

    def _lost(self) -> None:
        self.closed = True
        for due in [*self.open.values(), *self.due]:
            self._failed("lost", due)
        self.open.clear()
        self.due.clear()

    def _succeeded(self, due: float, took: float) -> None:
        findings = self._findings
        findings.statuses[str(OK)] = findings.statuses.get(str(OK), 0) + 1
        findings.latencies.append(took)
        if took > SLOW:
            findings.unwell_until = max(findings.unwell_until, due - self.began)

    def _failed(self, what: str, due: float) -> None:
        findings = self._findings
        findings.statuses[what] = findings.statuses.get(what, 0) + 1
        findings.unwell_until = max(findings.unwell_until, due - self.began)


_outcomes: dict[bytes, tuple[int, float | None]] = {}


def outcome(trailers: bytes) -> tuple[int, float | None]:
    """The code, and the delay of its RetryInfo if it has one."""
    known = _outcomes.get(trailers)
    if known is None:
        found = dict(hpack.Decoder().decode(trailers, raw=True))
        code, delay = int(found.get(b"grpc-status", b"2")), None
        details = found.get(b"grpc-status-details-bin")
        if details is not None:
            delay = retry_delay(details)
        known = _outcomes[trailers] = code, delay
    return known


def retry_delay(details: bytes) -> float | None:
    status = status_pb2.Status.FromString(base64.b64decode(details + b"=" * (-len(details) % 4)))
    info = error_details_pb2.RetryInfo()
    for packed in status.details:
        if packed.Unpack(info):
            return info.retry_delay.ToMicroseconds() / 1e6
    return None


def run(order: Order) -> Findings:
    findings = Findings()
    connections = [Connection(order, findings) for _ in range(order.connections)]
    poll = select.poll()
    by_number = {}
    for connection in connections:
        by_number[connection.socket.fileno()] = connection
        poll.register(connection.socket, select.POLLIN)
    while not all(each.ready or each.closed for each in connections):
        for each in connections:
            each.push(time.perf_counter())
        for number, _ in poll.poll(100):
            by_number[number].pull(time.perf_counter())
    turn = cycle(connections)
    began = last = time.perf_counter()
    for each in connections:
        each.began = began
    end = began + order.seconds
    given = 0
    while True:
        now = time.perf_counter()
        findings.late = max(findings.late, now - last - TICK)
        last = now
        if now < end:
            if order.rate:
                wanted = int((now - began) * order.rate)
                for number in range(given, wanted):
                    next(turn).due.append(began + number / order.rate)
                given = wanted
            else:
                for each in connections:
                    each.due.extend([now] * (order.in_flight - len(each.open) - len(each.due)))
        elif not any(each.open or each.due for each in connections) or now > end + order.timeout + LATEST:
            break
        for each in connections:
            each.push(now)
        for number, _ in poll.poll(TICK * 1000):
            each = by_number[number]
            each.pull(time.perf_counter())
            if each.closed:
                poll.unregister(number)
    findings.seconds = order.seconds
    return findings


def main() -> None:
    findings = run(Order(**json.load(sys.stdin)))
    json.dump(asdict(findings), sys.stdout)


if __name__ == "__main__":
    main()

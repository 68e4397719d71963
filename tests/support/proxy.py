"""A TCP proxy whose connections a test cuts, slows down or garbles."""

import random
import socket
import struct
import threading
from collections import Counter
from collections.abc import Callable
from contextlib import suppress
from typing import Protocol, Self

ABORT = struct.pack("ii", 1, 0)
"""SO_LINGER: close with a reset, as a crashed peer or a firewall does."""


class Filter(Protocol):
    """Changes what passes in one direction of one connection."""

    def passed(self, data: bytes) -> bytes: ...


class Proxy:
    """Hands bytes on between clients and `target` ("host:port"), both ways."""

    def __init__(self, target: str) -> None:
        host, _, port = target.rpartition(":")
        self._target = (host, int(port))
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.address = f"127.0.0.1:{self._listener.getsockname()[1]}"
        self.delay = 0.0
        """Seconds that whatever passes is held back, each way."""
        self.filters: Callable[[bool], Filter | None] | None = None
        """Gives new connections what changes their bytes: those from the client (True), those from the server."""
        self._lock = threading.Lock()
        self._open: set[socket.socket] = set()
        self._closed = threading.Event()
        self._threads = [threading.Thread(target=self._accept)]

    def __enter__(self) -> Self:
        self._threads[0].start()
        return self

    def __exit__(self, *_: object) -> None:
        self._closed.set()
        # Wakes the thread that accepts, which a close alone would not.
        with suppress(OSError):
            socket.create_connection(self._listener.getsockname(), timeout=1).close()
        self._threads[0].join()
        self.cut()
        for thread in self._threads:
            thread.join()
        self._listener.close()

    @property
    def connections(self) -> int:
        """How many are open."""
        with self._lock:
            return len(self._open) // 2

    def cut(self) -> None:
        """Cut all connections."""
        with self._lock:
            cut, self._open = self._open, set()
        for connection in cut:
            with suppress(OSError):
                connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, ABORT)
                connection.shutdown(socket.SHUT_RDWR)

    def _accept(self) -> None:
        while True:
            client, _ = self._listener.accept()
            if self._closed.is_set():
                client.close()
                return
            try:
                server = socket.create_connection(self._target, timeout=5)
            except OSError:
                client.close()
                continue
            server.settimeout(None)
            with self._lock:
                self._open |= {client, server}
            ends = threading.Barrier(2)
            filters = self.filters
            for source, target in ((client, server), (server, client)):
                arguments = (source, target, ends, filters(source is client) if filters else None)
                self._threads.append(threading.Thread(target=self._hand_on, args=arguments))
                self._threads[-1].start()

    def _hand_on(
        self, source: socket.socket, target: socket.socket, ends: threading.Barrier, filtering: Filter | None
    ) -> None:
        with suppress(OSError):
            while data := source.recv(65_536):
                if self.delay:
                    self._closed.wait(self.delay)
                target.sendall(filtering.passed(data) if filtering else data)
        for end in (source, target):
            with suppress(OSError):
                end.shutdown(socket.SHUT_RDWR)
        ends.wait()
        # Both directions are over; each closes its own source.
        with self._lock:
            self._open.discard(source)
        source.close()


_HEADER = 9
_HEADERS, _CONTINUATION = 1, 9
_PREFACE = 24
_METHOD = b"/headway.v1.JobService/"


class Noise:
    """Turns a bit now and then, wherever it may be."""

    def __init__(self, chance: random.Random, rate: float) -> None:
        self._chance = chance
        self._rate = rate

    def passed(self, data: bytes) -> bytes:
        changed = bytearray(data)
        for position in range(len(changed)):
            if self._chance.random() < self._rate:
                changed[position] ^= 1 << self._chance.randrange(8)
        return bytes(changed)


class Garbler:
    """Garbles one direction of an HTTP/2 connection once, so that frames break, get lost or go astray; `damage` counts
    the ways in which that was done.

    It leaves alone what is inside of messages. Without TLS nothing in gRPC tells that a bit of them has changed: a
    number that is another number is not promised to be noticed.
    """

    def __init__(self, chance: random.Random, asking: bool, damage: "Counter[str]") -> None:
        self._damage = damage
        self._position = 0
        self._next_frame = _PREFACE if asking else 0
        self._header = bytearray()
        ways = ["early", "length", "length", "lost", "astray"] + ["method"] * 2 * asking
        self._way = chance.choice(ways)
        self._byte = chance.randrange(60 if asking else 30)
        self._bit = 1 << chance.randrange(8)
        self._frames = chance.randrange(4, 16)
        """So many pass before one is garbled."""

    def passed(self, data: bytes) -> bytes:
        """The same bytes, but for one. Those of a frame's header wait until all of them are there."""
        if not self._way:
            return data
        begin, data = self._position, bytes(self._header) + data
        begin -= len(self._header)
        changed = bytearray(data)
        self._header.clear()
        if self._way == "early" and begin <= self._byte < begin + len(data):
            changed[self._byte - begin] ^= self._bit
            self._done()
        end = begin + len(data)
        while self._way and self._next_frame < end:
            at = self._next_frame - begin
            if end - self._next_frame < _HEADER:
                self._header += changed[at:]
                del changed[at:]
                break
            length = int.from_bytes(data[at : at + 3], "big")
            self._garble(changed, at, length)
            self._next_frame += _HEADER + length
        self._position = end
        return bytes(changed)

    def _garble(self, data: bytearray, at: int, length: int) -> None:
        """Garbles the frame that begins at `at`, if it is its turn."""
        self._frames -= 1
        kind = data[at + 3]
        if self._frames > 0 and self._way != "method":
            return
        match self._way:
            case "length":
                # 8 MiB more than any frame may have.
                data[at] ^= 0x80
            case "lost" if kind not in (_HEADERS, _CONTINUATION):
                # Of an unknown kind, and so passed over. What headers say is kept by both sides for later calls: a
                # call whose headers were passed over would make those after it mean something else.
                data[at + 3] ^= 0x80
            case "astray":
                data[at + 5] ^= 0x40
            case "method" if kind == _HEADERS and (found := data.find(_METHOD, at, at + _HEADER + length)) >= 0:
                # Both sides keep it for later calls: none to this method arrives over this connection any more.
                data[found + 1] ^= 1
            case _:
                return
        self._done()

    def _done(self) -> None:
        self._damage[self._way] += 1
        self._way = ""

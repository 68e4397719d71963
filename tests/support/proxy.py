"""A TCP proxy whose connections a test cuts."""

import socket
import struct
import threading
from contextlib import suppress
from typing import Self

ABORT = struct.pack("ii", 1, 0)
"""SO_LINGER: close with a reset, as a crashed peer or a firewall does."""


class Proxy:
    """Hands bytes on between clients and `target` ("host:port"), both ways."""

    def __init__(self, target: str) -> None:
        host, _, port = target.rpartition(":")
        self._target = (host, int(port))
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.address = f"127.0.0.1:{self._listener.getsockname()[1]}"
        self._lock = threading.Lock()
        self._open: set[socket.socket] = set()
        self._closed = False
        self._threads = [threading.Thread(target=self._accept)]

    def __enter__(self) -> Self:
        self._threads[0].start()
        return self

    def __exit__(self, *_: object) -> None:
        self._closed = True
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
            if self._closed:
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
            for source, target in ((client, server), (server, client)):
                self._threads.append(threading.Thread(target=self._hand_on, args=(source, target, ends)))
                self._threads[-1].start()

    def _hand_on(self, source: socket.socket, target: socket.socket, ends: threading.Barrier) -> None:
        with suppress(OSError):
            while data := source.recv(65_536):
                target.sendall(data)
        for end in (source, target):
            with suppress(OSError):
                end.shutdown(socket.SHUT_RDWR)
        ends.wait()
        # Both directions are over; each closes its own source.
        with self._lock:
            self._open.discard(source)
        source.close()

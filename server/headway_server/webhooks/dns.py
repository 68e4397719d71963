"""Name look-ups that can delay only the receiver that they are for."""

import asyncio
import errno
import os
import socket
import threading
from contextlib import suppress

LOOKUP_TIMEOUT = 10.0
"""Seconds that a caller waits. The system's resolver tries its second name server after 5 s: a shorter timeout would
fail whenever the first one is silent."""


class Lookup:
    """Looks up the addresses of one host, in a thread of its own.

    A look-up in the system's resolver cannot be stopped. So each host has at most one running, in a daemon thread:
    nothing waits for that thread, not even the end of the process. Callers that arrive meanwhile share its result.
    """

    def __init__(self, host: str, port: int) -> None:
        self._host = host
        self._port = port
        self._running: asyncio.Future[list[str] | Exception] | None = None

    async def addresses(self) -> list[str]:
        """The addresses, in the order in which to try them. Raises TimeoutError, socket.gaierror, UnicodeError or
        another OSError."""
        running = self._running or self._start()
        async with asyncio.timeout(LOOKUP_TIMEOUT):
            found = await asyncio.shield(running)
        if isinstance(found, Exception):
            raise found
        return found

    def _start(self) -> "asyncio.Future[list[str] | Exception]":
        loop = asyncio.get_running_loop()
        running: asyncio.Future[list[str] | Exception] = loop.create_future()
        thread = threading.Thread(target=self._run, args=(loop, running), name="headway-lookup", daemon=True)
        try:
            thread.start()
        except RuntimeError:
            raise OSError(errno.EAGAIN, os.strerror(errno.EAGAIN)) from None
        self._running = running
        return running

    def _run(self, loop: asyncio.AbstractEventLoop, running: "asyncio.Future[list[str] | Exception]") -> None:
        found: list[str] | Exception
        try:
            infos = socket.getaddrinfo(self._host, self._port, type=socket.SOCK_STREAM)
            found = list(dict.fromkeys(str(address[0]) for *_, address in infos))
        except Exception as error:
            found = error
        with suppress(RuntimeError):  # The loop has ended, and with it all waiting callers.
            loop.call_soon_threadsafe(self._finish, running, found)

    def _finish(self, running: "asyncio.Future[list[str] | Exception]", found: list[str] | Exception) -> None:
        self._running = None
        if not running.done():
            running.set_result(found)

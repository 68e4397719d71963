"""Whether the server answers, and when to try again if it does not."""

import logging
import socket
import time

from headway.errors import HeadwayError
from headway.ids import random_between

log = logging.getLogger("headway")

_FIRST_PAUSE, _LONGEST_PAUSE, _LONGEST_PAUSE_IF_AWAITED = 0.1, 5.0, 0.5
_LINE = 300

_CONNECT_TIMEOUT = 0.5
"""Seconds to wait for a TCP connection when a process ends that does not reach its server."""

_RETURN_TIMEOUT = 3.0
"""Seconds to wait for an answer of a server that accepts connections after it was unreachable for long. gRPC pauses up
to 2.4 s between its attempts to connect."""


def plain(text: str) -> str:
    """The text as one printable line for a log. It comes from the other side."""
    return " ".join("".join(character if character.isprintable() else " " for character in text).split())[:_LINE]


def in_words(error: HeadwayError) -> str:
    """The error as one line for a log."""
    return plain(error.message) or error.code.name


class ConnectionState:
    """The state of the connection to one server. Retry pauses grow from 0.1 to 5 s while the server is unreachable, and
    to 0.5 s while a caller waits."""

    def __init__(self, address: str) -> None:
        self.address = address
        self.down = False
        """The server did not answer the last call."""
        self.retry_at = 0.0
        """When to try again. All times here are monotonic seconds."""
        self.answered_at = 0.0
        """The time of the last answer, 0 if the server has never answered."""
        self._tries = 0
        self._waiting = 0
        self._warned = False
        self._why = "no answer"

    def hurry(self, waiting: int, now: float) -> None:
        """Changes the number of callers that wait for delivery. Shorter pauses apply while there are any."""
        self._waiting += waiting
        if self._waiting:
            self.retry_at = min(self.retry_at, now + _LONGEST_PAUSE_IF_AWAITED)

    def heard(self) -> None:
        if self._tries > 1:
            log.info("headway: %s answers again", self.address)
        self.answered_at = time.monotonic()
        self.forget_failures()

    def forget_failures(self) -> None:
        self.down, self._tries, self.retry_at, self._warned = False, 0, 0.0, False

    def wait_until(self, timeout: float) -> float:
        """The time until which waiting for an answer is useful. That is `timeout`, the time of a restart, but not for a
        server that accepts no connections and never did, or that has not answered for that long."""
        now = time.monotonic()
        if self.answered_at and not self.down:
            return now + timeout
        if self.answered_at and self.answered_at + timeout > now:
            return self.answered_at + timeout
        if not self._accepts_connections():
            self.warn_once()
            return 0.0
        return now + (min(timeout, _RETURN_TIMEOUT) if self.answered_at else timeout)

    def lost(self, error: HeadwayError, now: float) -> None:
        # All calls in flight fail together. That counts as one failure.
        if now < self.retry_at:
            return
        self.down = True
        longest = _LONGEST_PAUSE_IF_AWAITED if self._waiting else _LONGEST_PAUSE
        self.retry_at = now + min(_FIRST_PAUSE * 2.0 ** min(self._tries, 10), longest) * random_between(0.5, 1.0)
        self._tries += 1
        # A server that restarts, or moves a stream to another server, answers before the second failure.
        self._why = in_words(error)
        if self._tries == 2:
            self.warn_once()

    def warn_once(self) -> None:
        """Logs once per outage that the server does not answer."""
        if not self._warned:
            self._warned = True
            hint = "" if self.answered_at else "; `headway serve` starts a server, HEADWAY_TARGET names another"
            log.warning("headway: %s does not answer (%s); the work goes on%s", self.address, self._why, hint)

    def _accepts_connections(self) -> bool:
        """Whether the address accepts connections. gRPC cannot distinguish this from a server that answers
        UNAVAILABLE."""
        host, _, port = self.address.rpartition(":")
        try:
            socket.create_connection((host.strip("[]"), int(port)), _CONNECT_TIMEOUT).close()
        except (OSError, ValueError):
            return False
        return True

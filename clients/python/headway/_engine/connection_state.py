"""Whether the server answers, and when to try it again if it does not."""

import logging
import socket
import time

from headway.errors import HeadwayError
from headway.ids import chance

log = logging.getLogger("headway")

_FIRST_PAUSE, _LONGEST_PAUSE, _LONGEST_PAUSE_IF_AWAITED = 0.1, 5.0, 0.5
_LINE = 300

_CONNECT_TIMEOUT = 0.5
"""Seconds that a server has to take a connection when a process ends that does not reach it."""

_RETURN_TIMEOUT = 3.0
"""Seconds that a server has for an answer that takes connections, though it has been unreachable for long: gRPC pauses
up to 2.4 s between its attempts to connect."""


def plain(text: str) -> str:
    """As one line for a log, whatever the other side has written into it."""
    return " ".join("".join(character if character.isprintable() else " " for character in text).split())[:_LINE]


def in_words(error: HeadwayError) -> str:
    """Why, as one line for a log."""
    return plain(error.message) or error.code.name


class ConnectionState:
    """Pauses grow from 0.1 to 5 s while the server is away, to half a second if somebody waits for it."""

    def __init__(self, address: str) -> None:
        self.address = address
        self.down = False
        """Whether the server did not answer when last asked."""
        self.retry_at = 0.0
        """When to ask again; in monotonic seconds, as all times here."""
        self.answered_at = 0.0
        """When the server answered last, 0 if it never did."""
        self._tries = 0
        self._waiting = 0
        self._warned = False
        self._why = "no answer"

    def hurry(self, waiting: int, now: float) -> None:
        """So many more, or fewer, wait until all is delivered."""
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
        """Until when it makes sense to wait for an answer: as long as a restart may take, and not for a server that
        takes no connections and never did, or did not for so long already."""
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
        # All that was under way fails together; that is one failure.
        if now < self.retry_at:
            return
        self.down = True
        longest = _LONGEST_PAUSE_IF_AWAITED if self._waiting else _LONGEST_PAUSE
        self.retry_at = now + min(_FIRST_PAUSE * 2.0 ** min(self._tries, 10), longest) * chance(0.5, 1.0)
        self._tries += 1
        # A server that only restarts, or moves a stream to another, is back before the second failure.
        self._why = in_words(error)
        if self._tries == 2:
            self.warn_once()

    def warn_once(self) -> None:
        """Says that the server does not answer, unless that was said since it last did."""
        if not self._warned:
            self._warned = True
            hint = "" if self.answered_at else "; `headway serve` starts a server, HEADWAY_TARGET names another"
            log.warning("headway: %s does not answer (%s); the work goes on%s", self.address, self._why, hint)

    def _accepts_connections(self) -> bool:
        """Whether somebody takes connections there. gRPC does not tell this from a server that says UNAVAILABLE."""
        host, _, port = self.address.rpartition(":")
        try:
            socket.create_connection((host.strip("[]"), int(port)), _CONNECT_TIMEOUT).close()
        except (OSError, ValueError):
            return False
        return True

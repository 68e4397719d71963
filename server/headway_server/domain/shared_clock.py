"""The clock of servers that share a database: the database's time, without jumps.

All servers add the same correction to the database's time. The database stores it. When the database's clock is set
forward or back, the first server that sees it changes the correction by the same amount. So no job becomes LOST, ends
or changes its place because of it. The correction then shrinks by one second in a hundred, until the servers show the
database's time again.

Pure: callers pass the time.
"""

from collections.abc import Callable
from dataclasses import dataclass

from headway_server.domain.limits import MICROSECONDS

JUMP_MIN = MICROSECONDS
"""The smallest difference (µs) that counts as a jump: clocks do not drift this far within a second."""

TOLERANCE = 20_000
"""Differences (µs) up to this are ignored."""

SHRINK_DIVISOR = 100
"""The correction shrinks by 1 µs in this many µs. So timeouts are early or late by at most a hundredth."""

ALONE_AFTER = 120 * MICROSECONDS
"""If no server has noted its time for this long (µs), none runs. Servers note it every minute."""


@dataclass(frozen=True, slots=True)
class Correction:
    """What servers add to the database's time (µs). `since` is the database's time when they agreed on it (µs)."""

    amount: int = 0
    since: int = 0

    @classmethod
    def parse(cls, text: str | None) -> "Correction":
        """Parse what `str` returns. None means no correction."""
        if text is None:
            return cls()
        amount, since = text.split()
        return cls(int(amount), int(since))

    def __str__(self) -> str:
        return f"{self.amount} {self.since}"

    def at(self, database_time: int) -> int:
        """What is left of the correction (µs) at that time of the database."""
        shrunk = max(database_time - self.since, 0) // SHRINK_DIVISOR
        size = max(abs(self.amount) - shrunk, 0)
        return size if self.amount > 0 else -size


def correction_at_start(kept: Correction, database_time: int, noted: int) -> Correction:
    """The correction for a server that starts. `noted` is the time that a server noted last (µs, 0 if none did).

    If no other server runs, the server uses the database's time without a correction.
    """
    now = database_time + kept.at(database_time)
    return kept if abs(now - noted) < ALONE_AFTER else Correction()


class SharedClock:
    """This server's view of the clock. It runs evenly and never backwards. `follow` adjusts it to the other servers."""

    def __init__(self, now: int, elapsed: Callable[[], int], read_at: int) -> None:
        """The time was `now` (µs since the epoch) when `elapsed` returned `read_at`."""
        self._elapsed = elapsed
        self._offset = now - read_at
        self._last = now

    def now(self) -> int:
        """µs since the Unix epoch."""
        self._last = max(self._offset + self._elapsed(), self._last)
        return self._last

    def follow(self, database_time: int, kept: Correction, asked_at: int) -> Correction | None:
        """Compare with the database's time. Returns the correction that all servers should use, if it must change.

        `elapsed` returned `asked_at` when the query was sent. The database read its clock between then and now: this
        process, the database or the network may have paused before or after.
        """
        expected = database_time + kept.at(database_time)
        ours = min(max(expected, self._offset + asked_at), self._offset + self._elapsed())
        difference = expected - ours
        if abs(difference) >= JUMP_MIN:
            return Correction(ours - database_time, database_time)
        if abs(difference) > TOLERANCE:
            self._offset += difference
        return None

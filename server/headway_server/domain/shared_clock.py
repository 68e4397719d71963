"""The clock of servers that share a database: the database's time, but it never jumps.

All servers add the same correction to the database's time, which the database holds. When its clock is set forward or
back, the first server that notices changes the correction by as much, so that no job is LOST, ends or changes its place
because of it. The correction then shrinks by one second in a hundred, until the servers show the database's time again.

Pure: the time is given.
"""

from collections.abc import Callable
from dataclasses import dataclass

from headway_server.domain.limits import MICROSECONDS

JUMP_MIN = MICROSECONDS
"""A difference (µs) that no drift of clocks explains between two looks a second apart."""

TOLERANCE = 20_000
"""Differences (µs) that are not worth a change."""

SHRINK_DIVISOR = 100
"""The correction shrinks by 1 µs in so many: too slow to make a timeout early or late by more than a hundredth."""

ALONE_AFTER = 120 * MICROSECONDS
"""No server runs if none has noted its time for this long (µs); they note it every minute."""


@dataclass(frozen=True, slots=True)
class Correction:
    """What servers add to the database's time; `since` is the database's time when it was agreed on (µs)."""

    amount: int = 0
    since: int = 0

    @classmethod
    def parse(cls, text: str | None) -> "Correction":
        """From what `str` gives; None is no correction."""
        if text is None:
            return cls()
        amount, since = text.split()
        return cls(int(amount), int(since))

    def __str__(self) -> str:
        return f"{self.amount} {self.since}"

    def at(self, database_time: int) -> int:
        """What is left of it (µs) at that time of the database."""
        shrunk = max(database_time - self.since, 0) // SHRINK_DIVISOR
        size = max(abs(self.amount) - shrunk, 0)
        return size if self.amount > 0 else -size


def correction_at_start(kept: Correction, database_time: int, noted: int) -> Correction:
    """The correction for a server that starts; `noted` is the time that a server noted last (µs, 0 if none did).

    Where no other server runs there is nobody to agree with, and the database's time is taken as it is.
    """
    now = database_time + kept.at(database_time)
    return kept if abs(now - noted) < ALONE_AFTER else Correction()


class SharedClock:
    """This server's view of the clock. It runs evenly, and never backwards, and `follow` keeps it with the others."""

    def __init__(self, now: int, elapsed: Callable[[], int], read_at: int) -> None:
        """It was `now` (µs since the epoch) when `elapsed` gave `read_at`."""
        self._elapsed = elapsed
        self._offset = now - read_at
        self._last = now

    def now(self) -> int:
        """µs since the Unix epoch."""
        self._last = max(self._offset + self._elapsed(), self._last)
        return self._last

    def follow(self, database_time: int, kept: Correction, asked_at: int) -> Correction | None:
        """Compare with the time that the database gave; the correction that all should use, if it must change.

        `elapsed` gave `asked_at` when the database was asked. Its time is of a moment between then and now: this
        process, the database or the network may have paused before it or after it.
        """
        expected = database_time + kept.at(database_time)
        ours = min(max(expected, self._offset + asked_at), self._offset + self._elapsed())
        difference = expected - ours
        if abs(difference) >= JUMP_MIN:
            return Correction(ours - database_time, database_time)
        if abs(difference) > TOLERANCE:
            self._offset += difference
        return None

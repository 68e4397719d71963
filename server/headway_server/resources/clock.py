"""The server's clock: the time of day, read once, and from then on only counted forward."""

import time
from typing import Protocol

BOOT_CLOCK = getattr(time, "CLOCK_BOOTTIME", time.CLOCK_MONOTONIC)
"""Counts while the machine sleeps too, where the platform has such a clock."""


class Clock(Protocol):
    """Whoever tells the time, in µs since the Unix epoch; never backwards."""

    def now(self) -> int: ...


CATCH_UP_DIVISOR = 10
"""A clock that is ahead loses one part in so many: a heartbeat timeout is stretched by a tenth, and nobody is LOST."""


class SteadyClock:
    """Starts at `anchor` (µs since the epoch) and runs evenly; `ahead` µs too fast at first, which it gives back.

    When the machine's time of day is set forward or back, jobs neither get lost nor end nor change their order by it;
    the server takes the new time up when it is next started.
    """

    def __init__(self, anchor: int, ahead: int = 0) -> None:
        self._anchor = anchor
        self._ahead = ahead
        self._began = self.elapsed()

    def now(self) -> int:
        passed = self.elapsed() - self._began
        return self._anchor + passed - min(self._ahead, passed // CATCH_UP_DIVISOR)

    @staticmethod
    def elapsed() -> int:
        """µs since some fixed moment, counted whatever the time of day is set to."""
        return time.clock_gettime_ns(BOOT_CLOCK) // 1000

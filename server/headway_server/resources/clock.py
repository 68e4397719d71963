"""The server's clock: it reads the time of day once, and from then on counts forward."""

import time
from typing import Protocol

BOOT_CLOCK = getattr(time, "CLOCK_BOOTTIME", time.CLOCK_MONOTONIC)
"""A clock that also counts while the machine sleeps, if the platform has one."""


class Clock(Protocol):
    """Returns the time in µs since the Unix epoch. It never runs backwards."""

    def now(self) -> int: ...


CATCH_UP_DIVISOR = 10
"""A clock that is ahead runs slower by 1/10. So a heartbeat timeout lasts a tenth longer, and no job becomes LOST."""


class SteadyClock:
    """Starts at `anchor` (µs since the epoch) and runs evenly. If it starts `ahead` µs too late in time, it runs slower
    until that is made up.

    When the machine's time of day is set forward or back, no job becomes LOST, ends or changes its order. The server
    uses the new time after its next start.
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
        """µs since a fixed moment. Changes of the time of day do not affect it."""
        return time.clock_gettime_ns(BOOT_CLOCK) // 1000

"""Calls of one method through one door, counted: plain numbers, for this runs in every call."""

from bisect import bisect_left

BOUNDS = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.1, 0.5, 2.5, 10.0)
"""Upper bounds (seconds) of what `Tally.durations` counts; above the last of them one more."""

CANCELLED = 1
"""The google.rpc.Code of a call that its caller gave up."""


class Tally:
    """How calls ended, and how long they took."""

    __slots__ = ("codes", "durations", "seconds")

    def __init__(self) -> None:
        self.codes: dict[int, int] = {}
        """Calls that ended, by google.rpc.Code."""
        self.durations = [0] * (len(BOUNDS) + 1)
        self.seconds = 0.0
        """What all of them took."""

    def add(self, code: int, seconds: float) -> None:
        """One more call has ended."""
        self.codes[code] = self.codes.get(code, 0) + 1
        self.durations[bisect_left(BOUNDS, seconds)] += 1
        self.seconds += seconds

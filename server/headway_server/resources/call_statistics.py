"""The counts behind the metrics. Plain numbers for speed, because every call and every commit updates them."""

from bisect import bisect_left
from collections.abc import Sequence

CALL_SECONDS = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.1, 0.5, 2.5, 10.0)
COMMIT_SECONDS = (0.0005, 0.001, 0.002, 0.005, 0.01, 0.05, 0.25, 1.0, 5.0)
LOOP_SECONDS = (0.001, 0.005, 0.02, 0.05, 0.1, 0.25, 1.0, 5.0)
COMMIT_CALLS = (1, 2, 4, 8, 16, 32, 64, 128, 512, 2048)

CANCELLED = 1
"""The google.rpc.Code of a call that its caller cancelled."""


class Histogram:
    """How often a number fell between two bounds. One thread writes it."""

    __slots__ = ("bounds", "counts", "total")

    def __init__(self, bounds: Sequence[float]) -> None:
        self.bounds = bounds
        self.counts = [0] * (len(bounds) + 1)
        """For each bound, the numbers up to it and above the bound before; then the numbers above the last bound."""
        self.total = 0.0
        """The sum of all numbers."""

    def add(self, number: float) -> None:
        self.counts[bisect_left(self.bounds, number)] += 1
        self.total += number


class CallStatistics:
    """The calls of one method over one transport."""

    __slots__ = ("codes", "seconds")

    def __init__(self) -> None:
        self.codes: dict[int, int] = {}
        """The number of calls that ended, by google.rpc.Code."""
        self.seconds = Histogram(CALL_SECONDS)

    def add(self, code: int, seconds: float) -> None:
        """Count a call that has ended."""
        self.codes[code] = self.codes.get(code, 0) + 1
        self.seconds.add(seconds)

"""Times that do not count: nobody could be heard, or no server ran."""

from collections.abc import Sequence
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Gap:
    """A time that does not count, from `start` to `end` (µs)."""

    start: int
    end: int

    @property
    def length(self) -> int:
        return self.end - self.start


def counted_back(now: int, span: int, gaps: Sequence[Gap]) -> int:
    """The moment (µs) since which `span` has passed until `now`, without the gaps."""
    moment = now - span
    for gap in reversed(gaps):
        if moment < gap.end:
            moment -= gap.length
    return moment

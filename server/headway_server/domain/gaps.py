"""Times that do not count: the server could not receive reports, or no server ran."""

from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from headway_server.domain.limits import MICROSECONDS

RECENT_GAPS_MAX = 64
RECENT_GAPS_AGE = 3600 * MICROSECONDS
"""How many gaps are kept, and for how long (µs)."""


@dataclass(frozen=True, slots=True)
class Gap:
    """A time that does not count, from `start` to `end` (µs)."""

    start: int
    end: int

    @property
    def length(self) -> int:
        return self.end - self.start


def start_of_span(now: int, span: int, gaps: Sequence[Gap]) -> int:
    """The start (µs) of a span that ends at `now` and is `span` long without the gaps."""
    moment = now - span
    for gap in reversed(gaps):
        if moment < gap.end:
            moment -= gap.length
    return moment


class RecentGaps:
    """The latest gaps of one kind, by `elapsed`, a clock (µs) that runs evenly. One thread adds gaps."""

    def __init__(self, elapsed: Callable[[], int]) -> None:
        self._elapsed = elapsed
        self._gaps: deque[Gap] = deque(maxlen=RECENT_GAPS_MAX)

    def add(self, gap: Gap) -> None:
        self._gaps.append(gap)

    def by(self, now: int) -> tuple[Gap, ...]:
        """All recent gaps, in the time of a clock that shows `now` (µs)."""
        elapsed = self._elapsed()
        ahead = now - elapsed
        kept = tuple(self._gaps)
        return tuple(Gap(gap.start + ahead, gap.end + ahead) for gap in kept if gap.end > elapsed - RECENT_GAPS_AGE)

    def longest(self, within: int) -> int:
        """The length (µs) of the longest gap that ended within the last `within` µs; 0 if there was none."""
        since = self._elapsed() - within
        return max((gap.length for gap in tuple(self._gaps) if gap.end > since), default=0)

"""How long a job may still take: an estimate from its pace, and a range from how steady the pace was.

Pure: callers pass times in microseconds. Amounts are in the job's units.
"""

import math
from dataclasses import dataclass, replace

SECOND = 1_000_000

FOLD_INTERVAL = SECOND
"""The pace is updated at most this often (µs): shorter intervals would measure the reporting, not the work."""

MIN_FOLDS = 3
"""An estimate needs at least this many observations."""

MIN_WINDOW = 10 * SECOND
"""The pace covers this window (µs), or a quarter of the run if that is longer. Older progress is forgotten."""


UNKNOWN_PROGRESS = -1


@dataclass(frozen=True, slots=True)
class Pace:
    """A summary of a job's progress: enough for an estimate, and small enough to store with every report."""

    time: int
    """When the pace was last updated (µs)."""
    progress: int
    """The job's progress then; `UNKNOWN_PROGRESS` while a new worker has not said where it begins."""
    elapsed: int = 0
    """For how long progress was observed (µs). Time between two workers does not count."""
    folds: int = 0
    """How many observations the pace has."""
    rate: float = 0.0
    """The mean pace in units a second. Recent observations weigh more."""
    variance: float = 0.0
    """The variance of the observed paces, weighted in the same way."""


@dataclass(frozen=True, slots=True)
class Estimate:
    """Remaining time: likely, and if it goes well or badly. Rate in units a second, times in µs."""

    rate: float
    remaining_low: int
    remaining_likely: int
    remaining_high: int
    as_of: int


def observe(pace: Pace | None, progress: int, now: int) -> Pace:
    """The pace after the meter moved to `progress` at `now`."""
    if pace is None or progress < pace.progress:
        return Pace(now, progress)
    if pace.progress == UNKNOWN_PROGRESS:
        return resume(pace, progress, now)
    span = now - pace.time
    if span < FOLD_INTERVAL:
        return pace
    observed = (progress - pace.progress) * SECOND / span
    elapsed = pace.elapsed + span
    weight = max(1 - math.exp(-span / max(MIN_WINDOW, elapsed / 4)), 1 / (pace.folds + 1))
    difference = observed - pace.rate
    return Pace(
        time=now,
        progress=progress,
        elapsed=elapsed,
        folds=pace.folds + 1,
        rate=pace.rate + weight * difference,
        variance=(1 - weight) * (pace.variance + weight * difference * difference),
    )


def resume(pace: Pace, progress: int, now: int) -> Pace:
    """The pace after a gap in which nobody worked. The gap does not lower it.

    `progress`: where the work continues. `UNKNOWN_PROGRESS` if only the next report says so: a worker that takes over
    may go back to its checkpoint first."""
    return replace(pace, time=now, progress=progress)


def estimate(pace: Pace | None, size: int, progress: int, as_of: int | None) -> Estimate | None:
    """The estimate. None where it would be a guess: no size, too few observations, no pace, or nothing left."""
    if pace is None or as_of is None or pace.folds < MIN_FOLDS or pace.rate <= 0 or not 0 < progress < size:
        return None
    left = size - progress
    # Two standard errors of a mean over about as many observations as the window contains.
    spread = 2 * math.sqrt(pace.variance / min(pace.folds, 8))
    fast, slow = pace.rate + spread, max(pace.rate - spread, pace.rate / 4)
    century = 100 * 365 * 86_400 * SECOND
    low, likely, high = (min(int(left / rate * SECOND), century) for rate in (fast, pace.rate, slow))
    return Estimate(pace.rate, low, likely, high, as_of)

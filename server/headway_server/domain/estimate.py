"""How long a job may still take: its pace so far, and an honest range from how steady that pace was.

Pure: times are microseconds, given by the caller; amounts are the job's units.
"""

import math
from dataclasses import dataclass, replace

SECOND = 1_000_000

FOLD_INTERVAL = SECOND
"""Progress is taken into the pace at most this often (µs): a finer grain would measure the reporting, not the work."""

MIN_FOLDS = 3
"""Fewer observations than this make no estimate."""

MIN_WINDOW = 10 * SECOND
"""The pace forgets what lies further back than this, or than a quarter of the run if that is longer (µs)."""


UNKNOWN_PROGRESS = -1


@dataclass(frozen=True, slots=True)
class Pace:
    """What is remembered of a job's progress: enough for an estimate, small enough to store with every report."""

    time: int
    """When progress was last taken in (µs)."""
    progress: int
    """The job's progress then; `UNKNOWN_PROGRESS` while a new worker has not said where it begins."""
    elapsed: int = 0
    """For how long progress was observed (µs): time lost between two workers does not count."""
    folds: int = 0
    """How many observations were taken in."""
    rate: float = 0.0
    """Mean pace in units a second, the recent past weighing more."""
    variance: float = 0.0
    """Variance of the observed paces, likewise."""


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
    """The pace after a gap in which nobody worked: what was learnt stays, the gap itself is not held against it.

    `progress`: where the work goes on; `UNKNOWN_PROGRESS` if the next report tells, as of a worker that takes over and may go
    back to its checkpoint first."""
    return replace(pace, time=now, progress=progress)


def estimate(pace: Pace | None, size: int, progress: int, as_of: int | None) -> Estimate | None:
    """The estimate, or None where it would be a guess: no size, too little seen, no pace, nothing left."""
    if pace is None or as_of is None or pace.folds < MIN_FOLDS or pace.rate <= 0 or not 0 < progress < size:
        return None
    left = size - progress
    # Two standard errors of a mean over about as many observations as the window holds.
    spread = 2 * math.sqrt(pace.variance / min(pace.folds, 8))
    fast, slow = pace.rate + spread, max(pace.rate - spread, pace.rate / 4)
    century = 100 * 365 * 86_400 * SECOND
    low, likely, high = (min(int(left / rate * SECOND), century) for rate in (fast, pace.rate, slow))
    return Estimate(pace.rate, low, likely, high, as_of)

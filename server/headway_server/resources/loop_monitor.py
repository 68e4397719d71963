"""Measures for how long the event loop did not run: nobody is answered in such a gap."""

import asyncio
import time

from headway_server.domain.gaps import Gap, RecentGaps
from headway_server.domain.limits import MICROSECONDS
from headway_server.resources.call_statistics import LOOP_SECONDS, Histogram
from headway_server.resources.clock import SteadyClock

MEASURE_INTERVAL = 0.02
"""Seconds between two measurements: a gap is measured this much too short at most."""

LAG_MIN = 50_000
"""Lags (µs) from here on are kept as gaps: shorter ones delay no report by more than heartbeats allow anyway."""


class LoopMonitor:
    """`start` in the event loop; the figures are read from any thread."""

    def __init__(self) -> None:
        self.lag_seconds = Histogram(LOOP_SECONDS)
        """How late the measurements were."""
        self.worst_lag = 0.0
        """The longest of them (s). A stopped process or a busy machine shows here too."""
        self.worst_busy_lag = 0.0
        """The longest lag (s) in which this process was computing, so that the process itself is the cause."""
        self.worst_own_lag = 0.0
        """The longest lag (s) in which the loop's own thread was computing."""
        self.gaps = RecentGaps(SteadyClock.elapsed)
        """When the loop did not run of late."""
        self._timer: asyncio.TimerHandle | None = None

    def start(self) -> None:
        """Measure until `stop`."""
        self._loop = asyncio.get_running_loop()
        self._schedule()

    def stop(self) -> None:
        """Measure no more."""
        if self._timer is not None:
            self._timer.cancel()

    def _schedule(self) -> None:
        self._process_time = time.process_time()
        self._thread_time = time.thread_time()
        self._due = SteadyClock.elapsed() + int(MEASURE_INTERVAL * MICROSECONDS)
        self._timer = self._loop.call_later(MEASURE_INTERVAL, self._measure)

    def _measure(self) -> None:
        now = SteadyClock.elapsed()
        if now - self._due >= LAG_MIN:
            self.gaps.add(Gap(self._due, now))
        lag = max(now - self._due, 0) / MICROSECONDS
        self.lag_seconds.add(lag)
        if lag > self.worst_own_lag:
            # What was computed before the measurement was due counts too: no more than MEASURE_INTERVAL.
            self.worst_lag = max(self.worst_lag, lag)
            self.worst_busy_lag = max(self.worst_busy_lag, min(lag, time.process_time() - self._process_time))
            self.worst_own_lag = max(self.worst_own_lag, min(lag, time.thread_time() - self._thread_time))
        self._schedule()

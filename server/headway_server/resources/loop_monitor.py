"""Measures for how long the event loop did not run: no call is answered in such a gap."""

import asyncio
import time

from headway_server.domain.gaps import Gap, RecentGaps
from headway_server.domain.limits import MICROSECONDS
from headway_server.resources.call_statistics import LOOP_SECONDS, Histogram
from headway_server.resources.clock import SteadyClock

MEASURE_INTERVAL = 0.02
"""Seconds between two measurements. A gap is measured too short by at most this much."""

LAG_MIN = 50_000
"""Lags of at least this (µs) are kept as gaps. Heartbeat timeouts tolerate shorter ones."""


class LoopMonitor:
    """Call `start` in the event loop. Any thread may read the numbers."""

    def __init__(self) -> None:
        self.lag_seconds = Histogram(LOOP_SECONDS)
        """How late the measurements ran."""
        self.worst_lag = 0.0
        """The longest lag (s). A stopped process or a busy machine also causes lag."""
        self.worst_busy_lag = 0.0
        """The longest lag (s) in which this process was computing: the process itself caused it."""
        self.worst_own_lag = 0.0
        """The longest lag (s) in which the event loop's thread was computing."""
        self.gaps = RecentGaps(SteadyClock.elapsed)
        """When the loop recently did not run."""
        self._timer: asyncio.TimerHandle | None = None

    def start(self) -> None:
        """Measure until `stop`."""
        self._loop = asyncio.get_running_loop()
        self._schedule()

    def stop(self) -> None:
        """Stop measuring."""
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
            # This includes up to MEASURE_INTERVAL of computing before the measurement was due.
            self.worst_lag = max(self.worst_lag, lag)
            self.worst_busy_lag = max(self.worst_busy_lag, min(lag, time.process_time() - self._process_time))
            self.worst_own_lag = max(self.worst_own_lag, min(lag, time.thread_time() - self._thread_time))
        self._schedule()

"""Measures the intervals between the reports of each job, to see whether its worker is late."""

from __future__ import annotations

import time
from collections import deque
from datetime import datetime, timedelta
from statistics import median_low

from headway.cli import formatting
from headway.v1 import job_pb2

INTERVALS = 20
"""The latest intervals of each job that are stored."""


class Contacts:
    """The measured intervals for `formatting.silence` in a watch."""

    def __init__(self) -> None:
        self._last: dict[str, datetime] = {}
        self._heard: dict[str, float] = {}
        """The time of arrival on this machine's monotonic clock: the server's clock may differ."""
        self._intervals: dict[str, deque[float]] = {}

    def hear(self, job: job_pb2.Job) -> None:
        """Takes in a state of the job from the server."""
        contact = formatting.moment(job.last_contact_time)
        last = self._last.get(job.id)
        if last is not None and contact > last:
            self._heard[job.id] = time.monotonic()
            self._intervals.setdefault(job.id, deque(maxlen=INTERVALS)).append((contact - last).total_seconds())
        self._last[job.id] = contact

    def forget(self, job_id: str) -> None:
        for of_jobs in (self._last, self._heard, self._intervals):
            of_jobs.pop(job_id, None)

    def silence(self, job: job_pb2.Job, now: datetime) -> str | None:
        """Like `formatting.silence`."""
        intervals, heard = self._intervals.get(job.id), self._heard.get(job.id)
        if not intervals or heard is None:
            return formatting.silence(job, now)
        since = timedelta(seconds=time.monotonic() - heard)
        return formatting.silence(job, formatting.moment(job.last_contact_time) + since, median_low(list(intervals)))

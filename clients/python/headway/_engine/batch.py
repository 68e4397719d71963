"""One request of the stream: the reports of many jobs, and the job of each report."""

from collections.abc import Callable, Iterable

from headway._engine.job_state import JobState
from headway._engine.reporter import Reporter
from headway.errors import HeadwayError
from headway.v1 import job_service_pb2 as rpc

MESSAGE_BYTES = 4 * 1024 * 1024 - 64 * 1024
"""The largest message that the server takes, minus room for its frame."""

_REPORTS = 1000
_BYTES = 2 * 1024 * 1024


class Batch:
    """A batch of due reports. Reports that do not fit stay due."""

    def __init__(self) -> None:
        self.request = rpc.StreamProgressRequest()
        self.senders: list[tuple[JobState, Reporter | None]] = []
        self.failures: dict[int, HeadwayError] = {}
        """Position in `senders` → why that report was refused."""
        self.oversized: list[tuple[JobState, Reporter | None]] = []
        """Reports that fit in no request."""
        self.faults: list[tuple[JobState, Exception]] = []
        """Jobs whose state cannot be made into a report. They stop no other job."""
        self._bytes = 0

    def fill(self, job_states: Iterable[JobState], now: float, turn: Callable[[JobState], float]) -> None:
        for job_state in sorted(job_states, key=lambda job_state: job_state.due):
            try:
                for reporter, report in job_state.reports(now):
                    if report.ByteSize() > MESSAGE_BYTES:
                        self.oversized.append((job_state, reporter))
                    elif not self._add(job_state, reporter, report):
                        return
                    job_state.heartbeat_at = now + turn(job_state)
            except Exception as fault:
                self.faults.append((job_state, fault))
            job_state.due = now + turn(job_state)

    def _add(self, job_state: JobState, reporter: Reporter | None, report: rpc.ReportProgressRequest) -> bool:
        self._bytes += report.ByteSize()
        if self.senders and (self._bytes > _BYTES or len(self.senders) == _REPORTS):
            return False
        self.request.reports.append(report)
        self.senders.append((job_state, reporter))
        return True

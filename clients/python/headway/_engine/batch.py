"""One request of the stream: the reports of many jobs, and whose they are."""

from collections.abc import Callable, Iterable

from headway._engine.job_state import Course
from headway._engine.reporter import Reporter
from headway.errors import HeadwayError
from headway.v1 import job_service_pb2 as rpc

MESSAGE_BYTES = 4 * 1024 * 1024 - 64 * 1024
"""What the server takes in one message, less room for its frame."""

_REPORTS = 1000
_BYTES = 2 * 1024 * 1024


class Batch:
    """Filled with what is due, as far as it has room; what has none is due still."""

    def __init__(self) -> None:
        self.request = rpc.StreamProgressRequest()
        self.senders: list[tuple[Course, Reporter | None]] = []
        self.failures: dict[int, HeadwayError] = {}
        """Position in `senders` → why that report was refused."""
        self.oversized: list[tuple[Course, Reporter | None]] = []
        """Reports that fit in no request."""
        self.faults: list[tuple[Course, Exception]] = []
        """Jobs whose state makes no report: each is its own fault and stops no other."""
        self._bytes = 0

    def fill(self, courses: Iterable[Course], now: float, turn: Callable[[Course], float]) -> None:
        for course in sorted(courses, key=lambda course: course.due):
            try:
                for reporter, report in course.reports(now):
                    if report.ByteSize() > MESSAGE_BYTES:
                        self.oversized.append((course, reporter))
                    elif not self._add(course, reporter, report):
                        return
                    course.beat_at = now + turn(course)
            except Exception as fault:
                self.faults.append((course, fault))
            course.due = now + turn(course)

    def _add(self, course: Course, reporter: Reporter | None, report: rpc.ReportProgressRequest) -> bool:
        self._bytes += report.ByteSize()
        if self.senders and (self._bytes > _BYTES or len(self.senders) == _REPORTS):
            return False
        self.request.reports.append(report)
        self.senders.append((course, reporter))
        return True

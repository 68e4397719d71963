"""What was reported of one meter and what was not: the numbered reports that make a retry count once."""

import re
import time
from collections import deque
from itertools import islice

from headway.errors import HeadwayError
from headway.meter import Meter
from headway.v1 import job_service_pb2 as rpc
from headway.values import clean, whole

_ERRORS_ROOM = 1024 * 1024
_COUNTERS = 64

_COUNTABLE = 2**62
"""A sequence from here on is nobody's clock, and to count on from it might end beyond 2⁶³: it is passed over."""

_PARTS = ("variables", "counters", "record_errors", "message", "size", "progress", "advance")


def remove_refused(report: rpc.ReportProgressRequest, error: HeadwayError) -> bool:
    """Takes out of a refused report what the error names, or if it names nothing the variables, which are the largest;
    whether there was something to take out."""
    named = {re.split(r"[.\[]", field, maxsplit=1)[0] for field, _ in error.fields} or {"variables"}
    faulty = [part for part in _PARTS if part in named and any(field.name == part for field, _ in report.ListFields())]
    for part in faulty:
        report.ClearField(part)
    return bool(faulty) and named <= set(_PARTS)


class Reporter:
    """Turns one meter's state into reports. A report stays the same, and is sent again, until it is settled."""

    def __init__(self, meter: Meter, progress: int = 0, size: int = 0, *, shared: bool = False) -> None:
        self.meter = meter
        # Other processes have reported this part before: what this one has done is added to that.
        self._shared = shared
        self._sequence = time.time_ns() // 1000
        self._progress = progress
        self._size = size
        self._message = ""
        self._counters: dict[str, int] = {}
        self._unsettled: deque[rpc.ReportProgressRequest] = deque()
        self._more = False
        self._pressing = False

    def number_above(self, last: int) -> None:
        """The server has applied a report with the sequence `last`. What is reported from now on is newer, also where
        an earlier process of the same attempt had a later clock."""
        if last < _COUNTABLE:
            self._sequence = max(self._sequence, last)

    @property
    def busy(self) -> bool:
        """Whether a report is unsettled, or another must follow before its turn."""
        return bool(self._unsettled) or self._pressing

    @property
    def unsettled(self) -> bool:
        """Whether a report is on its way."""
        return bool(self._unsettled)

    def report(self, session: str, job_id: str, attempt: int, fresh: bool) -> rpc.ReportProgressRequest | None:
        """The unsettled report, or a new one, or None if nothing has changed. Not `fresh`: a new one only to
        complete the one before."""
        if not self._unsettled and (fresh or self._more):
            self._freeze(session, job_id, attempt)
        return self._unsettled[0] if self._unsettled else None

    def drain(self, session: str, job_id: str, attempt: int, fresh: bool) -> list[rpc.ReportProgressRequest]:
        """All that this meter has left to say, frozen as it will be sent, if it is still sent from here."""
        more = self._freeze(session, job_id, attempt) if fresh else True
        while more and self._more:
            more = self._freeze(session, job_id, attempt)
        return list(self._unsettled)

    def settle(self) -> None:
        """The report was applied."""
        self._unsettled.popleft()

    def refused(self, error: HeadwayError) -> None:
        """The report was refused as it is. The rest goes out again without what is at fault."""
        if not self._unsettled:
            return
        if remove_refused(self._unsettled[0], error):
            for report in self._unsettled:
                self._number(report)
        else:
            self.settle()

    def _freeze(self, session: str, job_id: str, attempt: int) -> bool:
        report = self._draft(session, job_id, attempt)
        if report is not None:
            self._unsettled.append(report)
        return report is not None

    def _draft(self, session: str, job_id: str, attempt: int) -> rpc.ReportProgressRequest | None:
        sample = self.meter._sample(_ERRORS_ROOM)
        self._more, self._pressing = sample.more, sample.pressing
        report = rpc.ReportProgressRequest(session_id=session, job_id=job_id, attempt=attempt, part=self.meter._part)
        empty = report.ByteSize()
        if sample.progress != self._progress:
            if self._shared:
                report.advance = sample.progress - self._progress
            else:
                report.progress = sample.progress
            self._progress = sample.progress
        if sample.size is not None and sample.size != self._size:
            report.size = self._size = sample.size
        if sample.message is not None and sample.message != self._message:
            report.message = self._message = sample.message
        for name, total in islice(sample.counters.items(), _COUNTERS):
            if delta := total - self._counters.get(name, 0):
                key = clean(name, 128) or "?"
                report.counters[key] = whole(report.counters[key] + delta)
        self._counters = sample.counters
        report.record_errors.extend(sample.errors)
        if sample.variables is not None:
            report.variables.CopyFrom(sample.variables)
        if report.ByteSize() == empty:
            return None
        return self._number(report)

    def _number(self, report: rpc.ReportProgressRequest) -> rpc.ReportProgressRequest:
        self._sequence += 1
        report.sequence = self._sequence
        return report

"""Makes numbered reports of one meter. The numbers make a repeated report count once."""

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

_MAX_USABLE_SEQUENCE = 2**62
"""Sequences from here on are ignored: they come from no clock, and counting on from them could exceed 2⁶³."""

_PARTS = ("variables", "counters", "record_errors", "message", "size", "progress", "advance")


def remove_refused(report: rpc.ReportProgressRequest, error: HeadwayError) -> bool:
    """Removes the fields that the error names from a refused report. If it names none, it removes the variables, which
    are the largest. Returns whether it removed anything."""
    named = {re.split(r"[.\[]", field, maxsplit=1)[0] for field, _ in error.fields} or {"variables"}
    faulty = [part for part in _PARTS if part in named and any(field.name == part for field, _ in report.ListFields())]
    for part in faulty:
        report.ClearField(part)
    return bool(faulty) and named <= set(_PARTS)


class Reporter:
    """Turns one meter's state into reports. A report is repeated unchanged until it is settled."""

    def __init__(self, meter: Meter, progress: int = 0, size: int = 0, *, shared: bool = False) -> None:
        self.meter = meter
        # Other processes have reported this part before. This process adds to that.
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
        """Numbers later reports above `last`, the greatest sequence that the server has applied. An earlier process of
        the same attempt may have had a later clock."""
        if last < _MAX_USABLE_SEQUENCE:
            self._sequence = max(self._sequence, last)

    @property
    def busy(self) -> bool:
        """Whether a report is unsettled, or another must follow before the next interval."""
        return bool(self._unsettled) or self._pressing

    @property
    def unsettled(self) -> bool:
        """Whether a report is not acknowledged yet."""
        return bool(self._unsettled)

    def report(self, session: str, job_id: str, attempt: int, fresh: bool) -> rpc.ReportProgressRequest | None:
        """The unsettled report, or a new one, or None if nothing has changed. Without `fresh` a new report only
        completes the one before."""
        if not self._unsettled and (fresh or self._more):
            self._freeze(session, job_id, attempt)
        return self._unsettled[0] if self._unsettled else None

    def drain(self, session: str, job_id: str, attempt: int, fresh: bool) -> list[rpc.ReportProgressRequest]:
        """All reports that are left for this meter, exactly as this process would send them."""
        more = self._freeze(session, job_id, attempt) if fresh else True
        while more and self._more:
            more = self._freeze(session, job_id, attempt)
        return list(self._unsettled)

    def settle(self) -> None:
        """The report was applied."""
        self._unsettled.popleft()

    def refused(self, error: HeadwayError) -> None:
        """The report was refused. Sends it again without the refused fields."""
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

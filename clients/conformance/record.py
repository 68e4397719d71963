"""Records the calls between a driver and the server, and checks what must be true in every case."""

import threading
import time
from collections import defaultdict
from collections.abc import Iterator
from dataclasses import dataclass, field
from itertools import pairwise

from headway.v1 import job_service_pb2 as rpc


@dataclass(frozen=True, slots=True)
class Call:
    """A request as it arrived."""

    method: str
    at: float
    """Monotonic seconds."""
    token: str
    reports: tuple[rpc.ReportProgressRequest, ...] = ()
    """The reports that it carries: many, one, or none."""


@dataclass
class Record:
    """All calls since the last `clear`. Written by the tap, read by the runner."""

    _calls: list[Call] = field(default_factory=list)
    _lock: threading.Lock = field(default_factory=threading.Lock)

    def note(self, method: str, token: str, reports: tuple[rpc.ReportProgressRequest, ...] = ()) -> None:
        with self._lock:
            self._calls.append(Call(method, time.monotonic(), token, reports))

    def clear(self) -> None:
        with self._lock:
            self._calls.clear()

    @property
    def calls(self) -> list[Call]:
        with self._lock:
            return list(self._calls)

    def reports(self) -> Iterator[tuple[float, rpc.ReportProgressRequest]]:
        """Every report with its time, repeats included."""
        for call in self.calls:
            for report in call.reports:
                yield call.at, report

    def facts(self) -> dict[str, object]:
        """The values that the step `wire` can check."""
        reports = list(self.reports())
        empty = [report for _, report in reports if not _content(report)]
        times = [at for at, _ in reports]
        gaps = [later - sooner for sooner, later in pairwise(times)]
        methods: defaultdict[str, int] = defaultdict(int)
        for call in self.calls:
            methods[call.method] += 1
        return {
            "reports": len(reports),
            "heartbeats": len(empty),
            "longest_gap": max(gaps, default=0.0),
            "methods": dict(methods),
            "tokens": sorted({call.token for call in self.calls}),
            "attempts": sorted({report.attempt for _, report in reports}),
        }

    def fault(self) -> str:
        """Finds what no client may do: number reports again, or downwards, or send something else under a used number.
        Empty if none did."""
        sent: dict[tuple[str, str, int, str], dict[int, bytes]] = {}
        for _, report in self.reports():
            if not _content(report):
                continue
            if not report.sequence:
                return f"a report without a sequence: {report}"
            numbered = sent.setdefault((report.session_id, report.job_id, report.attempt, report.part), {})
            before = numbered.get(report.sequence)
            if before is None and numbered and report.sequence < max(numbered):
                return f"sequence {report.sequence} came after {max(numbered)}"
            content = report.SerializeToString(deterministic=True)
            if before is not None and before != content:
                return f"sequence {report.sequence} carried two different reports"
            numbered[report.sequence] = content
        return ""


def _content(report: rpc.ReportProgressRequest) -> bool:
    return any(
        name.name not in ("session_id", "job_id", "attempt", "sequence", "part") for name, _ in report.ListFields()
    )

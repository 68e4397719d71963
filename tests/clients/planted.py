"""The Python client's driver with a deliberate fault: `planted.py FAULT`."""

import runpy
import sys
from collections.abc import Callable
from pathlib import Path

import headway
from headway import meter
from headway._engine import dispatcher, reporter
from headway._engine.job_state import PendingCall
from headway._spool import sender
from headway.v1 import job_service_pb2 as rpc

DRIVER = Path(__file__).resolve().parents[2] / "clients" / "python" / "driver.py"


def renumbers() -> None:
    """A repeated report gets another number."""
    original = reporter.Reporter.report

    def again(
        self: reporter.Reporter, session: str, job_id: str, attempt: int, fresh: bool
    ) -> rpc.ReportProgressRequest | None:
        found = original(self, session, job_id, attempt, fresh)
        return found and self._number(found)

    reporter.Reporter.report = again  # type: ignore[method-assign]


def counts_twice() -> None:
    """Record errors count double."""
    original = meter.Meter.record_error

    def twice(self: meter.Meter, record: object, message: object = "", code: object = "") -> None:
        original(self, record, message, code)
        original(self, record, message, code)

    meter.Meter.record_error = twice  # type: ignore[method-assign]


def knows_no_pace() -> None:
    """Reports at any pace."""
    dispatcher.Dispatcher._turn = lambda self, job_state: 0.05  # type: ignore[method-assign]


def gives_no_heartbeat() -> None:
    dispatcher.Dispatcher._turn = lambda self, job_state: self._interval  # type: ignore[method-assign]


def waits_for_ever() -> None:
    """The end of a job waits until the server has stored it."""

    def settle(self: headway.Job, pending_call: PendingCall | None) -> None:
        if pending_call is not None:
            pending_call.answer.wait()

    headway.Job._settle = settle  # type: ignore[method-assign]


def tells_secrets() -> None:
    """A warning shows the session."""
    original = headway.Job.finish

    def finish(self: headway.Job, results: object = None) -> None:
        print(self.session, file=sys.stderr)
        original(self, results)

    headway.Job.finish = finish  # type: ignore[method-assign]


def leaves_nothing() -> None:
    """Undelivered reports are dropped."""
    sender.save_undelivered = lambda job_states, target: {}


FAULTS: dict[str, Callable[[], None]] = {
    fault.__name__: fault
    for fault in (
        renumbers,
        counts_twice,
        knows_no_pace,
        gives_no_heartbeat,
        waits_for_ever,
        tells_secrets,
        leaves_nothing,
    )
}

if __name__ == "__main__":
    FAULTS[sys.argv[1]]()
    runpy.run_path(str(DRIVER), run_name="__main__")

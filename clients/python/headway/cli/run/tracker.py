"""The tracker of a program or a pipe. It gets the progress and never delays the work.

All that can wait or fail happens in a thread of its own, the import of gRPC included.
"""

from __future__ import annotations

import logging
import os
import re
import threading
import time
from argparse import Namespace
from collections.abc import Callable
from dataclasses import dataclass, field
from queue import Empty, SimpleQueue
from typing import TYPE_CHECKING

from headway.cli.escaping import warn
from headway.limits import NAME_LENGTH, UNIT_LENGTH

if TYPE_CHECKING:
    from headway.client import Client
    from headway.job import Job

PACE = 0.2
"""Seconds between two checks for new progress."""
DELIVERY_TIMEOUT = 0.75
"""Seconds for each of the two waits at the end: for the server's answer, and for the delivery of all reports."""

_END_TIMEOUT = 3.0
"""Seconds: both waits, and before them the second that a new job may take."""
_DETAILS = re.compile(r" \(.*\)")
_CANCELLED, _UNKNOWN = 1, 2


def job_id() -> str:
    """A new job's id. It is known before the server has created the job."""
    from headway.ids import uuid7

    return uuid7()


@dataclass(frozen=True)
class End:
    """How the work ended: COMPLETED with results, or with a message FAILED, or CANCELLED if `cancelled`."""

    results: dict[str, float] = field(default_factory=dict)
    message: str = ""
    cancelled: bool = False


@dataclass(frozen=True)
class _State:
    """The progress of the work."""

    progress: int
    size: int
    unit: str


class Tracker:
    """One job, reported in the background. Only `end` waits, and no method raises."""

    def __init__(
        self, args: Namespace, job: str, name: str, unit: str = "", on_cancel: Callable[[], None] | None = None
    ) -> None:
        """`args`: the options of the command line. Their `size` and `unit` come before detected ones. `on_cancel` is
        called in the background when a cancellation request arrives."""
        self.id = job
        self._args = args
        self._name = (args.name or name)[:NAME_LENGTH]
        self._state = _State(0, args.size, args.unit or unit)
        self._told = self._state.unit
        """The unit that the server knows of."""
        self._job: Job | None = None
        self._on_cancel = on_cancel
        self._endings: SimpleQueue[End] = SimpleQueue()
        self._over = threading.Event()
        self._complaint = ""
        self._cut_off = False
        """Whether the job was ended as CANCELLED without waiting for the work."""
        self._thread = threading.Thread(target=self._run, name="headway-tracker", daemon=True)

    def start(self) -> None:
        self._thread.start()

    @property
    def size_given(self) -> int:
        """The size from the command line; 0 = none."""
        size: int = self._args.size
        return size

    def show(self, progress: int, size: int = 0, unit: str = "") -> None:
        """The progress in units; `size` and `unit` if the work itself has told them."""
        self._state = state = _State(progress, self.size_given or size, self._args.unit or unit)
        if self._job is not None and state.unit == self._told:
            self._apply(self._job, state)

    @property
    def kill_in(self) -> float | None:
        """Seconds until the work must end because of a cancellation request; None without one."""
        job = self._job
        if job is None or not (job.cancelled or self._cut_off):
            return None
        cancellation = job.cancellation
        if cancellation is None or not cancellation.HasField("deadline"):
            return 0.0
        return max(cancellation.deadline.seconds + cancellation.deadline.nanos / 1e9 - time.time(), 0.0)

    @property
    def reason(self) -> str:
        """The reason of the cancellation request."""
        cancellation = self._job.cancellation if self._job else None
        return cancellation.reason if cancellation else ""

    def end(self, ending: End, impatient: Callable[[float], bool]) -> None:
        """Ends the job and waits at most 3 s until the server has stored that.

        `impatient` waits so many seconds and says whether to go at once.
        """
        self._endings.put(ending)
        deadline = time.monotonic() + _END_TIMEOUT
        while not self._over.is_set() and time.monotonic() < deadline and not impatient(0.01):
            pass
        if not self._over.is_set():
            self._complain("the server has not answered in time; the end of the job may be missing there")
        if self._complaint and not self._args.quiet:
            warn(self._complaint)

    def _complain(self, text: str) -> None:
        # One warning is enough, and it waits for the end: until then the terminal belongs to the program.
        self._complaint = self._complaint or _DETAILS.sub("", text.splitlines()[0])[:200]

    def _run(self) -> None:
        os.environ.setdefault("GRPC_VERBOSITY", "NONE")
        _Listener.install(self._complain)
        try:
            from headway._engine import lifecycle
            from headway.client import connect

            # A user who interrupts the wait here must not wait in the atexit handler either.
            lifecycle.EXIT_TIMEOUT = DELIVERY_TIMEOUT
            args = self._args
            target, token, ca = (getattr(args, name, None) for name in ("target", "token", "ca"))
            session = getattr(args, "session", None)
            with connect(target, token=token, ca=ca, session=session, exit_timeout=DELIVERY_TIMEOUT) as client:
                self._work(client)
        except Exception as error:
            self._complain(f"not tracked: {str(error) or type(error).__name__}")
        self._over.set()

    def _work(self, client: Client) -> None:
        begun = self._state
        self._told = begun.unit
        job = client.job(
            name=self._name,
            job_id=self.id,
            invoker=self._args.invoker,
            size=begun.size,
            unit=begun.unit[:UNIT_LENGTH],
            labels=dict(self._args.label),
        )
        self._apply(job, begun)
        self._job = job
        ending = None
        while ending is None:
            try:
                ending = self._endings.get(timeout=PACE)
            except Empty:
                self._look_around(job)
                self._follow_unit(job)
        if not self._follow_unit(job):
            # The server does not answer. Nothing reads the spool file before it is complete.
            self._apply(job, self._state)
            job._update("unit", self._state.unit[:UNIT_LENGTH])
        if ending.message:
            job.fail(ending.message, _CANCELLED if ending.cancelled else _UNKNOWN)
        else:
            job.finish(ending.results)

    def _apply(self, job: Job, state: _State) -> None:
        # Set both or neither: one alone would be a state that never existed.
        with job._lock:
            job.progress = state.progress
            if job.size != state.size:
                job.size = state.size

    def _follow_unit(self, job: Job) -> bool:
        """Whether the server knows the current unit. The unit is sent separately from the numbers, so the job has no
        unit while they change: "4/4 files", "4/4", "25/100", "25/100 %"."""
        state = self._state
        if state.unit == self._told:
            return True
        if self._told:
            job._update("unit", "")
            if not job.flush(DELIVERY_TIMEOUT):
                return False
            self._told = ""
        self._apply(job, state)
        if not job.flush(DELIVERY_TIMEOUT):
            return False
        job._update("unit", state.unit[:UNIT_LENGTH])
        self._told = state.unit
        return True

    def _look_around(self, job: Job) -> None:
        if job.stopped and job.stopped.reason == "JOB_ENDED" and not self._cut_off:
            from headway.job import Status

            self._cut_off = job.refresh().status is Status.CANCELLED
        if self.kill_in is not None and self._on_cancel:
            on_cancel, self._on_cancel = self._on_cancel, None
            on_cancel()


class _Listener(logging.Handler):
    """Keeps the client's log off standard error, which belongs to the program."""

    def __init__(self, hear: Callable[[str], None]) -> None:
        super().__init__(logging.WARNING)
        self._hear = hear

    def emit(self, record: logging.LogRecord) -> None:
        self._hear(record.getMessage().removeprefix("headway: "))

    @classmethod
    def install(cls, hear: Callable[[str], None]) -> None:
        log = logging.getLogger("headway")
        log.handlers = [handler for handler in log.handlers if not isinstance(handler, cls)] + [cls(hear)]
        log.propagate = False

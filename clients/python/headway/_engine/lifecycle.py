"""The engines of a process: one for each target. They stop while the process forks. At the end of the process their
data is delivered, or saved in the spool."""

import os
import sys
import threading
import time
from collections.abc import Callable, Iterable
from contextlib import suppress
from typing import TYPE_CHECKING
from weakref import WeakSet

from headway._engine import process_parts, termination
from headway._engine.connection_state import log
from headway._engine.engine import Engine
from headway._engine.job_state import JobState, PendingCall
from headway._engine.native_threads import Promise, RLock, after_fork, drop_pending_calls
from headway.errors import end_status, failure
from headway.target import Target, clean_up
from headway.v1 import job_pb2
from headway.v1 import job_service_pb2 as rpc

if TYPE_CHECKING:
    from headway.job import BaseJob

EXIT_TIMEOUT = 10.0
"""Seconds that a process waits at its end until all reports are delivered."""

CALL_TIMEOUT = 10.0
"""Seconds to wait for the answer to a blocking call. After that it fails with DEADLINE_EXCEEDED."""

_lock = RLock()
_engines: dict[Target, Engine] = {}
_connections: "WeakSet[Connection]" = WeakSet()
_ended = False
_ending_thread = 0
"""The thread that ends the jobs of the process, while it does so."""
_said: Promise[None] = Promise()
"""Done when the jobs of the process are ended."""
_before_end: list[Callable[[], None]] = []


class Connection:
    """The common part of the synchronous and the asyncio connection."""

    def __init__(
        self,
        target: Target,
        *,
        session: str | None = None,
        exit_timeout: float = EXIT_TIMEOUT,
        call_timeout: float = CALL_TIMEOUT,
    ) -> None:
        if not getattr(sys, "_is_gil_enabled", lambda: True)():
            raise RuntimeError(
                "Headway needs the global interpreter lock to count safely: start Python with PYTHON_GIL=1."
            )
        self.target = target
        self.exit_timeout = exit_timeout
        self.call_timeout = call_timeout
        self._session = session
        self._engine = engine_for(target)
        self._engine.hold(1)
        self._job_states: WeakSet[JobState] = WeakSet()
        self._closed = False
        _connections.add(self)
        termination.register_multiprocessing()

    def _in(self, session: str | None) -> str:
        found = session or self._session or os.environ.get("HEADWAY_SESSION")
        if not found:
            raise ValueError("No session: give one, or set HEADWAY_SESSION.")
        return found

    def _catch_up(self, job_id: str, timeout: float) -> None:
        """Sends the spooled reports of the former worker, so that a resumed job continues from the last of them."""
        from headway._spool.sender import catch_up

        catch_up(self.target, job_id, timeout)

    def _deliver(self) -> None:
        if not self._closed:
            self._closed = True
            job_states = list(self._job_states)
            deliver(self._engine, job_states, self.exit_timeout)
            for job_state in job_states:
                self._engine.submit(job_state, PendingCall(after_reports=True, release=True))
            self._engine.hold(-1)

    def _attach(self, session: str, state: job_pb2.Job) -> "BaseJob":
        """The job of another process."""
        raise NotImplementedError

    def _settle(self, pending_call: PendingCall, job_state: JobState, timeout: float) -> None:
        """Waits for this call, at most `timeout` seconds."""
        pending_call.tried.wait(timeout)
        if _ended and not pending_call.answer.done():
            # Nothing delivers it after this.
            deliver(self._engine, [job_state], 0.0)

    def _close_channel(self) -> None:
        """Closes the gRPC channel. It opens again on use."""


def engine_for(target: Target) -> Engine:
    """The engine of this process for that target."""
    with _lock:
        return _engines.setdefault(target, Engine(target))


def deliver(engine: Engine, job_states: Iterable[JobState], timeout: float) -> bool:
    """Waits at most `timeout` seconds until the reports of these jobs are stored. Then it saves the rest in the spool
    and logs that. Delivery continues in the background until the process ends. This waits only once for a job. Returns
    whether everything is delivered."""
    job_states = list(job_states)
    waiting = [job_state for job_state in job_states if not job_state.over and not job_state.given_up]
    late = waiting
    try:
        late = engine.flush(waiting, timeout, exiting=True)
    finally:
        # Also if Ctrl-C interrupts the wait.
        for job_state in late:
            job_state.given_up = True
        for job_state, place in engine.save_undelivered(late).items():
            log.warning(
                "headway: %s did not answer; the last state of job %s is not delivered%s",
                engine.target.address,
                job_state.job.id,
                f" yet, and waits in {place} for `headway flush` or the next run" if place else "",
            )
    return all(job_state.over or not job_state.given_up for job_state in job_states)


def before_end(callback: Callable[[], None]) -> None:
    """Calls this when the process ends, before jobs that are still open are ended."""
    _before_end.append(callback)


def end_process(timeout: float | None = None) -> bool:
    """Ends the jobs that this process still works on, and delivers or saves all reports. It does this once. It waits at
    most `timeout` seconds, EXIT_TIMEOUT by default. Returns False if a signal interrupted this function and it is still
    running."""
    global _ended, _ending_thread, _said
    if _ended:
        return threading.get_ident() != _ending_thread and _said.wait(EXIT_TIMEOUT)
    _ended, _ending_thread, _said = True, threading.get_ident(), Promise()
    try:
        _deliver_all(timeout)
    finally:
        _ending_thread = 0
        _said.set_result(None)
    return True


def _deliver_all(timeout: float | None) -> None:
    deadline = time.monotonic() + (EXIT_TIMEOUT if timeout is None else timeout)
    everything = True
    for callback in _before_end:
        with suppress(Exception):
            callback()
    for engine in list(_engines.values()):
        try:
            jobs = engine.jobs()
            engine.end(deadline)
            for job_state in jobs:
                if job_state.unended:
                    _end_unended(engine, job_state)
            # Their connection was closed before, and some have changed since.
            engine.save_undelivered(job_state for job_state in jobs if job_state.given_up)
            everything &= deliver(engine, jobs, max(deadline - time.monotonic(), 0.0))
        except KeyboardInterrupt:
            # The work is done. Ctrl-C ends only the wait and is no error.
            deadline, everything = 0.0, False
        engine.disconnect()
    if everything:
        process_parts.leave()


def _end_unended(engine: Engine, job_state: JobState) -> None:
    """Only a worker that takes the job over can continue it. Without this it would show as LOST a minute later."""
    # The interpreter stores the last printed exception here, whether it ended the program or not.
    error = getattr(sys, "last_value", None)
    status = end_status(error) if error is not None else None
    if status is None:
        status = failure("The worker's process ended and did not end the job.")
        log.warning(
            "headway: job %s was not ended, so it counts as failed: use `with`, or call finish(), fail() or close()",
            job_state.job.id,
        )
    request = rpc.FailJobRequest(session_id=job_state.session, job_id=job_state.job.id, error=status)
    engine.submit(job_state, PendingCall(request, after_reports=True))


def _before_fork() -> None:
    # gRPC works in a forked child only if nothing of it is open.
    drop_pending_calls()
    _lock.acquire()
    process_parts.found()
    for connection in list(_connections):
        connection._close_channel()
    threads = {thread.native_id for thread in threading.enumerate()}
    threads |= {engine.rest() for engine in _engines.values()}
    clean_up(number for number in threads if number is not None)
    termination.register_multiprocessing()


def _after_fork_in_parent() -> None:
    _lock.release()
    after_fork(_wake)


def _wake() -> None:
    for engine in list(_engines.values()):
        engine.wake()


def _after_fork_in_child() -> None:
    global _ended, _ending_thread, _lock
    drop_pending_calls()
    _ended, _ending_thread, _lock = False, 0, RLock()
    process_parts.after_fork_in_child()
    termination.after_fork_in_child()
    for engine in _engines.values():
        engine.adopt()


termination.on_termination(end_process)
if hasattr(os, "register_at_fork"):
    os.register_at_fork(before=_before_fork, after_in_parent=_after_fork_in_parent, after_in_child=_after_fork_in_child)

"""The background thread that reports all jobs of a process to one server.

Other threads hand it work through an inbox. The dispatcher does the work. The worker's threads wait here only in calls
that are meant to wait, whatever the server does.
"""

import time
from collections.abc import Callable, Iterable
from functools import partial
from importlib import import_module
from queue import Empty
from typing import TYPE_CHECKING

from headway._engine import process_parts, termination
from headway._engine.connection_state import ConnectionState
from headway._engine.dispatcher import LATE_TIMEOUT, Dispatcher
from headway._engine.job_state import JobState, PendingCall
from headway._engine.native_threads import Promise, RLock, SimpleQueue, Thread, has_greenlets, wait
from headway.errors import HeadwayError
from headway.target import Target, load_grpc

if TYPE_CHECKING:
    from headway._spool.sender import SpoolSender

WRITE_TIMEOUT = 5.0
"""Seconds to wait until the engine has saved undelivered data to disk."""

UNREACHED_TIMEOUT = 2.0
"""Seconds that a process waits at its end for a server that has never answered."""

STOP_TIMEOUT = 2.0
"""Seconds to wait for the end of the thread before a fork."""

_INBOX_TIMEOUT = 0.1
"""Seconds after which a thread that does not read its inbox is assumed to wait for an answer."""


class Engine:
    """See the module. The first methods are for callers' threads, the last ones run in the engine's thread."""

    def __init__(self, target: Target) -> None:
        self.target = target
        self._holders = 0
        self.connection_state = ConnectionState(self.target.address)
        self._reset()

    def _reset(self) -> None:
        self._inbox: SimpleQueue[Callable[[], None]] = SimpleQueue()
        self._dispatcher = Dispatcher(self.target, self.connection_state, self._inbox.put, self._look)
        self._thread: Thread | None = None
        self._resting = False
        """No thread may run while the process forks."""
        # The lock is reentrant: a signal handler may end a job while its thread holds the lock.
        self._lock = RLock()
        self._spool_sender: SpoolSender | None = None

    # What the worker's threads call.

    def submit(self, job_state: JobState, *pending_calls: PendingCall) -> None:
        """Registers a job and queues calls for it."""
        self._post(partial(self._dispatcher.take, job_state, pending_calls))

    def listen(self, job_state: JobState, callback: Callable[[HeadwayError], object] | None) -> None:
        """Sets the callback for the moment when the server takes no more reports of this job. It is called at once if
        that has happened already."""
        job_state.on_stopped = callback
        self._post(job_state.tell)

    def flush(self, job_states: Iterable[JobState], timeout: float, *, exiting: bool = False) -> list[JobState]:
        """Waits until the reports of these jobs are delivered. Returns the jobs with undelivered reports. With
        `exiting` it does not wait for a server that was never reached, or that is unreachable for `timeout` seconds
        already."""
        waiting = {job_state: PendingCall(after_reports=True) for job_state in job_states if not job_state.over}
        for job_state, pending_call in waiting.items():
            self.submit(job_state, pending_call)
        self._post(partial(self._hurry, 1))
        end = time.monotonic() + timeout
        try:
            if exiting:
                first = timeout if self.connection_state.answered_at else min(timeout, UNREACHED_TIMEOUT)
                wait([pending_call.tried for pending_call in waiting.values()], first)
                if not all(pending_call.answer.done() for pending_call in waiting.values()):
                    end = min(end, self.connection_state.wait_until(timeout))
            wait([pending_call.answer for pending_call in waiting.values()], end - time.monotonic())
        finally:
            self._post(partial(self._hurry, -1))
        return [job_state for job_state, pending_call in waiting.items() if not pending_call.answer.done()]

    def save_undelivered(self, job_states: Iterable[JobState]) -> dict[JobState, str]:
        """Saves the undelivered data of these jobs in the spool, for a later process. Returns the path for each job
        with undelivered data, or "" if it could not be written."""
        chosen = list(job_states)
        places: Promise[dict[JobState, str]] = Promise()
        if chosen:
            self._post(partial(self._save_undelivered, chosen, places))
            if not places.wait(_INBOX_TIMEOUT):
                self._break_off()
                places.wait(WRITE_TIMEOUT)
        return places.result() if places.done() else dict.fromkeys(chosen, "")

    def hold(self, change: int) -> None:
        """Counts the connections that keep the thread and the channel open: `change` is 1 or -1."""
        with self._lock:
            self._holders += change
            self._inbox.put(lambda: None)

    def adopt(self) -> None:
        """Starts again in a forked child. The child reports the parent's jobs through parts of its own."""
        jobs = self._live()
        self._reset()
        self.connection_state.forget_failures()
        self._holders = max(self._holders, 1)
        for job_state in jobs:
            job_state.adopt(process_parts.part())
            self.submit(job_state)

    def jobs(self) -> list[JobState]:
        """All jobs that are not over, including those that were submitted just now."""
        found: Promise[list[JobState]] = Promise()
        with self._lock:
            if self._thread is None:
                return []
            self._inbox.put(lambda: found.set_result(self._live()))
        found.wait(WRITE_TIMEOUT)
        return found.result() if found.done() else self._live()

    def _live(self) -> list[JobState]:
        return [job_state for job_state in list(self._dispatcher.job_states) if not job_state.over]

    def rest(self) -> int | None:
        """Closes everything of gRPC and ends the thread until `wake` is called. Returns the native id of that
        thread."""
        spool_sender, self._spool_sender = self._spool_sender, None
        if spool_sender is not None:
            spool_sender.stop()
        with self._lock:
            self._resting = True
            thread = self._thread
            self._inbox.put(lambda: None)
        if thread is not None and not thread.join(_INBOX_TIMEOUT):
            self._break_off()
            thread.join(STOP_TIMEOUT)
        return thread.native_id if thread is not None else None

    def wake(self) -> None:
        """Starts the thread again in the parent after a fork."""
        with self._lock:
            self._resting = False
            if self._dispatcher.job_states or not self._inbox.empty():
                self._post(lambda: None)

    def end(self, by: float) -> None:
        """Tells the engine that the process ends by then. From now on no call needs a new thread: Python 3.12 starts
        none at its end."""
        with self._lock:
            self._dispatcher.end_by = by
            self._inbox.put(lambda: None)

    def disconnect(self) -> None:
        """Closes everything of gRPC. It opens again on use."""
        closed: Promise[None] = Promise()
        with self._lock:
            if self._thread is None:
                return
            self._inbox.put(self._dispatcher.disconnect)
            self._inbox.put(partial(closed.set_result, None))
        if not closed.wait(_INBOX_TIMEOUT):
            self._break_off()
            closed.wait(STOP_TIMEOUT)

    def _break_off(self) -> None:
        """Ends the call that blocks the engine's thread."""
        channel = self._dispatcher.channel
        if channel is not None:
            channel.close()

    def _post(self, action: Callable[[], None]) -> None:
        with self._lock:
            self._inbox.put(action)
            if self._thread is None and not self._resting:
                # Import it now and not at the end of the process: CPython forgets that Ctrl-C ended the program if any
                # thread creates dataclasses there, and the exit status becomes 1.
                import_module("headway._spool.sender")
                termination.arm()
                if has_greenlets():
                    load_grpc()
                try:
                    self._thread = Thread(self._run, "headway")
                except RuntimeError:
                    self._go_without_thread()

    def _go_without_thread(self) -> None:
        """The interpreter ends and starts no thread any more. This thread does what is quickly done."""
        self._dispatcher.threadless = True
        self._dispatcher.end_by = end = time.monotonic() + LATE_TIMEOUT
        while True:
            while not self._inbox.empty():
                self._inbox.get_nowait()()
            now = time.monotonic()
            if (
                self.connection_state.down
                or now > end
                or not any(job_state.urgent for job_state in self._dispatcher.job_states)
            ):
                break
            self._dispatcher.pump(now)
        for job_state in self._dispatcher.job_states:
            for pending_call in job_state.waiting():
                pending_call.give_up_waiting()

    # What the engine's thread does.

    def _run(self) -> None:
        while True:
            try:
                self._inbox.get(timeout=self._turn_within())()
                while True:
                    self._inbox.get_nowait()()
            except Empty:
                pass
            except Exception as fault:
                self._dispatcher.on_internal_error(fault)
            try:
                self._dispatcher.pump(time.monotonic())
            except Exception as fault:
                self._dispatcher.on_internal_error(fault)
            self._dispatcher.forget()
            with self._lock:
                idle = not self._dispatcher.job_states and not self._holders and self._inbox.empty()
                if idle or self._resting:
                    self._dispatcher.disconnect()
                    self._thread = None
                    return

    def _turn_within(self) -> float | None:
        """Seconds until the next work, if nothing arrives in the inbox."""
        idle = self._dispatcher.idle_for()
        if not termination.armed():
            return idle
        termination.look()
        return termination.LOOK_EVERY if idle is None else min(idle, termination.LOOK_EVERY)

    def _look(self) -> None:
        from headway._spool.sender import collect

        self._spool_sender = collect(self.target)

    def _save_undelivered(self, job_states: list[JobState], places: Promise[dict[JobState, str]]) -> None:
        from headway._spool.sender import save_undelivered

        places.set_result(save_undelivered(job_states, self.target))

    def _hurry(self, waiting: int) -> None:
        self.connection_state.hurry(waiting, time.monotonic())

"""What a process has of engines: one for each target, at rest while it forks. At its end all that they have left to say
is delivered, or else written down."""

import atexit
import os
import sys
import threading
import time
from collections.abc import Iterable
from weakref import WeakSet

from headway.channel import Target, clean_up
from headway.contact import log
from headway.course import Course, Step
from headway.engine import Engine

EXIT_TIMEOUT = 10.0
"""Seconds that a process waits at its end for what was not delivered yet."""

CALL_TIMEOUT = 10.0
"""Seconds that the server has to answer a call that its caller waits for: DEADLINE_EXCEEDED after that."""

_lock = threading.Lock()
_engines: dict[Target, Engine] = {}
_resting: list[threading.Event] = []
_connections: "WeakSet[Connection]" = WeakSet()
_forks_seen_to = False
_ended = False


class Connection:
    """What the connections of both kinds, synchronous and asyncio, have in common."""

    def __init__(
        self,
        target: Target,
        *,
        session: str | None = None,
        exit_timeout: float = EXIT_TIMEOUT,
        call_timeout: float = CALL_TIMEOUT,
    ) -> None:
        self.target = target
        self.exit_timeout = exit_timeout
        self.call_timeout = call_timeout
        self._session = session
        self._engine = engine_for(target)
        self._engine.hold(1)
        self._courses: WeakSet[Course] = WeakSet()
        self._closed = False
        _connections.add(self)
        _see_to_multiprocessing()

    def _in(self, session: str | None) -> str:
        found = session or self._session or os.environ.get("HEADWAY_SESSION")
        if not found:
            raise ValueError("No session: give one, or set HEADWAY_SESSION.")
        return found

    def _catch_up(self, job_id: str, patience: float) -> None:
        """A job that is taken up again goes on from the last word of its former worker, wherever that is."""
        from headway.postman import catch_up

        catch_up(self.target, job_id, patience)

    def _deliver(self) -> None:
        if not self._closed:
            self._closed = True
            courses = list(self._courses)
            deliver(self._engine, courses, self.exit_timeout)
            for course in courses:
                self._engine.submit(course, Step(after_reports=True, release=True))
            self._engine.hold(-1)

    def _close_channel(self) -> None:
        """Closes what gRPC has open here; it is opened again on use."""


def engine_for(target: Target) -> Engine:
    """The engine of this process for that target."""
    with _lock:
        return _engines.setdefault(target, Engine(target))


def deliver(engine: Engine, courses: Iterable[Course], timeout: float) -> None:
    """Waits until all that these jobs have to say is stored, `timeout` seconds at most; then writes what is left to the
    spool, and notes it. It goes on in the background until the process ends. A job is waited for in this way once."""
    waiting = [course for course in courses if not course.over and not course.given_up]
    late = waiting
    try:
        late = engine.linger(waiting, timeout)
    finally:
        # Also if an impatient user breaks off the wait.
        for course in late:
            course.given_up = True
        for course, place in engine.write_down(late).items():
            log.warning(
                "headway: %s has not answered in time; the last state of job %s is not delivered%s",
                engine.target.address,
                course.job.id,
                f" yet, and waits in {place} for `headway flush` or the next run" if place else "",
            )


def _at_exit() -> None:
    global _ended
    if _ended:
        return
    _ended = True
    deadline = time.monotonic() + EXIT_TIMEOUT
    for engine in list(_engines.values()):
        try:
            jobs = engine.jobs()
            # Their connection was closed before, and some have gone on.
            engine.write_down(course for course in jobs if course.given_up)
            deliver(engine, jobs, max(deadline - time.monotonic(), 0.0))
        except KeyboardInterrupt:
            # The work is done, and this is no part of it: to be impatient here ends the wait, and is no error.
            deadline = 0.0
        engine.rest()


def _before_fork() -> None:
    # gRPC does not survive a fork in the child unless nothing of it is open.
    _lock.acquire()
    for connection in list(_connections):
        connection._close_channel()
    _resting.extend(engine.rest() for engine in _engines.values())
    clean_up()
    _see_to_multiprocessing()


def _after_fork_in_parent() -> None:
    for event in _resting:
        event.set()
    _resting.clear()
    _lock.release()


def _after_fork_in_child() -> None:
    global _ended
    _ended = False
    _resting.clear()
    for engine in _engines.values():
        engine.adopt()
    _lock.release()


def _see_to_multiprocessing() -> None:
    """Children of multiprocessing leave without atexit, but run the finalizers that they have themselves."""
    global _forks_seen_to
    if "multiprocessing.util" not in sys.modules:
        return
    from multiprocessing import parent_process, util

    if not _forks_seen_to:
        _forks_seen_to = True
        util.register_after_fork(_connections, lambda _: util.Finalize(None, _at_exit, exitpriority=100))
    if parent_process() is not None:
        util.Finalize(None, _at_exit, exitpriority=100)


atexit.register(_at_exit)
os.register_at_fork(before=_before_fork, after_in_parent=_after_fork_in_parent, after_in_child=_after_fork_in_child)

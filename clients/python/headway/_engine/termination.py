"""The end of child processes. `multiprocessing.Pool` ends its workers with SIGTERM once it has their results.

A child with reports delivers them first, unless it has a SIGTERM handler of its own. A child whose main thread is stuck
inside a library cannot do that. It is killed soon after.
"""

import os
import signal
import sys
import threading
import time
from collections.abc import Callable
from contextlib import suppress
from types import FrameType
from typing import TYPE_CHECKING

from headway._engine.native_threads import Thread

if TYPE_CHECKING:
    from multiprocessing.util import Finalize

TIMEOUT = 2.0
"""Seconds that a terminated child waits for the server."""

KILL_AFTER = TIMEOUT + 3.0
"""Seconds after SIGTERM until a child that still runs is killed."""

LOOK_EVERY = 0.5
"""Seconds between two checks for a SIGTERM that was not handled."""

_deliver: Callable[[float | None], bool] | None = None
_forked = _forks_seen_to = False
_finalizer: "Finalize[None] | None" = None
_signals: int | None = None
"""The system writes the number of each signal here, handled or not."""
_terminated_at = 0.0
_heeded = False


def on_termination(deliver: Callable[[float | None], bool]) -> None:
    """Sets the function that delivers at the end. It gets a timeout in seconds, or None, and returns False if it is
    already running."""
    global _deliver
    _deliver = deliver


def arm() -> None:
    """Installs the SIGTERM handler of a child. Called when there is something to report."""
    global _signals
    register_multiprocessing()
    if _signals is not None or not _is_child() or threading.current_thread() is not threading.main_thread():
        return
    if signal.getsignal(signal.SIGTERM) is not signal.SIG_DFL:
        return
    reader, writer = os.pipe()
    os.set_blocking(reader, False)
    os.set_blocking(writer, False)
    others = signal.set_wakeup_fd(writer, warn_on_full_buffer=False)
    if others != -1:
        # Other code handles signals here.
        signal.set_wakeup_fd(others)
        os.close(reader)
        os.close(writer)
        return
    _signals = reader
    signal.signal(signal.SIGTERM, _on_sigterm)


def register_multiprocessing() -> None:
    """Registers a finalizer in children of multiprocessing. They may end without atexit, but run their own
    finalizers."""
    global _forks_seen_to
    if "multiprocessing.util" not in sys.modules:
        return
    from multiprocessing import parent_process, util

    if not _forks_seen_to:
        _forks_seen_to = True
        util.register_after_fork(register_multiprocessing, lambda _: _finalize())
    if parent_process() is not None:
        _finalize()


def _finalize() -> None:
    global _finalizer
    from multiprocessing import util

    if _finalizer is None or not _finalizer.still_active():
        _finalizer = util.Finalize(None, _end, exitpriority=100)


def _end() -> None:
    if _deliver is not None:
        _deliver(None)


def armed() -> bool:
    return _signals is not None


def look() -> None:
    """Kills a process that does not handle SIGTERM in time. Called regularly by a thread that is not the main
    thread."""
    global _terminated_at
    if _signals is None:
        return
    with suppress(OSError):
        if signal.SIGTERM in os.read(_signals, 4096) and not _terminated_at:
            _terminated_at = time.monotonic()
    if _terminated_at and not _heeded and time.monotonic() > _terminated_at + KILL_AFTER:
        os.kill(os.getpid(), signal.SIGKILL)


def _on_sigterm(number: int, _: FrameType | None) -> None:
    global _heeded
    _heeded = True
    # The next SIGTERM ends the process at once.
    signal.signal(number, signal.SIG_DFL)
    try:
        # Use a thread: the interrupted code may hold a lock that this needs, such as those of logging and of imports.
        Thread(_deliver_and_die, "headway-termination")
    except RuntimeError:
        _deliver_and_die()


def _deliver_and_die() -> None:
    done = True
    try:
        done = _deliver is None or _deliver(TIMEOUT)
    finally:
        # If the process is ending already, it ends by itself.
        if done:
            os.kill(os.getpid(), signal.SIGTERM)


def _is_child() -> bool:
    if _forked:
        return True
    multiprocessing = sys.modules.get("multiprocessing.process")
    return multiprocessing is not None and multiprocessing.parent_process() is not None


def after_fork_in_child() -> None:
    global _forked, _signals, _terminated_at, _heeded
    _forked, _terminated_at, _heeded = True, 0.0, False
    if _signals is not None:
        # The parent is a child too, and this is its file.
        os.close(_signals)
        _signals = None
        if signal.getsignal(signal.SIGTERM) is _on_sigterm:
            os.close(signal.set_wakeup_fd(-1))
            signal.signal(signal.SIGTERM, signal.SIG_DFL)

"""The end of child processes. `multiprocessing.Pool` ends its workers with SIGTERM once it has their results.

A child that has something to report delivers it first, unless it has a handler of its own. One that does not get round
to that, since its main thread is inside a library, is killed soon after.
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
"""Seconds after SIGTERM when a child is killed that still runs."""

LOOK_EVERY = 0.5
"""Seconds between two looks whether SIGTERM has come and was not heeded."""

_deliver: Callable[[float | None], bool] | None = None
_forked = _forks_seen_to = False
_finalizer: "Finalize[None] | None" = None
_signals: int | None = None
"""Where the system writes the numbers of signals as they come, heeded or not."""
_terminated_at = 0.0
_heeded = False


def on_termination(deliver: Callable[[float | None], bool]) -> None:
    """What to do at the end, with so many seconds left if that is short; False if it is under way already."""
    global _deliver
    _deliver = deliver


def arm() -> None:
    """Called once there is something to report."""
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
        # Somebody else sees to signals here.
        signal.set_wakeup_fd(others)
        os.close(reader)
        os.close(writer)
        return
    _signals = reader
    signal.signal(signal.SIGTERM, _on_sigterm)


def register_multiprocessing() -> None:
    """Children of multiprocessing may leave without atexit, but run the finalizers that they have themselves."""
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
    """Called now and then by another thread than the main thread."""
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
    # The next one ends the process at once.
    signal.signal(number, signal.SIG_DFL)
    try:
        # Not here: what was interrupted may hold a lock that this needs, such as those of logging and of imports.
        Thread(_deliver_and_die, "headway-termination")
    except RuntimeError:
        _deliver_and_die()


def _deliver_and_die() -> None:
    done = True
    try:
        done = _deliver is None or _deliver(TIMEOUT)
    finally:
        # The end of the process may be under way, and comes by itself then.
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
        # The parent is itself a child, and this is the parent's.
        os.close(_signals)
        _signals = None
        if signal.getsignal(signal.SIGTERM) is _on_sigterm:
            os.close(signal.set_wakeup_fd(-1))
            signal.signal(signal.SIGTERM, signal.SIG_DFL)

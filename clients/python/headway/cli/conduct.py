"""How a process behaves that stands where another would have stood."""

from __future__ import annotations

import atexit
import os
import resource
import signal
from contextlib import suppress


class Death:
    """Ends this process, at its very end, by a signal: whoever waits for it learns what it would have learnt of the
    other. A shell, for example, ends its loop when Ctrl-C has killed a program in it."""

    def __init__(self) -> None:
        """Make it before anything else that has to be done at the end."""
        self.signal = 0
        """0: the process ends with its exit status."""
        # What is registered first has its turn last.
        atexit.register(self._die)

    def _die(self) -> None:
        if not self.signal:
            return
        # One memory image is enough.
        resource.setrlimit(resource.RLIMIT_CORE, (0, resource.getrlimit(resource.RLIMIT_CORE)[1]))
        with suppress(OSError, ValueError):
            signal.signal(self.signal, signal.SIG_DFL)
        signal.pthread_sigmask(signal.SIG_UNBLOCK, {self.signal})
        os.kill(os.getpid(), self.signal)


def fill() -> set[int]:
    """Which of the standard descriptors are closed. They lead to nothing from now on, so that nothing that is opened is
    taken for one; for programs that are started, they stay closed. Call it before anything is opened."""
    closed: set[int] = set()
    while (fd := os.open(os.devnull, os.O_RDWR)) <= 2:
        closed.add(fd)
    os.close(fd)
    return closed


def let_go(*fds: int) -> None:
    """Whoever is at the other side of these descriptors learns now that nothing more comes, or is read."""
    nothing = os.open(os.devnull, os.O_RDWR)
    for fd in fds:
        os.dup2(nothing, fd, inheritable=False)
    os.close(nothing)

"""How a process behaves that stands where another would have stood."""

from __future__ import annotations

import atexit
import os
import resource
import signal
from collections.abc import Collection
from contextlib import suppress
from pathlib import Path


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


def inherited() -> list[int]:
    """Descriptors beyond the standard ones that this process was given by whoever started it."""
    fds = [int(file.name) for file in Path("/proc/self/fd").iterdir()]
    return [fd for fd in fds if fd > 2 and _is_inheritable(fd)]


def _is_inheritable(fd: int) -> bool:
    try:
        return os.get_inheritable(fd)
    except OSError:
        return False


def cat(source: int, sink: int, *, setsid: bool = False, blocked: Collection[int] = ()) -> int:
    """Starts a process that copies, with no more than these two files; its id."""
    return os.posix_spawnp(
        "cat",
        ["cat"],
        os.environ,
        file_actions=[
            (os.POSIX_SPAWN_DUP2, source, 0),
            (os.POSIX_SPAWN_DUP2, sink, 1),
            (os.POSIX_SPAWN_OPEN, 2, os.devnull, os.O_WRONLY, 0),
            *[(os.POSIX_SPAWN_CLOSE, fd) for fd in inherited()],
        ],
        setsid=setsid,
        setsigmask=blocked,
        setsigdef={signal.SIGPIPE},
    )

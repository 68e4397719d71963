"""Helpers for a process that replaces another one for its caller."""

from __future__ import annotations

import atexit
import os
import resource
import signal
from collections.abc import Collection
from contextlib import suppress
from pathlib import Path


class Death:
    """Ends this process by a signal at its very end, so that its caller sees the same end as of the other process. A
    shell, for example, ends its loop when Ctrl-C has killed a program in it."""

    def __init__(self) -> None:
        """Create it before any other exit handler."""
        self.signal = 0
        """0 = the process ends with its exit status."""
        # The handler that is registered first runs last.
        atexit.register(self._die)

    def _die(self) -> None:
        if not self.signal:
            return
        # One core dump is enough.
        resource.setrlimit(resource.RLIMIT_CORE, (0, resource.getrlimit(resource.RLIMIT_CORE)[1]))
        with suppress(OSError, ValueError):
            signal.signal(self.signal, signal.SIG_DFL)
        signal.pthread_sigmask(signal.SIG_UNBLOCK, {self.signal})
        os.kill(os.getpid(), self.signal)


def fill() -> set[int]:
    """Returns the standard descriptors that are closed, and opens them on the null device, so that no later file gets
    their numbers. Programs that are started still find them closed. Call it before anything is opened."""
    closed: set[int] = set()
    while (fd := os.open(os.devnull, os.O_RDWR)) <= 2:
        closed.add(fd)
    os.close(fd)
    return closed


def let_go(*fds: int) -> None:
    """Closes these descriptors, so that the processes at their other ends see that."""
    nothing = os.open(os.devnull, os.O_RDWR)
    for fd in fds:
        os.dup2(nothing, fd, inheritable=False)
    os.close(nothing)


def inherited() -> list[int]:
    """Descriptors beyond the standard ones that this process has inherited from its caller."""
    fds = [int(file.name) for file in Path("/proc/self/fd").iterdir()]
    return [fd for fd in fds if fd > 2 and _is_inheritable(fd)]


def _is_inheritable(fd: int) -> bool:
    try:
        return os.get_inheritable(fd)
    except OSError:
        return False


def cat(source: int, sink: int, *, setsid: bool = False, blocked: Collection[int] = ()) -> int:
    """Starts a process that copies, with only these two files open. Returns its id."""
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

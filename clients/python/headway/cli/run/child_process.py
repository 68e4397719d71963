"""A program run as if nobody stood between it and whoever started it.

It is in headway's process group, with the same terminal, standard input and open files: keys and signals of a terminal,
and the job control of a shell, reach it by themselves. What is sent to headway alone, headway hands on.
"""

from __future__ import annotations

import errno
import os
import shutil
import signal
import subprocess
import time
from collections.abc import Mapping, Sequence
from contextlib import suppress
from pathlib import Path

from headway.cli.run.output_copy import Outputs, in_front
from headway.cli.run.relay import cat, inherited, let_go

_OWN = {
    signal.SIGKILL, signal.SIGSTOP, signal.SIGCHLD, signal.SIGWINCH, signal.SIGTTOU,
    signal.SIGSEGV, signal.SIGBUS, signal.SIGFPE, signal.SIGILL, signal.SIGTRAP, signal.SIGSYS, signal.SIGABRT,
    signal.SIGPIPE, signal.SIGXFSZ, signal.SIGXCPU, signal.SIGPROF, signal.SIGVTALRM,
}  # fmt: skip
"""What comes to headway for its own doings. All else is handed on to the program."""
_PASSED = signal.valid_signals() - _OWN
_BLOCKED = _PASSED | {signal.SIGCHLD, signal.SIGWINCH}
_STOPPING = {signal.SIGTSTP, signal.SIGTTIN}
_ENDING = {signal.SIGINT, signal.SIGTERM, signal.SIGHUP, signal.SIGQUIT}

INTERRUPT_TIMEOUT = 10.0
"""Seconds in which a program that heeds Ctrl-C has ended because of it: one that goes on longer took it for something
else."""

_GROUP_SIGNAL_TIMEOUT = 0.01
"""Seconds within which somebody who stops a service has signalled all its processes, one by one."""
_STOP_FLUSH_TIMEOUT = 0.1
"""Seconds for output to be passed on before headway stops with its program."""


class Program:
    """One run of a program. Signals to headway are blocked, and taken up by `wait`, from `start` to `close`."""

    def __init__(self) -> None:
        self.outputs = Outputs()
        self._process: subprocess.Popen[bytes] | None = None
        self._witness: _Witness | None = None
        self._mask: set[int] = set()
        self._stopped_by = 0
        self._told_to_stop = False
        self._interrupted_at: float | None = None

    def start(self, command: Sequence[str], environment: Mapping[str, str]) -> None:
        """Starts the program. OSError if it cannot be: FileNotFoundError, PermissionError, ..."""
        # Where nobody was to learn how processes end, headway would not learn it either.
        untold = signal.getsignal(signal.SIGCHLD) is signal.SIG_IGN
        if untold:
            signal.signal(signal.SIGCHLD, signal.SIG_DFL)
        self._witness = _Witness()
        self._mask = mask = signal.pthread_sigmask(signal.SIG_BLOCK, _BLOCKED)

        def become() -> None:
            if untold:
                signal.signal(signal.SIGCHLD, signal.SIG_IGN)
            signal.pthread_sigmask(signal.SIG_SETMASK, mask)

        def popen(words: Sequence[str]) -> subprocess.Popen[bytes]:
            return subprocess.Popen(  # noqa: S603 - what to run is for the caller to say
                words,
                stdout=self.outputs.end(1),
                stderr=self.outputs.end(2),
                env=environment,
                # A shell's <(…) for example. No other thread runs yet.
                close_fds=False,
                preexec_fn=become,
            )

        try:
            self._process = popen(command)
        except OSError as error:
            if error.errno != errno.ENOEXEC:
                raise
            # A script that does not say what for: shells take it for one of theirs.
            self._process = popen(["/bin/sh", shutil.which(command[0]) or command[0], *command[1:]])
        finally:
            self.outputs.begin()
        # The program alone shall decide how long these are open.
        let_go(0)
        for fd in inherited():
            os.close(fd)

    def wait(self, pace: float) -> int | None:
        """Hands signals on for so many seconds; the program's exit status once it has ended, -n if by signal n."""
        assert self._process is not None
        end = time.monotonic() + pace
        while (left := end - time.monotonic()) > 0:
            info = signal.sigtimedwait(_BLOCKED, left)
            if info is None:
                break
            self._on_signal(info)
            if info.si_signo == signal.SIGCHLD:
                break
        return self._process.poll()

    def finish_output(self) -> None:
        """Once it has ended: waits until all that it wrote is passed on, however long its reader takes, unless headway
        is asked to stop."""
        # What came until now was for the program; `timeout`, for example, sends each signal twice.
        if self._process is not None and self._process.returncode != 0:
            time.sleep(_GROUP_SIGNAL_TIMEOUT)
        self._forget_signals()
        self.outputs.finish(lambda: self.interrupted(0.0))

    def send_all(self, number: int) -> None:
        """Sends a signal to the program, and to all that it has started."""
        if self._process is None or self._process.poll() is not None:
            return
        for pid in (self._process.pid, *_descendants(self._process.pid)):
            _send(pid, number)

    def interrupted(self, timeout: float) -> bool:
        """Waits so many seconds after the end; whether headway was asked to stop meanwhile."""
        info = signal.sigtimedwait(_BLOCKED, timeout)
        if info is None or info.si_signo not in _ENDING:
            return False
        return signal.getsignal(info.si_signo) is not signal.SIG_IGN

    @property
    def interrupted_lately(self) -> bool:
        """Whether Ctrl-C, or its signal, came shortly before now."""
        return self._interrupted_at is not None and time.monotonic() - self._interrupted_at < INTERRUPT_TIMEOUT

    def close(self) -> None:
        """Puts the signals back as they were."""
        if self._witness is not None:
            self._witness.close()
        self._forget_signals()
        signal.pthread_sigmask(signal.SIG_SETMASK, self._mask)

    def _forget_signals(self) -> None:
        while signal.sigtimedwait(_BLOCKED, 0) is not None:
            pass

    def _on_signal(self, info: signal.struct_siginfo) -> None:
        assert self._process is not None
        number = info.si_signo
        if number == signal.SIGWINCH:
            if self.outputs.resize():
                # They have been told already, but may have looked before there was anything to see.
                self.send_all(number)
        elif number != signal.SIGCHLD:
            if number == signal.SIGINT:
                self._interrupted_at = time.monotonic()
            if number in _STOPPING or number == signal.SIGCONT:
                self._told_to_stop = number != signal.SIGCONT
            if not self._has_it_already(info):
                _send(self._process.pid, number)
        self._stop_with_it()

    def _has_it_already(self, info: signal.struct_siginfo) -> bool:
        assert self._process is not None
        if self._witness is not None and self._witness.saw(info.si_signo):
            return True
        return info.si_pid in (self._process.pid, *_descendants(self._process.pid))

    def _stop_with_it(self) -> None:
        """A shell that waits for headway shall know when the program is stopped."""
        assert self._process is not None
        with suppress(ChildProcessError):
            while info := os.waitid(os.P_PID, self._process.pid, os.WSTOPPED | os.WCONTINUED | os.WNOHANG):
                self._stopped_by = 0 if info.si_code == os.CLD_CONTINUED else info.si_status
        if self._stopped_by and (self._told_to_stop or in_front()):
            self._told_to_stop = False
            time.sleep(_STOP_FLUSH_TIMEOUT)
            # With one that waits already this makes one: to stop twice would be once too often.
            os.kill(os.getpid(), self._stopped_by)
            signal.pthread_sigmask(signal.SIG_UNBLOCK, _STOPPING)
            signal.pthread_sigmask(signal.SIG_BLOCK, _STOPPING)
            # Whoever continues headway continues the program, or it will be done on the SIGCONT that waits.
            self._stopped_by = 0


class _Witness:
    """Tells whether a signal was for headway alone, or for the whole process group: then the program has it too, and
    must not get it twice. It is a process that lets its signals wait."""

    def __init__(self) -> None:
        # Without headway, it ends.
        self._source, self._holder = os.pipe()
        self._start()

    def _start(self) -> None:
        self._pid = 0
        # Without it, all is handed on.
        with suppress(OSError):
            self._pid = cat(self._source, self._source, blocked=_BLOCKED)

    def saw(self, number: int) -> bool:
        time.sleep(_GROUP_SIGNAL_TIMEOUT)
        try:
            status = Path(f"/proc/{self._pid}/status").read_text()
        except OSError:
            return False
        waiting = int(status.partition("\nShdPnd:")[2].split()[0], 16)
        if not waiting >> (number - 1) & 1:
            return False
        self._end()
        self._start()
        # It cannot tell two from one, so what came meanwhile goes with the first.
        while signal.sigtimedwait({number}, 0) is not None:
            self._end()
            self._start()
        return True

    def _end(self) -> None:
        if self._pid:
            _send(self._pid, signal.SIGKILL)
            os.waitpid(self._pid, 0)

    def close(self) -> None:
        self._end()
        os.close(self._source)
        os.close(self._holder)


def _send(pid: int, number: int) -> None:
    with suppress(ProcessLookupError, PermissionError):
        os.kill(pid, number)


def _descendants(pid: int) -> list[int]:
    """All processes that this one has started, and those that they have, ..."""
    children: dict[int, list[int]] = {}
    for folder in Path("/proc").glob("[0-9]*"):
        with suppress(OSError):
            parent = int((folder / "stat").read_bytes().rpartition(b")")[2].split()[1])
            children.setdefault(parent, []).append(int(folder.name))
    found = [pid]
    for one in found:
        found += children.get(one, [])
    return found[1:]

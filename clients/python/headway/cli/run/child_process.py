"""Runs a program as if its caller had started it directly.

The program is in headway's process group, with the same terminal, standard input and open files. So keys and signals of
a terminal, and the job control of a shell, reach it directly. headway passes on signals that are sent to headway alone.
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
"""Signals for headway itself. All others are passed on to the program."""
_PASSED = signal.valid_signals() - _OWN
_BLOCKED = _PASSED | {signal.SIGCHLD, signal.SIGWINCH}
_STOPPING = {signal.SIGTSTP, signal.SIGTTIN}
_ENDING = {signal.SIGINT, signal.SIGTERM, signal.SIGHUP, signal.SIGQUIT}

INTERRUPT_TIMEOUT = 10.0
"""Seconds after Ctrl-C in which an end counts as caused by it. A program that runs longer has used Ctrl-C for something
else."""

_GROUP_SIGNAL_TIMEOUT = 0.01
"""Seconds in which a service manager signals all processes of a service, one by one."""
_STOP_FLUSH_TIMEOUT = 0.1
"""Seconds to pass on output before headway stops (SIGTSTP) with its program."""


class Program:
    """One run of a program. From `start` to `close` signals to headway are blocked, and `wait` receives them."""

    def __init__(self) -> None:
        self.outputs = Outputs()
        self._process: subprocess.Popen[bytes] | None = None
        self._witness: _Witness | None = None
        self._mask: set[int] = set()
        self._stopped_by = 0
        self._told_to_stop = False
        self._interrupted_at: float | None = None

    def start(self, command: Sequence[str], environment: Mapping[str, str]) -> None:
        """Starts the program. OSError if that fails: FileNotFoundError, PermissionError, ..."""
        # If SIGCHLD is ignored, headway would not learn how the program ends.
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
                # Files such as a shell's <(…). No other thread runs yet.
                close_fds=False,
                preexec_fn=become,
            )

        try:
            self._process = popen(command)
        except OSError as error:
            if error.errno != errno.ENOEXEC:
                raise
            # A script without #! line: run it with the shell, as shells do.
            self._process = popen(["/bin/sh", shutil.which(command[0]) or command[0], *command[1:]])
        finally:
            self.outputs.begin()
        # Only the program decides how long these are open.
        let_go(0)
        for fd in inherited():
            os.close(fd)

    def wait(self, pace: float) -> int | None:
        """Passes signals on for so many seconds. Returns the exit status once the program has ended, -n after signal
        n."""
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
        # Earlier signals were for the program. The command `timeout`, for example, sends each signal twice.
        if self._process is not None and self._process.returncode != 0:
            time.sleep(_GROUP_SIGNAL_TIMEOUT)
        self._forget_signals()
        self.outputs.finish(lambda: self.interrupted(0.0))

    def send_all(self, number: int) -> None:
        """Sends a signal to the program and all its descendants."""
        if self._process is None or self._process.poll() is not None:
            return
        for pid in (self._process.pid, *_descendants(self._process.pid)):
            _send(pid, number)

    def interrupted(self, timeout: float) -> bool:
        """Waits so many seconds after the end. Returns whether headway was asked to stop meanwhile."""
        info = signal.sigtimedwait(_BLOCKED, timeout)
        if info is None or info.si_signo not in _ENDING:
            return False
        return signal.getsignal(info.si_signo) is not signal.SIG_IGN

    @property
    def interrupted_lately(self) -> bool:
        """Whether Ctrl-C, or its signal, came shortly before now."""
        return self._interrupted_at is not None and time.monotonic() - self._interrupted_at < INTERRUPT_TIMEOUT

    def close(self) -> None:
        """Restores the signals."""
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
        """Stops headway with the program, so that a waiting shell sees it."""
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
            # The process that continues headway also continues the program, or the waiting SIGCONT does.
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
    """All descendants of this process."""
    children: dict[int, list[int]] = {}
    for folder in Path("/proc").glob("[0-9]*"):
        with suppress(OSError):
            parent = int((folder / "stat").read_bytes().rpartition(b")")[2].split()[1])
            children.setdefault(parent, []).append(int(folder.name))
    found = [pid]
    for one in found:
        found += children.get(one, [])
    return found[1:]

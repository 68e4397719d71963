"""A program run as if nobody stood between it and its terminal, files, pipes and signals.

Where headway writes to a terminal, the program writes to one of its own, in a session of its own; elsewhere to a pipe,
in headway's process group, so that the shell's job control reaches it as it always would.
"""

from __future__ import annotations

import fcntl
import os
import select
import signal
import subprocess
import termios
import threading
import time
import tty
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from typing import Any

PASSED = frozenset(
    {signal.SIGINT, signal.SIGTERM, signal.SIGHUP, signal.SIGQUIT, signal.SIGUSR1, signal.SIGUSR2, signal.SIGTSTP}
)
"""What headway hands on to the program. SIGCONT as well."""

_BLOCKED = PASSED | {signal.SIGCHLD, signal.SIGCONT, signal.SIGWINCH}
_FROM_KERNEL = 0x80
"""si_code of a signal that the terminal sent to the whole process group."""
_BLOCK = 64 * 1024
_LAST_WORDS = 0.1
"""Seconds for output that is still on its way through a terminal when the program has ended."""
_LEFT_AT_MOST = 1024 * 1024
"""Bytes that a pipe can still hold then; what is more comes from processes that it left behind."""

Feed = Callable[[bytes], None]


class Program:
    """One run of a program. Signals to headway are blocked, and taken up by `wait`, from here to `close`."""

    def __init__(self, out: Feed, err: Feed) -> None:
        """`out` and `err` are shown what was written, after it was written; on one terminal all comes to `out`."""
        self._feeds = {1: out, 2: err}
        self._mask = signal.pthread_sigmask(signal.SIG_BLOCK, _BLOCKED)
        self._process: subprocess.Popen[bytes] | None = None
        self._terminal: int | None = None
        self._master = -1
        self._raw: list[Any] | None = None
        self._stop, self._stopper = os.pipe()
        self.has_own_stderr = False
        """Whether what it writes on standard error is apart from the rest."""
        self._ended = threading.Event()
        self._copies: list[threading.Thread] = []
        self._keys: threading.Thread | None = None

    def start(self, command: Sequence[str], environment: Mapping[str, str]) -> None:
        """Starts the program. OSError if it cannot be: FileNotFoundError, PermissionError, ..."""
        sources: dict[int, int] = {}
        ends: dict[int, int] = {}
        slave = -1
        terminal = next((fd for fd in (1, 2) if os.isatty(fd)), None)
        if terminal is not None:
            # Where there are no terminals to be had, it writes to headway's own, and nothing is read from it.
            with suppress(OSError):
                self._master, slave = os.openpty()
                self._terminal = terminal
                self._adopt_terminal(slave)
                sources[terminal] = self._master
        for fd in (1, 2):
            if os.isatty(fd):
                ends |= {fd: slave} if slave >= 0 else {}
            elif _is_open(fd):
                sources[fd], ends[fd] = os.pipe()
        self.has_own_stderr = 2 in sources
        try:
            self._process = subprocess.Popen(  # noqa: S603 - what to run is for the caller to say
                command,
                stdin=slave if slave >= 0 and os.isatty(0) else None,
                stdout=ends.get(1),
                stderr=ends.get(2),
                env=environment,
                start_new_session=slave >= 0,
                # No other thread runs yet. The program gets the signals that headway got, and its terminal.
                preexec_fn=lambda: _become(self._mask, slave),
            )
        finally:
            for end in set(ends.values()):
                os.close(end)
        self._go_raw()
        for sink, source in sources.items():
            copy = threading.Thread(target=self._copy, args=(source, sink, self._feeds[sink]), daemon=True)
            self._copies.append(copy)
            copy.start()

    def wait(self, pace: float) -> int | None:
        """Hands signals on for so many seconds; the program's exit status, as a shell gives it, once it has ended."""
        assert self._process is not None
        end = time.monotonic() + pace
        while (left := end - time.monotonic()) > 0:
            info = signal.sigtimedwait(_BLOCKED, left)
            if info is None:
                break
            self._on_signal(signal.Signals(info.si_signo), info.si_code == _FROM_KERNEL)
            if info.si_signo == signal.SIGCHLD:
                break
        status = self._process.poll()
        return None if status is None else status if status >= 0 else 128 - status

    @property
    def killed_by(self) -> int:
        """The signal that ended it; 0 if none did."""
        status = self._process.returncode if self._process else 0
        return -status if status and status < 0 else 0

    def finish_output(self) -> None:
        """Once it has ended: waits until all that it wrote is written, however long its reader takes, unless headway
        is asked to stop."""
        self._ended.set()
        os.close(self._stopper)
        for copy in self._copies:
            while copy.is_alive() and not self.interrupted(0.0):
                copy.join(_LAST_WORDS)

    def send(self, number: signal.Signals) -> None:
        """Sends it a signal; all that it has started too where it has a session of its own."""
        if self._process is None or self._process.poll() is not None:
            return
        with suppress(ProcessLookupError, PermissionError):
            if self._terminal is None:
                os.kill(self._process.pid, number)
            else:
                os.killpg(self._process.pid, number)

    def interrupted(self, patience: float) -> bool:
        """Waits so many seconds after the end; whether headway was asked to stop meanwhile."""
        info = signal.sigtimedwait(_BLOCKED, patience)
        return info is not None and info.si_signo in PASSED

    def close_terminal(self) -> None:
        """Puts the terminal back as it was."""
        self._leave_raw()

    def close(self) -> None:
        """Puts the signals back as they were."""
        # What was for the program is not for headway now.
        while signal.sigtimedwait(_BLOCKED, 0) is not None:
            pass
        signal.pthread_sigmask(signal.SIG_SETMASK, self._mask)

    def _on_signal(self, number: signal.Signals, from_kernel: bool) -> None:
        own_session = self._terminal is not None
        if number == signal.SIGWINCH and own_session:
            self._resize()
        elif number == signal.SIGTSTP:
            self._suspend(passed_on=from_kernel and not own_session)
        elif number == signal.SIGCONT:
            self._go_raw()
            self.send(number)
        elif number in PASSED and (own_session or not from_kernel):
            self.send(number)

    def _suspend(self, passed_on: bool) -> None:
        if self._terminal is not None:
            # In a session of its own, no shell could ever continue it: the kernel ignores SIGTSTP there.
            self.send(signal.SIGSTOP)
        elif not passed_on:
            self.send(signal.SIGTSTP)
        self._leave_raw()
        signal.pthread_sigmask(signal.SIG_UNBLOCK, {signal.SIGTSTP})
        os.kill(os.getpid(), signal.SIGTSTP)
        signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGTSTP})
        self._go_raw()
        self.send(signal.SIGCONT)

    # The terminal.

    def _adopt_terminal(self, slave: int) -> None:
        assert self._terminal is not None
        with suppress(termios.error, OSError):
            modes = termios.tcgetattr(self._terminal)
            if not self._in_front():
                # Headway's own terminal makes \r\n of \n; once is enough.
                modes[1] &= ~termios.OPOST
            termios.tcsetattr(slave, termios.TCSANOW, modes)
        self._resize()

    def _resize(self) -> None:
        assert self._terminal is not None
        with suppress(OSError):
            size = fcntl.ioctl(self._terminal, termios.TIOCGWINSZ, b"\0" * 8)
            fcntl.ioctl(self._master, termios.TIOCSWINSZ, size)

    def _in_front(self) -> bool:
        """Whether what is typed is for this program: standard input is a terminal, and headway in its foreground."""
        try:
            return os.isatty(0) and os.tcgetpgrp(0) == os.getpgrp()
        except OSError:
            return False

    def _go_raw(self) -> None:
        """From now on, each key goes to the program's own terminal, which makes of it what the program wants."""
        if self._raw is not None or self._master < 0 or not self._in_front():
            return
        with suppress(termios.error):
            self._raw = termios.tcgetattr(0)
            tty.setraw(0, termios.TCSADRAIN)
            modes = termios.tcgetattr(self._master)
            modes[1] |= self._raw[1] & termios.OPOST
            termios.tcsetattr(self._master, termios.TCSANOW, modes)
        if self._keys is None:
            self._keys = threading.Thread(target=self._copy_keys, daemon=True)
            self._keys.start()

    def _leave_raw(self) -> None:
        raw, self._raw = self._raw, None
        if raw is not None and self._in_front():
            with suppress(termios.error):
                termios.tcsetattr(0, termios.TCSADRAIN, raw)

    def _copy_keys(self) -> None:
        with suppress(OSError, termios.error):
            while _ready(0, self._stop):
                if not self._in_front():
                    time.sleep(_LAST_WORDS)
                    continue
                data = os.read(0, _BLOCK)
                if not data:
                    return
                suspend = self._suspend_key()
                if suspend and suspend in data:
                    data = data.replace(suspend, b"")
                    os.kill(os.getpid(), signal.SIGTSTP)
                _write(self._master, data)

    def _suspend_key(self) -> bytes:
        modes = termios.tcgetattr(self._master)
        key = modes[6][termios.VSUSP]
        return key if modes[3] & termios.ISIG and isinstance(key, bytes) and key != b"\0" else b""

    # The output.

    def _copy(self, source: int, sink: int, feed: Feed) -> None:
        left = _LEFT_AT_MOST
        try:
            while left > 0:
                # The program may have ended while what it wrote is still under way.
                if not _ready(source, self._stop) and not select.select([source], [], [], _LAST_WORDS)[0]:
                    return
                if self._ended.is_set():
                    left -= _BLOCK
                data = os.read(source, _BLOCK)
                if not data:
                    return
                _write(sink, data)
                feed(data)
        except OSError:
            # The other side of a terminal is closed; or nobody reads what headway writes, which the program learns
            # from its own next write, once the pipe is closed.
            pass
        finally:
            if source != self._master:
                os.close(source)


def _become(mask: set[signal.Signals] | set[int], terminal: int) -> None:
    if terminal >= 0:
        with suppress(OSError):
            fcntl.ioctl(terminal, termios.TIOCSCTTY, 0)
    signal.pthread_sigmask(signal.SIG_SETMASK, mask)


def _is_open(fd: int) -> bool:
    try:
        os.fstat(fd)
    except OSError:
        return False
    return True


def _ready(source: int, stop: int) -> bool:
    """Waits until there is something to read, or the program has ended and there is nothing."""
    poll = select.poll()
    poll.register(source, select.POLLIN)
    poll.register(stop, select.POLLIN)
    return any(fd == source for fd, _ in poll.poll())


def _write(sink: int, data: bytes) -> None:
    left = memoryview(data)
    while left:
        try:
            left = left[os.write(sink, left) :]
        except BlockingIOError:
            select.select([], [sink], [])

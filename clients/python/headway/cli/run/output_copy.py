"""Copies the output of a program to its standard output and error, so that headway can read it."""

from __future__ import annotations

import fcntl
import os
import select
import stat
import struct
import termios
import threading
import time
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

from headway.cli.run.output_tail import KEPT, Tail
from headway.cli.run.relay import cat, fill, let_go

_BLOCK = 64 * 1024
_PIPE_SIZE = 256 * 1024
"""Bytes. The default pipe of 64 KiB makes a fast program wait for every block."""
_FLUSH_TIMEOUT = 0.1
"""Seconds to wait for output that is still inside a terminal after the program has ended."""
_PROGRAM_EXIT_TIMEOUT = 1.0
"""Seconds to wait for the end of a program after it has closed its files."""
_KEY_TIMEOUT = 0.05
"""Seconds that a key waits for its reader."""


class Output:
    """The output to one destination, from standard output, standard error, or both."""

    def __init__(self, fd: int) -> None:
        self.fds = [fd]
        self.end: int | None = None
        """The descriptor that the program gets instead. None if it keeps its own."""
        self.tail = Tail()

    def begin(self) -> None:
        """Called once the program has its end."""

    def look(self) -> None:
        """Brings the tail up to date."""

    def resize(self) -> bool:
        """Whether it is a terminal and the size of its window has changed."""
        return False

    def finish(self, timeout: float) -> bool:
        """Waits so many seconds. Returns whether all output of the program has been passed on."""
        return True


class File(Output):
    """A regular file is not copied: the program may seek in it, or avoid reading its own output."""

    def __init__(self, fd: int) -> None:
        super().__init__(fd)
        self._file = -1
        # Without the right to read the file its progress stays unknown.
        with suppress(OSError):
            self._file = os.open(f"/proc/self/fd/{fd}", os.O_RDONLY)
        self._seen = os.fstat(fd).st_size

    def look(self) -> None:
        if self._file < 0:
            return
        with suppress(OSError):
            size = os.fstat(self._file).st_size
            # The file may have been truncated, like a rotated log.
            seen = self._seen if self._seen <= size else 0
            start = max(seen, size - KEPT)
            data = os.pread(self._file, size - start, start)
            self._seen = start + len(data)
            if data:
                self.tail.feed(data, start - seen)


class Pipe(Output):
    """A thread copies the output as it arrives."""

    def __init__(self, fd: int, ended: _Ended) -> None:
        super().__init__(fd)
        self._ended = ended
        self._sink = fd
        self._source, self.end = self._open()
        self._skipped = 0
        self._in_bulk = hasattr(os, "splice")
        self._thread = threading.Thread(target=self._copy, daemon=True)

    def _open(self) -> tuple[int, int]:
        source, end = os.pipe()
        # A user with many pipes may have reached the limit.
        with suppress(OSError):
            fcntl.fcntl(source, fcntl.F_SETPIPE_SZ, _PIPE_SIZE)
        return source, end

    def begin(self) -> None:
        if self.end is not None:
            os.close(self.end)
        self._thread.start()

    def finish(self, timeout: float) -> bool:
        self._thread.join(timeout)
        return not self._thread.is_alive()

    def _copy(self) -> None:
        try:
            if self._copy_all():
                self._let_go()
            else:
                # Child processes of the program still write, as they would without headway.
                cat(self._source, self._sink, setsid=True)
        except OSError:
            # Nobody reads the output: the program gets the error at its next write.
            pass
        finally:
            os.close(self._source)

    def _copy_all(self) -> bool:
        """False if the program has ended, but its children may still write."""
        poll = select.poll()
        poll.register(self._source, select.POLLIN)
        poll.register(self._ended.fd, select.POLLIN)
        # This only detects that nobody reads there any more, at once.
        poll.register(self._sink, 0)
        left = _PIPE_SIZE
        timeout: float | None = None
        while left > 0:
            ready = {fd for fd, _ in poll.poll(timeout)}
            if self._sink in ready:
                raise BrokenPipeError
            if self._ended.fd in ready:
                poll.unregister(self._ended.fd)
                timeout = _FLUSH_TIMEOUT * 1000
            elif not ready:
                return False
            if self._source in ready:
                size = self._pass_on()
                if size == 0:
                    return True
                if timeout is not None:
                    left -= size
        return False

    def _pass_on(self) -> int:
        """Copies some of the available output. Returns the number of bytes, 0 at the end."""
        if self._in_bulk and (size := _waiting(self._source) - _BLOCK) > 0:
            # Nobody can read progress at such a speed. Only the latest output is read.
            try:
                size = os.splice(self._source, self._sink, size)
            except BlockingIOError:
                _wait_for(self._sink)
            except OSError as error:
                if isinstance(error, BrokenPipeError):
                    raise
                self._in_bulk = False
            else:
                self._skipped += size
                return size
        data = self._read()
        if data:
            _write(self._sink, data)
            self.tail.feed(data, self._skipped)
            self._skipped = 0
        return len(data)

    def _read(self) -> bytes:
        return os.read(self._source, _BLOCK)

    def _let_go(self) -> None:
        """Closes the copy, so that its reader sees the end."""
        if 2 in self.fds and self._ended.wait(_PROGRAM_EXIT_TIMEOUT):
            # headway itself may need to write there.
            self.fds.remove(2)
        let_go(*self.fds)


class Terminal(Pipe):
    """A terminal for the program to write to, as large as headway's own, and with its modes.

    All else that makes a terminal stays with headway's own: keys, echo, signals, job control, and what becomes of a
    newline.
    """

    def __init__(self, fd: int, ended: _Ended) -> None:
        super().__init__(fd, ended)
        self._in_bulk = False
        self._size = b""
        self._modes: list[object] = []
        self._takes_keys = False
        self._keys: threading.Thread | None = None
        with suppress(OSError, termios.error):
            modes = termios.tcgetattr(fd)
            modes[1] &= ~termios.OPOST
            termios.tcsetattr(self._source, termios.TCSANOW, modes)
            self._modes = termios.tcgetattr(self._source)
        self.resize()

    def _open(self) -> tuple[int, int]:
        return os.openpty()

    def resize(self) -> bool:
        with suppress(OSError):
            size = fcntl.ioctl(self._sink, termios.TIOCGWINSZ, b"\0" * 8)
            if size != self._size:
                fcntl.ioctl(self._source, termios.TIOCSWINSZ, size)
                self._size = size
                return True
        return False

    def _let_go(self) -> None:
        """Nothing waits for the end of a terminal."""

    def _read(self) -> bytes:
        try:
            data = super()._read()
        except OSError:
            # A terminal ends like this when nobody has it open any more.
            data = b""
        self._follow()
        return data

    def _follow(self) -> None:
        """Some programs set the modes of their terminal where they write, before they draw on it."""
        with suppress(OSError, termios.error):
            modes = termios.tcgetattr(self._source)
            if modes != self._modes and in_front():
                own = termios.tcgetattr(self._sink)
                self._modes = list(modes)
                modes[1] |= own[1] & termios.OPOST
                termios.tcsetattr(self._sink, termios.TCSANOW, modes)
                self._takes_keys = not modes[3] & termios.ICANON
                if self._takes_keys and not (self._keys and self._keys.is_alive()):
                    self._keys = threading.Thread(target=self._hand_on_keys, daemon=True)
                    self._keys.start()

    def _hand_on_keys(self) -> None:
        """Some read keys where they write, as `less` does; others set the modes there, but read their input. So keys
        are handed on if nobody has taken them after a moment."""
        poll = select.poll()
        poll.register(self._ended.fd, select.POLLIN)
        with suppress(OSError):
            keys = os.open(f"/proc/self/fd/{self._sink}", os.O_RDONLY | os.O_NONBLOCK | os.O_NOCTTY)
            poll.register(keys, select.POLLIN)
            while self._takes_keys and self._ended.fd not in [fd for fd, _ in poll.poll()]:
                time.sleep(_KEY_TIMEOUT)
                with suppress(BlockingIOError):
                    if in_front():
                        os.write(self._source, os.read(keys, _BLOCK))
            os.close(keys)


class _Ended:
    """Tells the threads that the program has ended."""

    def __init__(self) -> None:
        self.fd, self._other = os.pipe()
        self._event = threading.Event()

    def set(self) -> None:
        self._event.set()
        os.close(self._other)

    def wait(self, timeout: float) -> bool:
        return self._event.wait(timeout)


class Outputs:
    """The outputs for standard output and error, if they are open. It is one output if both lead to one destination,
    which keeps the order."""

    def __init__(self) -> None:
        closed = fill()
        self._ended = _Ended()
        self._of: dict[int, Output] = {}
        places: dict[tuple[int, int], Output] = {}
        for fd in sorted({1, 2} - closed):
            state = os.fstat(fd)
            place = state.st_dev, state.st_ino
            if place in places:
                places[place].fds.append(fd)
            else:
                places[place] = _take_up(fd, state, self._ended)
            self._of[fd] = places[place]
        self._all = list(places.values())

    def end(self, fd: int) -> int | None:
        """The descriptor that the program gets instead of that one. None if it keeps the descriptor of headway."""
        return self._of[fd].end if fd in self._of else None

    def begin(self) -> None:
        """Call this once the program has its ends."""
        for output in self._all:
            output.begin()

    def look(self) -> list[Tail]:
        """The tails of all, up to date."""
        for output in self._all:
            output.look()
        return [output.tail for output in self._all]

    def last_lines(self, lines: int, characters: int) -> str:
        """The last lines of standard error, or of standard output if that is not open."""
        output = self._of.get(2) or self._of.get(1)
        return output.tail.words(lines, characters) if output else ""

    def resize(self) -> bool:
        """Whether there is a terminal among them whose window has changed its size."""
        return True in [output.resize() for output in self._all]

    def finish(self, interrupted: Callable[[], bool]) -> None:
        """Call this once the program has ended. Waits until all its output is passed on, or until `interrupted`."""
        self._ended.set()
        for output in self._all:
            while not output.finish(_FLUSH_TIMEOUT) and not interrupted():
                pass


def _take_up(fd: int, state: os.stat_result, ended: _Ended) -> Output:
    # If no terminal or pipe can be created, the program writes directly.
    with suppress(OSError):
        if stat.S_ISREG(state.st_mode):
            return File(fd)
        if os.isatty(fd):
            return Terminal(fd, ended)
        flows = stat.S_ISFIFO(state.st_mode) or stat.S_ISSOCK(state.st_mode)
        if flows or os.path.samestat(state, Path(os.devnull).stat()):
            return Pipe(fd, ended)
    # A disk or a tape: the writer and the size of each write matter there.
    return Output(fd)


def in_front() -> bool:
    """Whether headway is in the foreground of its terminal."""
    try:
        terminal = os.open("/dev/tty", os.O_RDWR)
    except OSError:
        return False
    try:
        return os.tcgetpgrp(terminal) == os.getpgrp()
    except OSError:
        return False
    finally:
        os.close(terminal)


def _waiting(source: int) -> int:
    """Bytes that could be read at once."""
    (size,) = struct.unpack("i", fcntl.ioctl(source, termios.FIONREAD, b"\0" * 4))
    return int(size)


def _wait_for(sink: int) -> None:
    poll = select.poll()
    poll.register(sink, select.POLLOUT)
    poll.poll()


def _write(sink: int, data: bytes) -> None:
    left = memoryview(data)
    while left:
        try:
            left = left[os.write(sink, left) :]
        except BlockingIOError:
            _wait_for(sink)

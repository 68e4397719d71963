"""`headway pipe`: a meter in a pipeline."""

from __future__ import annotations

import os
import select
import signal
import stat
import threading
import time
from argparse import Namespace
from types import FrameType

from headway.cli.escaping import warn
from headway.cli.exit_codes import ERROR, OK, SIGNAL_BASE
from headway.cli.run.relay import Death, fill, let_go
from headway.cli.run.tracker import End, Tracker, job_id

_BLOCK = 1024 * 1024
_NEWLINE = ord("\n")
_ENDING = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP, signal.SIGQUIT)


class _Broken(BaseException):
    """Why the copying ended early, and the signal that ends headway because of it; 0 = the copying has failed."""

    def __init__(self, text: str, number: int = 0) -> None:
        super().__init__(text)
        self.text = text
        self.number = number


def pipe(args: Namespace) -> int:
    """Copies standard input to standard output and counts bytes, or lines.

    Gives the exit status of `cat`: 0 at the end of the input, 1 if it cannot be read or the output not be written, and
    128+n after signal n, by which the process will end too: SIGPIPE if nobody reads the output. If somebody wants the
    job to end early, it ends as by SIGTERM.
    """
    death = Death()
    closed = fill()
    unit = "lines" if args.lines else "bytes"
    if not args.lines and not args.size:
        args.size = _left(0)
    tracker = Tracker(args, job_id(), f"headway pipe ({unit})", unit, lambda: os.kill(os.getpid(), signal.SIGTERM))
    if args.verbose:
        warn(f"job {tracker.id}")
    meter = _Meter(tracker, unit)
    started = time.monotonic()
    status, ending = OK, None
    handlers = {number: signal.signal(number, _stop) for number in _ENDING if _is_heeded(number)}
    try:
        try:
            tracker.start()
            if closed & {0, 1}:
                raise _Broken(f"standard {'input' if 0 in closed else 'output'} is closed")
            meter.copy()
        finally:
            for number in handlers:
                # From here on headway only waits for the tracker, and not for long.
                signal.signal(number, lambda *_: meter.hurry.set())
    except _Broken as broken:
        death.signal = broken.number
        status = SIGNAL_BASE + broken.number if broken.number else ERROR
        asked = tracker.kill_in is not None
        text = f"cancelled {tracker.reason}".strip() if asked else broken.text
        ending = End(message=text, cancelled=asked or broken.number == signal.SIGINT)
        if status == ERROR:
            warn(broken.text)
    if ending is None:
        ending = End(results={unit: meter.done, "seconds": round(time.monotonic() - started, 3)})
    let_go(0, 1)
    tracker.end(ending, meter.hurry.wait)
    for number, handler in handlers.items():
        signal.signal(number, handler)
    return status


class _Meter:
    """Counts what it copies."""

    def __init__(self, tracker: Tracker, unit: str) -> None:
        self.done = 0
        self.hurry = threading.Event()
        self._tracker = tracker
        self._unit = unit

    def copy(self) -> None:
        lines = self._unit == "lines"
        if not lines and self._splice():
            return
        # One buffer for all blocks: a new one for each block would cost more than the copying.
        store = bytearray(_BLOCK)
        last = _NEWLINE
        while size := _read(store):
            self._write(memoryview(store)[:size], 0 if lines else 1)
            last = store[size - 1]
            if lines:
                self._add(store.count(_NEWLINE, 0, size))
        if lines and last != _NEWLINE:
            self._add(1)

    def _splice(self) -> bool:
        """Lets the kernel move the bytes, which works if one side is a pipe. Returns whether that was all."""
        try:
            while size := os.splice(0, 1, _BLOCK):
                self._add(size)
        except OSError:
            # Copying continues from here, and gets the error again if it is one.
            return False
        return True

    def _write(self, left: memoryview, each: int) -> None:
        while left:
            try:
                written = os.write(1, left)
            except BlockingIOError:
                select.select([], [1], [])
                continue
            except BrokenPipeError:
                raise _Broken("the reader of the output closed it", signal.SIGPIPE) from None
            except OSError as error:
                raise _Broken(f"cannot write the output: {error.strerror}") from None
            left = left[written:]
            self._add(written * each)

    def _add(self, n: int) -> None:
        self.done += n
        self._tracker.show(self.done, unit=self._unit)


def _read(store: bytearray) -> int:
    while True:
        try:
            return os.readv(0, [store])
        except BlockingIOError:
            select.select([0], [], [])
        except OSError as error:
            raise _Broken(f"cannot read the input: {error.strerror}") from None


def _stop(number: int, _: FrameType | None) -> None:
    raise _Broken(f"killed by {signal.Signals(number).name}", number)


def _is_heeded(number: signal.Signals) -> bool:
    return signal.getsignal(number) is not signal.SIG_IGN


def _left(fd: int) -> int:
    """The bytes left in a regular file; 0 if that is not known."""
    try:
        state = os.fstat(fd)
        return max(state.st_size - os.lseek(fd, 0, os.SEEK_CUR), 0) if stat.S_ISREG(state.st_mode) else 0
    except OSError:
        return 0

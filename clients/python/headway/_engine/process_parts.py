"""Processes that share a job: which part of it each of them reports.

A part has one writer at a time, and a job has at most 256. So the processes that descend from one, or were handed a job
by it, number themselves: each takes the lowest number that is free, and leaves it to a later process once all it had to
say is delivered. What is left in the spool must come before whatever a later process says, so such a number is not used
again, nor that of a process that was killed.
"""

import os
import tempfile
from contextlib import suppress

try:
    import fcntl
except ImportError:
    # Nor is there a fork.
    _CAN_LOCK = False
else:
    _CAN_LOCK = True

_MAGIC_BYTES = 16
_NUMBERS = 4096
_USED = b"\1"

_file: int | None = None
"""Shared with the other processes: a random mark, then a byte for each number, which its owner keeps locked."""
_magic = b""
_number: int | None = None


def found() -> None:
    """Makes what the children of this process will share, before the first is there."""
    global _file, _magic
    if _file is None and _CAN_LOCK:
        with suppress(OSError):
            if hasattr(os, "memfd_create"):
                _file = os.memfd_create("headway")
            else:
                with tempfile.TemporaryFile() as file:
                    _file = os.dup(file.fileno())
            _magic = os.urandom(_MAGIC_BYTES)
            os.pwrite(_file, _magic, 0)


def address() -> tuple[str, bytes]:
    """Where a process that was not forked from this one finds that."""
    found()
    return (f"/proc/{os.getpid()}/fd/{_file}" if _file is not None else "", _magic)


def join(path: str, magic: bytes) -> None:
    """Becomes one of the processes that share this."""
    global _file, _magic
    if _file is None and path and _CAN_LOCK:
        with suppress(OSError):
            file = os.open(path, os.O_RDWR | os.O_CLOEXEC)
            # On another machine that may be any file.
            if os.pread(file, _MAGIC_BYTES, 0) == magic:
                _file, _magic = file, magic
            else:
                os.close(file)


def part() -> str:
    """What distinguishes the parts that this process reports."""
    global _number
    if _number is None:
        _number = _claim()
    return str(_number) if _number is not None else os.urandom(4).hex()


def _claim() -> int | None:
    if _file is None:
        return None
    try:
        # Whoever closes all files of its process may have opened another one here.
        if os.pread(_file, _MAGIC_BYTES, 0) != _magic:
            return None
        for number in range(1, _NUMBERS):
            position = _MAGIC_BYTES + number
            try:
                fcntl.lockf(_file, fcntl.LOCK_EX | fcntl.LOCK_NB, 1, position)
            except BlockingIOError:
                continue
            if os.pread(_file, 1, position) != _USED:
                os.pwrite(_file, _USED, position)
                return number
            fcntl.lockf(_file, fcntl.LOCK_UN, 1, position)
    except OSError:
        pass
    return None


def leave() -> None:
    """All is delivered: a later process may have this one's number. Its lock goes with this process."""
    if _file is not None and _number is not None:
        with suppress(OSError):
            os.pwrite(_file, b"\0", _MAGIC_BYTES + _number)


def after_fork_in_child() -> None:
    global _number
    _number = None

"""Processes that share a job, and the part that each of them reports.

A part has one writer at a time, and a job has at most 256. So the processes that descend from one process, or got a job
from it, number themselves. Each takes the lowest free number and frees it when all its reports are delivered. Reports
in the spool must come before those of a later process, so such a number is not used again. The number of a killed
process is not used again either.
"""

import os
import tempfile
from contextlib import suppress

try:
    import fcntl
except ImportError:
    # Such a system has no fork either.
    _CAN_LOCK = False
else:
    _CAN_LOCK = True

_MAGIC_BYTES = 16
_NUMBERS = 4096
_USED = b"\1"

_file: int | None = None
"""A file that the processes share: a random mark, then a byte for each number. The owner of a number keeps its byte
locked."""
_magic = b""
_number: int | None = None


def found() -> None:
    """Creates the file that the children of this process share, before the first child starts."""
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
    """The path and the mark of that file, for a process that was not forked from this one."""
    found()
    return (f"/proc/{os.getpid()}/fd/{_file}" if _file is not None else "", _magic)


def join(path: str, magic: bytes) -> None:
    """Joins the processes that share this file."""
    global _file, _magic
    if _file is None and path and _CAN_LOCK:
        with suppress(OSError):
            file = os.open(path, os.O_RDWR | os.O_CLOEXEC)
            # On another machine this path may be any file.
            if os.pread(file, _MAGIC_BYTES, 0) == magic:
                _file, _magic = file, magic
            else:
                os.close(file)


def part() -> str:
    """The name that distinguishes the parts of this process."""
    global _number
    if _number is None:
        _number = _claim()
    return str(_number) if _number is not None else os.urandom(4).hex()


def _claim() -> int | None:
    if _file is None:
        return None
    try:
        # A program that closes all its files may have opened another file under this number.
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
    """Frees the number for a later process, because all is delivered. The lock ends with this process."""
    if _file is not None and _number is not None:
        with suppress(OSError):
            os.pwrite(_file, b"\0", _MAGIC_BYTES + _number)


def after_fork_in_child() -> None:
    global _number
    _number = None

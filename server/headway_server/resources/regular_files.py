"""Opens files that an operator names, if they are regular files. It never opens devices, pipes or folders."""

import os
import stat
from pathlib import Path


def read(path: Path, most: int) -> bytes:
    """The content of a file of at most `most` bytes. Raises OSError, or ValueError that says what is wrong."""
    descriptor = _open(path, os.O_RDONLY)
    with os.fdopen(descriptor, "rb") as file:
        data = file.read(most + 1)
    if len(data) > most:
        raise ValueError(f"is larger than {most:,} bytes")
    return data


def read_text(path: Path, most: int) -> str:
    """As `read`, for a file in UTF-8."""
    try:
        return read(path, most).decode()
    except UnicodeDecodeError:
        raise ValueError("is not a text in UTF-8") from None


def open_own(path: Path) -> int:
    """A descriptor to read and write a file of this user. Only this user can access a new file. Follows no link.

    Raises OSError, or ValueError that says what is wrong with the file.
    """
    descriptor = _open(path, os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW)
    try:
        _check_own(os.fstat(descriptor))
    except ValueError:
        os.close(descriptor)
        raise
    return descriptor


def check_own(path: Path) -> None:
    """Check that the file, if it exists, is a regular file of this user. Raises as `open_own`."""
    try:
        about = path.lstat()
    except FileNotFoundError:
        return
    _check_regular(about)
    _check_own(about)


def _open(path: Path, flags: int) -> int:
    try:
        # Check before opening: just opening some devices has an effect.
        _check_regular(path.lstat() if flags & os.O_NOFOLLOW else path.stat())
    except FileNotFoundError:
        if not flags & os.O_CREAT:
            raise
    # Do not wait if the file has become a pipe meanwhile.
    descriptor = os.open(path, flags | os.O_NONBLOCK | os.O_CLOEXEC, 0o600)
    try:
        _check_regular(os.fstat(descriptor))
    except ValueError:
        os.close(descriptor)
        raise
    return descriptor


def _check_own(about: os.stat_result) -> None:
    if about.st_uid != os.geteuid():
        raise ValueError("belongs to another user")


def _check_regular(about: os.stat_result) -> None:
    if stat.S_ISDIR(about.st_mode):
        raise ValueError("is a folder; name a file")
    if not stat.S_ISREG(about.st_mode):
        raise ValueError("is not a regular file")

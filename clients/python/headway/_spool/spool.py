"""Undelivered calls and reports on disk: one file for each job of each process.

The folder is HEADWAY_SPOOL, else headway/spool in the user's state folder ($XDG_STATE_HOME or ~/.local/state); an empty
HEADWAY_SPOOL turns the spool off. A file holds session ids, which are secrets: only its user can read it (0600, in a
folder of 0700). It is neither encrypted nor safe from root. There are at most 100 files, of at most 8 MiB each.

The process that holds the lock of a file owns the file. The system releases the locks of a process that has died, so
another process can always take the file.
"""

import base64
import json
import os
import zlib
from collections.abc import Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Self, TypeAlias
from weakref import WeakSet

from google.protobuf.message import DecodeError

from headway._engine import calls
from headway.ids import uuid7
from headway.target import Target
from headway.v1 import job_service_pb2 as rpc

try:
    import fcntl
except ImportError:
    _CAN_LOCK = False
else:
    _CAN_LOCK = True

FILES = 100
BYTES = 8 * 1024 * 1024

Request: TypeAlias = calls.Request | rpc.ReportProgressRequest

_VERSION = 1
_KINDS: dict[str, type[Request]] = {
    kind.DESCRIPTOR.name: kind
    for kind in (
        rpc.CreateJobRequest,
        rpc.StartJobRequest,
        rpc.UpdateJobRequest,
        rpc.ReportProgressRequest,
        rpc.FinishJobRequest,
        rpc.FailJobRequest,
    )
}


@dataclass(frozen=True, slots=True)
class SpoolRecord:
    """The undelivered requests of one job, in order, and their server. Reports keep their sequences, so that a report
    that did arrive is not counted twice."""

    address: str
    tls: bool
    job_id: str
    name: str
    requests: Sequence[Request]

    def encode(self) -> bytes:
        """As JSON of at most 8 MiB. Record errors that do not fit are left out, the last ones first."""
        requests = [(request.DESCRIPTOR.name, request.SerializeToString()) for request in self.requests]
        size = sum(_length(data) for _, data in requests)
        for position in range(len(requests) - 1, -1, -1):
            request = self.requests[position]
            if size > BYTES - 4096 and isinstance(request, rpc.ReportProgressRequest):
                short = rpc.ReportProgressRequest()
                short.CopyFrom(request)
                short.ClearField("record_errors")
                data = short.SerializeToString()
                size -= _length(requests[position][1]) - _length(data)
                requests[position] = ("ReportProgressRequest", data)
        content = {
            "version": _VERSION,
            "target": self.address,
            "tls": self.tls,
            "job": self.job_id,
            "name": self.name,
            "requests": [(kind, base64.b64encode(data).decode()) for kind, data in requests],
        }
        return json.dumps(content).encode()

    @classmethod
    def decode(cls, data: bytes) -> Self:
        """ValueError if the data is not from `encode`, or not of this version."""
        try:
            content = json.loads(data)
            if content["version"] != _VERSION:
                raise ValueError(f"its version is {content['version']}")
            requests = [_KINDS[kind].FromString(base64.b64decode(text)) for kind, text in content["requests"]]
            return cls(
                str(content["target"]),
                bool(content["tls"]),
                str(content["job"]),
                str(content["name"]),
                requests,
            )
        except (KeyError, TypeError, DecodeError) as error:
            raise ValueError(f"it is damaged: {type(error).__name__}") from None


class SpoolFile:
    """A spool file that this process has locked, until `remove`, `refuse` or `release`."""

    def __init__(self, path: Path, locked: int) -> None:
        self.path = path
        self._locked: int | None = locked
        _in_hand.add(self)

    @classmethod
    def write(cls, path: Path, record: SpoolRecord) -> Self:
        """Writes the file completely, or not at all. OSError."""
        draft = path.with_suffix(f".{os.getpid()}.tmp")
        draft.unlink(missing_ok=True)
        locked = os.open(draft, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
        try:
            # The file is locked before it gets its name, so that no other process finds it unlocked.
            fcntl.flock(locked, fcntl.LOCK_EX | fcntl.LOCK_NB)
            with open(locked, "wb", closefd=False) as file:
                file.write(record.encode())
                file.flush()
                os.fsync(locked)
            draft.rename(path)
        except BaseException:
            os.close(locked)
            draft.unlink(missing_ok=True)
            raise
        _sync(path.parent)
        return cls(path, locked)

    @classmethod
    def claim(cls, path: Path) -> Self | None:
        """Locks the file. None if another process has locked it or has sent it meanwhile, or if it belongs to another
        user."""
        try:
            locked = os.open(path, os.O_RDWR | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
        except OSError:
            return None
        try:
            fcntl.flock(locked, fcntl.LOCK_EX | fcntl.LOCK_NB)
            # It may have been removed or replaced between the two calls.
            about = os.fstat(locked)
            if path.stat().st_ino == about.st_ino and about.st_uid == os.geteuid():
                return cls(path, locked)
        except OSError:
            pass
        os.close(locked)
        return None

    def read(self) -> SpoolRecord:
        """ValueError if the file is damaged, or from another version of this library; OSError."""
        return SpoolRecord.decode(self.path.read_bytes())

    def remove(self) -> None:
        """Removes the file, because all of it has arrived."""
        with suppress(OSError):
            self.path.unlink(missing_ok=True)
        self.release()

    def refuse(self) -> Path:
        """Renames the file, because the server will never take it. People can look at it there. Returns the new
        path."""
        refused = self.path.with_suffix(".refused")
        with suppress(OSError):
            self.path.rename(refused)
            for old in sorted(self.path.parent.glob("*.refused"))[:-FILES]:
                old.unlink(missing_ok=True)
        self.release()
        return refused

    def release(self) -> None:
        """Unlocks the file for another process."""
        locked, self._locked = self._locked, None
        if locked is not None:
            os.close(locked)


_in_hand: WeakSet[SpoolFile] = WeakSet()


def _after_fork_in_child() -> None:
    # The lock belongs to the parent. A child that keeps the file open would hold the lock longer than the parent lives.
    for spool_file in list(_in_hand):
        spool_file.release()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_after_fork_in_child)


def folder() -> Path | None:
    """The folder of the files, whether it exists or not. None if the spool is off, or if this system cannot lock
    files."""
    if not _CAN_LOCK:
        return None
    path = os.environ.get("HEADWAY_SPOOL")
    if path is not None:
        return Path(path) if path else None
    state = os.environ.get("XDG_STATE_HOME") or "~/.local/state"
    try:
        return Path(state, "headway", "spool").expanduser()
    except RuntimeError:
        return None


def spool_files(target: Target | None = None, job_id: str = "") -> Iterator[Path]:
    """The paths of the files for this server, or for any server, oldest first; only those of `job_id` if it is given.
    `claim` checks their owner."""
    place = folder()
    if place is not None:
        server = _mark(target.address, target.tls) if target else "*"
        pattern = f"{server}-*-{_plain(job_id) if job_id else '*'}.json"
        yield from sorted(place.glob(pattern), key=lambda path: path.name.partition("-")[2])


def claims(target: Target | None = None, job_id: str = "") -> Iterator[tuple[Path, SpoolFile | None]]:
    """The same files, each locked when it is reached. None stands for a file that another process has locked, and for
    later files of the same job, which must wait for it."""
    held = set[str]()
    for path in spool_files(target, job_id):
        spool_file = None if job_in(path) in held else SpoolFile.claim(path)
        if spool_file is None:
            held.add(job_in(path))
        yield path, spool_file


def ready() -> Path:
    """The folder, which is created if it does not exist. OSError, also if the spool is off, or if others can use the
    folder."""
    place = folder()
    if place is None:
        raise OSError("HEADWAY_SPOOL is empty" if _CAN_LOCK else "this system cannot lock files")
    place.mkdir(mode=0o700, parents=True, exist_ok=True)
    about = place.stat()
    if about.st_uid != os.geteuid():
        raise PermissionError(f"{place} belongs to another user")
    if about.st_mode & 0o077:
        # The folder existed before and may hold other files, so its mode is not changed.
        raise PermissionError(f"other users can open {place}: chmod 700 it, or set HEADWAY_SPOOL to another folder")
    return place


def job_in(path: Path) -> str:
    """The job id in the name of a spool file."""
    return path.stem.rpartition("-")[2]


def write(record: SpoolRecord, before: SpoolFile | None = None) -> SpoolFile:
    """Writes the record to a new file, or replaces the file `before`. OSError, also if the spool is full or off, or if
    others can use its folder."""
    if before is not None:
        spool_file = SpoolFile.write(before.path, record)
        before.release()
        return spool_file
    place = ready()
    if sum(1 for _ in place.glob("*.json")) >= FILES:
        raise OSError(f"{place} already has {FILES} files: run `headway flush`")
    return SpoolFile.write(
        place / f"{_mark(record.address, record.tls)}-{uuid7()}-{_plain(record.job_id)}.json", record
    )


def _mark(address: str, tls: bool) -> str:
    # This is in the file name, so that listing the folder shows the files of a server.
    return f"{zlib.crc32(f'{address} {tls}'.encode()):08x}"


def _plain(job_id: str) -> str:
    # The worker chooses the id, and only the server checks it.
    return job_id if job_id.isalnum() and len(job_id) <= 64 else "odd"


def _length(data: bytes) -> int:
    return (len(data) + 2) // 3 * 4 + 32


def _sync(place: Path) -> None:
    handle = os.open(place, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)

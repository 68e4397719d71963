"""What could not be delivered, on disk until it is: one file for each job of each process.

The folder is HEADWAY_SPOOL, else headway/spool in the user's state folder ($XDG_STATE_HOME or ~/.local/state); an empty
HEADWAY_SPOOL turns it off. A file holds session ids, which are secrets: it is readable by its user alone (0600, in a
folder of 0700), and neither encrypted nor safe from root. There are at most 100 files, of at most 8 MiB each.

A file is in the hands of the process that has it locked. The system lets go of the lock of a process that has died, so
whatever happened to it, another one takes the file up.
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
    """What one job has left to say, in order, and to whom. Reports have the sequences that they had, so that what did
    arrive is not counted twice."""

    address: str
    tls: bool
    job_id: str
    name: str
    requests: Sequence[Request]

    def encode(self) -> bytes:
        """As JSON of at most 8 MiB. What has no room are record errors, the last ones first."""
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
        """ValueError if this is not what `encode` makes, or not of this version."""
        try:
            content = json.loads(data)
            if content["version"] != _VERSION:
                raise ValueError(f"it is of version {content['version']}")
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
    """A file of the spool in the hands of this process, until `remove`, `refuse` or `release`."""

    def __init__(self, path: Path, locked: int) -> None:
        self.path = path
        self._locked: int | None = locked
        _in_hand.add(self)

    @classmethod
    def write(cls, path: Path, record: SpoolRecord) -> Self:
        """Puts the file there as a whole, or not at all. OSError."""
        draft = path.with_suffix(f".{os.getpid()}.tmp")
        draft.unlink(missing_ok=True)
        locked = os.open(draft, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
        try:
            # Locked before it has its name, so that no other process ever finds it free.
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
        """Takes the file in hand; None if another has it, or has sent it meanwhile, or if it is
        another user's."""
        try:
            locked = os.open(path, os.O_RDWR | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
        except OSError:
            return None
        try:
            fcntl.flock(locked, fcntl.LOCK_EX | fcntl.LOCK_NB)
            # It may have been removed, or written anew, between the two.
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
        """All of it has arrived."""
        with suppress(OSError):
            self.path.unlink(missing_ok=True)
        self.release()

    def refuse(self) -> Path:
        """The server will never take it: it stays beside, for people to look at. Where it is now."""
        refused = self.path.with_suffix(".refused")
        with suppress(OSError):
            self.path.rename(refused)
            for old in sorted(self.path.parent.glob("*.refused"))[:-FILES]:
                old.unlink(missing_ok=True)
        self.release()
        return refused

    def release(self) -> None:
        """Leaves the file to whoever takes it up next."""
        locked, self._locked = self._locked, None
        if locked is not None:
            os.close(locked)


_in_hand: WeakSet[SpoolFile] = WeakSet()


def _after_fork_in_child() -> None:
    # The lock is the parent's; a child that kept it open would hold it longer than the parent lives.
    for spool_file in list(_in_hand):
        spool_file.release()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_after_fork_in_child)


def folder() -> Path | None:
    """Where the files are, whether it exists or not; None if there shall be none, or if files cannot be locked here."""
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
    """The files that wait for this server, or for any, oldest first; of that job alone, if one is given. Whose they are
    is only seen by `claim`."""
    place = folder()
    if place is not None:
        server = _mark(target.address, target.tls) if target else "*"
        pattern = f"{server}-*-{_plain(job_id) if job_id else '*'}.json"
        yield from sorted(place.glob(pattern), key=lambda path: path.name.partition("-")[2])


def claims(target: Target | None = None, job_id: str = "") -> Iterator[tuple[Path, SpoolFile | None]]:
    """The same files, each taken in hand as its turn comes; None for one that another process has, and for those of
    the same job that come after it, which must wait for it."""
    held = set[str]()
    for path in spool_files(target, job_id):
        spool_file = None if job_in(path) in held else SpoolFile.claim(path)
        if spool_file is None:
            held.add(job_in(path))
        yield path, spool_file


def ready() -> Path:
    """The folder, made if it does not exist. OSError, also if it is switched off, or if it is not the user's alone."""
    place = folder()
    if place is None:
        raise OSError("HEADWAY_SPOOL is empty" if _CAN_LOCK else "this system cannot lock files")
    place.mkdir(mode=0o700, parents=True, exist_ok=True)
    about = place.stat()
    if about.st_uid != os.geteuid():
        raise PermissionError(f"{place} belongs to another user")
    if about.st_mode & 0o077:
        # It was there before, perhaps with other things in it: its mode is not ours to change.
        raise PermissionError(f"{place} is open to others: chmod 700 it, or name another folder in HEADWAY_SPOOL")
    return place


def job_in(path: Path) -> str:
    """Whose letter it is, as its name says."""
    return path.stem.rpartition("-")[2]


def write(record: SpoolRecord, before: SpoolFile | None = None) -> SpoolFile:
    """Writes these words down, in place of those `before` if there were some. OSError, also if the spool is full or
    switched off, or if its folder is not the user's alone."""
    if before is not None:
        spool_file = SpoolFile.write(before.path, record)
        before.release()
        return spool_file
    place = ready()
    if sum(1 for _ in place.glob("*.json")) >= FILES:
        raise OSError(f"{place} has {FILES} files already")
    return SpoolFile.write(
        place / f"{_mark(record.address, record.tls)}-{uuid7()}-{_plain(record.job_id)}.json", record
    )


def _mark(address: str, tls: bool) -> str:
    # In the name, so that a look at the folder tells whether there is something for a server.
    return f"{zlib.crc32(f'{address} {tls}'.encode()):08x}"


def _plain(job_id: str) -> str:
    # The worker chooses it, and only the server says whether it is one.
    return job_id if job_id.isalnum() and len(job_id) <= 64 else "odd"


def _length(data: bytes) -> int:
    return (len(data) + 2) // 3 * 4 + 32


def _sync(place: Path) -> None:
    handle = os.open(place, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)

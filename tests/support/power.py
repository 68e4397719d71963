"""Power cuts, simulated: what SQLite writes and syncs is recorded, and files are made as a cut would have left them.

What a file was synced with is on the disk. What was written since may be there, or not, or in part: a disk writes
sectors of 512 bytes whole, in any order.
"""

import random
import threading
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import apsw

SECTOR = 512


@dataclass(frozen=True, slots=True)
class Event:
    """Something that a file was told: `write` (at `offset`), `truncate` (to `offset`), `sync` or `delete`."""

    kind: str
    file: str
    offset: int = 0
    data: bytes = b""


class Recorder(apsw.VFS):
    """SQLite's way to its files: the usual one, with a list of what passes. Use it as `vfs=name`."""

    def __init__(self, name: str) -> None:
        self.events: list[Event] = []
        self._lock = threading.Lock()
        super().__init__(name, "")

    def record(self, event: Event) -> None:
        with self._lock:
            self.events.append(event)

    def xOpen(self, name: "str | apsw.URIFilename | None", flags: list[int]) -> apsw.VFSFile:
        return _File(self, name, flags)

    def xDelete(self, filename: str, syncdir: bool) -> None:
        super().xDelete(filename, syncdir)
        self.record(Event("delete", Path(filename).name))


class _File(apsw.VFSFile):
    def __init__(self, recorder: Recorder, name: "str | apsw.URIFilename | None", flags: list[int]) -> None:
        self._recorder = recorder
        text = name.filename() if isinstance(name, apsw.URIFilename) else name or ""
        self._name = Path(text).name
        super().__init__("", name, flags)

    def xWrite(self, data: bytes, offset: int) -> None:
        super().xWrite(data, offset)
        self._recorder.record(Event("write", self._name, offset, bytes(data)))

    def xTruncate(self, newsize: int) -> None:
        super().xTruncate(newsize)
        self._recorder.record(Event("truncate", self._name, newsize))

    def xSync(self, flags: int) -> None:
        super().xSync(flags)
        self._recorder.record(Event("sync", self._name))


@dataclass(slots=True)
class _Disk:
    """One file: what is safe, and what was written since."""

    safe: bytearray | None = None
    pending: list[Event] = field(default_factory=list)

    def sync(self) -> None:
        content = self.safe if self.safe is not None else bytearray()
        for event in self.pending:
            _apply(content, event)
        self.safe, self.pending = content, []

    def after_cut(self, chance: random.Random) -> bytes | None:
        """The file as a cut may leave it, or None if it is not there at all."""
        if self.safe is None and chance.random() < 0.5:
            return None
        content = bytearray(self.safe or b"")
        for event in self.pending:
            fate = chance.random()
            if fate < 0.3:
                _apply(content, event)
            elif fate < 0.6 and event.kind == "write":
                for piece in _sectors(event):
                    if chance.random() < 0.5:
                        _apply(content, piece)
        return bytes(content)


def _apply(content: bytearray, event: Event) -> None:
    if event.kind == "truncate":
        del content[event.offset :]
        return
    if len(content) < event.offset:
        content.extend(bytes(event.offset - len(content)))
    content[event.offset : event.offset + len(event.data)] = event.data


def _sectors(event: Event) -> Iterator[Event]:
    start, end = event.offset, event.offset + len(event.data)
    while start < end:
        stop = min(end, (start // SECTOR + 1) * SECTOR)
        yield Event("write", event.file, start, event.data[start - event.offset : stop - event.offset])
        start = stop


def cut(
    events: Sequence[Event], moments: Sequence[int], chance: random.Random
) -> Iterator[tuple[int, dict[str, bytes]]]:
    """For each moment (events that have happened by then), in order: the files as a cut just then may leave them."""
    disks: dict[str, _Disk] = {}
    done = 0
    for moment in sorted(moments):
        for event in events[done:moment]:
            disk = disks.setdefault(event.file, _Disk())
            if event.kind == "sync":
                disk.sync()
            elif event.kind == "delete":
                disks[event.file] = _Disk()
            else:
                disk.pending.append(event)
        done = moment
        files = {name: disk.after_cut(chance) for name, disk in disks.items() if disk.safe is not None or disk.pending}
        yield moment, {name: content for name, content in files.items() if content is not None}

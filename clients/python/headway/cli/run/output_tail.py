"""The latest output of a program as lines. The output may overwrite lines, contain colours, and be split anywhere."""

from __future__ import annotations

import re
import threading

from headway.cli.run.progress_patterns import Finder

KEPT = 8192
"""Bytes of a program's latest output that are stored and searched. Older progress is not needed."""

_BREAK = re.compile(rb"((?:[\r\n\b\f\v]|\x1b\[[0-9;]*[A-KSTdf])+)")
_MOVE = re.compile(rb"\n|\x1b\[(?P<up>\d*)[AF]")
_INVISIBLE = re.compile(rb"\x1b(?:\[[0-?]*[ -/]*[@-~]|\][^\x07\x1b]*(?:\x07|\x1b\\)|[()][0-9A-B]|[=>78])")


class Tail:
    """The latest bytes of one stream. The copying thread adds them, and another thread reads them regularly."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._kept = b""
        self._fed = 0
        self._looked = 0
        self._open = b""
        """The line that is not complete yet."""

    def feed(self, data: bytes, skipped: int = 0) -> None:
        """Costs the same for any amount of data; `skipped`: bytes in between that nobody has looked at."""
        with self._lock:
            self._fed += skipped + len(data)
            self._kept = ((b"" if skipped else self._kept) + data[-KEPT:])[-KEPT:]

    def look(self, finder: Finder) -> None:
        """Shows the lines that came since the last look. A line without an end, such as a bar that is drawn anew only
        when it moves, counts once nothing has come after it for the time between two looks."""
        with self._lock:
            unseen, kept = self._fed - self._looked, self._kept
            self._looked = self._fed
        if not unseen:
            finder.line(_visible(self._open))
            self._open = b""
            return
        # If bytes were skipped, the first line has lost its beginning.
        whole = unseen <= len(kept)
        parts = _BREAK.split(self._open + kept[-unseen:] if whole else kept)
        lines, breaks = parts[::2], parts[1::2]
        self._open = lines.pop()[-KEPT:]
        for line, after in list(zip(lines, breaks, strict=True))[0 if whole else 1 :]:
            if b"\0" not in line:
                finder.line(_visible(line), below=_goes_up(after))

    def end(self, finder: Finder) -> None:
        """The last read: all output is complete."""
        self.look(finder)
        finder.line(_visible(self._open))
        self._open = b""

    def words(self, lines: int, characters: int) -> str:
        """The last lines that are not empty, for people. An overwritten line shows its last text."""
        with self._lock:
            kept = self._kept
        shown = [_visible(line.rstrip(b"\r").rpartition(b"\r")[2]).rstrip() for line in kept.split(b"\n")]
        text = "\n".join([line for line in shown if line][-lines:])
        return "".join(char for char in text if char.isprintable() or char in "\n\t")[-characters:]


def _goes_up(moves: bytes) -> bool:
    """Whether the cursor goes to a line above the one that it was in."""
    row = 0
    for move in _MOVE.finditer(moves):
        row += 1 if move["up"] is None else -int(move["up"] or 1)
        if row < 0:
            return True
    return False


def _visible(line: bytes) -> str:
    return _INVISIBLE.sub(b"", line).decode(errors="replace")

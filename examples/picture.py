"""The demo as a moving picture for the README: `make picture`.

Runs `make demo` in a terminal that nobody sees, records what stands there second by second, and draws it as an SVG that
needs nothing else: no script, no font, no other file.
"""

import fcntl
import os
import pty
import struct
import subprocess
import sys
import termios
import time
from collections.abc import Iterator, Sequence
from itertools import groupby
from pathlib import Path
from typing import NamedTuple
from xml.sax.saxutils import escape

import pyte
from pyte.screens import Char

ROOT = Path(__file__).resolve().parents[1]
OUT = ROOT / "docs" / "pictures" / "watch.svg"

COLUMNS, ROWS = 100, 18
EVERY = 0.9
"""Seconds between two frames."""
LAST = 6.0
"""Seconds that the last frame stays."""

CELL, LINE, EDGE = 7.8, 18, 14
"""Pixels: width of a character, height of a line, space around all."""
COLOURS = {
    "default": "#d0d7de",
    "brightblack": "#7d8590",
    "red": "#ff7b72",
    "green": "#3fb950",
    "brown": "#d9a514",
    "blue": "#58a6ff",
    "magenta": "#bc8cff",
    "cyan": "#39c5cf",
}
"""By the names that pyte gives them; brown is its yellow."""

FONTS = "ui-monospace,SFMono-Regular,Menlo,Consolas,'DejaVu Sans Mono',monospace"
TITLE = "make demo: headway watch follows jobs while their workers and their server are killed and come back"

Row = tuple[Char, ...]


class Frame(NamedTuple):
    """What stood on the terminal, and when it was first seen: in seconds from the start."""

    time: float
    rows: tuple[Row, ...]


def record(command: Sequence[str], *, shown: str = "", columns: int = COLUMNS, rows: int = ROWS) -> list[Frame]:
    """Runs a command on a terminal of this size, below the line `shown`. RuntimeError if it fails."""
    screen = pyte.Screen(columns, rows)
    stream = pyte.ByteStream(screen)
    stream.feed(f"{shown}\r\n".encode() if shown else b"")
    terminal, inside = pty.openpty()
    fcntl.ioctl(inside, termios.TIOCSWINSZ, struct.pack("HHHH", rows, columns, 0, 0))
    environment = {**os.environ, "TERM": "xterm-256color", "COLORTERM": ""}
    process = subprocess.Popen(command, cwd=ROOT, env=environment, stdin=inside, stdout=inside, stderr=inside)
    os.close(inside)
    began = time.monotonic()
    frames = [_frame(screen, 0.0)]
    for output in _output(terminal):
        now = time.monotonic() - began
        if now > frames[-1].time + EVERY:
            # As it was before: what comes now may be the half of a picture.
            frames.append(_frame(screen, now))
        # Faint is grey here, for pyte knows no faint.
        stream.feed(output.replace(b"\x1b[2m", b"\x1b[90m"))
    frames.append(_frame(screen, time.monotonic() - began))
    os.close(terminal)
    if status := process.wait():
        raise RuntimeError(f"it ended with status {status}")
    return [frame for index, frame in enumerate(frames) if index == 0 or frame.rows != frames[index - 1].rows]


def draw(frames: Sequence[Frame]) -> str:
    """The frames as an SVG that shows one after the other, and where nothing moves the fullest."""
    rows, columns = len(frames[0].rows), len(frames[0].rows[0])
    width, height = columns * CELL + 2 * EDGE, rows * LINE + 2 * EDGE
    # Most rows stand in many frames, and are drawn once.
    names = {row: f"r{index}" for index, row in enumerate(dict.fromkeys(row for frame in frames for row in frame.rows))}
    length = frames[-1].time + LAST
    moves = "".join(
        f"{frame.time / length * 100:.2f}%{{transform:translateY({-index * height}px)}}"
        for index, frame in enumerate(frames)
    )
    fullest = max(range(len(frames)), key=lambda index: sum(map(_is_full, frames[index].rows)))
    colours = "".join(f".{name}{{fill:{colour};stroke:{colour}}}" for name, colour in COLOURS.items())
    style = (
        f"text{{font:13px {FONTS};white-space:pre;stroke:none!important}}.bold{{font-weight:bold}}"
        f".heavy{{stroke-width:4}}.light{{stroke-width:1}}{colours}"
        f"#film{{transform:translateY({-fullest * height}px);animation:film {length:.1f}s steps(1,end) infinite}}"
        f"@keyframes film{{{moves}}}@media(prefers-reduced-motion:reduce){{#film{{animation:none}}}}"
    )
    drawn = "".join(f'<g id="{name}">{_drawn(row)}</g>\n' for row, name in names.items() if _is_full(row))
    film = "".join(
        f'<use href="#{names[row]}" y="{index * height + EDGE + line * LINE:g}"/>'
        for index, frame in enumerate(frames)
        for line, row in enumerate(frame.rows)
        if _is_full(row)
    )
    size = f'width="{width:g}" height="{height:g}"'
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" {size} viewBox="0 0 {width:g} {height:g}" role="img">\n'
        f"<title>{TITLE}</title>\n<style>{style}</style>\n<defs>\n{drawn}</defs>\n"
        f'<rect {size} rx="8" fill="#0d1117"/>\n'
        f'<svg {size}><g id="film"><g transform="translate({EDGE} 0)">{film}</g></g></svg>\n</svg>\n'
    )


def _drawn(row: Row) -> str:
    """A row's texts, each where its first column is whatever font there is, and its bars as lines."""
    drawn = []
    for (kind, colour, bold), group in groupby(enumerate(row), lambda cell: _style(cell[1])):
        cells = list(group)
        begin, count = cells[0][0] * CELL, len(cells)
        if kind != "text":
            heavy = CELL * count if kind == "heavy" else CELL * count / 2 if kind == "half" else 0
            if heavy:
                drawn.append(f'<path d="M{begin:g} 9h{heavy:g}" class="heavy {colour}"/>')
            if kind != "heavy":
                drawn.append(f'<path d="M{begin + heavy:g} 9h{CELL * count - heavy:g}" class="light brightblack"/>')
            continue
        words = "".join(char.data for _, char in cells)
        begin += (len(words) - len(words.lstrip())) * CELL
        if words := words.strip():
            classes = f"{colour} bold" if bold else colour
            place = f'x="{begin:g}" y="13" textLength="{len(words) * CELL:g}"'
            drawn.append(f'<text {place} class="{classes}">{escape(words)}</text>')
    return "".join(drawn)


def _style(char: Char) -> tuple[str, str, bool]:
    kind = {"━": "heavy", "─": "light", "╾": "half"}.get(char.data, "text")
    # Spaces part no words.
    return kind, char.fg if char.fg in COLOURS else "default", char.bold and kind == "text"


def _frame(screen: pyte.Screen, moment: float) -> Frame:
    rows = (screen.buffer[line] for line in range(screen.lines))
    return Frame(moment, tuple(tuple(row[column] for column in range(screen.columns)) for row in rows))


def _is_full(row: Row) -> bool:
    return any(char.data != " " for char in row)


def _output(terminal: int) -> Iterator[bytes]:
    try:
        while output := os.read(terminal, 65536):
            yield output
    except OSError:
        pass  # how Linux says that nobody writes any more


def main() -> int:
    """Draws to the file of the command line, or to where the README looks for it; returns the exit status."""
    out = Path(sys.argv[1]) if sys.argv[1:] else OUT
    try:
        picture = draw(record([sys.executable, "-m", "examples.demo"], shown="$ make demo"))
    except RuntimeError as error:
        print(f"picture: {error}", file=sys.stderr)
        return 1
    out.parent.mkdir(parents=True, exist_ok=True)
    out.write_text(picture)
    print(f"{out}: {len(picture) / 1000:.0f} kB")
    return 0


if __name__ == "__main__":
    sys.exit(main())

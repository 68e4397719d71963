"""Progress as programs print it: bars, meters and counts, found in whatever else they write."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from re import Pattern

_LONGEST = 1000
"""Characters of a line that are looked at: its last ones."""
_RIVALS = 16
"""Counts that are followed until one of them is believed."""
_DETOUR = 20
"""Sightings in a row that it takes to leave a count that has not come to its end."""

_PREFIXES = {"": 0, "K": 1, "M": 2, "G": 3, "T": 4, "P": 5}
_AMOUNT = re.compile(r"(\d+(?:\.\d+)?)\s?([KMGTP]?)(i?)B?", re.IGNORECASE)


@dataclass(frozen=True)
class Style:
    """One way to print progress, and what the groups of its expression mean.

    `done` and `total`: amounts, as `amount` reads them, both times the power in `scale` if there is such a group.
    `percent`: of all there is to do; if it took part in the match, it counts and the others do not.
    """

    name: str
    expression: Pattern[str]
    unit: str
    """What `done` and `total` count; empty if the program alone knows."""
    sightings: int
    """How many in a row, of one total and never falling, it takes to be believed: 1 for what nothing else looks like,
    more for what dates and sentences look like too. 0: a person has said that this is the progress."""
    example: str
    base: int = 1000
    """What K means where nothing says Ki."""
    announced: Pattern[str] | None = None
    """Where the total stands, in a group of that name, if in a line of its own."""


@dataclass(frozen=True)
class Reading:
    """How far a program has come, by its own words."""

    done: float
    total: float | None
    """None: not known."""
    unit: str
    """"%" if `total` is 100 only because percentages are."""


_N = r"\d[\d,]{0,24}"
_SIZE = r"\d+(?:\.\d+)?\s?[KMGTP]?i?B"
_CLOCK = r"(?:\d+:)?\d+:\d\d"

STYLES: tuple[Style, ...] = (
    Style(
        "tqdm",
        re.compile(
            r"\d{1,3}%\|[^|]*\|\s*(?P<done>\d[\d.]*[kMGTP]?)/(?P<total>\d[\d.]*[kMGTP]?)\s\[" + _CLOCK + r"<[\d:?]+"
        ),
        "", 1, "load:  47%|████▋     | 14/30 [00:00<00:00, 19.66it/s]",
    ),
    Style(
        "tqdm without a total",
        re.compile(r"(?:^|\s)(?P<done>\d[\d.]*[kMGTP]?)\s?[^\s\d\[\]]{1,20}\s\[" + _CLOCK + r",\s+[\d.?]"),
        "", 1, "10it [00:00, 19.86it/s]",
    ),
    Style(
        "wget",
        re.compile(r"(?:^|\s)(?P<percent>\d{1,3})%\[[ =>+]*\]\s"),
        "bytes", 1, "big.iso              33%[==========>                        ]   6.37M  10.0MB/s  eta 2s",
    ),
    Style(
        "wget without a length",
        re.compile(r"\[ *<=> *\]\s+(?P<done>\d[\d.]*[KMGT]?)\s"),
        "bytes", 1, "index.html               [  <=>                              ]   6.37M  10.0MB/s", base=1024,
    ),
    Style(
        "wget in dots",
        re.compile(r"^\s*\d+[KM]\s[., ]+\s(?P<percent>\d{1,3})%\s+\d"),
        "bytes", 1, " 19050K .......... .......... .......... .......... .......... 97%  346M 0s",
    ),
    Style(
        "rsync",
        re.compile(r"^\s*[\d,.]+[KMGT]?\s+(?P<percent>\d{1,3})%\s+[\d.,]+[kKMGT]?B/s\s+\d+:\d\d:\d\d"),
        "bytes", 1, "     12,000,000  60%   10.67MB/s    0:00:01 (xfr#12, to-chk=8/21)",
    ),
    Style(
        "pip",
        re.compile(r"(?P<done>\d[\d.]*)/(?P<total>\d[\d.]*)\s(?P<scale>[kMGT]?i?B)\s(?:\?|[\d.]+\s[kMGT]?i?B/s)\s+eta"),
        "bytes", 1, "     ━━━━━━━━━━━━━━━━━━━━━━━━╸━━━━━━━━━━━━━━━ 24.7/40.0 MB 159.9 MB/s eta 0:00:01",
    ),
    Style(
        "dd",
        re.compile(r"^\s*(?P<done>\d+) bytes \([^)]*\) copied, "),
        "bytes", 1, "20388511744 bytes (20 GB, 19 GiB) copied, 1 s, 20.4 GB/s",
    ),
    Style(
        "pv",
        re.compile(
            r"(?:^|\s)(?P<done>" + _SIZE + r")\s+\d+:\d\d:\d\d\s+\[\s*[\d.]+\s?[KMGTP]?i?B/s\]"
            r"(?:\s+\[[ =>+-]*\]\s+(?P<percent>\d{1,3})%)?"
        ),
        "bytes", 1, "9.54MiB 0:00:01 [9.54MiB/s] [===============>                 ] 50% ETA 0:00:01",
    ),
    Style(
        # Where the length is not known, curl says so by 0 % received of the bytes that it gives as the total.
        "curl without a length",
        re.compile(r"^\s*100\s+[\d.]+[kMGTP]?\s+0\s+(?P<done>[\d.]+[kMGTP]?)(?:\s+[\d.]+[kMGTP]?){4}(?:\s+[\d:-]{7,8}){3}"),
        "bytes", 1, "100 3840k    0 3840k    0     0  9.9M      0 --:--:--  0:00:01 --:--:--  9.9M", base=1024,
    ),
    Style(
        "curl",
        re.compile(
            r"^\s*\d{1,3}\s+(?P<total>[\d.]*[1-9][\d.]*[kMGTP]?)\s+\d{1,3}\s+(?P<done>[\d.]+[kMGTP]?)"
            r"(?:\s+[\d.]+[kMGTP]?){4}(?:\s+[\d:-]{7,8}){3}"
        ),
        "bytes", 1, " 19 19.0M   19 3840k    0     0   9.9M      0  0:00:01 --:--:--  0:00:01  9.9M", base=1024,
    ),
    Style(
        "ffmpeg",
        re.compile(r"(?:^frame=|\ssize=|^size=).*\stime=(?P<done>\d+:\d\d:\d\d)(?:\.\d+)?\s"),
        "seconds", 1, "frame=  344 fps=0.0 q=23.8 size=     512kB time=00:00:13.76 bitrate= 304.8kbits/s speed=27.4x",
        announced=re.compile(r"^\s*Duration: (?P<total>\d+:\d\d:\d\d)"),
    ),
    Style(
        "sizes",
        re.compile(r"(?<![\w/.,:-])(?P<done>" + _SIZE + r")\s?(?:/|of)\s?(?P<total>" + _SIZE + r")(?![\w/])"),
        "bytes", 3, "Downloading torch 1.5 MiB/5.0 MiB",
    ),
    Style(
        "N/M",
        re.compile(r"(?<![\w/.,:-])(?P<done>" + _N + r")\s?/\s?(?P<total>" + _N + r")(?![\w/:]|[.,-]\d|\s?/)"),
        "", 3, "[ 9/20] Building CXX object reader.o",
    ),
    Style(
        "N of M",
        re.compile(r"(?<![\w/.,:-])(?P<done>" + _N + r") (?:out )?of (?P<total>" + _N + r")(?![\w/:]|[.,-]\d)"),
        "", 3, "Processed 1,200 of 5,000 records",
    ),
    Style(
        "N %",
        re.compile(r"(?<![\w/.,:-])(?P<percent>\d{1,3}(?:[.,]\d{1,6})?)\s?%(?!\w)"),
        "", 3, "Progress: [ 45%]",
    ),
)  # fmt: skip
"""What is recognised; of several in one line the first counts. What is unlike all else comes before what is common."""


def own(expression: str) -> Style:
    """A person's own pattern. ValueError if it is no regular expression, or has no group `done` or `percent`."""
    try:
        pattern = re.compile(expression)
    except re.error as error:
        raise ValueError(f"{expression!r} is no regular expression: {error}") from None
    if not {"done", "percent"} & pattern.groupindex.keys():
        raise ValueError(f"{expression!r} has no group (?P<done>…) or (?P<percent>…)")
    return Style("own", pattern, "", 0, "")


def amount(text: str, base: int = 1000) -> float | None:
    """`1,234`, `12.5k`, `4.5MiB` or the clock `0:01:30`, in seconds, as a number; None for anything else."""
    text = text.replace(",", "").strip()
    if ":" in text and text.replace(":", "").isdigit():
        seconds = 0.0
        for part in text.split(":"):
            seconds = seconds * 60 + float(part or 0)
        return seconds
    match = _AMOUNT.fullmatch(text)
    if not match:
        return None
    factor: int = (1024 if match[3] else base) ** _PREFIXES[match[2].upper()]
    return float(match[1]) * factor


@dataclass
class _Track:
    """Sightings of one style that go on from each other."""

    style: Style
    reading: Reading
    seen: int = 1
    moved: bool = False

    def goes_on(self, reading: Reading) -> bool:
        return reading.total == self.reading.total and reading.done >= self.reading.done

    def add(self, reading: Reading) -> None:
        self.seen += 1
        self.moved = self.moved or reading.done > self.reading.done
        self.reading = reading

    @property
    def over(self) -> bool:
        return self.reading.total is None or self.reading.done >= self.reading.total


class Finder:
    """Finds the progress in the lines of one program, and stays with the count that it has found.

    Only what goes on from there moves it: a stray line never does, nor does it ever fall for one. Another count has
    its turn once the present one is over, or after 20 sightings in a row without the present one.
    """

    def __init__(self, styles: Sequence[Style] = STYLES) -> None:
        self._styles = styles
        self._chosen: _Track | None = None
        self._rivals: dict[tuple[str, float | None], _Track] = {}
        self._announced: dict[str, float | None] = {}

    @property
    def reading(self) -> Reading | None:
        """The progress found last; None before any was."""
        return self._chosen.reading if self._chosen else None

    def line(self, text: str) -> None:
        """Looks at one line, without escape sequences."""
        text = text[-_LONGEST:]
        for style in self._styles:
            if style.announced and (said := style.announced.search(text)):
                self._announced[style.name] = amount(said["total"])
            match = style.expression.search(text)
            reading = self._read(style, match) if match else None
            if reading is not None:
                self._sighted(style, reading)
                if style.sightings == 1:
                    return

    def _read(self, style: Style, match: re.Match[str]) -> Reading | None:
        groups = match.groupdict()
        if groups.get("percent"):
            done, total, unit = amount(groups["percent"].replace(",", ".")), 100.0, "%"
            return None if done is None or done > total else Reading(done, total, unit)
        scale = groups.get("scale") or ""
        done = amount((groups.get("done") or "") + scale, style.base)
        said = groups.get("total")
        goal = amount(said + scale, style.base) if said else self._announced.get(style.name)
        if done is None or (goal is not None and not done <= goal > 0 and not style.announced):
            return None
        return Reading(done, goal, style.unit)

    def _sighted(self, style: Style, reading: Reading) -> None:
        chosen = self._chosen
        if chosen and chosen.style is style and (style.sightings == 0 or chosen.goes_on(reading)):
            chosen.reading = reading
            self._rivals.clear()
            return
        # Of one style there may be several counts, such as a chapter's number between the pages.
        rival = self._rivals.get((style.name, reading.total))
        if rival and rival.goes_on(reading):
            rival.add(reading)
        else:
            rival = self._rivals[style.name, reading.total] = _Track(style, reading)
            if len(self._rivals) > _RIVALS:
                del self._rivals[next(iter(self._rivals))]
        if rival.seen >= self._wanted(style) and (rival.moved or style.sightings < 2):
            self._chosen = rival
            self._rivals.clear()

    def _wanted(self, style: Style) -> int:
        if self._chosen is None:
            return style.sightings
        return max(style.sightings, 2) if self._chosen.over else _DETOUR

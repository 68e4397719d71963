"""The styles in which programs print progress."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass, replace
from itertools import pairwise
from re import Pattern

_FFMPEG_CUTS = frozenset({"-ss", "-sseof", "-to", "-shortest", "-loop", "-stream_loop", "-itsscale"})
"""Options that make the output shorter or longer than the inputs."""

_PREFIXES = {"": 0, "K": 1, "M": 2, "G": 3, "T": 4, "P": 5}
_AMOUNT = re.compile(r"(?P<number>\d[\d.,'’\s]*?)\s*(?P<prefix>[KMGTP]?)(?P<binary>i?)(?P<bytes>[BO]?)", re.IGNORECASE)
"""`O` is the byte of French programs, the octet."""
_NUMBER = re.compile(
    r"(?P<whole>\d+|\d{1,3}(?P<mark>[.,'’\s])\d{3}(?:(?P=mark)\d{3})*|\d{1,2}(?:,\d\d)+(?P<lakh>,)\d{3})"
    r"(?:(?P<point>[.,])(?P<fraction>\d+))?"
)
_UNITS = {"B": "bytes", "it": ""}
"""What programs call a unit, where we call it otherwise."""


@dataclass(frozen=True)
class Reading:
    """The progress of a program, as it prints it."""

    done: float
    total: float | None
    """None: not known."""
    unit: str
    """"%" if `total` is 100 only because percentages are."""


@dataclass(frozen=True)
class Style:
    """One way to print progress, and what the groups of its expression mean.

    `done`, `left` and `total`: amounts, as `amount` reads them, all times the power in `scale` if there is such a
    group; two of them tell the third. `percent`: of all there is to do; if it took part in the match, it counts and the
    amounts do not. `unit`: what is counted.
    """

    name: str
    expression: Pattern[str]
    unit: str
    """What is counted if there is no such group; empty if the program alone knows."""
    sightings: int
    """How many in a row, of one total and never falling, it takes to be believed: 1 for what nothing else looks like,
    more for what dates and sentences look like too. 0: a person has said that this is the progress."""
    example: str
    base: int = 1000
    """What K means where nothing says Ki."""
    announced: Pattern[str] | None = None
    """Where the total stands, in a group of that name, if in a line of its own."""
    grows: bool = False
    """Whether the total is an estimate that may become more."""
    instead_of: str = ""
    """Another style, which means less from the first sighting of this one on."""
    completes: str = ""
    """Another style, whose count this one may continue and never begins."""
    most: float | None = None
    """The total is at most this, whatever was announced."""

    def read(self, match: re.Match[str], announced: float | None = None) -> Reading | None:
        """What the match says, None if that cannot be. `announced`: the total, if it was told before."""
        groups = match.groupdict()
        if groups.get("percent"):
            percent = amount(groups["percent"].replace(",", "."))
            return None if percent is None or percent > 100 else Reading(percent, 100.0, "%")
        scale = groups.get("scale") or ""
        done, left, total = (
            amount(text + scale, self.base) if (text := groups.get(name)) else None
            for name in ("done", "left", "total")
        )
        if total is None:
            total = announced if done is None or left is None else done + left
            if announced is not None and done is not None:
                total = self._expected(done, announced)
        if done is None:
            done = None if total is None or left is None else total - left
        if done is None or (total is not None and not done <= total > 0):
            return None
        unit = groups.get("unit") or self.unit
        return Reading(done, total, _UNITS.get(unit, unit))

    def _expected(self, done: float, announced: float) -> float | None:
        """The total that was announced; None once more than that is done."""
        total = announced if self.most is None else min(announced, self.most)
        return total if done <= total > 0 else None


_N = (
    r"(?:\d{1,3}(?:,\d{3})+|\d{1,2}(?:,\d\d)+,\d{3}|\d{1,3}(?:\.\d{3}){2,}"
    r"|\d{1,3}(?:['’\u00a0\u202f\u2009]\d{3})+|\d{1,25})"
)
"""A count, its thousands apart or not. 1.002 may be a thousand or one, so it is neither; 1.002.003 is clear."""
_ALONE = (
    r"(?<![\w/.,:'’-])(?<!\d[\u00a0\u202f\u2009])"
    r"(?!(?:(?<=^\d )|(?<=^\d\d )|(?<=^\d{3} )|(?<=[^\w:.,/-]\d )|(?<=[^\w:.,/-]\d\d )|(?<=[^\w:.,/-]\d{3} ))"
    r"\d{3}(?!\d))"
)
"""Before a count: nothing that it may be the end of, such as the thousands in `12 004`."""
_WHOLE = r"(?![\w/:]|[.,'’\u00a0\u202f\u2009-]\d|\s?/| \d{3}(?!\d|\s?%))"
"""After a count: nothing that it may be the beginning of."""
_DECIMAL = r"\d+(?:[.,]\d+)?"
_LOOSE = r"\d[\d.,'’\u00a0\u202f\u2009]*"
_SIZE = _DECIMAL + r"\s?[KMGTP]?i?[BO]"
_WIDE_SIZE = _DECIMAL + r"\s*[KMGTP]?i?B"
_CLOCK = r"(?:\d+:)?\d+:\d\d"
_TQDM_UNIT = r"(?:\?|[\d.]+)(?:s/)?(?:[kMGTP](?=B/|it/))?(?P<unit>[^\s\d\[\]/,?.][^\s\[\]/,]{0,31})"

STYLES: tuple[Style, ...] = (
    Style(
        "tqdm",
        re.compile(
            r"\d{1,3}%\|[^|]*\|\s*(?P<done>\d[\d.]*[kMGTP]?)/(?P<total>\d[\d.]*[kMGTP]?)\s"
            r"\[" + _CLOCK + r"<[\d:?]+(?:,\s+" + _TQDM_UNIT + ")?"
        ),
        "", 1, "load:  47%|████▋     | 14/30 [00:00<00:00, 19.66rec/s]",
    ),
    Style(
        "tqdm without a total",
        re.compile(r"(?:^|\s)(?P<done>\d[\d.]*[kMGTP]?)\s?[^\s\d\[\]]{1,20}\s\[" + _CLOCK + r",\s+" + _TQDM_UNIT),
        "", 1, "10it [00:00, 19.86it/s]",
    ),
    Style(
        "wget",
        re.compile(r"(?:^|\s)(?P<percent>\d{1,3})%\s?\[[ =>+]*\]\s"),
        "bytes", 1, "big.iso              33%[==========>                        ]   6.37M  10.0MB/s  eta 2s",
    ),
    Style(
        "wget without a length",
        re.compile(r"\[ *<=> *\]\s+(?P<done>\d[\d.,]*[KMGT]?)\s"),
        "bytes", 1, "index.html               [  <=>                              ]   6.37M  10.0MB/s", base=1024,
    ),
    Style(
        "wget in dots",
        re.compile(r"^\s*\d+[KM]\s[., ]+\s(?P<percent>\d{1,3})%\s+\d"),
        "bytes", 1, " 19050K .......... .......... .......... .......... .......... 97%  346M 0s",
    ),
    Style(
        "rsync by file",
        re.compile(r"\s100%\s+\S+B/s\s+\d+:\d\d:\d\d \(xfr#\d+, to-chk=(?P<left>(?!0/)\d+)/(?P<total>\d+)\)"),
        "files", 1, "        500,000 100%    2.09MB/s    0:00:00 (xfr#1, to-chk=5/7)", instead_of="rsync",
    ),
    Style(
        # So ends `--info=progress2` too.
        "rsync by file, the last one",
        re.compile(r"\s100%\s+\S+B/s\s+\d+:\d\d:\d\d \(xfr#\d+, to-chk=(?P<left>0)/(?P<total>\d+)\)"),
        "files", 1, "        500,000 100%    2.09MB/s    0:00:00 (xfr#6, to-chk=0/7)", completes="rsync by file",
    ),
    Style(
        "rsync by file, while it still looks for more",
        re.compile(r"\s100%\s+\S+B/s\s+\d+:\d\d:\d\d \(xfr#(?P<done>\d+), ir-chk="),
        "files", 1, "        500,000 100%    2.09MB/s    0:00:00 (xfr#3, ir-chk=1001/1078)", instead_of="rsync",
    ),
    Style(
        "rsync",
        re.compile(r"^\s*\d[\d.,'’\s]*[KMGT]?\s+(?P<percent>\d{1,3})%\s+[\d.,]+[kKMGT]?B/s\s+\d+:\d\d:\d\d"),
        "bytes", 1, "     12,000,000  60%   10.67MB/s    0:00:01 (xfr#12, to-chk=8/21)",
    ),
    Style(
        "pip",
        re.compile(
            r"(?P<done>\d[\d.]*)/(?P<total>\d[\d.]*)\s(?P<scale>[kMGT]?i?B)\s(?:\?|[\d.]+\s[kMGT]?i?B/s)"
            r"\s+(?:eta|\d+:\d\d:\d\d)"
        ),
        "bytes", 1, "     ━━━━━━━━━━━━━━━━━━━━━━━━╸━━━━━━━━━━━━━━━ 24.7/40.0 MB 159.9 MB/s eta 0:00:01",
    ),
    Style(
        "pip --progress-bar raw",
        re.compile(r"^Progress (?P<done>\d+) of (?P<total>\d+)$"),
        "bytes", 1, "Progress 262144 of 3000628",
    ),
    Style(
        # In whatever language.
        "dd",
        re.compile(
            r"^\s*(?P<done>\d+) \w+ (?:\(\d[^()]*B(?:, \d[^()]*B)?\) )?[^\d,]+, "
            r"[\d.,]+ \w{1,4}, [\d.,]+ [kKMGTP]?i?\w/\w+"
        ),
        "bytes", 1, "20388511744 bytes (20 GB, 19 GiB) copied, 1 s, 20.4 GB/s",
    ),
    Style(
        "pv",
        re.compile(
            r"\s\[\s*[\d.,]+\s?[kKMGTP]?i?[BO]?/s\]\s+(?:\[[ =>+-]*\]\s+)?(?P<percent>\d{1,3})%(?:\s+ETA|\s*$)"
        ),
        "bytes", 1, "9.54MiB 0:00:01 [9.54MiB/s] [===============>                 ] 50% ETA 0:00:01",
    ),
    Style(
        "pv without a size",
        re.compile(r"(?:^|\s)(?P<done>" + _SIZE + r")\s+\d+:\d\d:\d\d\s+\[\s*[\d.,]+\s?[KMGTP]?i?[BO]/s\]"),
        "bytes", 1, "12.0MiB 0:00:01 [9.98MiB/s] [ <=>               ]",
    ),
    Style(
        "pv -l",
        re.compile(r"(?:^|\s)(?P<done>" + _DECIMAL + r"[kMGT]?)\s+\d+:\d\d:\d\d\s+\[\s*[\d.,]+\s?[kMGT]?/s\]"),
        "lines", 1, "28.1k  0:00:01 [20.7k/s] [ <=>                                                  ]",
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
        re.compile(
            r"(?:(?:^frame=|\ssize=|^size=).*\stime=(?=\S+\s)|^out_time=)(?P<done>\d+:\d\d:\d\d)(?:\.\d+)?(?:\s|$)"
        ),
        "seconds", 1, "frame=  344 fps=0.0 q=23.8 size=     512kB time=00:00:13.76 bitrate= 304.8kbits/s speed=27.4x",
        announced=re.compile(r"^\s*Duration: (?:(?P<total>\d+:\d\d:\d\d)|N/A)"), grows=True,
    ),
    Style(
        "git",
        re.compile(
            r"^(?:remote: )?[A-Z][a-z]+ (?:[a-z]+ )*(?P<unit>objects|deltas|files):\s+\d{1,3}% "
            r"\((?P<done>\d+)/(?P<total>\d+)\)"
        ),
        "", 1, "Receiving objects:  45% (450/1000), 1.21 MiB | 2.40 MiB/s",
    ),
    Style(
        # What it names with / between are the bytes that came out and those that went in.
        "xz",
        re.compile(
            r"^\s*(?:(?P<percent>\d{1,3}(?:[.,]\d)?)|---) %\s+" + _LOOSE + r" [KMGT]?i?B / "
            r"(?P<done>" + _LOOSE + r" [KMGT]?i?B) (?:=|>) \d"
        ),
        "bytes", 1, " 16.6 %          9.9 MiB / 10.0 MiB = 0.994   2.5 MiB/s       0:04             ",
    ),
    Style(
        # The percentage is what is left of the size.
        "zstd",
        re.compile(r"\bRead:\s*(?P<done>" + _WIDE_SIZE + r")\s+/\s*(?P<total>" + _WIDE_SIZE + r")\s+==>\s*\d+%"),
        "bytes", 1, "Read:  57.5 MiB /  60.0 MiB ==> 31%",
    ),
    Style(
        "zstd without a size",
        re.compile(r"\bRead:\s*(?P<done>" + _WIDE_SIZE + r")\s+==>\s*\d+%"),
        "bytes", 1, "Read:  4.50 MiB  ==> 31%",
    ),
    Style(
        "zip -dc",
        re.compile(r"^\s*(?P<done>\d+)/\s*(?P<left>\d+)\s+(?:adding|updating|freshening|copying|deleting):\s"),
        "files", 1, "  2/  5   adding: photos/f1 (deflated 0%)",
    ),
    Style(
        "tar --checkpoint",
        re.compile(r"^tar: (?:Read|Write) checkpoint (?P<done>\d+)$"),
        "records", 1, "tar: Write checkpoint 1500",
    ),
    Style(
        "apt-get",
        re.compile(r"^(?P<percent>\d{1,3})% \[(?:\d+ \S|Working|Waiting|Connecting|Connected)"),
        "bytes", 1, "14% [2 linux-image-cloud-amd64 917 kB/26.5 MB 3%]",
    ),
    Style(
        "pg_basebackup",
        re.compile(r"^\s*(?P<done>\d+)/(?P<total>\d+) (?P<scale>kB) \(\d{1,3} ?%\), \d+/\d+ [Tt]ablespace"),
        "bytes", 1, "10293/22942 kB (44%), 0/1 tablespace", base=1024, grows=True,
    ),
    Style(
        "sizes",
        re.compile(_ALONE + r"(?P<done>" + _SIZE + r")\s*(?:/|of)\s*(?P<total>" + _SIZE + r")(?![\w/])"),
        "bytes", 3, "Downloading torch 1.5 MiB/5.0 MiB",
    ),
    Style(
        "N/M",
        re.compile(_ALONE + r"(?P<done>" + _N + r")\s?/\s?(?P<total>" + _N + r")" + _WHOLE),
        "", 3, "[ 9/20] Building CXX object reader.o",
    ),
    Style(
        "N of M",
        re.compile(_ALONE + r"(?P<done>" + _N + r") (?:out )?of (?P<total>" + _N + r")" + _WHOLE),
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
    """A person's own pattern. ValueError if it is no regular expression, or has no group that tells the progress."""
    try:
        pattern = re.compile(expression)
    except re.error as error:
        raise ValueError(f"{expression!r} is not a regular expression: {error}") from None
    groups = pattern.groupindex.keys()
    if not ({"done", "percent"} & groups or {"left", "total"} <= groups):
        raise ValueError(f"{expression!r} has no group (?P<done>…) or (?P<percent>…)")
    return Style("own", pattern, "", 0, "")


def in_command(command: Sequence[str]) -> tuple[Style, ...]:
    """What is recognised in the output of this command: ffmpeg tells how long its inputs are, and not how much
    of them it was told to take."""
    line = " ".join(command)
    start = re.search(r"(?:^|[\s/;|&(])ffmpeg\s", line)
    if start is None:
        return STYLES
    # Of a shell's line: up to the next command.
    words = re.split(r"[|;&]", line[start.end() :], maxsplit=1)[0].split()
    lengths = [amount(after.partition(".")[0]) for word, after in pairwise(words) if word == "-t"]
    cut = bool(_FFMPEG_CUTS.intersection(words)) or len(lengths) > 1 or None in lengths
    return tuple(
        style if style.name != "ffmpeg"
        else replace(style, announced=None) if cut
        else replace(style, most=lengths[0] if lengths else None)
        for style in STYLES
    )  # fmt: skip


def amount(text: str, base: int = 1000) -> float | None:
    """`1,234`, `12.5k`, `2,86MiB`, `1 234 567` or the clock `0:01:30`, in seconds, as a number; None for anything else,
    and for what may be read in two ways."""
    text = text.strip()
    if ":" in text and text.replace(":", "").isdigit():
        seconds = 0.0
        for part in text.split(":"):
            seconds = seconds * 60 + float(part or 0)
        return seconds
    match = _AMOUNT.fullmatch(text)
    number = _number(match["number"], bool(match["prefix"] or match["bytes"])) if match else None
    if match is None or number is None:
        return None
    factor: int = (1024 if match["binary"] else base) ** _PREFIXES[match["prefix"].upper()]
    return number * factor


def _number(text: str, has_unit: bool) -> float | None:
    match = _NUMBER.fullmatch(text)
    if (
        match is None
        or (match["mark"] and match["mark"] == match["point"])
        or (match["lakh"] and match["point"] == ",")
    ):
        return None
    whole, fraction = re.sub(r"\D", "", match["whole"]), match["fraction"] or ""
    if match["point"] == "," and len(fraction) == 3 and not match["mark"] and len(whole) <= 3:
        # Thousands where things are counted; of `1,234 MiB` nobody can say.
        return None if has_unit else float(whole + fraction)
    return float(f"{whole}.{fraction or 0}")

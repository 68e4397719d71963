"""Shows a job as one or more lines of a terminal."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from datetime import datetime

from rich.text import Text

from headway.cli import formatting
from headway.cli.escaping import safe
from headway.v1 import job_pb2

MOST_PARTS = 8
"""Parts with a bar of their own."""
BESIDE, ENOUGH_BESIDE = 48, 54
"""Columns of facts beside a bar: the minimum, and the width with enough room. With fewer the facts are below the
bar."""
SHORTEST_BAR, LONGEST_BAR = 12, 24
"""Columns of a bar beside facts."""
WORD = 9
"""Columns of the longest status."""

_COLOURS = {
    job_pb2.JOB_STATUS_PENDING: "bright_black",
    job_pb2.JOB_STATUS_RUNNING: "cyan",
    job_pb2.JOB_STATUS_LOST: "yellow",
    job_pb2.JOB_STATUS_COMPLETED: "green",
    job_pb2.JOB_STATUS_FAILED: "red",
    job_pb2.JOB_STATUS_CANCELLED: "magenta",
}


@dataclass(frozen=True)
class Shown:
    """A job as shown at one moment."""

    job: job_pb2.Job
    now: datetime
    silent: str | None
    """A text if its worker is late."""
    errors: Sequence[job_pb2.RecordError]
    """Its last record errors."""

    @property
    def name(self) -> str:
        return safe(self.job.name) or self.job.id

    @property
    def ended(self) -> bool:
        return self.job.status in formatting.ENDED

    @property
    def status(self) -> str:
        return "STALLED" if self.job.stalled else formatting.status(self.job)

    @property
    def colour(self) -> str:
        return "yellow" if self.job.stalled else _COLOURS.get(self.job.status, "")


class Columns:
    """The widths of the columns: the name, then 9 for the status, the bar, and 6 for the percentage."""

    def __init__(self, width: int, longest_name: int) -> None:
        self.name = max(min(longest_name, width // 4, 32), 1)
        left = width - self.name - WORD - 9
        self.narrow = left < SHORTEST_BAR + BESIDE
        self.bar = (
            max(min(left, width // 2), 1) if self.narrow else min(max(left - ENOUGH_BESIDE, SHORTEST_BAR), LONGEST_BAR)
        )


def in_full(shown: Shown, width: int) -> Iterator[Text]:
    """All lines of a job."""
    job = shown.job
    status = _joined(shown.status, _attempt(job), style=f"bold {shown.colour}")
    yield _cell(shown.name, width - status.cell_len - 1, "bold") + " " + status
    yield _bar(shown, width - 6) + _percent(job)
    count = None if job.unit == "%" else formatting.count(job)
    remaining = None if shown.silent else formatting.remaining(job, shown.now)
    yield _joined(_silent(shown), count, formatting.pace(job, shown.silent), remaining, _time(shown))
    yield from parts(shown, min(width // 4, 32), width - min(width // 4, 32) - 12)
    if job.counters:
        yield Text(_counters(job))
    for warning in _warnings(shown):
        yield Text(warning, "bold yellow")
    if job.error_count:
        yield Text(_error_count(job), "red")
        for error in shown.errors:
            yield Text("  " + formatting.record_error(error), "red")
    if reason := formatting.ending(job):
        yield Text(reason, f"bold {shown.colour}")
    elif job.message:
        yield Text(safe(job.message), "dim")


def with_bar(shown: Shown, columns: Columns) -> list[Text]:
    """One line, and a second one if the facts do not fit."""
    line = Text(" ").join(
        [_named(shown, columns), _cell(shown.status, WORD, shown.colour), _measured(shown, columns.bar)]
    )
    if columns.narrow:
        return [line, Text("  ") + facts(shown)]
    return [line + "  " + facts(shown)]


def in_brief(shown: Shown, columns: Columns) -> Text:
    """One line for any width. A running job has a bar instead of its status."""
    if shown.status == "RUNNING":
        line = Text(" ").join([_named(shown, columns), _measured(shown, WORD)])
    else:
        line = Text(" ").join([_named(shown, columns), _cell(shown.status, WORD, shown.colour) + _percent(shown.job)])
    return line + "  " + facts(shown)


def details(shown: Shown) -> Iterator[Text]:
    """More facts about a job that has not ended."""
    job = shown.job
    if said := _joined(_attempt(job), safe(job.message), _counters(job), style="dim"):
        yield Text("  ") + said
    if job.error_count:
        last = f", the last: {formatting.record_error(shown.errors[-1])}" if shown.errors else ""
        yield Text(f"  {_error_count(job)}{last}", "red")


def facts(shown: Shown) -> Text:
    """The facts beside a bar and its percentage, the most urgent first."""
    job = shown.job
    count = None if job.unit == "%" else formatting.count(job)
    if shown.ended:
        reason = Text(formatting.ending(job) or "", shown.colour)
        return _joined(reason, count, _time(shown), _counters(job), _error_count(job))
    if warnings := _warnings(shown):
        return _joined(*(Text(warning, "yellow") for warning in warnings), count)
    pace = formatting.pace(job, shown.silent, with_unit=False)
    if shown.silent:
        return _joined(_silent(shown), count, pace)
    return _joined(count, pace, formatting.remaining(job, shown.now) or _time(shown))


def parts(shown: Shown, indent: int, width: int) -> Iterator[Text]:
    """A bar for each part. Parts have no size of their own: full is an even share of the job's, or the longest part."""
    job = shown.job
    found = sorted((name, done) for name, done in job.parts.items() if name)
    full = max(1, *(done for _, done in found), job.size // len(found)) if found else 1
    for name, done in found[:MOST_PARTS]:
        bar = _drawn(done / full, width, "blue")
        yield _cell(f"  {safe(name)}", indent) + " " + bar + f" {formatting.number(done)}"
    if len(found) > MOST_PARTS:
        more = len(found) - MOST_PARTS
        yield Text(f"  … {more} more part{'s' * (more != 1)}", "dim")


def _named(shown: Shown, columns: Columns) -> Text:
    return _cell(shown.name, columns.name, "" if shown.ended else "bold")


def _measured(shown: Shown, width: int) -> Text:
    return _bar(shown, width) + _percent(shown.job)


def _bar(shown: Shown, width: int) -> Text:
    job = shown.job
    if job.size or job.status != job_pb2.JOB_STATUS_RUNNING:
        done = job.status == job_pb2.JOB_STATUS_COMPLETED
        return _drawn(job.progress / job.size if job.size else float(done), width, shown.colour)
    # The progress is not known. A moving bar shows that the work continues.
    length = max(width // 5, 1)
    begin = int(shown.now.timestamp() * 8) % (width + length) - length
    before, after = max(begin, 0), max(width - begin - length, 0)
    return Text.assemble(
        ("─" * before, "bright_black"), ("━" * (width - before - after), shown.colour), ("─" * after, "bright_black")
    )


def _drawn(share: float, width: int, style: str) -> Text:
    """A bar that shows its end without colours too."""
    halves = int(min(max(share, 0.0), 1.0) * width * 2)
    done = "━" * (halves // 2) + "╾" * (halves % 2)
    return Text.assemble((done, style), ("─" * (width - len(done)), "bright_black"))


def _percent(job: job_pb2.Job) -> Text:
    share = formatting.share(job)
    return Text("      " if share is None else f"{f'{share} %':>6}")


def _silent(shown: Shown) -> Text | None:
    return Text(shown.silent, "yellow") if shown.silent else None


def _warnings(shown: Shown) -> list[str]:
    # A fact that the status shows is not repeated.
    return [warning.removeprefix("STALLED: ") for warning in formatting.warnings(shown.job, shown.now)]


def _attempt(job: job_pb2.Job) -> str:
    return f"attempt {job.attempt}" if job.attempt > 1 else ""


def _counters(job: job_pb2.Job) -> str:
    return " · ".join(f"{safe(name)} {formatting.number(count)}" for name, count in sorted(job.counters.items()))


def _error_count(job: job_pb2.Job) -> str:
    return f"{formatting.number(job.error_count)} record error{'s' * (job.error_count != 1)}" if job.error_count else ""


def _time(shown: Shown) -> str | None:
    job = shown.job
    if not job.HasField("start_time"):
        return None
    end = formatting.moment(job.end_time) if job.HasField("end_time") else shown.now
    length = formatting.span((end - formatting.moment(job.start_time)).total_seconds())
    return f"took {length}" if job.HasField("end_time") else f"running {length}"


def _joined(*facts: str | Text | None, style: str = "") -> Text:
    return Text(" · ", style).join(fact if isinstance(fact, Text) else Text(fact, style) for fact in facts if fact)


def _cell(words: str, width: int, style: str = "") -> Text:
    cell = Text(words, style)
    cell.truncate(max(width, 1), overflow="ellipsis", pad=True)
    return cell

"""`headway watch` on a terminal: a display that moves, of one job or of a session."""

from __future__ import annotations

import os
import signal
import sys
import time
from collections import Counter
from collections.abc import Iterator
from datetime import UTC, datetime

from rich.console import Console, Group, RenderableType
from rich.live import Live
from rich.text import Text

from headway.cli import text
from headway.cli.safe import safe
from headway.cli.watch import EXIT, Watch
from headway.v1 import job_pb2

LAST_ERRORS = 3
"""Record errors shown below a job."""
MOST_PARTS = 8
"""Parts with a bar of their own."""
BESIDE, ENOUGH_BESIDE = 48, 54
"""Columns of facts beside a bar, at least and if there is room. With fewer they stand below it."""
SHORTEST_BAR, LONGEST_BAR = 12, 24
"""Columns of a bar beside facts."""
QUIET = 1.0
"""Seconds before a word is said about what does not come: a restart of the server takes less, the first job too."""
TERMINATED = 143
"""Exit status by custom after SIGTERM."""
_WHOLE_PICTURE = 1 << 18
"""Bytes; more than the largest terminal takes."""

_COLOURS = {
    job_pb2.JOB_STATUS_PENDING: "bright_black",
    job_pb2.JOB_STATUS_RUNNING: "cyan",
    job_pb2.JOB_STATUS_LOST: "yellow",
    job_pb2.JOB_STATUS_COMPLETED: "green",
    job_pb2.JOB_STATUS_FAILED: "red",
    job_pb2.JOB_STATUS_CANCELLED: "magenta",
}
_ORDER = {job_pb2.JOB_STATUS_RUNNING: 0, job_pb2.JOB_STATUS_LOST: 1, job_pb2.JOB_STATUS_PENDING: 2}


class Display:
    """What the terminal shows now. The thread that watches changes it, another draws it 8 times a second."""

    def __init__(self, console: Console) -> None:
        self.console = console
        self.jobs: dict[str, job_pb2.Job] = {}
        self.errors: dict[str, list[job_pb2.RecordError]] = {}
        self._begun = time.monotonic()
        self._away_since: float | None = None

    def miss(self) -> None:
        """The server does not answer just now."""
        self._away_since = time.monotonic()

    def meet(self) -> None:
        """The server answers again."""
        self._away_since = None

    def __rich__(self) -> RenderableType:
        now = datetime.now(UTC)
        # Copied in one step: the other thread may add a job meanwhile.
        jobs = sorted(self.jobs.values(), key=_place)
        # One line is the cursor's, one for what may have to be said below.
        width, height = self.console.width, max(self.console.height - 2, 2)
        if not jobs:
            quiet = time.monotonic() - self._begun < QUIET
            lines = [Text("" if quiet else "no jobs in this session yet", "dim")]
        elif len(jobs) == 1:
            lines = list(_in_full(jobs[0], self.errors.get(jobs[0].id, []), now, width))[:height]
        else:
            lines = self._overview(jobs, now, width, height)
        away_since = self._away_since
        if away_since is not None and time.monotonic() - away_since > QUIET:
            lines.append(Text("the server does not answer; trying again", "yellow"))
        for line in lines:
            line.truncate(width, overflow="ellipsis")
        return Group(*lines)

    def _overview(self, jobs: list[job_pb2.Job], now: datetime, width: int, height: int) -> list[Text]:
        """A line a job, and more of those that go on while there is room."""
        shown, hidden = jobs, jobs[:0]
        if len(jobs) > height:
            shown, hidden = jobs[: height - 1], jobs[height - 1 :]
        columns = _Columns(width, max(Text(_name(job)).cell_len for job in shown))
        room = max(height - len(jobs), 0)
        blocks = [(job, [_in_line(job, now, columns)]) for job in shown]
        if columns.narrow:
            for job, block in blocks[:room]:
                block.append(Text("  ") + _facts(job, now))
            room = max(room - len(blocks), 0)
        for job, block in blocks:
            if job.status not in text.ENDED:
                said = list(_details(job, self.errors.get(job.id, [])))
                parts = list(_parts(job, columns.name + 10, columns.bar))
                more = next(choice for choice in ([*said, *parts], said, said[:1], []) if len(choice) <= room)
                room -= len(more)
                block += more
        lines = [line for _, block in blocks for line in block]
        if hidden:
            kinds = Counter(_status(job)[0].lower() for job in hidden)
            told = ", ".join(f"{text.number(count)} {kind}" for kind, count in kinds.items())
            lines.append(Text(f"… and {told}", "dim"))
        return lines


class _Columns:
    """How wide what is: the name, after it 9 columns of status, the bar, 6 of percentage."""

    def __init__(self, width: int, longest_name: int) -> None:
        self.name = max(min(longest_name, width // 4, 32), 1)
        left = width - self.name - 18
        self.narrow = left < SHORTEST_BAR + BESIDE
        self.bar = (
            max(min(left, width // 2), 1) if self.narrow else min(max(left - ENOUGH_BESIDE, SHORTEST_BAR), LONGEST_BAR)
        )


def as_display(watch: Watch) -> int:
    """Shows the watch on the terminal. Returns the exit status."""
    # A terminal's own stream is written to line by line, and half a picture would flicker.
    stream = os.fdopen(sys.stdout.fileno(), "w", _WHOLE_PICTURE, "utf-8", "backslashreplace", closefd=False)
    console = Console(file=stream, markup=False, emoji=False, highlight=False)
    display = Display(console)
    watch.on_away, watch.on_back, watch.on_anew = display.miss, display.meet, display.jobs.clear
    single = watch.job_id is not None
    # The default action would leave the terminal without its cursor.
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(TERMINATED))
    errors_read = 0.0
    known_errors: dict[str, int] = {}
    with Live(display, console=console, refresh_per_second=8) as live:
        for change in watch:
            if not change.HasField("job"):
                display.jobs.pop(change.removed_job_id, None)
                continue
            job = change.job
            display.jobs[job.id] = job
            status = EXIT.get(job.status) if single else None
            # At most one call a second for them, but the last ones of a single job always.
            if job.error_count != known_errors.get(job.id, 0) and (
                status is not None or time.monotonic() - errors_read > 1
            ):
                display.errors[job.id] = watch.last_errors(job.id, LAST_ERRORS)
                known_errors[job.id] = job.error_count
                errors_read = time.monotonic()
            if status is not None:
                live.refresh()
                return status
    return 1


def _place(job: job_pb2.Job) -> tuple[int, float, str]:
    """What goes on stands first, in the order that it began, so that lines keep their places; what ended last comes
    before what ended earlier."""
    if job.status in text.ENDED:
        return len(_ORDER), -text.moment(job.end_time).timestamp(), job.id
    return _ORDER.get(job.status, 0), text.moment(job.create_time).timestamp(), job.id


def _in_full(job: job_pb2.Job, errors: list[job_pb2.RecordError], now: datetime, width: int) -> Iterator[Text]:
    word, style = _status(job)
    status = _joined(word, _attempt(job), style=f"bold {style}")
    yield _cell(_name(job), width - status.cell_len - 1, "bold") + " " + status
    yield _bar(job, now, width - 6) + _percent(job)
    count = None if job.unit == "%" else text.count(job)
    yield _joined(count, text.rate(job), text.remaining(job, now), _time(job, now))
    yield from _parts(job, min(width // 4, 32), width - min(width // 4, 32) - 12)
    if job.counters:
        yield Text(_counters(job))
    for warning in _warnings(job, now):
        yield Text(warning, "bold yellow")
    if job.error_count:
        yield Text(_error_count(job), "red")
        for error in errors:
            yield Text("  " + text.record_error(error), "red")
    if reason := text.ending(job):
        yield Text(reason, f"bold {style}")
    elif job.message:
        yield Text(safe(job.message), "dim")


def _in_line(job: job_pb2.Job, now: datetime, columns: _Columns) -> Text:
    word, style = _status(job)
    name = _cell(_name(job), columns.name, "" if job.status in text.ENDED else "bold")
    line = Text(" ").join([name, _cell(word, 9, style), _bar(job, now, columns.bar) + _percent(job)])
    return line if columns.narrow else line + "  " + _facts(job, now)


def _details(job: job_pb2.Job, errors: list[job_pb2.RecordError]) -> Iterator[Text]:
    """What else there is to say of a job that goes on."""
    if said := _joined(_attempt(job), safe(job.message), _counters(job), style="dim"):
        yield Text("  ") + said
    if job.error_count:
        last = f", the last: {text.record_error(errors[-1])}" if errors else ""
        yield Text(f"  {_error_count(job)}{last}", "red")


def _facts(job: job_pb2.Job, now: datetime) -> Text:
    """What stands beside a bar and its percentage, the most urgent first."""
    count = None if job.unit == "%" else text.count(job)
    if job.status in text.ENDED:
        reason = Text(text.ending(job) or "", _status(job)[1])
        return _joined(reason, count, _time(job, now), _counters(job), _error_count(job))
    if warnings := _warnings(job, now):
        return _joined(*(Text(warning, "yellow") for warning in warnings), count)
    return _joined(count, text.rate(job, with_unit=False), text.remaining(job, now) or _time(job, now))


def _parts(job: job_pb2.Job, indent: int, width: int) -> Iterator[Text]:
    """A bar for each part. Parts have no size of their own: full is an even share of the job's, or the longest part."""
    parts = sorted((name, done) for name, done in job.parts.items() if name)
    full = max(1, *(done for _, done in parts), job.size // len(parts)) if parts else 1
    for name, done in parts[:MOST_PARTS]:
        bar = _drawn(done / full, width, "blue")
        yield _cell(f"  {safe(name)}", indent) + " " + bar + f" {text.number(done)}"
    if len(parts) > MOST_PARTS:
        yield Text(f"  … {len(parts) - MOST_PARTS} more parts", "dim")


def _bar(job: job_pb2.Job, now: datetime, width: int) -> Text:
    _, style = _status(job)
    if job.size or job.status != job_pb2.JOB_STATUS_RUNNING:
        done = job.status == job_pb2.JOB_STATUS_COMPLETED
        return _drawn(job.progress / job.size if job.size else float(done), width, style)
    # Nobody knows how far it is; what moves says that it goes on.
    length = max(width // 5, 1)
    begin = int(now.timestamp() * 8) % (width + length) - length
    before, after = max(begin, 0), max(width - begin - length, 0)
    return Text.assemble(
        ("─" * before, "bright_black"), ("━" * (width - before - after), style), ("─" * after, "bright_black")
    )


def _drawn(share: float, width: int, style: str) -> Text:
    """A bar that shows its end without colours too."""
    halves = int(min(max(share, 0.0), 1.0) * width * 2)
    done = "━" * (halves // 2) + "╾" * (halves % 2)
    return Text.assemble((done, style), ("─" * (width - len(done)), "bright_black"))


def _percent(job: job_pb2.Job) -> Text:
    share = text.share(job)
    return Text("      " if share is None else f"{f'{share} %':>6}")


def _status(job: job_pb2.Job) -> tuple[str, str]:
    """The word for where the job stands, and its colour."""
    if job.stalled:
        return "STALLED", "yellow"
    return text.status(job), _COLOURS.get(job.status, "")


def _name(job: job_pb2.Job) -> str:
    return safe(job.name) or job.id


def _warnings(job: job_pb2.Job, now: datetime) -> list[str]:
    # What the status says already is not said again.
    return [warning.removeprefix("STALLED: ") for warning in text.warnings(job, now)]


def _attempt(job: job_pb2.Job) -> str:
    return f"attempt {job.attempt}" if job.attempt > 1 else ""


def _counters(job: job_pb2.Job) -> str:
    return " · ".join(f"{safe(name)} {text.number(count)}" for name, count in sorted(job.counters.items()))


def _error_count(job: job_pb2.Job) -> str:
    return f"{text.number(job.error_count)} record error{'s' * (job.error_count != 1)}" if job.error_count else ""


def _time(job: job_pb2.Job, now: datetime) -> str | None:
    if not job.HasField("start_time"):
        return None
    end = text.moment(job.end_time) if job.HasField("end_time") else now
    length = text.span((end - text.moment(job.start_time)).total_seconds())
    return f"took {length}" if job.HasField("end_time") else f"running {length}"


def _joined(*facts: str | Text | None, style: str = "") -> Text:
    return Text(" · ", style).join(fact if isinstance(fact, Text) else Text(fact, style) for fact in facts if fact)


def _cell(words: str, width: int, style: str = "") -> Text:
    cell = Text(words, style)
    cell.truncate(max(width, 1), overflow="ellipsis", pad=True)
    return cell

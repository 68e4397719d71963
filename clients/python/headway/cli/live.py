"""`headway watch` on a terminal: a display that moves, of one job or of a session."""

from __future__ import annotations

import signal
import sys
import time
from collections.abc import Iterator
from datetime import UTC, datetime

from rich.console import Console, Group, RenderableType
from rich.live import Live
from rich.progress_bar import ProgressBar
from rich.table import Table
from rich.text import Text

from headway.cli import text
from headway.cli.safe import safe
from headway.cli.watch import EXIT, Anew, Away, Back, Watch
from headway.v1 import job_pb2

LAST_ERRORS = 3
"""Record errors shown below a job."""
MOST_PARTS = 8
"""Parts with a bar of their own."""
TERMINATED = 143
"""Exit status by custom after SIGTERM."""

_COLOURS = {
    job_pb2.JOB_STATUS_PENDING: "dim",
    job_pb2.JOB_STATUS_RUNNING: "cyan",
    job_pb2.JOB_STATUS_LOST: "yellow",
    job_pb2.JOB_STATUS_COMPLETED: "green",
    job_pb2.JOB_STATUS_FAILED: "red",
    job_pb2.JOB_STATUS_CANCELLED: "magenta",
}


class Display:
    """What the terminal shows now. The thread that watches changes it, another draws it 8 times a second."""

    def __init__(self, console: Console, *, single: bool) -> None:
        self.console = console
        self.single = single
        self.jobs: dict[str, job_pb2.Job] = {}
        self.errors: dict[str, list[job_pb2.RecordError]] = {}
        self.away = False

    def __rich__(self) -> RenderableType:
        now = datetime.now(UTC)
        # Copied in one step: the other thread may add a job meanwhile.
        jobs = list(self.jobs.values())
        jobs.sort(key=lambda job: (job.status in text.ENDED, -job.create_time.seconds))
        if not jobs:
            blocks: list[RenderableType] = [Text("no jobs in this session yet", "dim")]
        elif len(jobs) == 1:
            blocks = list(_block(jobs[0], self.errors.get(jobs[0].id, []), now))
        else:
            room = max(1, self.console.height - 3)
            blocks = [_overview(jobs[:room], now)]
            if len(jobs) > room:
                blocks.append(Text(f"… {len(jobs) - room} more", "dim"))
        if self.away:
            blocks.append(Text("the server does not answer; trying again", "yellow"))
        return Group(*blocks)


def as_display(watch: Watch) -> int:
    """Shows the watch on the terminal. Returns the exit status."""
    console = Console(markup=False, emoji=False, highlight=False)
    display = Display(console, single=watch.job_id is not None)
    # The default action would leave the terminal without its cursor.
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(TERMINATED))
    errors_read = 0.0
    with Live(display, console=console, refresh_per_second=8) as live:
        for change in watch:
            if isinstance(change, Away | Back):
                display.away = isinstance(change, Away)
            elif isinstance(change, Anew):
                display.jobs = {}
            elif change.HasField("job"):
                job = change.job
                before = display.jobs.get(job.id)
                display.jobs[job.id] = job
                status = EXIT.get(job.status) if display.single else None
                news = job.error_count and (before is None or before.error_count != job.error_count)
                # At most one call a second for them, but the last ones always.
                if display.single and (status is not None or (news and time.monotonic() - errors_read > 1)):
                    display.errors[job.id] = watch.last_errors(job.id, LAST_ERRORS) if job.error_count else []
                    errors_read = time.monotonic()
                if status is not None:
                    live.refresh()
                    return status
            else:
                display.jobs.pop(change.removed_job_id, None)
    return 1


def _block(job: job_pb2.Job, errors: list[job_pb2.RecordError], now: datetime) -> Iterator[RenderableType]:
    colour = _COLOURS.get(job.status, "")
    head = Table.grid(expand=True, padding=(0, 1))
    head.add_column(ratio=1, overflow="ellipsis", no_wrap=True)
    head.add_column(justify="right", no_wrap=True)
    attempt = f" · attempt {job.attempt}" if job.attempt > 1 else ""
    head.add_row(Text(safe(job.name) or job.id, "bold"), Text(text.status(job) + attempt, f"bold {colour}"))
    yield head
    yield _row(_bar(job, now))
    facts = [text.meter(job), text.rate(job), text.remaining(job, now), _time(job, now)]
    yield _line(" · ".join(fact for fact in facts if fact))
    parts = sorted((name, done) for name, done in job.parts.items() if name)
    if parts:
        yield _parts(parts)
    if job.counters:
        yield _line(" · ".join(f"{safe(name)} {text.number(count)}" for name, count in sorted(job.counters.items())))
    for warning in text.warnings(job, now):
        yield _line(warning, "bold yellow")
    if job.error_count:
        yield _line(f"{text.number(job.error_count)} record error{'s' if job.error_count > 1 else ''}", "red")
        for error in errors:
            yield _line("  " + text.record_error(error), "red")
    if reason := text.ending(job):
        yield _line(reason, f"bold {colour}")
    elif job.message:
        yield _line(safe(job.message), "dim")


def _overview(jobs: list[job_pb2.Job], now: datetime) -> RenderableType:
    grid = Table.grid(expand=True, padding=(0, 1))
    grid.add_column(ratio=2, overflow="ellipsis", no_wrap=True)
    grid.add_column(no_wrap=True)
    grid.add_column(ratio=2, min_width=10)
    grid.add_column(ratio=3, overflow="ellipsis", no_wrap=True)
    for job in jobs:
        facts = [text.meter(job), text.remaining(job, now), *text.warnings(job, now), *text.tallies(job)]
        facts.append(text.ending(job))
        colour = "yellow" if job.stalled else _COLOURS.get(job.status, "")
        grid.add_row(
            Text(safe(job.name) or job.id),
            Text(text.status(job), colour),
            _bar(job, now),
            Text(" · ".join(fact for fact in facts if fact), overflow="ellipsis"),
        )
    return grid


def _parts(parts: list[tuple[str, int]]) -> RenderableType:
    """A bar for each part, the longest one full: parts have no size of their own."""
    longest = max(1, *(done for _, done in parts))
    grid = Table.grid(expand=True, padding=(0, 1))
    grid.add_column(overflow="ellipsis", no_wrap=True, max_width=24)
    grid.add_column(ratio=1)
    grid.add_column(justify="right", no_wrap=True)
    for name, done in parts[:MOST_PARTS]:
        bar = ProgressBar(total=longest, completed=done, complete_style="blue", finished_style="blue")
        grid.add_row(Text("  " + safe(name)), bar, Text(text.number(done)))
    if len(parts) > MOST_PARTS:
        grid.add_row(Text(f"  … {len(parts) - MOST_PARTS} more", "dim"))
    return grid


def _row(bar: ProgressBar) -> Table:
    """The bar on a line of its own: by itself it does not end its line."""
    grid = Table.grid(expand=True)
    grid.add_row(bar)
    return grid


def _bar(job: job_pb2.Job, now: datetime) -> ProgressBar:
    done, size = job.progress, job.size
    colour = _COLOURS.get(job.status, "")
    running = job.status == job_pb2.JOB_STATUS_RUNNING
    if not size and job.status == job_pb2.JOB_STATUS_COMPLETED:
        done = size = 1
    return ProgressBar(
        total=size or None if running else size or 1,
        completed=min(done, size) if size else 0,
        pulse=running and not size,
        animation_time=now.timestamp() % 1000,
        complete_style=colour,
        finished_style=colour,
    )


def _time(job: job_pb2.Job, now: datetime) -> str | None:
    if not job.HasField("start_time"):
        return None
    end = text.moment(job.end_time) if job.HasField("end_time") else now
    length = text.span((end - text.moment(job.start_time)).total_seconds())
    return f"took {length}" if job.HasField("end_time") else f"running {length}"


def _line(words: str, style: str = "") -> Text:
    return Text(words, style, no_wrap=True, overflow="ellipsis")

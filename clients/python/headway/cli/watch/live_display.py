"""`headway watch` on a terminal: a live display of one job or of a session."""

from __future__ import annotations

import os
import signal
import sys
import threading
import time
from collections import Counter
from collections.abc import Sequence
from datetime import UTC, datetime

from rich.console import Console, Group, RenderableType
from rich.live import Live
from rich.text import Text

from headway.cli import formatting
from headway.cli.exit_codes import ERROR, TERMINATED
from headway.cli.watch import job_lines
from headway.cli.watch.follow import JOB_EXIT_CODES, Watch
from headway.cli.watch.job_lines import Columns, Shown
from headway.cli.watch.lateness import Contacts
from headway.v1 import job_pb2

LAST_ERRORS = 3
"""Record errors shown below a job."""
ENDED_LINES = 4
"""Lines for ended jobs that come before more facts about the other jobs."""
QUIET = 1.0
"""Seconds until the display says that it waits. A restart of the server takes less, and so does the first job."""
ERRORS_PAUSE = 1.0
"""Seconds between two calls for the last record errors."""
_WHOLE_PICTURE = 1 << 18
"""Bytes: more than the largest terminal shows."""

_ORDER = {job_pb2.JOB_STATUS_RUNNING: 0, job_pb2.JOB_STATUS_LOST: 1, job_pb2.JOB_STATUS_PENDING: 2}


class Display:
    """The current picture of the terminal. The watching thread changes it, and another thread draws it 8 times a
    second."""

    def __init__(self, console: Console) -> None:
        self.console = console
        self.jobs: dict[str, job_pb2.Job] = {}
        self.errors: dict[str, Sequence[job_pb2.RecordError]] = {}
        self.contacts = Contacts()
        self._begun = time.monotonic()
        self._away_since: float | None = None

    def miss(self) -> None:
        """The server does not answer now."""
        self._away_since = time.monotonic()

    def meet(self) -> None:
        """The server answers again."""
        self._away_since = None

    def __rich__(self) -> RenderableType:
        now = datetime.now(UTC)
        # Copied in one step: the other thread may add a job meanwhile.
        jobs = [self._shown(job, now) for job in sorted(self.jobs.values(), key=_place)]
        # One line is for the cursor, one for a message below.
        width, height = self.console.width, max(self.console.height - 2, 2)
        if not jobs:
            quiet = time.monotonic() - self._begun < QUIET
            lines = [Text("" if quiet else "no jobs in this session yet", "dim")]
        elif len(jobs) == 1:
            lines = list(job_lines.in_full(jobs[0], width))[:height]
        else:
            lines = _overview(jobs, width, height)
        away_since = self._away_since
        if away_since is not None and time.monotonic() - away_since > QUIET:
            lines.append(Text("the server does not answer; trying again", "yellow"))
        for line in lines:
            line.truncate(width, overflow="ellipsis")
        return Group(*lines)

    def _shown(self, job: job_pb2.Job, now: datetime) -> Shown:
        # Without a server the display cannot know whether a worker reports.
        silent = None if self._away_since is not None else self.contacts.silence(job, now)
        return Shown(job, now, silent, self.errors.get(job.id, ()))


def _overview(jobs: list[Shown], width: int, height: int) -> list[Text]:
    """One line for each job, and more for running jobs if there is room. Ended jobs are hidden first, failed ones
    last."""
    going = [job for job in jobs if not job.ended]
    ended = [job for job in jobs if job.ended]
    columns = Columns(width, max(Text(job.name).cell_len for job in jobs))
    # One line shows how many jobs are hidden.
    kept = min(len(ended), 1 if len(going) < height else 0)
    brief = columns.narrow and 2 * len(going) + kept > height
    blocks = [[job_lines.in_brief(job, columns)] if brief else job_lines.with_bar(job, columns) for job in going]
    room = height - sum(len(block) for block in blocks)
    spare = room - min(len(ended), ENDED_LINES)
    for job, block in zip(going, blocks, strict=True):
        said = list(job_lines.details(job))
        parts = list(job_lines.parts(job, columns.name + 10, columns.bar))
        more = next(choice for choice in ([*said, *parts], said, said[:1], []) if len(choice) <= max(spare, 0))
        spare, room = spare - len(more), room - len(more)
        block += more
    if room < 0:
        blocks, hidden = blocks[: height - 1], [*going[height - 1 :], *ended]
    else:
        shown = _most_telling(ended, room)
        two = columns.narrow and not brief and 2 * len(shown) <= room and len(shown) == len(ended)
        blocks += [
            job_lines.with_bar(job, columns) if two or not columns.narrow else [job_lines.in_brief(job, columns)]
            for job in shown
        ]
        hidden = [job for job in ended if job not in shown]
    lines = [line for block in blocks for line in block]
    if hidden:
        kinds = Counter(job.status.lower() for job in hidden)
        told = ", ".join(f"{formatting.number(count)} {kind}" for kind, count in kinds.items())
        lines.append(Text(f"… and {told}", "dim"))
    return lines


def _most_telling(ended: list[Shown], room: int) -> list[Shown]:
    """The ended jobs that fit, with one line less if not all fit. Jobs that are not COMPLETED come first. They keep
    their order."""
    if len(ended) <= room:
        return ended
    badly = [job for job in ended if job.job.status != job_pb2.JOB_STATUS_COMPLETED]
    well = [job for job in ended if job.job.status == job_pb2.JOB_STATUS_COMPLETED]
    chosen = {job.job.id for job in [*badly, *well][: max(room - 1, 0)]}
    return [job for job in ended if job.job.id in chosen]


class _Errors:
    """Fetches the last record errors of jobs in a thread of its own. It limits the calls, and always makes one after
    the last change."""

    def __init__(self, display: Display, watch: Watch) -> None:
        self._display = display
        self._watch = watch
        self._known: dict[str, int] = {}
        self._changed = threading.Event()
        self._over = False
        self._thread = threading.Thread(target=self._run, name="headway-errors", daemon=True)
        self._thread.start()

    def look(self) -> None:
        """There may be new ones."""
        self._changed.set()

    def finish(self) -> None:
        """Fetches the last ones."""
        self._over = True
        self._changed.set()
        self._thread.join()

    def _run(self) -> None:
        while not self._over:
            self._changed.wait()
            self._changed.clear()
            for job in list(self._display.jobs.values()):
                if job.error_count == self._known.get(job.id, 0):
                    continue
                # None if the server does not answer now.
                if found := self._watch.last_errors(job.id, LAST_ERRORS):
                    self._known[job.id] = job.error_count
                    self._display.errors[job.id] = found
            end = time.monotonic() + ERRORS_PAUSE
            while not self._over and time.monotonic() < end:
                time.sleep(0.05)


def as_display(watch: Watch) -> int:
    """Shows the watch on the terminal. Returns the exit status."""
    # The stream of a terminal writes line by line, and half a picture would flicker.
    stream = os.fdopen(sys.stdout.fileno(), "w", _WHOLE_PICTURE, "utf-8", "backslashreplace", closefd=False)
    console = Console(file=stream, markup=False, emoji=False, highlight=False)
    display = Display(console)
    watch.on_unreachable, watch.on_back, watch.on_anew = display.miss, display.meet, display.jobs.clear
    # The default action would leave the terminal without its cursor.
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(TERMINATED))
    errors = _Errors(display, watch)
    with Live(display, console=console, refresh_per_second=8) as live:
        for change in watch:
            if not change.HasField("job") or not watch.means(change.job):
                gone = change.removed_job_id or change.job.id
                display.jobs.pop(gone, None)
                display.contacts.forget(gone)
                continue
            job = change.job
            display.jobs[job.id] = job
            display.contacts.hear(job)
            errors.look()
            if watch.job_id is not None and (status := JOB_EXIT_CODES.get(job.status)) is not None:
                errors.finish()
                live.refresh()
                return status
    return ERROR


def _place(job: job_pb2.Job) -> tuple[int, float, str]:
    """Running jobs come first, in the order of their start, so that lines keep their places. Ended jobs follow, the
    latest first."""
    if job.status in formatting.ENDED:
        return len(_ORDER), -formatting.moment(job.end_time).timestamp(), job.id
    return _ORDER.get(job.status, 0), formatting.moment(job.create_time).timestamp(), job.id

"""Jobs as text for people. All text from workers goes through `safe`."""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Iterable, Iterator
from datetime import UTC, datetime
from typing import TYPE_CHECKING

from google.protobuf import json_format

from headway.cli.escaping import safe
from headway.v1 import job_pb2

if TYPE_CHECKING:
    from google.protobuf.duration_pb2 import Duration
    from google.protobuf.message import Message
    from google.protobuf.struct_pb2 import Value
    from google.protobuf.timestamp_pb2 import Timestamp

_EACH = ((1, "s"), (60, "min"), (3600, "h"))
_STEPS = ((20, 1), (100, 5), (600, 10), (6000, 60), (360_000, 300))
"""Seconds: estimates up to the first number are rounded to the second one. Finer steps would only flicker."""

SILENT_AFTER = 5.0
"""Seconds without a report that are not shown."""
MOST_BEGINNINGS = 3
"""The first revisions, which do not show how often a worker reports."""
LATE = 3
"""A report is late after this many times the usual interval."""

ENDED = (job_pb2.JOB_STATUS_COMPLETED, job_pb2.JOB_STATUS_FAILED, job_pb2.JOB_STATUS_CANCELLED)


def to_json(message: Message, *, indent: int | None = None) -> str:
    """The protobuf JSON mapping as the HTTP port has it: lowerCamelCase names, and default values printed."""
    fields = json_format.MessageToDict(message, always_print_fields_with_no_presence=True)
    return json.dumps(_whole(fields), indent=indent)


def value_json(value: Value, *, indent: int | None = None) -> str:
    """A JSON value for people, with the characters of all scripts unescaped."""
    return safe(json.dumps(_whole(json_format.MessageToDict(value)), indent=indent, ensure_ascii=False), keep="\n")


def _whole(value: object) -> object:
    """The value with 412 for 412.0. All numbers of JSON are doubles, but most are meant as integers."""
    match value:
        case dict():
            return {key: _whole(item) for key, item in value.items()}
        case list():
            return [_whole(item) for item in value]
        case float() if value.is_integer() and abs(value) <= 2**53:
            return int(value)
    return value


def status(job: job_pb2.Job) -> str:
    """RUNNING, LOST, …"""
    return status_name(job.status)


def status_name(value: int) -> str:
    """RUNNING for JOB_STATUS_RUNNING; a status newer than this program by its number."""
    name = job_pb2.JobStatus.DESCRIPTOR.values_by_number.get(value)
    return name.name.removeprefix("JOB_STATUS_") if name else str(value)


def number(value: float) -> str:
    """1,234,567 · 12 · 1.2 · 0.012: thousands are separated, and only significant digits are shown."""
    if value == int(value) or abs(value) >= 10:
        return f"{value:,.0f}"
    return f"{value:.1f}" if abs(value) >= 1 else f"{value:.2g}"


def span(length: float) -> str:
    """42 s · 10 min 17 s · 2 h 3 min · 5 d: a length of time."""
    whole = round(max(length, 0))
    if whole < 100:
        return f"{whole} s"
    minutes, left = divmod(whole, 60)
    if minutes < 100:
        return f"{minutes} min {left} s" if left else f"{minutes} min"
    hours, left = divmod(minutes, 60)
    if hours < 100:
        return f"{hours} h {left} min" if left else f"{hours} h"
    return f"{hours // 24} d"


def seconds(duration: Duration) -> float:
    return duration.seconds + duration.nanos / 1e9


def moment(time: Timestamp) -> datetime:
    return datetime.fromtimestamp(time.seconds + time.nanos / 1e9, UTC)


def clock(time: Timestamp) -> str:
    """Local date and time, with the offset from UTC, to the second."""
    return moment(time).astimezone().isoformat(" ", "seconds")


def share(job: job_pb2.Job) -> int | None:
    """The percentage, for example 25. None if the size is not known."""
    return job.progress * 100 // job.size if job.size else None


def count(job: job_pb2.Job) -> str:
    """50/200 records · 3.40/10.2 GB · 25 %"""
    amounts = [job.progress, job.size] if job.size else [job.progress]
    if job.unit == "%":
        return f"{number(job.progress)} %"
    if job.unit == "bytes":
        power, name = _scale(max(amounts))
        return f"{'/'.join(_short(amount / power) for amount in amounts)} {name}"
    return f"{'/'.join(number(amount) for amount in amounts)} {safe(job.unit)}".rstrip()


def meter(job: job_pb2.Job) -> str:
    """50/200 records (25 %)"""
    return count(job) if job.unit == "%" or not job.size else f"{count(job)} ({share(job)} %)"


def remaining(job: job_pb2.Job, now: datetime) -> str | None:
    """40 to 50 s left. None without an estimate, or if it has passed.

    The longer nothing is heard, the sooner it may be over: but not at the latest, once progress is overdue.
    """
    if not job.HasField("estimate") or not _moves(job):
        return None
    estimate = job.estimate
    passed = max((now - moment(estimate.as_of)).total_seconds(), 0.0)
    low, high = seconds(estimate.remaining_low), seconds(estimate.remaining_high)
    if passed > high:
        return None
    due = 1 / estimate.rate if estimate.rate > 0 else 0.0
    soonest, latest = _rough(low - passed, math.floor), _rough(high - min(passed, due), math.ceil)
    if soonest == latest:
        return f"{latest} left"
    if soonest == "0 s":
        return f"up to {latest} left"
    first, _, unit = soonest.partition(" ")
    shared = latest.split()[1:] == [unit]
    return f"{first if shared else soonest} to {latest} left"


def silence(job: job_pb2.Job, now: datetime, usual: float | None = None) -> str | None:
    """ "no report for 30 s" if the worker is late, else None. `usual`: seconds between its reports as the reader has
    seen them. Without it the average counts, or the heartbeat timeout."""
    if job.status != job_pb2.JOB_STATUS_RUNNING or not job.HasField("last_contact_time"):
        return None
    contact = moment(job.last_contact_time)
    if usual is None and job.revision > MOST_BEGINNINGS:
        usual = (contact - moment(job.start_time)).total_seconds() / (job.revision - 1)
    elif usual is None and seconds(job.heartbeat_timeout):
        usual = seconds(job.heartbeat_timeout) / 2 / LATE
    elif usual is None:
        return None
    length = (now - contact).total_seconds()
    return f"no report for {span(length)}" if length > max(SILENT_AFTER, LATE * usual) else None


def pace(job: job_pb2.Job, silent: str | None, *, with_unit: bool = True) -> str | None:
    """Like `rate`, or `last 120/s` if the current rate is unknown."""
    now = rate(job, with_unit=with_unit)
    return f"last {now}" if now and silent else now


def rate(job: job_pb2.Job, *, with_unit: bool = True) -> str | None:
    """120 records/s, or 120/s. That is the current rate, or the average if the job has ended or has no size. None if it
    is not known."""
    ended = job.HasField("end_time")
    if job.unit == "%" or not (ended or _moves(job)):
        return None
    pace = job.estimate.rate
    if ended or not job.HasField("estimate"):
        end = job.end_time if ended else job.last_progress_time
        length = (moment(end) - moment(job.start_time)).total_seconds() if job.HasField("start_time") else 0.0
        pace = job.progress / length if length >= 1 else 0.0
    if pace <= 0:
        return None
    if job.unit == "bytes":
        power, name = _scale(pace)
        return f"{_short(pace / power)} {name}/s"
    per, name = next((each for each in _EACH if pace * each[0] >= 1), _EACH[-1])
    unit = f" {safe(job.unit) or 'units'}" if with_unit else ""
    return f"{number(pace * per)}{unit}/{name}"


def counters(job: job_pb2.Job) -> list[str]:
    """added 412, updated 88, …, and 3 errors."""
    counters = [f"{safe(name)} {number(count)}" for name, count in sorted(job.counters.items())]
    errors = f"{number(job.error_count)} record error{'s' if job.error_count != 1 else ''}"
    return [*counters, errors] if job.error_count else counters


def warnings(job: job_pb2.Job, now: datetime) -> list[str]:
    """What needs attention: lost, stalled, about to be cancelled."""
    found = []
    if job.status == job_pb2.JOB_STATUS_LOST:
        found.append(f"no contact for {span((now - moment(job.last_contact_time)).total_seconds())}")
    if job.stalled:
        since = job.last_progress_time if job.HasField("last_progress_time") else job.start_time
        found.append(f"STALLED: no progress for {span((now - moment(since)).total_seconds())}")
    if job.cancellation.requested and job.status not in ENDED:
        reason = f": {safe(job.cancellation.reason)}" if job.cancellation.reason else ""
        left = (moment(job.cancellation.deadline) - now).total_seconds()
        found.append(f"to be cancelled within {span(left)}{reason}")
    return found


def ending(job: job_pb2.Job) -> str | None:
    """Why the job ended, if it is not COMPLETED."""
    return safe(job.error.message) or f"code {job.error.code}" if job.HasField("error") else None


def line(job: job_pb2.Job, now: datetime) -> str:
    """A job in one line, for logs."""
    name = f" {safe(job.name)}" if job.name else ""
    silent = silence(job, now)
    facts = [
        meter(job),
        silent,
        pace(job, silent),
        None if silent else remaining(job, now),
        ", ".join(counters(job)),
        f"attempt {job.attempt}" if job.attempt > 1 else None,
        *warnings(job, now),
        ending(job) or safe(job.message),
    ]
    return f"{job.id} {status(job):<9}{name} · " + " · ".join(fact for fact in facts if fact)


def table(jobs: Iterable[job_pb2.Job]) -> Iterator[str]:
    """A list of jobs, one a line, with a header."""
    yield f"{'JOB':32}  {'STATUS':9}  {'CREATED':25}  NAME"
    for job in jobs:
        mark = " STALLED" if job.stalled else ""
        name = safe(job.name) or "–"
        yield f"{job.id:32}  {status(job):9}  {clock(job.create_time):25}  {name} · {meter(job)}{mark}"


def details(job: job_pb2.Job, now: datetime) -> Iterator[str]:
    """All of a job, a fact a line."""
    silent = silence(job, now)
    facts: list[tuple[str, str | None]] = [
        ("job", job.id),
        ("name", safe(job.name)),
        ("invoker", safe(job.invoker)),
        ("status", " · ".join(fact for fact in [status(job), silent, *warnings(job, now)] if fact)),
        ("progress", meter(job)),
        *((f"part {safe(name)!r}", number(done)) for name, done in sorted(job.parts.items()) if name),
        ("rate", pace(job, silent)),
        ("remaining", None if silent else remaining(job, now)),
        ("counted", ", ".join(counters(job))),
        ("message", safe(job.message)),
        ("error", ending(job)),
        ("labels", ", ".join(f"{safe(key)}={safe(value)}" for key, value in sorted(job.labels.items()))),
        ("attempt", str(job.attempt) if job.attempt else None),
        ("key", safe(job.key)),
        ("continues", job.continues),
        ("continued by", job.continued_by),
        ("created", clock(job.create_time)),
        ("started", clock(job.start_time) if job.HasField("start_time") else None),
        ("ended", clock(job.end_time) if job.HasField("end_time") else None),
        ("last contact", clock(job.last_contact_time) if job.HasField("last_contact_time") else None),
        ("last progress", clock(job.last_progress_time) if job.HasField("last_progress_time") else None),
        *((f"{name} after", span(seconds(length))) for name, length in _limits(job) if seconds(length)),
        *(("history", f"{clock(c.time)} {_change(c)}") for c in job.history),
        ("revision", str(job.revision)),
    ]
    for name, fact in facts:
        if fact:
            yield f"{name + ':':15} {fact}"


def _change(change: job_pb2.StatusChange) -> str:
    name = status_name(change.status)
    # FAILED with the reason "failed" would repeat itself.
    return name if change.reason.upper() == name else f"{name} {safe(change.reason)}".rstrip()


def _limits(job: job_pb2.Job) -> list[tuple[str, Duration]]:
    return [("lost", job.heartbeat_timeout), ("stalled", job.stall_timeout), ("removed", job.retention)]


def record_error(error: job_pb2.RecordError) -> str:
    """A record error in one line: record, code, message."""
    return "  ".join(safe(part) for part in (error.record, error.code, error.message) if part)


def _moves(job: job_pb2.Job) -> bool:
    """Whether a worker works on it now, as far as the server knows."""
    return job.status == job_pb2.JOB_STATUS_RUNNING and not job.stalled


def _rough(length: float, whole: Callable[[float], int]) -> str:
    length = max(length, 0.0)
    step = next((step for most, step in _STEPS if length < most), 86_400)
    return span(whole(length / step) * step)


def _scale(amount: float) -> tuple[int, str]:
    """The power of 1000 for so many bytes, and its name."""
    power = min(int(math.log10(amount) // 3), 5) if amount >= 1 else 0
    return 1000**power, ("bytes", "kB", "MB", "GB", "TB", "PB")[power]


def _short(amount: float) -> str:
    """Three digits: 3.40, 34.0, 340."""
    if amount == int(amount):
        return f"{amount:.0f}"
    return f"{amount:.{max(0, 2 - int(math.log10(max(amount, 1))))}f}"

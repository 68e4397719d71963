"""Jobs as text for people. All that comes from workers passes through `safe`."""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator
from datetime import UTC, datetime
from typing import TYPE_CHECKING

from google.protobuf import json_format

from headway.cli.safe import safe
from headway.v1 import job_pb2

if TYPE_CHECKING:
    from google.protobuf.duration_pb2 import Duration
    from google.protobuf.message import Message
    from google.protobuf.struct_pb2 import Value
    from google.protobuf.timestamp_pb2 import Timestamp

ENDED = (job_pb2.JOB_STATUS_COMPLETED, job_pb2.JOB_STATUS_FAILED, job_pb2.JOB_STATUS_CANCELLED)


def to_json(message: Message, *, indent: int | None = None) -> str:
    """The protobuf JSON mapping, with the proto's field names, and default values printed."""
    fields = json_format.MessageToDict(
        message, preserving_proto_field_name=True, always_print_fields_with_no_presence=True
    )
    return json.dumps(_whole(fields), indent=indent)


def value_json(value: Value, *, indent: int | None = None) -> str:
    """A JSON value as people read it: letters of any script as they are."""
    return safe(json.dumps(_whole(json_format.MessageToDict(value)), indent=indent, ensure_ascii=False), keep="\n")


def _whole(value: object) -> object:
    """The same with 412 for 412.0: all numbers of JSON are doubles, but most were meant as integers."""
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
    """1,234,567 · 12.3 · 0.012: thousands apart, and no more digits than mean something."""
    if value == int(value) or abs(value) >= 100:
        return f"{value:,.0f}"
    return f"{value:.1f}" if abs(value) >= 1 else f"{value:.2g}"


def span(length: float) -> str:
    """42 s · 3:05 min · 2:03 h · 5 d: a length of time."""
    whole = round(max(length, 0))
    if whole < 100:
        return f"{whole} s"
    minutes, left = divmod(whole, 60)
    if minutes < 100:
        return f"{minutes}:{left:02} min"
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02} h" if hours < 100 else f"{hours // 24} d"


def seconds(duration: Duration) -> float:
    return duration.seconds + duration.nanos / 1e9


def moment(time: Timestamp) -> datetime:
    return datetime.fromtimestamp(time.seconds + time.nanos / 1e9, UTC)


def clock(time: Timestamp) -> str:
    """Local date and time, with the offset from UTC, to the second."""
    return moment(time).astimezone().isoformat(" ", "seconds")


def meter(job: job_pb2.Job) -> str:
    """50/200 records (25 %)"""
    size = f"/{number(job.size)}" if job.size else ""
    unit = f" {safe(job.unit)}" if job.unit else ""
    share = f" ({job.progress * 100 // job.size} %)" if job.size else ""
    return f"{number(job.progress)}{size}{unit}{share}"


def remaining(job: job_pb2.Job, now: datetime) -> str | None:
    """40 s to 2:00 min left; None without an estimate."""
    if not job.HasField("estimate"):
        return None
    passed = (now - moment(job.estimate.as_of)).total_seconds()
    low = span(seconds(job.estimate.remaining_low) - passed)
    high = span(seconds(job.estimate.remaining_high) - passed)
    return f"{high} left" if low == high else f"{low} to {high} left"


def rate(job: job_pb2.Job) -> str | None:
    """120 records/s: now, or on the whole if the job has ended; None if it is not known."""
    if job.HasField("end_time") and job.HasField("start_time"):
        length = (moment(job.end_time) - moment(job.start_time)).total_seconds()
        pace = job.progress / length if length >= 1 else 0.0
    else:
        pace = job.estimate.rate
    return f"{number(pace)} {safe(job.unit) or 'units'}/s" if pace > 0 else None


def tallies(job: job_pb2.Job) -> list[str]:
    """added 412, updated 88, …, and 3 errors."""
    counters = [f"{safe(name)} {number(count)}" for name, count in sorted(job.counters.items())]
    errors = f"{number(job.error_count)} record error{'s' if job.error_count != 1 else ''}"
    return [*counters, errors] if job.error_count else counters


def warnings(job: job_pb2.Job, now: datetime) -> list[str]:
    """What somebody should look at: lost, stalled, about to be cancelled."""
    found = []
    if job.status == job_pb2.JOB_STATUS_LOST:
        found.append(f"no contact for {span((now - moment(job.last_contact_time)).total_seconds())}")
    if job.stalled:
        since = job.last_progress_time if job.HasField("last_progress_time") else job.start_time
        found.append(f"STALLED: no progress for {span((now - moment(since)).total_seconds())}")
    if job.cancellation.requested and job.status not in ENDED:
        reason = f": {safe(job.cancellation.reason)}" if job.cancellation.reason else ""
        found.append(f"to be cancelled by {clock(job.cancellation.deadline)}{reason}")
    return found


def ending(job: job_pb2.Job) -> str | None:
    """Why it ended, if it ended otherwise than well."""
    return safe(job.error.message) or f"code {job.error.code}" if job.HasField("error") else None


def line(job: job_pb2.Job, now: datetime) -> str:
    """A job in one line, for logs."""
    name = f" {safe(job.name)}" if job.name else ""
    facts = [
        meter(job),
        rate(job),
        remaining(job, now),
        ", ".join(tallies(job)),
        f"attempt {job.attempt}" if job.attempt > 1 else None,
        *warnings(job, now),
        ending(job) or safe(job.message),
    ]
    return f"{job.id} {status(job):<9}{name} · " + " · ".join(fact for fact in facts if fact)


def table(jobs: Iterable[job_pb2.Job]) -> Iterator[str]:
    """A list of jobs, one a line under a head."""
    yield f"{'JOB':32}  {'STATUS':9}  {'CREATED':25}  NAME"
    for job in jobs:
        mark = " STALLED" if job.stalled else ""
        name = safe(job.name) or "–"
        yield f"{job.id:32}  {status(job):9}  {clock(job.create_time):25}  {name} · {meter(job)}{mark}"


def details(job: job_pb2.Job, now: datetime) -> Iterator[str]:
    """All of a job, a fact a line."""
    facts: list[tuple[str, str | None]] = [
        ("job", job.id),
        ("name", safe(job.name)),
        ("invoker", safe(job.invoker)),
        ("status", " · ".join([status(job), *warnings(job, now)])),
        ("progress", meter(job)),
        *((f"part {safe(name)!r}", number(done)) for name, done in sorted(job.parts.items()) if name),
        ("rate", rate(job)),
        ("remaining", remaining(job, now)),
        ("counted", ", ".join(tallies(job))),
        ("message", safe(job.message)),
        ("error", ending(job)),
        ("labels", ", ".join(f"{safe(key)}={safe(value)}" for key, value in sorted(job.labels.items()))),
        ("attempt", str(job.attempt) if job.attempt else None),
        ("created", clock(job.create_time)),
        ("started", clock(job.start_time) if job.HasField("start_time") else None),
        ("ended", clock(job.end_time) if job.HasField("end_time") else None),
        ("last contact", clock(job.last_contact_time) if job.HasField("last_contact_time") else None),
        ("last progress", clock(job.last_progress_time) if job.HasField("last_progress_time") else None),
        *((f"{name} after", span(seconds(length))) for name, length in _limits(job) if seconds(length)),
        *(("history", f"{clock(c.time)} {status_name(c.status)} {safe(c.reason)}") for c in job.history),
        ("revision", str(job.revision)),
    ]
    for name, fact in facts:
        if fact:
            yield f"{name + ':':15} {fact}"


def _limits(job: job_pb2.Job) -> list[tuple[str, Duration]]:
    return [("lost", job.heartbeat_timeout), ("stalled", job.stall_timeout), ("removed", job.retention)]


def record_error(error: job_pb2.RecordError) -> str:
    """A record error in one line: record, code, message."""
    return "  ".join(safe(part) for part in (error.record, error.code, error.message) if part)

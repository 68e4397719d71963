"""Jobs as text."""

from datetime import UTC, datetime, timedelta

import pytest
from google.protobuf.struct_pb2 import Value
from google.protobuf.timestamp_pb2 import Timestamp

from headway.cli import formatting
from headway.cli.escaping import safe
from headway.v1 import job_pb2

NOW = datetime(2026, 1, 2, 3, 4, 5, tzinfo=UTC)


@pytest.mark.parametrize(
    ("raw", "shown"),
    [
        ("plain", "plain"),
        ("\x1b[31mred\x1b[0m", "\\u001b[31mred\\u001b[0m"),
        ("a\nb\tc\r", "a\\nb\\tc\\r"),
        ("\x07\x08\x7f\x9b1m", "\\u0007\\b\\u007f\\u009b1m"),
        ("\u202egnp.exe", "\\u202egnp.exe"),
        ("\u2028\u2066", "\\u2028\\u2066"),
        ("日本語 Ωé📚", "日本語 Ωé📚"),
        ("می‌خواهم 👩‍👧", "می‌خواهم 👩‍👧"),
        ("[red]markup[/red] <script>", "[red]markup[/red] <script>"),
    ],
)
def test_nothing_from_a_worker_acts_on_a_terminal(raw: str, shown: str) -> None:
    assert safe(raw) == shown


def test_json_of_values_is_safe_and_still_json() -> None:
    value = Value(string_value="\x1b[2J \x9b é 📚")
    assert formatting.value_json(value) == '"\\u001b[2J \\u009b é 📚"'


def test_whole_numbers_are_printed_as_such() -> None:
    assert formatting.value_json(Value(number_value=412)) == "412"
    assert formatting.value_json(Value(number_value=0.5)) == "0.5"
    assert formatting.value_json(Value(number_value=1e300)) == "1e+300"


@pytest.mark.parametrize(
    ("seconds", "shown"),
    [
        (0, "0 s"),
        (-3, "0 s"),
        (42.4, "42 s"),
        (185, "3 min 5 s"),
        (617, "10 min 17 s"),
        (600, "10 min"),
        (7380, "2 h 3 min"),
        (7200, "2 h"),
        (864000, "10 d"),
    ],
)
def test_spans(seconds: float, shown: str) -> None:
    assert formatting.span(seconds) == shown


def at(second: int) -> Timestamp:
    return Timestamp(seconds=int(NOW.timestamp()) + second)


def running(progress: int = 0, size: int = 0, unit: str = "") -> job_pb2.Job:
    """A job that has run for a minute."""
    job = job_pb2.Job(id="0" * 32, status=job_pb2.JOB_STATUS_RUNNING, progress=progress, size=size, unit=unit)
    job.start_time.CopyFrom(at(-60))
    job.last_progress_time.CopyFrom(at(0))
    return job


def estimated(rate: float, low: float, high: float, age: int = 0) -> job_pb2.Job:
    """A running job with an estimate that was made `age` seconds ago."""
    job = running()
    job.estimate.rate = rate
    job.estimate.as_of.CopyFrom(at(-age))
    job.estimate.remaining_low.FromMilliseconds(int(low * 1000))
    job.estimate.remaining_high.FromMilliseconds(int(high * 1000))
    return job


def test_a_line_shows_what_matters() -> None:
    job = estimated(12.34, 15, 25)
    job.MergeFrom(job_pb2.Job(name="Import\x1b[31m", size=200, progress=50, unit="records", attempt=2, error_count=1))
    job.counters["added"] = 1500
    job.message = "marc.dat"
    assert formatting.line(job, NOW) == (
        "00000000000000000000000000000000 RUNNING   Import\\u001b[31m · 50/200 records (25 %) · 12 records/s · "
        "15 to 25 s left · added 1,500, 1 record error · attempt 2 · marc.dat"
    )


def test_nothing_is_foretold_of_a_job_that_does_not_move() -> None:
    job = estimated(12.34, 15, 25)
    job.MergeFrom(job_pb2.Job(unit="records", stalled=True, last_progress_time=at(-70)))
    assert formatting.line(job, NOW).endswith(" · 0 records · STALLED: no progress for 70 s")
    job.stalled, job.status = False, job_pb2.JOB_STATUS_LOST
    assert (formatting.rate(job), formatting.remaining(job, NOW)) == (None, None)


@pytest.mark.parametrize(
    ("low", "high", "shown"),
    [
        (15, 15, "15 s left"),
        (41.2, 52.9, "40 to 55 s left"),
        (0.3, 0.9, "up to 1 s left"),
        (83, 131, "80 s to 2 min 20 s left"),
        (397, 427, "6 min 30 s to 7 min 10 s left"),
        (725, 815, "12 to 14 min left"),
        (8000, 9000, "2 h 10 min to 2 h 30 min left"),
        (30 * 86_400, 40 * 86_400, "30 to 40 d left"),
    ],
)
def test_an_estimate_is_told_no_finer_than_it_is_steady(low: float, high: float, shown: str) -> None:
    assert formatting.remaining(estimated(100, low, high), NOW) == shown


def test_an_estimate_ages() -> None:
    # Units take a quarter of a second each: silence for longer than that is no progress.
    assert formatting.remaining(estimated(4, 10, 18, age=4), NOW) == "6 to 18 s left"
    assert formatting.remaining(estimated(4, 10, 18, age=15), NOW) == "up to 18 s left"
    assert formatting.remaining(estimated(4, 10, 18, age=19), NOW) is None
    # Units take a minute each: for that long, silence means nothing.
    assert formatting.remaining(estimated(1 / 60, 580, 590, age=30), NOW) == "9 min 10 s to 9 min 20 s left"


def reported(every: float, ago: int) -> job_pb2.Job:
    """A job of which there was a report every so many seconds, the last one some time ago."""
    job = estimated(12.34, 15, 25, age=ago)
    job.MergeFrom(job_pb2.Job(unit="records", progress=50, size=200, revision=101))
    job.start_time.FromDatetime(NOW - timedelta(seconds=ago + 100 * every))
    job.last_contact_time.CopyFrom(at(-ago))
    return job


def test_a_worker_that_is_later_than_its_reports_were_is_seen_at_once() -> None:
    late = formatting.line(reported(0.2, ago=6), NOW)
    assert " · no report for 6 s · last 12 records/s" in late
    assert "left" not in late
    for every, ago in ((0.2, 4), (10, 20)):
        in_time = formatting.line(reported(every, ago), NOW)
        assert "no report" not in in_time
        assert "last" not in in_time
    assert formatting.silence(reported(10, ago=31), NOW) == "no report for 31 s"
    # A reader that has seen its latest reports knows better.
    assert formatting.silence(reported(10, ago=20), NOW, usual=1) == "no report for 20 s"
    assert formatting.silence(reported(1, ago=20), NOW, usual=10) is None
    assert "status:         RUNNING · no report for 6 s" in list(formatting.details(reported(0.2, ago=6), NOW))
    new = reported(0.2, ago=40)
    new.revision = 1
    assert formatting.silence(new, NOW) is None
    new.heartbeat_timeout.FromSeconds(60)
    assert formatting.silence(new, NOW) == "no report for 40 s"


def test_a_reason_that_says_the_same_is_not_said_again() -> None:
    job = running()
    job.history.add(status=job_pb2.JOB_STATUS_RUNNING, time=at(-60), reason="created")
    job.history.add(status=job_pb2.JOB_STATUS_FAILED, time=at(0), reason="failed")
    history = [line for line in formatting.details(job, NOW) if line.startswith("history")]
    assert [line.split(maxsplit=3)[3] for line in history] == ["RUNNING created", "FAILED"]


@pytest.mark.parametrize(
    ("job", "shown"),
    [
        (running(progress=50, size=200, unit="records"), "50/200 records (25 %)"),
        (running(progress=1500), "1,500"),
        (running(progress=40, size=100, unit="%"), "40 %"),
        (running(progress=3_400_000_000, size=10_000_000_000, unit="bytes"), "3.40/10 GB (34 %)"),
        (running(progress=999, unit="bytes"), "999 bytes"),
        (running(unit="bytes"), "0 bytes"),
    ],
)
def test_meters(job: job_pb2.Job, shown: str) -> None:
    assert formatting.meter(job) == shown


@pytest.mark.parametrize(
    ("job", "shown"),
    [
        (running(progress=1200, unit="rows"), "20 rows/s"),
        (running(progress=2), "2 units/min"),
        (running(progress=90_000_000, unit="bytes"), "1.50 MB/s"),
        (running(progress=50, unit="%"), None),
        (running(), None),
    ],
)
def test_without_an_estimate_the_pace_is_that_of_the_whole_run(job: job_pb2.Job, shown: str | None) -> None:
    assert formatting.rate(job) == shown


def test_what_is_not_known_is_not_shown() -> None:
    job = job_pb2.Job(id="0" * 32, status=job_pb2.JOB_STATUS_PENDING)
    assert formatting.line(job, NOW) == "00000000000000000000000000000000 PENDING   · 0"


def test_lost_and_cancelled_are_explained() -> None:
    job = job_pb2.Job(status=job_pb2.JOB_STATUS_LOST, last_contact_time=at(-61))
    job.cancellation.requested = True
    job.cancellation.reason = "wrong\nfile"
    job.cancellation.deadline.CopyFrom(at(9))
    lost, cancelled = formatting.warnings(job, NOW)
    assert lost == "no contact for 61 s"
    assert cancelled == "to be cancelled within 9 s: wrong\\nfile"


def test_a_status_of_the_future_is_a_number() -> None:
    assert formatting.status_name(77) == "77"

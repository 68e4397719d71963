"""Jobs as text."""

from datetime import UTC, datetime

import pytest
from google.protobuf.struct_pb2 import Value
from google.protobuf.timestamp_pb2 import Timestamp

from headway.cli import text
from headway.cli.safe import safe
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
    assert text.value_json(value) == '"\\u001b[2J \\u009b é 📚"'


def test_whole_numbers_are_printed_as_such() -> None:
    assert text.value_json(Value(number_value=412)) == "412"
    assert text.value_json(Value(number_value=0.5)) == "0.5"
    assert text.value_json(Value(number_value=1e300)) == "1e+300"


@pytest.mark.parametrize(
    ("seconds", "shown"),
    [(0, "0 s"), (-3, "0 s"), (42.4, "42 s"), (185, "3:05 min"), (7380, "2:03 h"), (864000, "10 d")],
)
def test_spans(seconds: float, shown: str) -> None:
    assert text.span(seconds) == shown


def at(second: int) -> Timestamp:
    return Timestamp(seconds=int(NOW.timestamp()) + second)


def test_a_line_shows_what_matters() -> None:
    job = job_pb2.Job(
        id="0" * 32,
        name="Import\x1b[31m",
        size=200,
        progress=50,
        unit="records",
        status=job_pb2.JOB_STATUS_RUNNING,
        counters={"added": 1500},
        error_count=1,
        attempt=2,
        message="marc.dat",
        stalled=True,
        last_progress_time=at(-70),
    )
    job.estimate.rate = 12.34
    job.estimate.as_of.CopyFrom(at(-5))
    job.estimate.remaining_low.seconds = 15
    job.estimate.remaining_high.seconds = 25
    assert text.line(job, NOW) == (
        "00000000000000000000000000000000 RUNNING   Import\\u001b[31m · 50/200 records (25 %) · 12.3 records/s · "
        "10 s to 20 s left · added 1,500, 1 record error · attempt 2 · STALLED: no progress for 70 s · marc.dat"
    )


def test_what_is_not_known_is_not_shown() -> None:
    job = job_pb2.Job(id="0" * 32, status=job_pb2.JOB_STATUS_PENDING)
    assert text.line(job, NOW) == "00000000000000000000000000000000 PENDING   · 0"


def test_lost_and_cancelled_are_explained() -> None:
    job = job_pb2.Job(status=job_pb2.JOB_STATUS_LOST, last_contact_time=at(-61))
    job.cancellation.requested = True
    job.cancellation.reason = "wrong\nfile"
    job.cancellation.deadline.CopyFrom(at(9))
    lost, cancelled = text.warnings(job, NOW)
    assert lost == "no contact for 61 s"
    assert cancelled.endswith("wrong\\nfile")


def test_a_status_of_the_future_is_a_number() -> None:
    assert text.status_name(77) == "77"

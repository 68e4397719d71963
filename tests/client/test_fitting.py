"""Values that come from data are made to fit: they neither end a worker nor keep a later report or the end back."""

import math
from decimal import Decimal
from fractions import Fraction

import pytest

import headway
from headway.meter import Meter
from headway.v1 import job_pb2

MOST = 2**63 - 1


class Whole:
    """A whole number that is no int, as those of NumPy are."""

    def __init__(self, number: int) -> None:
        self._number = number

    def __index__(self) -> int:
        return self._number

    def __float__(self) -> float:
        return float(self._number)


STRANGE = [
    Decimal("sNaN"),
    math.nan,
    math.inf,
    -math.inf,
    1.5,
    -3,
    2**63,
    2**64 - 1,
    10**400,
    Fraction(10**400, 3),
    True,
    Decimal("2.5"),
]


@pytest.mark.parametrize("value", STRANGE, ids=lambda value: str(value)[:12])
def test_whatever_a_worker_counts_it_goes_on_and_ends(
    hw: headway.Client, caplog: pytest.LogCaptureFixture, value: float
) -> None:
    other = hw.job()
    other.part("strange").advance(value)
    assert other.flush()
    with hw.job(name="strange", size=value) as job:
        job.advance(value)
        job.progress = value
        job.count("strange", value)
        job.size = value
        job.set({"strange": value})
        for _ in job.track([1, 2, 3]):
            job.progress = value
        assert job.flush()
        job.progress, job.size = 3, 7
        job.count("usual")
        job.message = "as usual"
        job.results = {"strange": value}
    seen = hw.get(None, job.id)
    assert (seen.status, seen.progress, seen.size) == (job_pb2.JOB_STATUS_COMPLETED, 3, 7)
    assert (seen.counters["usual"], seen.message) == (1, "as usual")
    assert caplog.messages == []


@pytest.mark.parametrize(
    ("given", "progress"),
    [
        ([1.5, 1.5], 3),
        ([0.1] * 10, 1),
        ([1 / 9] * 9, 1),
        ([0.25] * 3, 0),
        ([5, math.nan, math.inf, 1], 6),
        ([-5], 0),
        ([2**64 - 1], MOST),
        ([2**64 - 1, math.inf, 0.5], MOST),
        ([3, Fraction(1, 2), Decimal("0.5"), True], 5),
        # As a float it would be rounded.
        ([2**60, *[Whole(1)] * 3, Decimal("sNaN")], 2**60 + 3),
    ],
)
def test_what_becomes_of_amounts(given: list[float], progress: int) -> None:
    meter = Meter()
    for n in given:
        meter.advance(n)
        meter.count("n", n)
    sample = meter._sample(1)
    assert sample.progress == progress
    assert sample.counters["n"] == (progress if given != [-5] else -5)


@pytest.mark.parametrize(
    ("size", "kept"),
    [(None, 0), (math.nan, 0), (math.inf, 0), (-1, 0), (3.7, 3), (2**64 - 1, MOST), (Decimal(4), 4), (0, 0)],
)
def test_what_becomes_of_a_size(hw: headway.Client, size: float | None, kept: int) -> None:
    job, other = hw.job(size=size), hw.job(size=1)
    other.size = size
    assert (job.size, other.size) == (kept, kept)
    assert other.flush()
    assert hw.get(None, job.id).size == hw.get(None, other.id).size == kept


@pytest.mark.parametrize("slip", [None, "12", b"3", [1], object()])
def test_what_is_no_number_is_the_programs_error_at_the_call(hw: headway.Client, slip: float) -> None:
    with hw.job() as job:
        job.advance(2)
        with pytest.raises(TypeError, match="must be a number"):
            job.advance(slip)
        with pytest.raises(TypeError, match="must be a number"):
            job.progress = slip
        with pytest.raises(TypeError, match="must be a number"):
            job.count("n", slip)
        if slip is not None:
            with pytest.raises(TypeError, match="must be a number"):
                job.size = slip
            with pytest.raises(TypeError, match="must be a number"):
                hw.job(size=slip)
    seen = hw.get(None, job.id)
    assert (seen.status, seen.progress, seen.counters["n"]) == (job_pb2.JOB_STATUS_COMPLETED, 2, 0)


def test_texts_are_cut_wherever_they_are_given(hw: headway.Client, caplog: pytest.LogCaptureFixture) -> None:
    long = "ä" * 300
    with hw.job(name=long, invoker=long, unit=long, labels={"file": long}) as job:
        first = hw.get(None, job.id)
        assert (first.name, first.invoker, first.unit) == (long[:256], long[:256], long[:32])
        assert first.labels["file"] == long[:256]
        job.name = job.invoker = "b" * 300
        job.message = long * 4
        job.part(long).advance()
        job.count(long, 2)
        # Not the same name, but cut to the same.
        job.count(long + "!", 3)
        job.record_error(long, long * 4, long)
        assert job.flush()
        assert job.name == "b" * 256
    seen = hw.get(None, job.id)
    assert (seen.status, seen.progress) == (job_pb2.JOB_STATUS_COMPLETED, 1)
    assert (seen.name, seen.invoker, seen.message) == ("b" * 256, "b" * 256, (long * 4)[:1024])
    assert (dict(seen.parts), dict(seen.counters)) == ({long[:128]: 1}, {long[:128]: 5})
    assert caplog.messages == []

"""Estimates: absent rather than a guess, and honest when there is one."""

from hypothesis import given
from hypothesis import strategies as st

from headway_server.domain.estimate import SECOND, Pace, estimate, observe, resume


def run(paces: list[float], seconds: int = 1) -> tuple[Pace | None, float, int]:
    """A job that does so many units in each span of `seconds`."""
    pace, done, now = observe(None, 0, 0), 0.0, 0
    for amount in paces:
        done += amount
        now += seconds * SECOND
        pace = observe(pace, int(done), now)
    return pace, done, now


def test_a_steady_job_is_estimated_closely() -> None:
    pace, done, now = run([10] * 60)
    found = estimate(pace, 1000, int(done), now)
    assert found is not None
    assert abs(found.rate - 10) < 0.5
    assert abs(found.remaining_likely / SECOND - 40) < 2
    assert found.remaining_high - found.remaining_low < 5 * SECOND


def test_an_unsteady_job_has_a_wide_range_that_holds_the_truth() -> None:
    pace, done, now = run([2, 30, 4, 25, 1, 28] * 10)
    found = estimate(pace, 2000, int(done), now)
    assert found is not None
    truth = (2000 - done) / (90 / 6) * SECOND
    assert found.remaining_low < truth < found.remaining_high
    assert found.remaining_high > 1.3 * found.remaining_low


def test_there_is_none_without_size_without_enough_seen_or_at_the_end() -> None:
    pace, done, now = run([10] * 10)
    assert estimate(pace, 0, int(done), now) is None
    assert estimate(pace, int(done), int(done), now) is None
    short, some, then = run([10] * 2)
    assert estimate(short, 100, int(some), then) is None
    assert estimate(None, 100, 10, now) is None


def test_a_gap_between_two_workers_does_not_slow_the_estimate() -> None:
    pace, done, now = run([10] * 30)
    assert pace is not None
    later = now + 3600 * SECOND
    taken = resume(pace, int(done), later)
    for step in range(1, 6):
        taken = observe(taken, int(done) + 10 * step, later + step * SECOND)
    found = estimate(taken, 1000, int(done) + 50, later + 5 * SECOND)
    assert found is not None
    assert abs(found.rate - 10) < 1


@given(st.lists(st.tuples(st.integers(0, 10**12), st.integers(0, 10**10)), max_size=50), st.integers(1, 2**62))
def test_whatever_happens_the_range_is_ordered_and_finite(moves: list[tuple[int, int]], size: int) -> None:
    pace, done, now = None, 0, 0
    for amount, span in moves:
        done, now = done + amount, now + span
        pace = observe(pace, done, now)
    found = estimate(pace, size, done, now)
    if found is not None:
        assert 0 <= found.remaining_low <= found.remaining_likely <= found.remaining_high

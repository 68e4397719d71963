import asyncio
import gc
import sys
import threading
import tracemalloc
from collections.abc import AsyncIterator, Iterator

import pytest

from headway.meter import Meter

ROOM = 1_000_000


def test_track_counts_an_item_when_the_next_is_asked_for() -> None:
    meter = Meter()
    seen = [meter.progress for _ in meter.track("abc")]
    assert seen == [0, 1, 2]
    assert meter.progress == 3


def test_track_of_nothing() -> None:
    meter = Meter()
    assert list(meter.track([])) == []
    assert meter.progress == 0


def test_an_item_left_by_break_is_not_counted() -> None:
    meter = Meter()
    for item in meter.track(range(10)):
        if item == 4:
            break
    gc.collect()
    assert meter.progress == 4
    assert meter._sample(ROOM).progress == 4
    assert meter._laps == []


def test_an_item_that_raised_is_not_counted() -> None:
    meter = Meter()
    with pytest.raises(ZeroDivisionError):
        for item in meter.track([2, 1, 0]):
            1 / item
    assert meter.progress == 2


def test_a_fault_of_the_iterable_goes_through() -> None:
    def broken() -> Iterator[int]:
        yield 1
        raise LookupError

    meter = Meter()
    with pytest.raises(LookupError):
        list(meter.track(broken()))


def test_advance_and_assignment_inside_track() -> None:
    meter = Meter()
    for item in meter.track(range(4)):
        meter.advance(10)
        if item == 2:
            meter.progress = 100
    assert meter.progress == 100 + 1 + 10 + 1


def test_nested_and_repeated_tracks_add_up_and_leave_nothing_behind() -> None:
    meter = Meter()
    for _ in meter.track(range(3)):
        for _ in meter.track(range(5)):
            pass
    assert meter.progress == 18
    meter._sample(ROOM)
    assert meter._laps == []


def test_advance_from_several_threads_loses_nothing() -> None:
    meter = Meter()

    def work() -> None:
        for _ in range(100_000):
            meter.advance()

    before = sys.getswitchinterval()
    sys.setswitchinterval(1e-6)
    try:
        threads = [threading.Thread(target=work) for _ in range(4)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    finally:
        sys.setswitchinterval(before)
    assert meter.progress == 400_000


def test_track_of_an_asynchronous_iterable() -> None:
    async def characters() -> AsyncIterator[str]:
        for character in "abc":
            yield character

    async def work(meter: Meter) -> list[int]:
        return [meter.progress async for _ in meter.track(characters())]

    meter = Meter()
    assert asyncio.run(work(meter)) == [0, 1, 2]
    assert meter.progress == 3


def test_async_items_count_once_the_next_is_asked_for_and_the_source_is_closed() -> None:
    async def work(meter: Meter) -> None:
        closed = asyncio.Event()

        async def characters() -> AsyncIterator[str]:
            try:
                for character in "abcde":
                    yield character
            finally:
                closed.set()

        async for character in meter.track(characters()):
            if character == "c":
                break
        await asyncio.wait_for(closed.wait(), 10)
        assert meter.progress == 2
        meter.progress = 10
        async for _ in meter.track(characters()):
            meter.advance()
        assert meter.progress == 20

    asyncio.run(work(Meter()))


def test_a_sample_takes_what_was_not_taken() -> None:
    meter = Meter()
    meter.advance(3)
    meter.count("added", 2)
    meter.record_error("a", "bad", "BAD")
    meter.set({"x": 1})
    meter.message = "working"
    first = meter._sample(ROOM)
    assert (first.progress, first.counters, first.message) == (3, {"added": 2}, "working")
    assert [error.record for error in first.errors] == ["a"]
    assert first.variables is not None and first.variables["x"] == 1
    second = meter._sample(ROOM)
    assert (second.progress, second.errors, second.variables, second.more) == (3, [], None, False)


def test_a_checkpoint_pins_progress_counters_and_errors() -> None:
    meter = Meter()
    meter.advance(5)
    meter.count("added")
    meter.record_error("one")
    meter.checkpoint({"at": 5})
    meter.advance(2)
    meter.count("added")
    meter.record_error("two")
    pinned = meter._sample(ROOM)
    assert (pinned.progress, pinned.counters) == (5, {"added": 1})
    assert [error.record for error in pinned.errors] == ["one"]
    assert pinned.variables is not None and pinned.variables["at"] == 5
    assert pinned.more
    after = meter._sample(ROOM)
    assert (after.progress, after.counters, after.variables) == (7, {"added": 2}, None)
    assert [error.record for error in after.errors] == ["two"]


def test_a_checkpoint_waits_for_its_record_errors() -> None:
    meter = Meter()
    for number in range(1500):
        meter.record_error(number)
    meter.checkpoint({"at": 1})
    first, second = meter._sample(ROOM), meter._sample(ROOM)
    assert (len(first.errors), first.variables, first.more) == (1000, None, True)
    assert len(second.errors) == 500
    assert second.variables is not None


def test_record_errors_of_a_long_outage_are_counted_and_take_no_memory() -> None:
    meter = Meter()
    tracemalloc.start()
    before, _ = tracemalloc.get_traced_memory()
    for number in range(20_000):
        meter.record_error(number, "x" * 1024)
    after, _ = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert after - before < 4 * 1024 * 1024
    sent: list[str] = []
    while True:
        sample = meter._sample(ROOM)
        sent += [error.record for error in sample.errors]
        if not sample.more:
            break
    assert len(sent) == 20_000
    assert sent[:500] == [str(number) for number in range(500)]
    assert sent[-500:] == [str(number) for number in range(19_500, 20_000)]
    assert set(sent[500:-500]) == {"?"}
    meter.record_error("later")
    assert [error.record for error in meter._sample(ROOM).errors] == ["later"]


def test_many_checkpoints_are_one() -> None:
    meter = Meter()
    for number in range(1000):
        meter.advance()
        meter.checkpoint({"at": number, f"n{number % 3}": number})
    sample = meter._sample(ROOM)
    assert sample.progress == 1000
    assert sample.variables is not None
    assert dict(sample.variables.items()) == {"at": 999, "n0": 999, "n1": 997, "n2": 998}


def test_text_is_made_fit() -> None:
    meter = Meter()
    meter.record_error("x" * 300, "\ud800\0" + "y" * 2000, None)
    meter.message = "z" * 2000
    sample = meter._sample(ROOM)
    (error,) = sample.errors
    assert error.record == "x" * 256
    assert error.message.startswith("?\N{REPLACEMENT CHARACTER}y") and len(error.message) == 1024
    assert sample.message == "z" * 1024

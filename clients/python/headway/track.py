"""Loops that count, and end early once their work is for nothing: what `track` gives back.

A loop runs in C and calls no function of Python for an item. How many items were taken is read from a C iterator that
goes along, and a loop is ended early by changing what that iterator yields.
"""

import sys
from collections.abc import AsyncIterable, AsyncIterator, Awaitable, Callable, Iterable, Iterator
from itertools import chain, compress, repeat
from operator import length_hint
from typing import TYPE_CHECKING, Generic, Self, TypeVar
from weakref import ref

from headway._engine.connection_state import log

if TYPE_CHECKING:
    from headway.meter import Meter

Item = TypeVar("Item")

Check = Callable[[], object]
"""Raises once the work is for nothing."""


def length(items: object) -> int:
    """What `len` says, or else the length hint, 0 if neither can be had: it is no more than a hint, and its error not
    the worker's."""
    try:
        return length_hint(items, 0)
    except Exception:
        return 0


class Tracked(Iterable[Item], AsyncIterable[Item]):
    """Items to loop over, with `for` or `async for`. Each loop begins anew, as one over the iterable does, and counts
    its own items."""

    def __init__(self, meter: "Meter", items: Iterable[Item] | AsyncIterable[Item], check: Check | None) -> None:
        self._meter = meter
        self._items = items
        self._check = check
        self._lap: Lap | None = None

    def __iter__(self) -> Iterator[Item]:
        items = self._items
        if not isinstance(items, Iterable):
            if isinstance(items, AsyncIterable):
                raise TypeError("This is an asynchronous iterable: loop over it with 'async for'.")
            raise TypeError(
                f"track() needs something to loop over, and {type(items).__name__!r} is nothing of the kind."
            )
        if self._lap is not None and self._lap.finished and isinstance(items, Iterator):
            log.warning("headway: an iterator gives its items once, so a second loop over this track() has none")
        self._lap = lap = Lap(self._check)
        counted = lap.around(items)
        self._meter._begin_lap(lap)
        return counted

    def __aiter__(self) -> AsyncIterator[Item]:
        # Not a generator around an asynchronous source: that would double what an item costs.
        if not isinstance(self._items, AsyncIterable):
            return self._each()
        items = _AsyncItems(self._items, self._check)
        self._meter._begin_lap(items.lap)
        return items

    async def _each(self) -> AsyncIterator[Item]:
        for item in self:
            yield item


class Lap:
    """One loop. C takes a tick for each item; how many ticks are left tells how many items were taken."""

    __slots__ = ("_dropped", "_gate", "_ticks", "finished")

    def __init__(self, check: Check | None = None) -> None:
        self._gate: _Gate = _Open(check)
        self._ticks = repeat(self._gate, sys.maxsize)
        self.finished = False
        """Whether it came to its end."""
        self._dropped: Callable[[], object] = lambda: self

    def around(self, iterable: Iterable[Item]) -> Iterator[Item]:
        end: _End[Item] = _End(self)
        self._dropped = ref(end)
        return compress(chain(iterable, end), self._ticks)

    def interrupt(self) -> None:
        """Makes the loop raise before its next item, which is not counted, if it heeds that."""
        if self._gate.check is not None:
            self._gate.__class__ = _Closed

    def over(self) -> bool:
        return self.finished or self._dropped() is None

    def done(self) -> int:
        taken = sys.maxsize - length_hint(self._ticks)
        return taken if self.finished else max(taken - 1, 0)


class _Gate:
    """What goes along with each item: true for as long as the loop shall go on. Its class says whether it shall."""

    __slots__ = ("check",)

    def __init__(self, check: Check | None) -> None:
        self.check = check


class _Open(_Gate):
    """True without a call, as every object is that does not say otherwise."""

    __slots__ = ()


class _Closed(_Gate):
    __slots__ = ()

    def __bool__(self) -> bool:
        if self.check is not None:
            self.check()
        return True


class _End(Iterable[Item]):
    """Comes after the last item: when it is asked for, that item is done. It lives as long as the loop does."""

    __slots__ = ("__weakref__", "_lap")

    def __init__(self, lap: Lap) -> None:
        self._lap = lap

    def __iter__(self) -> Iterator[Item]:
        self._lap.finished = True
        return iter(())


class _AsyncItems(Generic[Item]):
    """One loop of an `async for`. `anext` is called from C: a generator around the source would cost as much as the
    source does."""

    __slots__ = ("__anext__", "__weakref__", "lap")

    __anext__: Callable[[], Awaitable[Item]]

    def __init__(self, items: AsyncIterable[Item], check: Check | None) -> None:
        turns = repeat(aiter(items), sys.maxsize)
        self.__anext__ = map(anext, turns).__next__
        self.lap = AsyncLap(self, turns, check)

    def __aiter__(self) -> Self:
        return self

    def heed(self, check: Check) -> None:
        """From now on asks before it gives an item."""
        source = self.__anext__

        async def checked() -> Item:
            item = await source()
            check()
            return item

        self.__anext__ = checked


class AsyncLap:
    """How often a source was asked for an item: once more than items are done, also if it had no more to give."""

    __slots__ = ("_asked", "_check", "_dropped", "_turns")

    def __init__(self, items: _AsyncItems[Item], turns: "repeat[AsyncIterator[Item]]", check: Check | None) -> None:
        self._turns: repeat[AsyncIterator[Item]] | None = turns
        self._asked = 0
        self._check = check
        self._dropped = ref(items, self._finish)

    def interrupt(self) -> None:
        items, check = self._dropped(), self._check
        if items is not None and check is not None:
            self._check = None
            items.heed(check)

    def _finish(self, _: object) -> None:
        # The source is in the turns, and has to be closed when the loop is left.
        self._asked, self._turns = self._count(), None

    def _count(self) -> int:
        turns = self._turns
        return self._asked if turns is None else sys.maxsize - length_hint(turns)

    def over(self) -> bool:
        return self._turns is None

    def done(self) -> int:
        return max(self._count() - 1, 0)

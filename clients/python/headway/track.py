"""Loops that count items and stop when the work is no longer wanted. `track` returns them.

A loop runs in C and calls no Python function for an item. A C iterator beside the items tells how many were taken.
Changing what that iterator yields stops the loop early.
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
"""Raises if the work is no longer wanted."""


def length(items: object) -> int:
    """The length or the length hint, or 0 without either. It is only a hint, so its errors are ignored."""
    try:
        return length_hint(items, 0)
    except Exception:
        return 0


class Tracked(Iterable[Item], AsyncIterable[Item]):
    """Items to loop over, with `for` or `async for`. Each loop starts again, like a loop over the iterable, and counts
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
            raise TypeError(f"track() needs something to loop over, not {type(items).__name__!r}.")
        if self._lap is not None and self._lap.finished and isinstance(items, Iterator):
            log.warning("headway: an iterator gives its items only once, so a second loop over this track() has none")
        self._lap = lap = Lap(self._check)
        counted = lap.around(items)
        self._meter._begin_lap(lap)
        return counted

    def __aiter__(self) -> AsyncIterator[Item]:
        # No generator around an asynchronous source: that would double the cost of an item.
        if not isinstance(self._items, AsyncIterable):
            return self._each()
        items = _AsyncItems(self._items, self._check)
        self._meter._begin_lap(items.lap)
        return items

    async def _each(self) -> AsyncIterator[Item]:
        for item in self:
            yield item


class Lap:
    """One loop. C takes a tick for each item. The number of ticks left gives the number of items taken."""

    __slots__ = ("_dropped", "_gate", "_ticks", "finished")

    def __init__(self, check: Check | None = None) -> None:
        self._gate: _Gate = _Open(check)
        self._ticks = repeat(self._gate, sys.maxsize)
        self.finished = False
        """The loop has ended normally."""
        self._dropped: Callable[[], object] = lambda: self

    def around(self, iterable: Iterable[Item]) -> Iterator[Item]:
        end: _End[Item] = _End(self)
        self._dropped = ref(end)
        return compress(chain(iterable, end), self._ticks)

    def interrupt(self) -> None:
        """Makes a cancellable loop raise before its next item, which is not counted."""
        if self._gate.check is not None:
            self._gate.__class__ = _Closed

    def over(self) -> bool:
        return self.finished or self._dropped() is None

    def done(self) -> int:
        taken = sys.maxsize - length_hint(self._ticks)
        return taken if self.finished else max(taken - 1, 0)


class _Gate:
    """The value beside each item: true while the loop continues. Its class decides that."""

    __slots__ = ("check",)

    def __init__(self, check: Check | None) -> None:
        self.check = check


class _Open(_Gate):
    """True without a call, like every object without __bool__."""

    __slots__ = ()


class _Closed(_Gate):
    __slots__ = ()

    def __bool__(self) -> bool:
        if self.check is not None:
            self.check()
        return True


class _End(Iterable[Item]):
    """Comes after the last item. When it is asked for, that item is done. It lives as long as the loop."""

    __slots__ = ("__weakref__", "_lap")

    def __init__(self, lap: Lap) -> None:
        self._lap = lap

    def __iter__(self) -> Iterator[Item]:
        self._lap.finished = True
        return iter(())


class _AsyncItems(Generic[Item]):
    """One loop of an `async for`. C calls `anext`: a generator around the source would cost as much as the source."""

    __slots__ = ("__anext__", "__weakref__", "lap")

    __anext__: Callable[[], Awaitable[Item]]

    def __init__(self, items: AsyncIterable[Item], check: Check | None) -> None:
        turns = repeat(aiter(items), sys.maxsize)
        self.__anext__ = map(anext, turns).__next__
        self.lap = AsyncLap(self, turns, check)

    def __aiter__(self) -> Self:
        return self

    def heed(self, check: Check) -> None:
        """Calls `check` before each item from now on."""
        source = self.__anext__

        async def checked() -> Item:
            item = await source()
            check()
            return item

        self.__anext__ = checked


class AsyncLap:
    """Counts how often a source was asked for an item. That is one more than the items done, also at its end."""

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
        # The turns hold the source, which must be closed when the loop is left.
        self._asked, self._turns = self._count(), None

    def _count(self) -> int:
        turns = self._turns
        return self._asked if turns is None else sys.maxsize - length_hint(turns)

    def over(self) -> bool:
        return self._turns is None

    def done(self) -> int:
        return max(self._count() - 1, 0)

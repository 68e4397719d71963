"""What a worker touches while it works: one part's progress, counters, record errors and variables.

Nothing here knows the network. The engine looks at a meter when a report is due, so an update costs what an
attribute costs. CPython's global lock is not handed on between the load and the store of `self._done += n`, so
threads may call `advance()` at the same time and no count is lost.
"""

import sys
from collections import defaultdict, deque
from collections.abc import AsyncIterable, AsyncIterator, Awaitable, Callable, Iterable, Iterator, Mapping, Sized
from itertools import chain, compress, repeat
from operator import length_hint
from typing import Generic, NamedTuple, Self, TypeVar, overload
from weakref import ref

from google.protobuf import struct_pb2

from headway.native import RLock
from headway.v1 import job_pb2
from headway.values import clean, to_struct

Item = TypeVar("Item")

_TICKS = range(1, sys.maxsize)
_INT64 = 2**63 - 1
_ERRORS_AT_MOST = 1000
_ERRORS_AT_AN_END = 500


class Sample(NamedTuple):
    """What a meter has to say: totals as they stand, and what was not taken before."""

    progress: int
    counters: dict[str, int]
    errors: list[job_pb2.RecordError]
    variables: struct_pb2.Struct | None
    message: str | None
    size: int | None
    more: bool
    """True: something is left for a further sample."""
    pressing: bool
    """True: what is left grows with every sample that is put off, record errors that is."""


class Meter:
    """One part of a job: what a worker, thread or process that shares the job moves on its own.

    Every method returns at once and none raises because of the server. Use one meter from one process; for several
    processes, give each a part of its own.
    """

    __slots__ = (
        "__weakref__",
        "_counters",
        "_cut",
        "_done",
        "_errors",
        "_errors_taken",
        "_laps",
        "_lock",
        "_message",
        "_part",
        "_size",
        "_variables",
    )

    def __init__(self, part: str = "", progress: int = 0) -> None:
        self._part = part
        self._begin(progress)

    def _begin(self, progress: int) -> None:
        self._done = progress
        self._laps: list[_Lap | _AsyncLap] = []
        self._counters: defaultdict[str, int] = defaultdict(int)
        self._errors = _Backlog()
        self._errors_taken = 0
        self._variables: struct_pb2.Struct | None = None
        self._cut: _Cut | None = None
        self._message: str | None = None
        self._size: int | None = None
        # A signal handler may come to a meter that its own thread has locked.
        self._lock = RLock()

    def advance(self, n: int = 1) -> None:
        """Counts `n` more units as done. Safe from several threads."""
        self._done += n

    @property
    def progress(self) -> int:
        """Units done by this part, in this process's eyes. Can be set; `+=` from several threads loses counts."""
        if not self._laps:
            return self._done
        with self._lock:
            self._fold()
            return self._total()

    @progress.setter
    def progress(self, done: int) -> None:
        if not self._laps:
            # What is no number fails here, in the worker's own line, and not in the engine.
            self._done = done + 0
        else:
            self._touch()
            with self._lock:
                self._done += done - self._total()

    @overload
    def track(self, iterable: Iterable[Item]) -> Iterable[Item]: ...
    @overload
    def track(self, iterable: AsyncIterable[Item]) -> AsyncIterable[Item]: ...
    def track(self, iterable: Iterable[Item] | AsyncIterable[Item]) -> Iterable[Item] | AsyncIterable[Item]:
        """Yields the items and counts each as done when the next is asked for.

        An item during which the loop breaks or raises is not counted. If the job's size is not known yet and the
        iterable has a length, that becomes the size.
        """
        self._touch()
        if isinstance(iterable, Sized):
            self._expect(len(iterable))
        if isinstance(iterable, AsyncIterable):
            items = _AsyncItems(iterable)
            self._begin_lap(items.lap)
            return items
        lap = _Lap()
        counted = lap.around(iterable)
        self._begin_lap(lap)
        return counted

    def count(self, counter: str, n: int = 1) -> None:
        """Adds to a named tally (`added`, `updated`, `skipped`); at most 64 a job, names of 1 to 128 characters."""
        self._touch()
        self._counters[counter] += n

    def record_error(self, record: object, message: object = "", code: object = "") -> None:
        """Notes a record that could not be worked on: which (its first 256 characters), why (1,024), and a code
        to group by (64).

        Each is counted. Of more than 1,000 that wait for the server the first and the last 500 keep their texts; it
        keeps but the first and the last 100 of a job itself.
        """
        self._touch()
        error = job_pb2.RecordError(
            record=clean(record, 256) or "?", message=clean(message, 1024), code=clean(code, 64)
        )
        with self._lock:
            self._errors.append(error)

    def set(self, variables: Mapping[str, object]) -> None:
        """Merges into the job's variables: at most 256, of 256 KiB in all. Sent with the next report."""
        self._merge(variables)

    def checkpoint(self, variables: Mapping[str, object]) -> None:
        """Merges variables that are stored together with the progress, counters and record errors of this moment,
        or not at all: what a worker needs that resumes the job after a crash."""
        self._merge(variables, cut=True)

    @property
    def message(self) -> str:
        """What the job is doing now, for people: its first 1,024 characters. Can be set."""
        return self._message or ""

    @message.setter
    def message(self, text: str) -> None:
        self._touch()
        self._message = clean(text, 1024)

    def _merge(self, variables: Mapping[str, object], cut: bool = False) -> None:
        self._touch()
        struct = to_struct(variables)
        with self._lock:
            if self._variables is None:
                self._variables = struct
            else:
                for name, value in struct.fields.items():
                    self._variables.fields[name].CopyFrom(value)
            if cut:
                errors = self._errors_taken + len(self._errors)
                self._cut = _Cut(self._total(), dict(self._counters), errors)

    def adopt(self, part: str) -> None:
        """In another process than the one that made it: a part of its own, from 0."""
        self._part = f"{self._part[:100]}@{part}"
        self._begin(0)

    def __reduce__(self) -> str | tuple[object, ...]:
        raise TypeError("A part belongs to one process: pass the job, and call job.part() in the other process.")

    def _expect(self, size: int) -> None:
        """Told the length of what is tracked: a part's own is not the job's."""

    def _touch(self) -> None:
        """Called before every change but the quickest."""

    def _bar(self) -> None:
        """Makes changes of `progress` take the slow way for good."""
        self._laps.append(_Lap())

    def _begin_lap(self, lap: "_Lap | _AsyncLap") -> None:
        with self._lock:
            self._fold()
            self._laps.append(lap)

    def _total(self) -> int:
        return self._done + sum(lap.done() for lap in self._laps)

    def _fold(self) -> None:
        for lap in [lap for lap in self._laps if lap.over()]:
            self._laps.remove(lap)
            self._done += lap.done()

    def _sample(self, room: int) -> Sample:
        """For the engine: all there is to say, with record errors of at most `room` bytes, one of them apart."""
        with self._lock:
            self._fold()
            cut = self._cut
            waiting = cut.errors - self._errors_taken if cut else len(self._errors)
            taken: list[job_pb2.RecordError] = []
            while waiting and room > 0 and len(taken) < _ERRORS_AT_MOST:
                taken.append(self._errors.popleft())
                room -= taken[-1].ByteSize()
                waiting -= 1
            self._errors_taken += len(taken)
            done = cut.progress if cut else self._total()
            counters = cut.counters if cut else dict(self._counters)
            counters = {name: _whole(total) for name, total in counters.items()}
            variables = None
            if not waiting:
                variables, self._variables, self._cut = self._variables, None, None
            return Sample(
                progress=max(_whole(done), 0),
                counters=counters,
                errors=taken,
                variables=variables,
                message=self._message,
                size=self._size,
                more=cut is not None or waiting > 0,
                pressing=waiting > 0,
            )


def _whole(number: float) -> int:
    """The number as it can be sent. What cannot is 0: a worker's slip here must not stop all reports."""
    try:
        return min(max(int(number), -_INT64), _INT64)
    except (TypeError, ValueError, OverflowError):
        return 0


class _Backlog:
    """Record errors that wait to be sent: all of them counted, those at either end with their texts."""

    __slots__ = ("_first", "_last", "_nameless")

    def __init__(self) -> None:
        self._first: deque[job_pb2.RecordError] = deque()
        self._nameless = 0
        self._last: deque[job_pb2.RecordError] = deque()

    def __len__(self) -> int:
        return len(self._first) + self._nameless + len(self._last)

    def append(self, error: job_pb2.RecordError) -> None:
        if not self._last and len(self._first) < _ERRORS_AT_AN_END:
            self._first.append(error)
            return
        self._last.append(error)
        if len(self._last) > _ERRORS_AT_AN_END:
            self._last.popleft()
            self._nameless += 1

    def popleft(self) -> job_pb2.RecordError:
        if self._first:
            return self._first.popleft()
        if self._nameless:
            self._nameless -= 1
            return job_pb2.RecordError(record="?")
        return self._last.popleft()


class _Cut(NamedTuple):
    """A meter at the moment of a checkpoint."""

    progress: int
    counters: dict[str, int]
    errors: int


class _Lap:
    """One `track()`. C takes a tick for each item; how many ticks are left tells how many items were taken."""

    __slots__ = ("_dropped", "_finished", "_ticks")

    def __init__(self) -> None:
        self._ticks = iter(_TICKS)
        self._finished = False
        self._dropped: Callable[[], object] = lambda: self

    def around(self, iterable: Iterable[Item]) -> Iterator[Item]:
        end: _End[Item] = _End(self)
        self._dropped = ref(end)
        return compress(chain(iterable, end), self._ticks)

    def finish(self) -> None:
        self._finished = True

    def over(self) -> bool:
        return self._finished or self._dropped() is None

    def done(self) -> int:
        taken = len(_TICKS) - length_hint(self._ticks)
        return taken if self._finished else max(taken - 1, 0)


class _End(Iterable[Item]):
    """Comes after the last item: when it is asked for, that item is done. It lives as long as the loop does."""

    __slots__ = ("__weakref__", "_lap")

    def __init__(self, lap: _Lap) -> None:
        self._lap = lap

    def __iter__(self) -> Iterator[Item]:
        self._lap.finish()
        return iter(())


class _AsyncItems(Generic[Item]):
    """One `track()` of an `async for`. `anext` is called from C: a generator around the source would cost as much as
    the source does."""

    __slots__ = ("__anext__", "__weakref__", "lap")

    __anext__: Callable[[], Awaitable[Item]]

    def __init__(self, items: AsyncIterable[Item]) -> None:
        turns = repeat(aiter(items), sys.maxsize)
        self.__anext__ = map(anext, turns).__next__
        self.lap = _AsyncLap(self, turns)

    def __aiter__(self) -> Self:
        return self


class _AsyncLap:
    """How often a source was asked for an item: once more than items are done, also if it had no more to give."""

    __slots__ = ("_asked", "_dropped", "_turns")

    def __init__(self, items: _AsyncItems[Item], turns: "repeat[AsyncIterator[Item]]") -> None:
        self._turns: repeat[AsyncIterator[Item]] | None = turns
        self._asked = 0
        self._dropped = ref(items, self._finish)

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

"""The meter of one part: progress, counters, record errors and variables.

This module does not use the network. The engine samples a meter when a report is due, so an update costs as much as
setting an attribute. CPython does not release its global lock between the load and the store of `self._done += n`, so
threads may call `advance()` at the same time and no count is lost.
"""

from collections import defaultdict, deque
from collections.abc import AsyncIterable, Iterable, Mapping
from typing import NamedTuple

from google.protobuf import struct_pb2

from headway._engine.argument_checks import checked
from headway._engine.native_threads import RLock
from headway.track import AsyncLap, Check, Item, Lap, Tracked, length
from headway.v1 import job_pb2
from headway.values import amount, clean, to_struct, whole

_ERRORS_AT_MOST = 1000
_ERRORS_AT_AN_END = 500


class Sample(NamedTuple):
    """A sample of a meter: the current totals, and the record errors and variables since the last sample."""

    progress: int
    counters: dict[str, int]
    errors: list[job_pb2.RecordError]
    variables: struct_pb2.Struct | None
    message: str | None
    size: int | None
    more: bool
    """Another sample is needed for the rest."""
    pressing: bool
    """Record errors are left, which pile up if the next sample is delayed."""


class Meter:
    """One part of a job, for one worker, thread or process that shares the job.

    Every method returns at once, and none raises because of the server. Use a meter in one process only. Give each of
    several processes a part of its own.

    Values are adjusted. Fractions add up, and the fraction of their sum is not reported. Sums are reported within
    -2⁶³+1 and 2⁶³-1, and progress is at least 0. NaN and infinity change nothing. Texts that are too long are cut.
    TypeError for a value that is not a number where one is needed.
    """

    __slots__ = (
        "__weakref__",
        "_check",
        "_counters",
        "_cut",
        "_done",
        "_errors",
        "_errors_taken",
        "_interrupted",
        "_laps",
        "_lock",
        "_message",
        "_part",
        "_size",
        "_variables",
    )

    def __init__(self, part: str = "", progress: int = 0, check: Check | None = None) -> None:
        self._part = part
        self._check = check
        """Loops call it once they are interrupted."""
        self._interrupted = False
        self._begin(progress)

    def _begin(self, progress: int) -> None:
        self._done: float = progress
        self._laps: list[Lap | AsyncLap] = []
        self._counters: defaultdict[str, float] = defaultdict(int)
        self._errors = _Backlog()
        self._errors_taken = 0
        self._variables: struct_pb2.Struct | None = None
        self._cut: _Cut | None = None
        self._message: str | None = None
        self._size: int | None = None
        # Reentrant: a signal handler may use a meter that its own thread has locked.
        self._lock = RLock()

    def advance(self, n: float = 1) -> None:
        """Counts `n` more units as done. Safe from several threads."""
        self._done += n if type(n) is int else amount(n) or 0

    @property
    def progress(self) -> int:
        """Whole units that this part has done, as far as this process knows. Can be set; `+=` from several threads
        loses counts."""
        if not self._laps:
            done = self._done
        else:
            with self._lock:
                self._fold()
                done = self._total()
        return done if type(done) is int else whole(done)

    @progress.setter
    def progress(self, done: float) -> None:
        fitting = done if type(done) is int else amount(done)
        if fitting is None:
            return
        if not self._laps:
            self._done = fitting
        else:
            self._touch()
            with self._lock:
                self._done += fitting - self._total()

    @checked
    def track(self, iterable: Iterable[Item] | AsyncIterable[Item], *, cancellable: bool = True) -> Tracked[Item]:
        """The items, for a `for` or `async for` loop. An item counts as done when the loop asks for the next one. An
        item at which the loop breaks or raises is not counted.

        If the job's size is not known yet and the iterable has a length, the length becomes the size, until more than
        that is done. Each loop over the returned object starts again and counts its own items.

        If the work is no longer wanted, the loop raises before its next item, which is not counted: JobCancelled after
        a cancellation request, or if the job was ended as cancelled; StateError if another worker has taken it over, or
        if it was ended in another way. With `cancellable=False` the loop continues.
        """
        self._touch()
        self._expect(length(iterable))
        return Tracked(self, iterable, self._check if cancellable else None)

    def count(self, counter: str, n: float = 1) -> None:
        """Adds to a named counter (`added`, `updated`, `skipped`). A job has at most 64 counters. Names are cut to 128
        characters."""
        self._touch()
        self._counters[counter] += n if type(n) is int else amount(n) or 0

    def record_error(self, record: object, message: object = "", code: object = "") -> None:
        """Adds a record that failed: its name (the first 256 characters), the reason (1,024), and a code to group by
        (64).

        Every record error is counted. If more than 1,000 wait for the server, the first and the last 500 keep their
        texts. The server stores the first and the last 100 of a job.
        """
        self._touch()
        error = job_pb2.RecordError(
            record=clean(record, 256) or "?", message=clean(message, 1024), code=clean(code, 64)
        )
        with self._lock:
            self._errors.append(error)

    def set(self, variables: Mapping[str, object]) -> None:
        """Merges variables into the job's: at most 256, and 256 KiB in all. They are sent with the next report."""
        self._merge(variables)

    def checkpoint(self, variables: Mapping[str, object]) -> None:
        """Merges variables that are stored together with the progress, counters and record errors of this moment, or
        not at all. A worker that resumes the job after a crash needs them."""
        self._merge(variables, cut=True)

    @property
    def message(self) -> str:
        """What the job is doing now, for people: the first 1,024 characters. Can be set."""
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
        """Turns the meter into a part of its own that starts at 0, in another process than its creator."""
        self._part = f"{self._part[:100]}@{part}"
        self._begin(0)

    def __reduce__(self) -> str | tuple[object, ...]:
        raise TypeError("A part belongs to one process: pass the job, and call job.part() in the other process.")

    def _expect(self, length: int) -> None:
        """Gets the length of the tracked iterable, or 0. The length of a part is not the size of the job."""

    def _touch(self) -> None:
        """Called before every change except the fastest ones."""

    def _bar(self) -> None:
        """Sends all changes of `progress` through the slow way from now on."""
        self._laps.append(Lap())

    def _begin_lap(self, lap: Lap | AsyncLap) -> None:
        with self._lock:
            self._fold()
            self._laps.append(lap)
            if self._interrupted:
                lap.interrupt()

    def _interrupt(self) -> None:
        """For the engine: the work is no longer wanted. The loops raise the reason."""
        with self._lock:
            self._interrupted = True
            for lap in self._laps:
                lap.interrupt()

    def _total(self) -> float:
        return self._done + sum(lap.done() for lap in self._laps)

    def _fold(self) -> None:
        for lap in [lap for lap in self._laps if lap.over()]:
            self._laps.remove(lap)
            self._done += lap.done()

    def _sample(self, room: int) -> Sample:
        """For the engine: a sample with record errors of at most `room` bytes, plus one record error."""
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
            counters = cut.counters if cut else self._counters.copy()
            variables = None
            if not waiting:
                variables, self._variables, self._cut = self._variables, None, None
            return Sample(
                progress=max(whole(done), 0),
                counters={name: whole(total) for name, total in counters.items()},
                errors=taken,
                variables=variables,
                message=self._message,
                size=self._size,
                more=cut is not None or waiting > 0,
                pressing=waiting > 0,
            )


class _Backlog:
    """Record errors that wait to be sent. All are counted; the first and the last keep their texts."""

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

    progress: float
    counters: dict[str, float]
    errors: int

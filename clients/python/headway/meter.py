"""What a worker touches while it works: one part's progress, counters, record errors and variables.

Nothing here knows the network. The engine looks at a meter when a report is due, so an update costs what an
attribute costs. CPython's global lock is not handed on between the load and the store of `self._done += n`, so
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

    Values are made to fit. Fractions add up, and the fraction of their sum is not reported. Sums are reported as -2⁶³+1
    at least, 2⁶³-1 at most, and progress as 0 at least. NaN and infinity are no amounts, and change nothing. Texts that
    are too long are cut. TypeError for what is no number, where one is needed.
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
        """Called by its loops once they are interrupted."""
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
        # A signal handler may come to a meter that its own thread has locked.
        self._lock = RLock()

    def advance(self, n: float = 1) -> None:
        """Counts `n` more units as done. Safe from several threads."""
        self._done += n if type(n) is int else amount(n) or 0

    @property
    def progress(self) -> int:
        """Whole units done by this part, in this process's eyes. Can be set; `+=` from several threads loses counts."""
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
        """The items, for a `for` or `async for`. Each is counted as done when the next is asked for; one during which
        the loop breaks or raises is not counted.

        If the job's size is not known yet and the iterable has a length, that becomes the size, until more is done than
        that. Each loop over the answer begins anew and counts its own items.

        Once the work is for nothing, the loop raises before its next item, which is not counted: JobCancelled if
        somebody wants the job to end early, or has ended it as cancelled; StateError if another worker has taken it
        over, or it was ended otherwise. With `cancellable=False` it goes on.
        """
        self._touch()
        self._expect(length(iterable))
        return Tracked(self, iterable, self._check if cancellable else None)

    def count(self, counter: str, n: float = 1) -> None:
        """Adds to a named tally (`added`, `updated`, `skipped`): at most 64 a job, the first 128 characters of a
        name."""
        self._touch()
        self._counters[counter] += n if type(n) is int else amount(n) or 0

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

    def _expect(self, length: int) -> None:
        """Told the length of what is tracked, 0 if it has none: a part's own is not the job's."""

    def _touch(self) -> None:
        """Called before every change but the quickest."""

    def _bar(self) -> None:
        """Makes changes of `progress` take the slow way for good."""
        self._laps.append(Lap())

    def _begin_lap(self, lap: Lap | AsyncLap) -> None:
        with self._lock:
            self._fold()
            self._laps.append(lap)
            if self._interrupted:
                lap.interrupt()

    def _interrupt(self) -> None:
        """For the engine: the work is for nothing from now on, and its loops shall look into why."""
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

    progress: float
    counters: dict[str, float]
    errors: int

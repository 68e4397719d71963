"""tqdm with bars that are Headway jobs too. A script only changes its import.

    from headway.tqdm import tqdm

The bar's first description names the job, else the name of the script. The job has the progress, size and unit of the
bar. Its message is the postfix, and the description after its first change. The session is HEADWAY_SESSION.

A bar inside another bar is not a job; `job=True` or `job=False` overrides this. Each thread and each asyncio task has
its own bars. A disabled bar is a job too. Under `headway run`, or without a session, bars are only bars. A server that
does not answer neither raises nor delays the script, except for a second at its end if reports are not delivered.
"""

import asyncio
import inspect
import logging
import os
import sys
import threading
import time
from collections.abc import AsyncIterable, Awaitable, Callable, Generator, Iterable, Iterator, Mapping
from contextlib import suppress
from contextvars import ContextVar
from functools import cache
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Any, Generic, NoReturn, TypeVar, cast
from weakref import ReferenceType, ref

from google.rpc import status_pb2

from headway._engine import lifecycle, requests
from headway._engine.connection_state import log
from headway.client import Client, connect
from headway.errors import end_status, failure
from headway.job import Job
from headway.meter import Sample
from headway.v1 import job_service_pb2 as rpc
from headway.values import amount, whole

try:
    from tqdm.asyncio import tqdm_asyncio
    from tqdm.std import tqdm as std_tqdm
except ImportError as error:
    raise ImportError("headway.tqdm needs tqdm: pip install 'headway[tqdm]'", name=error.name) from None

__all__ = ["tqdm", "trange"]

DELIVERY_TIMEOUT = 1.0
"""Seconds that a script waits at its end until all reports are delivered."""

DECISION_DELAY = 5.0
"""Seconds after a loop was left early in which the end of the script can still show the reason."""

_UNNAMED_UNIT = "it"
_PARAMETERS = dict(inspect.signature(std_tqdm.__init__).parameters)
_AFTER_TOTAL = list(_PARAMETERS)[list(_PARAMETERS).index("total") + 1 :]

Item = TypeVar("Item")

if TYPE_CHECKING:

    class _Bar(tqdm_asyncio[Item]):
        pass

else:

    class _Bar(tqdm_asyncio, Generic[Item]):
        pass


class tqdm(_Bar[Item]):
    """`tqdm.tqdm`, with `async for`, `as_completed` and `gather` as `tqdm.asyncio` has them.

    The job ends with the bar: COMPLETED; FAILED with the exception that left the `with` block, that came from the
    iterable, or that was being handled when the unfinished bar was closed; CANCELLED if that is KeyboardInterrupt or
    CancelledError. A loop without `with` is not told why it is left early. If the script ends within DECISION_DELAY,
    the job ends as the script does, else it is COMPLETED with the message "left at 3 of 10".
    """

    job: Job | None = None
    """The bar's job, to count, to set results or to check `cancelled`. None if the bar is only a bar. The bar sets its
    progress, size and message."""
    _inside = False
    _silent = False
    _looping = False
    """A `for` loop over the bar is running. It reports its end itself."""
    _looped = False
    """The bar belongs to an `async for` loop, which has no generator that could report its end."""
    _awaited_failure: status_pb2.Status | None = None
    """The exception of the last awaitable from `as_completed`."""

    def __init_subclass__(cls, **options: Any) -> None:
        super().__init_subclass__(**options)
        # Not for every bar: an update of a plain bar must cost the same as with tqdm.
        if "_Counting" in globals() and not issubclass(cls, _Counting):
            bases = tuple(_Counting if base is tqdm else base for base in cls.__bases__)
            cls.__bases__ = bases if _Counting in bases else (*bases, _Counting)

    def __init__(
        self,
        iterable: Iterable[Item] | AsyncIterable[Item] | None = None,
        desc: str | None = None,
        total: float | None = None,
        *args: Any,
        job: bool | None = None,
        **options: Any,
    ) -> None:
        """`job`: whether the bar is a job. By default it is, unless it is inside another bar. The other arguments are
        tqdm's."""
        # tqdm.asyncio asks for an iterator here; tqdm asks when the loop begins.
        # Its types do not say that it takes asynchronous iterables.
        plain = cast("Iterable[Item]", iterable)
        super(tqdm_asyncio, self).__init__(plain, desc, total, *args, **options)
        if job or (job is None and not _is_inside_another()):
            self.job = _begin(self, {"desc": desc, **dict(zip(_AFTER_TOTAL, args, strict=False)), **options})
        if self.disable and self.job is not None:
            self._silent = True
            if type(self) is tqdm:
                self.__class__ = _Counting

    def __getstate__(self) -> dict[str, object]:
        """A copy, in this process or another, is only a bar."""
        own = {"job", "_inside", "_silent", "_looping", "_looped", "_awaited_failure"}
        return {name: value for name, value in vars(self).items() if name not in own}

    def __iter__(self) -> Iterator[Item]:
        return super().__iter__() if self._mirror() is None else self._tracked()

    def _tracked(self) -> Iterator[Item]:
        self._looping = True
        error: BaseException | None = None
        try:
            yield from self._counted() if self._silent else super().__iter__()
        except BaseException as reason:
            error = reason
            raise
        finally:
            self._looping = False
            self._leave(error)
            error = None

    def _counted(self) -> Iterator[Item]:
        """tqdm does not count a disabled bar."""
        for item in self.iterable:
            yield item
            self.n += 1

    def __aiter__(self) -> "tqdm[Item]":
        self._looped = True
        source = self.iterable
        self.iterable_awaitable = isinstance(source, AsyncIterable)
        if isinstance(source, AsyncIterable):
            self.iterable_next = source.__aiter__().__anext__
        else:
            self.iterable_next = iter(source).__next__
        return self

    async def __anext__(self) -> Item:
        if not self._looped:
            aiter(self)
        try:
            item = self.iterable_next()
            if self.iterable_awaitable:
                item = await cast("Awaitable[Item]", item)
            self.update()
        except (StopIteration, StopAsyncIteration):
            self._end_loop(None)
            raise StopAsyncIteration from None
        except BaseException as error:
            self._end_loop(error)
            raise
        return cast("Item", item)

    def _end_loop(self, error: BaseException | None) -> None:
        self._leave(error)
        self.close()

    def _leave(self, error: BaseException | None) -> None:
        """The loop over the bar has ended, with GeneratorExit if it was left early."""
        if (mirror := self._mirror()) and not self._inside:
            mirror.over(self, error)

    @classmethod
    def as_completed(
        cls,
        fs: Any,
        *,
        loop: Any = None,
        timeout: float | None = None,
        total: int | None = None,
        **options: Any,
    ) -> Generator[Any, None, None]:
        """Like in `tqdm.asyncio`. If the exception of an awaitable leaves the loop, the job ends with it."""
        awaitables: Iterable[Any] = asyncio.as_completed(fs, timeout=timeout)
        bar = cls(awaitables, total=len(fs) if total is None else total, **options)
        for awaitable in bar:
            bar._awaited_failure = None
            yield bar._watched(awaitable)

    async def _watched(self, awaitable: Any) -> Any:
        try:
            return await awaitable
        except BaseException as error:
            self._awaited_failure = end_status(error)
            raise

    def __enter__(self) -> "tqdm[Item]":
        self._inside = True
        return super().__enter__()

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if mirror := self._mirror():
            mirror.over(self, error)
        super().__exit__(kind, error, trace)

    def __del__(self) -> None:
        if (mirror := self._mirror()) and not self._inside:
            mirror.dropped(self)
        # tqdm closes the bar here, not the script.
        self.job = None
        super().__del__()

    def close(self) -> None:
        error = sys.exc_info()[1]
        try:
            super().close()
        finally:
            # The end of a `with` block or a loop reports what happened inside.
            if (mirror := self._mirror()) and not self._inside and not self._looping:
                mirror.closed(self, error)

    def _mirror(self) -> "_Mirror | None":
        """The job, if this process has to end it and not its parent."""
        return self.job if isinstance(self.job, _Mirror) and self.job.is_here else None


class _Counting(tqdm[Item]):
    """A disabled bar, which tqdm does not count. This class comes before `tqdm` in each derived class."""

    def update(self, n: float | None = 1) -> bool | None:
        if self._silent:
            self.n += n or 0
            return None
        return super().update(n)


def trange(*bounds: int, **options: Any) -> tqdm[int]:
    """`tqdm(range(*bounds), **options)`."""
    return tqdm(range(*bounds), **options)


class _Mirror(Job):
    """The job of one bar. The engine reads the bar when a report is due, so that an update of the bar costs nothing
    extra."""

    def __init__(
        self, client: Client, request: rpc.CreateJobRequest, bar: tqdm[Item], desc: str, scale: object
    ) -> None:
        described = requests.described(request)
        super().__init__(client, request.session_id, described, heartbeat=requests.heartbeat(request), started=False)
        self._watched = ref(bar)
        self._first_desc = desc
        self._scale = scale
        self._text = ""
        self._around = sys.exc_info()[1]
        """The exception that was being handled when the bar began."""
        self._printed = _last_printed()
        self._left_at: float | None = None
        """The time when the loop was left early, while the reason is unknown."""
        self.look(bar)
        _open.add(self)
        _opened_here.set((*(bar for bar in _opened_here.get() if bar() in _open), ref(self)))
        self._begin_with(request)

    def _sample(self, room: int) -> Sample:
        with self._lock:
            bar = self._watched()
            if self.is_here and self._left_at is not None:
                if time.monotonic() > self._left_at + DECISION_DELAY:
                    self._finish(None, end_status(self._uncaught()))
            elif self.is_here and bar is not None:
                self.look(bar)
            return super()._sample(room)

    @property
    def is_here(self) -> bool:
        """Whether this is the bar's process, and not a forked child."""
        return os.getpid() == self._pid

    def look(self, bar: tqdm[Item], *remarks: str) -> None:
        """Copies the progress of the bar. Values that a disabled bar does not have stay unchanged."""
        progress, size = _units(bar.n, self._scale), _units(bar.total or 0, self._scale)
        if progress is not None:
            self.progress = progress
        self.size = size or 0
        desc = str(getattr(bar, "desc", "") or "").removesuffix(": ")
        news = [desc if desc != self._first_desc else "", str(getattr(bar, "postfix", "") or ""), *remarks]
        text = ", ".join(filter(None, news))
        if text != self._text:
            self._text = self.message = text

    def over(self, bar: tqdm[Item], error: BaseException | None) -> None:
        """The bar has ended, because of this exception if there is one."""
        if isinstance(error, GeneratorExit):
            self.left(bar)
        else:
            self._finish(bar, end_status(error))

    def closed(self, bar: tqdm[Item], error: BaseException | None) -> None:
        """The bar was closed by hand, while this exception was being handled."""
        harmless = error is self._around or isinstance(error, StopIteration | StopAsyncIteration) or _is_done(bar)
        self.over(bar, None if harmless else error)

    def left(self, bar: tqdm[Item]) -> None:
        """The loop was left before its end."""
        with self._lock:
            if self._ended or self._left_at is not None:
                return
            if _task_is_cancelled():
                self._finish(bar, end_status(asyncio.CancelledError()))
            elif bar._awaited_failure is not None or _is_done(bar):
                self._finish(bar, bar._awaited_failure)
            else:
                self._left_at = time.monotonic()
                self.look(bar, f"left at {_place(bar)}")
                _open.discard(self)
                _undecided.add(self)

    def dropped(self, bar: tqdm[Item]) -> None:
        """The bar was never closed, and cannot be closed any more."""
        if bar._looping or bar._looped:
            self.left(bar)
        if self._left_at is not None:
            return
        done = not bar.total or _is_done(bar)
        self._finish(bar, None if done else failure(f"the bar was let go at {_place(bar)}"))

    def exit(self, leaving: SystemExit | None) -> None:
        """The process ends, with this exception if sys.exit was called."""
        if not self.is_here:
            return
        bar, error = self._watched(), self._uncaught() or leaving
        with self._lock:
            if bar is not None and error is not None and not _is_done(bar) and self._left_at is None:
                self.over(bar, error)
            elif bar is not None:
                self.dropped(bar)
            if self._left_at is not None:
                lately = time.monotonic() < self._left_at + DECISION_DELAY
                self._finish(None, end_status(error) if lately else None)
        if bar is not None:
            # Otherwise tqdm draws it while the interpreter removes its modules, and Python 3.13 may crash.
            with suppress(Exception):
                bar.close()

    def _uncaught(self) -> BaseException | None:
        """The exception whose traceback the interpreter has printed since the bar began, at the end of the script or of
        a cell."""
        printed = _last_printed()
        return printed if printed is not self._printed else None

    def _finish(self, bar: tqdm[Item] | None, decision: status_pb2.Status | None) -> None:
        with self._lock:
            _open.discard(self)
            _undecided.discard(self)
            if not self._ended:
                if bar is not None and self._left_at is None:
                    self.look(bar)
                self._end(decision)


class _AboveTheBar(logging.Handler):
    """Prints the log of the client if nothing else handles it, without breaking the bars."""

    def emit(self, record: logging.LogRecord) -> None:
        if sys.stderr is not None and not logging.getLogger().handlers and log.handlers == [self]:
            tqdm.write(record.getMessage(), file=sys.stderr)


_open: set[_Mirror] = set()
_undecided: set[_Mirror] = set()
_opened_here: "ContextVar[tuple[ReferenceType[_Mirror], ...]]" = ContextVar("_opened_here", default=())
"""The bars of this thread or asyncio task."""
_exit_status: list[object] = []
"""The arguments of sys.exit in the main thread since the last bar began. The interpreter does not store them."""


def _is_inside_another() -> bool:
    return any(bar() in _open for bar in _opened_here.get())


def _begin(bar: tqdm[Item], given: Mapping[str, object]) -> Job | None:
    try:
        client = _connection()
        if client is None:
            return None
        # A disabled bar has only its count and total.
        unit, desc, scale = (
            getattr(bar, name, given.get(name, _PARAMETERS[name].default)) for name in ("unit", "desc", "unit_scale")
        )
        unit, desc = str(unit or "").strip(), str(desc or "")
        request = requests.create(
            client._in(None),
            desc or _script(),
            {"unit": "" if unit == _UNNAMED_UNIT else unit},
        )
        _exit_status.clear()
        return _Mirror(client, request, bar, desc, scale)
    except Exception:
        log.warning("headway: a bar is not tracked", exc_info=True)
        return None


@cache
def _connection() -> Client | None:
    if os.environ.get("HEADWAY_JOB"):
        return None
    log.addHandler(_AboveTheBar(logging.WARNING))
    try:
        client = connect(exit_timeout=DELIVERY_TIMEOUT)
        client._in(None)
    except ValueError as error:
        log.warning("headway: not tracked: %s", error)
        return None
    sys.exit = _noting(sys.exit)
    lifecycle.before_end(lambda: _end(client))
    return client


def _noting(leave: Callable[..., NoReturn]) -> Callable[..., NoReturn]:
    def exit(status: Any = None, /) -> NoReturn:
        """Exit the interpreter by raising SystemExit(status)."""
        if threading.current_thread() is threading.main_thread():
            _exit_status[:] = [status]
        leave(status)

    return exit


def _end(client: Client) -> None:
    """The process ends."""
    leaving = SystemExit(*_exit_status) if _exit_status else None
    for mirror in [*_open, *_undecided]:
        mirror.exit(leaving)
    client.close()


def _last_printed() -> BaseException | None:
    return getattr(sys, "last_value", None)


def _task_is_cancelled() -> bool:
    try:
        task = asyncio.current_task()
    except RuntimeError:
        return False
    return task is not None and task.cancelling() > 0


def _units(number: Any, scale: Any) -> int | None:
    """A number of the bar as a number of the job, or None."""
    try:
        units = amount(number if isinstance(scale, bool) else number * (scale or 1))
    except (TypeError, ValueError, OverflowError):
        return None
    return None if units is None else max(whole(units), 0)


def _is_done(bar: tqdm[Item]) -> bool:
    try:
        return bool(bar.total and bar.n >= bar.total)
    except (TypeError, ValueError):
        return False


def _place(bar: tqdm[Item]) -> str:
    """The progress of the bar, for people."""
    try:
        return f"{bar.n:g} of {bar.total:g}" if bar.total else f"{bar.n:g}"
    except (TypeError, ValueError):
        return f"{bar.n} of {bar.total}"


def _script() -> str:
    return Path(sys.argv[0] if sys.argv else "").name.removeprefix("-c") or "python"

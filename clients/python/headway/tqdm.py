"""tqdm whose bars are Headway jobs too: a script changes its import, and nothing else.

    from headway.tqdm import tqdm

The job is named by the bar's first description, else by the script. Its progress, size and unit are the bar's; its
message is the postfix, and the description once that has changed. The session is HEADWAY_SESSION.

Only a bar that no other is open beside becomes a job, `job=True` or `job=False` decides otherwise. A disabled bar is a
job as well. Under `headway run`, or without a session, bars are just bars. What happens to the server neither raises
nor waits: the script alone is held up, for a second at its end, if something could not be delivered.
"""

import atexit
import gc
import inspect
import logging
import os
import sys
import threading
from collections.abc import AsyncIterable, Callable, Iterable, Iterator
from functools import cache
from pathlib import Path
from types import FrameType, TracebackType
from typing import TYPE_CHECKING, Any, Generic, TypeVar, cast
from weakref import ReferenceType, ref

from google.rpc import status_pb2

from headway import requests
from headway.client import Client, connect
from headway.contact import log
from headway.errors import failure, verdict_of
from headway.job import Job
from headway.meter import Sample
from headway.v1 import job_service_pb2 as rpc

try:
    from tqdm.asyncio import tqdm_asyncio
except ImportError as error:
    raise ImportError("headway.tqdm needs tqdm: pip install 'headway[tqdm]'", name=error.name) from None

__all__ = ["tqdm", "trange"]

DELIVERY = 1.0
"""Seconds that a script waits at its end for what was not delivered yet."""

_LAST_WORDS = 1.0
"""Seconds that a script has to end because of an exception that left a loop; then the job ends without its name."""
_NAME, _UNIT = 256, 32
_UNNAMED_UNIT = "it"
_GENERATOR = inspect.CO_GENERATOR | inspect.CO_ASYNC_GENERATOR

Item = TypeVar("Item")

if TYPE_CHECKING:

    class _Bar(tqdm_asyncio[Item]):
        pass

else:

    class _Bar(tqdm_asyncio, Generic[Item]):
        pass


class tqdm(_Bar[Item]):
    """`tqdm.tqdm`, with `async for`, `as_completed` and `gather` as `tqdm.asyncio` has them.

    The job ends with the bar: COMPLETED, or with the exception that left the `with` block or came from the iterable,
    or that was being handled when the bar was closed, FAILED; CANCELLED if that is KeyboardInterrupt. A loop that an
    exception leaves FAILS, one that `break` leaves is COMPLETED. A bar that is never closed is judged by the script's
    end: by its exception, else by whether all was done.
    """

    job: Job | None = None
    """The bar's job, to count, to set results, to ask `cancelled`; None if the bar is just a bar. Its progress, size
    and message are the bar's to set."""
    _inside = False
    _silent = False
    _looped = False

    def __init__(
        self,
        iterable: Iterable[Item] | AsyncIterable[Item] | None = None,
        desc: str | None = None,
        total: float | None = None,
        *args: Any,
        job: bool | None = None,
        **options: Any,
    ) -> None:
        """`job`: whether to make a job of the bar; by default, unless another is open. All else is tqdm's."""
        # tqdm.asyncio asks for an iterator here already; tqdm when the loop begins.
        # Its types do not know that it takes what `async for` does.
        plain = cast("Iterable[Item]", iterable)
        super(tqdm_asyncio, self).__init__(plain, desc, total, *args, **options)
        self._silent = bool(self.disable)
        if self._silent:
            # tqdm counts nothing there. Only this one bar has it, so that an update of others is as quick as tqdm's.
            vars(self)["update"] = _counter(ref(self))
        if job or (job is None and not _open):
            self.job = _begin(self, desc or "", str(options.get("unit", "")))

    def __iter__(self) -> Iterator[Item]:
        return self._count() if self._silent else super().__iter__()

    def __aiter__(self) -> "tqdm[Item]":
        self._looped = True
        source = self.iterable
        self.iterable_awaitable = isinstance(source, AsyncIterable)
        if isinstance(source, AsyncIterable):
            self.iterable_next = source.__aiter__().__anext__
        else:
            self.iterable_next = iter(source).__next__
        return self

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
            # An `async for` that is left has no generator that could tell.
            if self._looped:
                mirror.left(self, sys._getframe(1))
            else:
                mirror.dropped(self)
        super().__del__()

    def close(self) -> None:
        error = sys.exc_info()[1]
        super().close()
        if (mirror := self._mirror()) and not self._inside:
            if isinstance(error, GeneratorExit):
                # From here to tqdm's generator, and on to the frame that has let go of it.
                mirror.left(self, sys._getframe(1).f_back)
            else:
                mirror.over(self, error)

    def _mirror(self) -> "_Mirror | None":
        """The job, where it is this process's to end, and not that of a parent that has forked."""
        return self.job if isinstance(self.job, _Mirror) and self.job.is_here else None

    def _count(self) -> Iterator[Item]:
        try:
            for item in self.iterable:
                yield item
                self.n += 1
        finally:
            self.close()


def trange(*bounds: int, **options: Any) -> tqdm[int]:
    """`tqdm(range(*bounds), **options)`."""
    return tqdm(range(*bounds), **options)


def _counter(silent: "ReferenceType[tqdm[Item]]") -> Callable[[float | None], None]:
    def update(n: float | None = 1) -> None:
        bar = silent()
        if bar is not None:
            bar.n += n or 0

    return update


class _Mirror(Job):
    """The job of one bar. The engine looks at the bar when it is time for a report, so that an update of the bar costs
    nothing more."""

    def __init__(self, client: Client, request: rpc.CreateJobRequest, bar: tqdm[Item], desc: str) -> None:
        described = requests.described(request)
        super().__init__(client, request.session_id, described, heartbeat=requests.heartbeat(request), started=False)
        self._watched = ref(bar)
        self._first_desc = desc
        self._text = ""
        self._around = sys.exc_info()[1]
        """What was being handled already when the bar began."""
        self._presumed: status_pb2.Status | None = None
        """How a loop ended that an exception has left, as long as nobody says what exception it was."""
        self.look(bar)
        _open.add(self)
        self._begin_with(request)

    def _sample(self, room: int) -> Sample:
        bar = self._watched()
        if bar is not None and self.is_here:
            self.look(bar)
        return super()._sample(room)

    @property
    def is_here(self) -> bool:
        """Whether this is the bar's process, and not one that was forked from it."""
        return os.getpid() == self._pid

    def look(self, bar: tqdm[Item]) -> None:
        """Takes over how far the bar is. What a disabled bar does not have stays as it was."""
        scale = getattr(bar, "unit_scale", 1)
        scale = 1 if isinstance(scale, bool) else scale or 1
        self.progress = int(bar.n * scale)
        self.size = int((bar.total or 0) * scale)
        desc = str(getattr(bar, "desc", "") or "").removesuffix(": ")
        news = [desc if desc != self._first_desc else "", str(getattr(bar, "postfix", "") or "")]
        text = ", ".join(filter(None, news))
        if text != self._text:
            self._text = self.message = text

    def over(self, bar: tqdm[Item], error: BaseException | None) -> None:
        """The bar has ended, because of this exception if there is one."""
        # Leaving a generator, or coming to the end of the iterable, is no failure.
        harmless = isinstance(error, GeneratorExit | StopIteration | StopAsyncIteration) or error is self._around
        if self not in _undecided:
            self._finish(bar, None if harmless else verdict_of(error))

    def left(self, bar: tqdm[Item], frame: FrameType | None) -> None:
        """The loop in this frame was left before its end."""
        trace = _underway(frame) if frame is not None else None
        if trace is None or frame is None or self._ended:
            self._finish(bar, None)
            return
        self.look(bar)
        # A generator may only have been told to end, which is no failure.
        if not frame.f_code.co_flags & _GENERATOR:
            self._presumed = failure(f"an exception left the loop ({_place(trace)})")
        _open.discard(self)
        _undecided.add(self)
        timer = threading.Timer(_LAST_WORDS, self._finish, (bar, self._presumed))
        timer.daemon = True
        timer.start()

    def dropped(self, bar: tqdm[Item]) -> None:
        """Nobody has closed the bar, and nobody can any more."""
        done = not bar.total or bar.n >= bar.total
        self._finish(bar, None if done else failure(f"the bar was let go at {bar.n:g} of {bar.total:g}"))

    def exit(self, error: BaseException | None) -> None:
        """The script ends, because of this exception if there is one."""
        bar = self._watched()
        if bar is None or not self.is_here:
            return
        if error is not None:
            self._finish(bar, verdict_of(error))
        elif self in _undecided:
            self._finish(bar, self._presumed)
        else:
            self.dropped(bar)

    def _finish(self, bar: tqdm[Item], verdict: status_pb2.Status | None) -> None:
        _open.discard(self)
        _undecided.discard(self)
        if not self._ended:
            self.look(bar)
            self._end(verdict)


class _AboveTheBar(logging.Handler):
    """Shows what the client has to say where nobody else takes it, and leaves the bars whole."""

    def emit(self, record: logging.LogRecord) -> None:
        if sys.stderr is not None and not logging.getLogger().handlers and log.handlers == [self]:
            tqdm.write(record.getMessage(), file=sys.stderr)


_open: set[_Mirror] = set()
_undecided: set[_Mirror] = set()


def _begin(bar: tqdm[Item], desc: str, unit: str) -> Job | None:
    try:
        client = _connection()
        if client is None:
            return None
        unit = unit.strip()
        request = requests.create(
            client._in(None),
            (desc or _script())[:_NAME],
            {"unit": "" if unit == _UNNAMED_UNIT else unit[:_UNIT]},
        )
        return _Mirror(client, request, bar, desc)
    except Exception:
        log.warning("headway: a bar is not tracked", exc_info=True)
        return None


@cache
def _connection() -> Client | None:
    if os.environ.get("HEADWAY_JOB"):
        return None
    log.addHandler(_AboveTheBar(logging.WARNING))
    try:
        client = connect(exit_timeout=DELIVERY)
        client._in(None)
    except ValueError as error:
        log.warning("headway: not tracked: %s", error)
        return None
    atexit.register(_at_exit, client)
    return client


def _at_exit(client: Client) -> None:
    # The interpreter leaves here what it has printed, be it the end of the script or not.
    error = getattr(sys, "last_value", None)
    for mirror in [*_open, *_undecided]:
        mirror.exit(error)
    client.close()


def _script() -> str:
    return Path(sys.argv[0] if sys.argv else "").name.removeprefix("-c") or "python"


def _underway(frame: FrameType) -> TracebackType | None:
    """The traceback of an exception that is on its way out of what this frame does right now. No other can point to
    this very instruction, and Python has no other way to ask while it unwinds."""
    for holder in gc.get_referrers(frame):
        if isinstance(holder, TracebackType) and holder.tb_lasti == frame.f_lasti:
            return holder
    return None


def _place(trace: TracebackType) -> str:
    while trace.tb_next is not None:
        trace = trace.tb_next
    return f"{Path(trace.tb_frame.f_code.co_filename).name}, line {trace.tb_lineno}"

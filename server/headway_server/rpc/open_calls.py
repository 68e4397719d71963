"""The open gRPC calls: counts them for each connection, and ends them when their caller neither sends nor reads.

A call is open from the arrival of its headers until gRPC has sent its whole reply. Every method is registered with a
stream of requests: otherwise gRPC would read the message itself, and the server would not see calls without a message.
"""

from __future__ import annotations

import asyncio
import gc
import math
import time
from collections.abc import Collection
from typing import TypeAlias

import grpc.aio

from headway_server.domain.errors import JobError, MalformedMessage, MemoryLimit, RequestTooSlow, StreamExpired
from headway_server.resources.budget import Budget
from headway_server.resources.large_replies import LargeReplies
from headway_server.resources.turns import Turns

MESSAGE_TIMEOUT = 30.0
"""Seconds from the headers of a call to the end of its first message. The same as for a request over HTTP."""

SLOW_MESSAGE_AFTER = 2.0
"""Seconds after which a missing first message counts as slow. gRPC may already hold most of it (up to 4 MiB)."""

SLOW_MESSAGES_MAX = 64
"""The most slow first messages, in all. Calls of a connection with more than its share of them are refused."""

WRITE_TIMEOUT = 60.0
"""Seconds in which a caller must receive a message."""

SHUTDOWN_WRITE_TIMEOUT = 0.5
"""The same during the shutdown: the server does not wait long for callers that do not read."""

AUXILIARY_LIFE = 3600.0
"""The maximum duration of a stream of gRPC's own services (health, reflection), in seconds. The same as for reports."""

AUXILIARY_CALLS = 1000
"""The most open calls of gRPC's own services, in all. A client needs one or two of them."""

UNCOUNTED_REPLY_BYTES = 1024
"""Replies of at most this many bytes are not counted: an open call takes more memory anyway."""

MESSAGES_A_CYCLE = 16
"""First messages that are processed in one cycle of the event loop, with connections taking turns. Each may take some
ms, and gRPC delivers hundreds at once."""

ARRIVING_MAX = 64
"""While this many first messages are expected soon, further calls wait."""

ARRIVAL_TIME = 0.1
"""A first message is expected soon for this many seconds, or up to twice as many."""

WRITES_A_CYCLE = 32
"""Messages of streams that are sent in one cycle of the event loop, with connections taking turns. A cycle then takes
about 3 ms, and other calls take several cycles, however many watches have messages to send."""

LATE_CALLS_INTERVAL = 1.0
"""Seconds between two checks for late calls. A timer for each call would cost more."""

OUTER_TASK = "rpc_task"
"""The name of the task that grpc.aio makes for each call. The handler's task is made within it."""

Context: TypeAlias = "grpc.aio.ServicerContext[bytes, bytes]"


async def aborted(
    context: Context, code: grpc.StatusCode, message: str, trailer: tuple[tuple[str, bytes], ...]
) -> grpc.aio.AbortError:
    """End the call with this status. Returns the error that gRPC raises for its handler, without its traceback: gRPC
    keeps the error, and the traceback would keep the call until the garbage collector runs.

    Raises another grpc.aio.BaseError if the caller has disconnected.
    """
    try:
        await context.abort(code, message, trailer)
    except grpc.aio.AbortError as error:
        return error.with_traceback(None)
    raise AssertionError("abort has raised")


class Call:
    """One open call. `connection` is the name of its connection."""

    __slots__ = (
        "_calls",
        "_context",
        "_life_end",
        "_message",
        "_unsent_bytes",
        "budget",
        "connection",
        "due",
        "ended",
        "late",
        "task",
        "writing",
    )

    def __init__(
        self, calls: OpenCalls, context: Context, connection: str, budget: Budget, task: asyncio.Task[object]
    ) -> None:
        self.connection = connection
        self.budget = budget
        """The budget in which the call counts."""
        self.task = task
        """The task of the handler."""
        self.due = calls.now + MESSAGE_TIMEOUT
        """When the call is late, unless something happens before."""
        self.late: type[JobError] = RequestTooSlow
        """The error for the caller if the call is late."""
        self.ended = False
        """Whether the call was cancelled because it was late."""
        self.writing = False
        """Whether the caller has not received everything yet."""
        self._calls = calls
        self._context = context
        self._life_end = math.inf
        self._message = b""
        self._unsent_bytes = 0

    async def arrive(self) -> None:
        """Wait for the first message. Raises MalformedMessage if the call has none."""
        arrivals = self._calls.arrivals
        begun = arrivals.begin()
        try:
            raw = await self._context.read()
        finally:
            arrivals.end(begun)
        self.due = math.inf
        if not isinstance(raw, bytes):
            raise MalformedMessage("The call has no message; send one.")
        self._message = raw
        await self._calls.messages.step(self.connection)

    @property
    def arriving(self) -> bool:
        """Whether the first message has not arrived yet."""
        return self.late is RequestTooSlow and not self.writing and self.due < math.inf

    @property
    def size(self) -> int:
        """Bytes of the first message, until `message` takes it."""
        return len(self._message)

    def message(self) -> bytes:
        """Take the first message: a long call must not hold it."""
        raw, self._message = self._message, b""
        return raw

    def lives(self, seconds: float) -> None:
        """End the call with StreamExpired after this time."""
        self.due = self._life_end = self._calls.now + seconds
        self.late = StreamExpired

    def answer(self, size: int) -> None:
        """Count a reply of this many bytes, which is passed to gRPC now. Raises MemoryLimit."""
        if size > UNCOUNTED_REPLY_BYTES:
            self._calls.unsent.take(self.connection, size)
            self._unsent_bytes = size
        self.writing = True
        self.due = self._calls.now + WRITE_TIMEOUT

    async def write(self, raw: bytes) -> None:
        """Send a message of a stream. Returns when the caller has room for it. Raises MemoryLimit."""
        await self._calls.writes.step(self.connection)
        self.answer(len(raw))
        await self._context.write(raw)
        self.due = self._life_end
        self.sent()

    def sent(self) -> None:
        """gRPC has sent all replies of the call."""
        self.writing = False
        if self._unsent_bytes:
            self._calls.unsent.give_back(self.connection, self._unsent_bytes)
            self._unsent_bytes = 0

    def end(self) -> None:
        """Cancel the handler, which sends the error to the caller."""
        self.due = math.inf
        self.ended = True
        self.task.cancel()


class _Arrivals:
    """Counts the first messages that are expected soon. A timer for each would cost more."""

    def __init__(self) -> None:
        self._span = 0
        self._now = 0
        """Messages that are expected since the present span of time."""
        self._before = 0
        """The same for the span before."""

    def __len__(self) -> int:
        self._turn()
        return self._now + self._before

    def begin(self) -> int:
        """Expect a message from now on. Returns the argument for `end`."""
        self._turn()
        self._now += 1
        return self._span

    def end(self, begun: int) -> None:
        """The message has arrived, or will not arrive."""
        if begun == self._span:
            self._now -= 1
        elif begun == self._span - 1:
            self._before -= 1

    def _turn(self) -> None:
        span = int(time.monotonic() / ARRIVAL_TIME)
        if span != self._span:
            self._before = self._now if span == self._span + 1 else 0
            self._now = 0
            self._span = span


class OpenCalls:
    """All open calls, at most `total`. `unsent`: the budget for replies that callers have not received yet."""

    def __init__(self, total: int, unsent: Budget) -> None:
        self.unsent = unsent
        self.large_replies = LargeReplies(unsent)
        self.arrivals = _Arrivals()
        self.messages = Turns(MESSAGES_A_CYCLE)
        self.writes = Turns(WRITES_A_CYCLE)
        self.now = 0.0
        """The time of the last sweep (s): exact enough, and cheaper than reading the clock twice for each call."""
        self._calls = Budget(total, MemoryLimit)
        self._auxiliary = Budget(AUXILIARY_CALLS, MemoryLimit)
        self._open: dict[asyncio.Task[object], Call] = {}

    def begin(self, context: Context, *, auxiliary: bool = False) -> Call:
        """Register a call whose headers have arrived. Raises MemoryLimit if its connection has too many open calls."""
        connection = context.peer()
        budget = self._auxiliary if auxiliary else self._calls
        budget.take(connection, 1)
        task = asyncio.current_task()
        assert task is not None
        call = self._open[task] = Call(self, context, connection, budget, task)
        # The context's callbacks would make a reference cycle, and keep the call until the next garbage collection.
        task.add_done_callback(self._over)
        return call

    def _over(self, task: asyncio.Task[object]) -> None:
        call = self._open.pop(task)
        call.budget.give_back(call.connection, 1)
        call.sent()

    def __len__(self) -> int:
        return len(self._open)

    @property
    def are_busy(self) -> bool:
        """Whether further calls must wait in the call queue, which measures their wait."""
        return self.messages.are_taken or len(self.arrivals) >= ARRIVING_MAX

    async def run(self) -> None:
        """End late calls, until cancelled."""
        loop = asyncio.get_running_loop()
        self.now = loop.time()
        while True:
            await asyncio.sleep(LATE_CALLS_INTERVAL)
            await self.sweep(loop.time())

    async def sweep(self, now: float) -> None:
        """End late calls. `now` is the loop's time."""
        self.now = now
        stuck: list[Call] = []
        slow: list[Call] = []
        for call in self._open.values():
            if call.due <= now:
                if call.writing:
                    stuck.append(call)
                else:
                    call.end()
            elif call.arriving and call.due <= now + MESSAGE_TIMEOUT - SLOW_MESSAGE_AFTER:
                slow.append(call)
        # End the oldest ones: they had the most time.
        messages = Budget(SLOW_MESSAGES_MAX, MemoryLimit)
        for call in reversed(slow):
            if messages.allows(call.connection, 1):
                messages.take(call.connection, 1)
            else:
                call.late = MemoryLimit
                call.end()
        await _reset(stuck)

    async def close(self) -> None:
        """Give callers a short time to receive their replies, then end their calls."""
        writing = [call for call in self._open.values() if call.writing]
        if writing:
            await asyncio.sleep(SHUTDOWN_WRITE_TIMEOUT)
            await _reset([call for call in writing if call.writing])


async def _reset(calls: Collection[Call]) -> None:
    """End calls whose reply cannot be sent, and free gRPC's memory for it. Their callers get CANCELLED.

    A status would wait behind the reply, and grpc.aio cannot cancel a call. But gRPC cancels a call when nothing refers
    to it. Two tasks refer to it: the handler's task, and an outer task that waits for the call's end. (grpc.aio itself
    refers to the latest call until the next one arrives. That call ends then.)
    """
    if not calls:
        return
    loop = asyncio.get_running_loop()
    outer_tasks = await asyncio.to_thread(_outer_tasks, loop, {call.task for call in calls})
    for call in calls:
        outer = outer_tasks.get(call.task)
        if outer is not None and call.writing:
            call.task.cancel()
            outer.cancel()


def _outer_tasks(
    loop: asyncio.AbstractEventLoop, handlers: Collection[asyncio.Task[object]]
) -> dict[asyncio.Task[object], asyncio.Task[object]]:
    """The outer task of each handler's task: the one that has it among its variables."""
    found: dict[asyncio.Task[object], asyncio.Task[object]] = {}
    for outer in asyncio.all_tasks(loop):
        if outer.get_name() == OUTER_TASK:
            for variables in gc.get_referents(outer.get_coro()):
                for variable in gc.get_referents(variables):
                    if isinstance(variable, asyncio.Task) and variable in handlers:
                        found[variable] = outer
    return found

"""The call queue: accepts calls from gRPC as they arrive, and serves connections in turn.

grpc.aio requests one call from gRPC in each cycle of the event loop. Then all calls wait in one queue behind the
busiest caller, and requesting each call takes a third of its cost. This queue requests many calls at once. They wait
here, in a queue for each connection, and the server knows for how long. Calls that wait too long, or are too many, are
refused before any work is done for them.
"""

import asyncio
import importlib
import random
import time
from collections import OrderedDict, deque
from collections.abc import Callable, Sequence
from contextlib import suppress
from typing import NamedTuple, TypeAlias

import grpc
import grpc.aio

from headway_server.domain.errors import Overloaded
from headway_server.rpc import to_proto
from headway_server.rpc.open_calls import aborted

REQUESTED_CALLS = 256
"""Calls that are requested from gRPC at once. 64 are enough to reduce the cost. More handle bursts in long cycles."""

CALLS_A_CYCLE = 16
"""Calls that are started in one cycle of the event loop: a cycle takes about 2 ms, and each call several cycles."""

SLOW_COMMIT_DELAY = 0.002
"""Seconds between two calls that are started while commits are long. Reads wait briefly, and writes would make the next
commit even longer. Here calls can be refused before any work is done for them."""

WAITING_MAX = 1300
"""Waiting calls from which on a connection is limited to its share. Greater than CONNECTION_CALLS."""

CALL_WAIT_MAX = 0.5
"""Seconds that a call may wait before it is refused: most callers would not wait much longer."""

NEWEST_FIRST_AFTER = 0.1
"""If the oldest call of a connection has waited for this many seconds, its newest call is served first. Otherwise most
callers would have given up before their turn, and no call would be answered in time."""

REFUSALS_A_SECOND = 1500
"""Refusals a second while all connections have calls waiting. A refusal costs about 70 µs, so they take a tenth of the
time. gRPC closes further calls of any connection: that costs less, but gives no reason."""

QUIET_PERIOD = 10.0
"""For this many seconds after a call of a quiet connection, refusals are not limited: gRPC would close the quiet
connection's calls too. A connection is quiet if it has no waiting calls while others have many."""

NOISY_CALLS = 16
"""A connection with this many waiting calls does not count as quiet for QUIET_PERIOD."""

NOISY_CONNECTIONS_MAX = 10_000
"""The most connections for which that is remembered."""

PREPARED_STATUSES = 16
"""Prepared refusals, each with a different retry delay."""

PREPARED_AGE_MAX = 0.5
"""Seconds after which they are prepared again."""

_cygrpc = importlib.import_module("grpc._cython.cygrpc")


_State: TypeAlias = object
"""gRPC's state of a call."""


class _Waiting(NamedTuple):
    came: float
    state: _State
    context: "grpc.aio.ServicerContext[bytes, bytes]"


_Trailer = tuple[tuple[str, bytes]]


class CallQueue:
    """A gRPC server with these options and handlers. Calls wait while the server is busy with earlier ones, and longer
    while commits are behind."""

    def __init__(
        self,
        options: Sequence[tuple[str, int]],
        handlers: Sequence[grpc.GenericRpcHandler],
        is_busy: Callable[[], bool],
        is_behind: Callable[[], bool],
    ) -> None:
        self.refused = 0
        """The number of calls that were refused."""
        self._is_busy = is_busy
        self._is_behind = is_behind
        self._loop = asyncio.get_running_loop()
        kind = type("AioServer", (_cygrpc.AioServer,), {"_request_call": lambda _: self._next()})
        self._server = kind(self._loop, None, [*handlers], (), tuple(options), None)
        self._queues: OrderedDict[str, deque[_Waiting]] = OrderedDict()
        """Waiting calls by connection, oldest first. The first connection is next."""
        self._waiting = 0
        self._handed_on = 0
        """Calls that were started in this cycle of the event loop."""
        self._arrived = asyncio.Event()
        self._takers: list[asyncio.Task[None]] = []
        self._parked: deque[asyncio.Future[None]] = deque()
        """Takers that wait until there is room for another call, or until it may be refused."""
        self._allowance = 0.0
        self._allowed_at = self._quiet_until = time.monotonic()
        self._noisy_until: dict[str, float] = {}
        """Until when each connection does not count as quiet."""
        self._failure: Exception | None = None
        self._refusals: set[asyncio.Task[None]] = set()
        self._prepared: list[tuple[str, _Trailer]] = []
        self._prepared_at = 0.0

    def bind(self, address: str) -> int:
        """Listen on an address. Returns the port. Raises RuntimeError or returns 0 if that fails."""
        port: int = self._server.add_insecure_port(address.encode())
        return port

    async def start(self) -> None:
        """Begin to accept calls."""
        await self._server.start()

    async def stop(self, grace: float | None) -> None:
        """Refuse new calls, and end open calls after `grace` seconds."""
        await self._server.shutdown(grace)

    @property
    def wait(self) -> float:
        """For how many seconds the oldest call has waited."""
        came = min([queue[0].came for queue in self._queues.values()], default=None)
        return 0.0 if came is None else time.monotonic() - came

    async def _next(self) -> _State:
        """The next call to serve. grpc.aio requests one after the other."""
        if not self._takers:
            self._takers = [self._loop.create_task(self._take()) for _ in range(REQUESTED_CALLS)]
        while True:
            if self._handed_on and self._is_behind():
                await asyncio.sleep(SLOW_COMMIT_DELAY)
                self._handed_on = 0
            elif self._handed_on >= CALLS_A_CYCLE or self._is_busy():
                # Let other tasks run.
                await asyncio.sleep(0)
                self._handed_on = 0
            while not self._queues:
                if self._failure is not None:
                    raise self._failure
                self._arrived.clear()
                await self._arrived.wait()
                self._handed_on = 0
            self._handed_on += 1
            state = self._pop()
            if state is not None:
                return state

    async def _take(self) -> None:
        """Accept one call after the other from gRPC."""
        request = _cygrpc.AioServer._request_call
        while True:
            try:
                state = await request(self._server)
            except _cygrpc._RequestCallError as error:
                # The server stops.
                self._failure = error
                self._queues.clear()
                self._waiting = 0
                self._arrived.set()
                self._unpark()
                return
            self._put(state)
            # gRPC ends a call when nothing refers to it.
            del state
            while self._is_full and not self._may_refuse:
                room = self._loop.create_future()
                self._parked.append(room)
                await room
            if self._failure is not None:
                return

    @property
    def _is_full(self) -> bool:
        return self._waiting >= WAITING_MAX

    def _put(self, state: _State) -> None:
        context = _cygrpc._ServicerContext(state, None, None, self._loop)
        connection = context.peer()
        queue = self._queues.get(connection)
        now = time.monotonic()
        if queue is None:
            queue = self._queues[connection] = deque()
            if self._waiting >= WAITING_MAX // 2 and self._noisy_until.get(connection, 0.0) < now:
                self._quiet_until = now + QUIET_PERIOD
        elif self._is_full and len(queue) * len(self._queues) >= WAITING_MAX and self._may_refuse:
            self._refuse(context, CALL_WAIT_MAX)
            return
        queue.append(_Waiting(now, state, context))
        if len(queue) >= NOISY_CALLS:
            if len(self._noisy_until) >= NOISY_CONNECTIONS_MAX:
                self._noisy_until.clear()
            self._noisy_until[connection] = now + QUIET_PERIOD
        self._waiting += 1
        self._arrived.set()

    def _pop(self) -> _State | None:
        """The next call of the connection whose turn it is. None if no call of it is to be served."""
        connection, queue = self._queues.popitem(last=False)
        now = time.monotonic()
        call: _Waiting | None = None
        while call is None and queue:
            call = queue.popleft()
            self._waiting -= 1
            waited = now - call.came
            if waited <= NEWEST_FIRST_AFTER:
                break
            if call.context.time_remaining() == 0:
                call = None
            elif waited > CALL_WAIT_MAX and self._may_refuse:
                self._refuse(call.context, waited)
                self._handed_on += 1
                call = None
                break
            elif queue:
                queue.appendleft(call)
                call = queue.pop()
        if queue:
            self._queues[connection] = queue
        self._unpark()
        return None if call is None else call.state

    def _unpark(self) -> None:
        while self._parked and not self._is_full:
            self._parked.popleft().set_result(None)
        if self._parked and self._may_refuse:
            self._parked.popleft().set_result(None)

    @property
    def _may_refuse(self) -> bool:
        now = time.monotonic()
        self._allowance = min(self._allowance + (now - self._allowed_at) * REFUSALS_A_SECOND, REFUSALS_A_SECOND)
        self._allowed_at = now
        return self._allowance >= 1 or now < self._quiet_until

    def _refuse(self, context: "grpc.aio.ServicerContext[bytes, bytes]", wait: float) -> None:
        self.refused += 1
        self._allowance = max(self._allowance - 1, 0)
        message, trailer = self._refusal(wait)
        task = self._loop.create_task(_abort(context, message, trailer))
        self._refusals.add(task)
        task.add_done_callback(self._refusals.discard)

    def _refusal(self, wait: float) -> tuple[str, _Trailer]:
        now = time.monotonic()
        if now - self._prepared_at > PREPARED_AGE_MAX:
            statuses = [to_proto.status(Overloaded(wait)) for _ in range(PREPARED_STATUSES)]
            self._prepared = [
                (status.message, (("grpc-status-details-bin", status.SerializeToString()),)) for status in statuses
            ]
            self._prepared_at = now
        return random.choice(self._prepared)


async def _abort(context: "grpc.aio.ServicerContext[bytes, bytes]", message: str, trailer: _Trailer) -> None:
    with suppress(grpc.aio.BaseError):
        await aborted(context, grpc.StatusCode.RESOURCE_EXHAUSTED, message, trailer)

"""The group commit: one thread owns the one write connection.

It takes all waiting calls, applies the domain's rules, writes, commits once, and wakes the event loop once. No call is
answered before its commit.
"""

import asyncio
import logging
import threading
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from operator import attrgetter

from headway_server.domain.change import Change, Rules
from headway_server.domain.commands import Command, affected_keys
from headway_server.domain.errors import DatabaseUnavailable, JobError, Overloaded, ShuttingDown
from headway_server.domain.gaps import Gap, RecentGaps
from headway_server.domain.job import Job, Key
from headway_server.domain.limits import MICROSECONDS
from headway_server.resources.call_statistics import COMMIT_CALLS, COMMIT_SECONDS, Histogram
from headway_server.resources.clock import Clock, SteadyClock
from headway_server.service.command_costs import weight
from headway_server.service.commit import Commit, Outcome, Step
from headway_server.service.commit_queue import CommitQueue
from headway_server.service.job_cache import JobCache
from headway_server.service.totals import Totals
from headway_server.storage.database_errors import (
    DATABASE_ERRORS,
    Treatment,
    as_bug,
    as_job_error,
    log_error,
    treatment,
)
from headway_server.storage.listing import JobEvent, Removal
from headway_server.storage.store import CommitFailed, Store

BATCH_WEIGHT_MAX = 2000
"""The weight of one batch, or a little more. It takes about 100 ms, so no call waits long for others."""

COMMIT_TRIES = 3
"""How often a commit is tried if another server or a lost connection prevents it."""

PENDING_BYTES_MAX = 64 * 1024 * 1024
"""Bytes of requests that wait for their commit, before further calls are refused."""

COMMIT_WAIT_MAX = 0.5
"""Seconds that the commits ahead of a call may take, without the call's own commit: most callers would not wait longer.
If they take longer, further calls are refused and streams are not read."""

LONG_COMMIT = 0.1
"""A commit that takes at least this many seconds is long: calls that arrive meanwhile wait for it, then for their own
commit."""

STEP_TIME_WEIGHT_MIN = 64
"""Only commits of at least this weight are used to estimate the time of a step: smaller ones spend most of their time
on the commit itself."""

COMMIT_SMOOTHING = 0.25
"""The share of the latest commit in the average time of a commit."""

log = logging.getLogger(__name__)


class StreamOrder:
    """Calls that must be applied in order: once one of them fails, all later ones are refused with the same error.

    Otherwise a stream whose second request fails and whose third succeeds would send the second one again, and the
    server would ignore its sequences as old ones.
    """

    def __init__(self) -> None:
        self.error: JobError | None = None

    def close(self, error: JobError) -> None:
        """Refuse all calls that have not been applied yet."""
        self.error = self.error or error


@dataclass(slots=True, eq=False)
class _Call:
    steps: Sequence[Step]
    future: "asyncio.Future[list[Outcome]]"
    size: int = 0
    weight: int = 0
    task: Callable[[], None] | None = None
    order: StreamOrder | None = None
    outcomes: list[Outcome] = field(default_factory=list)
    failure: Exception | None = None

    def fail(self, error: Exception) -> None:
        """Fail this call, and all later calls of its order."""
        self.failure = error
        if self.order is not None:
            self.order.close(error if isinstance(error, JobError) else DatabaseUnavailable())


class _Deferred:
    """The calls of a batch that move to the next commit: calls that cannot share this one, and calls that must not
    overtake them."""

    def __init__(self) -> None:
        self.calls: dict[_Call, None] = {}
        """The calls, in their order."""
        self._keys: set[Key] = set()
        self._orders: set[StreamOrder] = set()

    def add(self, call: _Call) -> None:
        self.calls[call] = None
        self._keys.update([key for key, _ in call.steps])
        if call.order is not None:
            self._orders.add(call.order)

    def holds_back(self, call: _Call) -> bool:
        """Whether the call must wait too: it shares a job or an order with a deferred call, or it is a barrier."""
        if not self.calls:
            return False
        if call.order in self._orders or not (call.steps or call.task):
            return True
        return any(key in self._keys for key, _ in call.steps)


class CommitWriter:
    """Applies steps durably.

    `publish` is called in the event loop with the changes of each commit, before its calls return. Each of
    `extra_writes` is called with them within the commit, to write more rows.
    """

    def __init__(
        self,
        store: Store,
        job_cache: JobCache,
        totals: Totals,
        clock: Clock,
        rules: Rules,
        publish: Callable[[Sequence[JobEvent]], None],
        extra_writes: Sequence[Callable[[Sequence[Change]], None]] = (),
    ) -> None:
        self._store = store
        self._job_cache = job_cache
        self._totals = totals
        self._clock = clock
        self._rules = rules
        self._publish = publish
        self._extra_writes = extra_writes
        self._loop = asyncio.get_running_loop()
        self._queue: CommitQueue[_Call] = CommitQueue(self._loop)
        self._waiting: set[_Call] = set()
        self._waiting_weight = 0
        self._pending_bytes = 0
        self._room = asyncio.Event()
        self.slow_commits = RecentGaps(SteadyClock.elapsed)
        """Workers that wait for a slow commit cannot report meanwhile."""
        self._commit_time = 0.0
        """The average time of the latest commits, in seconds."""
        self._step_time = 0.0
        """The average time of a step in the latest large commits, in seconds."""
        self._commit_began = 0.0
        """When the running commit began; 0 if none runs."""
        self._closed = False
        self._uncertain: set[Key] = set()
        self.failures = 0
        """The number of commits that failed or were given up, so that calls were refused."""
        self._last_now = 0
        self.failure: JobError | None = None
        """Why the last commit failed; None if it succeeded. Commits that write nothing do not count."""
        self.succeeded_at = time.monotonic()
        """When a commit last wrote something (seconds, monotonic clock)."""
        self.commit_seconds = Histogram(COMMIT_SECONDS)
        self.commit_calls = Histogram(COMMIT_CALLS)
        self._thread = threading.Thread(target=self._run, name="headway-writer", daemon=True)
        self._thread.start()

    @property
    def waiting(self) -> int:
        """The number of calls that wait for their commit."""
        return len(self._waiting)

    @property
    def wait(self) -> float:
        """How many seconds the commits ahead of a new call probably take. 0 if the call fits into the next commit."""
        commits = self._waiting_weight // BATCH_WEIGHT_MAX
        if not commits:
            return 0.0
        began = self._commit_began
        running = time.perf_counter() - began if began else 0.0
        return commits * max(self._commit_time, running)

    @property
    def is_behind(self) -> bool:
        """Whether the running commit is long, or the next one would be."""
        began = self._commit_began
        running = time.perf_counter() - began if began else 0.0
        return max(running, self._waiting_weight * self._step_time) > LONG_COMMIT

    @property
    def load(self) -> float:
        """How close the waiting calls are to the limits of number, bytes and time: 0 to 1, or more beyond them."""
        return max(self._fullness, self.wait / COMMIT_WAIT_MAX)

    @property
    def _fullness(self) -> float:
        calls = len(self._waiting) / self._rules.limits.pending_writes
        return max(calls, self._pending_bytes / PENDING_BYTES_MAX)

    async def room(self) -> None:
        """Wait until there is room. For callers that can wait: they leave half of the room to others."""
        while self.load >= 0.5 and not self._closed:
            self._room.clear()
            await self._room.wait()

    def submit(
        self, steps: Sequence[Step], size: int = 0, *, order: StreamOrder | None = None, urgent: bool = False
    ) -> "asyncio.Future[list[Outcome]]":
        """Apply the steps in their order, in one commit. Returns the outcome of each. `size` is their size in bytes.

        `order`: the calls that must be applied before this one. `urgent`: accept the call in spite of overload. Raises
        Overloaded or ShuttingDown at once, DatabaseUnavailable or StorageFull later. Then nothing was acknowledged.
        """
        if order is not None and order.error is not None:
            raise order.error
        # A stream has already waited for room: do not break it because of the time since then.
        if not urgent and (self.load if order is None else self._fullness) >= 1:
            overloaded = Overloaded(self.wait)
            if order is not None:
                order.close(overloaded)
            raise overloaded
        return self._put(_Call(steps, self._loop.create_future(), size, weight(steps, size), order=order))

    async def run_task(self, work: Callable[[], None]) -> None:
        """Run `work`, which writes rows of no job, within a commit."""
        await self._put(_Call((), self._loop.create_future(), task=work))

    async def barrier(self) -> None:
        """Wait until every call that was submitted before is committed or refused."""
        await self._put(_Call((), self._loop.create_future()))

    def take_uncertain(self) -> set[Key]:
        """Return and forget the jobs whose last commit may or may not have taken effect."""
        taken, self._uncertain = self._uncertain, set()
        return taken

    def _put(self, call: _Call) -> "asyncio.Future[list[Outcome]]":
        if self._closed:
            raise ShuttingDown
        self._waiting.add(call)
        self._waiting_weight += call.weight
        self._pending_bytes += call.size
        self._queue.put(call)
        return call.future

    def give_up(self) -> None:
        """The database does not answer: fail all waiting calls with DatabaseUnavailable. Some may yet be committed."""
        self.failures += 1
        for call in self._waiting:
            if call.order is not None:
                call.order.close(DatabaseUnavailable())
            if not call.future.done():
                call.future.set_exception(DatabaseUnavailable())

    async def apply(self, key: Key, command: Command, size: int = 0) -> Job:
        """Apply one command. Returns the job after it. Also raises the domain's errors."""
        (outcome,) = await self.submit(((key, command),), size)
        if isinstance(outcome, JobError):
            raise outcome
        return outcome

    async def close(self) -> None:
        """Commit all accepted calls, then stop."""
        if not self._closed:
            self._closed = True
            self._room.set()
            self._queue.close()
        await asyncio.to_thread(self._thread.join)

    # In the commit writer's thread.

    def _run(self) -> None:
        while True:
            # Answered clients usually send again at once, and a commit costs as much as many calls: wait briefly for
            # them. Commit a lone call immediately.
            self._queue.wait(len(self._waiting))
            closing = self._queue.closed
            batch = self._collect()
            if batch:
                began = self._commit_began = time.perf_counter()
                events = self._commit(batch)
                took = time.perf_counter() - began
                self._commit_began = 0.0
                if took >= LONG_COMMIT:
                    ended = SteadyClock.elapsed()
                    self.slow_commits.add(Gap(ended - int(took * MICROSECONDS), ended))
                self._commit_time += (took - self._commit_time) * COMMIT_SMOOTHING
                weighed = sum([call.weight for call in batch])
                if weighed >= STEP_TIME_WEIGHT_MIN:
                    self._step_time += (took / weighed - self._step_time) * COMMIT_SMOOTHING
                self.commit_seconds.add(took)
                self.commit_calls.add(len(batch))
                try:
                    self._loop.call_soon_threadsafe(self._deliver, batch, events)
                except RuntimeError:  # The loop has ended, and with it all waiting calls.
                    break
            elif closing:
                break
        self._store.disconnect()

    def _collect(self) -> list[_Call]:
        batch: list[_Call] = []
        taken = 0
        while taken < BATCH_WEIGHT_MAX and (call := self._queue.take()) is not None:
            if call.future.done():
                self._loop.call_soon_threadsafe(self._forget, call)
            else:
                batch.append(call)
                taken += call.weight
        return batch

    def _commit(self, batch: list[_Call]) -> list[JobEvent]:
        for tries_left in reversed(range(COMMIT_TRIES)):
            for call in batch:
                call.outcomes, call.failure = [], None
            try:
                return self._transact(batch)
            except CommitFailed as failed:
                assert isinstance(failed.__cause__, Exception)
                self._uncertain |= {key for call in batch for step in call.steps for key in affected_keys(*step)}
                return self._fail(batch, failed.__cause__)
            except DATABASE_ERRORS as error:
                # Nothing is committed yet.
                match treatment(error):
                    case Treatment.RETRY if tries_left:
                        pass
                    case Treatment.RECONNECT if tries_left:
                        log_error(error)
                        self._job_cache.forget()
                        self._store.disconnect()
                    case Treatment.BUG:
                        return self._commit_one_by_one(batch, as_bug(error))
                    case _:
                        return self._fail(batch, error)
            except Exception as error:
                return self._commit_one_by_one(batch, error)
        raise AssertionError("unreachable")

    def _commit_one_by_one(self, batch: list[_Call], error: Exception) -> list[JobEvent]:
        """Commit each call by itself, so that a call that cannot succeed does not fail the others."""
        if len(batch) == 1:
            batch[0].fail(error)
            return []
        log.warning("a commit of %d calls failed (%s); trying each call by itself", len(batch), type(error).__name__)
        return [item for call in batch for item in self._commit([call])]

    def _fail(self, batch: list[_Call], error: Exception) -> list[JobEvent]:
        self.failures += 1
        failure = self.failure = as_job_error(error)
        if not self._store.engine.unusable:
            log_error(error)
        # It is not known whether the commit took effect.
        self._job_cache.forget()
        self._store.disconnect()
        for call in batch:
            call.fail(failure)
        return []

    def _transact(self, batch: list[_Call]) -> list[JobEvent]:
        if not any(call.steps or call.task for call in batch):
            return []
        if self._store.engine.shared or any(call.task for call in batch):
            with self._store.transaction():
                commit = self._work(batch)
                changed = commit.changed()
                self._save(changed)
        else:
            # No other process writes, so what is read before the transaction is still valid within it.
            self._store.connect()
            commit = self._work(batch)
            changed = commit.changed()
            if not self._store.save_at_once(changed):
                with self._store.transaction():
                    self._save(changed)
        self._job_cache.note(changed)
        self._totals.note(changed, commit.new_sessions)
        if changed or any(call.task for call in batch):
            # A commit that writes nothing would succeed on a full disk too.
            self.failure, self.succeeded_at = None, time.monotonic()
        events = [_job_event(change) for change in changed if change.changed and not _is_invisible(change)]
        # Resumed watches use this order.
        return sorted(events, key=attrgetter("update_time", "id", "session_hash"))

    def _save(self, changed: list[Change]) -> None:
        self._store.save(changed)
        for write in self._extra_writes:
            write(changed)

    def _work(self, batch: list[_Call]) -> Commit:
        # All steps of a commit have the same time, and each commit a later one: watches resume by this time.
        now = self._last_now = max(self._clock.now(), self._last_now + 1)
        steps = (call.steps for call in batch)
        commit = Commit(self._store, self._job_cache, self._totals, self._rules, now, steps)
        deferred = _Deferred()
        for call in batch:
            if deferred.holds_back(call) or commit.must_wait(call.steps):
                deferred.add(call)
                continue
            if call.order is not None and call.order.error is not None:
                call.failure = call.order.error
                continue
            if call.task is not None:
                call.task()
            call.outcomes = commit.apply(call.steps)
        if deferred.calls:
            self._queue.put_back(deferred.calls)
            batch[:] = [call for call in batch if call not in deferred.calls]
        return commit

    # In the event loop.

    def _deliver(self, batch: list[_Call], events: list[JobEvent]) -> None:
        if events:
            self._publish(events)
        for call in batch:
            self._forget(call)
            if call.future.done():
                continue
            if call.failure is not None:
                call.future.set_exception(call.failure)
            else:
                call.future.set_result(call.outcomes)

    def _forget(self, call: _Call) -> None:
        self._waiting.discard(call)
        self._waiting_weight -= call.weight
        self._pending_bytes -= call.size
        self._room.set()


def _job_event(change: Change) -> JobEvent:
    job = change.job
    return Removal(job.session_hash, job.id, job.update_time) if change.removed else job


def _is_invisible(change: Change) -> bool:
    """Whether the commit both created and removed the job, so that nobody can have seen it."""
    return change.created and change.removed

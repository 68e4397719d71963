"""The group commit: one thread that owns the one write connection.

It takes all calls that wait, applies the domain's rules to them, writes, commits once, and wakes the event loop once.
No call is answered before its commit.
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
"""What the steps of one commit weigh together, or little more, so that no call waits long for its neighbours: some
100 ms."""

COMMIT_TRIES = 3
"""So often a commit is tried that another server, or a lost connection, got in the way of."""

PENDING_BYTES_MAX = 64 * 1024 * 1024

COMMIT_WAIT_MAX = 0.5
"""Seconds that the commits ahead of a call may take, not counting the one that takes it along: most callers would not
wait for more. Further calls are refused, and streams are not read on, until less is ahead."""

LONG_COMMIT = 0.1
"""Seconds from which on a commit is long: those that come meanwhile wait for it, and then for their own."""

STEP_TIME_WEIGHT_MIN = 64
"""What a commit weighs at least that tells how long a step takes; of a smaller one most is the commit itself."""

COMMIT_SMOOTHING = 0.25
"""The weight of the latest commit in the average time of a commit."""

log = logging.getLogger(__name__)


class StreamOrder:
    """Calls that build on each other: once one of them has failed, those behind it are refused with its error.

    Without that a stream whose second request fails and third succeeds would send the second again, and its sequences
    would then be taken for old ones.
    """

    def __init__(self) -> None:
        self.error: JobError | None = None

    def close(self, error: JobError) -> None:
        """Refuse what has not been worked on yet."""
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
        """Fail this call, and those that build on it."""
        self.failure = error
        if self.order is not None:
            self.order.close(error if isinstance(error, JobError) else DatabaseUnavailable())


class _Deferred:
    """The calls of a batch that are left to the next commit: those that cannot share this one, and what must not
    overtake them."""

    def __init__(self) -> None:
        self.calls: dict[_Call, None] = {}
        """In their order."""
        self._keys: set[Key] = set()
        self._orders: set[StreamOrder] = set()

    def add(self, call: _Call) -> None:
        self.calls[call] = None
        self._keys.update([key for key, _ in call.steps])
        if call.order is not None:
            self._orders.add(call.order)

    def holds_back(self, call: _Call) -> bool:
        """Whether the call is about a job, or belongs to an order, of one that waits; or is a barrier."""
        if not self.calls:
            return False
        if call.order in self._orders or not (call.steps or call.task):
            return True
        return any(key in self._keys for key, _ in call.steps)


class CommitWriter:
    """Applies steps durably. `publish` gets what a commit changed, in the event loop, before its calls return;
    each of `beside` within the commit, to write what belongs to it.
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
        """A worker that waits for its answer says nothing meanwhile."""
        self._commit_time = 0.0
        """Seconds of a commit, on average over the latest."""
        self._step_time = 0.0
        """Seconds of a step, on average over the latest commits that tell."""
        self._commit_began = 0.0
        """When the one that runs began, or 0."""
        self._closed = False
        self._uncertain: set[Key] = set()
        self.failures = 0
        """Commits that failed, or were given up, so that calls were refused."""
        self._last_now = 0
        self.failure: JobError | None = None
        """Why the last commit failed; None if it succeeded. Commits that wrote nothing do not count."""
        self.succeeded_at = time.monotonic()
        """When something was last written (seconds, monotonic)."""
        self.commit_seconds = Histogram(COMMIT_SECONDS)
        self.commit_calls = Histogram(COMMIT_CALLS)
        self._thread = threading.Thread(target=self._run, name="headway-writer", daemon=True)
        self._thread.start()

    @property
    def waiting(self) -> int:
        """Calls that wait for their commit."""
        return len(self._waiting)

    @property
    def wait(self) -> float:
        """Seconds that the commits ahead of a new call are expected to take. 0 if the next commit takes it along."""
        commits = self._waiting_weight // BATCH_WEIGHT_MAX
        if not commits:
            return 0.0
        began = self._commit_began
        running = time.perf_counter() - began if began else 0.0
        return commits * max(self._commit_time, running)

    @property
    def is_behind(self) -> bool:
        """Whether the commit that runs is a long one, or the next would be."""
        began = self._commit_began
        running = time.perf_counter() - began if began else 0.0
        return max(running, self._waiting_weight * self._step_time) > LONG_COMMIT

    @property
    def load(self) -> float:
        """How much waits, and how long, against the limits of both: 0 to 1, and more beyond them."""
        return max(self._fullness, self.wait / COMMIT_WAIT_MAX)

    @property
    def _fullness(self) -> float:
        calls = len(self._waiting) / self._rules.limits.pending_writes
        return max(calls, self._pending_bytes / PENDING_BYTES_MAX)

    async def room(self) -> None:
        """Wait until there is room, for callers that can be made to wait: they leave half of it to the others."""
        while self.load >= 0.5 and not self._closed:
            self._room.clear()
            await self._room.wait()

    def submit(
        self, steps: Sequence[Step], size: int = 0, *, order: StreamOrder | None = None, urgent: bool = False
    ) -> "asyncio.Future[list[Outcome]]":
        """Apply the steps in their order, in one commit; what became of each. `size` is their weight in bytes.

        `order`: the calls that this one builds on. `urgent`: not held back by overload. An outcome that is a Job is the
        job as the step left it. Raises Overloaded or ShuttingDown at once, DatabaseUnavailable or StorageFull later,
        and then nothing was acknowledged.
        """
        if order is not None and order.error is not None:
            raise order.error
        # A stream has waited for room already: time that has passed since is no reason to break it.
        if not urgent and (self.load if order is None else self._fullness) >= 1:
            overloaded = Overloaded(self.wait)
            if order is not None:
                order.close(overloaded)
            raise overloaded
        return self._put(_Call(steps, self._loop.create_future(), size, weight(steps, size), order=order))

    async def run_task(self, work: Callable[[], None]) -> None:
        """Run writes that belong to no job, in a commit like any other."""
        await self._put(_Call((), self._loop.create_future(), task=work))

    async def barrier(self) -> None:
        """Until all that was submitted before is committed, or refused."""
        await self._put(_Call((), self._loop.create_future()))

    def take_uncertain(self) -> set[Key]:
        """The jobs of which it is not known whether their last commit took effect, since this was last asked."""
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
        """The database hangs: answer all that waits with DatabaseUnavailable. Some of it may yet be committed."""
        self.failures += 1
        for call in self._waiting:
            if call.order is not None:
                call.order.close(DatabaseUnavailable())
            if not call.future.done():
                call.future.set_exception(DatabaseUnavailable())

    async def apply(self, key: Key, command: Command, size: int = 0) -> Job:
        """Apply one command; the job as the command left it. Raises the domain's errors too."""
        (outcome,) = await self.submit(((key, command),), size)
        if isinstance(outcome, JobError):
            raise outcome
        return outcome

    async def close(self) -> None:
        """Commit what was accepted, then stop."""
        if not self._closed:
            self._closed = True
            self._room.set()
            self._queue.close()
        await asyncio.to_thread(self._thread.join)

    # The writer's thread.

    def _run(self) -> None:
        while True:
            # Who was just answered comes back, and is worth a short wait: a commit costs as much as many calls. Who is
            # alone does not wait for anybody.
            self._queue.wait(len(self._waiting))
            closing = self._queue.closed
            batch = self._collect()
            if batch:
                began = self._commit_began = time.perf_counter()
                published = self._commit(batch)
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
                    self._loop.call_soon_threadsafe(self._deliver, batch, published)
                except RuntimeError:  # The loop is gone, and with it everybody who waited.
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
                        return self._part(batch, as_bug(error))
                    case _:
                        return self._fail(batch, error)
            except Exception as error:
                return self._part(batch, error)
        raise AssertionError("unreachable")

    def _part(self, batch: list[_Call], error: Exception) -> list[JobEvent]:
        """One call that cannot be done must not take its neighbours with it: try them one by one."""
        if len(batch) == 1:
            batch[0].fail(error)
            return []
        log.warning("a commit of %d calls failed (%s); trying them one by one", len(batch), type(error).__name__)
        return [item for call in batch for item in self._commit([call])]

    def _fail(self, batch: list[_Call], error: Exception) -> list[JobEvent]:
        self.failures += 1
        failure = self.failure = as_job_error(error)
        if not self._store.engine.unusable:
            log_error(error)
        # Whether it was committed is not known.
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
            # Nobody else writes, so that what is read before a transaction still holds within it.
            self._store.connect()
            commit = self._work(batch)
            changed = commit.changed()
            if not self._store.save_at_once(changed):
                with self._store.transaction():
                    self._save(changed)
        self._job_cache.note(changed)
        self._totals.note(changed, commit.new_sessions)
        if changed or any(call.task for call in batch):
            # Any other commit would succeed on a full disk too.
            self.failure, self.succeeded_at = None, time.monotonic()
        published = [_job_event(change) for change in changed if change.changed and not _is_invisible(change)]
        # The order in which a watch is taken up again.
        return sorted(published, key=attrgetter("update_time", "id", "session_hash"))

    def _save(self, changed: list[Change]) -> None:
        self._store.save(changed)
        for write in self._extra_writes:
            write(changed)

    def _work(self, batch: list[_Call]) -> Commit:
        # One moment a commit, and each later than the one before: a watch is taken up again by it.
        now = self._last_now = max(self._clock.now(), self._last_now + 1)
        steps = (call.steps for call in batch)
        commit = Commit(self._store, self._job_cache, self._totals, self._rules, now, steps)
        later = _Deferred()
        for call in batch:
            if later.holds_back(call) or commit.must_wait(call.steps):
                later.add(call)
                continue
            if call.order is not None and call.order.error is not None:
                call.failure = call.order.error
                continue
            if call.task is not None:
                call.task()
            call.outcomes = commit.apply(call.steps)
        if later.calls:
            self._queue.put_back(later.calls)
            batch[:] = [call for call in batch if call not in later.calls]
        return commit

    # Back in the event loop.

    def _deliver(self, batch: list[_Call], published: list[JobEvent]) -> None:
        if published:
            self._publish(published)
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
    """Whether a job came and went within one commit, so that nobody can have seen it."""
    return change.created and change.removed

"""The watch hub: passes every committed change to the watchers.

A watch of one job keeps the job's latest state. The watches of a session share a channel. The channel keeps the latest
state of each changed job until all watches have taken it. If the channel had to drop states that a slow watch has not
taken, that watch gets Behind, and reads what it missed from the database. Everything runs in the event loop.
"""

import asyncio
from bisect import bisect_right
from collections import OrderedDict, defaultdict
from collections.abc import Iterator, Sequence
from contextlib import contextmanager

from headway_server.domain.errors import JobError, MemoryLimit, ShuttingDown, StreamExpired, WatchesLimit
from headway_server.domain.job import Job, Key, weight
from headway_server.domain.limits import INT64_MAX, Limits
from headway_server.resources.budget import Budget, Share
from headway_server.storage.change_log import Snapshot
from headway_server.storage.listing import JobEvent, Removal

CHANNEL_ENTRY_BYTES = 512
"""Bytes that a change takes in a channel, without the job."""

WATCH_PAGE_BYTES = 64 * 1024
"""Bytes of a page that a watch may hold while it reads from the database."""

ALL = None
"""Instead of a session: all sessions."""

Moment = tuple[int, int]

NEVER: Moment = (0, 0)


def moment(event: JobEvent) -> Moment:
    """Orders the events of one job id: states by time and revision, a removal after the states that it removed."""
    return (event.update_time, event.revision if isinstance(event, Job) else INT64_MAX)


class Behind(Exception):
    """The channel dropped changes before this watch took them."""


class Inbox:
    """Wakes a watcher, and ends its watch."""

    def __init__(self) -> None:
        self._wake = asyncio.Event()
        self._failure: JobError | None = None

    def wake(self) -> None:
        """Wake the watcher: something is new."""
        self._wake.set()

    def fail(self, error: JobError) -> None:
        """End the watch with this error."""
        self._failure = error
        self._wake.set()

    def check(self) -> None:
        """Raise the error that `fail` was given."""
        if self._failure is not None:
            raise self._failure

    async def wait(self) -> None:
        """Wait until something is new. Raises the error that `fail` was given."""
        await self._wake.wait()
        self._wake.clear()
        self.check()


class JobInbox(Inbox):
    """The pending events of a watcher of one job: the latest state, or the removal and the state of a job created again
    since."""

    def __init__(self) -> None:
        super().__init__()
        self._waiting: dict[type[JobEvent], JobEvent] = {}

    def put(self, event: JobEvent) -> None:
        """Add an event."""
        waiting = self._waiting.pop(Job, None)
        if waiting is not None and moment(waiting) > moment(event):
            event = waiting
        # A job that is created again follows its removal, and does not replace it.
        self._waiting.pop(type(event), None)
        self._waiting[type(event)] = event
        self.wake()

    async def get(self) -> JobEvent:
        """Wait for the next event. Raises the error that `fail` was given."""
        self.check()
        while not self._waiting:
            await self.wait()
        return self._waiting.pop(next(iter(self._waiting)))


class Channel:
    """The changes of a session (or of all) that some of its watchers have not taken yet.

    Its memory counts in `budget`. If other servers write to the database too (`looked_up`), the same change can be put
    several times: the channel ignores changes that it already had.
    """

    def __init__(self, holder: str, budget: Budget, looked_up: bool) -> None:
        self.head = 0
        """The number of the last change."""
        self.dropped = 0
        """The number of the last dropped change."""
        self.watchers: set[SessionInbox] = set()
        self._holder = holder
        self._budget = budget
        self._numbers: list[int] = []
        """The numbers of all changes since the channel was last empty. Some of them were superseded."""
        self._changes: OrderedDict[int, tuple[JobEvent, int]] = OrderedDict()
        """The changes and their sizes, by number, oldest first."""
        self._latest: dict[tuple[type[JobEvent], Key], int] = {}
        self._behind = 0
        """How many watchers have not taken the last change."""
        self._recent: dict[Key, Moment] | None = {} if looked_up else None
        """What was put since the last read of the change log. `_before_look` has what was put before that."""
        self._before_look: dict[Key, Moment] = {}

    def put(self, event: JobEvent) -> None:
        """Keep a change for all watchers. It replaces the change that it supersedes."""
        key = (event.session_hash, event.id)
        now = moment(event)
        if self._recent is not None:
            if now <= max(self._recent.get(key, NEVER), self._before_look.get(key, NEVER)):
                return
            self._recent[key] = now
        waiting = self._latest.get((Job, key))
        if waiting is not None:
            if moment(self._changes[waiting][0]) > now:
                return
            self._drop(waiting)
        # A job that is created again follows its removal, and does not replace it.
        if isinstance(event, Removal) and (Removal, key) in self._latest:
            self._drop(self._latest[Removal, key])
        self.head += 1
        self._behind = len(self.watchers)
        self._hold(event)
        for inbox in self.watchers:
            inbox.wake()

    def _hold(self, event: JobEvent) -> None:
        size = CHANNEL_ENTRY_BYTES + (weight(event) if isinstance(event, Job) else 0)
        while self._changes and not self._budget.allows(self._holder, size):
            self.dropped = next(iter(self._changes))
            self._drop(self.dropped)
        if not self._budget.allows(self._holder, size):
            self.dropped = self.head
            return
        self._budget.take(self._holder, size)
        self._numbers.append(self.head)
        self._changes[self.head] = event, size
        self._latest[type(event), (event.session_hash, event.id)] = self.head

    def _drop(self, number: int) -> None:
        event, size = self._changes.pop(number)
        del self._latest[type(event), (event.session_hash, event.id)]
        self._budget.give_back(self._holder, size)
        if len(self._numbers) > 2 * len(self._changes) + 64:
            self._numbers = list(self._changes)

    def after(self, number: int) -> tuple[JobEvent, int] | None:
        """The first change after that number, and its number. None if there is none. Raises Behind."""
        if number < self.dropped:
            raise Behind
        for index in range(bisect_right(self._numbers, number), len(self._numbers)):
            found = self._numbers[index]
            if found in self._changes:
                return self._changes[found][0], found
        return None

    def holds(self, event: JobEvent, after: int) -> bool:
        """Whether this event, or a newer one of the same job, follows after that number."""
        key = (event.session_hash, event.id)
        numbers = [self._latest[kind, key] for kind in (Job, Removal) if (kind, key) in self._latest]
        return any(number > after and moment(self._changes[number][0]) >= moment(event) for number in numbers)

    def caught_up(self) -> None:
        """A watcher has taken the last change, or has left."""
        self._behind -= 1
        if not self._behind:
            self.empty()

    def empty(self) -> None:
        """Drop all changes: no watcher needs them."""
        for _, size in self._changes.values():
            self._budget.give_back(self._holder, size)
        self._numbers.clear()
        self._changes.clear()
        self._latest.clear()

    def looked(self) -> None:
        """The change log was read: what was put before the read before it cannot come again."""
        if self._recent is not None:
            self._before_look, self._recent = self._recent, {}


class SessionInbox(Inbox):
    """The position of one watcher in a channel."""

    def __init__(self, channel: Channel) -> None:
        super().__init__()
        self._channel = channel
        self._taken = channel.head

    def take(self) -> JobEvent | None:
        """The next change, or None if there is none. Raises Behind, and the error that `fail` was given."""
        self.check()
        if self._taken == self._channel.head:
            return None
        found = self._channel.after(self._taken)
        if found is None:
            self.skip()
            return None
        event, self._taken = found
        if self._taken == self._channel.head:
            self._channel.caught_up()
        return event

    def skip(self) -> None:
        """Skip all waiting changes."""
        if self._taken != self._channel.head:
            self._taken = self._channel.head
            self._channel.caught_up()

    def holds(self, event: JobEvent) -> bool:
        """Whether this event, or a newer one of the same job, is still to be taken."""
        return self._channel.holds(event, self._taken)


class WatchHub:
    """All watches of this server. `now` (µs): nothing in the database was written later. `snapshot`: what was visible
    then if other servers write to the database too, else None."""

    def __init__(self, limits: Limits, now: int, snapshot: Snapshot | None = None) -> None:
        self.settled = now
        """All changes up to this time (µs) were published. If other servers write too, `snapshot` is used instead."""
        self.snapshot = snapshot
        """All changes that this snapshot sees were published. None if no other server writes."""
        self.looks = 0
        """How many reads of the change log were published."""
        self._limits = limits
        self._jobs: defaultdict[Key, set[JobInbox]] = defaultdict(set)
        self._channels: dict[str | None, Channel] = {}
        self._budget = Budget(limits.watch_bytes, MemoryLimit)
        self._per_session: defaultdict[str | None, int] = defaultdict(int)
        self._watches = Budget(limits.watches, WatchesLimit)
        self._closed = False

    def publish(self, changes: Sequence[JobEvent]) -> None:
        """Pass on the changes of a commit, in their order."""
        for event in changes:
            for inbox in self._jobs.get((event.session_hash, event.id), ()):
                inbox.put(event)
            for session_hash in (event.session_hash, ALL):
                if session_hash in self._channels:
                    self._channels[session_hash].put(event)
        if self.snapshot is None and changes:
            self.settled = max(self.settled, changes[-1].update_time)

    def looked(self, snapshot: Snapshot) -> None:
        """All changes of other servers that this snapshot sees were published."""
        self.snapshot = snapshot
        self.looks += 1
        for channel in self._channels.values():
            channel.looked()

    def restart_watches(self) -> None:
        """End all watches, so that callers start again: some changes of other servers are no longer known."""
        self._fail(StreamExpired())

    @property
    def watches(self) -> int:
        """The number of open watches."""
        return self._watches.used

    @property
    def bytes_held(self) -> int:
        """Bytes of changes and pages that watches hold."""
        return self._budget.used

    def watched(self, key: Key) -> bool:
        """Whether somebody watches this job now."""
        return key in self._jobs or key[0] in self._channels or ALL in self._channels

    @contextmanager
    def job(self, key: Key, life: float, connection: str) -> Iterator[JobInbox]:
        """Watch one job. After `life` seconds the inbox fails with StreamExpired. Raises WatchesLimit, ShuttingDown."""
        inbox = JobInbox()
        with self._counted(key[0], inbox, life, connection):
            self._jobs[key].add(inbox)
            try:
                yield inbox
            finally:
                self._jobs[key].discard(inbox)
                if not self._jobs[key]:
                    del self._jobs[key]

    @contextmanager
    def session(self, session_hash: str | None, life: float, connection: str) -> Iterator[SessionInbox]:
        """Watch the jobs of a session, or of ALL, in the same way."""
        channel = self._channels.get(session_hash) or Channel(
            _holder(session_hash), self._budget, self.snapshot is not None
        )
        inbox = SessionInbox(channel)
        with self._counted(session_hash, inbox, life, connection):
            self._channels[session_hash] = channel
            channel.watchers.add(inbox)
            try:
                yield inbox
            finally:
                inbox.skip()
                channel.watchers.discard(inbox)
                if not channel.watchers:
                    channel.empty()
                    del self._channels[session_hash]

    @contextmanager
    def room(self, session_hash: str | None) -> Iterator[int]:
        """How many bytes of a page a watch of this session may hold until the end of the block. A single job may have
        any size."""
        holder = _holder(session_hash)
        if not self._budget.allows(holder, WATCH_PAGE_BYTES):
            yield 0
            return
        with Share(self._budget, holder, WATCH_PAGE_BYTES):
            yield WATCH_PAGE_BYTES

    @contextmanager
    def _counted(self, session_hash: str | None, inbox: Inbox, life: float, connection: str) -> Iterator[None]:
        if self._closed:
            raise ShuttingDown
        if self._per_session[session_hash] >= self._limits.session_watches:
            raise WatchesLimit
        self._watches.take(connection, 1)
        expiry = asyncio.get_running_loop().call_later(life, inbox.fail, StreamExpired())
        self._per_session[session_hash] += 1
        try:
            yield
        finally:
            expiry.cancel()
            self._watches.give_back(connection, 1)
            self._per_session[session_hash] -= 1
            if not self._per_session[session_hash]:
                del self._per_session[session_hash]

    def close(self) -> None:
        """End all watches, so that their callers use another server, and refuse new watches."""
        self._closed = True
        self._fail(ShuttingDown())

    def _fail(self, error: JobError) -> None:
        inboxes: list[Inbox] = [inbox for watchers in self._jobs.values() for inbox in watchers]
        inboxes += [inbox for channel in self._channels.values() for inbox in channel.watchers]
        for inbox in inboxes:
            inbox.fail(error)


def _holder(session_hash: str | None) -> str:
    return session_hash or "-"

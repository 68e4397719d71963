"""How far the caller of a watch knows the changes of many jobs: by time where one server writes, by snapshots where
several do, for they commit out of the order of their clocks.

A mark stands for all changes up to it. Later marks are greater.
"""

from typing import Protocol

from headway_server.resources.clock import Clock
from headway_server.service.watch_hub import WatchHub
from headway_server.storage.change_log import Snapshot
from headway_server.storage.listing import LAST_ID, Filter, JobEvent

Known = tuple[int, str, str]
"""A mark."""

NOTHING_KNOWN: Known = (0, "", "")

READS_UNTIL_PUBLISHED = 2
"""After so many looks at what others wrote, what was in the database before them was published."""

RUNNING_MAX = 50
"""Transactions that a mark names."""

RUNNING_OFFSET = 1_000_000
"""More than there can be transactions at once."""


class Marks(Protocol):
    """The marks of a watch of one session, or of all."""

    def published(self) -> Known:
        """All changes up to this mark were published."""
        ...

    def of(self, event: JobEvent) -> Known:
        """How far all is known once this change is; perhaps NOTHING_KNOWN."""
        ...

    def wanted(self, known: Known) -> Filter:
        """The changes to read where so much is known; perhaps some more."""
        ...

    def is_known(self, event: JobEvent, known: Known) -> bool:
        """Whether a change that was read is one of those more."""
        ...

    def time(self, known: Known) -> int:
        """The time (µs) at which all up to this mark was known."""
        ...

    def due(self, event: JobEvent) -> int:
        """A change that was read now was published once `reached` is here."""
        ...

    def reached(self) -> int:
        """How far publication has come."""
        ...


class TimeMarks:
    """A mark is (update_time, id, session_hash) of a change."""

    def __init__(self, hub: WatchHub, session_hash: str | None) -> None:
        self._hub = hub
        self._session_hash = session_hash

    def published(self) -> Known:
        return self._hub.settled, LAST_ID, ""

    def of(self, event: JobEvent) -> Known:
        # Within a session its hash says nothing, and would only make the tokens longer.
        return event.update_time, event.id, "" if self._session_hash else event.session_hash

    def wanted(self, known: Known) -> Filter:
        return Filter(self._session_hash, changed_from=known[0])

    def is_known(self, event: JobEvent, known: Known) -> bool:
        return self.of(event) <= known

    def time(self, known: Known) -> int:
        return known[0]

    def due(self, event: JobEvent) -> int:
        return event.update_time

    def reached(self) -> int:
        return self._hub.settled


class SnapshotMarks:
    """A mark is (xmax, running, time) of a snapshot: `running` with their number before it, fewer being later."""

    def __init__(self, hub: WatchHub, clock: Clock, session_hash: str | None) -> None:
        self._hub = hub
        self._clock = clock
        self._session_hash = session_hash

    def published(self) -> Known:
        snapshot = self._hub.snapshot
        assert snapshot is not None
        if len(snapshot.running) > RUNNING_MAX:
            # Better too little known than a token that is too long.
            snapshot = Snapshot(min(snapshot.running))
        running = ",".join(map(str, snapshot.running))
        return snapshot.xmax, f"{RUNNING_OFFSET - len(snapshot.running)}:{running}", str(self._clock.now())

    def of(self, event: JobEvent) -> Known:
        # Other changes that the same look found may still wait behind this one: only the last of them moves the mark.
        return NOTHING_KNOWN

    def wanted(self, known: Known) -> Filter:
        return Filter(self._session_hash, unseen_by=self._snapshot(known))

    def is_known(self, event: JobEvent, known: Known) -> bool:
        return False

    def time(self, known: Known) -> int:
        return int(known[2] or 0)

    def due(self, event: JobEvent) -> int:
        return self._hub.looks + READS_UNTIL_PUBLISHED

    def reached(self) -> int:
        return self._hub.looks

    def _snapshot(self, known: Known) -> Snapshot | None:
        if known == NOTHING_KNOWN:
            return None
        xmax, running, _ = known
        return Snapshot.parse(f":{xmax}:{running.partition(':')[2]}")

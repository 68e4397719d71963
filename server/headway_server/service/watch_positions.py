"""Up to which change the caller of a watch knows the jobs: by time if one server writes, and by snapshots if several
write, because they do not commit in the order of their clocks.

A mark covers all changes up to it. Later marks are greater.
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
"""After this many reads of the change log, everything that was in the database before them was published."""

RUNNING_MAX = 50
"""The most running transactions in a mark."""

RUNNING_OFFSET = 1_000_000
"""More than the number of transactions that can run at a time."""


class Marks(Protocol):
    """The marks of a watch of one session, or of all."""

    def published(self) -> Known:
        """All changes up to this mark were published."""
        ...

    def of(self, event: JobEvent) -> Known:
        """The mark up to which everything is known once this event is; perhaps NOTHING_KNOWN."""
        ...

    def wanted(self, known: Known) -> Filter:
        """A filter for the changes after this mark. It may include some that are known."""
        ...

    def is_known(self, event: JobEvent, known: Known) -> bool:
        """Whether an event that was read is already known."""
        ...

    def time(self, known: Known) -> int:
        """The time (µs) of this mark."""
        ...

    def due(self, event: JobEvent) -> int:
        """The value of `reached` from which on an event that is read now has been published."""
        ...

    def reached(self) -> int:
        """How far the hub has published."""
        ...


class TimeMarks:
    """Marks of the form (update_time, id, session_hash), of a change."""

    def __init__(self, hub: WatchHub, session_hash: str | None) -> None:
        self._hub = hub
        self._session_hash = session_hash

    def published(self) -> Known:
        return self._hub.settled, LAST_ID, ""

    def of(self, event: JobEvent) -> Known:
        # Within a session its hash is always the same, and would only make the tokens longer.
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
    """Marks of the form (xmax, running, time), of a snapshot. `running` begins with RUNNING_OFFSET minus the number of
    running transactions: fewer of them make a later mark."""

    def __init__(self, hub: WatchHub, clock: Clock, session_hash: str | None) -> None:
        self._hub = hub
        self._clock = clock
        self._session_hash = session_hash

    def published(self) -> Known:
        snapshot = self._hub.snapshot
        assert snapshot is not None
        if len(snapshot.running) > RUNNING_MAX:
            # Claim too little rather than make the token too long.
            snapshot = Snapshot(min(snapshot.running))
        running = ",".join(map(str, snapshot.running))
        return snapshot.xmax, f"{RUNNING_OFFSET - len(snapshot.running)}:{running}", str(self._clock.now())

    def of(self, event: JobEvent) -> Known:
        # Other changes of the same read may follow: the mark moves only after the last of them.
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

"""Which jobs each commit of each server changed, for the other servers: read by visibility, not by time.

A transaction becomes visible when it commits, however long it took and whatever its server's clock said. PostgreSQL
tells which transactions a snapshot sees, so a server asks for exactly the entries that its last snapshot did not see.
One row a commit.
"""

import json
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import peewee

from headway_server.domain.change import Change
from headway_server.domain.job import Key
from headway_server.storage.compiled_sql import fetch, named

ENTRIES_MAX = 10_000
"""Entries that one look reads. A server that is further behind starts anew."""

XID_MASK = 2**32 - 1

FORGOTTEN = "change_log_forgotten"
"""The fact that holds a snapshot: of the entries that it sees some may be deleted."""

_INSERT = "INSERT INTO change_log (xid, server, jobs) VALUES (pg_current_xact_id()::text::bigint, %s, %s)"

# Two ranges of the primary key, which do not overlap: of one condition with OR, PostgreSQL makes a scan of the table.
_LOOK = f"""
WITH entry AS (
  SELECT server, jobs FROM change_log WHERE xid >= %s
  UNION ALL
  SELECT server, jobs FROM change_log WHERE xid = ANY(%s::bigint[])
)
SELECT pg_current_snapshot()::text, (SELECT value FROM fact WHERE name = '{FORGOTTEN}'), entry.jobs
FROM (SELECT 1) AS once
LEFT JOIN entry ON entry.server <> %s
LIMIT {ENTRIES_MAX + 1}
"""  # noqa: S608  # constants alone

_DELETE = "DELETE FROM change_log WHERE xid < %s AND NOT xid = ANY(%s::bigint[])"


@dataclass(frozen=True, slots=True)
class Snapshot:
    """Which transactions were committed at a moment, as pg_current_snapshot() tells it."""

    xmax: int
    """No transaction from this one on is visible."""
    running: tuple[int, ...] = ()
    """Transactions before `xmax` that are not visible either."""

    @classmethod
    def parse(cls, text: str) -> "Snapshot":
        """From `xmin:xmax:xip,xip`. Raises ValueError."""
        _, xmax, running = text.split(":")
        return cls(int(xmax), tuple(int(xid) for xid in running.split(",") if xid))

    @property
    def values(self) -> dict[str, int | str]:
        """What `unseen` asks for."""
        return {"seen_xmax": self.xmax, "seen_running": _array(xid & XID_MASK for xid in self.running)}

    def __str__(self) -> str:
        return f"{min((self.xmax, *self.running))}:{self.xmax}:{','.join(map(str, self.running))}"


def _array(numbers: Iterable[int]) -> str:
    return f"{{{','.join(map(str, numbers))}}}"


def unseen() -> peewee.Expression:
    """Rows of the first table of a query that a snapshot does not see; its `values` are the parameters.

    A row names the last transaction that wrote it by 32 bits: of two, the later one is less than 2^31 ahead.
    """
    xid = peewee.SQL('"t1"."xmin"::text::bigint')
    ahead = peewee.Expression(xid, "-", named("seen_xmax")).bin_and(peewee.SQL(str(XID_MASK)))
    running = peewee.fn.ANY(peewee.Cast(named("seen_running"), "bigint[]"))
    condition: peewee.Expression = (ahead < peewee.SQL(str(2**31))) | peewee.Expression(xid, "=", running)
    return condition


@dataclass(frozen=True, slots=True)
class News:
    """What a look has found."""

    snapshot: Snapshot
    """What the next look begins with."""
    keys: frozenset[Key] | None
    """Jobs that other servers changed; None if the look came too late to tell."""


def current_snapshot(database: peewee.Database) -> Snapshot:
    """What is visible now."""
    ((text,),) = fetch(database, "SELECT pg_current_snapshot()::text", ())
    return Snapshot.parse(text)


class ChangeLog:
    """The log of one database. `server` names this server among those that write to it."""

    def __init__(self, database: peewee.Database, server: str) -> None:
        self._database = database
        self._server = server

    def note(self, changes: Iterable[Change]) -> None:
        """These are what the present transaction commits, which is the caller's."""
        keys = [(change.job.session_hash, change.job.id) for change in changes if change.changed]
        if keys:
            self.add(keys)

    def add(self, keys: Sequence[Key]) -> None:
        """These jobs are changed by the present transaction."""
        self._database.execute_sql(_INSERT, (self._server, json.dumps(keys, separators=(",", ":"))))

    def look(self, since: Snapshot) -> News:
        """What other servers have committed that this snapshot did not see."""
        rows = fetch(self._database, _LOOK, (since.xmax, _array(since.running), self._server))
        text, forgotten, _ = rows[0]
        snapshot = Snapshot.parse(text)
        behind = forgotten is not None and since.xmax < Snapshot.parse(forgotten).xmax
        # A database that was restored from a backup counts its transactions from an earlier one.
        if behind or len(rows) > ENTRIES_MAX or since.xmax > snapshot.xmax:
            return News(snapshot, None)
        keys = (key for *_, keys in rows if keys is not None for key in json.loads(keys))
        return News(snapshot, frozenset((session_hash, job_id) for session_hash, job_id in keys))

    def forget(self, seen: Snapshot) -> None:
        """Delete what this snapshot sees; the transaction is the caller's."""
        self._database.execute_sql(_DELETE, (seen.xmax, _array(seen.running)))
        self._database.execute_sql("DELETE FROM fact WHERE name = %s", (FORGOTTEN,))
        self._database.execute_sql("INSERT INTO fact (name, value) VALUES (%s, %s)", (FORGOTTEN, str(seen)))

"""The change log: which jobs each commit of each server changed. Other servers read it by visibility, not by time.

A transaction becomes visible when it commits, however long it took and whatever its server's clock said. PostgreSQL
knows which transactions a snapshot sees. So a server reads exactly the entries that its last snapshot did not see.
There is one row for each commit.
"""

import json
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import peewee

from headway_server.domain.change import Change
from headway_server.domain.job import Key
from headway_server.storage.compiled_sql import fetch, named

ENTRIES_MAX = 10_000
"""Entries that one read returns. A server that is further behind starts again."""

XID_MASK = 2**32 - 1

FORGOTTEN = "change_log_forgotten"
"""The name of the fact with a snapshot: some of the entries that this snapshot sees may be deleted."""

_INSERT = "INSERT INTO change_log (xid, server, jobs) VALUES (pg_current_xact_id()::text::bigint, %s, %s)"

# Two ranges of the primary key that do not overlap: for one condition with OR, PostgreSQL would scan the whole table.
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
    """Which transactions were committed at a moment, from pg_current_snapshot()."""

    xmax: int
    """No transaction from this one on is visible."""
    running: tuple[int, ...] = ()
    """Transactions before `xmax` that are not visible either."""

    @classmethod
    def parse(cls, text: str) -> "Snapshot":
        """Parse `xmin:xmax:xip,xip`. Raises ValueError."""
        _, xmax, running = text.split(":")
        return cls(int(xmax), tuple(int(xid) for xid in running.split(",") if xid))

    @property
    def values(self) -> dict[str, int | str]:
        """The parameters of `unseen`."""
        return {"seen_xmax": self.xmax, "seen_running": _array(xid & XID_MASK for xid in self.running)}

    def __str__(self) -> str:
        return f"{min((self.xmax, *self.running))}:{self.xmax}:{','.join(map(str, self.running))}"


def _array(numbers: Iterable[int]) -> str:
    return f"{{{','.join(map(str, numbers))}}}"


def unseen() -> peewee.Expression:
    """The condition for rows of a query's first table that a snapshot does not see. Its `values` are the parameters.

    A row has 32 bits of the last transaction that wrote it. Of two transactions, the later one is less than 2^31 ahead.
    """
    xid = peewee.SQL('"t1"."xmin"::text::bigint')
    ahead = peewee.Expression(xid, "-", named("seen_xmax")).bin_and(peewee.SQL(str(XID_MASK)))
    running = peewee.fn.ANY(peewee.Cast(named("seen_running"), "bigint[]"))
    condition: peewee.Expression = (ahead < peewee.SQL(str(2**31))) | peewee.Expression(xid, "=", running)
    return condition


@dataclass(frozen=True, slots=True)
class News:
    """The result of a read."""

    snapshot: Snapshot
    """Where the next read begins."""
    keys: frozenset[Key] | None
    """Jobs that other servers changed. None if the read came too late to know them."""


def current_snapshot(database: peewee.Database) -> Snapshot:
    """The present snapshot: what is visible now."""
    ((text,),) = fetch(database, "SELECT pg_current_snapshot()::text", ())
    return Snapshot.parse(text)


class ChangeLog:
    """The log of one database. `server` is the id of this server."""

    def __init__(self, database: peewee.Database, server: str) -> None:
        self._database = database
        self._server = server

    def note(self, changes: Iterable[Change]) -> None:
        """Log these changes in the caller's transaction, which commits them."""
        keys = [(change.job.session_hash, change.job.id) for change in changes if change.changed]
        if keys:
            self.add(keys)

    def add(self, keys: Sequence[Key]) -> None:
        """Log that the present transaction changes these jobs."""
        self._database.execute_sql(_INSERT, (self._server, json.dumps(keys, separators=(",", ":"))))

    def look(self, since: Snapshot) -> News:
        """Read what other servers have committed since this snapshot."""
        rows = fetch(self._database, _LOOK, (since.xmax, _array(since.running), self._server))
        text, forgotten, _ = rows[0]
        snapshot = Snapshot.parse(text)
        behind = forgotten is not None and since.xmax < Snapshot.parse(forgotten).xmax
        # A database that was restored from a backup has earlier numbers of transactions.
        if behind or len(rows) > ENTRIES_MAX or since.xmax > snapshot.xmax:
            return News(snapshot, None)
        keys = (key for *_, keys in rows if keys is not None for key in json.loads(keys))
        return News(snapshot, frozenset((session_hash, job_id) for session_hash, job_id in keys))

    def forget(self, seen: Snapshot) -> None:
        """Delete the entries that this snapshot sees, in the caller's transaction."""
        self._database.execute_sql(_DELETE, (seen.xmax, _array(seen.running)))
        self._database.execute_sql("DELETE FROM fact WHERE name = %s", (FORGOTTEN,))
        self._database.execute_sql("INSERT INTO fact (name, value) VALUES (%s, %s)", (FORGOTTEN, str(seen)))

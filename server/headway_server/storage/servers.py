"""What servers that share a database exchange once a second, in one statement. For PostgreSQL only."""

from dataclasses import dataclass
from typing import Any  # what a database driver returns has no other type

import peewee
from peewee import __exception_wrapper__ as exception_wrapper  # type: ignore[attr-defined]  # its stubs lack it

from headway_server.domain.limits import MICROSECONDS
from headway_server.domain.shared_clock import Correction
from headway_server.storage.change_log import Snapshot

GONE_AFTER = 120 * MICROSECONDS
"""A server that has noted nothing for this long (µs) is ignored, even if the database still has its connections."""

CORRECTION = "clock_correction"
"""The fact with the correction that all servers add to the database's time."""

ID_LENGTH = 32
"""The length of a server's id. The application_name of the server's connections ends with it."""

_BEAT = f"""
WITH own AS (
  INSERT INTO server (id, heard_until, note_time)
  VALUES (%(id)s, %(heard_until)s, extract(epoch FROM clock_timestamp()) * 1000000)
  ON CONFLICT (id) DO UPDATE SET heard_until = excluded.heard_until, note_time = excluded.note_time
)
SELECT
  (extract(epoch FROM clock_timestamp()) * 1000000)::bigint,
  (SELECT value FROM fact WHERE name = '{CORRECTION}'),
  pg_current_snapshot()::text,
  (
    SELECT min(heard_until) FROM server AS other
    WHERE other.id <> %(id)s
    AND other.note_time > extract(epoch FROM clock_timestamp()) * 1000000 - {GONE_AFTER}
    AND EXISTS (SELECT FROM pg_stat_activity WHERE right(application_name, {ID_LENGTH}) = other.id)
  )
"""  # noqa: S608  # constants alone

_FORGET = f"""
DELETE FROM server WHERE note_time < extract(epoch FROM clock_timestamp()) * 1000000 - {10 * GONE_AFTER}
"""  # noqa: S608  # constants alone

_SET_FACT = """
INSERT INTO fact (name, value) VALUES (%(name)s, %(new)s)
ON CONFLICT (name) DO UPDATE SET value = excluded.value WHERE fact.value = %(old)s
"""


@dataclass(frozen=True, slots=True)
class Beat:
    """The result of an exchange."""

    database_time: int
    """µs since the epoch, by the database's clock."""
    correction: Correction
    """What all servers add to the database's time."""
    snapshot: Snapshot
    """What is committed and visible now."""
    heard_until: int | None
    """Every other server has committed what it received until then (µs). None if there is no other server."""


class Servers:
    """The servers of one database. `server_id` is the id of this server."""

    def __init__(self, database: peewee.Database, server_id: str) -> None:
        self._database = database
        self._id = server_id

    def beat(self, heard_until: int) -> Beat:
        """Note that everything that this server received until then (µs) is committed. Read the same of the others."""
        ((time, correction, snapshot, others),) = self._fetch(_BEAT, {"id": self._id, "heard_until": heard_until})
        return Beat(time, Correction.parse(correction), Snapshot.parse(snapshot), others)

    def agree(self, old: Correction, new: Correction) -> None:
        """Change the correction, unless another server was faster, in the caller's transaction."""
        parameters = {"name": CORRECTION, "old": str(old), "new": str(new)}
        self._database.execute_sql(_SET_FACT, parameters)

    def leave(self) -> None:
        """Delete this server's row because the server ends, in the caller's transaction."""
        self._database.execute_sql("DELETE FROM server WHERE id = %s", (self._id,))
        self._database.execute_sql(_FORGET, ())

    def _fetch(self, sql: str, parameters: dict[str, str | int]) -> list[tuple[Any, ...]]:
        with exception_wrapper:
            found: list[tuple[Any, ...]] = self._database.execute_sql(sql, parameters).fetchall()
        return found

"""The outbox: notices are written with the commit that causes them, and stay until they are delivered or given up.

Servers that share a database share it: a claim is a compare-and-set that holds for a while, so that as a rule one of
them sends, and another one takes over if that one dies.
"""

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import reduce
from operator import or_
from typing import Any  # what a database driver returns has no other type

import peewee
from peewee import __exception_wrapper__ as exception_wrapper  # type: ignore[attr-defined]  # its stubs lack it
from peewee import fn

from headway_server.domain.change import Change, Notice
from headway_server.storage.models import NoticeRow
from headway_server.webhooks.config import Endpoint

ROWS_A_STATEMENT = 500

ROWS_A_COMMIT = 1000
"""Notices that one call of `release` or `give_up` changes for each receiver, so that others wait for no long commit."""


@dataclass(frozen=True, slots=True)
class Waiting:
    """A notice in the outbox."""

    endpoint: str
    id: str
    body: str
    attempts: int


class Outbox:
    """The outbox of one database. What writes belongs into a transaction of the writer's.

    `render` makes the body of a notice with that id.
    """

    def __init__(
        self,
        database: peewee.Database,
        endpoints: Sequence[Endpoint],
        new_id: Callable[[], str],
        render: Callable[[Notice, str], str],
    ) -> None:
        self._database = database
        self._endpoints = endpoints
        self._new_id = new_id
        self._render = render

    def add(self, changes: Iterable[Change]) -> None:
        """Write down what receivers are to be told of these changes."""
        rows: list[dict[str, str | int]] = []
        for change in changes:
            for notice in change.notices:
                keys = [endpoint.key for endpoint in self._endpoints if endpoint.wants(notice)]
                if keys:
                    time, notice_id = notice.job.update_time, self._new_id()
                    body = self._render(notice, notice_id)
                    rows += [
                        {
                            "endpoint": key,
                            "id": notice_id,
                            "body": body,
                            "create_time": time,
                            "next_time": time,
                            "attempts": 0,
                        }
                        for key in keys
                    ]
        for some in peewee.chunked(rows, ROWS_A_STATEMENT):
            self._database.execute(NoticeRow.insert_many(some))

    def due(self, endpoint: str, now: int, limit: int, retries: int) -> list[Waiting]:
        """What may be sent to a receiver by `now` (µs): at most `retries`, longest due first, and beside those what was
        never tried. `limit` in all."""
        oldest = self._waiting(self._due(endpoint, now).order_by(NoticeRow.next_time), min(limit, retries))
        new = self._never_tried(endpoint, now).order_by(NoticeRow.next_time)
        found = {waiting.id: waiting for waiting in (*oldest, *self._waiting(new, limit))}
        return list(found.values())[:limit]

    def due_newest(self, endpoint: str, now: int) -> list[Waiting]:
        """A single notice that may be sent by `now` (µs), if there is any: the newest one that was never tried, else
        the one longest due."""
        newest = self._never_tried(endpoint, now).order_by(NoticeRow.next_time.desc())
        return self._waiting(newest, 1) or self.due(endpoint, now, 1, 1)

    # Ordered by what an index gives, and by nothing else: after a start thousands are due at the same time, and each
    # look would sort them.

    def _due(self, endpoint: str, now: int) -> peewee.Select:
        return NoticeRow.select(NoticeRow.endpoint, NoticeRow.id, NoticeRow.body, NoticeRow.attempts).where(
            (NoticeRow.endpoint == endpoint) & (NoticeRow.next_time <= now)
        )

    def _never_tried(self, endpoint: str, now: int) -> peewee.Select:
        return self._due(endpoint, now).where(NoticeRow.attempts == 0)

    def _waiting(self, query: peewee.Select, limit: int) -> list[Waiting]:
        return [Waiting(*row) for row in self._fetch(query.limit(limit))] if limit > 0 else []

    def claim(self, due: Sequence[Waiting], until: int) -> list[Waiting]:
        """Those that nobody else has claimed since they were read; they are this server's until then (µs)."""
        claimed = []
        for waiting in self._lock(due):
            attempts = waiting.attempts + 1
            if self._set(waiting, {NoticeRow.attempts: attempts, NoticeRow.next_time: until}):
                claimed.append(Waiting(waiting.endpoint, waiting.id, waiting.body, attempts))
        return claimed

    def settle(self, ended: Iterable[tuple[Waiting, int | None]]) -> None:
        """Forget what was delivered (None). What was not, by claims that still hold, is due again at its time (µs)."""
        times = dict(ended)
        for waiting in self._lock(list(times)):
            next_time = times[waiting]
            if next_time is not None:
                self._set(waiting, {NoticeRow.next_time: next_time})
            else:
                NoticeRow.delete().where(_is(waiting)).execute(self._database)

    def _lock(self, some: Sequence[Waiting]) -> list[Waiting]:
        """Those of them that no other server is changing right now. To wait for the others would make all writes of
        this server wait for a commit of that one; what it changes is its own to send."""
        if not some or not self._database.for_update:
            return list(some)
        query = NoticeRow.select(NoticeRow.endpoint, NoticeRow.id).where(reduce(or_, map(_is, some)))
        free = set(self._fetch(query.for_update(skip_locked=True)))
        return [waiting for waiting in some if (waiting.endpoint, waiting.id) in free]

    def _set(self, waiting: Waiting, values: Mapping[peewee.Field, int]) -> bool:
        same = _is(waiting) & (NoticeRow.attempts == waiting.attempts)
        changed: int = NoticeRow.update(values).where(same).execute(self._database)
        return changed == 1

    def release(self, now: int) -> int:
        """Make some of what waits due at once: this server has just started, and no other one can be sending. How
        many; 0: all is due."""
        released = 0
        for endpoint in self._endpoints:
            of_it = NoticeRow.endpoint == endpoint.key
            later = NoticeRow.select(NoticeRow.id).where(of_it & (NoticeRow.next_time > now)).limit(ROWS_A_COMMIT)
            query = NoticeRow.update({NoticeRow.next_time: now}).where(of_it & NoticeRow.id.in_(later))
            released += query.execute(self._database)
        return released

    def overfull(self, before: int, limit: int) -> bool:
        """Whether `give_up` would find anything."""
        query = NoticeRow.select(fn.COUNT(NoticeRow.id), fn.MIN(NoticeRow.create_time)).group_by(NoticeRow.endpoint)
        return any(count > limit or oldest < before for count, oldest in self._fetch(query))

    def give_up(self, before: int, limit: int) -> dict[str, int]:
        """Delete some of what is older than that time (µs), and of each receiver's all but the `limit` newest.

        How many notices to each receiver were given up; none: all are.
        """
        counts = {}
        for (endpoint,) in self._fetch(NoticeRow.select(NoticeRow.endpoint).distinct()):
            of_it = NoticeRow.endpoint == endpoint
            newest_first = NoticeRow.select(NoticeRow.id).where(of_it).order_by(NoticeRow.id.desc())
            surplus = NoticeRow.create_time < before
            for (newest_surplus,) in self._fetch(newest_first.offset(limit).limit(1)):
                surplus |= NoticeRow.id <= newest_surplus
            some = NoticeRow.select(NoticeRow.id).where(of_it & surplus).limit(ROWS_A_COMMIT)
            if self._database.for_update:
                some = some.for_update(skip_locked=True)
            if count := NoticeRow.delete().where(of_it & NoticeRow.id.in_(some)).execute(self._database):
                counts[str(endpoint)] = count
        return counts

    def _fetch(self, query: peewee.Query) -> list[tuple[Any, ...]]:
        # SQLite reads on while rows are fetched: a fault of the disk must become peewee's error there too.
        with exception_wrapper:
            found: list[tuple[Any, ...]] = self._database.execute(query).fetchall()
        return found


def _is(waiting: Waiting) -> peewee.Expression:
    return (NoticeRow.endpoint == waiting.endpoint) & (NoticeRow.id == waiting.id)

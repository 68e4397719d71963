"""The outbox: a commit writes its webhooks, and they stay until they are delivered or given up.

Servers that share a database share the outbox. A claim is a compare-and-set that is valid for some time: usually one
server sends, and another one takes over if that server fails.
"""

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import reduce
from operator import or_
from typing import Any  # what a database driver returns has no other type

import peewee
from peewee import __exception_wrapper__ as exception_wrapper  # type: ignore[attr-defined]  # its stubs lack it
from peewee import fn

from headway_server.domain.change import Change, Event
from headway_server.storage.models import WebhookRow
from headway_server.webhooks.config import Endpoint

ROWS_A_STATEMENT = 500

ROWS_A_COMMIT = 1000
"""Webhooks that one call of `release` or `give_up` changes for each receiver, to keep commits short."""


@dataclass(frozen=True, slots=True)
class PendingDelivery:
    """A webhook in the outbox, for one receiver."""

    endpoint: str
    id: str
    body: str
    attempts: int


class Outbox:
    """The outbox of one database. Call methods that write within a transaction of the commit writer.

    `render` makes the body of a webhook from an event and an id.
    """

    def __init__(
        self,
        database: peewee.Database,
        endpoints: Sequence[Endpoint],
        new_id: Callable[[], str],
        render: Callable[[Event, str], str],
    ) -> None:
        self._database = database
        self._endpoints = endpoints
        self._new_id = new_id
        self._render = render

    def add(self, changes: Iterable[Change]) -> None:
        """Store the webhooks for these changes."""
        rows: list[dict[str, str | int]] = []
        for change in changes:
            for event in change.events:
                keys = [endpoint.key for endpoint in self._endpoints if endpoint.wants(event)]
                if keys:
                    time, webhook_id = event.job.update_time, self._new_id()
                    body = self._render(event, webhook_id)
                    rows += [
                        {
                            "endpoint": key,
                            "id": webhook_id,
                            "body": body,
                            "create_time": time,
                            "next_time": time,
                            "attempts": 0,
                        }
                        for key in keys
                    ]
        for some in peewee.chunked(rows, ROWS_A_STATEMENT):
            self._database.execute(WebhookRow.insert_many(some))

    def due(self, endpoint: str, now: int, limit: int, retries: int) -> list[PendingDelivery]:
        """Webhooks that may be sent to a receiver at `now` (µs): up to `retries`, longest due first, and those never
        tried. At most `limit` in all."""
        oldest = self._waiting(self._due(endpoint, now).order_by(WebhookRow.next_time), min(limit, retries))
        new = self._never_tried(endpoint, now).order_by(WebhookRow.next_time)
        found = {pending.id: pending for pending in (*oldest, *self._waiting(new, limit))}
        return list(found.values())[:limit]

    def due_newest(self, endpoint: str, now: int) -> list[PendingDelivery]:
        """A single webhook that may be sent at `now` (µs), if there is one: the newest that was never tried, else the
        one that is due longest."""
        newest = self._never_tried(endpoint, now).order_by(WebhookRow.next_time.desc())
        return self._waiting(newest, 1) or self.due(endpoint, now, 1, 1)

    # Order by an index alone: after a start, thousands are due at the same time, and every check would sort them.

    def _due(self, endpoint: str, now: int) -> peewee.Select:
        return WebhookRow.select(WebhookRow.endpoint, WebhookRow.id, WebhookRow.body, WebhookRow.attempts).where(
            (WebhookRow.endpoint == endpoint) & (WebhookRow.next_time <= now)
        )

    def _never_tried(self, endpoint: str, now: int) -> peewee.Select:
        return self._due(endpoint, now).where(WebhookRow.attempts == 0)

    def _waiting(self, query: peewee.Select, limit: int) -> list[PendingDelivery]:
        return [PendingDelivery(*row) for row in self._fetch(query.limit(limit))] if limit > 0 else []

    def claim(self, due: Sequence[PendingDelivery], until: int) -> list[PendingDelivery]:
        """Claim the webhooks that no other server has claimed since they were read. Claims are valid until `until`
        (µs)."""
        claimed = []
        for pending in self._lock(due):
            attempts = pending.attempts + 1
            if self._set(pending, {WebhookRow.attempts: attempts, WebhookRow.next_time: until}):
                claimed.append(PendingDelivery(pending.endpoint, pending.id, pending.body, attempts))
        return claimed

    def settle(self, ended: Iterable[tuple[PendingDelivery, int | None]]) -> None:
        """Delete delivered webhooks (None). Make others due again at their time (µs), if their claim is still valid."""
        times = dict(ended)
        for pending in self._lock(list(times)):
            next_time = times[pending]
            if next_time is not None:
                self._set(pending, {WebhookRow.next_time: next_time})
            else:
                WebhookRow.delete().where(_is(pending)).execute(self._database)

    def _lock(self, some: Sequence[PendingDelivery]) -> list[PendingDelivery]:
        """The webhooks that no other server is changing now. Waiting for the rest would delay all writes of this
        server. The server that changes them also sends them."""
        if not some or not self._database.for_update:
            return list(some)
        query = WebhookRow.select(WebhookRow.endpoint, WebhookRow.id).where(reduce(or_, map(_is, some)))
        free = set(self._fetch(query.for_update(skip_locked=True)))
        return [pending for pending in some if (pending.endpoint, pending.id) in free]

    def _set(self, pending: PendingDelivery, values: Mapping[peewee.Field, int]) -> bool:
        same = _is(pending) & (WebhookRow.attempts == pending.attempts)
        changed: int = WebhookRow.update(values).where(same).execute(self._database)
        return changed == 1

    def release(self, now: int) -> int:
        """Make some of the waiting webhooks due now, after a start of the only server. Returns how many; 0 means that
        all are due."""
        released = 0
        for endpoint in self._endpoints:
            of_it = WebhookRow.endpoint == endpoint.key
            later = WebhookRow.select(WebhookRow.id).where(of_it & (WebhookRow.next_time > now)).limit(ROWS_A_COMMIT)
            query = WebhookRow.update({WebhookRow.next_time: now}).where(of_it & WebhookRow.id.in_(later))
            released += query.execute(self._database)
        return released

    def overfull(self, before: int, limit: int) -> bool:
        """Whether `give_up` would delete anything."""
        query = WebhookRow.select(fn.COUNT(WebhookRow.id), fn.MIN(WebhookRow.create_time)).group_by(WebhookRow.endpoint)
        return any(count > limit or oldest < before for count, oldest in self._fetch(query))

    def give_up(self, before: int, limit: int) -> dict[str, int]:
        """Delete some of the webhooks that are older than `before` (µs) or exceed the `limit` newest of a receiver.

        Returns how many were deleted for each receiver. Empty: nothing is left to delete.
        """
        counts = {}
        for (endpoint,) in self._fetch(WebhookRow.select(WebhookRow.endpoint).distinct()):
            of_it = WebhookRow.endpoint == endpoint
            newest_first = WebhookRow.select(WebhookRow.id).where(of_it).order_by(WebhookRow.id.desc())
            surplus = WebhookRow.create_time < before
            for (newest_surplus,) in self._fetch(newest_first.offset(limit).limit(1)):
                surplus |= WebhookRow.id <= newest_surplus
            some = WebhookRow.select(WebhookRow.id).where(of_it & surplus).limit(ROWS_A_COMMIT)
            if self._database.for_update:
                some = some.for_update(skip_locked=True)
            if count := WebhookRow.delete().where(of_it & WebhookRow.id.in_(some)).execute(self._database):
                counts[str(endpoint)] = count
        return counts

    def _fetch(self, query: peewee.Query) -> list[tuple[Any, ...]]:
        # SQLite still reads while rows are fetched: turn an error of the disk into peewee's error here too.
        with exception_wrapper:
            found: list[tuple[Any, ...]] = self._database.execute(query).fetchall()
        return found


def _is(pending: PendingDelivery) -> peewee.Expression:
    return (WebhookRow.endpoint == pending.endpoint) & (WebhookRow.id == pending.id)

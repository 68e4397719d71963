"""Tells those who watch what became of jobs, as the database has it."""

from collections.abc import Awaitable, Callable, Iterable, Sequence
from functools import partial

import peewee

from headway_server.domain.job import Key
from headway_server.service.watch_hub import Hub, Seen
from headway_server.storage.read_pool import within_timeout
from headway_server.storage.store import Store

TOGETHER = 64
"""Jobs that are read at once."""

Read = Callable[[Callable[[], Sequence[Seen]]], Awaitable[Sequence[Seen]]]
"""Runs a query in a thread."""


async def tell(store: Store, read: Read, hub: Hub, keys: Iterable[Key]) -> None:
    """Publish the present state of those of these jobs that somebody watches. Raises TimeoutError."""
    for some in peewee.chunked([key for key in keys if hub.watched(key)], TOGETHER):
        hub.publish(await within_timeout(read(partial(store.states_of, some))))

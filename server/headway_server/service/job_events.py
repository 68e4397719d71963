"""Tells those who watch what became of jobs, as the database has it."""

from collections.abc import Awaitable, Callable, Iterable, Sequence
from functools import partial

import peewee

from headway_server.domain.job import Key
from headway_server.service.watch_hub import WatchHub
from headway_server.storage.listing import JobEvent
from headway_server.storage.read_pool import within_timeout
from headway_server.storage.store import Store

JOBS_A_READ = 64
"""Jobs that are read at once."""

Read = Callable[[Callable[[], Sequence[JobEvent]]], Awaitable[Sequence[JobEvent]]]
"""Runs a query in a thread."""


async def publish_states(store: Store, read: Read, hub: WatchHub, keys: Iterable[Key]) -> None:
    """Publish the present state of those of these jobs that somebody watches. Raises TimeoutError."""
    for some in peewee.chunked([key for key in keys if hub.watched(key)], JOBS_A_READ):
        hub.publish(await within_timeout(read(partial(store.states_of, some))))

"""Publishes the state of jobs from the database to watchers."""

from collections.abc import Awaitable, Callable, Iterable, Sequence
from functools import partial

import peewee

from headway_server.domain.job import Key
from headway_server.service.watch_hub import WatchHub
from headway_server.storage.listing import JobEvent
from headway_server.storage.read_pool import within_timeout
from headway_server.storage.store import Store

JOBS_A_READ = 64
"""Jobs that one query reads."""

Read = Callable[[Callable[[], Sequence[JobEvent]]], Awaitable[Sequence[JobEvent]]]
"""Runs a query in a thread."""


async def publish_states(store: Store, read: Read, hub: WatchHub, keys: Iterable[Key]) -> None:
    """Publish the present state of each of these jobs that is watched. Raises TimeoutError."""
    for some in peewee.chunked([key for key in keys if hub.watched(key)], JOBS_A_READ):
        hub.publish(await within_timeout(read(partial(store.states_of, some))))

"""Webhooks: CloudEvents for receivers when a job ends, is LOST or stalls, signed as Standard Webhooks.

A webhook stays in the outbox until its receiver responds with 2xx. It is delivered at least once, always with the same
id.
"""

import asyncio
import json
import logging
import ssl
from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from functools import partial

from google.protobuf import json_format, timestamp_pb2
from google.protobuf.message import Message

from headway_server.domain.change import Event
from headway_server.domain.errors import JobError
from headway_server.domain.gaps import Gap, start_of_span
from headway_server.domain.job import Job, Status
from headway_server.resources.clock import Clock
from headway_server.rpc import to_proto
from headway_server.rpc.json_values import Json
from headway_server.service.commit_writer import CommitWriter
from headway_server.storage.listing import JobEvent
from headway_server.storage.read_pool import Readers
from headway_server.webhooks.client import WebhookClient
from headway_server.webhooks.config import Endpoint
from headway_server.webhooks.delivery import LONGEST_RETRY_DELAY, Delivery
from headway_server.webhooks.outbox import Outbox

TYPE_PREFIX = "dev.headway.job."

TIDY_INTERVAL = 60.0
"""Seconds between two checks for webhooks that have waited too long."""

FIRST_TIDY = LONGEST_RETRY_DELAY
"""For this long (µs) after a start, no webhook is given up for its age. By then each was due once. So none is given up
only because the server was down or the clock was wrong for a long time."""

CLOSE_TIMEOUT = 1.0
"""Seconds that a stopping server waits for responses. Webhooks without a response are sent again later."""

log = logging.getLogger(__name__)


def renderer(source: str) -> Callable[[Event, str], str]:
    """A function that makes the body of a webhook: a CloudEvent in JSON, whose data is the Job in protobuf's JSON
    mapping."""

    def render(event: Event, webhook_id: str) -> str:
        job = event.job
        moment = timestamp_pb2.Timestamp()
        moment.FromMicroseconds(job.update_time)
        cloud_event = {
            "specversion": "1.0",
            "id": webhook_id,
            "source": source,
            "type": TYPE_PREFIX + event.type,
            "subject": job.id,
            "time": moment.ToJsonString(),
            "datacontenttype": "application/json",
            "data": _plain(to_proto.job(job)),
        }
        return json.dumps(cloud_event, separators=(",", ":"), ensure_ascii=False)

    return render


def _plain(message: Message) -> dict[str, Json]:
    # Include zeros and empty texts: readers need not know that protobuf omits a `progress` of 0.
    plain: dict[str, Json] = json_format.MessageToDict(message, always_print_fields_with_no_presence=True)
    return plain


class Webhooks:
    """The deliveries to all receivers. `lifetime` (µs): how long a webhook is tried, without `gaps`. `limit`: how many
    webhooks may wait for one receiver."""

    def __init__(
        self,
        endpoints: Sequence[Endpoint],
        outbox: Outbox,
        readers: Readers,
        writer: CommitWriter,
        clock: Clock,
        *,
        private: bool,
        lifetime: int,
        gaps: Sequence[Gap] = (),
        limit: int,
    ) -> None:
        self._outbox = outbox
        self._readers = readers
        self._writer = writer
        self._clock = clock
        self._lifetime = lifetime
        self._gaps = gaps
        self._limit = limit
        self._tidy_from = clock.now() + FIRST_TIDY
        self._origins = {endpoint.key: endpoint.origin for endpoint in endpoints}
        self._tidying: asyncio.Task[None] | None = None
        self._delivering: asyncio.Task[None] | None = None
        self.deliveries: list[Delivery] = []
        if endpoints:
            tls = ssl.create_default_context()
            self.deliveries = [
                Delivery(endpoint, outbox, readers, writer, clock, WebhookClient(endpoint.url, tls, private=private))
                for endpoint in endpoints
            ]

    def note(self, events: Iterable[JobEvent]) -> None:
        """Check for due webhooks at once if these committed changes may cause some."""
        if any(isinstance(event, Job) and _may_have_event(event) for event in events):
            for delivery in self.deliveries:
                delivery.wake()

    async def start(self, *, alone: bool) -> None:
        """Begin to deliver. `alone`: no other server can be sending now."""
        if self.deliveries:
            self._delivering = asyncio.create_task(self._deliver(alone))
        # Also tidy for receivers that are no longer configured, or belong to another server.
        self._tidying = asyncio.create_task(self._tidy_for_ever())

    async def _deliver(self, alone: bool) -> None:
        if alone:
            await self.release()
        async with asyncio.TaskGroup() as group:
            for delivery in self.deliveries:
                group.create_task(delivery.run())

    async def release(self) -> None:
        """Make all waiting webhooks due now."""
        now = self._clock.now()
        released = 0

        def release() -> None:
            nonlocal released
            released = self._outbox.release(now)

        try:
            await self._writer.run_task(release)
            while released:
                await self._writer.run_task(release)
        except JobError:
            # Earlier claims also end by themselves a little later.
            pass
        except Exception:
            log.exception("releasing the outbox failed; earlier claims end by themselves")

    async def close(self) -> None:
        """Stop, after a short wait for responses that are on their way."""
        for delivery in self.deliveries:
            delivery.stop()
        if self._tidying is not None:
            self._tidying.cancel()
        if self._delivering is not None:
            await asyncio.wait([self._delivering], timeout=CLOSE_TIMEOUT)
            self._delivering.cancel()
            await asyncio.gather(self._delivering, return_exceptions=True)

    async def tidy(self) -> None:
        """Give up webhooks that have waited too long or exceed the limit."""
        now = self._clock.now()
        before = start_of_span(now, self._lifetime, self._gaps) if now >= self._tidy_from else 0
        if not await self._readers.read(partial(self._outbox.overfull, before, self._limit)):
            return
        given_up: Counter[str] = Counter()
        some: dict[str, int] = {}

        def give_up() -> None:
            some.clear()
            some.update(self._outbox.give_up(before, self._limit))

        try:
            await self._writer.run_task(give_up)
            while some:
                given_up.update(some)
                await self._writer.run_task(give_up)
        finally:
            for key, count in given_up.items():
                origin = self._origins.get(key, "a receiver that is not configured here")
                log.warning("webhooks to %s: gave up %d that could not be delivered in time", origin, count)

    async def _tidy_for_ever(self) -> None:
        while True:
            try:
                await self.tidy()
            except JobError:
                # The sweeper reports that the database is unreachable.
                pass
            except Exception:
                log.exception("tidying the outbox failed; trying again")
            await asyncio.sleep(TIDY_INTERVAL)


def _may_have_event(job: Job) -> bool:
    return job.ended or job.stalled or job.status is Status.LOST

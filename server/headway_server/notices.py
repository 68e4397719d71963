"""Notices: CloudEvents that are posted to receivers when a job ends, is LOST or stalled, signed as Standard Webhooks.

They come from the outbox, and leave it when the receiver has answered with 2xx: at least once each, under one id.
"""

import asyncio
import base64
import hmac
import json
import logging
import random
import time
from collections.abc import Callable, Iterable, Sequence
from contextlib import suppress
from datetime import UTC
from email.utils import parsedate_to_datetime
from functools import partial
from importlib.metadata import version

from google.protobuf import json_format, timestamp_pb2
from google.protobuf.message import Message

from headway_server import replies
from headway_server.change import Gap, Notice, counted_back
from headway_server.clock import Clock
from headway_server.endpoints import Endpoint
from headway_server.errors import JobError
from headway_server.job import Job, Status
from headway_server.json_values import Json
from headway_server.limits import MICROSECONDS
from headway_server.outbox import Outbox, Waiting
from headway_server.post import TIMEOUT, Answer, NoAnswer, Poster
from headway_server.readers import Readers
from headway_server.writer import Published, Writer

TYPE_PREFIX = "dev.headway.job."

TOGETHER = 8
"""Notices on their way to one receiver at a time."""

LEASE = int(2 * TIMEOUT) * MICROSECONDS
"""How long (µs) a claim holds: longer than sending takes, and short enough for another server to take over."""

FIRST_WAIT = 5 * MICROSECONDS
LONGEST_WAIT = 3600 * MICROSECONDS
"""Spans (µs) from one attempt at a notice to the next: the first, doubled each time, up to the longest."""

LONGEST_PAUSE = 30 * MICROSECONDS
"""A receiver that fails is left alone for at most so long (µs), however many notices wait, unless it asks for more."""

POLL = 1.0
"""Seconds between two looks at what is due."""

TIDY_INTERVAL = 60.0
"""Seconds between two looks at what has waited too long."""

PARTING = 1.0
"""Seconds that a stopping server waits for answers; what it does not wait for is sent again."""

GONE = 410

log = logging.getLogger(__name__)


# What is sent.


def renderer(source: str) -> Callable[[Notice, str], str]:
    """Makes the body of a notice with an id: a CloudEvent in JSON, whose data is the Job as protobuf maps it."""

    def render(notice: Notice, notice_id: str) -> str:
        job = notice.job
        moment = timestamp_pb2.Timestamp()
        moment.FromMicroseconds(job.update_time)
        event = {
            "specversion": "1.0",
            "id": notice_id,
            "source": source,
            "type": TYPE_PREFIX + notice.event,
            "subject": job.id,
            "time": moment.ToJsonString(),
            "datacontenttype": "application/json",
            "data": _plain(replies.job(job)),
        }
        return json.dumps(event, separators=(",", ":"), ensure_ascii=False)

    return render


def _plain(message: Message) -> dict[str, Json]:
    # With zeros and empty texts: who reads `progress` should not have to know that 0 goes without saying.
    plain: dict[str, Json] = json_format.MessageToDict(message, always_print_fields_with_no_presence=True)
    return plain


def signature(secrets: Iterable[bytes], notice_id: str, timestamp: int, body: bytes) -> str:
    """The header webhook-signature of Standard Webhooks: with several secrets, one of them signed with each."""
    signed = f"{notice_id}.{timestamp}.".encode() + body
    marks = [hmac.digest(secret, signed, "sha256") for secret in secrets]
    return " ".join(f"v1,{base64.b64encode(mark).decode()}" for mark in marks)


# When it is sent.


def backoff(attempts: int, longest: int) -> int:
    """How long (µs) to wait after so many attempts that failed; with jitter, so that not all come back at once."""
    wait = min(FIRST_WAIT << min(attempts - 1, 16), longest)
    return int(wait * random.uniform(0.5, 1))


def asked_wait(retry_after: str, now: int) -> int:
    """How long (µs) the header Retry-After asks to wait, within bounds; 0 if it is absent or says nothing useful."""
    if retry_after.isdecimal() and retry_after.isascii():
        wait = int(retry_after[:9]) * MICROSECONDS
    else:
        try:
            date = parsedate_to_datetime(retry_after)
        except (ValueError, OverflowError):
            return 0
        wait = int(date.replace(tzinfo=date.tzinfo or UTC).timestamp() * MICROSECONDS) - now
    return min(max(wait, 0), LONGEST_WAIT)


class Courier:
    """Brings one receiver its notices."""

    def __init__(
        self, endpoint: Endpoint, outbox: Outbox, readers: Readers, writer: Writer, clock: Clock, poster: Poster
    ) -> None:
        self.endpoint = endpoint
        self._outbox = outbox
        self._readers = readers
        self._writer = writer
        self._clock = clock
        self._poster = poster
        self._failures = 0
        """Batches in a row of which nothing was delivered."""
        self._paused_until = 0
        self._gone = False
        self._stopping = False
        self._wake = asyncio.Event()

    def wake(self) -> None:
        """Something may be due."""
        self._wake.set()

    def stop(self) -> None:
        """Claim nothing more."""
        self._stopping = True
        self._wake.set()

    async def run(self) -> None:
        """Deliver until told to stop."""
        while not self._stopping:
            self._wake.clear()
            try:
                await self.deliver()
            except JobError:
                # The database is away, which upkeep tells of. What is claimed comes back when the claim ends.
                pass
            except Exception:
                log.exception("notices to %s failed; trying again", self.endpoint.origin)
            with suppress(TimeoutError):
                async with asyncio.timeout(POLL):
                    await self._wake.wait()

    async def deliver(self) -> None:
        """Send what is due, until nothing is or the receiver fails."""
        while not (self._stopping or self._gone) and self._clock.now() >= self._paused_until:
            # Who fails is asked with a single notice whether all is well again.
            limit = 1 if self._failures else TOGETHER
            now = self._clock.now()
            due = await self._readers.read(partial(self._outbox.due, self.endpoint.key, now, limit))
            if not due:
                return
            # Perhaps none of it: another server was quicker.
            claimed = await self._claim(due, now)
            async with asyncio.TaskGroup() as group:
                sendings = [group.create_task(self._send(waiting)) for waiting in claimed]
            if claimed:
                await self._settle(claimed, [sending.result() for sending in sendings])

    async def _claim(self, due: Sequence[Waiting], now: int) -> list[Waiting]:
        claimed: list[Waiting] = []

        def claim() -> None:
            # Anew each time that a commit is tried.
            claimed[:] = self._outbox.claim(due, now + LEASE)

        await self._writer.chore(claim)
        return claimed

    async def _send(self, waiting: Waiting) -> Answer | NoAnswer:
        body = waiting.body.encode()
        # By the time of day: receivers compare it with theirs.
        timestamp = int(time.time())
        headers = {
            "content-type": "application/cloudevents+json; charset=utf-8",
            "user-agent": f"headway/{version('headway')}",
            "webhook-id": waiting.id,
            "webhook-timestamp": str(timestamp),
            "webhook-signature": signature(self.endpoint.secrets, waiting.id, timestamp, body),
        }
        try:
            return await self._poster.post(self.endpoint.url, headers, body)
        except NoAnswer as why:
            return why

    async def _settle(self, claimed: Sequence[Waiting], answers: Sequence[Answer | NoAnswer]) -> None:
        now = self._clock.now()
        delivered: list[Waiting] = []
        failed: list[tuple[Waiting, int]] = []
        why = ""
        pause = 0
        for waiting, answer in zip(claimed, answers, strict=True):
            if isinstance(answer, NoAnswer):
                why, wait = str(answer), 0
            elif 200 <= answer.status < 300:
                delivered.append(waiting)
                continue
            else:
                why, wait = f"it answered {answer.status}", asked_wait(answer.retry_after, now)
                self._gone |= answer.status == GONE
            pause = max(pause, wait)
            failed.append((waiting, now + max(backoff(waiting.attempts, LONGEST_WAIT), wait)))
        self._tell(why, delivered=bool(delivered))
        self._failures = 0 if delivered else self._failures + 1
        if self._failures:
            pause = max(pause, backoff(self._failures, LONGEST_PAUSE))
        self._paused_until = now + pause
        await self._writer.chore(partial(self._outbox.settle, delivered, failed))

    def _tell(self, why: str, *, delivered: bool) -> None:
        """One line when the receiver begins to fail, and one when it is well again."""
        origin = self.endpoint.origin
        if self._gone:
            log.warning("notices to %s: it answered 410 Gone, and gets no more until the next start", origin)
        elif why and not self._failures:
            log.warning("notices to %s: %s; trying again", origin, why)
        elif delivered and self._failures:
            log.info("notices to %s are delivered again", origin)


class Notices:
    """All receivers. `lifetime` (µs): how long a notice is tried, `gaps` not counted; `limit`: how many may wait for
    one receiver."""

    def __init__(
        self,
        endpoints: Sequence[Endpoint],
        outbox: Outbox,
        readers: Readers,
        writer: Writer,
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
        self._origins = {endpoint.key: endpoint.origin for endpoint in endpoints}
        self._tidying: asyncio.Task[None] | None = None
        self._running: list[asyncio.Task[None]] = []
        self.couriers: list[Courier] = []
        if endpoints:
            poster = Poster(private=private)
            self.couriers = [Courier(endpoint, outbox, readers, writer, clock, poster) for endpoint in endpoints]

    def note(self, published: Iterable[Published]) -> None:
        """These changes are committed: look at once whether they are to be told of."""
        if any(isinstance(seen, Job) and _may_be_told(seen) for seen in published):
            for courier in self.couriers:
                courier.wake()

    async def start(self, *, alone: bool) -> None:
        """Begin to deliver; `alone`: no other server can be sending now."""
        if self.couriers and alone:
            # Without it, claims of before end by themselves a little later.
            with suppress(JobError):
                await self._writer.chore(partial(self._outbox.release, self._clock.now()))
        self._running = [asyncio.create_task(courier.run()) for courier in self.couriers]
        # Also for receivers that are no longer configured, or another server's.
        self._tidying = asyncio.create_task(self._tidy_for_ever())

    async def close(self) -> None:
        """Stop, with a short wait for answers that are on their way."""
        for courier in self.couriers:
            courier.stop()
        if self._tidying is not None:
            self._tidying.cancel()
        if self._running:
            _, late = await asyncio.wait(self._running, timeout=PARTING)
            for task in late:
                task.cancel()
            await asyncio.gather(*late, return_exceptions=True)

    async def tidy(self) -> None:
        """Give up what has waited too long, or is too much."""
        before = counted_back(self._clock.now(), self._lifetime, self._gaps)
        if not await self._readers.read(partial(self._outbox.overfull, before, self._limit)):
            return
        given_up: dict[str, int] = {}

        def give_up() -> None:
            given_up.clear()
            given_up.update(self._outbox.give_up(before, self._limit))

        await self._writer.chore(give_up)
        for key, count in given_up.items():
            origin = self._origins.get(key, "a receiver that is not configured here")
            log.warning("notices to %s: gave up %d that could not be delivered in time", origin, count)

    async def _tidy_for_ever(self) -> None:
        while True:
            try:
                await self.tidy()
            except JobError:
                # The database is away, which upkeep tells of.
                pass
            except Exception:
                log.exception("tidying the outbox failed; trying again")
            await asyncio.sleep(TIDY_INTERVAL)


def _may_be_told(job: Job) -> bool:
    return job.ended or job.stalled or job.status is Status.LOST

"""The delivery of webhooks to one receiver: which webhooks to send when, and how to treat the responses."""

import asyncio
import base64
import hmac
import logging
import random
import time
from collections.abc import Iterable
from contextlib import suppress
from datetime import UTC
from email.utils import parsedate_to_datetime
from functools import partial
from importlib.metadata import version

from headway_server.domain.errors import JobError
from headway_server.domain.limits import MICROSECONDS
from headway_server.resources.clock import Clock
from headway_server.service.commit_writer import CommitWriter
from headway_server.storage.read_pool import Readers
from headway_server.webhooks.client import SEND_TIME_MAX, NoResponse, Response, WebhookClient
from headway_server.webhooks.config import Endpoint
from headway_server.webhooks.outbox import Outbox, PendingDelivery

WEBHOOKS_IN_FLIGHT_MAX = 8
"""Webhooks that are being sent to one receiver at a time. Only their bodies are held in memory."""

RETRIES_IN_FLIGHT_MAX = 4
"""How many of them may be retries. The rest is for new webhooks, however many must be retried."""

CLAIM_TIME = int(2 * SEND_TIME_MAX) * MICROSECONDS
"""How long (µs) a claim is valid: longer than sending takes, and short enough for another server to take over."""

FIRST_RETRY_DELAY = 5 * MICROSECONDS
LONGEST_RETRY_DELAY = 3600 * MICROSECONDS
"""Delays (µs) between attempts at a webhook: the first one, then twice as long each time, up to the longest."""

LONGEST_PAUSE = 30 * MICROSECONDS
"""The longest pause (µs) for a receiver that does not respond, unless it requests a longer one."""

POLL_INTERVAL = 1.0
"""Seconds between two checks for due webhooks."""

RACE_DELAY = 0.05
"""Seconds until the next check if another server claimed everything that was due."""

REFUSALS_LOG_INTERVAL = 86_400 * MICROSECONDS
"""Refused webhooks are logged at most this often (µs) for each receiver: one may be refused for days."""

STATUS_GONE = 410
STATUS_TOO_MANY_REQUESTS = 429

UNAVAILABLE_STATUSES = frozenset({408, 425, STATUS_TOO_MANY_REQUESTS, 502, 503, 504})
"""With these statuses a receiver, or a gateway before it, says that it accepts nothing now. All other statuses (but 2xx
and 410) refuse the one webhook that was sent."""

log = logging.getLogger(__name__)


def signature(secrets: Iterable[bytes], webhook_id: str, timestamp: int, body: bytes) -> str:
    """The header webhook-signature of Standard Webhooks, with one signature for each secret."""
    signed = f"{webhook_id}.{timestamp}.".encode() + body
    marks = [hmac.digest(secret, signed, "sha256") for secret in secrets]
    return " ".join(f"v1,{base64.b64encode(mark).decode()}" for mark in marks)


def backoff(attempts: int, longest: int) -> int:
    """How long (µs) to wait after this many failed attempts. With jitter, so that retries do not come all at once."""
    wait = min(FIRST_RETRY_DELAY << min(attempts - 1, 16), longest)
    return int(wait * random.uniform(0.5, 1))


def requested_delay(retry_after: str, now: int) -> int:
    """The delay (µs) in the header Retry-After, up to LONGEST_RETRY_DELAY; 0 if the header is absent or invalid."""
    if retry_after.isdecimal() and retry_after.isascii():
        wait = int(retry_after[:9]) * MICROSECONDS
    else:
        try:
            date = parsedate_to_datetime(retry_after)
        except (ValueError, OverflowError):
            return 0
        wait = int(date.replace(tzinfo=date.tzinfo or UTC).timestamp() * MICROSECONDS) - now
    return min(max(wait, 0), LONGEST_RETRY_DELAY)


class Delivery:
    """Delivers webhooks to one receiver, each on its own schedule.

    If the receiver does not respond, the delivery pauses, and then tries again with a single webhook. A response to one
    webhook does not delay others.
    """

    def __init__(
        self,
        endpoint: Endpoint,
        outbox: Outbox,
        readers: Readers,
        writer: CommitWriter,
        clock: Clock,
        client: WebhookClient,
    ) -> None:
        self.endpoint = endpoint
        self._outbox = outbox
        self._readers = readers
        self._writer = writer
        self._clock = clock
        self._client = client
        self._sending: dict[str, int] = {}
        """The webhooks that are being sent: id to attempt."""
        self._ended: list[tuple[PendingDelivery, int | None]] = []
        """Webhooks whose attempt has ended and is not stored yet: when (µs) to try again, or None if delivered."""
        self._failures = 0
        """Consecutive pauses without a response between them."""
        self._paused_until = 0
        self._turn = 0
        """Increases with each response and each counted failure. So a failed attempt can tell whether the receiver has
        responded to another one since, and several attempts that fail together count as one."""
        self._refusals_logged = -REFUSALS_LOG_INTERVAL
        self._gone = False
        self._stopping = False
        self._wake = asyncio.Event()

    def wake(self) -> None:
        """Check now: something may be due."""
        self._wake.set()

    def stop(self) -> None:
        """Claim nothing more."""
        self._stopping = True
        self._wake.set()

    async def run(self) -> None:
        """Deliver until `stop`."""
        while not self._stopping:
            try:
                await self.deliver()
            except Exception:
                log.exception("webhooks to %s failed; trying again", self.endpoint.origin)
            await self._wait_for_wake()

    async def deliver(self) -> None:
        """Send what is due, until nothing is due, being sent, or to be stored."""
        async with asyncio.TaskGroup() as group:
            while True:
                self._wake.clear()
                found = False
                # The sweeper reports that the database is unreachable. Claimed webhooks are due again when the claim
                # ends.
                with suppress(JobError):
                    found = await self._round(group)
                if self._sending or self._ended:
                    await self._wait_for_wake()
                elif found:
                    await asyncio.sleep(RACE_DELAY)
                else:
                    return

    async def _wait_for_wake(self) -> None:
        with suppress(TimeoutError):
            async with asyncio.timeout(POLL_INTERVAL):
                await self._wake.wait()

    async def _round(self, group: asyncio.TaskGroup) -> bool:
        """Store ended attempts, claim what is due, and send it. Returns whether there was anything to do: what was just
        stored hides other due webhooks from `_due` until then."""
        due = await self._due()
        ended, self._ended = self._ended, []
        if not due and not ended:
            return False
        claimed: list[PendingDelivery] = []
        until = 0

        def write() -> None:
            nonlocal until
            self._outbox.settle(ended)
            until = self._clock.now() + CLAIM_TIME
            # Runs again each time the commit is tried. It may claim nothing if another server was faster.
            claimed[:] = self._outbox.claim(due, until)

        try:
            await self._writer.run_task(write)
        except BaseException:
            # Keep what was delivered: it must not be sent again because the database failed for a moment.
            self._ended = ended + self._ended
            raise
        # After a commit that took too long, another server may claim them while they are sent.
        if self._clock.now() + SEND_TIME_MAX * MICROSECONDS <= until:
            for pending in claimed:
                self._sending[pending.id] = pending.attempts
                group.create_task(self._send(pending))
        return True

    async def _due(self) -> list[PendingDelivery]:
        """Webhooks that may be sent now."""
        now = self._clock.now()
        if self._stopping or self._gone or now < self._paused_until:
            return []
        room = (1 if self._failures else WEBHOOKS_IN_FLIGHT_MAX) - len(self._sending)
        if room <= 0:
            return []
        retries = RETRIES_IN_FLIGHT_MAX - sum(attempt > 1 for attempt in self._sending.values())
        if self._failures:
            # Newest first: if the oldest webhooks make the receiver hang, a newer one shows whether it responds.
            query = partial(self._outbox.due_newest, self.endpoint.key, now)
        else:
            query = partial(self._outbox.due, self.endpoint.key, now, room, retries)
        busy = self._sending.keys() | {pending.id for pending, _ in self._ended}
        return [pending for pending in await self._readers.read(query) if pending.id not in busy]

    async def _send(self, pending: PendingDelivery) -> None:
        turn = self._turn
        try:
            next_time = self._next_attempt(pending, await self._post(pending), turn)
        except Exception:
            # A webhook that cannot be sent must not stop the others.
            log.exception("webhook %s to %s failed; trying it again", pending.id, self.endpoint.origin)
            next_time = self._clock.now() + backoff(pending.attempts, LONGEST_RETRY_DELAY)
        finally:
            del self._sending[pending.id]
        self._ended.append((pending, next_time))
        self._wake.set()

    async def _post(self, pending: PendingDelivery) -> Response | NoResponse:
        body = pending.body.encode()
        # Use the time of day, because receivers compare it with theirs.
        timestamp = int(time.time())
        headers = {
            "content-type": "application/cloudevents+json; charset=utf-8",
            "user-agent": f"headway/{version('headway')}",
            "webhook-id": pending.id,
            "webhook-timestamp": str(timestamp),
            "webhook-signature": signature(self.endpoint.secrets, pending.id, timestamp, body),
        }
        try:
            return await self._client.post(headers, body)
        except NoResponse as why:
            return why

    def _next_attempt(self, pending: PendingDelivery, response: Response | NoResponse, turn: int) -> int | None:
        """When (µs) to try this webhook again; None if it is delivered. `turn`: the turn in which the attempt began."""
        now = self._clock.now()
        next_time = now + backoff(pending.attempts, LONGEST_RETRY_DELAY)
        if isinstance(response, NoResponse):
            self._fail(str(response), turn)
            return next_time
        requested = requested_delay(response.retry_after, now)
        if response.status in UNAVAILABLE_STATUSES:
            if response.status == STATUS_TOO_MANY_REQUESTS:
                requested = requested or backoff(1, LONGEST_PAUSE)
            self._fail(f"it responded {response.status}", turn)
            self._paused_until = max(self._paused_until, now + requested)
        elif response.status == STATUS_GONE:
            self._give_up()
        else:
            self._responded()
            if 200 <= response.status < 300:
                return None
            self._log_refusal(pending, response.status)
        return max(next_time, now + requested)

    # The state of the receiver: one log line when it begins to fail, and one when it responds again.

    def _fail(self, why: str, turn: int) -> None:
        if turn != self._turn:
            # The receiver has responded to another webhook since this attempt began, or its pause has begun already.
            return
        self._turn += 1
        if not self._failures:
            log.warning("webhooks to %s: %s; trying again", self.endpoint.origin, why)
        self._failures += 1
        self._paused_until = max(self._paused_until, self._clock.now() + backoff(self._failures, LONGEST_PAUSE))

    def _responded(self) -> None:
        self._turn += 1
        if self._failures:
            self._failures = 0
            log.info("webhooks to %s: it responds again", self.endpoint.origin)

    def _give_up(self) -> None:
        if not self._gone:
            self._gone = True
            log.warning(
                "webhooks to %s: it responded 410 Gone; nothing is sent to it until the next start",
                self.endpoint.origin,
            )

    def _log_refusal(self, pending: PendingDelivery, status: int) -> None:
        now = self._clock.now()
        if now - self._refusals_logged >= REFUSALS_LOG_INTERVAL:
            self._refusals_logged = now
            log.warning(
                "webhooks to %s: it refused webhook %s with %d; trying that one again, others are sent meanwhile",
                self.endpoint.origin,
                pending.id,
                status,
            )

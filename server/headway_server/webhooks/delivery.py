"""The delivery of notices to one receiver: which are sent when, and what follows from the answers."""

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
from headway_server.service.commit_writer import Writer
from headway_server.storage.read_pool import Readers
from headway_server.webhooks.client import SENDING_MAX, Answer, NoAnswer, Poster
from headway_server.webhooks.config import Endpoint
from headway_server.webhooks.outbox import Outbox, Waiting

TOGETHER = 8
"""Notices on their way to one receiver at a time. Their bodies are all that is held of them in memory."""

RETRIES_TOGETHER = 4
"""How many of those may have been tried before, so that new ones get through, however many are tried again."""

LEASE = int(2 * SENDING_MAX) * MICROSECONDS
"""How long (µs) a claim holds: longer than sending takes, and short enough for another server to take over."""

FIRST_WAIT = 5 * MICROSECONDS
LONGEST_WAIT = 3600 * MICROSECONDS
"""Spans (µs) from one attempt at a notice to the next: the first, doubled each time, up to the longest."""

LONGEST_PAUSE = 30 * MICROSECONDS
"""A receiver that does not answer is left alone for at most so long (µs), unless it asks for more."""

POLL = 1.0
"""Seconds between two looks at what is due."""

RACE_WAIT = 0.05
"""Seconds to the next look when another server was quicker with all that was due."""

REFUSALS_LOG_INTERVAL = 86_400 * MICROSECONDS
"""Notices that a receiver refuses are logged at most this often (µs): one may be refused for days."""

GONE = 410
TOO_MANY_REQUESTS = 429

AWAY = frozenset({408, 425, TOO_MANY_REQUESTS, 502, 503, 504})
"""With these statuses a receiver, or a gateway before it, says that it takes nothing now. With all others (but 2xx and
410) it refuses the one notice that it was sent."""

log = logging.getLogger(__name__)


def signature(secrets: Iterable[bytes], notice_id: str, timestamp: int, body: bytes) -> str:
    """The header webhook-signature of Standard Webhooks: with several secrets, one of them signed with each."""
    signed = f"{notice_id}.{timestamp}.".encode() + body
    marks = [hmac.digest(secret, signed, "sha256") for secret in secrets]
    return " ".join(f"v1,{base64.b64encode(mark).decode()}" for mark in marks)


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
    """Brings one receiver its notices, each on its own schedule.

    The receiver as a whole is left alone for a while when it does not answer, and then asked again with a single
    notice. What it answers to one notice holds up no other.
    """

    def __init__(
        self, endpoint: Endpoint, outbox: Outbox, readers: Readers, writer: Writer, clock: Clock, poster: Poster
    ) -> None:
        self.endpoint = endpoint
        self._outbox = outbox
        self._readers = readers
        self._writer = writer
        self._clock = clock
        self._poster = poster
        self._sending: dict[str, int] = {}
        """The notices on their way: id to attempt."""
        self._ended: list[tuple[Waiting, int | None]] = []
        """Those whose attempt has ended and is not written down yet: when (µs) to try again, or None if delivered."""
        self._failures = 0
        """Pauses in a row without an answer between them."""
        self._paused_until = 0
        self._turn = 0
        """Grows with each answer and each failure that counts. So an attempt that fails can tell whether the receiver
        has answered another one since, and of many that fail together one counts."""
        self._refusals_logged = -REFUSALS_LOG_INTERVAL
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
            try:
                await self.deliver()
            except Exception:
                log.exception("notices to %s failed; trying again", self.endpoint.origin)
            await self._woken()

    async def deliver(self) -> None:
        """Send what is due, until nothing is due, on its way, or to be written down."""
        async with asyncio.TaskGroup() as group:
            while True:
                self._wake.clear()
                found = False
                # When the database is away, upkeep tells of it, and what is claimed comes back when the claim ends.
                with suppress(JobError):
                    found = await self._round(group)
                if self._sending or self._ended:
                    await self._woken()
                elif found:
                    await asyncio.sleep(RACE_WAIT)
                else:
                    return

    async def _woken(self) -> None:
        with suppress(TimeoutError):
            async with asyncio.timeout(POLL):
                await self._wake.wait()

    async def _round(self, group: asyncio.TaskGroup) -> bool:
        """Write down which attempts have ended, claim what is due, and send it. Whether anything was due."""
        due = await self._due()
        ended, self._ended = self._ended, []
        if not due and not ended:
            return False
        claimed: list[Waiting] = []
        until = 0

        def write() -> None:
            nonlocal until
            self._outbox.settle(ended)
            until = self._clock.now() + LEASE
            # Anew each time that a commit is tried; perhaps none of it, if another server was quicker.
            claimed[:] = self._outbox.claim(due, until)

        try:
            await self._writer.chore(write)
        except BaseException:
            # What was delivered must not be sent again only because the database failed for a moment.
            self._ended = ended + self._ended
            raise
        # After a commit that took too long another server may have claimed them before they are sent.
        if self._clock.now() + SENDING_MAX * MICROSECONDS <= until:
            for waiting in claimed:
                self._sending[waiting.id] = waiting.attempts
                group.create_task(self._send(waiting))
        return bool(due)

    async def _due(self) -> list[Waiting]:
        """What may be sent now."""
        now = self._clock.now()
        if self._stopping or self._gone or now < self._paused_until:
            return []
        room = (1 if self._failures else TOGETHER) - len(self._sending)
        if room <= 0:
            return []
        retries = RETRIES_TOGETHER - sum(attempt > 1 for attempt in self._sending.values())
        if self._failures:
            # Newest first: where the oldest ones make the receiver hang, another one finds out that it is well.
            query = partial(self._outbox.due_newest, self.endpoint.key, now)
        else:
            query = partial(self._outbox.due, self.endpoint.key, now, room, retries)
        busy = self._sending.keys() | {waiting.id for waiting, _ in self._ended}
        return [waiting for waiting in await self._readers.read(query) if waiting.id not in busy]

    async def _send(self, waiting: Waiting) -> None:
        turn = self._turn
        try:
            next_time = self._judge(waiting, await self._post(waiting), turn)
        except Exception:
            # A notice that cannot be sent must not take the others with it.
            log.exception("notice %s to %s failed; trying it again", waiting.id, self.endpoint.origin)
            next_time = self._clock.now() + backoff(waiting.attempts, LONGEST_WAIT)
        finally:
            del self._sending[waiting.id]
        self._ended.append((waiting, next_time))
        self._wake.set()

    async def _post(self, waiting: Waiting) -> Answer | NoAnswer:
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
            return await self._poster.post(headers, body)
        except NoAnswer as why:
            return why

    def _judge(self, waiting: Waiting, answer: Answer | NoAnswer, turn: int) -> int | None:
        """When (µs) to try this notice again; None: it is delivered. `turn`: when the attempt began."""
        now = self._clock.now()
        next_time = now + backoff(waiting.attempts, LONGEST_WAIT)
        if isinstance(answer, NoAnswer):
            self._fail(str(answer), turn)
            return next_time
        asked = asked_wait(answer.retry_after, now)
        if answer.status in AWAY:
            if answer.status == TOO_MANY_REQUESTS:
                asked = asked or backoff(1, LONGEST_PAUSE)
            self._fail(f"it answered {answer.status}", turn)
            self._paused_until = max(self._paused_until, now + asked)
        elif answer.status == GONE:
            self._give_up()
        else:
            self._answered()
            if 200 <= answer.status < 300:
                return None
            self._tell_refusal(waiting, answer.status)
        return max(next_time, now + asked)

    # The receiver as a whole, with one line when it begins to fail and one when it is well again.

    def _fail(self, why: str, turn: int) -> None:
        if turn != self._turn:
            # It has answered another notice since this attempt began, or has failed and is left alone already.
            return
        self._turn += 1
        if not self._failures:
            log.warning("notices to %s: %s; trying again", self.endpoint.origin, why)
        self._failures += 1
        self._paused_until = max(self._paused_until, self._clock.now() + backoff(self._failures, LONGEST_PAUSE))

    def _answered(self) -> None:
        self._turn += 1
        if self._failures:
            self._failures = 0
            log.info("notices to %s: it answers again", self.endpoint.origin)

    def _give_up(self) -> None:
        if not self._gone:
            self._gone = True
            log.warning(
                "notices to %s: it answered 410 Gone, and gets no more until the next start", self.endpoint.origin
            )

    def _tell_refusal(self, waiting: Waiting, status: int) -> None:
        now = self._clock.now()
        if now - self._refusals_logged >= REFUSALS_LOG_INTERVAL:
            self._refusals_logged = now
            log.warning(
                "notices to %s: it refused notice %s with %d; trying that one again, the others are sent meanwhile",
                self.endpoint.origin,
                waiting.id,
                status,
            )

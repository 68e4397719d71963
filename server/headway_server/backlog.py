"""How long calls wait in gRPC before the event loop takes them, and which are refused because of it.

gRPC queues calls before any code of ours sees them, and does not tell for how long. So the server calls itself now and
then while it is busy, and looks how long that takes to arrive.
"""

import asyncio
import time
from collections import Counter
from contextlib import suppress

import grpc
import grpc.aio

from headway_server.errors import Overloaded

WAIT_MAX = 0.5
"""Seconds that calls may wait in gRPC before some are refused: most callers would not wait much longer."""

PROBE_INTERVAL = 0.1
"""Seconds between two looks."""

NEXT_PROBE = 0.01
"""Seconds until the next look while too many wait: what a look has found does not hold for long."""

BUSY = 20
"""Calls in that time below which nothing can be waiting, unless they are slow."""

LATE = 0.05
"""Seconds that a look comes late by from which on few calls can be waiting too: something keeps the loop busy."""

REFUSALS = 1500
"""Refusals a second. One costs some 0.1 ms, so all of them take about a sixth of the time from what can be done."""

PATIENCE = 5.0
"""Seconds after which a probe is given up."""

_PROBE = "/headway.Backlog/Probe"


class Backlog(grpc.GenericRpcHandler):
    """Serves the probe, which is no method of anybody's: it is answered as any unknown one."""

    def __init__(self) -> None:
        self._wait = 0.0
        self._sent = 0.0
        """When the probe that is under way was sent, or 0."""
        self._calls = 0
        self._allowance = 0.0
        self._filled = time.monotonic()
        self._taken: Counter[str] = Counter()
        """Calls by connection, since the latest look, while too many wait."""

    def service(self, handler_call_details: grpc.HandlerCallDetails) -> None:
        if handler_call_details.method == _PROBE and self._sent:
            self._wait = time.monotonic() - self._sent
            self._sent = 0.0

    @property
    def wait(self) -> float:
        """Seconds that a call waits now before it is taken."""
        return max(self._wait, time.monotonic() - self._sent) if self._sent else self._wait

    def check(self, connection: str) -> None:
        """One more call was taken, from this connection. Raises Overloaded if it is to be refused because too
        many wait: then those connections are refused that send the most."""
        self._calls += 1
        if self._wait > WAIT_MAX or self._sent:
            wait = self.wait
            if wait > WAIT_MAX:
                self._shed(wait, connection)

    def _shed(self, wait: float, connection: str) -> None:
        taken = self._taken
        taken[connection] += 1
        if taken[connection] * len(taken) < taken.total():
            # It sends less than the others.
            return
        now = time.monotonic()
        # A tenth of a second's refusals at once, and no more.
        self._allowance = min(self._allowance + (now - self._filled) * REFUSALS, REFUSALS / 10)
        self._filled = now
        if self._allowance >= 1:
            self._allowance -= 1
            raise Overloaded(wait)

    async def watch(self, address: str) -> None:
        """Look again and again, while there is something to do."""
        # A connection of its own, of which there is none before the first look.
        options = (("grpc.enable_http_proxy", 0), ("grpc.use_local_subchannel_pool", 1))
        async with grpc.aio.insecure_channel(address, options) as channel:
            probe: grpc.aio.UnaryUnaryMultiCallable[bytes, bytes] = channel.unary_unary(_PROBE)
            while True:
                due = time.monotonic() + (PROBE_INTERVAL if self._wait <= WAIT_MAX else NEXT_PROBE)
                await asyncio.sleep(due - time.monotonic())
                late = time.monotonic() - due > LATE
                busy, self._calls = late or self._calls >= BUSY or self._wait > WAIT_MAX, 0
                self._taken.clear()
                if not busy:
                    self._wait = 0.0
                    continue
                self._sent = time.monotonic()
                with suppress(grpc.aio.AioRpcError):
                    await probe(b"", timeout=PATIENCE)
                if self._sent:
                    # gRPC has closed it: more calls wait than may.
                    self._wait = max(self._wait, 2 * WAIT_MAX)
                    self._sent = 0.0

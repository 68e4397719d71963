"""A real server on a real socket, in this process, whose clock stands still until a test moves it."""

import asyncio
import gc
import threading
from collections.abc import Coroutine
from dataclasses import replace
from typing import Self, TypeVar

import grpc

from headway.v1.job_service_pb2_grpc import JobServiceStub
from headway_server.app import App
from headway_server.domain.limits import MICROSECONDS, Limits
from headway_server.settings import Settings
from tests.support import loop_gaps
from tests.support.http_channel import HttpChannel

T = TypeVar("T")

NOON = 1_800_000_000 * MICROSECONDS
"""Where test clocks start."""


class ManualClock:
    """A clock that a test moves."""

    def __init__(self) -> None:
        self._now = NOON

    def now(self) -> int:
        return self._now

    def forward(self, seconds: float) -> None:
        self._now += int(seconds * MICROSECONDS)


class RunningApp:
    """An App in a thread with an event loop of its own, and a channel to one of its transports, grpc or http."""

    gap_max = loop_gaps.GAP_MAX

    def __init__(
        self, database: str, *, limits: Limits | None = None, transport: str = "grpc", settings: Settings | None = None
    ) -> None:
        self.transport = transport
        self.clock = ManualClock()
        settings = replace(
            settings or Settings(),
            listen="127.0.0.1:0",
            http="127.0.0.1:0",
            database=database,
            session_key="5e" * 32,
            limits=limits or Limits(),
        )
        self.app = App(settings, clock=self.clock)
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, daemon=True)

    def __enter__(self) -> Self:
        # As a server does: else its event loop would stand still while the collector looks through the tests' objects.
        gc.freeze()
        self._thread.start()
        self.run(self.app.start())
        self.address = self.app.address
        if self.transport == "grpc":
            self.channel = grpc.insecure_channel(self.address)
        else:
            self.channel = HttpChannel(self.app.http_address)
        self.stub = JobServiceStub(self.channel)
        loop_gaps.watch(self)
        return self

    def worst_gap(self) -> float:
        """How long the server's event loop was busy at a stretch (s); the test's own threads do not count."""
        return self.app.loop_monitor.worst_own_lag

    def run(self, work: Coroutine[object, object, T]) -> T:
        """Run a coroutine in the server's loop."""
        return asyncio.run_coroutine_threadsafe(work, self._loop).result(timeout=30)

    def pass_time(self, seconds: float) -> None:
        """Move the clock, and let the server do what has become due."""
        self.clock.forward(seconds)
        self.run(self.app.sweeper.sweep())

    def __exit__(self, *_: object) -> None:
        loop_gaps.look(self)
        self.channel.close()
        self.run(self.app.stop())
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join(timeout=10)
        self._loop.close()

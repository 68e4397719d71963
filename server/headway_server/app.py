"""Assembles the server (settings, database, service, transports), starts it, drains it and stops it."""

import asyncio
import gc
import logging
import os
import secrets
import signal
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import replace
from functools import partial
from importlib.metadata import version
from typing import NoReturn

from google.longrunning import operations_proto_pb2
from grpc_channelz.v1 import channelz_pb2
from grpc_health.v1 import health_pb2
from grpc_reflection.v1alpha import reflection, reflection_pb2

from headway.v1 import job_service_pb2
from headway_server import logs
from headway_server.domain.change import EventType, Rules
from headway_server.domain.errors import JobError, MemoryLimit, ShuttingDown
from headway_server.domain.gaps import Gap
from headway_server.domain.limits import MICROSECONDS
from headway_server.greeting import greeting, token_file
from headway_server.http import http_server
from headway_server.http.metrics import Metrics
from headway_server.resources import free_memory
from headway_server.resources.budget import Budget
from headway_server.resources.clock import Clock
from headway_server.resources.loop_monitor import LoopMonitor
from headway_server.rpc import grpc_server
from headway_server.rpc.call_guard import Credentials, Guard, Scope
from headway_server.rpc.call_queue import CallQueue
from headway_server.rpc.channelz import Channelz
from headway_server.rpc.grpc_options import options
from headway_server.rpc.health import Health
from headway_server.rpc.open_calls import OpenCalls
from headway_server.rpc.operations import OperationsServicer
from headway_server.rpc.servicer import JobServicer
from headway_server.rpc.sessions import Sessions
from headway_server.service.commit_writer import CommitWriter
from headway_server.service.ids import Ids
from headway_server.service.job_cache import JobCache
from headway_server.service.job_service import Jobs
from headway_server.service.other_servers import OtherServers
from headway_server.service.sealed_tokens import Sealer, SessionHasher
from headway_server.service.sweeper import Sweeper
from headway_server.service.totals import Totals
from headway_server.service.watch_hub import WatchHub
from headway_server.settings import Settings, is_loopback
from headway_server.storage import server_facts
from headway_server.storage.change_log import ChangeLog, Snapshot
from headway_server.storage.database import StartError, migrate, open_engine, session_key
from headway_server.storage.database_errors import DATABASE_ERRORS, first_line
from headway_server.storage.listing import JobEvent
from headway_server.storage.read_pool import Readers, within_timeout
from headway_server.storage.servers import Servers
from headway_server.storage.store import Store
from headway_server.webhooks.outbox import Outbox
from headway_server.webhooks.webhooks import Webhooks, renderer

JOB_SERVICE = job_service_pb2.DESCRIPTOR.services_by_name["JobService"]
OPERATIONS = operations_proto_pb2.DESCRIPTOR.services_by_name["Operations"]
HEALTH = health_pb2.DESCRIPTOR.services_by_name["Health"]
REFLECTION = reflection_pb2.DESCRIPTOR.services_by_name["ServerReflection"]
CHANNELZ = channelz_pb2.DESCRIPTOR.services_by_name["Channelz"]

GC_THRESHOLDS = (10_000, 10, 500)
"""Thresholds of the garbage collector. A call makes about a hundred objects and hardly any reference cycles. But
thousands of closed calls leave cycles, and a collection of all of them at once stopped the event loop for 0.2 to
0.3 s."""

log = logging.getLogger(__name__)

DATABASE_CLOSE_TIMEOUT = 5.0
"""Seconds for the last commit at the end of the server."""

REPLY_FLUSH_TIME = 0.2
"""Seconds for replies that are on their way when the port closes."""


class App:
    """A running server. `start`, then `stop`."""

    def __init__(self, settings: Settings, clock: Clock | None = None) -> None:
        self.settings = settings
        self.admin_token = secrets.token_urlsafe(32)
        self._clock = clock
        self.loop_monitor = LoopMonitor()

    async def start(self) -> None:
        """Open the database and the port. Raises StartError."""
        settings = self.settings
        wanted_events = frozenset[EventType]().union(*[endpoint.events for endpoint in settings.webhooks])
        rules = Rules(settings.limits, settings.retention, settings.abandon_after, wanted_events)
        server_id = secrets.token_hex(16)
        self.store, key, begin, snapshot = await asyncio.to_thread(_prepare, settings, rules, self._clock, server_id)
        rules = replace(rules, gaps=begin.gaps)
        self.clock_start = begin
        self.engine = self.store.engine
        clock = self._clock or server_facts.running_clock(begin, shared=self.engine.shared)
        self.hub = WatchHub(settings.limits, clock.now(), snapshot)
        self.readers = Readers(self.store)
        job_cache = JobCache(0 if self.engine.shared else settings.limits.cached_bytes)
        render = renderer(settings.webhook_source)
        outbox = Outbox(self.engine.database, settings.webhooks, Ids(clock), render)
        publish = self._publish if settings.webhooks else self.hub.publish
        change_log = ChangeLog(self.engine.database, server_id)
        extra_writes = [outbox.add] if settings.webhooks else []
        if self.engine.shared:
            extra_writes.append(change_log.note)
        self.totals = Totals(settings.limits)
        self.writer = CommitWriter(self.store, job_cache, self.totals, clock, rules, publish, extra_writes)
        self.webhooks = Webhooks(
            settings.webhooks,
            outbox,
            self.readers,
            self.writer,
            clock,
            private=settings.allow_private_webhooks,
            lifetime=settings.webhook_lifetime,
            gaps=begin.gaps,
            limit=settings.limits.pending_webhooks,
        )
        self.other_servers: OtherServers | None = None
        if snapshot is not None:
            servers = Servers(self.engine.database, server_id)
            self.other_servers = OtherServers(
                self.store, self.readers, self.writer, self.hub, clock, change_log, servers, snapshot
            )
        # The clock of a test does not measure the time in which the event loop did not run.
        gaps = self._gaps if self._clock is None else lambda _: ()
        self.sweeper = Sweeper(self.store, self.readers, self.writer, self.hub, clock, rules, self.other_servers, gaps)
        sealer, poll = Sealer(key), settings.longest_poll
        jobs = Jobs(self.store, job_cache, self.readers, self.writer, self.hub, clock, sealer, poll)
        sessions = Sessions(SessionHasher(key), settings.limits)
        self._servicer = JobServicer(jobs, sessions, settings.limits, settings.cancel_grace)
        self._health = Health(("", JOB_SERVICE.full_name))
        unsent = self._unsent = Budget(settings.limits.unsent_bytes, MemoryLimit)
        self.calls = calls = OpenCalls(settings.limits.open_calls, unsent)
        operations = OperationsServicer(
            jobs, sessions, settings.limits, settings.cancel_grace, poll, calls.large_replies
        )
        self._database_trouble: JobError | None = None
        self._draining = False
        self._guard = guard = Guard(Credentials(self.admin_token), settings.limits, lambda: self.writer.wait)
        names = [service.full_name for service in (JOB_SERVICE, OPERATIONS, HEALTH, REFLECTION, CHANNELZ)]
        self.call_queue = CallQueue(
            options(settings.limits),
            (
                grpc_server.handlers(guard, calls, JOB_SERVICE, self._servicer),
                grpc_server.handlers(guard, calls, OPERATIONS, operations),
                grpc_server.handlers(guard, calls, HEALTH, self._health, wants_context=True),
                grpc_server.handlers(
                    guard, calls, REFLECTION, reflection.aio.ReflectionServicer(names), wants_context=True
                ),
                grpc_server.handlers(guard, calls, CHANNELZ, Channelz(CHANNELZ), wants_context=True),
            ),
            lambda: calls.are_busy,
            lambda: self.writer.is_behind,
        )
        self.address = await self._bind()
        self._http_server: http_server.HttpServer | None = None
        self.http_address = ""
        if settings.http:
            await self._open_http()
        await self.call_queue.start()
        self._calls_task = asyncio.create_task(self.calls.run())
        self._show_health()
        self._background_tasks: list[asyncio.Task[None]] = []
        if self._clock is None:
            count = partial(self.readers.list, "", lambda _: self.store.count_all())
            background = [self.sweeper.run(self._note_database), self.totals.run(count), free_memory.run()]
            if self.other_servers is not None:
                background += [self.other_servers.run_changes(), self.other_servers.run_commits()]
            self._background_tasks = [asyncio.create_task(work) for work in background]
            await self.webhooks.start(alone=not self.engine.shared)
        self.loop_monitor.start()

    def _gaps(self, now: int) -> tuple[Gap, ...]:
        """Times in which the server could not receive reports: while the event loop did not run, while callers waited
        for a slow commit, and since the oldest waiting call arrived."""
        waiting = int(self.call_queue.wait * MICROSECONDS)
        return (*self.loop_monitor.gaps.by(now), *self.writer.slow_commits.by(now), Gap(now - waiting, now))

    def _publish(self, changes: Sequence[JobEvent]) -> None:
        self.hub.publish(changes)
        self.webhooks.note(changes)

    async def _bind(self) -> str:
        host = self.settings.listen.rpartition(":")[0]
        try:
            port = self.call_queue.bind(self.settings.listen)
        except RuntimeError:
            port = 0
        if port == 0:
            await self._close_database()
            raise StartError(
                f"Cannot listen on {self.settings.listen}: the port is in use, or the address is not of this machine. "
                "Stop the other program, or choose another --listen."
            )
        return f"{host}:{port}"

    async def _open_http(self) -> None:
        settings = self.settings
        try:
            sockets = http_server.bind(settings.http)
        except OSError:
            await self.call_queue.stop(None)
            await self._close_database()
            raise StartError(
                f"Cannot listen on {settings.http}: the port is in use, or the address is not of this machine. Choose "
                "another --http, or --http '' for no page and no JSON."
            ) from None
        self._health.http_port = sockets[0].getsockname()[1]
        self.http_address = f"{settings.http.rpartition(':')[0]}:{self._health.http_port}"
        metrics = Metrics(
            version("headway"),
            self.engine,
            self._guard.call_statistics,
            self.hub,
            self.writer,
            self.loop_monitor,
            lambda: self._http_server.connections if self._http_server is not None else 0,
            lambda: self._trouble() is None,
            logs.dropped,
            lambda: self.call_queue.refused,
        )
        app = http_server.application(
            self._guard,
            JOB_SERVICE,
            self._servicer,
            listen=settings.http,
            grpc_port=int(self.address.rpartition(":")[2]),
            hosts=settings.http_hosts,
            origins=settings.http_origins,
            limit=settings.limits.message_bytes,
            large_replies=self.calls.large_replies,
            ready=self._trouble,
            metrics=metrics.response,
            heartbeat=settings.stream_heartbeat / MICROSECONDS,
            operator_scope=Scope.OPEN if is_loopback(settings.http) else Scope.READ,
        )
        self._http_server = http_server.HttpServer(app, sockets, settings.limits.http_connections, self._unsent)
        await self._http_server.start()

    def _trouble(self) -> JobError | None:
        """Why this server should get no calls now, or None."""
        if self._draining:
            return ShuttingDown()
        # A failed commit is known before the sweeper's next round.
        return self._database_trouble or self.writer.failure

    async def _note_database(self, trouble: JobError | None) -> None:
        self._database_trouble = trouble
        self._show_health()

    def _show_health(self) -> None:
        self._health.set(self._trouble() is None)

    async def drain(self) -> None:
        """Send callers to other servers, commit everything that was accepted, and close the database. Takes at most the
        shutdown grace and a commit. The port stays open and answers UNAVAILABLE."""
        self._draining = True
        self._show_health()
        self.hub.close()
        self._servicer.close_streams(ShuttingDown())
        if self._http_server is not None:
            self._http_server.shorten_timeouts()
        for task in self._background_tasks:
            task.cancel()
        await asyncio.gather(self._guard.close(self.settings.shutdown_grace / MICROSECONDS), self.calls.close())
        if self._database_trouble is not None:
            self.readers.give_up()
            self.writer.give_up()
        await self.webhooks.close()
        if self.other_servers is not None and self._clock is None and self._database_trouble is None:
            with suppress(JobError, TimeoutError):
                await within_timeout(self.other_servers.leave())
        self.loop_monitor.stop()
        try:
            async with asyncio.timeout(DATABASE_CLOSE_TIMEOUT):
                await self._close_database()
        except TimeoutError:
            log.warning("the database does not answer; stopping without closing it")

    async def stop(self) -> None:
        """Drain, then close the port."""
        await self.drain()
        # Only calls without a message and watches of the health are still open. Do not wait for them.
        await self.call_queue.stop(REPLY_FLUSH_TIME)
        self._calls_task.cancel()
        if self._http_server is not None:
            await self._http_server.stop()

    async def _close_database(self) -> None:
        await self.readers.close()
        await self.writer.close()
        self.engine.close()


def _prepare(
    settings: Settings, rules: Rules, clock: Clock | None, server_id: str
) -> tuple[Store, bytes, server_facts.Start, Snapshot | None]:
    """The store, the session key, how the clock starts, and the present snapshot if servers share the database.

    Raises StartError.
    """
    engine = open_engine(settings.database, server_id)
    try:
        migrate(engine)
        key = session_key(engine, settings.session_key, engine.folder or settings.data_folder)
        store = Store(engine)
        server_facts.follow_rules(store, rules)
        begin = (
            server_facts.start_shared(store)
            if engine.shared and clock is None
            else server_facts.start(store, store.now() if clock is None else clock.now())
        )
        snapshot = store.snapshot() if engine.shared else None
    except DATABASE_ERRORS as error:
        engine.close()
        raise StartError(f"--database: {engine.name} failed: {first_line(error)}") from None
    except BaseException:
        engine.close()
        raise
    # From here on each thread has its own connection. Close the one of this thread.
    engine.database.close()
    return store, key, begin, snapshot


async def serve(settings: Settings) -> NoReturn:
    """Serve until SIGTERM or SIGINT, then drain and end the process. Raises StartError."""
    app = App(settings)
    stopped = asyncio.Event()

    def stop(number: int) -> None:
        if stopped.is_set():
            # The second signal ends the process at once: acknowledged writes are on disk.
            os._exit(128 + number)
        stopped.set()

    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, stop, number)
    for number in (signal.SIGHUP, signal.SIGUSR1, signal.SIGUSR2):
        loop.add_signal_handler(number, log.info, "%s is ignored; restart the server to change settings", number.name)
    await app.start()
    for warning in (*settings.warnings, *app.engine.warnings):
        log.warning("%s", warning)
    # Objects from the start are permanent: the garbage collector need not scan them again.
    gc.freeze()
    gc.set_threshold(*GC_THRESHOLDS)
    token = token_file(app.engine.folder or settings.data_folder, app.address)
    logs.say(greeting(app.address, app.http_address, app.engine.name, app.admin_token, token))
    await stopped.wait()
    await app.drain()
    with suppress(OSError):
        token.unlink(missing_ok=True)
    await asyncio.sleep(REPLY_FLUSH_TIME)
    # Skip gRPC's own stop: it answers calls that arrive meanwhile with CANCELLED, which callers do not retry. Instead
    # callers see their connection close, and use another server.
    logs.flush()
    os._exit(0)

"""The same work with a thousand, a hundred thousand and a million jobs stored: flat where it can be."""

import asyncio
import os
import random
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import ExitStack
from functools import partial
from pathlib import Path

import grpc
from google.protobuf import struct_pb2

from benchmarks.calls import SERVICE, a_second
from benchmarks.figures import Section
from benchmarks.processes import cpu_seconds, server, streaming, unary
from headway.ids import uuid7
from headway.v1 import job_service_pb2 as rpc
from headway_server.domain import state_machine
from headway_server.domain.change import Change, Rules
from headway_server.domain.commands import Create, Finish
from headway_server.domain.report import Variables
from headway_server.service.sealed_tokens import SessionHasher
from headway_server.storage import server_facts
from headway_server.storage.database import migrate, open_engine, session_key
from headway_server.storage.store import Store
from tests.support.server import ServerProcess

SIZES = (1000, 100_000, 1_000_000)
RUNNING = 10_000
"""Jobs at work, but at most half of all."""
IN_A_SESSION = 10_000
A_COMMIT = 5000
EXPIRED = 100
"""Jobs whose retention is over when the server starts."""
KEY = "5e" * 32
ALL_THAT_RUN = "100 reports of all that run"
CALLS = 1000
MESSAGES = 60
RESULTS = 30
HOUR = 3600 * 1_000_000


def running(size: int) -> int:
    return min(RUNNING, size // 2)


def session(number: int) -> str:
    return f"growth-{number}"


def identity(number: int) -> str:
    # As a UUIDv7 has them: in the order of their making.
    return f"{number:012x}7{random.Random(number).getrandbits(76):019x}"


def fill(folder: Path, size: int) -> None:
    """Stores so many jobs: the last ones at work, the others ended, some long enough ago to be removed meanwhile."""
    engine = open_engine(f"sqlite:///{folder / 'headway.db'}")
    migrate(engine)
    hashed = SessionHasher(session_key(engine, KEY, folder))
    store = Store(engine)
    rules = Rules()
    # Else the server would take the rules for new ones, and look at every job again.
    server_facts.follow_rules(store, rules)
    now = store.now()

    def changes() -> Iterator[Change]:
        for number in range(size):
            owner = hashed(session((size - 1 - number) // IN_A_SESSION))
            created = now - HOUR - size + number
            if number < EXPIRED:
                created -= rules.retention
            change = state_machine.create(
                owner, identity(number), Create(digest="", name="import", size=1000), created, rules
            )
            change.variables = Variables()
            if number < size - running(size):
                state_machine.step(change, Finish(None, ""), created + 1, rules)
            yield change

    batch: list[Change] = []
    for change in changes():
        batch.append(change)
        if len(batch) == A_COMMIT:
            with store.transaction():
                store.save(batch)
            batch.clear()
    with store.transaction():
        store.save(batch)
    engine.close()


class Subject:
    """A server with so many jobs, and what work on it costs, round by round."""

    def __init__(self, size: int, process: ServerProcess) -> None:
        self.size = size
        self._process = process
        self.cost: dict[str, list[float]] = {}
        self.took: dict[str, list[float]] = {}
        self._random = random.Random(size)
        self._progress = 0

    async def warm_up(self) -> None:
        """Reports every running job once, as a server that has been up for a while has seen."""
        async with grpc.aio.insecure_channel(self._process.address) as channel:
            for start in range(self.size - running(self.size), self.size, 100):
                await self._report_all(channel, range(start, min(start + 100, self.size)))

    async def round(self) -> None:
        async with grpc.aio.insecure_channel(self._process.address) as channel:
            for name, work, times in (
                (f"100 reports of {running(SIZES[0])} jobs", partial(self._report, channel), MESSAGES),
                (ALL_THAT_RUN, partial(self._report_any, channel), MESSAGES),
                ("GetJob, of any job that has ended", partial(self._get, channel), CALLS),
                (
                    "a job with 1 MiB of results, made, finished, read, cleared",
                    partial(self._results, channel),
                    RESULTS,
                ),
                ("ListJobs, a page of 50 anywhere in a session", partial(self._page, channel), CALLS // 10),
            ):
                before = cpu_seconds(self._process.pid)
                rate = await a_second(work, times, 8)
                self.took.setdefault(name, []).append(1e6 / rate)
                self.cost.setdefault(name, []).append((cpu_seconds(self._process.pid) - before) / times * 1e6)

    async def _report(self, channel: grpc.aio.Channel) -> None:
        self._progress += 1
        # Of those that began last, as many at each size, so that they lie as close together.
        await self._report_all(channel, self._random.sample(range(self.size - running(SIZES[0]), self.size), 100))

    async def _report_any(self, channel: grpc.aio.Channel) -> None:
        await self._report_all(channel, self._random.sample(range(self.size - running(self.size), self.size), 100))

    async def _report_all(self, channel: grpc.aio.Channel, chosen: Sequence[int]) -> None:
        request = rpc.StreamProgressRequest(
            reports=[
                rpc.ReportProgressRequest(
                    session_id=session((self.size - 1 - number) // IN_A_SESSION),
                    job_id=identity(number),
                    progress=self._progress,
                )
                for number in chosen
            ]
        )
        call = streaming(channel, f"{SERVICE}/StreamProgress")(iter([request.SerializeToString()]))
        first = await call.read()
        assert isinstance(first, bytes)
        answer = rpc.StreamProgressResponse.FromString(first)
        if answer.acked != 1 or answer.failures:
            raise RuntimeError(f"not every report was applied: {answer}")
        call.cancel()

    async def _get(self, channel: grpc.aio.Channel) -> None:
        # One that has ended: those at work are in the server's memory.
        number = self._random.randrange(EXPIRED, self.size - running(self.size))
        owner = session((self.size - 1 - number) // IN_A_SESSION)
        request = rpc.GetJobRequest(session_id=owner, job_id=identity(number))
        await unary(channel, f"{SERVICE}/GetJob")(request.SerializeToString())

    async def _results(self, channel: grpc.aio.Channel) -> None:
        owner, job = session(0), uuid7()
        results = struct_pb2.Value(string_value="x" * (2**20 - 2))
        for method, request in (
            ("CreateJob", rpc.CreateJobRequest(session_id=owner, job_id=job)),
            ("FinishJob", rpc.FinishJobRequest(session_id=owner, job_id=job, results=results)),
            ("GetResults", rpc.GetResultsRequest(session_id=owner, job_id=job)),
            ("ClearJob", rpc.ClearJobRequest(session_id=owner, job_id=job)),
        ):
            await unary(channel, f"{SERVICE}/{method}")(request.SerializeToString())

    async def _page(self, channel: grpc.aio.Channel) -> None:
        call = unary(channel, f"{SERVICE}/ListJobs")
        request = rpc.ListJobsRequest(session_id=session(self._random.randrange(max(self.size // IN_A_SESSION, 1))))
        for _ in range(3):
            page = rpc.ListJobsResponse.FromString(await call(request.SerializeToString()))
            request.page_token = page.next_page_token


def run(rounds: int, sizes: tuple[int, ...] = SIZES) -> Section:
    section = Section("Growth, SQLite, retention at work")
    with ExitStack() as stack:
        subjects = []
        for size in sizes:
            folder = Path(stack.enter_context(tempfile.TemporaryDirectory()))
            fill(folder, size)
            subjects.append(Subject(size, stack.enter_context(server(folder, "--session-key", KEY))))
        # What the filling left to be written would be written meanwhile.
        os.sync()
        for subject in subjects:
            asyncio.run(subject.warm_up())
        for _ in range(rounds):
            for subject in subjects:
                asyncio.run(subject.round())
    first = subjects[0]
    for name in first.took:
        section.add(f"{name}, of {first.size:,}", first.took[name], "µs")
        for subject in subjects[1:]:
            goal = None if name == ALL_THAT_RUN else 1.5 if subject.size > SIZES[-1] else 1.25
            section.add_ratio(f"  {subject.size:,}: time", subject.took[name], first.took[name], at_most=goal)
            section.add_ratio(f"  {subject.size:,}: server CPU", subject.cost[name], first.cost[name])
    return section

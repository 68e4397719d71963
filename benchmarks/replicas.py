"""Two servers on one PostgreSQL: from a report at one of them to the watchers of thousands of sessions at the other."""

import asyncio
import random
import secrets
import tempfile
import time
from contextlib import AsyncExitStack
from pathlib import Path
from statistics import median

import grpc

from benchmarks.figures import Section
from benchmarks.processes import server
from benchmarks.watching import percentile
from headway.v1 import job_service_pb2 as rpc
from headway.v1.job_service_pb2_grpc import JobServiceStub
from tests.support.memory import cpu_seconds
from tests.support.postgres import Postgres, find_binaries

SESSIONS = 5000
"""Watched sessions, each with one job."""
CHANNELS = 25
REPORTS = 300
"""In a round, to jobs chosen at random."""
RATE = 50
"""Reports a second."""
AT_ONCE = 100
"""Calls at a time, while the sessions are made and their watches opened."""
SEEN_WITHIN = 30.0
"""Seconds for the last change to be seen."""
IDLE = 5.0
"""Seconds for which the server is looked at while nothing changes."""


def run(rounds: int) -> Section:
    section = Section(f"{SESSIONS} watched sessions, two servers on one PostgreSQL")
    binaries = find_binaries()
    if binaries is None:
        section.skipped.append("PostgreSQL is not installed")
        return section
    key = {"HEADWAY_SESSION_KEY": secrets.token_hex(32)}
    with tempfile.TemporaryDirectory() as name, Postgres(binaries) as postgresql:
        database = postgresql.database()
        folders = [Path(name) / side for side in ("near", "far")]
        for folder in folders:
            folder.mkdir()
        with (
            server(folders[0], environment=key, database=database) as watched,
            server(folders[1], environment=key, database=database) as reported,
        ):
            asyncio.run(_measure(section, rounds, watched.address, watched.pid, reported.address))
    return section


async def _measure(section: Section, rounds: int, watched: str, pid: int, reported: str) -> None:
    async with AsyncExitStack() as stack:
        channels = [
            await stack.enter_async_context(grpc.aio.insecure_channel(watched, [("grpc.use_local_subchannel_pool", 1)]))
            for _ in range(CHANNELS)
        ]
        stub = JobServiceStub(await stack.enter_async_context(grpc.aio.insecure_channel(reported)))
        free = asyncio.Semaphore(AT_ONCE)
        sent: dict[tuple[str, int], float] = {}
        delays: list[float] = []
        all_seen = asyncio.Event()
        jobs: dict[str, str] = {}
        readers: list[asyncio.Task[None]] = []

        async def begin(number: int) -> None:
            session = f"bench-{number}"
            async with free:
                jobs[session] = (await stub.CreateJob(rpc.CreateJobRequest(session_id=session))).id
                watch = JobServiceStub(channels[number % CHANNELS]).WatchJobs(rpc.WatchJobsRequest(session_id=session))
                await watch.read()
            readers.append(asyncio.create_task(follow(session, watch)))

        async def follow(
            session: str, watch: "grpc.aio.UnaryStreamCall[rpc.WatchJobsRequest, rpc.WatchJobsResponse]"
        ) -> None:
            while isinstance(update := await watch.read(), rpc.WatchJobsResponse):
                told = sent.pop((session, update.job.progress), None)
                if told is not None:
                    delays.append(time.perf_counter() - told)
                    if not sent:
                        all_seen.set()

        await asyncio.gather(*[begin(number) for number in range(SESSIONS)])
        before, began = cpu_seconds(pid), time.perf_counter()
        await asyncio.sleep(IDLE)
        section.add(
            "CPU of the watched server while nothing changes",
            [100 * (cpu_seconds(pid) - before) / (time.perf_counter() - began)],
            "%",
        )
        medians, tails = [], []
        for turn in range(1, rounds + 1):
            delays.clear()
            for session in random.sample(sorted(jobs), REPORTS):
                sent[session, turn] = time.perf_counter()
                request = rpc.ReportProgressRequest(session_id=session, job_id=jobs[session], progress=turn)
                await stub.ReportProgress(request)
                await asyncio.sleep(random.expovariate(RATE))
            all_seen.clear()
            if sent:
                await asyncio.wait_for(all_seen.wait(), SEEN_WITHIN)
            medians.append(median(delays) * 1e3)
            tails.append(percentile(delays, 99) * 1e3)
        section.add("a report at one server, seen at the other, median", medians, "ms")
        section.add("  99 of 100", tails, "ms", at_most=1000)
        for reader in readers:
            reader.cancel()

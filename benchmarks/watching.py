"""From a report's arrival at the server to those who watch the job: one, and the last of a thousand."""

import asyncio
import tempfile
import time
from pathlib import Path
from statistics import median, quantiles

import grpc

from benchmarks.calls import SERVICE, new_job
from benchmarks.figures import Section
from benchmarks.processes import resident, server, streaming, stub, unary
from headway.v1 import job_service_pb2 as rpc
from headway.v1.job_service_pb2_grpc import JobServiceStub
from tests.support.server import ServerProcess

REPORTS = 300
"""To one watcher, in a round."""
CROWD = 1000
CROWD_REPORTS = 20
CHANNELS = 10
JOBS = 1000
"""Jobs of a session that one reader watches."""
SLOW = 20
"""Watchers that read nothing, beside one that does."""


def run(rounds: int) -> Section:
    section = Section("Watching, SQLite, Python clients on the same cores")
    with tempfile.TemporaryDirectory() as name, server(Path(name)) as subject:
        asyncio.run(one_watcher(section, rounds, subject))
        asyncio.run(a_crowd(section, rounds, subject))
        asyncio.run(a_session(section, rounds, subject))
        asyncio.run(beside_slow_ones(section, rounds, subject))
    return section


def percentile(values: list[float], share: int) -> float:
    return quantiles(values, n=100)[share - 1]


class Reporter:
    """Reports of one job, one at a time; `sent` says when each progress was sent."""

    def __init__(self, channel: grpc.aio.Channel, job: str) -> None:
        self._call = unary(channel, f"{SERVICE}/ReportProgress")
        self._job = job
        self.sent: dict[int, float] = {}

    async def report(self, progress: int) -> None:
        request = rpc.ReportProgressRequest(session_id="bench", job_id=self._job, progress=progress)
        self.sent[progress] = time.perf_counter()
        await self._call(request.SerializeToString())


async def one_watcher(section: Section, rounds: int, subject: ServerProcess) -> None:
    medians, tails = [], []
    for _ in range(rounds):
        delays = await delays_to_one(subject.address, new_job(stub(subject.address)))
        medians.append(median(delays) * 1e3)
        tails.append(percentile(delays, 99) * 1e3)
    section.add("a report sent, seen by one watcher, median", medians, "ms", at_most=2)
    section.add("  99 of 100", tails, "ms", at_most=10)


async def delays_to_one(address: str, job: str) -> list[float]:
    async with grpc.aio.insecure_channel(address) as channel, grpc.aio.insecure_channel(address) as another:
        watch = JobServiceStub(channel).WatchJob(rpc.WatchJobRequest(session_id="bench", job_id=job))
        await watch.read()
        reporter = Reporter(another, job)
        delays = []
        for progress in range(1, REPORTS + 1):
            report = asyncio.create_task(reporter.report(progress))
            state = await watch.read()
            assert isinstance(state, rpc.WatchJobResponse)
            delays.append(time.perf_counter() - reporter.sent[state.job.progress])
            await report
        watch.cancel()
        return delays


async def a_crowd(section: Section, rounds: int, subject: ServerProcess) -> None:
    before = resident(subject.pid)
    tails, medians, memory = [], [], []
    for _ in range(rounds):
        job = new_job(stub(subject.address))
        channels = [grpc.aio.insecure_channel(subject.address) for _ in range(CHANNELS)]
        watches = [
            JobServiceStub(channels[number % CHANNELS]).WatchJob(rpc.WatchJobRequest(session_id="bench", job_id=job))
            for number in range(CROWD)
        ]
        await asyncio.gather(*[watch.read() for watch in watches])
        memory.append((resident(subject.pid) - before) * 1024 / CROWD)
        reporter = Reporter(channels[0], job)
        last = []
        for progress in range(1, CROWD_REPORTS + 1):
            report = asyncio.create_task(reporter.report(progress))
            await asyncio.gather(*[watch.read() for watch in watches])
            last.append(time.perf_counter() - reporter.sent[progress])
            await report
        medians.append(median(last) * 1e3)
        tails.append(max(last) * 1e3)
        for watch in watches:
            watch.cancel()
        for channel in channels:
            await channel.close()
    section.add(f"seen by the last of {CROWD} watchers, median", medians, "ms")
    section.add(f"  worst of {CROWD_REPORTS}", tails, "ms", at_most=60)
    section.add("  server memory", [memory[0]], "KiB/watcher", at_most=25)
    section.notes.append(f"memory is that of the first {CROWD} watchers: what they leave is used again by the next")


async def a_session(section: Section, rounds: int, subject: ServerProcess) -> None:
    session = "bench-session"
    calls = stub(subject.address)
    jobs = [calls.CreateJob(rpc.CreateJobRequest(session_id=session)).id for _ in range(JOBS)]
    rates = []
    async with grpc.aio.insecure_channel(subject.address) as channel:
        watch = JobServiceStub(channel).WatchJobs(rpc.WatchJobsRequest(session_id=session))
        for _ in jobs:
            await watch.read()
        for number in range(1, rounds + 1):
            request = rpc.StreamProgressRequest(
                reports=[rpc.ReportProgressRequest(session_id=session, job_id=job, progress=number) for job in jobs]
            )
            began = time.perf_counter()
            stream = streaming(channel, f"{SERVICE}/StreamProgress")(iter([request.SerializeToString()]))
            for _ in jobs:
                await watch.read()
            rates.append(JOBS / (time.perf_counter() - began))
            stream.cancel()
        watch.cancel()
    section.add(f"{JOBS} jobs reported at once, to one reader of their session", rates, "states/s")


async def beside_slow_ones(section: Section, rounds: int, subject: ServerProcess) -> None:
    alone, beside = [], []
    for _ in range(rounds):
        job = new_job(stub(subject.address))
        alone.append(median(await delays_to_one(subject.address, job)) * 1e3)
        async with grpc.aio.insecure_channel(subject.address) as channel:
            job = new_job(stub(subject.address))
            idle = [
                JobServiceStub(channel).WatchJob(rpc.WatchJobRequest(session_id="bench", job_id=job))
                for _ in range(SLOW)
            ]
            await asyncio.gather(*[watch.read() for watch in idle])
            beside.append(median(await delays_to_one(subject.address, job)) * 1e3)
            for watch in idle:
                watch.cancel()
    section.add_ratio(f"one watcher beside {SLOW} that do not read, of one alone", beside, alone)

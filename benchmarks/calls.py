"""Single calls: a durable report, a read, and a whole job, against an empty call of the same transport."""

import asyncio
import tempfile
from collections.abc import Awaitable, Callable
from functools import partial
from pathlib import Path

import grpc

from benchmarks.figures import Section
from benchmarks.load import MISSING, Load, available
from benchmarks.processes import ECHO, Echo, cpu_seconds, server, slow_disk, stub, unary
from headway.ids import uuid7
from headway.v1 import job_service_pb2 as rpc
from headway.v1.job_service_pb2_grpc import JobServiceStub
from headway_server.storage.database import open_engine
from tests.support.server import ServerProcess

Call = Callable[[bytes], Awaitable[bytes]]

SERVICE = "/headway.v1.JobService"
CALLS = {1: 1500, 16: 6000, 64: 6000}
"""In flight → calls a round."""
DELAY = 5.0
"""Milliseconds that the slow disk adds to each sync."""
WHOLE_JOBS = 1500


class Subject:
    """One kind of call at one process: its calls a second, and what they cost that process, round by round."""

    def __init__(self, address: str, pid: int, path: str, load: Load) -> None:
        self._address, self._pid, self._path, self._load = address, pid, path, load
        self.rates: list[float] = []
        self.costs: list[float] = []

    def round(self, in_flight: int, calls: int) -> None:
        before = cpu_seconds(self._pid)
        took = self._load.run(self._address, self._path, calls, in_flight)
        self.rates.append(calls / took)
        self.costs.append((cpu_seconds(self._pid) - before) / calls * 1e6)


def new_job(calls: JobServiceStub) -> str:
    return calls.CreateJob(rpc.CreateJobRequest(session_id="bench", size=10**12)).id


def progress(calls: JobServiceStub, job: str) -> int:
    return calls.GetJob(rpc.GetJobRequest(session_id="bench", job_id=job)).progress


def synchronous(folder: Path) -> str:
    """How the server's own code opens a SQLite database."""
    engine = open_engine(f"sqlite:///{folder / 'pragma.db'}")
    try:
        (level,) = engine.database.execute_sql("PRAGMA synchronous").fetchone()
        (journal,) = engine.database.execute_sql("PRAGMA journal_mode").fetchone()
    finally:
        engine.close()
    if (level, journal) != (2, "wal"):
        raise RuntimeError(f"the server would not be durable: synchronous={level}, journal_mode={journal}")
    return "PRAGMA synchronous=FULL, journal_mode=wal, as the server opens it; every reply after its commit"


def run(rounds: int) -> Section:
    section = Section("Single calls, SQLite, h2load")
    if not available():
        section.skipped.append(MISSING)
        return section
    with tempfile.TemporaryDirectory() as name, Echo() as echo:
        folder = Path(name)
        section.notes.append(synchronous(folder))
        (folder / "server").mkdir()
        with server(folder / "server") as subject:
            against_echo(section, rounds, folder, echo, subject)
            asyncio.run(whole_jobs(section, rounds, echo, subject))
        environment = slow_disk(folder, DELAY)
        if environment is None:
            section.skipped.append("a slow disk: there is no C compiler to make one with")
            return section
        (folder / "slow").mkdir()
        with server(folder / "slow", environment=environment) as subject:
            on_a_slow_disk(section, rounds, folder, echo, subject)
    return section


def against_echo(section: Section, rounds: int, folder: Path, echo: Echo, subject: ServerProcess) -> None:
    calls = stub(subject.address)
    job = new_job(calls)
    report = Load.of(folder, "report", [report_of(job)])
    get = Load.of(folder, "get", [rpc.GetJobRequest(session_id="bench", job_id=job).SerializeToString()])
    for in_flight, number in CALLS.items():
        limit = Subject(echo.address, echo.pid, f"{ECHO}/Unary", report)
        reports = Subject(subject.address, subject.pid, f"{SERVICE}/ReportProgress", report)
        gets = Subject(subject.address, subject.pid, f"{SERVICE}/GetJob", get)
        before = progress(calls, job)
        for _ in range(rounds):
            for each in (limit, reports, gets):
                each.round(in_flight, number)
        if progress(calls, job) - before != rounds * number:
            raise RuntimeError("not every report was applied")
        goal, dearest = (0.75, None) if in_flight == 1 else (0.9, 1.1)
        section.add(f"echo, {in_flight} in flight", limit.rates, "calls/s")
        section.add(f"ReportProgress, {in_flight} in flight", reports.rates, "calls/s")
        section.add_ratio("  of the echo", reports.rates, limit.rates, at_least=goal)
        section.add_ratio("  server CPU of the echo's", reports.costs, limit.costs, at_most=dearest)
        section.add_ratio(f"GetJob, {in_flight} in flight, of the echo", gets.rates, limit.rates, at_least=0.85)
        section.add_ratio("  server CPU of the echo's", gets.costs, limit.costs)


def on_a_slow_disk(section: Section, rounds: int, folder: Path, echo: Echo, subject: ServerProcess) -> None:
    calls = stub(subject.address)
    job = new_job(calls)
    load = Load.of(folder, "slow", [report_of(job)])
    limit = Subject(echo.address, echo.pid, f"{ECHO}/Unary", load)
    reports = Subject(subject.address, subject.pid, f"{SERVICE}/ReportProgress", load)
    for _ in range(rounds):
        limit.round(64, CALLS[64])
        reports.round(64, CALLS[64] // 2)
    section.add_ratio(
        f"ReportProgress, 64 in flight, {DELAY:g} ms more a commit, of the echo",
        reports.rates,
        limit.rates,
        at_least=0.5,
    )


def report_of(job: str) -> bytes:
    return rpc.ReportProgressRequest(session_id="bench", job_id=job, advance=1).SerializeToString()


async def whole_jobs(section: Section, rounds: int, echo: Echo, subject: ServerProcess) -> None:
    """CreateJob and FinishJob, each job with an id of its own, from Python: against two echoes from there."""
    ours: list[float] = []
    limit: list[float] = []
    async with (
        grpc.aio.insecure_channel(subject.address) as channel,
        grpc.aio.insecure_channel(echo.address) as echo_channel,
    ):
        create, finish = unary(channel, f"{SERVICE}/CreateJob"), unary(channel, f"{SERVICE}/FinishJob")
        back = unary(echo_channel, f"{ECHO}/Unary")

        async def both(first: Call, second: Call) -> None:
            identity = uuid7()
            job = rpc.CreateJobRequest(session_id="bench", job_id=identity, name="import", size=100)
            await first(job.SerializeToString())
            await second(rpc.FinishJobRequest(session_id="bench", job_id=identity).SerializeToString())

        for _ in range(rounds):
            limit.append(await a_second(partial(both, back, back), WHOLE_JOBS, 16))
            ours.append(await a_second(partial(both, create, finish), WHOLE_JOBS, 16))
    section.add("CreateJob + FinishJob, 16 in flight, Python client", ours, "jobs/s")
    section.add_ratio("  of two echoes", ours, limit, at_least=0.6)


async def a_second(work: Callable[[], Awaitable[None]], times: int, in_flight: int) -> float:
    """How often a second the work is done, so many at a time."""
    left = iter(range(times))

    async def worker() -> None:
        for _ in left:
            await work()

    loop = asyncio.get_running_loop()
    began = loop.time()
    await asyncio.gather(*[worker() for _ in range(in_flight)])
    return times / (loop.time() - began)

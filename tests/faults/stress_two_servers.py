"""Two servers on one PostgreSQL under faults: `python -m tests.faults.stress_two_servers --rounds 100`.

Commits take up to a minute, the servers' clocks are two hours apart, and each server is stopped (SIGSTOP) now and then.
Beside that, workers report on time, watchers at both servers break off and take up again, and callers take one job over
at once. Every watcher must see every final state, no job may be LOST, and no two take-overs may have the same attempt.

Prints what happened, and exits with 1 if a promise is broken.
"""

import argparse
import asyncio
import random
import secrets
import signal
import sys
import tempfile
import time
from collections.abc import Awaitable, Callable
from contextlib import AsyncExitStack, ExitStack, suppress
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, TypeVar

import grpc
from google.protobuf import duration_pb2

from headway.v1 import job_pb2
from headway.v1 import job_service_pb2 as pb
from headway.v1.job_service_pb2_grpc import JobServiceStub
from tests.support.delays import delay_commits
from tests.support.postgres import Postgres, find_binaries
from tests.support.server import ServerProcess

if TYPE_CHECKING:
    from headway.v1.job_service_pb2_grpc import JobServiceAsyncStub

HOUR = 3600
JOBS = 4
"""Jobs of a round, each with a worker of its own, and one more that many take over."""

REPORTS, REPORT_INTERVAL = 6, 0.5
"""Reports of each worker, and seconds between them."""

HEARTBEAT = duration_pb2.Duration(seconds=2)
TAKE_OVERS = 10

CALL_TIMEOUT = 20.0
"""Seconds for an answer. A worker asks again with the same sequence, as the clients do."""

WATCH_TIMEOUT = 5.0
"""Seconds, at most, until a watcher breaks off and takes up again where it was."""

RETRY_DELAY = 0.2
STUCK_AFTER = 600.0
"""Seconds in which a round has to end, whatever happens to its servers."""

SHOWN_EVERY = 10
"""Rounds after which the command tells how far it is."""

PAUSES = (0.2, 3.0)
"""Seconds, at least and at most, that a server is stopped."""

ENDED = frozenset({job_pb2.JOB_STATUS_COMPLETED, job_pb2.JOB_STATUS_FAILED, job_pb2.JOB_STATUS_CANCELLED})

_WITH_CLOCK_AHEAD = """
import runpy, sys, time
ahead = int(sys.argv[1])
real_ns = time.time_ns
# Not time.time: gRPC's Python layer compares it with deadlines of its own core.
time.time_ns = lambda: real_ns() + ahead * 1_000_000_000
sys.argv = ["headway_server", *sys.argv[5:]]
runpy.run_module("headway_server", run_name="__main__", alter_sys=True)
"""

Answer = TypeVar("Answer")


@dataclass
class Outcome:
    """What happened."""

    rounds: int = 0
    jobs: int = 0
    final_states: int = 0
    """That watchers saw."""
    missed: list[str] = field(default_factory=list)
    """Final states that a watcher did not see."""
    lost: list[str] = field(default_factory=list)
    """Jobs that were LOST though their workers reported."""
    take_overs: int = 0
    equal_attempts: int = 0
    retries: int = 0
    """Calls that were made again, for the server did not answer or could not commit."""
    resumed: int = 0
    """Watches that were taken up again."""
    pauses: int = 0
    seconds: float = 0.0

    def complaints(self) -> list[str]:
        """Which promises are broken."""
        found = [*self.missed, *self.lost]
        if self.equal_attempts:
            found.append(f"{self.equal_attempts} take-overs had an attempt that another had too")
        if not (self.final_states and self.take_overs and self.resumed and self.pauses):
            found.append("nothing was tried")
        return found

    def __str__(self) -> str:
        return (
            f"{self.rounds} rounds in {self.seconds:.0f} s: {self.jobs} jobs, {self.final_states} final states seen, "
            f"{len(self.missed)} missed, {len(self.lost)} jobs falsely LOST, {self.take_overs} take-overs, "
            f"{self.equal_attempts} equal attempts; {self.resumed} watches taken up again, {self.retries} calls "
            f"repeated, {self.pauses} pauses"
        )


class Round:
    """One session, its jobs and all who watch them. `stubs`: one for each server."""

    def __init__(self, stubs: "list[JobServiceAsyncStub]", outcome: Outcome) -> None:
        self._stubs = stubs
        self._outcome = outcome
        self._session = f"stress-{secrets.token_hex(8)}"

    async def run(self) -> None:
        ids = [secrets.token_hex(16) for _ in range(JOBS + 1)]
        watches = [
            self._named(f"WatchJob at server {n}", self._watch(stub, i))
            for n, stub in enumerate(self._stubs)
            for i in ids
        ]
        watches += [
            self._named(f"WatchJobs at server {n}", self._watch_all(stub, set(ids)))
            for n, stub in enumerate(self._stubs)
        ]
        work = [self._work(job_id) for job_id in ids[:-1]]
        await asyncio.gather(*watches, *work, self._take_over(ids[-1]))
        for job_id in ids:
            job = await self._until_answered(partial(self._get, job_id))
            if any(change.status == job_pb2.JOB_STATUS_LOST for change in job.history):
                self._outcome.lost.append(f"job {job_id} was LOST though its worker reported")
        self._outcome.jobs += len(ids)
        self._outcome.rounds += 1

    async def _work(self, job_id: str) -> None:
        stub = random.choice(self._stubs)
        job = pb.CreateJobRequest(session_id=self._session, job_id=job_id, heartbeat_timeout=HEARTBEAT)
        await self._until_answered(partial(self._create, job), stub)
        for sequence in range(1, REPORTS + 1):
            request = pb.ReportProgressRequest(session_id=self._session, job_id=job_id, sequence=sequence, advance=1)
            await self._until_answered(partial(self._report, request), stub)
            await asyncio.sleep(REPORT_INTERVAL * random.uniform(0.5, 1.0))
        await self._finish(job_id, stub)

    async def _create(self, request: pb.CreateJobRequest, stub: "JobServiceAsyncStub") -> job_pb2.Job:
        return await stub.CreateJob(request, timeout=CALL_TIMEOUT)

    async def _get(self, job_id: str, stub: "JobServiceAsyncStub") -> job_pb2.Job:
        return await stub.GetJob(pb.GetJobRequest(session_id=self._session, job_id=job_id), timeout=CALL_TIMEOUT)

    async def _report(
        self, request: pb.ReportProgressRequest, stub: "JobServiceAsyncStub"
    ) -> pb.ReportProgressResponse:
        return await stub.ReportProgress(request, timeout=CALL_TIMEOUT)

    async def _finish(self, job_id: str, stub: "JobServiceAsyncStub") -> None:
        request = pb.FinishJobRequest(session_id=self._session, job_id=job_id)
        await self._until_answered(lambda stub: stub.FinishJob(request, timeout=CALL_TIMEOUT), stub)

    async def _take_over(self, job_id: str) -> None:
        job = pb.CreateJobRequest(session_id=self._session, job_id=job_id)
        await self._until_answered(partial(self._create, job))
        request = pb.StartJobRequest(session_id=self._session, job_id=job_id, take_over=True)

        async def once(stub: "JobServiceAsyncStub") -> int:
            with suppress(grpc.RpcError):
                return (await stub.StartJob(request, timeout=CALL_TIMEOUT)).attempt
            return 0

        answers = await asyncio.gather(*[once(random.choice(self._stubs)) for _ in range(TAKE_OVERS)])
        attempts = [attempt for attempt in answers if attempt]
        self._outcome.take_overs += len(attempts)
        self._outcome.equal_attempts += len(attempts) - len(set(attempts))
        await self._finish(job_id, random.choice(self._stubs))

    async def _named(self, name: str, watch: Awaitable[int]) -> None:
        try:
            seen = await asyncio.wait_for(watch, STUCK_AFTER)
            self._outcome.final_states += seen
        except TimeoutError:
            self._outcome.missed.append(f"{name} did not see the final states of {self._session}")

    async def _watch(self, stub: "JobServiceAsyncStub", job_id: str) -> int:
        request = pb.WatchJobRequest(session_id=self._session, job_id=job_id)
        while True:
            with suppress(grpc.RpcError):
                async for update in stub.WatchJob(request, timeout=random.uniform(0.5, WATCH_TIMEOUT)):
                    request.after_revision = update.job.revision
                    if update.job.status in ENDED:
                        return 1
            self._outcome.resumed += 1
            await asyncio.sleep(RETRY_DELAY)

    async def _watch_all(self, stub: "JobServiceAsyncStub", ids: set[str]) -> int:
        request = pb.WatchJobsRequest(session_id=self._session)
        left = set(ids)
        while True:
            with suppress(grpc.RpcError):
                async for update in stub.WatchJobs(request, timeout=random.uniform(0.5, WATCH_TIMEOUT)):
                    request.resume_token = update.resume_token or request.resume_token
                    if update.job.status in ENDED:
                        left.discard(update.job.id)
                    if not left:
                        return len(ids)
            self._outcome.resumed += 1
            await asyncio.sleep(RETRY_DELAY)

    async def _until_answered(
        self,
        call: "Callable[[JobServiceAsyncStub], Awaitable[Answer]]",
        stub: "JobServiceAsyncStub | None" = None,
    ) -> Answer:
        while True:
            try:
                return await call(stub or random.choice(self._stubs))
            except grpc.RpcError as error:
                if error.code() not in (
                    grpc.StatusCode.UNAVAILABLE,
                    grpc.StatusCode.DEADLINE_EXCEEDED,
                    grpc.StatusCode.RESOURCE_EXHAUSTED,
                ):
                    raise
            self._outcome.retries += 1
            await asyncio.sleep(RETRY_DELAY)


async def _pause(servers: list[ServerProcess], outcome: Outcome) -> None:
    """Stop one of the servers now and then, for ever."""
    while True:
        await asyncio.sleep(random.uniform(1.0, 4.0))
        server = random.choice(servers)
        server.signal(signal.SIGSTOP)
        try:
            await asyncio.sleep(random.uniform(*PAUSES))
        finally:
            server.signal(signal.SIGCONT)
        outcome.pauses += 1


async def _run(servers: list[ServerProcess], rounds: int, together: int) -> Outcome:
    outcome = Outcome()
    began = time.monotonic()
    free = asyncio.Semaphore(together)
    async with AsyncExitStack() as stack:
        channels = [await stack.enter_async_context(grpc.aio.insecure_channel(s.address)) for s in servers]
        stubs: list[JobServiceAsyncStub] = [JobServiceStub(channel) for channel in channels]

        async def one() -> None:
            async with free:
                await Round(stubs, outcome).run()
            outcome.seconds = time.monotonic() - began
            if outcome.rounds % SHOWN_EVERY == 0:
                print(outcome, file=sys.stderr)

        pausing = asyncio.create_task(_pause(servers, outcome))
        try:
            await asyncio.gather(*[one() for _ in range(rounds)])
        finally:
            pausing.cancel()
            with suppress(asyncio.CancelledError):
                await pausing
    outcome.seconds = time.monotonic() - began
    return outcome


def run(postgresql: Postgres, folder: Path, rounds: int, *, together: int, share: float, delay: float) -> Outcome:
    """`together` rounds at once; this share of commits takes up to `delay` seconds longer."""
    database = postgresql.database()
    key = secrets.token_hex(32)
    with ExitStack() as stack:
        servers = []
        for ahead in (-HOUR, HOUR):
            home = folder / f"clock{ahead:+d}"
            home.mkdir()
            server = ServerProcess(
                home,
                database=database,
                environment={"HEADWAY_SESSION_KEY": key},
                prefix=[sys.executable, "-c", _WITH_CLOCK_AHEAD, str(ahead)],
            )
            servers.append(stack.enter_context(server))
            if len(servers) == 1:
                delay_commits(database, share, delay, at_random=True)
        return asyncio.run(_run(servers, rounds, together))


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m tests.faults.stress_two_servers", description=__doc__)
    parser.add_argument("--rounds", type=int, default=100, metavar="N")
    parser.add_argument("--together", type=int, default=10, metavar="N", help="rounds at once (default: 10)")
    parser.add_argument("--share", type=float, default=0.02, help="of commits that are delayed (default: 0.02)")
    parser.add_argument("--delay", type=float, default=60.0, metavar="S", help="seconds at most (default: 60)")
    options = parser.parse_args()
    binaries = find_binaries()
    if binaries is None:
        parser.error("PostgreSQL is not installed (Debian: apt-get install postgresql)")
    with tempfile.TemporaryDirectory() as folder, Postgres(binaries) as postgresql:
        outcome = run(
            postgresql,
            Path(folder),
            options.rounds,
            together=options.together,
            share=options.share,
            delay=options.delay,
        )
    print(outcome)
    for complaint in outcome.complaints():
        print(complaint)
    return 1 if outcome.complaints() else 0


if __name__ == "__main__":
    raise SystemExit(main())

"""Ten thousand running jobs, each reported once a second, through a hundred connections."""

import asyncio
import tempfile
import time
from collections.abc import AsyncIterator
from pathlib import Path

import grpc
from google.protobuf import duration_pb2

from benchmarks.calls import SERVICE
from benchmarks.figures import Section
from benchmarks.processes import cpu_seconds, resident, server, streaming, unary
from headway.v1 import job_pb2
from headway.v1 import job_service_pb2 as rpc

JOBS = 10_000
CONNECTIONS = 100
SECONDS = 15


def run(_: int) -> Section:
    section = Section(f"{JOBS:,} jobs reported once a second, {CONNECTIONS} connections, SQLite")
    with tempfile.TemporaryDirectory() as name, server(Path(name)) as subject:
        late, cpu = asyncio.run(report_all(subject.address, subject.pid))
        section.add("server CPU, of one core", [share * 100 for share in cpu], "%", at_most=35)
        section.add("reports acknowledged after, worst of each second", late, "s", at_most=1)
        section.add("resident", [resident(subject.pid)], "MiB")
    return section


async def report_all(address: str, pid: int) -> tuple[list[float], list[float]]:
    """Of each second: the longest wait for an acknowledgement, in seconds, and the server's share of a core."""
    each = JOBS // CONNECTIONS
    late = [0.0] * SECONDS
    options = [("grpc.use_local_subchannel_pool", 1)]
    channels = [grpc.aio.insecure_channel(address, options=options) for _ in range(CONNECTIONS)]

    async def create(channel: grpc.aio.Channel, session: str) -> list[str]:
        call = unary(channel, f"{SERVICE}/CreateJob")
        request = rpc.CreateJobRequest(
            session_id=session, size=10**6, heartbeat_timeout=duration_pb2.Duration(seconds=60)
        )
        return [job_pb2.Job.FromString(await call(request.SerializeToString())).id for _ in range(each)]

    sessions = [f"crowd-{number}" for number in range(CONNECTIONS)]
    jobs = await asyncio.gather(*[create(*pair) for pair in zip(channels, sessions, strict=True)])
    loop = asyncio.get_running_loop()
    begin = loop.time() + 1.0

    async def worker(number: int) -> None:
        sent: list[float] = []

        async def requests() -> AsyncIterator[bytes]:
            for second in range(SECONDS):
                # Spread over the second, as workers that know nothing of each other are.
                await asyncio.sleep(max(begin + second + number / CONNECTIONS - loop.time(), 0))
                request = rpc.StreamProgressRequest(
                    reports=[
                        rpc.ReportProgressRequest(session_id=sessions[number], job_id=job, progress=second + 1)
                        for job in jobs[number]
                    ]
                )
                sent.append(time.perf_counter())
                yield request.SerializeToString()

        seen = 0
        async for answer in streaming(channels[number], f"{SERVICE}/StreamProgress")(requests()):
            acked = rpc.StreamProgressResponse.FromString(answer).acked
            for second in range(seen, acked):
                late[second] = max(late[second], time.perf_counter() - sent[second])
            seen = acked
            if seen == SECONDS:
                return

    async def watch_cpu() -> list[float]:
        shares = []
        await asyncio.sleep(max(begin - loop.time(), 0))
        for _ in range(SECONDS):
            before, began = cpu_seconds(pid), loop.time()
            await asyncio.sleep(1)
            shares.append((cpu_seconds(pid) - before) / (loop.time() - began))
        return shares

    watching = asyncio.create_task(watch_cpu())
    await asyncio.gather(*[worker(number) for number in range(CONNECTIONS)])
    shares = await watching
    for channel in channels:
        await channel.close()
    return late, shares

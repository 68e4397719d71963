"""Streams of reports: 1 to 1000 a message, from a C client and from Python, against a stream that gives back."""

import asyncio
import tempfile
from collections.abc import AsyncIterator, Callable
from pathlib import Path

import grpc

from benchmarks.calls import SERVICE, new_job, progress, synchronous
from benchmarks.figures import Section
from benchmarks.load import MISSING, Load, available
from benchmarks.processes import ECHO, Echo, cpu_seconds, server, streaming, stub
from headway.v1 import job_service_pb2 as rpc

SHAPES = {1: 4000, 10: 2000, 100: 1000, 1000: 100}
"""Reports a message → messages a stream."""
STREAMS = 4
"""One after the other, in a round."""
PYTHON_SHAPES = {1: 4000, 10: 2000, 100: 600}


def run(rounds: int) -> Section:
    section = Section("Streams of reports, SQLite")
    with tempfile.TemporaryDirectory() as name, Echo() as echo:
        folder = Path(name)
        section.notes.append(synchronous(folder))
        (folder / "server").mkdir()
        with server(folder / "server") as subject:
            calls = stub(subject.address)
            jobs = [new_job(calls) for _ in range(max(SHAPES))]
            sent = 0
            if available():
                for reports, messages in SHAPES.items():
                    load = Load.of(
                        folder, f"stream-{reports}", [message(jobs[:reports]).SerializeToString()] * messages
                    )
                    limit, ours, costs = list[float](), list[float](), list[float]()
                    total = reports * messages * STREAMS
                    for _ in range(rounds):
                        limit.append(total / load.run(echo.address, f"{ECHO}/Stream", STREAMS, 1))
                        before = cpu_seconds(subject.pid)
                        ours.append(total / load.run(subject.address, f"{SERVICE}/StreamProgress", STREAMS, 1))
                        costs.append((cpu_seconds(subject.pid) - before) / total * 1e6)
                        sent += messages * STREAMS
                    section.add(
                        f"{reports} a message, h2load", ours, "reports/s", at_least=400_000 if reports == 100 else None
                    )
                    section.add("  server CPU", costs, "µs/report")
                    section.add_ratio("  of the echo", ours, limit, at_least=1.0 if reports == 1 else None)
            else:
                section.skipped.append(MISSING)
            for reports, messages in PYTHON_SHAPES.items():
                limit, ours = [], []
                for _ in range(rounds):
                    both = asyncio.run(from_python(echo.address, subject.address, message(jobs[:reports]), messages))
                    limit.append(both[0] * reports)
                    ours.append(both[1] * reports)
                    sent += messages
                section.add(f"{reports} a message, Python client", ours, "reports/s")
                section.add_ratio("  of the echo", ours, limit, at_least=0.7 if reports == 100 else None)
            if progress(calls, jobs[0]) != sent:
                raise RuntimeError("not every report was applied")
    return section


def message(jobs: list[str]) -> rpc.StreamProgressRequest:
    return rpc.StreamProgressRequest(
        reports=[rpc.ReportProgressRequest(session_id="bench", job_id=job, advance=1) for job in jobs]
    )


async def from_python(
    echo: str, subject: str, request: rpc.StreamProgressRequest, messages: int
) -> tuple[float, float]:
    """Messages a second: given back, and acknowledged; each is made into bytes anew, as a worker's are."""

    async def stream(address: str, path: str, over: Callable[[bytes, int], bool]) -> float:
        async with grpc.aio.insecure_channel(address) as channel:
            call = streaming(channel, path)

            async def requests() -> AsyncIterator[bytes]:
                for _ in range(messages):
                    yield request.SerializeToString()

            loop = asyncio.get_running_loop()
            began = loop.time()
            answered = 0
            async for answer in call(requests()):
                answered += 1
                if over(answer, answered):
                    break
            return messages / (loop.time() - began)

    back = await stream(echo, f"{ECHO}/Stream", lambda _, answered: answered == messages)
    acked = await stream(
        subject,
        f"{SERVICE}/StreamProgress",
        lambda answer, _: rpc.StreamProgressResponse.FromString(answer).acked == messages,
    )
    return back, acked

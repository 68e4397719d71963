"""A load generator of report streams that sends each message when it is due: `python -m`.

Reads its Order as JSON from standard input, writes its Findings to standard output. Flow control holds it back where
the server does not read: then a message is sent as soon as it can be, and its time counts from there.
"""

import asyncio
import json
import sys
import time
from collections import deque
from contextlib import suppress
from dataclasses import asdict, dataclass, field

import grpc.aio

from benchmarks.processes import streaming
from headway.v1 import job_service_pb2 as rpc

STREAM = "/headway.v1.JobService/StreamProgress"

DRAIN = 10.0
"""Seconds after the end for the last acknowledgements."""


@dataclass(slots=True)
class Order:
    """What to send. `rate` (messages a second in all) 0 is a closed loop: each stream keeps `in_flight` open."""

    address: str
    bodies: list[str]
    """A message for each stream, in hex."""
    seconds: float
    rate: float = 0.0
    in_flight: int = 8


@dataclass(slots=True)
class Findings:
    """What became of the messages."""

    acked: int = 0
    """Within the time."""
    sent: int = 0
    broken: int = 0
    """Streams that ended before their time."""
    latencies: list[float] = field(default_factory=list)
    """Seconds from sent to acknowledged."""
    paces: list[float] = field(default_factory=list)
    """Seconds that the server asked workers to wait before their next report."""


async def _stream(method: "grpc.aio.StreamStreamMultiCallable[bytes, bytes]", order: Order, body: bytes, rate: float,
                  began: float, findings: Findings) -> None:  # fmt: skip
    call = method()
    times: deque[float] = deque()
    room = asyncio.Semaphore(order.in_flight)

    async def read() -> None:
        acked = 0
        async for raw in call:
            response = rpc.StreamProgressResponse.FromString(raw)
            now = time.perf_counter()
            for _ in range(response.acked - acked):
                findings.latencies.append(now - times.popleft())
                room.release()
            if now < began + order.seconds:
                findings.acked += response.acked - acked
                findings.paces.append(response.next_report_after.ToMicroseconds() / 1e6)
            acked = response.acked

    reader = asyncio.create_task(read())
    try:
        number = 0
        while (now := time.perf_counter()) < began + order.seconds and not reader.done():
            if not rate:
                await room.acquire()
            elif (early := began + number / rate - now) > 0:
                await asyncio.sleep(early)
            times.append(time.perf_counter())
            await call.write(body)
            findings.sent += 1
            number += 1
        await call.done_writing()
        async with asyncio.timeout(DRAIN):
            await reader
    except (grpc.aio.AioRpcError, TimeoutError, asyncio.InvalidStateError):
        findings.broken += 1
        call.cancel()
    with suppress(grpc.aio.AioRpcError, asyncio.CancelledError):
        await reader


async def run(order: Order) -> Findings:
    findings = Findings()
    async with grpc.aio.insecure_channel(order.address) as channel:
        method = streaming(channel, STREAM)
        began = time.perf_counter()
        rate = order.rate / len(order.bodies)
        await asyncio.gather(
            *[_stream(method, order, bytes.fromhex(body), rate, began, findings) for body in order.bodies]
        )
    return findings


def main() -> None:
    findings = asyncio.run(run(Order(**json.load(sys.stdin))))
    json.dump(asdict(findings), sys.stdout)


if __name__ == "__main__":
    main()

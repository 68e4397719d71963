"""Headway itself, as `headway serve` runs on SQLite: every report is on the disk before it counts."""

import asyncio
import signal
from dataclasses import dataclass
from itertools import repeat
from typing import Self

import grpc

from benchmarks.calls import SERVICE, new_job, progress
from benchmarks.peers.measure import JOBS, PEER_TIMEOUT, Failed, OneByOne, Peer, Role, Teller, Way
from benchmarks.peers.servers import Owned, Servers
from benchmarks.processes import server, streaming, stub
from headway import connect
from headway.v1 import job_service_pb2 as rpc


class Headway(Owned):
    """All that is on by default is on: validation, metrics, log."""

    def __enter__(self) -> Self:
        self._process = server(self.folder).start()
        self.address = self._process.address
        return self

    def __exit__(self, *_: object) -> None:
        self._process.kill()

    def rest(self) -> None:
        self._process.signal(signal.SIGSTOP)

    def wake(self) -> None:
        self._process.signal(signal.SIGCONT)


class Stream(Teller):
    """StreamProgress as the worker of many jobs uses it: a message has a report of each, made into bytes anew."""

    def __init__(self, address: str) -> None:
        self._stub = stub(address)
        self._jobs = [new_job(self._stub) for _ in range(JOBS)]
        self._request = rpc.StreamProgressRequest(
            reports=[rpc.ReportProgressRequest(session_id="bench", job_id=job) for job in self._jobs]
        )
        self._reports = list(self._request.reports)
        self._sent = self._acked = 0
        self._runner = asyncio.Runner()
        self._runner.run(self._open(address))

    async def _open(self, address: str) -> None:
        self._channel = grpc.aio.insecure_channel(address)
        self._call = streaming(self._channel, f"{SERVICE}/StreamProgress")()
        self._news = asyncio.Event()
        self._reader = asyncio.create_task(self._read())

    async def _read(self) -> None:
        async for answer in self._call:
            self._acked = rpc.StreamProgressResponse.FromString(answer).acked
            self._news.set()

    def tell(self, reports: int) -> None:
        self._runner.run(self._write(reports // JOBS))
        self.told += reports

    async def _write(self, messages: int) -> None:
        for _ in range(messages):
            self._sent += 1
            for report in self._reports:
                report.progress = self._sent
            await self._call.write(self._request.SerializeToString())

    def settle(self) -> None:
        self._runner.run(asyncio.wait_for(self._acknowledged(), PEER_TIMEOUT))

    async def _acknowledged(self) -> None:
        while self._acked < self._sent:
            self._news.clear()
            await self._news.wait()

    def stored(self) -> int:
        return sum(progress(self._stub, job) for job in self._jobs)

    def close(self) -> None:
        self._runner.run(self._end())
        self._runner.close()

    async def _end(self) -> None:
        self._reader.cancel()
        await self._channel.close()


class Advance(Teller):
    """The Python client's default: `advance()` counts, and a thread in the background sends where that stands, until
    `flush()` has seen it stored."""

    def __init__(self, address: str) -> None:
        self._client = connect(address, session="bench")
        self._job = self._client.job()

    def tell(self, reports: int) -> None:
        for _ in repeat(None, reports):
            self._job.advance()
        self.told += reports

    def settle(self) -> None:
        if not self._job.flush(PEER_TIMEOUT):
            raise Failed("was not flushed in time")

    def stored(self) -> int:
        return self._job.refresh().snapshot.progress

    def close(self) -> None:
        self._job.finish()
        self._client.close()


class Flushed(OneByOne, Advance):
    """`advance()` and `flush()` in turn: each is stored before the next is told."""

    def report(self, progress: int) -> None:
        self._job.advance()
        self.settle()


@dataclass(frozen=True, slots=True)
class By(Way):
    teller: type[Stream | Advance]
    address: str
    chunk: int = 1

    def open(self, number: int) -> Teller:
        return self.teller(self.address)


def stream(servers: Servers) -> Peer:
    way = By(Stream, servers.of(Headway).address, 50 * JOBS)
    return Peer(
        f"Headway's stream, {JOBS} reports a message", way, servers.of(Headway), durable=True, role=Role.SUBJECT
    )


def advance(servers: Servers) -> Peer:
    way = By(Advance, servers.of(Headway).address, 10_000)
    return Peer("Headway's advance(), one flush() at the end", way, servers.of(Headway), durable=True, role=Role.OURS)


def flushed(servers: Servers) -> Peer:
    way = By(Flushed, servers.of(Headway).address, 10)
    return Peer("Headway's advance() and flush(), each time", way, servers.of(Headway), durable=True, role=Role.OURS)


PEERS = (stream, advance, flushed)

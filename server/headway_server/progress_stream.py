"""One StreamProgress call: requests go to the writer as they come, acknowledgements follow the commits, many in one."""

import asyncio
from collections import deque
from collections.abc import AsyncGenerator, AsyncIterator, Callable, Sequence
from dataclasses import dataclass

from headway.v1 import job_service_pb2 as pb
from headway_server import replies, requests
from headway_server.checks import Checks
from headway_server.errors import Fault, InvalidRequest, JobError, StreamExpired
from headway_server.job import Job
from headway_server.jobs import Jobs, Name
from headway_server.limits import Limits
from headway_server.report import Report
from headway_server.writer import Lane, Outcome, Step

WINDOW = 64
"""Requests of one stream that may wait for their commit; further ones wait with the sender."""

FAILURES_MAX = 500
"""Failures that one response names, or those of a single request: more would not fit into a gRPC message."""

Namer = Callable[[pb.ReportProgressRequest], tuple[Name, Checks]]


@dataclass(slots=True)
class _Waiting:
    """A request on its way: its reports' outcomes to come, and the reports that were refused at once."""

    outcomes: "asyncio.Task[Sequence[Outcome]]"
    refused: dict[int, JobError]


class ProgressStream:
    """`namer` tells which job a report is about, in the eyes of this stream's caller."""

    def __init__(self, jobs: Jobs, limits: Limits, namer: Namer) -> None:
        self._jobs = jobs
        self._limits = limits
        self._namer = namer
        self._room = asyncio.Semaphore(WINDOW)
        self._waiting: deque[_Waiting | Exception | None] = deque()
        self._arrived = asyncio.Event()
        self._lane = Lane()
        self._acked = 0

    def close(self, error: JobError) -> None:
        """End the stream with this error, behind the answers to all that was received."""
        self._put(error)

    async def run(
        self, incoming: AsyncIterator[pb.StreamProgressRequest], life: float
    ) -> AsyncGenerator[pb.StreamProgressResponse, None]:
        """The responses. Ends when the requests do, or with StreamExpired after `life` seconds."""
        receiver = asyncio.create_task(self._receive(incoming))
        expiry = asyncio.get_running_loop().call_later(life, self.close, StreamExpired())
        try:
            while True:
                batch: list[_Waiting] = []
                end = await self._next(batch)
                if batch:
                    yield self._response(batch)
                if isinstance(end, Exception):
                    raise end
                if end:
                    return
        finally:
            expiry.cancel()
            receiver.cancel()
            self._lane.close(StreamExpired())
            for item in self._waiting:
                if isinstance(item, _Waiting):
                    item.outcomes.cancel()

    async def _receive(self, incoming: AsyncIterator[pb.StreamProgressRequest]) -> None:
        try:
            async for request in incoming:
                await self._room.acquire()
                self._put(await self._accept(request))
            self._put(None)
        except Exception as error:
            self._put(error)

    def _put(self, item: "_Waiting | Exception | None") -> None:
        self._waiting.append(item)
        self._arrived.set()

    async def _accept(self, request: pb.StreamProgressRequest) -> _Waiting:
        limit = self._limits.reports_a_message
        if len(request.reports) > limit:
            raise InvalidRequest(
                Fault("reports", f"must be at most {limit} in one message, not {len(request.reports)}")
            )
        size = request.ByteSize()
        read = self._read(request) if size < requests.LARGE else await asyncio.to_thread(self._read, request)
        steps: list[Step] = []
        refused: dict[int, JobError] = {}
        for index, item in enumerate(read):
            if isinstance(item, JobError):
                refused[index] = item
                continue
            try:
                # One after the other, so that no request overtakes another while its jobs are looked up.
                steps.append(Step(await self._jobs.locate(item[0]), item[1]))
            except JobError as error:
                refused[index] = error
        return _Waiting(asyncio.create_task(self._jobs.report(steps, size, self._lane)), refused)

    def _read(self, request: pb.StreamProgressRequest) -> list[tuple[Name, Report] | JobError]:
        read: list[tuple[Name, Report] | JobError] = []
        for message in request.reports:
            try:
                name, checks = self._namer(message)
                report = requests.report(message, checks)
                checks.done()
                read.append((name, report))
            except JobError as error:
                read.append(error)
        return read

    async def _next(self, batch: list[_Waiting]) -> Exception | bool:
        """Wait until the next request is committed, and take along those committed with it; what ends the stream."""
        failures = 0
        while (self._waiting or not batch) and failures < FAILURES_MAX:
            if not self._waiting:
                self._arrived.clear()
                await self._arrived.wait()
            item = self._waiting[0]
            if batch and isinstance(item, _Waiting) and not item.outcomes.done():
                return False
            self._waiting.popleft()
            if item is None:
                return True
            if isinstance(item, Exception):
                return item
            try:
                outcomes = await item.outcomes
            except JobError as error:
                # Not acknowledged: the worker sends it again.
                return error
            self._room.release()
            batch.append(item)
            failures += len(item.refused) + sum(isinstance(outcome, JobError) for outcome in outcomes)
        return False

    def _response(self, batch: Sequence[_Waiting]) -> pb.StreamProgressResponse:
        response = pb.StreamProgressResponse()
        jobs: dict[tuple[str, str], Job] = {}
        for waiting in batch:
            applied = waiting.outcomes.result()
            outcomes = iter(applied)
            for index in range(len(applied) + len(waiting.refused)):
                outcome = waiting.refused[index] if index in waiting.refused else next(outcomes)
                if isinstance(outcome, JobError):
                    response.failures.add(request=self._acked, report=index, status=replies.status(outcome))
                else:
                    jobs[outcome.session_hash, outcome.id] = outcome
            self._acked += 1
        response.acked = self._acked
        for job in jobs.values():
            if job.cancellation is not None:
                response.cancellations.add(job_id=job.id, cancellation=replies.cancellation(job.cancellation))
        if jobs:
            response.next_report_after.CopyFrom(replies.span(min(map(self._jobs.pace, jobs.values()))))
        return response

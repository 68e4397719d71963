"""One StreamProgress call: it passes requests to the commit writer at once, and acknowledges many commits together."""

import asyncio
from collections import deque
from collections.abc import AsyncGenerator, AsyncIterator, Awaitable, Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import TypeGuard

from google.rpc import status_pb2

from headway.v1 import job_service_pb2 as pb
from headway_server.domain.errors import Fault, InvalidRequest, JobError, StreamExpired
from headway_server.domain.job import Job, Key
from headway_server.domain.limits import Limits
from headway_server.domain.report import Report
from headway_server.resources.cache import Cache
from headway_server.resources.offload import write_off_loop
from headway_server.rpc import from_proto, to_proto
from headway_server.rpc.validation import JOB_ID_LENGTH, Checks
from headway_server.service.command_costs import parts
from headway_server.service.commit import Outcome, Step
from headway_server.service.commit_writer import StreamOrder
from headway_server.service.job_service import EVERYWHERE, Jobs, Name

STREAM_MAX_IN_FLIGHT = 64
"""Requests of one stream that may wait for their commit. The sender must wait with further ones."""

FAILURES_MAX = 500
"""The most failures in one response, unless a single request has more: a gRPC message must hold them."""

REFUSALS_INLINE_MAX = 8
"""Refused reports of a request, or failures of a response, that the event loop handles. Each takes up to 30 µs."""

SMALL_REPORT_BYTES = 256
"""Reports with a smaller average size (bytes) are converted quickly, if they have no variables and record errors."""

NAME_BYTES = 200
"""Bytes that a job's id and the hash of its session take in the cache of names."""

NAMES_BYTES = 16 * 1024 * 1024
"""Bytes of cached names of jobs."""

IDLE_TIMEOUT = 600.0
"""Seconds after which an idle stream ends. Its caller opens another when it has something to send."""

Names = Cache[tuple[str, str], Name]
"""Names of jobs by session id and job id, for all streams: most reports are about jobs with earlier reports."""

Namer = Callable[[pb.ReportProgressRequest, Checks], Name]

Converter = Callable[[Callable[[], None]], Awaitable[None]]

_Named = tuple[Name, Report]

_Failure = tuple[int, int, JobError]
"""The index of a request in its stream, the index of a report in the request, and the error of the report."""


@dataclass(slots=True)
class _Waiting:
    """A request that waits for its commit: the outcomes of its reports, and the reports that were refused at once."""

    outcomes: "asyncio.Future[list[Outcome]]"
    refused: dict[int, JobError]


class ProgressStream:
    """`namer` returns the job of a report, for the caller of this stream. `known` is the cache of names for all
    callers. `convert` runs conversions off the event loop."""

    def __init__(self, jobs: Jobs, limits: Limits, namer: Namer, known: Names, convert: Converter) -> None:
        self._jobs = jobs
        self._limits = limits
        self._namer = namer
        self._convert = convert
        self._room = asyncio.Semaphore(STREAM_MAX_IN_FLIGHT)
        self._waiting: deque[_Waiting | Exception | None] = deque()
        self._arrived = asyncio.Event()
        self._order = StreamOrder()
        self._parts: asyncio.Future[list[Outcome]] | None = None
        """The outcomes of a request that needs several commits. The next request waits until they are known."""
        self._known = known
        self._acked = 0
        self._heard = 0.0

    def close(self, error: JobError) -> None:
        """End the stream with this error, after the replies to all received requests."""
        self._put(error)

    async def run(self, incoming: AsyncIterator[pb.StreamProgressRequest], life: float) -> AsyncGenerator[bytes, None]:
        """The serialized responses.

        Ends after the last request, or with StreamExpired after `life` seconds or IDLE_TIMEOUT without a request.
        """
        receiver = asyncio.create_task(self._receive(incoming))
        loop = asyncio.get_running_loop()
        expiry = loop.call_later(life, self.close, StreamExpired())
        self._heard = loop.time()
        self._expect()
        try:
            while True:
                batch: list[_Waiting] = []
                end = await self._next(batch)
                if batch:
                    yield await self._response(batch)
                if isinstance(end, Exception):
                    raise end
                if end:
                    return
        finally:
            expiry.cancel()
            self._idle.cancel()
            receiver.cancel()
            self._order.close(StreamExpired())
            for item in self._waiting:
                if isinstance(item, _Waiting):
                    item.outcomes.cancel()

    def _expect(self) -> None:
        loop = asyncio.get_running_loop()
        end = self._heard + IDLE_TIMEOUT
        if loop.time() < end:
            self._idle = loop.call_at(end, self._expect)
        else:
            self.close(StreamExpired())

    async def _receive(self, incoming: AsyncIterator[pb.StreamProgressRequest]) -> None:
        loop = asyncio.get_running_loop()
        try:
            arriving = aiter(incoming)
            # Wait for room first: no request is parsed before there is room for it.
            while await self._room.acquire():
                # Make the sender wait instead of refusing its request: it would send everything again.
                await self._jobs.room()
                request = await anext(arriving, None)
                if request is None:
                    break
                self._heard = loop.time()
                self._put(await self._accept(request))
                # Do not keep this request while waiting for the next one.
                del request
                if self._parts is not None:
                    await asyncio.wait([self._parts])
                    self._parts = None
            self._put(None)
        except JobError as error:
            # Drop the traceback: it refers to the request.
            self._put(error.with_traceback(None))
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
        reports = iter(request.reports)
        named: list[_Named] = []
        refused: dict[int, JobError] = {}
        if size <= from_proto.CONVERTED_INLINE_MAX or (
            size < SMALL_REPORT_BYTES * len(request.reports) and _are_plain(request)
        ):
            self._read(reports, named, refused, REFUSALS_INLINE_MAX)
        if len(named) + len(refused) < len(request.reports):
            await self._convert(partial(self._read, reports, named, refused))
        if _are_located(named):
            return _Waiting(self._apply(named, size), refused)
        return _Waiting(self._apply(await self._locate(named, refused), size), refused)

    def _apply(self, steps: Sequence[Step], size: int) -> "asyncio.Future[list[Outcome]]":
        split = parts(steps)
        if len(split) == 1:
            return self._jobs.report(steps, size, self._order)
        self._parts = asyncio.create_task(self._apply_parts(split, size))
        return self._parts

    async def _apply_parts(self, split: Sequence[Sequence[Step]], size: int) -> list[Outcome]:
        """Apply the parts one after the other, so that calls of others can run in between."""
        outcomes: list[Outcome] = []
        for part in split:
            await self._jobs.room()
            outcomes += await self._jobs.report(part, size // len(split), self._order)
        return outcomes

    def _read(
        self,
        reports: Iterator[pb.ReportProgressRequest],
        named: list[_Named],
        refused: dict[int, JobError],
        refusals: int | None = None,
    ) -> None:
        """Add the reports to `named`, and refused ones to `refused`, by their index in the request.

        Stops after `refusals` refused reports. A second call continues there.
        """
        known, checks, session_length = self._known, Checks(self._limits), self._limits.session_id_bytes
        for message in reports:
            ids = (message.session_id, message.job_id)
            # Check the length first: a look-up hashes the whole text.
            short = len(ids[0]) <= session_length and len(ids[1]) == JOB_ID_LENGTH
            name = kept = known.get(ids) if short else None
            try:
                if name is None:
                    name = self._namer(message, checks)
                report = from_proto.report(message, checks)
                if checks.faults:
                    checks.done()
            except JobError as error:
                # Drop the traceback: it refers to the request.
                refused[len(named) + len(refused)] = error.with_traceback(None)
                checks = Checks(self._limits)
                if len(refused) == refusals:
                    return
            else:
                named.append((name, report))
                # Do not cache session "-": its meaning depends on the caller.
                if kept is None and name[0] is not EVERYWHERE:
                    known.put(ids, name, len(ids[0].encode()) + NAME_BYTES)

    async def _locate(self, named: Sequence[_Named], refused: dict[int, JobError]) -> list[Step]:
        """Locate the jobs. Returns the steps, and adds reports of jobs that cannot be located to `refused`."""
        steps: list[Step] = []
        places = [place for place in range(len(named) + len(refused)) if place not in refused]
        for place, (name, report) in zip(places, named, strict=True):
            try:
                # One after the other, so that no request overtakes another during look-ups.
                steps.append((await self._jobs.locate(name), report))
            except JobError as error:
                refused[place] = error.with_traceback(None)
        return steps

    async def _next(self, batch: list[_Waiting]) -> Exception | bool:
        """Wait until the next request is committed, and add it and all others that are committed to `batch`. Returns
        the error that ends the stream, or True at its regular end."""
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
                # The request is not acknowledged, so the worker sends it again.
                return error
            self._room.release()
            batch.append(item)
            failures += len(item.refused) + _failed(outcomes)
        return False

    async def _response(self, batch: Sequence[_Waiting]) -> bytes:
        response = pb.StreamProgressResponse()
        failed: list[_Failure] = []
        # Consecutive reports of one job in one commit share the same object.
        reported: dict[int, Job] = {}
        for waiting in batch:
            outcomes = _merged(waiting.outcomes.result(), waiting.refused)
            distinct = dict(zip(map(id, outcomes), outcomes, strict=True))
            reported.update({number: job for number, job in distinct.items() if isinstance(job, Job)})
            if _failed(outcomes):
                failed += [(self._acked, at, error) for at, error in enumerate(outcomes) if isinstance(error, JobError)]
            self._acked += 1
        response.acked = self._acked
        jobs = {(job.session_hash, job.id): job for job in reported.values()}.values()
        for job in jobs:
            if job.cancellation is not None:
                response.cancellations.add(job_id=job.id, cancellation=to_proto.cancellation(job.cancellation))
        if jobs:
            response.next_report_after.CopyFrom(to_proto.span(min(map(self._jobs.report_interval, jobs))))
        if len(failed) > REFUSALS_INLINE_MAX:
            return await write_off_loop(_serialized, response, failed)
        return _serialized(response, failed)


def _serialized(response: pb.StreamProgressResponse, failed: Sequence[_Failure]) -> bytes:
    """The serialized response with these failures."""
    # Most refusals of a stream are equal, and making a status takes long.
    statuses: dict[tuple[str, str, tuple[Fault, ...]], status_pb2.Status] = {}
    for request, report, error in failed:
        told = (error.reason, error.message, error.faults if isinstance(error, InvalidRequest) else ())
        status = statuses.get(told)
        if status is None:
            status = statuses[told] = to_proto.status(error)
        response.failures.add(request=request, report=report, status=status)
    return response.SerializeToString()


def _are_plain(request: pb.StreamProgressRequest) -> bool:
    """Whether no report has fields that take long to convert."""
    return not any(report.record_errors or report.HasField("variables") for report in request.reports)


def _are_located(named: Sequence[_Named]) -> TypeGuard[Sequence[tuple[Key, Report]]]:
    return None not in [name[0] for name, _ in named]


def _failed(outcomes: list[Outcome]) -> int:
    """The number of errors. Counted in C for speed: every report of a stream passes here, and errors are rare."""
    return len(outcomes) - [*map(type, outcomes)].count(Job)


def _merged(outcomes: list[Outcome], refused: Mapping[int, JobError]) -> list[Outcome]:
    """The outcomes of all reports of a request, in their order."""
    if not refused:
        return outcomes
    applied = iter(outcomes)
    total = len(outcomes) + len(refused)
    return [refused[index] if index in refused else next(applied) for index in range(total)]

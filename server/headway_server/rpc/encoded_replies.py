"""Encoded replies, made once for all callers that get the same one: many callers may read the same committed job."""

import hashlib
from collections.abc import Callable, Mapping

from google.protobuf.message import Message

from headway.v1 import job_service_pb2 as pb
from headway_server.domain.job import Cancellation, Job, Status
from headway_server.resources.cache import Cache
from headway_server.resources.offload import write_off_loop
from headway_server.rpc import to_proto
from headway_server.rpc.json_values import delimited, struct_on_wire, tag, value_on_wire

REPLIES_BYTES = 8 * 1024 * 1024
"""Bytes of cached replies of each kind. Replies that are requested often are among the latest."""

LARGE_REPLIES_BYTES = 2 * 1024 * 1024
"""Bytes of cached large replies of each kind, which do not fit into the other cache: many may wait for the same one."""

LARGE_REPLY_DIVISOR = 2
"""One large reply may take 1/2 of these bytes."""

ENCODED_INLINE_MAX = 4 * 1024
"""Longer JSON text (characters) is converted off the event loop. Shorter text takes at most 3 ms."""

VALUES_BYTES = 4 * 1024 * 1024
"""Bytes of cached results as protobuf, for callers that get them at about the same time. One may take all of it."""

_RESULTS = tag(pb.GetResultsResponse.RESULTS_FIELD_NUMBER)
_VARIABLES = tag(pb.GetVariablesResponse.VARIABLES_FIELD_NUMBER)

_JobState = tuple[str, str, int, int]
_Report = tuple[Status, int, int, Cancellation | None, int]


def _once(make: Callable[[Job], Message]) -> Callable[[Job], bytes]:
    kept: Cache[_JobState, bytes] = Cache(REPLIES_BYTES)
    large: Cache[_JobState, bytes] = Cache(LARGE_REPLIES_BYTES, LARGE_REPLY_DIVISOR)

    def encode(job: Job) -> bytes:
        # A job that is created again under its old id has the same revisions, but later times.
        key = (job.session_hash, job.id, job.revision, job.update_time)
        made = kept.get(key) or large.get(key)
        if made is None:
            made = make(job).SerializeToString()
            if not kept.put(key, made, len(made)):
                large.put(key, made, len(made))
        return made

    return encode


job = _once(to_proto.job)
"""Job."""

watched = _once(lambda job: pb.WatchJobResponse(job=to_proto.job(job)))
"""WatchJobResponse; also WatchJobsResponse without a token, because both have the job in the same field."""


def watched_in_session(job: Job, token: str) -> bytes:
    """WatchJobsResponse. Two concatenated protobuf messages are the merged message."""
    return watched(job) + pb.WatchJobsResponse(resume_token=token).SerializeToString()


_reported: Cache[_Report, bytes] = Cache(REPLIES_BYTES // 8)

_values: Cache[bytes, bytes] = Cache(VALUES_BYTES, 1)
"""By the digest of the JSON text."""


def reported(job: Job, pace: int) -> bytes:
    """ReportProgressResponse; `pace` (µs) is its next_report_after."""
    # Consecutive reports of a job in one commit have the same reply.
    key = (job.status, job.progress, job.revision, job.cancellation, pace)
    made = _reported.get(key)
    if made is None:
        made = pb.ReportProgressResponse(
            status=to_proto.PROTO_STATUSES[job.status],
            progress=job.progress,
            revision=job.revision,
            cancellation=to_proto.cancellation(job.cancellation),
            next_report_after=to_proto.span(pace),
        ).SerializeToString()
        # Count the reply twice: the key also contains the reason of the cancellation.
        _reported.put(key, made, 2 * len(made))
    return made


async def results(text: str | None) -> bytes:
    """GetResultsResponse."""
    return b"" if text is None else delimited(_RESULTS, await value(text))


async def value(text: str) -> bytes:
    """google.protobuf.Value of JSON text."""
    if len(text) <= ENCODED_INLINE_MAX:
        return value_on_wire(text)
    return await write_off_loop(_value_once, text)


def _value_once(text: str) -> bytes:
    # Keyed by the text, not by the job: the caller has the text, and a digest takes a fiftieth of the conversion.
    digest = hashlib.sha256(text.encode()).digest()
    made = _values.get(digest)
    if made is None:
        made = value_on_wire(text)
        _values.put(digest, made, len(made))
    return made


async def variables(texts: Mapping[str, str]) -> bytes:
    """GetVariablesResponse."""
    if sum(map(len, texts.values())) <= ENCODED_INLINE_MAX:
        return delimited(_VARIABLES, struct_on_wire(texts))
    return delimited(_VARIABLES, await write_off_loop(struct_on_wire, texts))

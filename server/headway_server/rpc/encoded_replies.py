"""Answers as bytes, made once for all who get the same: a committed job never changes, and many may ask for it."""

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
"""Bytes of answers of a kind that are kept: what many look at, or some again and again, is among the last."""

LARGE_REPLIES_BYTES = 2 * 1024 * 1024
"""Bytes of answers of a kind that are too large to be kept with the others: many may wait for the same one."""

LARGE_REPLY_DIVISOR = 2
"""One of them may take this part (1/2) of these bytes."""

ENCODED_INLINE_MAX = 4 * 1024
"""Longer JSON text is converted off the event loop: the worst of this length takes 3 ms."""

VALUES_BYTES = 4 * 1024 * 1024
"""Bytes of results as protobuf that are kept, for all who get them at about the same time. One may take all of it."""

_RESULTS = tag(pb.GetResultsResponse.RESULTS_FIELD_NUMBER)
_VARIABLES = tag(pb.GetVariablesResponse.VARIABLES_FIELD_NUMBER)

_JobState = tuple[str, str, int, int]
_Report = tuple[Status, int, int, Cancellation | None, int]


def _once(make: Callable[[Job], Message]) -> Callable[[Job], bytes]:
    kept: Cache[_JobState, bytes] = Cache(REPLIES_BYTES)
    large: Cache[_JobState, bytes] = Cache(LARGE_REPLIES_BYTES, LARGE_REPLY_DIVISOR)

    def encode(job: Job) -> bytes:
        # A job that is created anew under its old id has the same revisions again, but later.
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
"""WatchJobResponse; also WatchJobsResponse without a token, for both have the job in the same field."""


def watched_in_session(job: Job, token: str) -> bytes:
    """WatchJobsResponse. One protobuf message behind another is the two merged."""
    return watched(job) + pb.WatchJobsResponse(resume_token=token).SerializeToString()


_reported: Cache[_Report, bytes] = Cache(REPLIES_BYTES // 8)

_values: Cache[bytes, bytes] = Cache(VALUES_BYTES, 1)
"""By the digest of the JSON text."""


def reported(job: Job, pace: int) -> bytes:
    """ReportProgressResponse; `pace` (µs) is its next_report_after."""
    # Reports of one job that meet in one commit have one answer.
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
        # The key holds the reason of the cancellation, and so does the answer.
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
    # By its text and not by its job: who asks has read the text, and a digest takes a fiftieth of the conversion.
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

"""Conversion of requests from protobuf to the domain, with checks. to_proto.py converts replies."""

import hashlib
import json
from collections.abc import Sequence
from dataclasses import replace

from google.protobuf import any_pb2, message, struct_pb2
from google.rpc import code_pb2, error_details_pb2, status_pb2

from headway.v1 import job_service_pb2 as pb
from headway_server.domain.commands import Cancel, Create, Fail, Finish, SetVariables, Start, Update
from headway_server.domain.job import Error, Status
from headway_server.domain.report import RecordError, Report
from headway_server.rpc.json_values import to_text
from headway_server.rpc.to_proto import PROTO_STATUSES, REPLY_BYTES_MAX
from headway_server.rpc.validation import Checks
from headway_server.storage.listing import Filter

CONVERTED_INLINE_MAX = 8 * 1024
"""Larger requests (bytes) are converted off the event loop. Smaller ones take at most 5 ms."""

WIRE_OVER_JSON = 6
"""A number takes up to this many times more bytes on the wire than as JSON."""

DEFAULT_PAGE_SIZE = 50
"""Jobs on a page unless the caller says otherwise."""

MASK_PATHS = 32
"""The most paths in an update mask, including repeated ones."""

ERROR_DETAILS = 64
"""The most details of a job's error."""

UPDATABLE = ("name", "invoker", "size", "unit", "labels")

DOMAIN_STATUSES: dict[int, Status] = {number: status for status, number in PROTO_STATUSES.items()}

DETAIL_TYPES: dict[str, type[message.Message]] = {
    f"type.googleapis.com/{kind.DESCRIPTOR.full_name}": kind
    for kind in (
        error_details_pb2.ErrorInfo,
        error_details_pb2.RetryInfo,
        error_details_pb2.DebugInfo,
        error_details_pb2.QuotaFailure,
        error_details_pb2.PreconditionFailure,
        error_details_pb2.BadRequest,
        error_details_pb2.RequestInfo,
        error_details_pb2.ResourceInfo,
        error_details_pb2.Help,
        error_details_pb2.LocalizedMessage,
    )
}
"""The types for details of a job's error: others could not be shown as JSON."""

MUST_BE_DETAIL = "must be a message of google/rpc/error_details.proto"


def create(request: pb.CreateJobRequest, checks: Checks) -> Create:
    """CreateJob."""
    limits = checks.limits
    if request.job_id:
        checks.job_id(request.job_id)
    if request.continues:
        checks.job_id(request.continues, "continues")
    command = Create(
        digest="",
        pending=request.pending,
        name=checks.text("name", request.name, limits.name_length),
        invoker=checks.text("invoker", request.invoker, limits.invoker_length),
        size=checks.not_negative("size", request.size),
        unit=checks.text("unit", request.unit, limits.unit_length),
        labels=checks.labels(request.labels),
        heartbeat_timeout=checks.span("heartbeat_timeout", request.heartbeat_timeout),
        stall_timeout=checks.span("stall_timeout", request.stall_timeout),
        retention=checks.span("retention", request.retention),
        continues=request.continues,
        key=checks.text("key", request.key, limits.key_length),
        key_if_free=request.key_if_free,
    )
    # The key is compared separately: the job may have been created without it.
    parameters: list[object] = [
        command.pending,
        command.name,
        command.invoker,
        command.size,
        command.unit,
        sorted(command.labels.items()),
        command.heartbeat_timeout,
        command.stall_timeout,
        command.retention,
        # Omit it if empty, so that digests of calls from before this field existed still match.
        *([command.continues] if command.continues else ()),
    ]
    return replace(command, digest=_digest(json.dumps(parameters)))


def start(request: pb.StartJobRequest, _: Checks) -> Start:
    """StartJob."""
    return Start(take_over=request.take_over)


def update(request: pb.UpdateJobRequest, checks: Checks) -> Update:
    """UpdateJob."""
    job, limits = request.job, checks.limits
    paths = request.update_mask.paths
    names = frozenset[str]()
    if not paths:
        names = frozenset(name for name in UPDATABLE if getattr(job, name))
    elif checks.count("update_mask", len(paths), MASK_PATHS):
        names = frozenset(paths)
    if not names.issubset(UPDATABLE):
        checks.fault("update_mask", f"can name {', '.join(UPDATABLE)} alone")
    return Update(
        name=checks.text("job.name", job.name, limits.name_length) if "name" in names else None,
        invoker=checks.text("job.invoker", job.invoker, limits.invoker_length) if "invoker" in names else None,
        size=checks.not_negative("job.size", job.size) if "size" in names else None,
        unit=checks.text("job.unit", job.unit, limits.unit_length) if "unit" in names else None,
        labels=checks.labels(job.labels, "job.labels") if "labels" in names else None,
        revision=checks.not_negative("revision", request.revision),
    )


def report(request: pb.ReportProgressRequest, checks: Checks) -> Report:
    """ReportProgress, and each report of StreamProgress."""
    limits = checks.limits
    part, attempt, sequence = request.part, request.attempt, request.sequence
    amount = request.WhichOneof("amount")
    progress = request.progress if amount == "progress" else None
    if part or attempt < 0 or sequence < 0 or (progress is not None and progress < 0):
        checks.text("part", part, limits.part_length)
        checks.not_negative("attempt", attempt)
        checks.not_negative("sequence", sequence)
        checks.not_negative("progress", progress or 0)
    # Positional for speed: this runs for every report of a stream, and keywords would cost a third more.
    return Report(
        part,
        attempt,
        sequence,
        progress,
        request.advance if amount == "advance" else None,
        checks.not_negative("size", request.size) if request.HasField("size") else None,
        checks.text("message", request.message, limits.message_length) if request.HasField("message") else None,
        checks.counters(request.counters) if request.counters else None,
        _record_errors(request, checks) if request.record_errors else (),
        _variables(request.variables, checks) if request.HasField("variables") else None,
    )


def _record_errors(request: pb.ReportProgressRequest, checks: Checks) -> tuple[RecordError, ...]:
    limits = checks.limits
    if not checks.count("record_errors", len(request.record_errors), limits.record_errors_a_report):
        return ()
    found = []
    for index, error in enumerate(request.record_errors):
        if checks.are_many:
            break
        record, code, text = error.record, error.code, error.message
        checks.text("record_errors[].record", record, limits.record_length, index, required=True)
        checks.text("record_errors[].code", code, limits.record_code_length, index)
        checks.text("record_errors[].message", text, limits.message_length, index)
        found.append(RecordError(record, code, text))
    return tuple(found)


def _variables(struct: struct_pb2.Struct, checks: Checks) -> dict[str, str]:
    limits = checks.limits
    if not checks.count("variables", len(struct.fields), limits.variables):
        return {}
    if struct.ByteSize() > WIRE_OVER_JSON * limits.variables_bytes:
        checks.fault("variables", f"must take at most {limits.variables_bytes} bytes as JSON")
        return {}
    texts = {}
    for name, value in struct.fields.items():
        if checks.are_many:
            break
        checks.text("variables", name, limits.part_length, required=True)
        texts[name] = to_text(value, f"variables.{name}", checks.faults)
    return texts


def finish(request: pb.FinishJobRequest, checks: Checks) -> Finish:
    """FinishJob."""
    attempt = checks.not_negative("attempt", request.attempt)
    if not request.HasField("results"):
        return Finish(None, _digest("absent"), attempt)
    on_wire = request.results.ByteSize()
    if on_wire > REPLY_BYTES_MAX:
        checks.fault("results", f"must take at most {REPLY_BYTES_MAX} bytes as protobuf, not {on_wire}")
        return Finish(None, "", attempt)
    text = to_text(request.results, "results", checks.faults)
    size = len(text.encode())
    if size > checks.limits.results_bytes:
        checks.fault("results", f"must take at most {checks.limits.results_bytes} bytes as JSON, not {size}")
    return Finish(text, _digest(f"present {text}"), attempt)


def fail(request: pb.FailJobRequest, checks: Checks) -> Fail:
    """FailJob."""
    attempt = checks.not_negative("attempt", request.attempt)
    return Fail(_error(request.error, checks), attempt)


def _error(error: status_pb2.Status, checks: Checks) -> Error:
    if error.code not in code_pb2.Code.values():
        checks.fault("error.code", "must be a google.rpc.Code, from 1 to 16")
    elif error.code == code_pb2.OK:
        checks.fault("error.code", "must say what went wrong; OK (0) is no error")
    checks.text("error.message", error.message, checks.limits.message_length)
    if not checks.count("error.details", len(error.details), ERROR_DETAILS):
        return Error(error.code, error.message)
    if sum(len(detail.type_url) + len(detail.value) for detail in error.details) > checks.limits.error_details_bytes:
        checks.fault("error.details", f"must take at most {checks.limits.error_details_bytes} bytes")
        return Error(error.code, error.message)
    for index, detail in enumerate(error.details):
        if not _is_known(detail):
            checks.fault(f"error.details[{index}]", MUST_BE_DETAIL)
    details = tuple((detail.type_url, detail.value) for detail in error.details)
    return Error(error.code, error.message, details)


def _is_known(detail: any_pb2.Any) -> bool:
    kind = DETAIL_TYPES.get(detail.type_url)
    if kind is None:
        return False
    try:
        parsed = kind.FromString(detail.value)
        if isinstance(parsed, error_details_pb2.RetryInfo):
            # A duration that JSON cannot show would break every list with this job. All other fields are texts and
            # integers.
            parsed.retry_delay.ToJsonString()
    except (message.DecodeError, ValueError):
        return False
    return True


def cancel(request: pb.CancelJobRequest, checks: Checks, grace_period: int) -> Cancel:
    """CancelJob. `grace_period` (µs): the server's default."""
    if request.HasField("grace_period"):
        grace_period = checks.span("grace_period", request.grace_period)
    return Cancel(checks.text("reason", request.reason, checks.limits.message_length), grace_period)


def set_variables(request: pb.SetVariablesRequest, checks: Checks) -> SetVariables:
    """SetVariables."""
    return SetVariables(_variables(request.variables, checks), _names("remove", request.remove, checks))


def names(request: pb.GetVariablesRequest, checks: Checks) -> tuple[str, ...]:
    """The names that GetVariables requests."""
    return _names("names", request.names, checks)


def _names(field: str, values: Sequence[str], checks: Checks) -> tuple[str, ...]:
    if not checks.count(field, len(values), checks.limits.variables):
        return ()
    wanted = tuple(values)
    for index, name in enumerate(wanted):
        checks.text(f"{field}[]", name, checks.limits.part_length, index, required=True)
    return wanted


def list_filter(request: pb.ListJobsRequest, checks: Checks, session_hash: str | None) -> tuple[Filter, int]:
    """The filter and the page size of ListJobs."""
    limits = checks.limits
    statuses = set()
    checks.count("statuses", len(request.statuses), 2 * len(Status))
    for index, number in enumerate(request.statuses[: 2 * len(Status)]):
        if number in DOMAIN_STATUSES:
            statuses.add(DOMAIN_STATUSES[number])
        else:
            checks.fault(f"statuses[{index}]", "must be a JobStatus other than JOB_STATUS_UNSPECIFIED")
    wanted = Filter(
        session_hash=session_hash,
        statuses=frozenset(statuses),
        name=checks.text("name", request.name, limits.name_length),
        invoker=checks.text("invoker", request.invoker, limits.invoker_length),
        labels=checks.labels(request.labels),
        stalled=request.stalled if request.HasField("stalled") else None,
    )
    size = checks.not_negative("page_size", request.page_size) or DEFAULT_PAGE_SIZE
    return wanted, min(size, limits.page_size)


def _digest(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()

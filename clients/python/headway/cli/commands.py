"""The commands: each makes one call and prints the reply."""

from __future__ import annotations

import os
import sys
from argparse import ArgumentTypeError, Namespace
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path

from google.protobuf.field_mask_pb2 import FieldMask
from google.rpc.status_pb2 import Status

from headway.cli import argument_types, bulk, formatting, job_selection
from headway.cli.call_context import Caller
from headway.cli.create import create as create_or_find
from headway.cli.create import retry
from headway.cli.escaping import safe, warn
from headway.cli.exit_codes import OK
from headway.cli.parser import CODES
from headway.ids import uuid7
from headway.v1 import job_pb2
from headway.v1 import job_service_pb2 as pb


def create(args: Namespace, hw: Caller) -> int:
    request = pb.CreateJobRequest(
        session_id=hw.session,
        # The id is chosen here, so that the channel can repeat the call.
        job_id=uuid7() if args.id is None else args.id,
        name=args.name,
        invoker=args.invoker,
        size=args.size,
        unit=args.unit,
        labels=dict(args.label),
        pending=args.pending,
        key=args.key,
    )
    if args.heartbeat_timeout is not None:
        request.heartbeat_timeout.CopyFrom(argument_types.to_duration(args.heartbeat_timeout))
    if args.stall_timeout is not None:
        request.stall_timeout.CopyFrom(argument_types.to_duration(args.stall_timeout))
    if args.retention is not None:
        request.retention.CopyFrom(argument_types.to_duration(args.retention))
    return create_or_find(request, hw)


def start(args: Namespace, hw: Caller) -> int:
    request = pb.StartJobRequest(session_id=hw.session, job_id=args.job, take_over=args.take_over)
    job = hw.stub.StartJob(request, timeout=hw.call_timeout)
    hw.show(job, str(job.attempt))
    return OK


def get(args: Namespace, hw: Caller) -> int:
    request = pb.GetJobRequest(session_id=hw.session, job_id=args.job, after_revision=args.after_revision)
    wait = args.wait or 0.0
    if wait:
        request.wait.CopyFrom(argument_types.to_duration(wait))
    job = hw.stub.GetJob(request, timeout=hw.call_timeout + min(wait, 60))
    hw.show(job, "\n".join(formatting.details(job, datetime.now(UTC))))
    return OK


def list_jobs(args: Namespace, hw: Caller) -> int:
    request = job_selection.filters(args, hw.session)
    listed = pb.ListJobsResponse()
    while True:
        request.page_size = min(1000, args.limit - len(listed.jobs)) if args.limit else 1000
        page = hw.stub.ListJobs(request, timeout=hw.call_timeout)
        listed.jobs.extend(page.jobs)
        request.page_token = listed.next_page_token = page.next_page_token
        if not page.next_page_token or len(listed.jobs) >= args.limit > 0:
            break
    hw.show(
        listed, "\n".join(formatting.table(listed.jobs)) if listed.jobs else "", if_empty="no such jobs in this session"
    )
    if not hw.json and listed.next_page_token:
        these = "this one" if args.limit == 1 else f"these {args.limit}"
        warn(f"there are more than {these}; see them with --limit 0")
    return OK


def report(args: Namespace, hw: Caller) -> int:
    request = pb.ReportProgressRequest(
        session_id=hw.session,
        job_id=args.job,
        attempt=args.attempt,
        part=args.part,
        sequence=args.sequence,
        size=args.size,
        message=args.message,
        record_errors=[
            job_pb2.RecordError(record=record, code=code, message=message) for record, code, message in args.error
        ],
    )
    for name, count in args.count:
        request.counters[name] += count
    if args.progress is not None and args.advance is not None:
        raise ArgumentTypeError("--progress and --advance exclude each other")
    if args.progress is not None:
        request.progress = args.progress
    if args.advance is not None:
        request.advance = args.advance
    if args.set:
        request.variables.CopyFrom(argument_types.to_struct(dict(args.set)))
    reply = hw.send(lambda timeout: hw.stub.ReportProgress(request, timeout=timeout), request)
    if reply is None:
        hw.show_kept()
        return OK
    hw.show(reply)
    if reply.cancellation.requested:
        reason = f" ({reply.cancellation.reason})" if reply.cancellation.reason else ""
        advice = "stop, then end it with `headway fail --code CANCELLED`"
        warn(f"the job is to be cancelled{reason}: {advice}")
    return OK


def finish(args: Namespace, hw: Caller) -> int:
    request = pb.FinishJobRequest(session_id=hw.session, job_id=args.job, attempt=args.attempt)
    given = args.results
    if args.results_file is not None:
        if given is not ...:
            raise ArgumentTypeError("--results and --results-file exclude each other")
        given = argument_types.results(_read(args.results_file))
    if given is not ...:
        request.results.CopyFrom(argument_types.to_value(given))
    hw.show_job(hw.send(lambda timeout: hw.stub.FinishJob(request, timeout=timeout), request))
    return OK


def fail(args: Namespace, hw: Caller) -> int:
    error = Status(code=CODES.index(args.code) + 1, message=args.message)

    def one(job_id: str) -> None:
        request = pb.FailJobRequest(session_id=hw.session, job_id=job_id, attempt=args.attempt, error=error)
        hw.show_job(hw.send(lambda timeout: hw.stub.FailJob(request, timeout=timeout), request))

    return bulk.each(args, hw, one, "ended", job_selection.UNENDED)


def cancel(args: Namespace, hw: Caller) -> int:
    request = pb.CancelJobRequest(session_id=hw.session, reason=args.reason)
    if args.grace is not None:
        request.grace_period.CopyFrom(argument_types.to_duration(args.grace))

    def one(job_id: str) -> None:
        request.job_id = job_id
        hw.show_job(hw.stub.CancelJob(request, timeout=hw.call_timeout))

    return bulk.each(args, hw, one, "cancelled", job_selection.UNENDED)


def set_variables(args: Namespace, hw: Caller) -> int:
    if not (args.set or args.remove):
        raise ArgumentTypeError("nothing to set; write NAME=JSON or --remove NAME")
    variables = argument_types.to_struct(dict(args.set))
    request = pb.SetVariablesRequest(session_id=hw.session, job_id=args.job, variables=variables, remove=args.remove)
    kept = pb.ReportProgressRequest(session_id=hw.session, job_id=args.job, variables=variables)
    job = hw.send(lambda timeout: hw.stub.SetVariables(request, timeout=timeout), kept)
    if job is not None:
        hw.show(job)
        return OK
    if args.remove:
        warn("the removal is lost: offline mode saves only variables that are set")
    hw.show_kept()
    return OK


def update(args: Namespace, hw: Caller) -> int:
    fields = {name: getattr(args, name) for name in ("name", "invoker", "size", "unit")}
    given = {name: value for name, value in fields.items() if value is not None}
    if not given:
        raise ArgumentTypeError("nothing to change; write --name, --invoker, --size or --unit")
    request = pb.UpdateJobRequest(
        session_id=hw.session, job=job_pb2.Job(id=args.job, **given), update_mask=FieldMask(paths=given)
    )
    hw.show_job(hw.send(lambda timeout: hw.stub.UpdateJob(request, timeout=timeout), request))
    return OK


def show_variables(args: Namespace, hw: Caller) -> int:
    request = pb.GetVariablesRequest(session_id=hw.session, job_id=args.job, names=args.names)
    reply = hw.stub.GetVariables(request, timeout=hw.call_timeout)
    fields = sorted(reply.variables.fields.items())
    lines = [f"{safe(name)}={formatting.value_json(value)}" for name, value in fields]
    hw.show(reply, "\n".join(lines), if_empty="no such variables")
    return OK


def show_results(args: Namespace, hw: Caller) -> int:
    request = pb.GetResultsRequest(session_id=hw.session, job_id=args.job)
    reply = hw.stub.GetResults(request, timeout=hw.call_timeout)
    shown = formatting.value_json(reply.results, indent=2) if reply.HasField("results") else ""
    hw.show(reply, shown, if_empty="no results: the job is not COMPLETED, or was finished without any")
    return OK


def show_errors(args: Namespace, hw: Caller) -> int:
    request = pb.ListRecordErrorsRequest(session_id=hw.session, job_id=args.job)
    reply = hw.stub.ListRecordErrors(request, timeout=hw.call_timeout)
    unseen = reply.total - len(reply.first) - len(reply.last)
    # With fewer than 200 errors, the last ones overlap the first ones.
    last = reply.last[max(0, -unseen) :]
    lines = [formatting.record_error(error) for error in reply.first]
    if unseen > 0:
        lines.append(f"… {formatting.number(unseen)} more …")
    lines += [formatting.record_error(error) for error in last]
    hw.show(reply, "\n".join(lines), if_empty="no record errors")
    return OK


def clear(args: Namespace, hw: Caller) -> int:
    def one(job_id: str) -> None:
        request = pb.ClearJobRequest(session_id=hw.session, job_id=job_id, allow_missing=args.allow_missing)
        hw.show(hw.stub.ClearJob(request, timeout=hw.call_timeout))

    return bulk.each(args, hw, one, "removed", bulk.ENDED)


def watch_jobs(args: Namespace, hw: Caller) -> int:
    from headway.cli.watch import follow
    from headway.client import Client

    if args.job and job_selection.are_given(args):
        raise ArgumentTypeError("give either an id, or --active and filters, not both")
    only = job_selection.filters(args, hw.session) if job_selection.are_given(args) else None
    unreachable_timeout = follow.UNREACHABLE_TIMEOUT if hw.timeout is None else hw.timeout
    with Client(hw.target) as client:
        changes = follow.Watch(client, hw.session, args.job, unreachable_timeout=unreachable_timeout, only=only)
        if hw.json:
            return follow.as_json(changes)
        if args.plain or not _on_terminal():
            return follow.as_lines(changes)
        from headway.cli.watch.live_display import as_display

        return as_display(changes)


def wait(args: Namespace, hw: Caller) -> int:
    from headway.cli.watch.wait import wait_for

    return wait_for(args.jobs, hw.target, hw.session, hw.timeout, as_json=hw.json)


COMMANDS: dict[str, Callable[[Namespace, Caller], int]] = {
    "create": create,
    "retry": retry,
    "start": start,
    "get": get,
    "list": list_jobs,
    "watch": watch_jobs,
    "wait": wait,
    "report": report,
    "finish": finish,
    "fail": fail,
    "cancel": cancel,
    "set": set_variables,
    "update": update,
    "vars": show_variables,
    "results": show_results,
    "errors": show_errors,
    "clear": clear,
}


def _on_terminal() -> bool:
    """Whether the output goes to a terminal with cursor control."""
    out = sys.stdout
    if out is None or not out.isatty() or os.environ.get("TERM", "dumb") == "dumb":
        return False
    return (out.encoding or "").lower().startswith("utf")


def _read(name: str) -> str:
    try:
        data = sys.stdin.buffer.read() if name == "-" else Path(name).read_bytes()
        return data.decode("utf-8-sig")
    except OSError as error:
        raise ArgumentTypeError(f"cannot read {name}: {error.strerror}") from None
    except UnicodeDecodeError:
        raise ArgumentTypeError(f"{name} is not UTF-8") from None

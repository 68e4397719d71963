"""What must come of a worker and of its job, whatever happens to the tracker in between: the checker of the chaos
table. Each function answers with complaints: sentences, none if all is well."""

from dataclasses import dataclass
from pathlib import Path
from typing import TypeAlias

import grpc

import headway
from headway.v1 import job_pb2
from headway.v1 import job_service_pb2 as pb
from headway.v1.job_service_pb2_grpc import JobServiceStub
from tests.support.caller import plain
from tests.support.chaos_worker import CHECKPOINT, NAME, Plan, call_statistics, checkpoint, errors

CLIENT = str(Path(headway.__file__).parent)
"""Where the client is. A checkout can have its name too."""

LATE = 1.5
"""Seconds that a loaded machine, and no tracker, may make a worker late by."""

CREATED_WITHIN = 1.0
"""Seconds that a worker may wait for its job to be created."""

REASON = "wrong file"
"""Why jobs are cancelled."""

STATUSES = {"finishes": 0, "raises": 1, "killed": -9, "cancelled": 3}
"""The exit status that each ending has."""

ERRORS_KEPT = 100
"""The server keeps so many record errors from either end."""

Facts: TypeAlias = dict[str, object]
"""A job as the server has it, in plain words; empty if it has none."""


@dataclass(slots=True)
class Own:
    """What a worker's process came to."""

    status: int
    stdout: str
    stderr: str
    diary: dict[str, float]
    """The last word of each kind in its diary."""
    ended: float
    """When its process had ended, in monotonic seconds."""


def own_complaints(ending: str, own: Own, plan: Plan, first: int = 0) -> list[str]:
    """About a worker's own result; `first` is the record that it began with."""
    complaints = []
    if own.status != STATUSES[ending]:
        complaints.append(f"its exit status is {own.status}: {own.stderr}")
    done = int(own.diary.get("died" if ending == "killed" else "done", -1))
    right = "".join(f"{n} records\n" for n in range(1000, done + 1, 1000) if n > first)
    right += {"finishes": f"{done} records imported\n", "cancelled": f"cancelled: {REASON}\n"}.get(ending, "")
    if own.stdout != right:
        complaints.append(f"it printed {own.stdout!r}, not {right!r}")
    # What Headway has to say is one line each time, and says who says it.
    said = [line for line in own.stderr.splitlines() if not line.startswith("headway: ")]
    foreign = [line for line in said if CLIENT in line]
    if ending != "raises" and said:
        complaints.append(f"there is something foreign on its standard error: {said}")
    if ending == "raises" and (
        said[:1] != ["Traceback (most recent call last):"]
        or said[-1] != f"ValueError: record {plan.raise_at} is beyond repair"
        or said.count(said[0]) > 1
        or foreign
    ):
        complaints.append(f"its traceback is not its own: {said}")
    waits = {"began": CREATED_WITHIN, "behind": 0.0}
    if ending != "killed":
        # Once for the end of the job, once for that of the connection.
        waits["left"] = 2 * plan.exit_timeout
        own.diary["left"] = own.ended - own.diary.get("ended", 0.0)
        if ending == "finishes" and done != plan.records:
            complaints.append(f"it has done {done} records of {plan.records}")
    for what, bound in waits.items():
        if own.diary.get(what, 0.0) > bound + LATE:
            complaints.append(f"{what}: it waited {own.diary[what]:.1f} s for its tracker")
    return complaints


def expected(ending: str, done: int, size: int) -> Facts:
    """The job of a worker that has come to this end after so many records."""
    wrong = [f"record {7 * number + 3}" for number in range(errors(done))]
    last = done // CHECKPOINT * CHECKPOINT
    facts: Facts = {
        "name": NAME,
        "size": size,
        "unit": "records",
        "attempt": 1,
        "parts": {"": done, "index": done // 10},
        "progress": done + done // 10,
        "counters": call_statistics(done),
        "error_count": len(wrong),
        "first errors": wrong[:ERRORS_KEPT],
        "last errors": wrong[-ERRORS_KEPT:],
        "message": f"record {last}",
        "variables": checkpoint(last),
        "results": None,
        "error": (0, ""),
    }
    match ending:
        case "finishes":
            facts |= {"status": "COMPLETED", "results": {"records": done, **call_statistics(done)}}
        case "raises":
            facts |= {"status": "FAILED", "error": (2, f"ValueError: record {done} is beyond repair")}
        case "cancelled":
            facts |= {"status": "CANCELLED", "error": (1, f"JobCancelled: {REASON}")}
    return facts


def differences(right: Facts, seen: Facts) -> list[str]:
    """Where the job is not as it must be."""
    if not seen:
        return ["the server has no such job"]
    return [
        f"{name} is {seen.get(name)!r}, not {right.get(name)!r}"
        for name in sorted(right.keys() | seen.keys())
        if right.get(name) != seen.get(name)
    ]


def left_complaints(diary: dict[str, float], left: Facts) -> list[str]:
    """About the job that a killed worker has left: it has what was acknowledged, nothing that never was, and with each
    checkpoint all that was counted before."""
    acknowledged, died = int(diary.get("acknowledged", 0)), int(diary["died"])
    parts, counters, variables = left["parts"], left["counters"], left["variables"]
    assert isinstance(parts, dict) and isinstance(counters, dict) and isinstance(variables, dict)
    offset = offset_of(left)
    known = max(acknowledged, offset)
    bounds = {
        # The record that a worker is at is counted when it asks for the next.
        "progress": (max(known - 1, 0), parts.get("", 0), died),
        "counters": (known, sum(counters.values()), died),
        "record errors": (errors(known), left["error_count"], errors(died)),
        "offset": (acknowledged // CHECKPOINT * CHECKPOINT, offset, died),
    }
    complaints = [
        f"{name}: {seen} is left, which is not within {least} and {most}"
        for name, (least, seen, most) in bounds.items()
        if not least <= seen <= most
    ]
    if offset and variables != checkpoint(offset):
        complaints.append(f"the checkpoint is torn: {variables}")
    return complaints


def offset_of(left: Facts) -> int:
    """The record that a successor begins with."""
    variables = left["variables"]
    assert isinstance(variables, dict)
    return int(variables.get("offset", 0))


def look(stub: JobServiceStub, session: str, job_id: str) -> Facts:
    """The job, in plain words."""
    try:
        job = stub.GetJob(pb.GetJobRequest(session_id=session, job_id=job_id), timeout=20)
    except grpc.RpcError as error:
        if error.code() == grpc.StatusCode.NOT_FOUND:
            return {}
        raise
    listed = stub.ListRecordErrors(pb.ListRecordErrorsRequest(session_id=session, job_id=job_id), timeout=20)
    variables = stub.GetVariables(pb.GetVariablesRequest(session_id=session, job_id=job_id), timeout=20)
    results = stub.GetResults(pb.GetResultsRequest(session_id=session, job_id=job_id), timeout=20)
    return {
        "status": job_pb2.JobStatus.Name(job.status).removeprefix("JOB_STATUS_"),
        "name": job.name,
        "size": job.size,
        "unit": job.unit,
        "attempt": job.attempt,
        "parts": dict(job.parts),
        "progress": job.progress,
        "counters": dict(job.counters),
        "error_count": job.error_count,
        "first errors": [error.record for error in listed.first],
        "last errors": [error.record for error in listed.last],
        "message": job.message,
        "variables": plain(variables.variables),
        "results": plain(results.results) if results.HasField("results") else None,
        "error": (job.error.code, job.error.message),
    }

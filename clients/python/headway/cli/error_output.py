"""Shows a refused or unanswered call: one line on standard error, and an exit status."""

from __future__ import annotations

import json
import sys

from headway.cli.escaping import warn
from headway.cli.exit_codes import ERROR, NOT_FOUND, UNAVAILABLE
from headway.errors import HeadwayError


def tell(error: HeadwayError, address: str, *, as_json: bool, job_id: str = "") -> int:
    """Prints the error and returns its exit status. `job_id`: the job, if it is one of several."""
    if as_json:
        return _as_json(error, job_id)
    message, status = _explained(error, address)
    warn(f"{job_id}: {message}" if job_id else message)
    return status


def _explained(error: HeadwayError, address: str) -> tuple[str, int]:
    message = error.message
    match error.code.name:
        case "NOT_FOUND":
            return message, NOT_FOUND
        case "UNAVAILABLE" if "SETTINGS frame" in message or "http1" in message:
            example = "the target is the server's gRPC port, such as 127.0.0.1:50051"
            return f"{address} speaks HTTP, as the port of the page does; {example}", UNAVAILABLE
        case "UNAVAILABLE" if not error.reason:
            start = "start one with `headway serve`, or name another with --target"
            return f"no server answers at {address}; {start}", UNAVAILABLE
        case "UNAVAILABLE":
            return message, UNAVAILABLE
        case "DEADLINE_EXCEEDED":
            return f"{address} did not answer in time; --timeout gives it longer", UNAVAILABLE
        case "UNAUTHENTICATED":
            return f"{message} Set HEADWAY_TOKEN to a token of this server.", ERROR
        case "UNIMPLEMENTED":
            return f"the program at {address} is not a Headway server, or is an older one", ERROR
    # The server's messages name the fields; those of a proxy may not.
    faults = [f"{field}: {fault}" for field, fault in error.fields if field not in message]
    return "; ".join([message, *faults]), ERROR


def _as_json(error: HeadwayError, job_id: str) -> int:
    about: dict[str, object] = {"code": error.code.name, "reason": error.reason, "message": error.message}
    about["fields"] = dict(error.fields)
    if job_id:
        about["job"] = job_id
    if error.retry_after is not None:
        about["retry_after"] = error.retry_after
    if sys.stderr is not None:
        print(json.dumps(about), file=sys.stderr)
    match error.code.name:
        case "NOT_FOUND":
            return NOT_FOUND
        case "UNAVAILABLE" | "DEADLINE_EXCEEDED":
            return UNAVAILABLE
    return ERROR

"""What can go wrong, in domain terms: one exception for each reason a caller is told.

The reasons are those of protos/headway/v1/error_reason.proto, letter for letter; replies.py gives each its gRPC code.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import ClassVar


@dataclass(frozen=True, slots=True)
class Fault:
    """One field of a request that is at fault: its path as in the proto, and a sentence that says what it must be."""

    field: str
    description: str


class JobError(Exception):
    """Base of all. `message` is for people and says what to do; it never holds a session id or text of a caller."""

    reason: ClassVar[str]
    default: ClassVar[str]
    retry_after: float | None = None
    """Seconds after which a retry makes sense, for errors that pass by themselves. Each caller is told a little more,
    so that they do not all return at once."""

    def __init__(self, message: str | None = None, metadata: Mapping[str, str] | None = None) -> None:
        self.message = message or self.default
        self.metadata = metadata or {}
        """What a program may want to know, by name: ids of jobs."""
        super().__init__(self.message)


FAULTS_SHOWN = 10
FIELD_SHOWN = 64
"""Faults, and bytes of a field's path, that an answer names: gRPC carries errors in its headers, 8 KiB in all."""


class InvalidRequest(JobError):
    """All faults of a request at once, or as many as an answer can hold."""

    reason = "INVALID_REQUEST"

    def __init__(self, *faults: Fault) -> None:
        self.faults = tuple(Fault(_shorten(fault.field), fault.description) for fault in faults[:FAULTS_SHOWN])
        texts = [f"{fault.field}: {fault.description}" for fault in self.faults]
        if len(faults) > FAULTS_SHOWN:
            # How many is not known: after so many most checks look no further.
            texts.append("and more")
        super().__init__("; ".join(texts))


def _shorten(text: str) -> str:
    raw = text.encode()
    return text if len(raw) <= FIELD_SHOWN else raw[:FIELD_SHOWN].decode(errors="ignore") + "…"


class MalformedMessage(JobError):
    reason = "MALFORMED_MESSAGE"
    default = "The bytes are not a valid protobuf message of this request; check the schema and that text is UTF-8."


class JobNotFound(JobError):
    reason = "JOB_NOT_FOUND"
    default = "There is no such job in this session."


class JobAlreadyExists(JobError):
    reason = "JOB_ALREADY_EXISTS"
    default = "The session has a job with this id and other parameters; choose another id."


class JobNotEnded(JobError):
    reason = "JOB_NOT_ENDED"
    default = "The job to continue has not ended; call StartJob, with take_over if a worker has it."


class JobAlreadyContinued(JobError):
    """The metadata names the job that does."""

    reason = "JOB_ALREADY_CONTINUED"
    default = "Another job continues this one already; take that over, or continue it."


class JobEnded(JobError):
    reason = "JOB_ENDED"
    default = "The job has ended, and what has ended is never opened again; continue it with a new job."


class JobNotStarted(JobError):
    reason = "JOB_NOT_STARTED"
    default = "The job is PENDING; call StartJob first."


class JobAlreadyStarted(JobError):
    reason = "JOB_ALREADY_STARTED"
    default = "The job has a worker already; set take_over to take it from that worker."


class StaleAttempt(JobError):
    reason = "STALE_ATTEMPT"
    default = "Another worker has taken this job over; stop reporting it."


class JobIdAmbiguous(JobError):
    reason = "JOB_ID_AMBIGUOUS"
    default = "Several sessions have a job with this id; name the session."


class ResumeTokenExpired(JobError):
    reason = "RESUME_TOKEN_EXPIRED"
    default = "Removals since this resume_token are no longer known; watch again without it."


class RevisionMismatch(JobError):
    reason = "REVISION_MISMATCH"
    default = "The job has changed since this revision; read it again and decide anew."


class SessionJobsLimit(JobError):
    reason = "SESSION_JOBS_LIMIT"
    default = "The session has as many jobs as it may; clear some of them."
    retry_after = 60.0


class WatchesLimit(JobError):
    reason = "WATCHES_LIMIT"
    default = "There are as many open watches as there may be; close some, or try again later."
    retry_after = 5.0


class Overloaded(JobError):
    """`wait`: how long (seconds) what is ahead of the call takes; the caller does well to stay away that long."""

    reason = "OVERLOADED"
    default = "The server has more to do than it can in good time; nothing was changed. Try again a little later."
    retry_after = 1.0
    longest = 30.0

    def __init__(self, wait: float = 0.0) -> None:
        super().__init__()
        self.retry_after = min(max(wait, Overloaded.retry_after), Overloaded.longest)


class ServerJobsLimit(JobError):
    reason = "SERVER_JOBS_LIMIT"
    default = "The server stores as many jobs as it may; clear some of them, or ask its operator to raise --max-jobs."
    retry_after = 60.0


class ServerSessionsLimit(JobError):
    reason = "SERVER_SESSIONS_LIMIT"
    default = "The server stores jobs of as many sessions as it may; use a session that has jobs, or clear old jobs."
    retry_after = 60.0


class ConnectionsLimit(JobError):
    reason = "CONNECTIONS_LIMIT"
    default = "The server has as many open connections as it accepts; try again later."
    retry_after = 5.0


class MemoryLimit(JobError):
    reason = "MEMORY_LIMIT"
    default = (
        "The server holds as many bytes for this connection, or for all callers, as it may; "
        "read the answers that are on their way, then send the request again."
    )
    retry_after = 1.0


class StorageFull(JobError):
    reason = "STORAGE_FULL"
    default = "The database has no room left; nothing was changed. Its operator must make room."
    retry_after = 10.0


class DatabaseUnavailable(JobError):
    reason = "DATABASE_UNAVAILABLE"
    default = "The database does not answer; try again. A write can be repeated with its id or sequence."


class ShuttingDown(JobError):
    reason = "SHUTTING_DOWN"
    default = "The server is shutting down; try again."


class StreamExpired(JobError):
    reason = "STREAM_EXPIRED"
    default = "The stream was open long enough; open it again where it ended."


class CredentialsInvalid(JobError):
    reason = "CREDENTIALS_INVALID"
    default = "Send one valid token as metadata 'authorization: Bearer TOKEN'."


class ScopeMissing(JobError):
    reason = "SCOPE_MISSING"
    default = "The caller's token does not allow this call."


class DeadlinePassed(JobError):
    reason = "DEADLINE_PASSED"
    default = "The deadline was over before the call began; nothing was changed."


class MessageTooLarge(JobError):
    reason = "MESSAGE_TOO_LARGE"
    default = "The request is larger than the server takes; send less at once."


class RequestTooSlow(JobError):
    reason = "REQUEST_TOO_SLOW"
    default = "The request did not arrive in time; nothing was changed. Send it again."


class FormatUnsupported(JobError):
    reason = "FORMAT_UNSUPPORTED"
    default = "Send JSON as 'Content-Type: application/json', in UTF-8."


class MethodUnknown(JobError):
    reason = "METHOD_UNKNOWN"
    default = "There is nothing here; methods are called as POST /headway.v1.JobService/METHOD."


class SiteRefused(JobError):
    reason = "SITE_REFUSED"
    default = "The page that calls is not one that this server was told to answer."

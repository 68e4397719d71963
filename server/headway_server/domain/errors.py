"""The errors that callers get: one exception for each reason.

The reasons are spelled as in protos/headway/v1/error_reason.proto. rpc/to_proto.py maps each of them to a gRPC code.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import ClassVar


@dataclass(frozen=True, slots=True)
class Fault:
    """An invalid field of a request: its path as in the proto, and a sentence that says what the field must be."""

    field: str
    description: str


class JobError(Exception):
    """The base class. `message` is for people and says what to do. It has no text of a caller and no session id."""

    reason: ClassVar[str]
    default: ClassVar[str]
    retry_after: float | None = None
    """Seconds after which a retry makes sense, for temporary errors. Replies add a random part, so that callers do not
    all retry at the same time."""

    def __init__(self, message: str | None = None, metadata: Mapping[str, str] | None = None) -> None:
        self.message = message or self.default
        self.metadata = metadata or {}
        """Details for programs, by name: ids of jobs."""
        super().__init__(self.message)


FAULTS_SHOWN = 10
FIELD_SHOWN = 64
"""The most faults in one reply, and the most bytes of a field's path: gRPC sends errors in headers of at most 8 KiB."""


class InvalidRequest(JobError):
    """All faults of a request at once, or as many as a reply can hold."""

    reason = "INVALID_REQUEST"

    def __init__(self, *faults: Fault) -> None:
        self.faults = tuple(Fault(_shorten(fault.field), fault.description) for fault in faults[:FAULTS_SHOWN])
        texts = [f"{fault.field}: {fault.description}" for fault in self.faults]
        if len(faults) > FAULTS_SHOWN:
            # The exact number is not known: most checks stop after this many.
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
    default = "The session already has a job with this id and other parameters; choose another id."


class JobNotEnded(JobError):
    reason = "JOB_NOT_ENDED"
    default = "The job to continue has not ended; call StartJob, with take_over if it has a worker."


class JobAlreadyContinued(JobError):
    """The metadata names the job that continues this one."""

    reason = "JOB_ALREADY_CONTINUED"
    default = "Another job already continues this one; take over that job, or continue it."


class JobEnded(JobError):
    reason = "JOB_ENDED"
    default = "This job has already ended and cannot be changed; continue it with a new job."


class JobNotStarted(JobError):
    reason = "JOB_NOT_STARTED"
    default = "The job is PENDING; call StartJob first."


class JobAlreadyStarted(JobError):
    reason = "JOB_ALREADY_STARTED"
    default = "The job already has a worker; set take_over to replace that worker."


class StaleAttempt(JobError):
    reason = "STALE_ATTEMPT"
    default = "Another worker has taken over this job; stop reporting on it."


class JobIdAmbiguous(JobError):
    reason = "JOB_ID_AMBIGUOUS"
    default = "Several sessions have a job with this id; specify the session."


class ResumeTokenExpired(JobError):
    reason = "RESUME_TOKEN_EXPIRED"
    default = "Removals since this resume_token are no longer known; watch again without it."


class RevisionMismatch(JobError):
    reason = "REVISION_MISMATCH"
    default = "The job has changed since this revision; read it again, then decide again."


class SessionJobsLimit(JobError):
    reason = "SESSION_JOBS_LIMIT"
    default = "The session has reached its limit of jobs; clear some of them."
    retry_after = 60.0


class WatchesLimit(JobError):
    reason = "WATCHES_LIMIT"
    default = "The limit of open watches is reached; close some, or try again later."
    retry_after = 5.0


class Overloaded(JobError):
    """`wait`: how many seconds the calls ahead of this one take. The caller should retry after that time."""

    reason = "OVERLOADED"
    default = "The server is overloaded; nothing was changed. Try again a little later."
    retry_after = 1.0
    longest = 30.0

    def __init__(self, wait: float = 0.0) -> None:
        super().__init__()
        self.retry_after = min(max(wait, Overloaded.retry_after), Overloaded.longest)


class ServerJobsLimit(JobError):
    reason = "SERVER_JOBS_LIMIT"
    default = "The server has reached its limit of jobs; clear some of them, or ask its operator to raise --max-jobs."
    retry_after = 60.0


class ServerSessionsLimit(JobError):
    reason = "SERVER_SESSIONS_LIMIT"
    default = "The server has reached its limit of sessions; use a session that has jobs, or clear old jobs."
    retry_after = 60.0


class ConnectionsLimit(JobError):
    reason = "CONNECTIONS_LIMIT"
    default = "The server has reached its limit of open connections; try again later."
    retry_after = 5.0


class MemoryLimit(JobError):
    reason = "MEMORY_LIMIT"
    default = (
        "The server has reached its limit of memory for this connection or for all callers; "
        "read the replies that are on their way, then send the request again."
    )
    retry_after = 1.0


class StorageFull(JobError):
    reason = "STORAGE_FULL"
    default = "The database is full; nothing was changed. Its operator must free disk space."
    retry_after = 10.0


class DatabaseUnavailable(JobError):
    reason = "DATABASE_UNAVAILABLE"
    default = "The database does not answer; try again. You can repeat a write with the same id or sequence."


class ShuttingDown(JobError):
    reason = "SHUTTING_DOWN"
    default = "The server is shutting down; try again."


class StreamExpired(JobError):
    reason = "STREAM_EXPIRED"
    default = "The stream has reached its maximum duration; open it again where it ended."


class CredentialsInvalid(JobError):
    reason = "CREDENTIALS_INVALID"
    default = "Send one valid token as metadata 'authorization: Bearer TOKEN'."


class ScopeMissing(JobError):
    reason = "SCOPE_MISSING"
    default = "The caller's token does not allow this call."


class DeadlinePassed(JobError):
    reason = "DEADLINE_PASSED"
    default = "The deadline passed before the call began; nothing was changed. Use a longer timeout."


class MessageTooLarge(JobError):
    reason = "MESSAGE_TOO_LARGE"
    default = "The request is larger than the server accepts; send less at once."


class RequestTooSlow(JobError):
    reason = "REQUEST_TOO_SLOW"
    default = "The request did not arrive in time; nothing was changed. Send it again."


class FormatUnsupported(JobError):
    reason = "FORMAT_UNSUPPORTED"
    default = "Send JSON as 'Content-Type: application/json', in UTF-8."


class MethodUnknown(JobError):
    reason = "METHOD_UNKNOWN"
    default = "There is no such path; call methods as POST /headway.v1.JobService/METHOD."


class SiteRefused(JobError):
    reason = "SITE_REFUSED"
    default = "The server does not accept calls from pages of this site."

"""What an error means for the client that sent the report or call."""

import enum

import grpc

from headway.errors import HeadwayError

_GONE = frozenset({"JOB_ENDED", "STALE_ATTEMPT", "JOB_NOT_FOUND", "JOB_ID_AMBIGUOUS"})
_REFUSED = frozenset(
    {
        grpc.StatusCode.INVALID_ARGUMENT,
        grpc.StatusCode.ALREADY_EXISTS,
        grpc.StatusCode.NOT_FOUND,
        grpc.StatusCode.FAILED_PRECONDITION,
        grpc.StatusCode.ABORTED,
    }
)


class Decision(enum.Enum):
    """What to do about an error."""

    STOP = "stop: the server takes no more reports of this job"
    DROP = "drop it: the same request would be refused again"
    RETRY = "retry the same request later"
    RECONNECT = "reconnect and repeat: the connection or a proxy is at fault, and the outcome is unknown"


def judge(error: HeadwayError) -> Decision:
    """Only an error with the reason of a Headway server ends a job or drops a request. A proxy's 404 does not."""
    if error.reason in _GONE:
        return Decision.STOP
    if error.reason == "MALFORMED_MESSAGE":
        # The message was well-formed when it was sent.
        return Decision.RECONNECT
    if error.reason and error.code in _REFUSED:
        return Decision.DROP
    if error.reason and error.code == grpc.StatusCode.RESOURCE_EXHAUSTED:
        return Decision.RETRY
    return Decision.RECONNECT


def is_unauthorized(error: HeadwayError) -> bool:
    """Whether the caller seems to have no right to create a job."""
    return bool(error.reason) and error.code in (
        grpc.StatusCode.UNAUTHENTICATED,
        grpc.StatusCode.PERMISSION_DENIED,
    )


def too_large() -> HeadwayError:
    """The error of a message that is too large to be sent."""
    return HeadwayError(
        grpc.StatusCode.INVALID_ARGUMENT, "The message is too large: 4 MiB is the limit.", reason="INVALID_REQUEST"
    )

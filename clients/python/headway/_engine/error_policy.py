"""What an error means for whoever sent the report or call."""

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

    STOP = "the server wants no more of this job"
    DROP = "the same would be refused again"
    RETRY = "the same will do, later"
    RECONNECT = "nothing is known: the connection or what is behind it is at fault"


def judge(error: HeadwayError) -> Decision:
    """Only what a Headway server says, with a reason, can end something: a proxy's 404 ends nothing."""
    if error.reason in _GONE:
        return Decision.STOP
    if error.reason == "MALFORMED_MESSAGE":
        # It was well-formed when it was sent.
        return Decision.RECONNECT
    if error.reason and error.code in _REFUSED:
        return Decision.DROP
    if error.reason and error.code == grpc.StatusCode.RESOURCE_EXHAUSTED:
        return Decision.RETRY
    return Decision.RECONNECT


def is_unauthorized(error: HeadwayError) -> bool:
    """Whether the caller has no right to create a job, as far as can be seen."""
    return bool(error.reason) and error.code in (
        grpc.StatusCode.UNAUTHENTICATED,
        grpc.StatusCode.PERMISSION_DENIED,
    )


def too_large() -> HeadwayError:
    """For what is not even sent."""
    return HeadwayError(
        grpc.StatusCode.INVALID_ARGUMENT, "It is larger than a message may be.", reason="INVALID_REQUEST"
    )

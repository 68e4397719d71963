package dev.headway;

import io.grpc.Status.Code;

import java.util.List;
import java.util.Set;

/** What an error means for the report or call that failed. */
enum ErrorPolicy {
    /** The server accepts no more of this job. */
    STOP,
    /** The server would refuse the same request again. Leave it out. */
    DROP,
    /** The same request can succeed later. */
    RETRY,
    /**
     * Nothing is known about the request: the connection, or what is behind it, is at fault.
     * Reconnect and repeat.
     */
    RECONNECT;

    private static final Set<String> STOP_REASONS =
            Set.of("JOB_ENDED", "STALE_ATTEMPT", "JOB_NOT_FOUND", "JOB_ID_AMBIGUOUS");
    private static final Set<Code> DROP_CODES =
            Set.of(
                    Code.INVALID_ARGUMENT,
                    Code.ALREADY_EXISTS,
                    Code.NOT_FOUND,
                    Code.FAILED_PRECONDITION,
                    Code.ABORTED);

    /**
     * Trusts only errors that a Headway server sends, with a reason. A proxy's 404 must not end a
     * job.
     */
    static ErrorPolicy of(HeadwayException error) {
        if (STOP_REASONS.contains(error.reason())) {
            return STOP;
        }
        // The message was well-formed when it was sent, so the connection is at fault.
        if (error.reason().isEmpty() || error.reason().equals("MALFORMED_MESSAGE")) {
            return RECONNECT;
        }
        if (DROP_CODES.contains(error.code())) {
            return DROP;
        }
        return error.code() == Code.RESOURCE_EXHAUSTED ? RETRY : RECONNECT;
    }

    /** Whether the caller apparently has no right to create a job. */
    static boolean deniesAccess(HeadwayException error) {
        return !error.reason().isEmpty()
                && (error.code() == Code.UNAUTHENTICATED || error.code() == Code.PERMISSION_DENIED);
    }

    /** The error of a message that is too large to send. */
    static HeadwayException tooLarge() {
        return HeadwayException.of(
                Code.INVALID_ARGUMENT,
                "It is larger than a message may be.",
                "INVALID_REQUEST",
                List.of(),
                null);
    }
}

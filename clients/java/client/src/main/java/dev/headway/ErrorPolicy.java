package dev.headway;

import io.grpc.Status.Code;

import java.util.List;
import java.util.Set;

/** What an error means for whoever sent the report or call. */
enum Verdict {
    /** The server wants no more of this job. */
    GONE,
    /** The same would be refused again. */
    REFUSED,
    /** The same will do, later. */
    LATER,
    /** Nothing is known: the connection or what is behind it is at fault. */
    AWAY;

    private static final Set<String> ENDS =
            Set.of("JOB_ENDED", "STALE_ATTEMPT", "JOB_NOT_FOUND", "JOB_ID_AMBIGUOUS");
    private static final Set<Code> FAULTS =
            Set.of(
                    Code.INVALID_ARGUMENT,
                    Code.ALREADY_EXISTS,
                    Code.NOT_FOUND,
                    Code.FAILED_PRECONDITION,
                    Code.ABORTED);

    /**
     * Only what a Headway server says, with a reason, can end something: a proxy's 404 ends
     * nothing.
     */
    static Verdict of(HeadwayException error) {
        if (ENDS.contains(error.reason())) {
            return GONE;
        }
        // What the server could not read was well-formed when it was sent.
        if (error.reason().isEmpty() || error.reason().equals("MALFORMED_MESSAGE")) {
            return AWAY;
        }
        if (FAULTS.contains(error.code())) {
            return REFUSED;
        }
        return error.code() == Code.RESOURCE_EXHAUSTED ? LATER : AWAY;
    }

    /** Whether the caller has no right to create a job, as far as can be seen. */
    static boolean keepsOut(HeadwayException error) {
        return !error.reason().isEmpty()
                && (error.code() == Code.UNAUTHENTICATED || error.code() == Code.PERMISSION_DENIED);
    }

    /** For what is not even sent. */
    static HeadwayException tooLarge() {
        return HeadwayException.of(
                Code.INVALID_ARGUMENT,
                "It is larger than a message may be.",
                "INVALID_REQUEST",
                List.of(),
                null);
    }
}

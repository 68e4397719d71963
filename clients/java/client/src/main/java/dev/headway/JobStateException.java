package dev.headway;

import io.grpc.Status.Code;

import java.io.Serial;
import java.time.Duration;
import java.util.List;

/**
 * The job's state does not allow this call: it has ended, is not started, or belongs to another
 * worker. See {@link #reason()}.
 */
public final class JobStateException extends HeadwayException {
    @Serial private static final long serialVersionUID = 1L;

    JobStateException(String message, String reason, List<Fault> fields, Duration retryAfter) {
        super(Code.FAILED_PRECONDITION, message, reason, fields, retryAfter);
    }
}

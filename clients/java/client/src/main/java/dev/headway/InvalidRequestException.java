package dev.headway;

import io.grpc.Status.Code;

import java.io.Serial;
import java.time.Duration;
import java.util.List;

/** The request is malformed; {@link #fields()} says where. */
public final class InvalidRequestException extends HeadwayException {
    @Serial private static final long serialVersionUID = 1L;

    InvalidRequestException(
            String message, String reason, List<Fault> fields, Duration retryAfter) {
        super(Code.INVALID_ARGUMENT, message, reason, fields, retryAfter);
    }
}

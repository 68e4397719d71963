package dev.headway;

import io.grpc.Status.Code;

import java.io.Serial;
import java.time.Duration;
import java.util.List;

/** The server, or its database, does not answer. Try again later. */
public final class UnavailableException extends HeadwayException {
    @Serial private static final long serialVersionUID = 1L;

    UnavailableException(String message, String reason, List<Fault> fields, Duration retryAfter) {
        super(Code.UNAVAILABLE, message, reason, fields, retryAfter);
    }
}

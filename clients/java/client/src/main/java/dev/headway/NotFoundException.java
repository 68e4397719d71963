package dev.headway;

import io.grpc.Status.Code;

import java.io.Serial;
import java.time.Duration;
import java.util.List;

/** There is no such job in this session. */
public final class NotFoundException extends HeadwayException {
    @Serial private static final long serialVersionUID = 1L;

    NotFoundException(String message, String reason, List<Fault> fields, Duration retryAfter) {
        super(Code.NOT_FOUND, message, reason, fields, retryAfter);
    }
}

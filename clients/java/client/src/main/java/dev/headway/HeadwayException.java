package dev.headway;

import com.google.protobuf.InvalidProtocolBufferException;
import com.google.rpc.BadRequest;
import com.google.rpc.ErrorInfo;
import com.google.rpc.RetryInfo;

import io.grpc.Metadata;
import io.grpc.Status;
import io.grpc.Status.Code;
import io.grpc.StatusException;
import io.grpc.StatusRuntimeException;

import java.io.Serial;
import java.time.Duration;
import java.util.ArrayList;
import java.util.List;
import java.util.Optional;

/**
 * A call that the server refused, or that did not reach it. Updates of a job never throw it: it
 * comes from creating and reading jobs.
 *
 * <p>Subclasses name the most frequent kinds; {@link #code()} and {@link #reason()} tell the rest.
 */
public class HeadwayException extends RuntimeException {
    @Serial private static final long serialVersionUID = 1L;

    private static final Metadata.Key<byte[]> DETAILS =
            Metadata.Key.of("grpc-status-details-bin", Metadata.BINARY_BYTE_MARSHALLER);

    private final Code code;
    private final String reason;
    private final transient List<Fault> fields;
    private final Duration retryAfter;

    /**
     * An invalid field of the request.
     *
     * @param field its path, such as {@code job_id}
     * @param description what it must be
     */
    public record Fault(String field, String description) {}

    HeadwayException(Code code, String message) {
        this(code, message, "", List.of(), null);
    }

    HeadwayException(
            Code code, String message, String reason, List<Fault> fields, Duration retryAfter) {
        super(message.isEmpty() ? code.name() : message);
        this.code = code;
        this.reason = reason;
        this.fields = fields;
        this.retryAfter = retryAfter;
    }

    /** The gRPC code. */
    public final Code code() {
        return code;
    }

    /**
     * A name of {@code headway.v1.ErrorReason}, such as {@code JOB_ENDED}; empty if the error does
     * not come from a Headway server.
     */
    public final String reason() {
        return reason;
    }

    /** The invalid fields; empty if the server named none. */
    public final List<Fault> fields() {
        return fields == null ? List.of() : fields;
    }

    /** How long the server asks to wait before the next try. */
    public final Optional<Duration> retryAfter() {
        return Optional.ofNullable(retryAfter);
    }

    static HeadwayException of(
            Code code, String message, String reason, List<Fault> fields, Duration retryAfter) {
        return switch (code) {
            case NOT_FOUND -> new NotFoundException(message, reason, fields, retryAfter);
            case INVALID_ARGUMENT ->
                    new InvalidRequestException(message, reason, fields, retryAfter);
            case FAILED_PRECONDITION -> new JobStateException(message, reason, fields, retryAfter);
            case UNAVAILABLE -> new UnavailableException(message, reason, fields, retryAfter);
            default -> new HeadwayException(code, message, reason, fields, retryAfter);
        };
    }

    /** Decodes a google.rpc.Status with its details, as far as they can be read. */
    static HeadwayException of(com.google.rpc.Status status) {
        String reason = "";
        List<Fault> fields = new ArrayList<>();
        Duration retryAfter = null;
        for (var detail : status.getDetailsList()) {
            try {
                if (detail.is(ErrorInfo.class)) {
                    ErrorInfo info = detail.unpack(ErrorInfo.class);
                    reason = info.getDomain().equals("headway") ? info.getReason() : reason;
                } else if (detail.is(BadRequest.class)) {
                    for (var fault : detail.unpack(BadRequest.class).getFieldViolationsList()) {
                        fields.add(new Fault(fault.getField(), fault.getDescription()));
                    }
                } else if (detail.is(RetryInfo.class)) {
                    var delay = detail.unpack(RetryInfo.class).getRetryDelay();
                    retryAfter = Duration.ofSeconds(delay.getSeconds(), delay.getNanos());
                }
            } catch (InvalidProtocolBufferException | ArithmeticException damaged) {
                continue;
            }
        }
        Code code = Status.fromCodeValue(status.getCode()).getCode();
        return of(code, status.getMessage(), reason, List.copyOf(fields), retryAfter);
    }

    /** Decodes an exception of gRPC. */
    static HeadwayException of(Throwable error) {
        if (error instanceof HeadwayException known) {
            return known;
        }
        Metadata trailers = null;
        if (error instanceof StatusRuntimeException refused) {
            trailers = refused.getTrailers();
        } else if (error instanceof StatusException refused) {
            trailers = refused.getTrailers();
        }
        Status status = Status.fromThrowable(error);
        byte[] details = trailers == null ? null : trailers.get(DETAILS);
        if (details != null) {
            try {
                var full = com.google.rpc.Status.parseFrom(details);
                if (full.getCode() == status.getCode().value()) {
                    return of(full);
                }
            } catch (InvalidProtocolBufferException damaged) {
                // The bare status tells the most important part.
            }
        }
        return of(status.getCode(), text(status), "", List.of(), null);
    }

    private static String text(Status status) {
        if (status.getDescription() != null) {
            Throwable cause = status.getCause();
            return cause == null || cause.getMessage() == null
                    ? status.getDescription()
                    : status.getDescription() + ": " + cause.getMessage();
        }
        return status.getCause() == null ? "" : String.valueOf(status.getCause());
    }
}

package dev.headway;

import static org.junit.jupiter.api.Assertions.assertEquals;
import static org.junit.jupiter.api.Assertions.assertInstanceOf;
import static org.junit.jupiter.api.Assertions.assertThrows;

import com.google.protobuf.Any;
import com.google.protobuf.Duration;
import com.google.rpc.BadRequest;
import com.google.rpc.Code;
import com.google.rpc.ErrorInfo;
import com.google.rpc.RetryInfo;
import com.google.rpc.Status;

import io.grpc.protobuf.StatusProto;

import org.junit.jupiter.api.Test;

import java.util.List;
import java.util.Map;
import java.util.Optional;

class HeadwayExceptionTest {
    private static HeadwayException error(Code code, String domain, String reason) {
        ErrorInfo info = ErrorInfo.newBuilder().setDomain(domain).setReason(reason).build();
        var fault =
                BadRequest.FieldViolation.newBuilder().setField("unit").setDescription("too long");
        Status status =
                Status.newBuilder()
                        .setCode(code.getNumber())
                        .setMessage("text")
                        .addDetails(Any.pack(info))
                        .addDetails(
                                Any.pack(BadRequest.newBuilder().addFieldViolations(fault).build()))
                        .addDetails(
                                Any.pack(
                                        RetryInfo.newBuilder()
                                                .setRetryDelay(
                                                        Duration.newBuilder().setNanos(500_000_000))
                                                .build()))
                        .addDetails(
                                Any.newBuilder()
                                        .setTypeUrl("type.googleapis.com/google.rpc.ErrorInfo"))
                        .build();
        return HeadwayException.of((Throwable) StatusProto.toStatusRuntimeException(status));
    }

    @Test
    void detailsAreDecoded() {
        HeadwayException error = error(Code.INVALID_ARGUMENT, "headway", "INVALID_REQUEST");
        assertInstanceOf(InvalidRequestException.class, error);
        assertEquals(io.grpc.Status.Code.INVALID_ARGUMENT, error.code());
        assertEquals("text", error.getMessage());
        assertEquals(List.of(new HeadwayException.Fault("unit", "too long")), error.fields());
        assertEquals(Optional.of(java.time.Duration.ofMillis(500)), error.retryAfter());
    }

    @Test
    void onlyAHeadwayServerEndsSomething() {
        assertEquals(
                ErrorPolicy.DROP,
                ErrorPolicy.of(error(Code.NOT_FOUND, "headway", "SOMETHING_NEW")));
        assertEquals(
                ErrorPolicy.STOP,
                ErrorPolicy.of(error(Code.FAILED_PRECONDITION, "headway", "JOB_ENDED")));
        assertEquals(
                ErrorPolicy.RETRY,
                ErrorPolicy.of(error(Code.RESOURCE_EXHAUSTED, "headway", "OVERLOADED")));
        assertEquals(
                ErrorPolicy.RECONNECT,
                ErrorPolicy.of(error(Code.RESOURCE_EXHAUSTED, "proxy", "QUOTA")));
        assertEquals(
                ErrorPolicy.RECONNECT, ErrorPolicy.of(error(Code.NOT_FOUND, "proxy", "JOB_ENDED")));
        assertEquals(
                ErrorPolicy.RECONNECT,
                ErrorPolicy.of(error(Code.INVALID_ARGUMENT, "headway", "MALFORMED_MESSAGE")));
        assertEquals(
                ErrorPolicy.RECONNECT,
                ErrorPolicy.of(error(Code.UNAVAILABLE, "headway", "SHUTTING_DOWN")));
    }

    @Test
    void targetsAreReadAsTheyStand() {
        Map<String, String> environment =
                Map.of("HEADWAY_TARGET", "https://example.org:443", "HEADWAY_TOKEN", "secret");
        Target target = Target.of(null, null, null, environment);
        assertEquals("example.org:443", target.address());
        assertEquals(true, target.tls());
        assertEquals("secret", target.token());
        assertEquals(-1, target.toString().indexOf("secret"));
        var fault =
                assertThrows(
                        IllegalArgumentException.class,
                        () -> Target.of("h:1", "sesame\n", null, Map.of()));
        assertEquals(-1, fault.getMessage().indexOf("sesame"));
        assertEquals("[::1]:1", Target.of("[::1]:1", null, null, Map.of()).address());
        for (String wrong : List.of("host", "host:0", "host:70000", "ftp://host:1", "a b:1")) {
            assertThrows(
                    IllegalArgumentException.class, () -> Target.of(wrong, null, null, Map.of()));
        }
    }
}

package dev.headway;

import java.time.Duration;

/**
 * Monotonic nanoseconds since the start of this process: always positive, so that 0 can mean "at
 * once".
 */
final class Time {
    static final long SECOND = 1_000_000_000L;

    private static final long ORIGIN = System.nanoTime() - 1;
    private static final long FOR_EVER = Long.MAX_VALUE / 4;

    private Time() {}

    static long now() {
        return System.nanoTime() - ORIGIN;
    }

    /** As nanoseconds; a duration that is too long counts as endless. */
    static long nanos(Duration span) {
        try {
            return Math.min(span.toNanos(), FOR_EVER);
        } catch (ArithmeticException tooLong) {
            return span.isNegative() ? 0 : FOR_EVER;
        }
    }

    static long nanos(com.google.protobuf.Duration span) {
        return nanos(Duration.ofSeconds(span.getSeconds(), span.getNanos()));
    }

    static com.google.protobuf.Duration proto(Duration span) {
        return com.google.protobuf.Duration.newBuilder()
                .setSeconds(
                        span.toSeconds() + (span.isNegative() && span.toNanosPart() > 0 ? 1 : 0))
                .setNanos(
                        span.toNanosPart()
                                - (span.isNegative() && span.toNanosPart() > 0 ? 1_000_000_000 : 0))
                .build();
    }
}

package dev.headway;

import java.security.SecureRandom;
import java.util.concurrent.ThreadLocalRandom;

/** Ids and random durations that a worker can choose on its own. */
final class Ids {
    private static final SecureRandom RANDOM = new SecureRandom();

    private Ids() {}

    /**
     * A UUIDv7 (RFC 9562) as 32 lower-case hexadecimal digits: sorts by time to the millisecond.
     */
    static String uuid7() {
        long high = System.currentTimeMillis() << 16 | 0x7000 | RANDOM.nextInt(1 << 12);
        long low = RANDOM.nextLong() >>> 2 | 1L << 63;
        return String.format("%016x%016x", high, low);
    }

    /**
     * Random nanoseconds between these parts of {@code span}, so that many clients do not retry at
     * the same moment.
     */
    static long chance(double low, double high, long span) {
        return (long) (span * ThreadLocalRandom.current().nextDouble(low, high));
    }
}

package dev.headway;

import java.lang.System.Logger.Level;

/**
 * Knows whether the server answers, and when to try again. The retry delay grows from 0.1 to 5 s,
 * and to 0.5 s while somebody waits for delivery.
 */
final class ConnectionState {
    private static final long FIRST_PAUSE = Time.SECOND / 10;
    private static final long LONGEST_PAUSE = 5 * Time.SECOND;
    private static final long MAX_RETRY_DELAY_WHILE_AWAITED = Time.SECOND / 2;

    private final String address;
    private int tries;
    private int waiting;

    /** Whether the last call got no answer. */
    boolean down;

    /** When to try again. */
    long retryAt;

    ConnectionState(String address) {
        this.address = address;
    }

    /** Adds to the number of callers that wait for delivery; a negative number removes some. */
    void addWaiting(int change, long now) {
        waiting += change;
        if (waiting > 0) {
            retryAt = Math.min(retryAt, now + MAX_RETRY_DELAY_WHILE_AWAITED);
        }
    }

    void answered() {
        if (tries > 1) {
            Log.say(Level.INFO, "headway: " + address + " answers again");
        }
        down = false;
        tries = 0;
        retryAt = 0;
    }

    void failed(HeadwayException error, long now) {
        // All calls in flight fail together. Count that as one failure.
        if (now < retryAt) {
            return;
        }
        down = true;
        long longest = waiting > 0 ? MAX_RETRY_DELAY_WHILE_AWAITED : LONGEST_PAUSE;
        retryAt = now + Ids.chance(0.5, 1.0, Math.min(FIRST_PAUSE << Math.min(tries, 10), longest));
        tries++;
        // A server that only restarts, or moves a stream to another server, is back before the
        // second failure.
        if (tries == 2) {
            Log.say(
                    Level.WARNING,
                    "headway: "
                            + address
                            + " does not answer ("
                            + Log.line(error)
                            + "); the work goes on");
        }
    }
}

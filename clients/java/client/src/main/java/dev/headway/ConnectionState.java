package dev.headway;

import java.lang.System.Logger.Level;

/**
 * Whether the server answers, and when to try it again: pauses grow from 0.1 to 5 s, to 0.5 s if
 * somebody waits for it.
 */
final class Contact {
    private static final long FIRST_PAUSE = Time.SECOND / 10;
    private static final long LONGEST_PAUSE = 5 * Time.SECOND;
    private static final long LONGEST_IN_HASTE = Time.SECOND / 2;

    private final String address;
    private int tries;
    private int waiting;

    /** Whether the server did not answer when last asked. */
    boolean down;

    /** When to ask again. */
    long retryAt;

    Contact(String address) {
        this.address = address;
    }

    /** So many more, or fewer, wait until all is delivered. */
    void hurry(int change, long now) {
        waiting += change;
        if (waiting > 0) {
            retryAt = Math.min(retryAt, now + LONGEST_IN_HASTE);
        }
    }

    void heard() {
        if (tries > 1) {
            Log.say(Level.INFO, "headway: " + address + " answers again");
        }
        down = false;
        tries = 0;
        retryAt = 0;
    }

    void lost(HeadwayException error, long now) {
        // All that was under way fails together; that is one failure.
        if (now < retryAt) {
            return;
        }
        down = true;
        long longest = waiting > 0 ? LONGEST_IN_HASTE : LONGEST_PAUSE;
        retryAt = now + Ids.chance(0.5, 1.0, Math.min(FIRST_PAUSE << Math.min(tries, 10), longest));
        tries++;
        // A server that only restarts, or moves a stream to another, is back before the second
        // failure.
        if (tries == 2) {
            Log.say(
                    Level.WARNING,
                    "headway: "
                            + address
                            + " does not answer ("
                            + Log.words(error)
                            + "); the work goes on");
        }
    }
}

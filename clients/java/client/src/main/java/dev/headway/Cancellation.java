package dev.headway;

import java.time.Instant;
import java.util.Optional;

/**
 * The wish that a job end early.
 *
 * @param reason why, in the words of whom wants it; empty if they gave none
 * @param deadline when the server ends the job itself, if its worker has not by then
 */
public record Cancellation(String reason, Optional<Instant> deadline) {
    static Cancellation of(dev.headway.v1.Cancellation wish) {
        return new Cancellation(
                wish.getReason(),
                wish.hasDeadline()
                        ? Optional.of(
                                Instant.ofEpochSecond(
                                        wish.getDeadline().getSeconds(),
                                        wish.getDeadline().getNanos()))
                        : Optional.empty());
    }
}

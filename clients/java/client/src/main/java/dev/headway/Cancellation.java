package dev.headway;

import java.time.Instant;
import java.util.Optional;

/**
 * A request that a job end early.
 *
 * @param reason the reason given with it; may be empty
 * @param deadline when the server ends the job itself, if its worker has not by then
 */
public record Cancellation(String reason, Optional<Instant> deadline) {
    static Cancellation of(dev.headway.v1.Cancellation cancellation) {
        return new Cancellation(
                cancellation.getReason(),
                cancellation.hasDeadline()
                        ? Optional.of(
                                Instant.ofEpochSecond(
                                        cancellation.getDeadline().getSeconds(),
                                        cancellation.getDeadline().getNanos()))
                        : Optional.empty());
    }
}

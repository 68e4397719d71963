package dev.headway;

import java.io.Serial;
import java.time.Instant;
import java.util.Optional;
import java.util.concurrent.CancellationException;

/**
 * Somebody wants the job to end early. Let it pass: a job that its worker leaves by this ends as
 * CANCELLED.
 */
public final class JobCancelledException extends CancellationException {
    @Serial private static final long serialVersionUID = 1L;

    private final Instant deadline;

    /**
     * By the wish, as {@link Job#throwIfCancelled()} does; public so that a worker can test what it
     * makes of it.
     */
    public JobCancelledException(Cancellation wish) {
        super(wish.reason());
        this.deadline = wish.deadline().orElse(null);
    }

    /** Why, in the words of whom wants it; empty if they gave none. */
    public String reason() {
        return getMessage();
    }

    /** When the server ends the job itself. */
    public Optional<Instant> deadline() {
        return Optional.ofNullable(deadline);
    }
}

package dev.headway;

import java.io.Serial;
import java.time.Instant;
import java.util.Optional;
import java.util.concurrent.CancellationException;

/**
 * Somebody has requested cancellation. Do not catch it: a job that its worker leaves by this
 * exception ends as CANCELLED.
 */
public final class JobCancelledException extends CancellationException {
    @Serial private static final long serialVersionUID = 1L;

    private final Instant deadline;

    /**
     * For a cancellation request, as {@link Job#throwIfCancelled()} throws it; public so that a
     * worker's tests can throw it.
     */
    public JobCancelledException(Cancellation cancellation) {
        super(cancellation.reason());
        this.deadline = cancellation.deadline().orElse(null);
    }

    /** The reason given with the request; may be empty. */
    public String reason() {
        return getMessage();
    }

    /** When the server ends the job itself. */
    public Optional<Instant> deadline() {
        return Optional.ofNullable(deadline);
    }
}

package dev.headway;

import java.util.concurrent.CompletableFuture;
import java.util.concurrent.ExecutionException;
import java.util.concurrent.TimeUnit;
import java.util.concurrent.TimeoutException;

/** Blocks the worker's threads. */
final class Waiting {
    private Waiting() {}

    /**
     * Waits until the future is done, and returns whether it is. An interrupt ends the wait, and
     * the thread stays interrupted. An interrupt before the wait does not end it: an interrupted
     * worker still has to deliver the end of its job.
     */
    static boolean atMost(CompletableFuture<?> future, long nanos) {
        boolean interrupted = Thread.interrupted();
        try {
            future.get(Math.max(nanos, 0), TimeUnit.NANOSECONDS);
        } catch (InterruptedException now) {
            interrupted = true;
        } catch (ExecutionException | TimeoutException ended) {
            // The future tells which of the two.
        } finally {
            if (interrupted) {
                Thread.currentThread().interrupt();
            }
        }
        return future.isDone();
    }
}

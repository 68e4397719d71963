package dev.headway;

import java.util.concurrent.CompletableFuture;
import java.util.concurrent.ExecutionException;
import java.util.concurrent.TimeUnit;
import java.util.concurrent.TimeoutException;

/** Waits of the worker's threads. */
final class Waiting {
    private Waiting() {}

    /**
     * Waits until the future is done, however it ended; whether it is. An interrupt ends the wait,
     * and is left to be seen by the thread; one that came before does not: a worker that was
     * interrupted still has its last words to deliver.
     */
    static boolean atMost(CompletableFuture<?> future, long nanos) {
        boolean interrupted = Thread.interrupted();
        try {
            future.get(Math.max(nanos, 0), TimeUnit.NANOSECONDS);
        } catch (InterruptedException now) {
            interrupted = true;
        } catch (ExecutionException | TimeoutException ended) {
            // Which of the two, the future tells.
        } finally {
            if (interrupted) {
                Thread.currentThread().interrupt();
            }
        }
        return future.isDone();
    }
}

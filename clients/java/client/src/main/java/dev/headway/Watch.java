package dev.headway;

import io.grpc.CallOptions;
import io.grpc.ClientCall;
import io.grpc.Status.Code;
import io.grpc.StatusRuntimeException;
import io.grpc.stub.ClientCalls;

import java.time.Duration;
import java.util.Iterator;
import java.util.NoSuchElementException;
import java.util.concurrent.TimeUnit;

/**
 * What a server tells of a job, or of a session's jobs, as it happens. To be read in one loop, and
 * closed after it:
 *
 * <pre>{@code
 * try (Watch<dev.headway.v1.Job> watch = client.watch(id)) {
 *     for (var job : watch) { … }
 * }
 * }</pre>
 *
 * <p>A connection that breaks is taken up again where it broke off, for as long as it takes. The
 * loop throws {@link NotFoundException} if the job is not there, or is cleared meanwhile, and
 * {@link HeadwayException} with code DEADLINE_EXCEEDED when its time is over. An interrupt ends it
 * with code CANCELLED.
 *
 * @param <T> what arrives
 */
public final class Watch<T> implements Iterable<T>, AutoCloseable {
    private static final long FIRST_PAUSE = Time.SECOND / 5;
    private static final long LONGEST_PAUSE = 5 * Time.SECOND;

    private final Source<T, ?> source;
    private final long end;
    private volatile ClientCall<?, ?> call;
    private volatile boolean closed;
    private boolean begun;

    /** The source of a watch, and how far it was read. */
    abstract static class Source<T, A> {
        /** Opens the call after the last answer. */
        abstract Opened<?, A> open(CallOptions options);

        /** Reads the answer, and remembers where to continue. */
        abstract T heard(A answer);

        /** Whether nothing more can come after it. */
        abstract boolean isLast(T item);
    }

    /** A call and its request. */
    record Opened<Q, A>(ClientCall<Q, A> call, Q request) {
        Iterator<A> begin() {
            return ClientCalls.blockingServerStreamingCall(call, request);
        }
    }

    Watch(Source<T, ?> source, Duration timeout) {
        this.source = source;
        this.end = timeout == null ? Long.MAX_VALUE : Time.now() + Time.nanos(timeout);
    }

    /** The only loop over it. IllegalStateException at the second call. */
    @Override
    public Iterator<T> iterator() {
        if (begun) {
            throw new IllegalStateException("A watch is read once; open another.");
        }
        begun = true;
        return new Loop<>(source);
    }

    /** Ends the watch, and a loop over it in another thread. */
    @Override
    public void close() {
        closed = true;
        ClientCall<?, ?> open = call;
        if (open != null) {
            open.cancel("no longer needed", null);
        }
    }

    private final class Loop<A> implements Iterator<T> {
        private final Source<T, A> from;
        private Iterator<A> answers;
        private T next;
        private T last;
        private int tries;

        Loop(Source<T, A> from) {
            this.from = from;
        }

        @Override
        public boolean hasNext() {
            while (next == null && !closed && (last == null || !from.isLast(last))) {
                try {
                    if (answers == null) {
                        answers = open();
                    }
                    if (!answers.hasNext()) {
                        return false;
                    }
                    tries = 0;
                    next = from.heard(answers.next());
                } catch (StatusRuntimeException error) {
                    answers = null;
                    if (!closed) {
                        pause(HeadwayException.of(error));
                    }
                }
            }
            return next != null;
        }

        @Override
        public T next() {
            if (!hasNext()) {
                throw new NoSuchElementException();
            }
            last = next;
            next = null;
            if (from.isLast(last)) {
                close();
            }
            return last;
        }

        private Iterator<A> open() {
            CallOptions options = CallOptions.DEFAULT;
            if (end != Long.MAX_VALUE) {
                options =
                        options.withDeadlineAfter(
                                Math.max(end - Time.now(), 0), TimeUnit.NANOSECONDS);
            }
            Opened<?, A> opened = from.open(options);
            Iterator<A> begun = opened.begin();
            call = opened.call();
            if (closed) {
                // Meanwhile, in another thread.
                call.cancel("no longer needed", null);
            }
            return begun;
        }

        private void pause(HeadwayException error) {
            if (Time.now() >= end || error.code() == Code.DEADLINE_EXCEEDED) {
                throw new HeadwayException(
                        Code.DEADLINE_EXCEEDED, "The job has not ended in time.");
            }
            boolean broken = error.code() == Code.UNAVAILABLE || error.code() == Code.CANCELLED;
            if (!broken || Thread.currentThread().isInterrupted()) {
                throw error;
            }
            if (error.reason().equals("STREAM_EXPIRED") && tries == 0) {
                return;
            }
            long longest = Math.min(FIRST_PAUSE << Math.min(tries++, 6), LONGEST_PAUSE);
            if (!Connection.slept(Math.min(Ids.chance(0.5, 1.0, longest), end - Time.now()))) {
                throw error;
            }
        }
    }
}

package dev.headway;

import dev.headway.v1.JobServiceGrpc;
import dev.headway.v1.JobServiceGrpc.JobServiceBlockingStub;

import io.grpc.ChannelCredentials;
import io.grpc.ConnectivityState;
import io.grpc.ManagedChannel;
import io.grpc.Status.Code;
import io.grpc.StatusRuntimeException;

import java.time.Duration;
import java.util.concurrent.TimeUnit;
import java.util.function.Function;

/**
 * What the clients of all sessions of one connection share: the engine, and a channel for calls
 * that wait.
 */
final class Connection {
    private static final int MAX_CALL_ATTEMPTS = 5;
    private static final long FIRST_PAUSE = Time.SECOND / 10;
    private static final long LONGEST_PAUSE = 2 * Time.SECOND;

    final Target target;
    final ChannelCredentials credentials;
    final Engine engine;
    final Duration callTimeout;

    private ManagedChannel channel;
    private boolean closed;

    Connection(Target target, Duration exitTimeout, Duration callTimeout) {
        this.target = target;
        this.credentials = Channels.credentials(target);
        this.engine = new Engine(target, credentials, exitTimeout);
        this.callTimeout = callTimeout;
        engine.inbox.hold(1);
    }

    long exitNanos() {
        return Time.nanos(engine.exitTimeout);
    }

    synchronized void requireOpen() {
        if (closed) {
            throw new IllegalStateException("The client is closed.");
        }
    }

    /** The channel. A channel that delays its next connection is replaced by a new one. */
    synchronized ManagedChannel channel() {
        requireOpen();
        if (channel != null && channel.getState(false) == ConnectivityState.TRANSIENT_FAILURE) {
            channel.shutdown();
            channel = null;
        }
        if (channel == null) {
            channel = Channels.open(target, credentials, false);
        }
        return channel;
    }

    /** Makes a call that must not be repeated automatically. */
    <A> A once(Function<JobServiceBlockingStub, A> call) {
        return attempt(call, Time.nanos(callTimeout));
    }

    /** Makes a call that is safe to repeat, up to 5 times while the server is UNAVAILABLE. */
    <A> A repeatedly(Function<JobServiceBlockingStub, A> call) {
        long end = Time.now() + Time.nanos(callTimeout);
        long pause = FIRST_PAUSE;
        for (int tries = 1; ; tries++) {
            try {
                return attempt(call, end - Time.now());
            } catch (HeadwayException error) {
                long rest = Ids.chance(0.5, 1.0, pause);
                if (error.code() != Code.UNAVAILABLE
                        || tries == MAX_CALL_ATTEMPTS
                        || Time.now() + rest >= end
                        || !slept(rest)) {
                    throw error;
                }
                pause = Math.min(pause * 5 / 2, LONGEST_PAUSE);
            }
        }
    }

    /** Makes a call that waits for its answer at most so many nanoseconds. */
    <A> A attempt(Function<JobServiceBlockingStub, A> call, long nanos) {
        try {
            return call.apply(
                    JobServiceGrpc.newBlockingStub(channel())
                            .withDeadlineAfter(nanos, TimeUnit.NANOSECONDS));
        } catch (StatusRuntimeException error) {
            throw HeadwayException.of(error);
        }
    }

    /** False if the thread was interrupted. The thread stays interrupted. */
    static boolean slept(long nanos) {
        try {
            TimeUnit.NANOSECONDS.sleep(nanos);
            return true;
        } catch (InterruptedException now) {
            Thread.currentThread().interrupt();
            return false;
        }
    }

    void close() {
        synchronized (this) {
            if (closed) {
                return;
            }
            closed = true;
            if (channel != null) {
                channel.shutdownNow();
            }
        }
        Delivery.close(engine);
    }
}

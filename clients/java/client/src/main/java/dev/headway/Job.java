package dev.headway;

import com.google.protobuf.FieldMask;
import com.google.protobuf.Message;

import dev.headway.v1.CreateJobRequest;
import dev.headway.v1.FailJobRequest;
import dev.headway.v1.FinishJobRequest;
import dev.headway.v1.JobStatus;
import dev.headway.v1.UpdateJobRequest;

import io.grpc.Status.Code;

import java.time.Duration;
import java.util.List;
import java.util.Map;
import java.util.Optional;
import java.util.concurrent.CancellationException;
import java.util.concurrent.CompletableFuture;
import java.util.concurrent.ConcurrentHashMap;
import java.util.concurrent.atomic.AtomicBoolean;

/**
 * A job as its worker sees it; made by {@link HeadwayClient#create}, {@code run}, {@code call},
 * {@code resume} and {@code fetch}. It is also the meter of its part "".
 *
 * <p>A background thread sends updates, at the pace that the server asks for. Updates never wait,
 * and never throw because the server is unreachable or refuses them: the logger {@code headway}
 * warns of that.
 *
 * <p>The end of a job waits until the server has stored it, at most the client's exit timeout, and
 * not while the server is unreachable. The rest goes on in the background. Updates after the end
 * are ignored.
 */
public final class Job extends Meter implements AutoCloseable {
    private static final Object UNSET = new Object();

    private final HeadwayClient client;
    private final JobState jobState;
    private final AtomicBoolean ended = new AtomicBoolean();
    private final AtomicBoolean joined = new AtomicBoolean();
    private final Map<String, Optional<Object>> known = new ConcurrentHashMap<>();
    private volatile Object results = UNSET;

    /** A worker's job: it sends heartbeats. */
    static Job inHand(HeadwayClient client, dev.headway.v1.Job state) {
        boolean pending = state.getStatus() == JobStatus.JOB_STATUS_PENDING;
        long heartbeat = pending ? -1 : Time.nanos(state.getHeartbeatTimeout());
        Job job = new Job(client, state, heartbeat, !pending);
        job.joined.set(true);
        return job;
    }

    /** A job that was only fetched: it is reported from its first change on. */
    static Job lookedAt(HeadwayClient client, dev.headway.v1.Job state, boolean started) {
        Job job = new Job(client, state, -1, started);
        job.beforeFirst(() -> job.join());
        return job;
    }

    /** A new job. Its creator works on it; a pending one waits for another worker. */
    static Job created(HeadwayClient client, CreateJobRequest request) {
        dev.headway.v1.Job state = NewJob.described(request);
        long heartbeat = request.getPending() ? -1 : Time.nanos(request.getHeartbeatTimeout());
        Job job = new Job(client, state, heartbeat, false);
        job.joined.set(true);
        return job;
    }

    private Job(HeadwayClient client, dev.headway.v1.Job state, long heartbeat, boolean started) {
        super("", state.getPartsOrDefault("", 0));
        this.client = client;
        this.jobState = new JobState(client.session(), state, this, heartbeat, started);
    }

    /** 32 hexadecimal digits, chosen by this client. */
    public String id() {
        return jobState.id();
    }

    /** The status that the server last reported; {@link #refresh()} renews it. */
    public Status status() {
        return Status.of(jobState.state());
    }

    /**
     * The server's last description of the job, including the progress of all parts; {@link
     * #refresh()} renews it.
     */
    public dev.headway.v1.Job snapshot() {
        return jobState.state();
    }

    /**
     * The number of this worker: 1, and one more after each take-over; 0 before the server has
     * answered.
     */
    public int attempt() {
        return jobState.attempt();
    }

    /** Describes the job to people. */
    public String name() {
        return jobState.state().getName();
    }

    /** Sets the job's description: the first 256 characters. */
    public void name(String text) {
        String name = Values.clean(text, NewJob.MAX_NAME_LENGTH);
        jobState.change(job -> job.setName(name));
        update(dev.headway.v1.Job.newBuilder().setName(name), "name");
    }

    /** Who or what started the job. */
    public String invoker() {
        return jobState.state().getInvoker();
    }

    /** Sets who or what started the job: the first 256 characters. */
    public void invoker(String text) {
        String invoker = Values.clean(text, NewJob.MAX_NAME_LENGTH);
        jobState.change(job -> job.setInvoker(invoker));
        update(dev.headway.v1.Job.newBuilder().setInvoker(invoker), "invoker");
    }

    /** Names what is counted: {@code records}. */
    public String unit() {
        return jobState.state().getUnit();
    }

    /** The amount of work, in units; 0 = not known. */
    public long size() {
        Long said = sizeSaid();
        return said == null ? jobState.state().getSize() : said;
    }

    /** Sets the amount of work, in units; 0 = not known. */
    public void size(long units) {
        size(Long.valueOf(Math.max(units, 0)));
    }

    /**
     * The meter of one part, for a thread or process that shares the job. Its progress adds to the
     * job's. Names have at most 128 characters, a job has at most 256 parts.
     */
    public Meter part(String name) {
        join();
        return jobState.part(Values.clean(name, 128));
    }

    @Override
    public void set(Map<String, ?> variables) {
        remember(variables);
        super.set(variables);
    }

    @Override
    public void checkpoint(Map<String, ?> variables) {
        remember(variables);
        super.checkpoint(variables);
    }

    /**
     * A variable, null if it was never set. Variables that this process set or took over come from
     * memory. For others it asks the server; HeadwayException if that fails.
     */
    public Object get(String name) {
        Optional<Object> value = known.get(name);
        return value != null ? value.orElse(null) : client.variables(id(), name).get(name);
    }

    /**
     * The results that were set. Of a fetched job they are the results that it had, null unless it
     * was COMPLETED.
     */
    public Object results() {
        return results == UNSET ? null : results;
    }

    /**
     * Sets the job's results before its end: usually a map, any JSON value, at most 1 MiB as JSON.
     */
    public void results(Object results) {
        this.results = results;
    }

    // Signals.

    /** Whether somebody has requested cancellation, as far as the server has reported. */
    public boolean isCancelled() {
        return jobState.cancellation != null;
    }

    /**
     * Throws {@link JobCancelledException} after a cancellation request. Otherwise it costs next to
     * nothing.
     */
    public void throwIfCancelled() {
        Cancellation cancellation = jobState.cancellation;
        if (cancellation != null) {
            throw new JobCancelledException(cancellation);
        }
    }

    /**
     * Done after a cancellation request. Dependent actions run in a thread of their own. Each call
     * gives a future that belongs to the caller, and is kept until then: in a loop use {@link
     * #isCancelled()}.
     */
    public CompletableFuture<Cancellation> cancelled() {
        return jobState.cancelled.copy();
    }

    /**
     * Throws if the server accepts no more reports of this worker: {@link JobStateException} if
     * another worker has taken the job over (reason STALE_ATTEMPT), or it has ended elsewhere
     * (JOB_ENDED); {@link NotFoundException} if it was cleared.
     */
    public void throwIfStopped() {
        HeadwayException error = jobState.error;
        if (error != null) {
            throw HeadwayException.of(
                    error.code(),
                    error.getMessage(),
                    error.reason(),
                    error.fields(),
                    error.retryAfter().orElse(null));
        }
    }

    /**
     * Done with the exception that {@link #throwIfStopped()} throws; otherwise as {@link
     * #cancelled()}.
     */
    public CompletableFuture<HeadwayException> stopped() {
        return jobState.stopped.copy();
    }

    // The end.

    /** Ends the job as COMPLETED, with the results that were set, if any. */
    public void finish() {
        FinishJobRequest.Builder request =
                FinishJobRequest.newBuilder().setSessionId(jobState.session).setJobId(id());
        if (results != UNSET) {
            request.setResults(Values.toValue(results));
        }
        end(request.build());
    }

    /**
     * Ends the job as COMPLETED, with these results: usually a map, any JSON value, at most 1 MiB
     * as JSON.
     */
    public void finish(Object results) {
        results(results);
        finish();
    }

    /**
     * Ends the job as FAILED, with "Type: message" as its error; as CANCELLED for {@link
     * JobCancelledException}, any other {@link CancellationException} and {@link
     * InterruptedException}.
     */
    public void fail(Throwable error) {
        boolean cancelled =
                error instanceof CancellationException || error instanceof InterruptedException;
        Class<?> named = error.getClass();
        while (named.getSimpleName().isEmpty()) {
            // An anonymous class counts as its superclass.
            named = named.getSuperclass();
        }
        String type = named.getSimpleName();
        String text = message(error);
        fail(
                text == null || text.isEmpty() ? type : type + ": " + text,
                cancelled ? Code.CANCELLED : Code.UNKNOWN);
    }

    private static String message(Throwable error) {
        try {
            return error.getMessage();
        } catch (RuntimeException fault) {
            return null;
        }
    }

    /** Ends the job as FAILED, with this text (its first 1,024 characters) as its error. */
    public void fail(String message) {
        fail(message, Code.UNKNOWN);
    }

    /**
     * Ends the job as FAILED, or with {@link Code#CANCELLED} as CANCELLED. IllegalArgumentException
     * for OK, which is no error.
     */
    public void fail(String message, Code code) {
        if (code == Code.OK) {
            throw new IllegalArgumentException("A job does not fail with OK.");
        }
        end(
                FailJobRequest.newBuilder()
                        .setSessionId(jobState.session)
                        .setJobId(id())
                        .setError(
                                com.google.rpc.Status.newBuilder()
                                        .setCode(code.value())
                                        .setMessage(Values.clean(message, 1024)))
                        .build());
    }

    /**
     * Ends the job if it has not ended yet. A block that is left without {@code finish} or {@code
     * fail} has failed, so the job is FAILED, or CANCELLED after a cancellation request. Only
     * {@link HeadwayClient#run} and {@link HeadwayClient#call} can tell the server why.
     *
     * <p>A job that was only fetched does not end: what was reported of it here is delivered, then
     * it is released.
     */
    @Override
    public void close() {
        Cancellation cancellation = jobState.cancellation;
        if (jobState.heartbeat < 0) {
            letGo();
        } else if (cancellation != null) {
            fail(new JobCancelledException(cancellation));
        } else {
            fail("left without finish() or fail()");
        }
    }

    /**
     * Waits until everything reported so far is stored, at most the client's exit timeout. Returns
     * whether it is.
     */
    public boolean flush() {
        return flush(client.connection().engine.exitTimeout);
    }

    /** Waits until everything reported so far is stored, at most so long. Returns whether it is. */
    public boolean flush(Duration timeout) {
        List<JobState> late =
                Delivery.waitDelivered(
                        client.connection().engine, List.of(jobState), Time.nanos(timeout));
        return late.isEmpty() && jobState.error == null;
    }

    // Calls to the server.

    /** Asks the server for the job's current state. HeadwayException if that fails. */
    public Job refresh() {
        jobState.state(client.get(id()));
        if (joined.get()) {
            // The job may no longer be PENDING, so that reports may be sent.
            client.connection().engine.submit(jobState);
        }
        loadResults();
        return this;
    }

    /** Asks the job's worker to end early; see {@link HeadwayClient#cancel}. */
    public void cancel(String reason) {
        jobState.state(client.cancel(id(), reason));
    }

    /**
     * Removes the job and everything that belongs to it. Nothing more is reported. HeadwayException
     * if that fails.
     */
    public void clear() {
        if (!ended.getAndSet(true)) {
            joined.set(true);
            client.connection().engine.submit(jobState, PendingCall.release(false));
        }
        client.clear(id());
    }

    /**
     * Waits until the job has ended, no matter who ends it, and returns its final state; see {@link
     * HeadwayClient#await}.
     */
    public dev.headway.v1.Job await(Duration timeout) {
        jobState.state(client.await(id(), timeout));
        return jobState.state();
    }

    /** The id, the name and the status. */
    @Override
    public String toString() {
        String status = jobState.state().getStatus().name().replaceFirst("^JOB_STATUS_", "");
        return "Headway job " + id() + " \"" + name() + "\" " + status;
    }

    // Inside.

    /** Creates the job at the server; HeadwayException if the server refuses it at once. */
    void begin(CreateJobRequest request, long timeout) {
        PendingCall pendingCall = PendingCall.call(request);
        client.connection().engine.submit(jobState, pendingCall);
        Waiting.atMost(pendingCall.tried, timeout);
        if (pendingCall.answer.isCompletedExceptionally()) {
            throwIfStopped();
        }
    }

    /** Begins to send heartbeats and reports of a job that was taken over. */
    void begin(Map<String, Object> variables) {
        remember(variables);
        client.connection().engine.submit(jobState);
    }

    void loadResults() {
        if (jobState.state().getStatus() == JobStatus.JOB_STATUS_COMPLETED && results == UNSET) {
            results = client.results(id());
        }
    }

    @Override
    void expect(long size) {
        if (size() == 0) {
            size(size);
        }
    }

    /** The same values as they would come back from the server. */
    private void remember(Map<String, ?> variables) {
        Values.fromStruct(Values.toStruct(variables))
                .forEach((name, value) -> known.put(name, Optional.ofNullable(value)));
    }

    private void join() {
        if (!joined.getAndSet(true)) {
            client.connection().engine.submit(jobState);
        }
    }

    private void update(dev.headway.v1.Job.Builder change, String field) {
        joined.set(true);
        client.connection()
                .engine
                .submit(
                        jobState,
                        PendingCall.call(
                                UpdateJobRequest.newBuilder()
                                        .setSessionId(jobState.session)
                                        .setJob(change.setId(id()))
                                        .setUpdateMask(FieldMask.newBuilder().addPaths(field))
                                        .build()));
    }

    private void end(Message request) {
        if (!ended.getAndSet(true)) {
            joined.set(true);
            last(PendingCall.end(request));
        }
    }

    private void letGo() {
        if (!ended.getAndSet(true) && joined.getAndSet(true)) {
            last(PendingCall.release(true));
        }
    }

    private void last(PendingCall pendingCall) {
        client.connection().engine.submit(jobState, pendingCall);
        Waiting.atMost(pendingCall.tried, client.connection().exitNanos());
    }
}

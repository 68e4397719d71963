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
 * A job in the hands of its worker; made by {@link HeadwayClient#create}, {@code run}, {@code
 * call}, {@code resume} and {@code fetch}. It is also the meter of its part "".
 *
 * <p>Updates are sent by a thread in the background, at the pace that the server asks for. None of
 * them waits, and none throws because the server is away or refuses it: that is a warning of the
 * logger {@code headway}.
 *
 * <p>The end of a job waits until the server has it, as long as the server answers, at most the
 * client's exit timeout; what is left goes on in the background. What is said after the end is
 * passed over.
 */
public final class Job extends Meter implements AutoCloseable {
    private static final Object UNSET = new Object();

    private final HeadwayClient client;
    private final Course course;
    private final AtomicBoolean ended = new AtomicBoolean();
    private final AtomicBoolean joined = new AtomicBoolean();
    private final Map<String, Optional<Object>> known = new ConcurrentHashMap<>();
    private volatile Object results = UNSET;

    /** A job of a worker: it gives heartbeats. */
    static Job inHand(HeadwayClient client, dev.headway.v1.Job state) {
        boolean pending = state.getStatus() == JobStatus.JOB_STATUS_PENDING;
        long heartbeat = pending ? -1 : Time.nanos(state.getHeartbeatTimeout());
        Job job = new Job(client, state, heartbeat, !pending);
        job.joined.set(true);
        return job;
    }

    /** A job that is only looked at: it is reported from its first change on. */
    static Job lookedAt(HeadwayClient client, dev.headway.v1.Job state, boolean started) {
        Job job = new Job(client, state, -1, started);
        job.beforeFirst(() -> job.join());
        return job;
    }

    /** A new job: its creator's to work on, or if it is pending another's. */
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
        this.course = new Course(client.session(), state, this, heartbeat, started);
    }

    /** 32 hexadecimal digits, chosen by this client. */
    public String id() {
        return course.id();
    }

    /** As the server last said; {@link #refresh()} asks it. */
    public Status status() {
        return Status.of(course.state());
    }

    /**
     * All that the server last said of the job, progress over all parts included; {@link
     * #refresh()} asks it.
     */
    public dev.headway.v1.Job snapshot() {
        return course.state();
    }

    /**
     * Which worker this is: 1, and one more after each take-over; 0 while the server has not said
     * so.
     */
    public int attempt() {
        return course.attempt();
    }

    /** What the job is, for people. */
    public String name() {
        return course.state().getName();
    }

    /** Names it anew: the first 256 characters. */
    public void name(String text) {
        String name = Values.clean(text, NewJob.NAME_LENGTH);
        course.change(job -> job.setName(name));
        update(dev.headway.v1.Job.newBuilder().setName(name), "name");
    }

    /** Who or what started it. */
    public String invoker() {
        return course.state().getInvoker();
    }

    /** Says anew who or what started it: the first 256 characters. */
    public void invoker(String text) {
        String invoker = Values.clean(text, NewJob.NAME_LENGTH);
        course.change(job -> job.setInvoker(invoker));
        update(dev.headway.v1.Job.newBuilder().setInvoker(invoker), "invoker");
    }

    /** What is counted: {@code records}. */
    public String unit() {
        return course.state().getUnit();
    }

    /** How much there is to do, in units; 0 = not known. */
    public long size() {
        Long said = sizeSaid();
        return said == null ? course.state().getSize() : said;
    }

    /** Says how much there is to do, in units; 0 = not known. */
    public void size(long units) {
        size(Long.valueOf(Math.max(units, 0)));
    }

    /**
     * The meter of one part, for a thread or process that shares the job: its progress adds to the
     * job's. Names have at most 128 characters, a job at most 256 parts.
     */
    public Meter part(String name) {
        join();
        return course.part(Values.clean(name, 128));
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
     * A variable, null if it was never set. What this process set, or took over, is answered from
     * memory; for the rest the server is asked. HeadwayException if that fails.
     */
    public Object get(String name) {
        Optional<Object> value = known.get(name);
        return value != null ? value.orElse(null) : client.variables(id(), name).get(name);
    }

    /**
     * What came of it, as it was set; of a fetched job the results that it had, null unless it was
     * COMPLETED.
     */
    public Object results() {
        return results == UNSET ? null : results;
    }

    /**
     * Says what came of it, before it is finished: a map by custom, any JSON value, at most 1 MiB
     * as JSON.
     */
    public void results(Object results) {
        this.results = results;
    }

    // Signals.

    /** Whether somebody wants the job to end early, as far as the server has said. */
    public boolean isCancelled() {
        return course.wish != null;
    }

    /**
     * Throws {@link JobCancelledException} once somebody wants the job to end early. Costs next to
     * nothing otherwise.
     */
    public void throwIfCancelled() {
        Cancellation wish = course.wish;
        if (wish != null) {
            throw new JobCancelledException(wish);
        }
    }

    /**
     * Done once somebody wants the job to end early. What depends on it runs in a thread of its
     * own. Each call gives a future that belongs to the caller, and is kept until then: in a loop
     * ask {@link #isCancelled()}.
     */
    public CompletableFuture<Cancellation> cancelled() {
        return course.cancelled.copy();
    }

    /**
     * Throws why the server takes no more reports of this worker, once it does not: {@link
     * JobStateException} if another has taken the job over (reason STALE_ATTEMPT), or it has ended
     * without this one (JOB_ENDED); {@link NotFoundException} if it was cleared.
     */
    public void throwIfStopped() {
        HeadwayException error = course.error;
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
     * Done with what {@link #throwIfStopped()} throws, once it does; otherwise as {@link
     * #cancelled()}.
     */
    public CompletableFuture<HeadwayException> stopped() {
        return course.stopped.copy();
    }

    // The end.

    /** Ends the job as COMPLETED, with the results that were set, if any. */
    public void finish() {
        FinishJobRequest.Builder request =
                FinishJobRequest.newBuilder().setSessionId(course.session).setJobId(id());
        if (results != UNSET) {
            request.setResults(Values.toValue(results));
        }
        end(request.build());
    }

    /**
     * Ends the job as COMPLETED, with these results: a map by custom, any JSON value, at most 1 MiB
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
            // An anonymous one is of the kind that it extends.
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
                        .setSessionId(course.session)
                        .setJobId(id())
                        .setError(
                                com.google.rpc.Status.newBuilder()
                                        .setCode(code.value())
                                        .setMessage(Values.clean(message, 1024)))
                        .build());
    }

    /**
     * Ends the job if it has not ended yet: a block that is left without {@code finish} or {@code
     * fail} was left by something that went wrong, so the job is FAILED; CANCELLED if somebody
     * wanted it to end early. Why, only {@link HeadwayClient#run} and {@link HeadwayClient#call}
     * can tell the server.
     *
     * <p>A job that was only fetched goes on as it is: what was reported of it here is delivered,
     * then it is let go.
     */
    @Override
    public void close() {
        Cancellation wish = course.wish;
        if (course.heartbeat < 0) {
            letGo();
        } else if (wish != null) {
            fail(new JobCancelledException(wish));
        } else {
            fail("left without finish() or fail()");
        }
    }

    /** Waits until all said so far is stored, at most the client's exit timeout; whether it is. */
    public boolean flush() {
        return flush(client.connection().engine.exitTimeout);
    }

    /** Waits until all said so far is stored, at most so long; whether it is. */
    public boolean flush(Duration timeout) {
        List<Course> late =
                Delivery.linger(client.connection().engine, List.of(course), Time.nanos(timeout));
        return late.isEmpty() && course.error == null;
    }

    // What asks the server.

    /** Asks the server how the job stands. HeadwayException if that fails. */
    public Job refresh() {
        course.state(client.get(id()));
        if (joined.get()) {
            // Perhaps it is PENDING no more, and reports may flow.
            client.connection().engine.submit(course);
        }
        loadResults();
        return this;
    }

    /** Asks the job's worker to end early; see {@link HeadwayClient#cancel}. */
    public void cancel(String reason) {
        course.state(client.cancel(id(), reason));
    }

    /**
     * Removes the job and all that belongs to it; nothing more is reported. HeadwayException if
     * that fails.
     */
    public void clear() {
        if (!ended.getAndSet(true)) {
            joined.set(true);
            client.connection().engine.submit(course, Step.release(false));
        }
        client.clear(id());
    }

    /**
     * Waits until the job has ended, whoever ends it, and gives its final state; see {@link
     * HeadwayClient#await}.
     */
    public dev.headway.v1.Job await(Duration timeout) {
        course.state(client.await(id(), timeout));
        return course.state();
    }

    /** The id, the name and the status. */
    @Override
    public String toString() {
        String status = course.state().getStatus().name().replaceFirst("^JOB_STATUS_", "");
        return "Headway job " + id() + " \"" + name() + "\" " + status;
    }

    // Inside.

    /** Has the job created; HeadwayException if the server refuses it at once. */
    void begin(CreateJobRequest request, long patience) {
        Step step = Step.call(request);
        client.connection().engine.submit(course, step);
        Waiting.atMost(step.tried, patience);
        if (step.answer.isCompletedExceptionally()) {
            throwIfStopped();
        }
    }

    /** Begins to give heartbeats and reports of a job that was taken over. */
    void begin(Map<String, Object> variables) {
        remember(variables);
        client.connection().engine.submit(course);
    }

    void loadResults() {
        if (course.state().getStatus() == JobStatus.JOB_STATUS_COMPLETED && results == UNSET) {
            results = client.results(id());
        }
    }

    @Override
    void expect(long size) {
        if (size() == 0) {
            size(size);
        }
    }

    /** As they come back from the server, in this process as in the next. */
    private void remember(Map<String, ?> variables) {
        Values.fromStruct(Values.toStruct(variables))
                .forEach((name, value) -> known.put(name, Optional.ofNullable(value)));
    }

    private void join() {
        if (!joined.getAndSet(true)) {
            client.connection().engine.submit(course);
        }
    }

    private void update(dev.headway.v1.Job.Builder change, String field) {
        joined.set(true);
        client.connection()
                .engine
                .submit(
                        course,
                        Step.call(
                                UpdateJobRequest.newBuilder()
                                        .setSessionId(course.session)
                                        .setJob(change.setId(id()))
                                        .setUpdateMask(FieldMask.newBuilder().addPaths(field))
                                        .build()));
    }

    private void end(Message request) {
        if (!ended.getAndSet(true)) {
            joined.set(true);
            last(Step.end(request));
        }
    }

    private void letGo() {
        if (!ended.getAndSet(true) && joined.getAndSet(true)) {
            last(Step.release(true));
        }
    }

    private void last(Step step) {
        client.connection().engine.submit(course, step);
        Waiting.atMost(step.tried, client.connection().exitNanos());
    }
}

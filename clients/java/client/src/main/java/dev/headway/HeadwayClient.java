package dev.headway;

import dev.headway.v1.CancelJobRequest;
import dev.headway.v1.ClearJobRequest;
import dev.headway.v1.CreateJobRequest;
import dev.headway.v1.GetJobRequest;
import dev.headway.v1.GetResultsRequest;
import dev.headway.v1.GetVariablesRequest;
import dev.headway.v1.JobServiceGrpc;
import dev.headway.v1.JobServiceGrpc.JobServiceBlockingStub;
import dev.headway.v1.JobStatus;
import dev.headway.v1.ListJobsRequest;
import dev.headway.v1.ListJobsResponse;
import dev.headway.v1.ListRecordErrorsRequest;
import dev.headway.v1.ListRecordErrorsResponse;
import dev.headway.v1.WatchJobsResponse;

import java.nio.file.Path;
import java.time.Duration;
import java.util.List;
import java.util.Map;
import java.util.Objects;
import java.util.Optional;
import java.util.stream.Stream;

/**
 * A connection to a Headway server. It creates, reads and watches jobs. Methods may be called from
 * any thread. It sends nothing before it is used.
 *
 * <p>Jobs are read as the protocol's own message, {@code dev.headway.v1.Job}: its fields are
 * documented in job.proto, and a wrapper would only repeat them. A call that waits for an answer
 * waits at most the call timeout, 10 seconds by default, then throws {@link HeadwayException}.
 *
 * <p>The session is a secret; no text that this library writes contains it.
 */
public final class HeadwayClient implements AutoCloseable {
    private static final long CREATE_TIMEOUT = Time.SECOND;

    /** Without the answer this worker would do the work of another's job again. */
    private static final long FIND_TIMEOUT = 5 * Time.SECOND;

    private final Connection connection;
    private final String session;

    /**
     * Work that is tracked as a job.
     *
     * @param <E> what it can throw
     */
    @FunctionalInterface
    public interface Work<E extends Exception> {
        /** Does the work. */
        void run(Job job) throws E;
    }

    /**
     * Work that is tracked as a job, with results.
     *
     * @param <R> the results
     * @param <E> what it can throw
     */
    @FunctionalInterface
    public interface Computation<R, E extends Exception> {
        /** Does the work. */
        R call(Job job) throws E;
    }

    /**
     * How to reach a server. What is not set here comes from the environment (HEADWAY_TARGET, …).
     */
    public static final class Builder {
        private String target;
        private String token;
        private Path ca;
        private String session;
        private Duration exitTimeout = Duration.ofSeconds(10);
        private Duration callTimeout = Duration.ofSeconds(10);

        private Builder() {}

        /**
         * {@code host:port}, or {@code https://host:port} for TLS; else HEADWAY_TARGET, else
         * 127.0.0.1:50051.
         */
        public Builder target(String target) {
            this.target = target;
            return this;
        }

        /** The bearer token; else HEADWAY_TOKEN. */
        public Builder token(String token) {
            this.token = token;
            return this;
        }

        /** A PEM file of the authorities to trust, which means TLS; else HEADWAY_CA. */
        public Builder ca(Path ca) {
            this.ca = ca;
            return this;
        }

        /** The session; else HEADWAY_SESSION. */
        public Builder session(String session) {
            this.session = session;
            return this;
        }

        /**
         * Bounds how long the end of a job, and of the client, waits until everything is delivered:
         * 10 s by default.
         */
        public Builder exitTimeout(Duration timeout) {
            this.exitTimeout = Objects.requireNonNull(timeout);
            return this;
        }

        /** Bounds how long a call waits for its answer: 10 s by default. */
        public Builder callTimeout(Duration timeout) {
            this.callTimeout = Objects.requireNonNull(timeout);
            return this;
        }

        /**
         * Makes the client. IllegalArgumentException if the target or the token is malformed, or
         * the CA file cannot be read.
         */
        public HeadwayClient connect() {
            Target found = Target.of(target, token, ca, System.getenv());
            String named = session != null ? session : System.getenv("HEADWAY_SESSION");
            return new HeadwayClient(new Connection(found, exitTimeout, callTimeout), named);
        }
    }

    private HeadwayClient(Connection connection, String session) {
        this.connection = connection;
        this.session = session;
    }

    /** A client of the server and the session that the environment names. */
    public static HeadwayClient connect() {
        return builder().connect();
    }

    /** For settings beyond those of the environment. */
    public static Builder builder() {
        return new Builder();
    }

    /** The same connection, for another session. Closing either closes both. */
    public HeadwayClient inSession(String session) {
        return new HeadwayClient(connection, session);
    }

    /**
     * Waits until everything is delivered, at most the exit timeout. It then saves the rest in the
     * spool, for a later process. Jobs that have not ended stay as they are. Can be called twice.
     */
    @Override
    public void close() {
        connection.close();
    }

    // Work.

    /** Creates a job with that name and does the work in it; see {@link #run(NewJob, Work)}. */
    public <E extends Exception> void run(String name, Work<E> work) throws E {
        run(NewJob.named(name), work);
    }

    /**
     * Creates a job and does the work in it. The job is COMPLETED when the work returns, FAILED
     * with "Type: message" when it throws, and CANCELLED when it throws {@link
     * JobCancelledException}, another CancellationException or InterruptedException. The exception
     * goes on unchanged.
     */
    public <E extends Exception> void run(NewJob job, Work<E> work) throws E {
        run(create(job), work);
    }

    /**
     * Does the work in a job that was created or resumed; otherwise as {@link #run(NewJob, Work)}.
     */
    public <E extends Exception> void run(Job job, Work<E> work) throws E {
        try {
            work.run(job);
        } catch (Throwable error) {
            job.fail(error);
            throw error;
        }
        job.finish();
    }

    /** As {@link #run(NewJob, Work)}. What the work returns becomes the job's results. */
    public <R, E extends Exception> R call(NewJob job, Computation<R, E> work) throws E {
        return call(create(job), work);
    }

    /** As {@link #run(Job, Work)}. What the work returns becomes the job's results. */
    public <R, E extends Exception> R call(Job job, Computation<R, E> work) throws E {
        R result;
        try {
            result = work.call(job);
        } catch (Throwable error) {
            job.fail(error);
            throw error;
        }
        job.finish(result);
        return result;
    }

    /** Creates a job with that name and begins to work on it; see {@link #create(NewJob)}. */
    public Job create(String name) {
        return create(NewJob.named(name));
    }

    /**
     * Creates a job and begins to work on it.
     *
     * <p>If the server does not answer, the client creates the job in the background, under the id
     * that it has already. The call waits for that as long as a refused connection takes, or at
     * most a second. With a key or {@code continues} it waits at most 5 s, and then begins a new
     * job; if an unfinished job has the key, the new job is created without it.
     *
     * <p>IllegalStateException without a session, or after {@link #close()}. HeadwayException if
     * the server refuses at once: {@link InvalidRequestException}, ALREADY_EXISTS, UNAUTHENTICATED,
     * PERMISSION_DENIED; with {@code continues} {@link NotFoundException} or {@link
     * JobStateException}.
     */
    public Job create(NewJob job) {
        connection.requireOpen();
        CreateJobRequest request = job.request(session());
        boolean mayHaveBegun = !request.getKey().isEmpty() || !request.getContinues().isEmpty();
        long end = Time.now() + (mayHaveBegun ? FIND_TIMEOUT : CREATE_TIMEOUT);
        if (job.hasId()) {
            catchUp(request.getJobId(), CREATE_TIMEOUT);
        }
        if (mayHaveBegun) {
            try {
                return new JobFinder(this).findOrCreate(request, end);
            } catch (HeadwayException error) {
                ErrorPolicy policy = ErrorPolicy.of(error);
                if (policy == ErrorPolicy.STOP || policy == ErrorPolicy.DROP) {
                    throw error;
                }
                // The server did not answer in time. The worker begins with a job of its own.
                request = request.toBuilder().setKeyIfFree(true).build();
            }
        }
        Job created = Job.created(this, request);
        created.begin(request, Math.max(end - Time.now(), 0));
        return created;
    }

    /**
     * Takes a job over from a worker that is gone, or starts a PENDING one. The server refuses
     * further reports of the former worker. If the job has ended, a new job continues it, as with
     * {@link NewJob#continues}. If it was continued already, this takes the last job of that chain.
     * Progress continues from where it was, and {@code get} reads the variables (the checkpoint).
     *
     * <p>{@link NotFoundException}; HeadwayException if the server does not answer.
     */
    public Job resume(String jobId) {
        return new JobFinder(this).carryOn(jobId);
    }

    /**
     * A job to read it, to change it, or to report a part of it; empty if it is not in this
     * session. It sends no heartbeats. Its values are those of this moment: {@link Job#refresh()}
     * renews them. A process that reports parts of many jobs closes each after its part.
     */
    public Optional<Job> fetch(String jobId) {
        try {
            dev.headway.v1.Job state = get(jobId);
            Job job = Job.lookedAt(this, state, state.getStatus() != JobStatus.JOB_STATUS_PENDING);
            job.loadResults();
            return Optional.of(job);
        } catch (NotFoundException absent) {
            return Optional.empty();
        }
    }

    // Reading.

    /** The job's current state. {@link NotFoundException}. */
    public dev.headway.v1.Job get(String jobId) {
        GetJobRequest request =
                GetJobRequest.newBuilder().setSessionId(session()).setJobId(jobId).build();
        return connection.repeatedly(stub -> stub.getJob(request));
    }

    /**
     * The jobs of the session that match the filter, newest first, fetched page by page as the
     * stream asks for them.
     */
    public Stream<dev.headway.v1.Job> list(JobFilter filter) {
        ListJobsRequest request = filter.request(session());
        return Stream.iterate(page(request, ""), Objects::nonNull, page -> after(request, page))
                .flatMap(page -> page.getJobsList().stream());
    }

    private ListJobsResponse page(ListJobsRequest request, String token) {
        return connection.repeatedly(
                stub -> stub.listJobs(request.toBuilder().setPageToken(token).build()));
    }

    private ListJobsResponse after(ListJobsRequest request, ListJobsResponse page) {
        return page.getNextPageToken().isEmpty() ? null : page(request, page.getNextPageToken());
    }

    /** The job's results; null unless it is COMPLETED with results. {@link NotFoundException}. */
    public Object results(String jobId) {
        GetResultsRequest request =
                GetResultsRequest.newBuilder().setSessionId(session()).setJobId(jobId).build();
        return Values.fromValue(
                connection.repeatedly(stub -> stub.getResults(request)).getResults());
    }

    /** The job's variables, or those of these names that are set. {@link NotFoundException}. */
    public Map<String, Object> variables(String jobId, String... names) {
        GetVariablesRequest request =
                GetVariablesRequest.newBuilder()
                        .setSessionId(session())
                        .setJobId(jobId)
                        .addAllNames(List.of(names))
                        .build();
        return Values.fromStruct(
                connection.repeatedly(stub -> stub.getVariables(request)).getVariables());
    }

    /**
     * The first and the last 100 record errors, and how many there were. {@link NotFoundException}.
     */
    public ListRecordErrorsResponse recordErrors(String jobId) {
        ListRecordErrorsRequest request =
                ListRecordErrorsRequest.newBuilder()
                        .setSessionId(session())
                        .setJobId(jobId)
                        .build();
        return connection.repeatedly(stub -> stub.listRecordErrors(request));
    }

    /**
     * The job's current state, then each newer state, until it has ended. A slow reader gets the
     * latest state and not a queue of old ones.
     */
    public Watch<dev.headway.v1.Job> watch(String jobId) {
        return watch(jobId, null);
    }

    /** As {@link #watch(String)}, but at most for so long; null = no limit. */
    public Watch<dev.headway.v1.Job> watch(String jobId, Duration timeout) {
        return new Watch<>(new Watching.OneJob(connection, session(), jobId), timeout);
    }

    /** The current jobs of the session, then each change. It never ends. */
    public Watch<WatchJobsResponse> watchSession() {
        return watchSession("");
    }

    /**
     * The changes since the one with that {@code resume_token}. {@link JobStateException} with
     * reason RESUME_TOKEN_EXPIRED if it is too old.
     */
    public Watch<WatchJobsResponse> watchSession(String resumeToken) {
        return new Watch<>(new Watching.AllJobs(connection, session(), resumeToken), null);
    }

    /**
     * Waits until the job has ended, and returns its final state. HeadwayException with code
     * DEADLINE_EXCEEDED if it takes longer; {@link NotFoundException} if it is cleared meanwhile.
     */
    public dev.headway.v1.Job await(String jobId, Duration timeout) {
        dev.headway.v1.Job last = null;
        try (Watch<dev.headway.v1.Job> watch = watch(jobId, timeout)) {
            for (dev.headway.v1.Job state : watch) {
                last = state;
            }
        }
        return last == null ? get(jobId) : last;
    }

    // Changing jobs of others.

    /**
     * Asks the job's worker to end early. The server ends the job after its own grace period, 60 s
     * by default.
     */
    public dev.headway.v1.Job cancel(String jobId, String reason) {
        return cancel(jobId, reason, null);
    }

    /**
     * Asks the job's worker to end early. The server ends the job after {@code grace}: 0 = at once,
     * null = the server's setting.
     *
     * <p>{@link NotFoundException}; {@link JobStateException} if it has ended otherwise.
     */
    public dev.headway.v1.Job cancel(String jobId, String reason, Duration grace) {
        CancelJobRequest.Builder request =
                CancelJobRequest.newBuilder()
                        .setSessionId(session())
                        .setJobId(jobId)
                        .setReason(Values.clean(reason, 1024));
        if (grace != null) {
            request.setGracePeriod(Time.proto(grace));
        }
        return connection.once(stub -> stub.cancelJob(request.build()));
    }

    /** Removes the job with its variables, results and record errors. A missing job is no error. */
    public void clear(String jobId) {
        ClearJobRequest request =
                ClearJobRequest.newBuilder()
                        .setSessionId(session())
                        .setJobId(jobId)
                        .setAllowMissing(true)
                        .build();
        connection.repeatedly(stub -> stub.clearJob(request));
    }

    /** Sends now what earlier processes left in the spool for this server, and waits for that. */
    public SpoolReport flushSpool() {
        return SpoolSender.flush(connection.target, connection.credentials);
    }

    /**
     * The gRPC stub, for everything that this class does not do. It throws StatusRuntimeException.
     */
    public JobServiceBlockingStub stub() {
        return JobServiceGrpc.newBlockingStub(connection.channel());
    }

    // Inside.

    Connection connection() {
        return connection;
    }

    String session() {
        if (session == null || session.isEmpty()) {
            throw new IllegalStateException(
                    "No session: give one to the builder or to inSession, or set HEADWAY_SESSION.");
        }
        return session;
    }

    /**
     * A worker that takes a job over continues after the last report of the former worker, which
     * may still be in the spool.
     */
    void catchUp(String jobId, long timeout) {
        SpoolSender.catchUp(connection.target, connection.credentials, jobId, timeout);
    }
}

package dev.headway;

import dev.headway.v1.CreateJobRequest;
import dev.headway.v1.JobStatus;

import java.time.Duration;

/**
 * What a job is created with. Everything but the name can be left out; the server checks the
 * limits.
 *
 * <pre>{@code
 * client.create(NewJob.named("Import").size(40_000).unit("records").label("file", "books.mrc"));
 * }</pre>
 */
public final class NewJob {
    /** After so long without contact a job counts as LOST, unless it sets another duration. */
    public static final Duration HEARTBEAT_TIMEOUT = Duration.ofSeconds(60);

    static final int MAX_NAME_LENGTH = 256;
    private static final int MAX_UNIT_LENGTH = 32;
    private static final int MAX_LABEL_LENGTH = 256;

    private final CreateJobRequest.Builder request =
            CreateJobRequest.newBuilder().setHeartbeatTimeout(Time.proto(HEARTBEAT_TIMEOUT));

    private NewJob() {}

    /** A job with this name, for people: the first 256 characters. */
    public static NewJob named(String name) {
        NewJob job = new NewJob();
        job.request.setName(Values.clean(name, MAX_NAME_LENGTH));
        return job;
    }

    /**
     * Your own id, 32 lower-case hexadecimal digits, best a UUIDv7; else the client chooses one.
     */
    public NewJob id(String id) {
        request.setJobId(id);
        return this;
    }

    /** Who or what starts the job: the first 256 characters. */
    public NewJob invoker(String invoker) {
        request.setInvoker(Values.clean(invoker, MAX_NAME_LENGTH));
        return this;
    }

    /** The amount of work, in units; 0 = not known yet. */
    public NewJob size(long units) {
        request.setSize(Math.max(units, 0));
        return this;
    }

    /** Names what is counted: {@code records}, {@code bytes}; the first 32 characters. */
    public NewJob unit(String unit) {
        request.setUnit(Values.clean(unit, MAX_UNIT_LENGTH));
        return this;
    }

    /**
     * One more label to filter by: at most 64, keys of 1 to 63 characters, the first 256 of each
     * value.
     */
    public NewJob label(String key, String value) {
        request.putLabels(clean(key), Values.clean(value, MAX_LABEL_LENGTH));
        return this;
    }

    /** After so long without contact the job counts as LOST: 60 s by default, 0 = never. */
    public NewJob heartbeatTimeout(Duration timeout) {
        request.setHeartbeatTimeout(Time.proto(timeout));
        return this;
    }

    /** After so long without progress the job counts as stalled: never by default. */
    public NewJob stallTimeout(Duration timeout) {
        request.setStallTimeout(Time.proto(timeout));
        return this;
    }

    /** How long the server keeps the job after its end: the server's setting by default. */
    public NewJob retention(Duration retention) {
        request.setRetention(Time.proto(retention));
        return this;
    }

    /**
     * The job waits for a worker that calls {@link HeadwayClient#resume}. Its creator sends no
     * heartbeats, and need not end it.
     */
    public NewJob pending() {
        request.setPending(true);
        return this;
    }

    /**
     * Continues a job that has ended, or is LOST: the new job begins with the old one's name,
     * invoker, size, unit, labels, progress, counters and variables (the checkpoint). Values that
     * are set here win.
     */
    public NewJob continues(String jobId) {
        request.setContinues(jobId);
        return this;
    }

    /**
     * Finds the unfinished job of the session that has this key, and takes it over from its worker.
     * If there is none, a job is created with the key. So a job can be created at every start:
     * {@code nightly-2026-11}; at most 256 characters. A key is no lock: a former worker that is
     * still at work learns of the take-over by {@link Job#stopped()}.
     */
    public NewJob key(String key) {
        request.setKey(clean(key));
        return this;
    }

    boolean hasId() {
        return !request.getJobId().isEmpty();
    }

    CreateJobRequest request(String session) {
        CreateJobRequest.Builder full = request.clone().setSessionId(session);
        return hasId() ? full.build() : full.setJobId(Ids.uuid7()).build();
    }

    /** The job as its creator knows it before the server has answered. */
    static dev.headway.v1.Job described(CreateJobRequest request) {
        return dev.headway.v1.Job.newBuilder()
                .setId(request.getJobId())
                .setName(request.getName())
                .setInvoker(request.getInvoker())
                .setSize(request.getSize())
                .setUnit(request.getUnit())
                .putAllLabels(request.getLabelsMap())
                .setHeartbeatTimeout(request.getHeartbeatTimeout())
                .setStatus(
                        request.getPending()
                                ? JobStatus.JOB_STATUS_PENDING
                                : JobStatus.JOB_STATUS_RUNNING)
                .build();
    }

    private static String clean(String text) {
        return Values.clean(text, Values.ANY_LENGTH);
    }
}

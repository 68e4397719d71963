package dev.headway;

import dev.headway.v1.CreateJobRequest;
import dev.headway.v1.StartJobRequest;

/** How a worker gets a job that may have been started before. */
final class JobFinder {
    private final HeadwayClient client;

    JobFinder(HeadwayClient client) {
        this.client = client;
    }

    /**
     * Creates the job, or takes over the one with its key. It waits for the answer, since the
     * worker must know the job's progress before it begins. It first sends the whole spool: only
     * the server can tell which job has the key.
     */
    Job findOrCreate(CreateJobRequest request, long end) {
        client.catchUp("", Math.max(end - Time.now(), 0));
        while (true) {
            long nanos = Math.min(Math.max(end - Time.now(), 1), callTimeout());
            try {
                dev.headway.v1.Job state = create(request, nanos);
                boolean created = state.getId().equals(request.getJobId());
                if (!created && !request.getPending()) {
                    state = takeOver(state.getId(), nanos);
                }
                return attach(state);
            } catch (HeadwayException error) {
                // The job may have ended just now. An overloaded server is asked again.
                if (!error.reason().equals("JOB_ENDED") && !waited(error, end)) {
                    throw error;
                }
            }
        }
    }

    private static boolean waited(HeadwayException error, long end) {
        long pause = Math.max(error.retryAfter().map(Time::nanos).orElse(0L), Time.SECOND / 10);
        return ErrorPolicy.of(error) == ErrorPolicy.RETRY
                && Time.now() + pause < end
                && Connection.slept(pause);
    }

    /**
     * Takes over a running job. If it has ended, a new job continues it, or the last job that
     * continues it.
     */
    Job carryOn(String jobId) {
        CreateJobRequest create = NewJob.named("").request(client.session());
        while (true) {
            client.catchUp(jobId, client.connection().exitNanos());
            try {
                return attach(takeOver(jobId, callTimeout()));
            } catch (JobStateException error) {
                requireReason(error, "JOB_ENDED");
            }
            try {
                return attach(
                        create(create.toBuilder().setContinues(jobId).build(), callTimeout()));
            } catch (JobStateException error) {
                requireReason(error, "JOB_ALREADY_CONTINUED");
            }
            jobId = client.get(jobId).getContinuedBy();
        }
    }

    private long callTimeout() {
        return Time.nanos(client.connection().callTimeout);
    }

    private dev.headway.v1.Job create(CreateJobRequest request, long nanos) {
        return client.connection().attempt(stub -> stub.createJob(request), nanos);
    }

    private dev.headway.v1.Job takeOver(String jobId, long nanos) {
        StartJobRequest request =
                StartJobRequest.newBuilder()
                        .setSessionId(client.session())
                        .setJobId(jobId)
                        .setTakeOver(true)
                        .build();
        return client.connection().attempt(stub -> stub.startJob(request), nanos);
    }

    private Job attach(dev.headway.v1.Job state) {
        Job job = Job.inHand(client, state);
        job.begin(client.variables(state.getId()));
        return job;
    }

    private static void requireReason(HeadwayException error, String reason) {
        if (!error.reason().equals(reason)) {
            throw error;
        }
    }
}

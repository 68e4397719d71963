package dev.headway;

import dev.headway.v1.JobStatus;

/** The status of a job; job.proto has a diagram. */
public enum Status {
    /** Created, and waiting for a worker. */
    PENDING,
    /** A worker has it. */
    RUNNING,
    /** Its worker has sent nothing for the job's heartbeat timeout. */
    LOST,
    /** Ended successfully, with results if there are any. */
    COMPLETED,
    /** Ended by an error. */
    FAILED,
    /** Ended early, after a cancellation request. */
    CANCELLED;

    /** Whether the job has ended for good. */
    public boolean isFinal() {
        return this == COMPLETED || this == FAILED || this == CANCELLED;
    }

    /**
     * The status of a job as the server described it. IllegalArgumentException for one that this
     * version does not know.
     */
    public static Status of(dev.headway.v1.Job job) {
        return valueOf(job.getStatus().name().replaceFirst("^JOB_STATUS_", ""));
    }

    /** Whether the job can no longer change. A job with an unknown status still may. */
    static boolean isFinal(dev.headway.v1.Job job) {
        return switch (job.getStatus()) {
            case JOB_STATUS_COMPLETED, JOB_STATUS_FAILED, JOB_STATUS_CANCELLED -> true;
            default -> false;
        };
    }

    JobStatus proto() {
        return JobStatus.valueOf("JOB_STATUS_" + name());
    }
}

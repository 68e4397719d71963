package dev.headway;

import dev.headway.v1.JobStatus;

/** Where a job stands; the picture is in job.proto. */
public enum Status {
    /** Created, not yet taken by a worker. */
    PENDING,
    /** A worker has it. */
    RUNNING,
    /** Its worker was not heard of for the job's heartbeat timeout. */
    LOST,
    /** Ended, with results if it was given any. */
    COMPLETED,
    /** Ended by an error. */
    FAILED,
    /** Ended early because somebody wanted that. */
    CANCELLED;

    /** Whether nothing can happen to the job any more. */
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

    /** Whether the job can change no more; one whose status this version does not know may. */
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

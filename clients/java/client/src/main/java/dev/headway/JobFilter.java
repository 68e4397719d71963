package dev.headway;

import dev.headway.v1.ListJobsRequest;

/** Selects jobs of a session: those that match everything that is set. */
public final class JobFilter {
    private final ListJobsRequest.Builder request = ListJobsRequest.newBuilder();

    private JobFilter() {}

    /** All jobs, until something is set. */
    public static JobFilter all() {
        return new JobFilter();
    }

    /** Jobs in one of these states. */
    public JobFilter status(Status... statuses) {
        for (Status status : statuses) {
            request.addStatuses(status.proto());
        }
        return this;
    }

    /** Jobs with exactly this name. */
    public JobFilter name(String name) {
        request.setName(name);
        return this;
    }

    /** Jobs with exactly this invoker. */
    public JobFilter invoker(String invoker) {
        request.setInvoker(invoker);
        return this;
    }

    /** Jobs that have this label, with this value; with several, all of them. */
    public JobFilter label(String key, String value) {
        request.putLabels(key, value);
        return this;
    }

    /** Only stalled jobs; or, with false, only those that are not. */
    public JobFilter stalled(boolean stalled) {
        request.setStalled(stalled);
        return this;
    }

    /** How many jobs to fetch at a time: 50 by default, at most 1,000. */
    public JobFilter pageSize(int jobs) {
        request.setPageSize(jobs);
        return this;
    }

    ListJobsRequest request(String session) {
        return request.clone().setSessionId(session).build();
    }
}

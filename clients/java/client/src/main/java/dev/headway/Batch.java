package dev.headway;

import dev.headway.v1.StreamProgressRequest;

import java.util.ArrayList;
import java.util.Comparator;
import java.util.HashMap;
import java.util.LinkedHashMap;
import java.util.List;
import java.util.Map;
import java.util.function.ToLongFunction;

/** One request of the stream: the reports of many jobs, and their senders. */
final class Batch {
    /** What the server accepts in one message, less room for its frame. */
    static final int MAX_MESSAGE_BYTES = 4 * 1024 * 1024 - 64 * 1024;

    private static final int MAX_BATCH_REPORTS = 1000;
    private static final int MAX_BATCH_BYTES = 2 * 1024 * 1024;

    final StreamProgressRequest.Builder request = StreamProgressRequest.newBuilder();
    final List<Sender> senders = new ArrayList<>();

    /** Position in {@code senders} → the error of that report. */
    final Map<Integer, HeadwayException> failures = new HashMap<>();

    /** Senders whose report fits in no request. */
    final List<Sender> oversized = new ArrayList<>();

    /** Jobs whose state makes no report, and why. Each fault stops only its own job. */
    final Map<JobState, RuntimeException> faults = new LinkedHashMap<>();

    private int bytes;

    /** The sender of a report; the reporter is null for a heartbeat. */
    record Sender(JobState jobState, Reporter reporter) {}

    /** Adds the reports that are due, as far as there is room. The rest stays due. */
    void fill(List<JobState> due, long now, ToLongFunction<JobState> turn) {
        due.sort(Comparator.comparingLong(jobState -> jobState.due));
        for (JobState jobState : due) {
            try {
                if (!take(jobState, now, turn.applyAsLong(jobState))) {
                    return;
                }
            } catch (RuntimeException fault) {
                faults.put(jobState, fault);
            }
            jobState.due = now + turn.applyAsLong(jobState);
        }
    }

    /** False if there was no room for all of it. */
    private boolean take(JobState jobState, long now, long turn) {
        for (JobState.Draft draft : jobState.reports(now)) {
            Sender sender = new Sender(jobState, draft.reporter());
            if (draft.report().getSerializedSize() > MAX_MESSAGE_BYTES) {
                oversized.add(sender);
            } else if (!add(sender, draft)) {
                return false;
            }
            jobState.beatAt = now + turn;
        }
        return true;
    }

    private boolean add(Sender sender, JobState.Draft draft) {
        bytes += draft.report().getSerializedSize();
        if (!senders.isEmpty()
                && (bytes > MAX_BATCH_BYTES || senders.size() == MAX_BATCH_REPORTS)) {
            return false;
        }
        request.addReports(draft.report());
        senders.add(sender);
        return true;
    }
}

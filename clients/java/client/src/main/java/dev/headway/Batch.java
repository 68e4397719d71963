package dev.headway;

import dev.headway.v1.StreamProgressRequest;

import java.util.ArrayList;
import java.util.Comparator;
import java.util.HashMap;
import java.util.LinkedHashMap;
import java.util.List;
import java.util.Map;
import java.util.function.ToLongFunction;

/** One request of the stream: the reports of many jobs, and whose they are. */
final class Batch {
    /** What the server takes in one message, less room for its frame. */
    static final int MESSAGE_BYTES = 4 * 1024 * 1024 - 64 * 1024;

    private static final int REPORTS = 1000;
    private static final int BYTES = 2 * 1024 * 1024;

    final StreamProgressRequest.Builder request = StreamProgressRequest.newBuilder();
    final List<Sender> senders = new ArrayList<>();

    /** Position in {@code senders} → why that report was refused. */
    final Map<Integer, HeadwayException> failures = new HashMap<>();

    /** Whose reports fit in no request. */
    final List<Sender> oversized = new ArrayList<>();

    /** Jobs whose state makes no report, and why: each is its own fault and stops no other. */
    final Map<Course, RuntimeException> faults = new LinkedHashMap<>();

    private int bytes;

    /** Whose report it is; the reporter is null for a heartbeat. */
    record Sender(Course course, Reporter reporter) {}

    /** Takes what is due, as far as there is room; what has none is due still. */
    void fill(List<Course> due, long now, ToLongFunction<Course> turn) {
        due.sort(Comparator.comparingLong(course -> course.due));
        for (Course course : due) {
            try {
                if (!take(course, now, turn.applyAsLong(course))) {
                    return;
                }
            } catch (RuntimeException fault) {
                faults.put(course, fault);
            }
            course.due = now + turn.applyAsLong(course);
        }
    }

    /** False if there was no room for all of it. */
    private boolean take(Course course, long now, long turn) {
        for (Course.Draft draft : course.reports(now)) {
            Sender sender = new Sender(course, draft.reporter());
            if (draft.report().getSerializedSize() > MESSAGE_BYTES) {
                oversized.add(sender);
            } else if (!add(sender, draft)) {
                return false;
            }
            course.beatAt = now + turn;
        }
        return true;
    }

    private boolean add(Sender sender, Course.Draft draft) {
        bytes += draft.report().getSerializedSize();
        if (!senders.isEmpty() && (bytes > BYTES || senders.size() == REPORTS)) {
            return false;
        }
        request.addReports(draft.report());
        senders.add(sender);
        return true;
    }
}

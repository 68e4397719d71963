package dev.headway;

import dev.headway.v1.ReportProgressRequest;

import java.time.Instant;
import java.time.temporal.ChronoUnit;
import java.util.ArrayDeque;
import java.util.ArrayList;
import java.util.Deque;
import java.util.HashMap;
import java.util.List;
import java.util.Map;
import java.util.Objects;

/**
 * Turns one meter's state into reports, numbered so that a retry counts once. A report stays the
 * same, and is sent again, until it is settled. Belongs to the engine's thread.
 */
final class Reporter {
    private static final int ERRORS = 1000;
    private static final int ERRORS_ROOM = 1024 * 1024;

    /**
     * A sequence from here on is nobody's clock, and to count on from it might end beyond 2⁶³: it
     * is passed over.
     */
    private static final long COUNTABLE = 1L << 62;

    final Meter meter;

    private long sequence = ChronoUnit.MICROS.between(Instant.EPOCH, Instant.now());

    private long progress;
    private long size;
    private String message = "";
    private Map<String, Long> counters = new HashMap<>();
    private final Deque<ReportProgressRequest> unsettled = new ArrayDeque<>();
    private boolean more;
    private boolean pressing;

    Reporter(Meter meter, long progress, long size) {
        this.meter = meter;
        this.progress = progress;
        this.size = size;
    }

    /**
     * The server has applied a report with the sequence {@code last}. What is reported from now on
     * is newer, also where an earlier process of the same attempt had a later clock.
     */
    void numberAbove(long last) {
        if (last < COUNTABLE) {
            sequence = Math.max(sequence, last);
        }
    }

    /** Whether a report is unsettled, or another must follow before its turn. */
    boolean busy() {
        return pressing || !unsettled.isEmpty();
    }

    boolean isUnsettled() {
        return !unsettled.isEmpty();
    }

    /**
     * The unsettled report, or a new one, or null if nothing has changed. Not {@code fresh}: a new
     * one only to complete the last.
     */
    ReportProgressRequest report(ReportProgressRequest about, boolean fresh) {
        if (unsettled.isEmpty() && (fresh || more)) {
            freeze(about);
        }
        return unsettled.peek();
    }

    /**
     * All that this meter has left to say, frozen as it will be sent, if it is still sent from
     * here.
     */
    List<ReportProgressRequest> drain(ReportProgressRequest about, boolean fresh) {
        boolean going = !fresh || freeze(about);
        while (going && more) {
            going = freeze(about);
        }
        return new ArrayList<>(unsettled);
    }

    /** The report was applied. */
    void settle() {
        unsettled.poll();
    }

    /**
     * The report was refused as it is: the rest of it goes out again without what is at fault,
     * under a new number, for the old one may count as seen.
     */
    void refused(HeadwayException error) {
        ReportProgressRequest head = unsettled.poll();
        ReportProgressRequest rest = head == null ? null : lighter(head, error.fields());
        if (rest != null) {
            unsettled.addFirst(rest);
            List<ReportProgressRequest> again = new ArrayList<>(unsettled);
            unsettled.clear();
            again.forEach(report -> unsettled.add(number(report.toBuilder())));
        }
    }

    /**
     * A report without what is at fault, null if it has nothing of that: counters and a progress
     * that together with those of others are beyond what a job may have, if the error names them,
     * else the variables.
     */
    static ReportProgressRequest lighter(
            ReportProgressRequest report, List<HeadwayException.Fault> faults) {
        ReportProgressRequest.Builder rest = report.toBuilder();
        for (HeadwayException.Fault fault : faults) {
            String field = fault.field();
            if (field.startsWith("counters[") && field.endsWith("]")) {
                rest.removeCounters(field.substring("counters[".length(), field.length() - 1));
            } else if (field.equals("counters")) {
                rest.clearCounters();
            } else if (field.equals("progress")) {
                rest.clearProgress();
            }
        }
        if (!rest.build().equals(report)) {
            return rest.build();
        }
        return report.hasVariables() ? rest.clearVariables().build() : null;
    }

    private boolean freeze(ReportProgressRequest about) {
        ReportProgressRequest report = draft(about);
        if (report != null) {
            unsettled.add(report);
        }
        return report != null;
    }

    private ReportProgressRequest draft(ReportProgressRequest about) {
        Meter.Sample sample = meter.sample(ERRORS, ERRORS_ROOM);
        more = sample.more();
        pressing = sample.pressing();
        ReportProgressRequest.Builder report = about.toBuilder().setPart(meter.part());
        boolean news = !sample.errors().isEmpty() || sample.variables() != null;
        if (sample.progress() != progress) {
            progress = sample.progress();
            report.setProgress(progress);
            news = true;
        }
        if (sample.size() != null && sample.size() != size) {
            size = sample.size();
            report.setSize(size);
            news = true;
        }
        if (sample.message() != null && !Objects.equals(sample.message(), message)) {
            message = sample.message();
            report.setMessage(message);
            news = true;
        }
        for (var tally : sample.counters().entrySet()) {
            long delta = tally.getValue() - counters.getOrDefault(tally.getKey(), 0L);
            if (delta != 0) {
                report.putCounters(tally.getKey(), delta);
                news = true;
            }
        }
        counters = sample.counters();
        report.addAllRecordErrors(sample.errors());
        if (sample.variables() != null) {
            report.setVariables(sample.variables());
        }
        return news ? number(report) : null;
    }

    private ReportProgressRequest number(ReportProgressRequest.Builder report) {
        return report.setSequence(++sequence).build();
    }
}

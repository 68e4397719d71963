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
 * Turns one meter's state into numbered reports. A report stays the same, and is sent again, until
 * it is settled. So a retry counts once. Belongs to the engine's thread.
 */
final class Reporter {
    private static final int MAX_ERRORS_PER_REPORT = 1000;
    private static final int MAX_ERROR_BYTES_PER_REPORT = 1024 * 1024;

    /**
     * No clock gives a sequence from here on, and counting on from it could exceed 2⁶³. Such a
     * sequence is ignored.
     */
    private static final long MAX_USABLE_SEQUENCE = 1L << 62;

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
     * The server has applied a report with the sequence {@code last}. Later reports must have
     * higher numbers, even if an earlier process of the same attempt had a faster clock.
     */
    void numberAbove(long last) {
        if (last < MAX_USABLE_SEQUENCE) {
            sequence = Math.max(sequence, last);
        }
    }

    /** Whether a report is unsettled, or another must follow without waiting. */
    boolean busy() {
        return pressing || !unsettled.isEmpty();
    }

    boolean isUnsettled() {
        return !unsettled.isEmpty();
    }

    /**
     * The unsettled report, or a new one, or null if nothing has changed. Without {@code fresh} it
     * makes a new report only to complete the last.
     */
    ReportProgressRequest report(ReportProgressRequest about, boolean fresh) {
        if (unsettled.isEmpty() && (fresh || more)) {
            freeze(about);
        }
        return unsettled.peek();
    }

    /**
     * Everything that this meter has left to report, exactly as it is sent if this process still
     * sends it.
     */
    List<ReportProgressRequest> drain(ReportProgressRequest about, boolean fresh) {
        boolean going = !fresh || freeze(about);
        while (going && more) {
            going = freeze(about);
        }
        return new ArrayList<>(unsettled);
    }

    /** The server has applied the report. */
    void settle() {
        unsettled.poll();
    }

    /**
     * The server has refused the report. The rest of it goes out again without the invalid fields,
     * under a new number: the server may have seen the old one.
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
     * A report without what the server refused; null if there was no such thing. If the error names
     * counters or the progress (they can exceed a limit together with other reports), this removes
     * those, else the variables.
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
        Meter.Sample sample = meter.sample(MAX_ERRORS_PER_REPORT, MAX_ERROR_BYTES_PER_REPORT);
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
        for (var counter : sample.counters().entrySet()) {
            long delta = counter.getValue() - counters.getOrDefault(counter.getKey(), 0L);
            if (delta != 0) {
                report.putCounters(counter.getKey(), delta);
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

package dev.headway;

import static org.junit.jupiter.api.Assertions.assertEquals;
import static org.junit.jupiter.api.Assertions.assertFalse;
import static org.junit.jupiter.api.Assertions.assertNull;
import static org.junit.jupiter.api.Assertions.assertThrows;
import static org.junit.jupiter.api.Assertions.assertTrue;

import dev.headway.v1.ReportProgressRequest;

import org.junit.jupiter.api.Test;

import java.util.List;
import java.util.Map;
import java.util.stream.IntStream;
import java.util.stream.Stream;

class MeterTest {
    private static final ReportProgressRequest ABOUT =
            ReportProgressRequest.newBuilder()
                    .setSessionId("s")
                    .setJobId("j")
                    .setAttempt(1)
                    .build();

    private final Meter meter = new Meter("", 0);

    private ReportProgressRequest report(Reporter reporter) {
        return reporter.report(ABOUT, true);
    }

    @Test
    void settingAndAdvancingAddUp() {
        meter.progress(10);
        meter.advance(5);
        assertEquals(15, meter.progress());
        meter.progress(7);
        meter.advance();
        assertEquals(8, meter.progress());
    }

    @Test
    void threadsLoseNoCount() {
        IntStream.range(0, 8)
                .parallel()
                .forEach(
                        thread -> {
                            for (int i = 0; i < 10_000; i++) {
                                meter.advance();
                                meter.count("seen");
                            }
                        });
        assertEquals(80_000, meter.progress());
        assertEquals(80_000, meter.sample(1000, 1).counters().get("seen"));
    }

    @Test
    void anItemInHandIsNotDone() {
        for (int item : meter.track(List.of(1, 2, 3))) {
            assertEquals(item - 1, meter.progress());
        }
        assertEquals(3, meter.progress());
        for (int item : meter.track(List.of(1, 2, 3))) {
            if (item == 2) {
                break;
            }
        }
        assertEquals(4, meter.progress());
    }

    @Test
    void streamsAreCountedInParallelToo() {
        assertEquals(499_500, meter.track(IntStream.range(0, 1000).boxed()).mapToInt(i -> i).sum());
        assertEquals(1000, meter.progress());
        meter.track(IntStream.range(0, 1000).boxed().parallel()).forEach(i -> {});
        assertEquals(2000, meter.progress());
        Stream<Integer> failing = meter.track(Stream.of(1, 2, 3)).map(i -> 1 / (i - 2));
        assertThrows(ArithmeticException.class, () -> failing.forEach(i -> {}));
        assertEquals(2001, meter.progress());
    }

    @Test
    void sequencesGoOnAboveThoseOfALaterClock() {
        Reporter reporter = new Reporter(meter, 0, 0);
        for (long last : new long[] {4_071_006_245_678_901L, 0, Long.MAX_VALUE}) {
            reporter.numberAbove(last);
        }
        meter.advance(1);
        assertEquals(4_071_006_245_678_902L, report(reporter).getSequence());
    }

    @Test
    void whatComesAfterACheckpointIsInALaterReport() {
        Reporter reporter = new Reporter(meter, 0, 0);
        meter.progress(5);
        meter.count("added", 5);
        meter.recordError("a", "bad");
        meter.checkpoint(Map.of("line", 5));
        meter.progress(9);
        meter.count("added", 4);
        meter.recordError("b", "bad");
        ReportProgressRequest first = report(reporter);
        assertEquals(5, first.getProgress());
        assertEquals(Map.of("added", 5L), first.getCountersMap());
        assertEquals(
                List.of("a"),
                first.getRecordErrorsList().stream().map(e -> e.getRecord()).toList());
        assertEquals(5, first.getVariables().getFieldsOrThrow("line").getNumberValue());
        reporter.settle();
        ReportProgressRequest second = report(reporter);
        assertEquals(9, second.getProgress());
        assertEquals(Map.of("added", 4L), second.getCountersMap());
        assertFalse(second.hasVariables());
    }

    @Test
    void aReportStaysAsItIsUntilItIsSettled() {
        Reporter reporter = new Reporter(meter, 0, 0);
        meter.advance(3);
        ReportProgressRequest first = report(reporter);
        meter.advance(4);
        assertEquals(first.toByteString(), report(reporter).toByteString());
        reporter.settle();
        ReportProgressRequest second = report(reporter);
        assertEquals(7, second.getProgress());
        assertTrue(second.getSequence() > first.getSequence());
        assertTrue(first.getSequence() > 1_600_000_000_000_000L);
        reporter.settle();
        assertNull(report(reporter));
    }

    @Test
    void refusedVariablesKeepNothingElseBack() {
        Reporter reporter = new Reporter(meter, 0, 0);
        meter.advance(3);
        meter.set(Map.of("x", 1));
        ReportProgressRequest first = report(reporter);
        reporter.refused(fault("variables"));
        ReportProgressRequest again = report(reporter);
        assertFalse(again.hasVariables());
        assertEquals(3, again.getProgress());
        assertTrue(again.getSequence() > first.getSequence());
        reporter.refused(fault("variables"));
        assertNull(report(reporter));
    }

    private static HeadwayException fault(String field) {
        return HeadwayException.of(
                io.grpc.Status.Code.INVALID_ARGUMENT,
                "",
                "INVALID_REQUEST",
                List.of(new HeadwayException.Fault(field, "")),
                null);
    }

    @Test
    void aRefusedReportLosesOnlyWhatIsAtFault() {
        Reporter reporter = new Reporter(meter, 0, 0);
        meter.advance(4);
        List.of("a", "b", "c").forEach(meter::count);
        meter.set(Map.of("x", 1));
        report(reporter);
        reporter.refused(fault("counters[a]"));
        ReportProgressRequest left = report(reporter);
        assertEquals(Map.of("b", 1L, "c", 1L), left.getCountersMap());
        assertEquals(4, left.getProgress());
        reporter.refused(fault("counters"));
        assertEquals(0, report(reporter).getCountersCount());
        reporter.refused(fault("progress"));
        assertTrue(report(reporter).hasVariables());
        assertFalse(report(reporter).hasProgress());
        reporter.refused(fault("progress"));
        assertFalse(report(reporter).hasVariables());
        reporter.refused(fault("part"));
        assertNull(report(reporter));
    }

    @Test
    void ofManyRecordErrorsTheEndsKeepTheirTexts() {
        for (int i = 0; i < 2500; i++) {
            meter.recordError(i, "bad", "X");
        }
        Reporter reporter = new Reporter(meter, 0, 0);
        List<ReportProgressRequest> all = reporter.drain(ABOUT, true);
        assertEquals(
                List.of(1000, 1000, 500), all.stream().map(r -> r.getRecordErrorsCount()).toList());
        assertEquals("499", all.get(0).getRecordErrors(499).getRecord());
        assertEquals("?", all.get(0).getRecordErrors(500).getRecord());
        assertEquals("2000", all.get(2).getRecordErrors(0).getRecord());
        assertEquals("2499", all.get(2).getRecordErrors(499).getRecord());
    }

    @Test
    void furtherCountersThan64ArePassedOver() {
        for (int i = 0; i < 70; i++) {
            meter.count("c" + i);
        }
        assertEquals(64, meter.sample(1000, 1).counters().size());
    }
}

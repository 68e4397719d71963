package dev.headway.tools;

import dev.headway.HeadwayClient;
import dev.headway.Job;

import me.tongfei.progressbar.DelegatingProgressBarConsumer;
import me.tongfei.progressbar.ProgressBar;
import me.tongfei.progressbar.ProgressBarBuilder;

import java.time.Duration;
import java.util.Arrays;
import java.util.Locale;
import java.util.function.LongConsumer;
import java.util.stream.LongStream;

/** Measures what an update costs, without a server: one JSON object a line. */
final class Bench {
    private static final int REPEATS = 7;
    private static final long SHORTEST = 100_000_000;

    private Bench() {}

    public static void main(String[] args) {
        try (HeadwayClient client =
                HeadwayClient.builder().session("bench").exitTimeout(Duration.ZERO).connect()) {
            Job set = client.create("set");
            measure("\"set progress\"", times -> setProgress(set, times));
            Job advance = client.create("advance");
            measure("\"advance\"", times -> advance(advance, times));
            Job track = client.create("track");
            measure("\"track\"", times -> track(track, times));
        }
        try (ProgressBar bar =
                new ProgressBarBuilder()
                        .setInitialMax(Long.MAX_VALUE)
                        .setConsumer(new DelegatingProgressBarConsumer(line -> {}))
                        .build()) {
            measure(
                    "\"set progress\", \"of\": \"progressbar 0.10.2\"",
                    times -> stepTo(bar, times));
        }
    }

    private static void setProgress(Job job, long times) {
        for (long i = 0; i < times; i++) {
            job.progress(i);
        }
    }

    private static void advance(Job job, long times) {
        for (long i = 0; i < times; i++) {
            job.advance();
        }
    }

    private static void track(Job job, long times) {
        Iterable<Long> items = () -> LongStream.range(0, times).iterator();
        long sum = 0;
        for (long item : job.track(items)) {
            sum += item;
        }
        if (sum < 0) {
            throw new IllegalStateException("the items were not these");
        }
    }

    private static void stepTo(ProgressBar bar, long times) {
        for (long i = 0; i < times; i++) {
            bar.stepTo(i);
        }
    }

    private static void measure(String what, LongConsumer loop) {
        long times = 1_000;
        while (nanos(loop, times) < SHORTEST) {
            times *= 2;
        }
        for (int i = 0; i < 3; i++) {
            loop.accept(times);
        }
        double[] each = new double[REPEATS];
        for (int i = 0; i < REPEATS; i++) {
            each[i] = (double) nanos(loop, times) / times;
        }
        Arrays.sort(each);
        System.out.println(
                String.format(
                        Locale.ROOT, "{\"what\": %s, \"ns\": %.2f}", what, each[REPEATS / 2]));
    }

    private static long nanos(LongConsumer loop, long times) {
        long start = System.nanoTime();
        loop.accept(times);
        return System.nanoTime() - start;
    }
}

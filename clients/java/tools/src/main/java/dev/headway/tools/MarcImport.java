package dev.headway.tools;

import com.google.gson.Gson;

import dev.headway.HeadwayClient;
import dev.headway.Job;
import dev.headway.JobCancelledException;
import dev.headway.NewJob;
import dev.headway.tools.Marc.Fault;
import dev.headway.tools.Marc.Raw;

import java.io.IOException;
import java.nio.file.Files;
import java.nio.file.Path;
import java.util.Arrays;
import java.util.HashMap;
import java.util.LinkedHashMap;
import java.util.List;
import java.util.Map;
import java.util.concurrent.locks.LockSupport;

/**
 * Imports a file of MARC 21 records into a catalogue in memory, tracked as one job: {@code
 * marc-import [--rate RECORDS_A_SECOND] FILE}. The server and the session come from the
 * environment: HEADWAY_TARGET, HEADWAY_SESSION.
 */
final class MarcImport {
    private static final int CHECKPOINT = 1_000;

    private final String file;
    private final double rate;
    private final Map<String, byte[]> catalogue = new HashMap<>();
    private final Map<String, Long> outcome = new LinkedHashMap<>();
    private double seconds;

    private MarcImport(String file, double rate) {
        this.file = file;
        this.rate = rate;
        List.of("added", "updated", "skipped", "failed")
                .forEach(counter -> outcome.put(counter, 0L));
    }

    public static void main(String[] args) throws IOException {
        boolean rated = args.length == 3 && args[0].equals("--rate");
        if (!rated && args.length != 1) {
            System.err.println("usage: marc-import [--rate RECORDS_A_SECOND] FILE");
            System.exit(2);
        }
        Path path = Path.of(args[args.length - 1]);
        byte[] data = Files.readAllBytes(path);
        var work =
                new MarcImport(
                        path.getFileName().toString(), rated ? Double.parseDouble(args[1]) : 0);
        try (HeadwayClient client = HeadwayClient.connect()) {
            NewJob job =
                    NewJob.named("Import MARC records")
                            .size(Marc.split(data).size())
                            .unit("records");
            client.call(job, tracked -> work.run(tracked, data));
        } catch (JobCancelledException cancelled) {
            System.err.println("cancelled: " + cancelled.reason());
        }
        Map<String, Object> last = new LinkedHashMap<>(work.outcome);
        last.put("seconds", work.seconds);
        System.out.println(new Gson().toJson(last));
    }

    private Map<String, Long> run(Job job, byte[] data) {
        List<Raw> records = Marc.split(data);
        long start = System.nanoTime();
        try {
            for (Raw raw : records) {
                job.throwIfCancelled();
                long done = job.progress() + 1;
                await(start, done);
                take(job, raw);
                job.advance();
                if (done % CHECKPOINT == 0) {
                    job.checkpoint(Map.of("records", done));
                }
            }
            return outcome;
        } finally {
            seconds = (System.nanoTime() - start) / 1e9;
        }
    }

    private void take(Job job, Raw raw) {
        Marc marc = Marc.read(raw.data());
        Fault fault = marc.fault();
        if (fault != null) {
            String record =
                    marc.number().isEmpty() ? file + ", byte " + raw.offset() : marc.number();
            job.recordError(record, fault.message(), fault.code());
            outcome.merge("failed", 1L, Long::sum);
            return;
        }
        byte[] before = catalogue.put(marc.number(), raw.data());
        String counter =
                before == null
                        ? "added"
                        : Arrays.equals(before, raw.data()) ? "skipped" : "updated";
        job.count(counter);
        outcome.merge(counter, 1L, Long::sum);
    }

    /** Spreads the records evenly, as a real catalogue would. */
    private void await(long start, long record) {
        if (rate > 0) {
            long due = start + (long) (record / rate * 1e9);
            for (long left = due - System.nanoTime(); left > 0; left = due - System.nanoTime()) {
                LockSupport.parkNanos(left);
            }
        }
    }
}

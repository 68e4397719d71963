package readme;

import dev.headway.HeadwayClient;
import dev.headway.HeadwayException;
import dev.headway.Job;
import dev.headway.JobFilter;
import dev.headway.Meter;
import dev.headway.NewJob;
import dev.headway.NotFoundException;
import dev.headway.SpoolReport;
import dev.headway.Status;
import dev.headway.Watch;

import java.time.Duration;
import java.util.List;
import java.util.Map;
import java.util.stream.Stream;

/** The examples of README.md: {@link ReadmeTest} checks that both are the same. */
final class Tour {
    private Tour() {}

    interface Book {
        String isbn();
    }

    static void add(Book book) {}

    static void worker(List<Book> books) {
        try (HeadwayClient client = HeadwayClient.connect()) {
            client.run(
                    NewJob.named("Import books").unit("books"),
                    job -> {
                        for (Book book : job.track(books)) {
                            job.throwIfCancelled();
                            add(book);
                        }
                    });
        }
    }

    static HeadwayClient connecting() {
        return HeadwayClient.builder()
                .target("https://headway.example.org:443")
                .token("…")
                .session("…")
                .exitTimeout(Duration.ofSeconds(5))
                .connect();
    }

    static void creating(HeadwayClient client, List<Book> books) {
        NewJob spec =
                NewJob.named("Import books")
                        .invoker("nightly")
                        .size(40_000)
                        .unit("books")
                        .label("file", "books.mrc")
                        .heartbeatTimeout(Duration.ofMinutes(2))
                        .stallTimeout(Duration.ofMinutes(10))
                        .retention(Duration.ofDays(7));

        Map<String, Integer> results =
                client.call(
                        spec,
                        job -> {
                            job.track(books.parallelStream()).forEach(Tour::add);
                            return Map.of("added", books.size());
                        });

        try (Job job = client.create(spec)) {
            job.advance(books.size());
            job.finish(results);
        }
    }

    static void reporting(Job job, Book book) {
        job.progress(17);
        job.advance();
        job.size(40_000);
        job.message("reading the second file");
        job.count("added");
        job.recordError(book.isbn(), "it has no title", "NO_TITLE");
        job.set(Map.of("file", "books.mrc"));
        job.checkpoint(Map.of("line", 17));
        Meter second = job.part("second thread");
        second.advance(10);
        boolean stored = job.flush(Duration.ofSeconds(1));
    }

    static void signals(Job job, Thread worker) {
        job.cancelled().thenAccept(cancellation -> worker.interrupt());
        job.stopped().thenAccept(why -> worker.interrupt());
        if (job.isCancelled()) {
            job.fail("the rest can wait", io.grpc.Status.Code.CANCELLED);
        }
    }

    static void resuming(HeadwayClient client, String id) {
        client.run(
                client.resume(id),
                job -> {
                    long line = job.get("line") instanceof Long stood ? stood : 0;
                    job.message("going on at line " + line);
                });
    }

    static void starting(HeadwayClient client) {
        client.run(
                NewJob.named("Nightly import").key("nightly-2026-11"),
                job -> {
                    long line = job.get("line") instanceof Long stood ? stood : 0;
                    job.message("begins at line " + line);
                });
    }

    static void reading(HeadwayClient client, String id) {
        dev.headway.v1.Job state = client.get(id);
        Object results = client.results(id);
        Map<String, Object> variables = client.variables(id);
        long failed = client.recordErrors(id).getTotal();
        Stream<dev.headway.v1.Job> running =
                client.list(
                        JobFilter.all()
                                .status(Status.RUNNING, Status.LOST)
                                .label("file", "books.mrc"));

        try (Watch<dev.headway.v1.Job> watch = client.watch(id)) {
            for (dev.headway.v1.Job now : watch) {
                System.out.println(now.getProgress() + " of " + now.getSize());
            }
        }
        dev.headway.v1.Job last = client.await(id, Duration.ofHours(1));

        client.cancel(id, "wrong file", Duration.ofSeconds(30));
        client.clear(id);
        SpoolReport sent = client.flushSpool();
        client.inSession("another").fetch(id).ifPresent(job -> job.name("Import books again"));
    }

    static void errors(HeadwayClient client, String id) {
        try {
            client.resume(id);
        } catch (NotFoundException absent) {
            System.err.println("no such job");
        } catch (HeadwayException error) {
            System.err.println(error.code() + " " + error.reason() + " " + error.fields());
        }
    }
}

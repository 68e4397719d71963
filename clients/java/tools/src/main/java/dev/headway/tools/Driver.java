package dev.headway.tools;

import com.google.gson.Gson;
import com.google.gson.GsonBuilder;
import com.google.gson.JsonObject;
import com.google.gson.JsonParser;

import dev.headway.HeadwayClient;
import dev.headway.HeadwayException;
import dev.headway.Job;
import dev.headway.JobCancelledException;
import dev.headway.JobFilter;
import dev.headway.Meter;
import dev.headway.NewJob;
import dev.headway.Status;
import dev.headway.Watch;

import io.grpc.Status.Code;

import java.io.BufferedReader;
import java.io.IOException;
import java.io.InputStreamReader;
import java.io.PrintStream;
import java.nio.charset.StandardCharsets;
import java.time.Duration;
import java.util.ArrayList;
import java.util.HashMap;
import java.util.LinkedHashMap;
import java.util.List;
import java.util.Map;
import java.util.concurrent.CompletableFuture;
import java.util.concurrent.ExecutionException;
import java.util.concurrent.TimeUnit;
import java.util.concurrent.TimeoutException;
import java.util.stream.IntStream;

/** Carries out the operations of a conformance case; see clients/conformance/README.md. */
final class Driver {
    private static final Gson JSON =
            new GsonBuilder().serializeNulls().disableHtmlEscaping().create();

    private final Map<String, Job> jobs = new HashMap<>();
    private HeadwayClient client;

    private Driver() {}

    public static void main(String[] args) throws IOException {
        Driver driver = new Driver();
        var in = new BufferedReader(new InputStreamReader(System.in, StandardCharsets.UTF_8));
        var out = new PrintStream(System.out, true, StandardCharsets.UTF_8);
        for (String line = in.readLine(); line != null; line = in.readLine()) {
            out.println(JSON.toJson(driver.answer(JsonParser.parseString(line).getAsJsonObject())));
        }
        if (driver.client != null) {
            driver.client.close();
        }
    }

    private Map<String, Object> answer(JsonObject request) {
        Map<String, Object> answer = new LinkedHashMap<>();
        answer.put("id", request.get("id").getAsLong());
        try {
            answer.put("value", operate(request.get("op").getAsString(), new Arguments(request)));
        } catch (HeadwayException error) {
            Map<String, Object> about = new LinkedHashMap<>();
            about.put("code", error.code().name());
            about.put("reason", error.reason());
            about.put("message", error.getMessage());
            about.put(
                    "fields", error.fields().stream().map(HeadwayException.Fault::field).toList());
            about.put("retry_after", error.retryAfter().map(Arguments::seconds).orElse(null));
            answer.put("error", about);
        } catch (UnsupportedOperationException error) {
            answer.put("unsupported", error.getMessage());
        }
        return answer;
    }

    private Object operate(String op, Arguments args) {
        switch (op) {
            case "connect" -> connect(args);
            case "close" -> client.close();
            case "create" -> {
                return keep(args, client(args).create(options(args)));
            }
            case "resume" -> {
                return keep(args, client(args).resume(args.text("of")));
            }
            case "fetch" -> {
                return client(args).fetch(args.text("of")).map(job -> keep(args, job)).orElse(null);
            }
            case "view" -> {
                return Views.view(job(args));
            }
            case "refresh" -> {
                return Views.view(job(args).refresh());
            }
            case "progress", "advance", "count", "record_error", "checkpoint" -> update(op, args);
            case "set" -> job(args).set(args.map("variables"));
            case "message" -> job(args).message(args.text("value"));
            case "size" -> job(args).size(args.number("value", 0));
            case "name" -> job(args).name(args.text("value"));
            case "invoker" -> job(args).invoker(args.text("value"));
            case "track" -> {
                return track(
                        job(args), (int) args.number("items", 0), args.number("stop_before", 0));
            }
            case "finish" -> finish(args);
            case "fail" -> fail(args);
            case "leave" -> leave(job(args), args.text("how"), args.text("message"));
            case "flush" -> {
                return job(args).flush(args.span("timeout"));
            }
            case "get" -> {
                return job(args).get(args.text("name"));
            }
            case "wait_cancelled" -> {
                return waitCancelled(job(args), args.span("timeout"));
            }
            case "wait_stopped" -> {
                HeadwayException error = within(job(args).stopped(), args.span("timeout"));
                return error == null ? null : Map.of("reason", error.reason());
            }
            default -> {
                return read(op, args);
            }
        }
        return null;
    }

    private Object read(String op, Arguments args) {
        String of = args.text("of");
        return switch (op) {
            case "cancel" ->
                    Views.state(
                            args.has("grace")
                                    ? client(args)
                                            .cancel(of, args.text("reason"), args.span("grace"))
                                    : client(args).cancel(of, args.text("reason")));
            case "clear" -> {
                client(args).clear(of);
                yield null;
            }
            case "read" -> Views.state(client(args).get(of));
            case "list" -> client(args).list(filter(args)).map(Views::state).toList();
            case "results" -> client(args).results(of);
            case "variables" ->
                    client(args).variables(of, args.list("names").toArray(String[]::new));
            case "record_errors" -> Views.recordErrors(client(args).recordErrors(of));
            case "watch" -> watch(client(args), of, args.span("timeout"));
            case "wait" -> Views.state(client(args).await(of, args.span("timeout")));
            case "flush_spool" -> client.flushSpool();
            default -> throw new UnsupportedOperationException("There is no " + op + ".");
        };
    }

    private void connect(Arguments args) {
        HeadwayClient.Builder builder = HeadwayClient.builder();
        args.ifPresent("target", () -> builder.target(args.text("target")));
        args.ifPresent("token", () -> builder.token(args.text("token")));
        args.ifPresent("exit_timeout", () -> builder.exitTimeout(args.span("exit_timeout")));
        args.ifPresent("call_timeout", () -> builder.callTimeout(args.span("call_timeout")));
        client = builder.connect();
    }

    private static NewJob options(Arguments args) {
        NewJob job = NewJob.named(args.text("name"));
        args.ifPresent("job_id", () -> job.id(args.text("job_id")));
        args.ifPresent("invoker", () -> job.invoker(args.text("invoker")));
        args.ifPresent("size", () -> job.size(args.number("size", 0)));
        args.ifPresent("unit", () -> job.unit(args.text("unit")));
        args.map("labels").forEach((key, value) -> job.label(key, (String) value));
        args.ifPresent(
                "heartbeat_timeout", () -> job.heartbeatTimeout(args.span("heartbeat_timeout")));
        args.ifPresent("stall_timeout", () -> job.stallTimeout(args.span("stall_timeout")));
        args.ifPresent("retention", () -> job.retention(args.span("retention")));
        if (args.flag("pending")) {
            job.pending();
        }
        args.ifPresent("continues", () -> job.continues(args.text("continues")));
        args.ifPresent("key", () -> job.key(args.text("key")));
        return job;
    }

    private static JobFilter filter(Arguments args) {
        JobFilter filter = JobFilter.all();
        args.list("statuses").forEach(status -> filter.status(Status.valueOf(status)));
        args.ifPresent("name", () -> filter.name(args.text("name")));
        args.ifPresent("invoker", () -> filter.invoker(args.text("invoker")));
        args.map("labels").forEach((key, value) -> filter.label(key, (String) value));
        args.ifPresent("stalled", () -> filter.stalled(args.flag("stalled")));
        args.ifPresent("page_size", () -> filter.pageSize((int) args.number("page_size", 0)));
        return filter;
    }

    private void update(String op, Arguments args) {
        Job job = job(args);
        Meter meter = args.text("part").isEmpty() ? job : job.part(args.text("part"));
        long times = args.number("times", 1);
        long by = args.number("by", 1);
        long value = args.number("value", 0);
        for (long i = 0; i < times; i++) {
            switch (op) {
                case "progress" -> meter.progress(value + i);
                case "advance" -> meter.advance(by);
                case "count" -> meter.count(args.text("counter"), by);
                case "record_error" ->
                        meter.recordError(
                                args.text("record"), args.text("message"), args.text("code"));
                default -> meter.checkpoint(args.map("variables"));
            }
        }
    }

    private static long track(Job job, int items, long stopBefore) {
        long seen = 0;
        for (int number : job.track(IntStream.rangeClosed(1, items).boxed().toList())) {
            seen++;
            if (number == stopBefore) {
                break;
            }
        }
        return seen;
    }

    private void finish(Arguments args) {
        if (args.has("results")) {
            job(args).finish(args.value("results"));
        } else {
            job(args).finish();
        }
    }

    private void fail(Arguments args) {
        if (args.has("code")) {
            job(args).fail(args.text("message"), Code.valueOf(args.text("code")));
        } else {
            job(args).fail(args.text("message"));
        }
    }

    private void leave(Job job, String how, String message) {
        try {
            client.run(
                    job,
                    left -> {
                        if (how.equals("error")) {
                            throw new IllegalStateException(message);
                        }
                        if (how.equals("cancelled")) {
                            left.throwIfCancelled();
                        }
                    });
        } catch (IllegalStateException expected) {
            // JobCancelledException is one as well.
        }
    }

    private static Object waitCancelled(Job job, Duration timeout) {
        if (within(job.cancelled(), timeout) == null) {
            return null;
        }
        try {
            job.throwIfCancelled();
            return null;
        } catch (JobCancelledException cancelled) {
            Map<String, Object> about = new LinkedHashMap<>();
            about.put("reason", cancelled.reason());
            about.put("deadline", cancelled.deadline().map(Object::toString).orElse(null));
            return about;
        }
    }

    private static <T> T within(CompletableFuture<T> future, Duration timeout) {
        try {
            return future.get(timeout.toNanos(), TimeUnit.NANOSECONDS);
        } catch (InterruptedException | ExecutionException | TimeoutException none) {
            return null;
        }
    }

    private static Object watch(HeadwayClient client, String of, Duration timeout) {
        List<Object> seen = new ArrayList<>();
        try (Watch<dev.headway.v1.Job> watch = client.watch(of, timeout)) {
            for (dev.headway.v1.Job job : watch) {
                seen.add(List.of(job.getRevision(), Status.of(job), job.getProgress()));
            }
        }
        return seen;
    }

    private HeadwayClient client(Arguments args) {
        return args.has("session") ? client.inSession(args.text("session")) : client;
    }

    private Job job(Arguments args) {
        return jobs.get(args.text("job"));
    }

    private Object keep(Arguments args, Job job) {
        jobs.put(args.text("job"), job);
        return Views.view(job);
    }
}

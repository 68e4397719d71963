package dev.headway;

import java.lang.System.Logger.Level;
import java.util.ArrayList;
import java.util.HashMap;
import java.util.List;
import java.util.Map;
import java.util.concurrent.CompletableFuture;

/**
 * Waits until reports and ends of jobs are delivered, and saves in the spool what is not delivered
 * in time.
 */
final class Delivery {
    /** Seconds that the engine and the disk have to save what is left. */
    private static final long SPOOL_TIMEOUT_SECONDS = 5;

    private Delivery() {}

    /** All jobs that may have something to send, including those that were submitted just now. */
    static List<JobState> jobs(Engine engine) {
        List<JobState> found = engine.inbox.ask(engine::live, SPOOL_TIMEOUT_SECONDS);
        return found == null ? List.of() : found;
    }

    /**
     * Waits until everything of these jobs is delivered. Returns the jobs that have something left.
     */
    static List<JobState> waitDelivered(Engine engine, List<JobState> jobs, long nanos) {
        Map<JobState, PendingCall> waiting = new HashMap<>();
        for (JobState jobState : jobs) {
            if (!jobState.over) {
                PendingCall marker = PendingCall.marker();
                waiting.put(jobState, marker);
                engine.submit(jobState, marker);
            }
        }
        engine.inbox.put(() -> engine.addWaiting(1));
        try {
            Waiting.atMost(
                    CompletableFuture.allOf(
                            waiting.values().stream()
                                    .map(pendingCall -> pendingCall.answer)
                                    .toArray(CompletableFuture<?>[]::new)),
                    nanos);
        } finally {
            engine.inbox.put(() -> engine.addWaiting(-1));
        }
        List<JobState> late = new ArrayList<>();
        waiting.forEach(
                (jobState, pendingCall) -> {
                    if (!pendingCall.answer.isDone()) {
                        late.add(jobState);
                    }
                });
        return late;
    }

    /**
     * Waits until everything of these jobs is stored. Then it saves the rest in the spool, and logs
     * that. Sending goes on in the background until the process ends. This waits for each job only
     * once.
     */
    static void deliver(Engine engine, List<JobState> jobs, long nanos) {
        List<JobState> waiting =
                jobs.stream().filter(jobState -> !jobState.over && !jobState.givenUp).toList();
        if (waiting.isEmpty()) {
            return;
        }
        List<JobState> late = waitDelivered(engine, waiting, nanos);
        late.forEach(jobState -> jobState.givenUp = true);
        spoolUndelivered(engine, late)
                .forEach(
                        (jobState, place) ->
                                Log.say(
                                        Level.WARNING,
                                        "headway: "
                                                + engine.target.address()
                                                + " has not answered in time; the last state of job"
                                                + " "
                                                + jobState.id()
                                                + " is not delivered"
                                                + (place.isEmpty()
                                                        ? ""
                                                        : " yet, and is saved in "
                                                                + place
                                                                + " until `headway flush` or the"
                                                                + " next run")));
    }

    /**
     * For each job with something left: the path of its spool file, or "" if it could not be saved.
     */
    private static Map<JobState, String> spoolUndelivered(Engine engine, List<JobState> jobs) {
        if (jobs.isEmpty()) {
            return Map.of();
        }
        Map<JobState, String> places =
                engine.inbox.ask(
                        () -> SpoolSender.spoolUndelivered(jobs, engine.target),
                        SPOOL_TIMEOUT_SECONDS);
        if (places != null) {
            return places;
        }
        Map<JobState, String> nowhere = new HashMap<>();
        jobs.forEach(jobState -> nowhere.put(jobState, ""));
        return nowhere;
    }

    /** Ends a client: delivers, then releases its jobs as they are. */
    static void close(Engine engine) {
        List<JobState> jobs = jobs(engine);
        deliver(engine, jobs, Time.nanos(engine.exitTimeout));
        jobs.forEach(jobState -> engine.submit(jobState, PendingCall.release(true)));
        engine.inbox.hold(-1);
    }

    /**
     * At the end of the process: saves the jobs of closed clients again, since part of it may have
     * arrived. Delivers the others.
     */
    static void atExit(Engine engine, long nanos) {
        List<JobState> jobs = jobs(engine);
        spoolUndelivered(engine, jobs.stream().filter(jobState -> jobState.givenUp).toList());
        deliver(engine, jobs, nanos);
    }
}

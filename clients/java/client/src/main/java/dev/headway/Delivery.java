package dev.headway;

import java.lang.System.Logger.Level;
import java.util.ArrayList;
import java.util.HashMap;
import java.util.List;
import java.util.Map;
import java.util.concurrent.CompletableFuture;

/**
 * Waits for the last words of jobs to arrive, and has what does not arrive in time written down.
 */
final class Delivery {
    /** Seconds that the engine, and the disk, have to take down what is left. */
    private static final long WRITING = 5;

    private Delivery() {}

    /**
     * All jobs that there is something to say of, those included that were handed over just now.
     */
    static List<Course> jobs(Engine engine) {
        List<Course> found = engine.inbox.ask(engine::live, WRITING);
        return found == null ? List.of() : found;
    }

    /**
     * Waits until all that these jobs have to say has been delivered; returns those of which
     * something is left.
     */
    static List<Course> linger(Engine engine, List<Course> courses, long nanos) {
        Map<Course, Step> waiting = new HashMap<>();
        for (Course course : courses) {
            if (!course.over) {
                Step mark = Step.mark();
                waiting.put(course, mark);
                engine.submit(course, mark);
            }
        }
        engine.inbox.put(() -> engine.hurry(1));
        try {
            Waiting.atMost(
                    CompletableFuture.allOf(
                            waiting.values().stream()
                                    .map(step -> step.answer)
                                    .toArray(CompletableFuture<?>[]::new)),
                    nanos);
        } finally {
            engine.inbox.put(() -> engine.hurry(-1));
        }
        List<Course> late = new ArrayList<>();
        waiting.forEach(
                (course, step) -> {
                    if (!step.answer.isDone()) {
                        late.add(course);
                    }
                });
        return late;
    }

    /**
     * Waits until all that these jobs have to say is stored; then writes what is left to the spool,
     * and notes it. It goes on in the background until the process ends. A job is waited for in
     * this way once.
     */
    static void deliver(Engine engine, List<Course> courses, long nanos) {
        List<Course> waiting =
                courses.stream().filter(course -> !course.over && !course.givenUp).toList();
        if (waiting.isEmpty()) {
            return;
        }
        List<Course> late = linger(engine, waiting, nanos);
        late.forEach(course -> course.givenUp = true);
        writeDown(engine, late)
                .forEach(
                        (course, place) ->
                                Log.say(
                                        Level.WARNING,
                                        "headway: "
                                                + engine.target.address()
                                                + " has not answered in time; the last state of job"
                                                + " "
                                                + course.id()
                                                + " is not delivered"
                                                + (place.isEmpty()
                                                        ? ""
                                                        : " yet, and waits in "
                                                                + place
                                                                + " for `headway flush` or the next"
                                                                + " run")));
    }

    /** For each job that has something left: where it is written down, or "" if it could not be. */
    private static Map<Course, String> writeDown(Engine engine, List<Course> courses) {
        if (courses.isEmpty()) {
            return Map.of();
        }
        Map<Course, String> places =
                engine.inbox.ask(() -> Postman.writeDown(courses, engine.target), WRITING);
        if (places != null) {
            return places;
        }
        Map<Course, String> nowhere = new HashMap<>();
        courses.forEach(course -> nowhere.put(course, ""));
        return nowhere;
    }

    /** Ends a client: delivers, then lets its jobs go as they are. */
    static void close(Engine engine) {
        List<Course> courses = jobs(engine);
        deliver(engine, courses, Time.nanos(engine.exitTimeout));
        courses.forEach(course -> engine.submit(course, Step.release(true)));
        engine.inbox.hold(-1);
    }

    /**
     * The process ends: the last words of jobs whose client was closed are written anew, for some
     * of it may have arrived.
     */
    static void atExit(Engine engine, long nanos) {
        List<Course> courses = jobs(engine);
        writeDown(engine, courses.stream().filter(course -> course.givenUp).toList());
        deliver(engine, courses, nanos);
    }
}

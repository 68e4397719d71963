package dev.headway;

import com.google.protobuf.Message;

import dev.headway.v1.CreateJobRequest;
import dev.headway.v1.FailJobRequest;
import dev.headway.v1.FinishJobRequest;
import dev.headway.v1.Job;
import dev.headway.v1.JobStatus;
import dev.headway.v1.ReportProgressRequest;
import dev.headway.v1.StartJobRequest;
import dev.headway.v1.UpdateJobRequest;

import java.util.ArrayDeque;
import java.util.ArrayList;
import java.util.Collection;
import java.util.Deque;
import java.util.List;
import java.util.Map;
import java.util.concurrent.CompletableFuture;
import java.util.concurrent.ConcurrentHashMap;
import java.util.concurrent.atomic.AtomicReference;
import java.util.function.UnaryOperator;

/**
 * The engine's record of one job: what it still has to tell the server, in order. Threads of the
 * worker add parts and read what is volatile or atomic; all else is the engine thread's.
 */
final class Course {
    final String session;

    /**
     * Nanoseconds after which a silent job counts as LOST; 0 = never. Negative: the job is only
     * looked at, and beats not.
     */
    final long heartbeat;

    final CompletableFuture<Cancellation> cancelled = new CompletableFuture<>();
    final CompletableFuture<HeadwayException> stopped = new CompletableFuture<>();

    /** The wish to end early, once it is known. */
    volatile Cancellation wish;

    /** Why the server wants no more reports, once it does not. */
    volatile HeadwayException error;

    /** Whether nothing more is sent for this job. */
    volatile boolean over;

    /** Whether reports may flow: not before the job is created, or while it is PENDING. */
    volatile boolean started;

    /** Whether somebody has waited in vain for the last of it to be delivered. */
    volatile boolean givenUp;

    /**
     * Where that is written down for a later process, until it is delivered from here after all.
     */
    Letter letter;

    boolean calling;

    /** When to look for something to report; see {@link Time}. */
    long due;

    /** When to give a heartbeat if there is nothing to report. */
    long beatAt;

    long retryAt;

    /** The job as the server last described it; before it did, as the worker did. */
    private final AtomicReference<Job> state;

    /** Which worker this is, whoever else has the job meanwhile; 0 before the server said. */
    private volatile int attempt;

    private final Map<String, Reporter> reporters = new ConcurrentHashMap<>();
    private final Deque<Step> steps = new ArrayDeque<>();

    /** A report, and whose it is; null for a heartbeat. */
    record Draft(Reporter reporter, ReportProgressRequest report) {}

    Course(String session, Job state, Meter meter, long heartbeat, boolean started) {
        this.session = session;
        this.state = new AtomicReference<>(state);
        this.attempt = state.getAttempt();
        this.heartbeat = heartbeat;
        this.started = started;
        reporters.put("", new Reporter(meter, state.getPartsOrDefault("", 0), state.getSize()));
        heed(state);
    }

    Job state() {
        return state.get();
    }

    int attempt() {
        return attempt;
    }

    String id() {
        return state.get().getId();
    }

    void state(Job fresh) {
        state.set(fresh);
        started = fresh.getStatus() != JobStatus.JOB_STATUS_PENDING;
        heed(fresh);
    }

    void change(UnaryOperator<Job.Builder> change) {
        state.updateAndGet(job -> change.apply(job.toBuilder()).build());
    }

    /** The meter of a part; the same one for the same name. */
    Meter part(String name) {
        return reporters.computeIfAbsent(name, this::newPart).meter;
    }

    private Reporter newPart(String name) {
        long progress = state().getPartsOrDefault(name, 0);
        return new Reporter(new Meter(name, progress), progress, 0);
    }

    void add(Step step) {
        if (over) {
            step.settle(null, error);
        } else {
            steps.add(step);
        }
    }

    /** Whether it waits for another to start it, and there is nothing to do for it meanwhile. */
    boolean waits() {
        return !started && steps.isEmpty();
    }

    /** The step whose turn it is, unless reports come first. */
    Step nextStep() {
        Step step = steps.peek();
        return calling || step == null || step.afterReports ? null : step;
    }

    /**
     * The reports to send now; if there are none, a heartbeat, or the turn of the step that waited
     * for them.
     */
    List<Draft> reports(long now) {
        Step step = steps.peek();
        boolean fresh = step == null || !step.sampled;
        boolean complete = true;
        List<Draft> drafts = new ArrayList<>();
        for (Reporter reporter : started ? reporters.values() : List.<Reporter>of()) {
            complete = complete && !reporter.isUnsettled();
            reporter.numberAbove(state().getLastSequence());
            ReportProgressRequest report = reporter.report(about(attempt), fresh);
            if (report != null) {
                drafts.add(new Draft(reporter, report));
            }
        }
        if (step != null) {
            // Other threads may still count: a step waits for what was there when it came, and not
            // for ever.
            step.sampled = step.sampled || complete;
            step.afterReports = step.afterReports && !drafts.isEmpty();
        } else if (drafts.isEmpty() && heartbeat >= 0 && now >= beatAt) {
            drafts.add(new Draft(null, about(attempt)));
        }
        return drafts;
    }

    private ReportProgressRequest about(int attempt) {
        return ReportProgressRequest.newBuilder()
                .setSessionId(session)
                .setJobId(id())
                .setAttempt(attempt)
                .build();
    }

    /** Whether it is the turn of reports, or of the step that waits for them. */
    boolean reporting() {
        return !over && (steps.isEmpty() ? started : steps.peek().afterReports);
    }

    /** Whether more should go out without waiting for the next turn. */
    boolean urgent() {
        return !steps.isEmpty() || reporters.values().stream().anyMatch(Reporter::busy);
    }

    /** All calls that are left to make, in order. */
    List<Message> remains() {
        List<Message> left = new ArrayList<>();
        boolean flowing = started;
        // A job that nobody has answered for yet begins with its first attempt.
        int attempt = Math.max(this.attempt, 1);
        for (Step step : steps) {
            if (step.request == null) {
                continue;
            }
            if (step.isEnd()) {
                if (flowing && step.afterReports) {
                    left.addAll(drain(!step.sampled, attempt));
                }
                left.add(withAttempt(step.request, attempt));
                return left;
            }
            if (step.request instanceof CreateJobRequest request) {
                flowing = !request.getPending();
            } else if (step.request instanceof StartJobRequest) {
                flowing = true;
                // Which attempt that will be, only the server can tell: 0 is not checked.
                attempt = 0;
            }
            left.add(step.request);
        }
        if (flowing) {
            // Also what was said after a point in time that somebody waits for, or has waited for
            // in vain.
            left.addAll(drain(true, attempt));
        }
        return left;
    }

    private List<ReportProgressRequest> drain(boolean fresh, int attempt) {
        List<ReportProgressRequest> left = new ArrayList<>();
        for (Reporter reporter : reporters.values()) {
            reporter.numberAbove(state().getLastSequence());
            left.addAll(reporter.drain(about(attempt), fresh));
        }
        return left;
    }

    static Message withAttempt(Message request, int attempt) {
        if (request instanceof FinishJobRequest finish) {
            return finish.toBuilder().setAttempt(attempt).build();
        }
        if (request instanceof FailJobRequest fail) {
            return fail.toBuilder().setAttempt(attempt).build();
        }
        return request;
    }

    /** A step is done. */
    void answered(Step step, Job job) {
        steps.poll();
        retryAt = 0;
        if (job != null) {
            state(withWaiting(job));
            // Who creates a job is its first worker, whoever has taken it over before the answer
            // came.
            attempt = Math.max(attempt, 1);
        }
        if (step.isEnd() || step.release) {
            stop(null);
        }
        step.settle(job, null);
    }

    /** What is changed but not sent yet is not forgotten over an older answer. */
    private Job withWaiting(Job job) {
        Job.Builder changed = job.toBuilder();
        for (Step step : steps) {
            if (step.request instanceof UpdateJobRequest update) {
                for (String field : update.getUpdateMask().getPathsList()) {
                    var what = Job.getDescriptor().findFieldByName(field);
                    changed.setField(what, update.getJob().getField(what));
                }
            }
        }
        return changed.build();
    }

    /** The server says that the job shall end early. */
    void cancel(dev.headway.v1.Cancellation wanted) {
        change(job -> job.setCancellation(wanted));
        if (wish == null) {
            wish = Cancellation.of(wanted);
            tell(() -> cancelled.complete(wish));
        }
    }

    private void heed(Job fresh) {
        if (fresh.getCancellation().getRequested() && wish == null) {
            wish = Cancellation.of(fresh.getCancellation());
            tell(() -> cancelled.complete(wish));
        }
    }

    /** Nothing more is sent for this job. */
    void stop(HeadwayException why) {
        error = why;
        over = true;
        while (!steps.isEmpty()) {
            steps.poll().settle(null, why);
        }
        if (why != null) {
            tell(() -> stopped.complete(why));
        }
    }

    Collection<Step> waiting() {
        return List.copyOf(steps);
    }

    /**
     * In a thread of its own: what the worker does about it is not to hold up the reports of all
     * jobs.
     */
    private static void tell(Runnable news) {
        Thread thread = new Thread(news, "headway-signal");
        thread.setDaemon(true);
        thread.start();
    }
}

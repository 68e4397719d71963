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
 * The engine's record of one job: what it still has to send to the server, in order. Threads of the
 * worker add parts, and read the volatile and atomic fields. Everything else belongs to the
 * engine's thread.
 */
final class JobState {
    final String session;

    /**
     * Nanoseconds after which a silent job counts as LOST; 0 = never. Negative: the job sends no
     * heartbeats.
     */
    final long heartbeat;

    final CompletableFuture<Cancellation> cancelled = new CompletableFuture<>();
    final CompletableFuture<HeadwayException> stopped = new CompletableFuture<>();

    /** The cancellation request, once it is known. */
    volatile Cancellation cancellation;

    /** Why the server accepts no more reports; null as long as it does. */
    volatile HeadwayException error;

    /** Whether nothing more is sent for this job. */
    volatile boolean over;

    /** Whether reports may be sent: not before the job is created, or while it is PENDING. */
    volatile boolean started;

    /** Whether a wait for delivery has ended without it. */
    volatile boolean givenUp;

    /** The spool file of what is left, until that is delivered from here after all. */
    SpoolFile file;

    boolean calling;

    /** When the engine next looks for something to report; see {@link Time}. */
    long due;

    /** When to send a heartbeat if there is nothing to report. */
    long beatAt;

    long retryAt;

    /** The job as the server last described it, or as the worker did before that. */
    private final AtomicReference<Job> state;

    /**
     * The attempt of this worker, even if another worker has the job meanwhile; 0 before the server
     * has answered.
     */
    private volatile int attempt;

    private final Map<String, Reporter> reporters = new ConcurrentHashMap<>();
    private final Deque<PendingCall> pendingCalls = new ArrayDeque<>();

    /** A report and its sender; null for a heartbeat. */
    record Draft(Reporter reporter, ReportProgressRequest report) {}

    JobState(String session, Job state, Meter meter, long heartbeat, boolean started) {
        this.session = session;
        this.state = new AtomicReference<>(state);
        this.attempt = state.getAttempt();
        this.heartbeat = heartbeat;
        this.started = started;
        reporters.put("", new Reporter(meter, state.getPartsOrDefault("", 0), state.getSize()));
        checkCancellation(state);
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
        checkCancellation(fresh);
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

    void add(PendingCall pendingCall) {
        if (over) {
            pendingCall.settle(null, error);
        } else {
            pendingCalls.add(pendingCall);
        }
    }

    /** Whether it waits for another worker, and has nothing to do meanwhile. */
    boolean waits() {
        return !started && pendingCalls.isEmpty();
    }

    /** The call to make now; null if reports go first. */
    PendingCall nextCall() {
        PendingCall pendingCall = pendingCalls.peek();
        return calling || pendingCall == null || pendingCall.afterReports ? null : pendingCall;
    }

    /**
     * The reports to send now. If there are none: a heartbeat, or the call that waited for them
     * goes ahead.
     */
    List<Draft> reports(long now) {
        PendingCall pendingCall = pendingCalls.peek();
        boolean fresh = pendingCall == null || !pendingCall.sampled;
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
        if (pendingCall != null) {
            // Other threads may still count. A call waits only for what was there when it was
            // queued.
            pendingCall.sampled = pendingCall.sampled || complete;
            pendingCall.afterReports = pendingCall.afterReports && !drafts.isEmpty();
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

    /** Whether reports are next, or the call that waits for them. */
    boolean reporting() {
        return !over && (pendingCalls.isEmpty() ? started : pendingCalls.peek().afterReports);
    }

    /** Whether to send more without waiting for the next report interval. */
    boolean urgent() {
        return !pendingCalls.isEmpty() || reporters.values().stream().anyMatch(Reporter::busy);
    }

    /** All calls that are left to make, in order. */
    List<Message> undelivered() {
        List<Message> left = new ArrayList<>();
        boolean flowing = started;
        // A job whose creation is unanswered begins with its first attempt.
        int attempt = Math.max(this.attempt, 1);
        for (PendingCall pendingCall : pendingCalls) {
            if (pendingCall.request == null) {
                continue;
            }
            if (pendingCall.isEnd()) {
                if (flowing && pendingCall.afterReports) {
                    left.addAll(drain(!pendingCall.sampled, attempt));
                }
                left.add(withAttempt(pendingCall.request, attempt));
                return left;
            }
            if (pendingCall.request instanceof CreateJobRequest request) {
                flowing = !request.getPending();
            } else if (pendingCall.request instanceof StartJobRequest) {
                flowing = true;
                // Only the server knows which attempt that will be: 0 is not checked.
                attempt = 0;
            }
            left.add(pendingCall.request);
        }
        if (flowing) {
            // Also reports after a point that somebody waits for, or has waited for in vain.
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

    /** The first call is done. */
    void answered(PendingCall pendingCall, Job job) {
        pendingCalls.poll();
        retryAt = 0;
        if (job != null) {
            state(withPendingChanges(job));
            // The creator of a job is its first worker, even if another worker took the job over
            // before the answer came.
            attempt = Math.max(attempt, 1);
        }
        if (pendingCall.isEnd() || pendingCall.release) {
            stop(null);
        }
        pendingCall.settle(job, null);
    }

    /** An older answer must not undo changes that are not sent yet. */
    private Job withPendingChanges(Job job) {
        Job.Builder changed = job.toBuilder();
        for (PendingCall pendingCall : pendingCalls) {
            if (pendingCall.request instanceof UpdateJobRequest update) {
                for (String field : update.getUpdateMask().getPathsList()) {
                    var what = Job.getDescriptor().findFieldByName(field);
                    changed.setField(what, update.getJob().getField(what));
                }
            }
        }
        return changed.build();
    }

    /** The server reports that the job is to end early. */
    void cancel(dev.headway.v1.Cancellation wanted) {
        change(job -> job.setCancellation(wanted));
        if (cancellation == null) {
            cancellation = Cancellation.of(wanted);
            tell(() -> cancelled.complete(cancellation));
        }
    }

    private void checkCancellation(Job fresh) {
        if (fresh.getCancellation().getRequested() && cancellation == null) {
            cancellation = Cancellation.of(fresh.getCancellation());
            tell(() -> cancelled.complete(cancellation));
        }
    }

    /** Nothing more is sent for this job. */
    void stop(HeadwayException why) {
        error = why;
        over = true;
        while (!pendingCalls.isEmpty()) {
            pendingCalls.poll().settle(null, why);
        }
        if (why != null) {
            tell(() -> stopped.complete(why));
        }
    }

    Collection<PendingCall> waiting() {
        return List.copyOf(pendingCalls);
    }

    /**
     * Runs in a thread of its own: the worker's reaction must not hold up the reports of all jobs.
     */
    private static void tell(Runnable news) {
        Thread thread = new Thread(news, "headway-signal");
        thread.setDaemon(true);
        thread.start();
    }
}

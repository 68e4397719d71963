package dev.headway;

import dev.headway.v1.FinishJobRequest;
import dev.headway.v1.Job;
import dev.headway.v1.StreamProgressResponse;
import dev.headway.v1.UpdateJobRequest;

import io.grpc.ChannelCredentials;
import io.grpc.ClientCall;
import io.grpc.ManagedChannel;
import io.grpc.Status.Code;

import java.lang.System.Logger.Level;
import java.time.Duration;
import java.util.ArrayList;
import java.util.HashMap;
import java.util.HashSet;
import java.util.LinkedHashSet;
import java.util.List;
import java.util.Map;
import java.util.Set;
import java.util.stream.LongStream;

/**
 * The part of the client that runs in its own thread, for all jobs. It alone owns its channel, the
 * stream and every job state; other threads hand it work through the {@link Inbox}. It samples the
 * meters when the server wants a report, keeps one request in flight, and repeats what was not
 * acknowledged. Sequence numbers and ids chosen by the client make repeats count once. Whatever the
 * server does, the worker's threads never wait here unless they ask to.
 */
final class Engine implements Inbox.Owner, ReportStream.Listener {
    private static final long ANSWER_TIMEOUT = Calls.ANSWER_TIMEOUT_SECONDS * Time.SECOND;
    private static final int MAX_CALLS_IN_FLIGHT = 16;
    private static final long DEFAULT_REPORT_INTERVAL = Time.SECOND / 4;
    private static final long MIN_REPORT_INTERVAL = Time.SECOND / 100;
    private static final long MAX_REPORT_INTERVAL = 30 * Time.SECOND;

    final Inbox inbox = new Inbox(this);

    final Target target;

    /** Bounds how long the end of the process waits for delivery. */
    final Duration exitTimeout;

    private final ChannelCredentials credentials;
    private final ConnectionState connectionState;
    private final Set<JobState> jobs = new LinkedHashSet<>();
    private final Set<ClientCall<?, ?>> calls = new HashSet<>();
    private ManagedChannel channel;
    private ReportStream stream;

    /** Sent, and not acknowledged yet. */
    private Batch batch;

    private long ackBy;
    private long reportInterval = DEFAULT_REPORT_INTERVAL;

    /** Whether the spool of earlier processes was checked for this server. */
    private boolean looked;

    Engine(Target target, ChannelCredentials credentials, Duration exitTimeout) {
        this.target = target;
        this.exitTimeout = exitTimeout;
        this.credentials = credentials;
        this.connectionState = new ConnectionState(target.address());
        // Open it now, and not with the first job, which waits only a second for the server. In a
        // process that has just started, loading gRPC takes a good part of that.
        this.channel = Channels.open(target, credentials, true);
    }

    // Called by other threads.

    /** Takes charge of a job and queues calls for it; from any thread. */
    void submit(JobState jobState, PendingCall... pendingCalls) {
        inbox.put(() -> take(jobState, pendingCalls));
    }

    private void take(JobState jobState, PendingCall... pendingCalls) {
        if (!jobState.over && jobs.add(jobState)) {
            jobState.beatAt = Time.now() + turn(jobState);
        }
        for (PendingCall pendingCall : pendingCalls) {
            jobState.add(pendingCall);
            if (connectionState.down) {
                pendingCall.giveUpWaiting();
            }
        }
        jobState.due = 0;
    }

    void addWaiting(int change) {
        connectionState.addWaiting(change, Time.now());
    }

    List<JobState> live() {
        return jobs.stream().filter(jobState -> !jobState.over).toList();
    }

    // Called by the inbox, in the engine's thread.

    @Override
    public void woken() {
        Shutdown.watch(this);
    }

    @Override
    public void gone() {
        Shutdown.forget(this);
    }

    @Override
    public boolean isIdle() {
        return jobs.isEmpty();
    }

    @Override
    public long idleFor() {
        long now = Time.now();
        if (jobs.isEmpty()) {
            return Long.MAX_VALUE;
        }
        if (batch != null) {
            return Math.max(ackBy - now, 0);
        }
        if (connectionState.retryAt > now) {
            return connectionState.retryAt - now;
        }
        LongStream reports =
                jobs.stream()
                        .filter(JobState::reporting)
                        .mapToLong(c -> Math.max(c.due, c.retryAt));
        LongStream pendingCalls =
                jobs.stream().filter(c -> c.nextCall() != null).mapToLong(c -> c.retryAt);
        LongStream moments =
                calls.size() < MAX_CALLS_IN_FLIGHT
                        ? LongStream.concat(reports, pendingCalls)
                        : reports;
        return Math.max(moments.min().orElse(Long.MAX_VALUE) - now, 0);
    }

    @Override
    public void pump() {
        long now = Time.now();
        if (batch != null && now >= ackBy) {
            outage(new HeadwayException(Code.DEADLINE_EXCEEDED, "no answer"));
        }
        jobs.removeIf(this::isDone);
        if (now < connectionState.retryAt) {
            return;
        }
        if (batch == null) {
            report(now);
        }
        for (JobState jobState : List.copyOf(jobs)) {
            PendingCall pendingCall = jobState.nextCall();
            if (calls.size() < MAX_CALLS_IN_FLIGHT
                    && pendingCall != null
                    && jobState.retryAt <= now) {
                call(jobState, pendingCall);
            }
        }
    }

    /**
     * A fault of the client stops nothing. It counts as an outage, so that it is not repeated at
     * once.
     */
    @Override
    public void fault(Throwable fault) {
        Log.fault(Level.DEBUG, "headway: a fault of its own", fault);
        outage(new HeadwayException(Code.UNKNOWN, fault.toString()));
    }

    private boolean isDone(JobState jobState) {
        if (jobState.over && jobState.file != null) {
            if (jobState.error == null) {
                jobState.file.remove();
            } else {
                jobState.file.refuse();
            }
        }
        return jobState.over || jobState.waits();
    }

    private ManagedChannel channel() {
        if (channel == null) {
            channel = Channels.open(target, credentials, true);
        }
        return channel;
    }

    // Reports.

    private void report(long now) {
        Batch next = new Batch();
        List<JobState> due = new ArrayList<>();
        for (JobState jobState : jobs) {
            if (jobState.reporting() && jobState.due <= now && jobState.retryAt <= now) {
                due.add(jobState);
            }
        }
        next.fill(due, now, this::turn);
        for (Batch.Sender sender : next.oversized) {
            refused(sender, ErrorPolicy.tooLarge());
            sender.jobState().due = now;
        }
        next.faults.forEach(
                (jobState, fault) ->
                        stop(jobState, new HeadwayException(Code.INTERNAL, fault.toString())));
        if (next.senders.isEmpty()) {
            return;
        }
        if (stream == null) {
            stream = new ReportStream(channel(), this);
        }
        batch = next;
        ackBy = now + ANSWER_TIMEOUT;
        stream.send(batch.request.build());
    }

    private long turn(JobState jobState) {
        return jobState.heartbeat > 0
                ? Math.min(reportInterval, Math.max(jobState.heartbeat / 3, MIN_REPORT_INTERVAL))
                : reportInterval;
    }

    @Override
    public void arrived(ReportStream from, StreamProgressResponse response) {
        inbox.put(
                () -> {
                    if (from == stream) {
                        acknowledged(response);
                    }
                });
    }

    @Override
    public void broken(ReportStream from, HeadwayException error) {
        inbox.put(
                () -> {
                    if (from == stream) {
                        broken(error);
                    }
                });
    }

    private void acknowledged(StreamProgressResponse response) {
        heard();
        for (var failure : response.getFailuresList()) {
            if (batch != null && failure.getRequest() == stream.sent - 1) {
                batch.failures.put(failure.getReport(), HeadwayException.of(failure.getStatus()));
            }
        }
        if (response.getCancellationsCount() > 0) {
            Map<String, dev.headway.v1.Cancellation> cancellations = new HashMap<>();
            response.getCancellationsList()
                    .forEach(
                            request ->
                                    cancellations.put(
                                            request.getJobId(), request.getCancellation()));
            jobs.stream()
                    .filter(jobState -> cancellations.containsKey(jobState.id()))
                    .forEach(jobState -> jobState.cancel(cancellations.get(jobState.id())));
        }
        if (response.hasNextReportAfter()) {
            reportInterval =
                    Math.min(
                            Math.max(
                                    Time.nanos(response.getNextReportAfter()), MIN_REPORT_INTERVAL),
                            MAX_REPORT_INTERVAL);
        }
        if (batch != null && response.getAcked() >= stream.sent) {
            Batch done = batch;
            batch = null;
            settle(done, Time.now());
        }
    }

    private void settle(Batch done, long now) {
        for (int position = 0; position < done.senders.size(); position++) {
            Batch.Sender sender = done.senders.get(position);
            JobState jobState = sender.jobState();
            HeadwayException error = done.failures.get(position);
            if (error == null) {
                if (sender.reporter() != null) {
                    sender.reporter().settle();
                }
            } else {
                switch (ErrorPolicy.of(error)) {
                    case STOP -> stop(jobState, error);
                    case DROP -> refused(sender, error);
                    default -> retryLater(jobState, error, now);
                }
            }
            long turn = now + turn(jobState);
            jobState.beatAt = Math.min(jobState.beatAt, turn);
            jobState.due = jobState.urgent() ? now : Math.min(jobState.due, turn);
        }
    }

    private void broken(HeadwayException error) {
        boolean unanswered = batch != null;
        dropStream();
        boolean inOrder = error != null && error.reason().equals("STREAM_EXPIRED");
        if (unanswered && !inOrder) {
            outage(
                    error == null
                            ? new HeadwayException(Code.UNAVAILABLE, "the stream ended")
                            : error);
        }
    }

    // Calls.

    private void call(JobState jobState, PendingCall pendingCall) {
        if (pendingCall.request == null) {
            jobState.answered(pendingCall, null);
            return;
        }
        pendingCall.request = JobState.withAttempt(pendingCall.request, jobState.attempt());
        if (pendingCall.request.getSerializedSize() > Batch.MAX_MESSAGE_BYTES) {
            refused(jobState, pendingCall, ErrorPolicy.tooLarge());
            return;
        }
        jobState.calling = true;
        var placed =
                new Object() {
                    ClientCall<?, ?> call;
                };
        placed.call =
                Calls.begin(
                        channel(),
                        pendingCall.request,
                        (job, error) ->
                                inbox.put(
                                        () ->
                                                called(
                                                        placed.call,
                                                        jobState,
                                                        pendingCall,
                                                        job,
                                                        error)));
        calls.add(placed.call);
    }

    private void called(
            ClientCall<?, ?> call,
            JobState jobState,
            PendingCall pendingCall,
            Job job,
            HeadwayException error) {
        if (!calls.remove(call)) {
            return;
        }
        jobState.calling = false;
        if (error != null) {
            refused(jobState, pendingCall, error);
        } else if (!job.getId().equals(jobState.id())) {
            refused(
                    jobState,
                    pendingCall,
                    new HeadwayException(Code.UNKNOWN, "an answer to something else"));
        } else {
            heard();
            jobState.answered(pendingCall, job);
            jobState.due = 0;
            jobState.beatAt = Time.now() + turn(jobState);
        }
    }

    private void refused(JobState jobState, PendingCall pendingCall, HeadwayException error) {
        switch (ErrorPolicy.of(error)) {
            case RETRY -> {
                retryLater(jobState, error, Time.now());
                pendingCall.giveUpWaiting();
            }
            case STOP, DROP -> declined(jobState, pendingCall, error);
            default -> {
                if (ErrorPolicy.deniesAccess(error) && pendingCall.isCreate()) {
                    declined(jobState, pendingCall, error);
                } else {
                    outage(error);
                }
            }
        }
    }

    private void declined(JobState jobState, PendingCall pendingCall, HeadwayException error) {
        boolean malformed = error.code() == Code.INVALID_ARGUMENT;
        if (pendingCall.request instanceof FinishJobRequest finish
                && finish.hasResults()
                && malformed) {
            warn("the results of job %s were refused, so it ends without: %s", jobState, error);
            pendingCall.request = finish.toBuilder().clearResults().build();
        } else if (pendingCall.request instanceof UpdateJobRequest
                && ErrorPolicy.of(error) != ErrorPolicy.STOP) {
            jobState.answered(pendingCall, null);
            warn("a change of job %s was refused: %s", jobState, error);
        } else {
            stop(jobState, error);
        }
    }

    private void stop(JobState jobState, HeadwayException error) {
        if (!jobState.over) {
            jobState.stop(error);
            warn("job %s is no longer reported: %s", jobState, error);
        }
    }

    private void refused(Batch.Sender sender, HeadwayException error) {
        if (sender.reporter() == null) {
            // A heartbeat has nothing that could be left out.
            stop(sender.jobState(), error);
        } else {
            warn("a report of job %s was refused: %s", sender.jobState(), error);
            sender.reporter().refused(error);
        }
    }

    private void retryLater(JobState jobState, HeadwayException error, long now) {
        if (jobState.retryAt == 0) {
            warn("job %s has to wait: %s", jobState, error);
        }
        long asked = Time.nanos(error.retryAfter().orElse(Duration.ofSeconds(1)));
        long pause = Math.min(Math.max(asked, Time.SECOND / 10), 60 * Time.SECOND);
        jobState.retryAt = now + Ids.chance(1.0, 1.2, pause);
    }

    private static void warn(String text, JobState jobState, HeadwayException error) {
        Log.say(Level.WARNING, "headway: " + String.format(text, jobState.id(), Log.line(error)));
    }

    // The connection.

    private void heard() {
        connectionState.answered();
        if (!looked) {
            looked = true;
            inbox.put(() -> SpoolSender.collect(target, credentials));
        }
    }

    private void outage(HeadwayException error) {
        // A server that says this is healthy. After any other error the connection is not trusted:
        // a fault on it may stay, and gRPC would delay its reconnection.
        if (error.code() == Code.RESOURCE_EXHAUSTED) {
            dropStream();
        } else {
            disconnect();
        }
        connectionState.failed(error, Time.now());
        jobs.forEach(jobState -> jobState.waiting().forEach(PendingCall::giveUpWaiting));
    }

    private void dropStream() {
        if (stream != null) {
            stream.close();
        }
        stream = null;
        if (batch != null) {
            batch.senders.forEach(sender -> sender.jobState().due = 0);
        }
        batch = null;
    }

    /** Closes the connection, and with it all calls in flight. */
    @Override
    public void disconnect() {
        dropStream();
        calls.clear();
        jobs.forEach(jobState -> jobState.calling = false);
        if (channel != null) {
            channel.shutdownNow();
        }
        channel = null;
    }
}

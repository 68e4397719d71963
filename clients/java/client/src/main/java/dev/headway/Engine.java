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
 * What runs in the thread behind all jobs of a client. It alone owns its channel, the stream and
 * every course; others hand it work through the {@link Inbox}. It samples the meters when the
 * server wants to hear of them, keeps one request in flight, and repeats what was not acknowledged:
 * sequences and chosen ids make that count once. Whatever the server does, the worker's threads
 * never wait here unless they ask to.
 */
final class Engine implements Inbox.Owner, ReportStream.Listener {
    private static final long PATIENCE = Calls.PATIENCE * Time.SECOND;
    private static final int CALLS = 16;
    private static final long FIRST_PACE = Time.SECOND / 4;
    private static final long SHORTEST_PACE = Time.SECOND / 100;
    private static final long LONGEST_PACE = 30 * Time.SECOND;

    final Inbox inbox = new Inbox(this);

    final Target target;

    /** How long the end of the process waits at most for what was not delivered. */
    final Duration exitTimeout;

    private final ChannelCredentials credentials;
    private final Contact contact;
    private final Set<Course> courses = new LinkedHashSet<>();
    private final Set<ClientCall<?, ?>> calls = new HashSet<>();
    private ManagedChannel channel;
    private ReportStream stream;

    /** Sent and not acknowledged yet. */
    private Batch batch;

    private long ackBy;
    private long pace = FIRST_PACE;

    /** Whether it was seen what earlier processes left for this server. */
    private boolean looked;

    Engine(Target target, ChannelCredentials credentials, Duration exitTimeout) {
        this.target = target;
        this.exitTimeout = exitTimeout;
        this.credentials = credentials;
        this.contact = new Contact(target.address());
        // Now, and not with the first job, which waits for the server but a second: what gRPC has
        // to load takes a good part of
        // that in a process that has just begun.
        this.channel = Channels.open(target, credentials, true);
    }

    // What others have it do.

    /** Takes a course in charge and queues steps for it; from any thread. */
    void submit(Course course, Step... steps) {
        inbox.put(() -> take(course, steps));
    }

    private void take(Course course, Step... steps) {
        if (!course.over && courses.add(course)) {
            course.beatAt = Time.now() + turn(course);
        }
        for (Step step : steps) {
            course.add(step);
            if (contact.down) {
                step.giveUpWaiting();
            }
        }
        course.due = 0;
    }

    void hurry(int change) {
        contact.hurry(change, Time.now());
    }

    List<Course> live() {
        return courses.stream().filter(course -> !course.over).toList();
    }

    // Its turns.

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
        return courses.isEmpty();
    }

    @Override
    public long idleFor() {
        long now = Time.now();
        if (courses.isEmpty()) {
            return Long.MAX_VALUE;
        }
        if (batch != null) {
            return Math.max(ackBy - now, 0);
        }
        if (contact.retryAt > now) {
            return contact.retryAt - now;
        }
        LongStream reports =
                courses.stream()
                        .filter(Course::reporting)
                        .mapToLong(c -> Math.max(c.due, c.retryAt));
        LongStream steps =
                courses.stream().filter(c -> c.nextStep() != null).mapToLong(c -> c.retryAt);
        LongStream moments = calls.size() < CALLS ? LongStream.concat(reports, steps) : reports;
        return Math.max(moments.min().orElse(Long.MAX_VALUE) - now, 0);
    }

    @Override
    public void pump() {
        long now = Time.now();
        if (batch != null && now >= ackBy) {
            outage(new HeadwayException(Code.DEADLINE_EXCEEDED, "no answer"));
        }
        courses.removeIf(this::seenOff);
        if (now < contact.retryAt) {
            return;
        }
        if (batch == null) {
            report(now);
        }
        for (Course course : List.copyOf(courses)) {
            Step step = course.nextStep();
            if (calls.size() < CALLS && step != null && course.retryAt <= now) {
                call(course, step);
            }
        }
    }

    /** What should not happen stops nothing, and is not tried again at once. */
    @Override
    public void fault(Throwable fault) {
        Log.fault(Level.DEBUG, "headway: a fault of its own", fault);
        outage(new HeadwayException(Code.UNKNOWN, fault.toString()));
    }

    private boolean seenOff(Course course) {
        if (course.over && course.letter != null) {
            if (course.error == null) {
                course.letter.remove();
            } else {
                course.letter.refuse();
            }
        }
        return course.over || course.waits();
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
        List<Course> due = new ArrayList<>();
        for (Course course : courses) {
            if (course.reporting() && course.due <= now && course.retryAt <= now) {
                due.add(course);
            }
        }
        next.fill(due, now, this::turn);
        for (Batch.Sender sender : next.oversized) {
            refused(sender, Verdict.tooLarge());
            sender.course().due = now;
        }
        next.faults.forEach(
                (course, fault) ->
                        stop(course, new HeadwayException(Code.INTERNAL, fault.toString())));
        if (next.senders.isEmpty()) {
            return;
        }
        if (stream == null) {
            stream = new ReportStream(channel(), this);
        }
        batch = next;
        ackBy = now + PATIENCE;
        stream.send(batch.request.build());
    }

    private long turn(Course course) {
        return course.heartbeat > 0
                ? Math.min(pace, Math.max(course.heartbeat / 3, SHORTEST_PACE))
                : pace;
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
            Map<String, dev.headway.v1.Cancellation> wishes = new HashMap<>();
            response.getCancellationsList()
                    .forEach(wish -> wishes.put(wish.getJobId(), wish.getCancellation()));
            courses.stream()
                    .filter(course -> wishes.containsKey(course.id()))
                    .forEach(course -> course.cancel(wishes.get(course.id())));
        }
        if (response.hasNextReportAfter()) {
            pace =
                    Math.min(
                            Math.max(Time.nanos(response.getNextReportAfter()), SHORTEST_PACE),
                            LONGEST_PACE);
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
            Course course = sender.course();
            HeadwayException error = done.failures.get(position);
            if (error == null) {
                if (sender.reporter() != null) {
                    sender.reporter().settle();
                }
            } else {
                switch (Verdict.of(error)) {
                    case GONE -> stop(course, error);
                    case REFUSED -> refused(sender, error);
                    default -> later(course, error, now);
                }
            }
            long turn = now + turn(course);
            course.beatAt = Math.min(course.beatAt, turn);
            course.due = course.urgent() ? now : Math.min(course.due, turn);
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

    private void call(Course course, Step step) {
        if (step.request == null) {
            course.answered(step, null);
            return;
        }
        step.request = Course.withAttempt(step.request, course.attempt());
        if (step.request.getSerializedSize() > Batch.MESSAGE_BYTES) {
            refused(course, step, Verdict.tooLarge());
            return;
        }
        course.calling = true;
        var placed =
                new Object() {
                    ClientCall<?, ?> call;
                };
        placed.call =
                Calls.begin(
                        channel(),
                        step.request,
                        (job, error) ->
                                inbox.put(() -> called(placed.call, course, step, job, error)));
        calls.add(placed.call);
    }

    private void called(
            ClientCall<?, ?> call, Course course, Step step, Job job, HeadwayException error) {
        if (!calls.remove(call)) {
            return;
        }
        course.calling = false;
        if (error != null) {
            refused(course, step, error);
        } else if (!job.getId().equals(course.id())) {
            refused(
                    course,
                    step,
                    new HeadwayException(Code.UNKNOWN, "an answer to something else"));
        } else {
            heard();
            course.answered(step, job);
            course.due = 0;
            course.beatAt = Time.now() + turn(course);
        }
    }

    private void refused(Course course, Step step, HeadwayException error) {
        switch (Verdict.of(error)) {
            case LATER -> {
                later(course, error, Time.now());
                step.giveUpWaiting();
            }
            case GONE, REFUSED -> declined(course, step, error);
            default -> {
                if (Verdict.keepsOut(error) && step.isCreate()) {
                    declined(course, step, error);
                } else {
                    outage(error);
                }
            }
        }
    }

    private void declined(Course course, Step step, HeadwayException error) {
        boolean malformed = error.code() == Code.INVALID_ARGUMENT;
        if (step.request instanceof FinishJobRequest finish && finish.hasResults() && malformed) {
            notice("the results of job %s were refused, so it ends without: %s", course, error);
            step.request = finish.toBuilder().clearResults().build();
        } else if (step.request instanceof UpdateJobRequest && Verdict.of(error) != Verdict.GONE) {
            course.answered(step, null);
            notice("a change of job %s was refused: %s", course, error);
        } else {
            stop(course, error);
        }
    }

    private void stop(Course course, HeadwayException error) {
        if (!course.over) {
            course.stop(error);
            notice("job %s is no longer reported: %s", course, error);
        }
    }

    private void refused(Batch.Sender sender, HeadwayException error) {
        if (sender.reporter() == null) {
            // Nothing in a heartbeat could be put right.
            stop(sender.course(), error);
        } else {
            notice("a report of job %s was refused: %s", sender.course(), error);
            sender.reporter().refused(error);
        }
    }

    private void later(Course course, HeadwayException error, long now) {
        if (course.retryAt == 0) {
            notice("job %s has to wait: %s", course, error);
        }
        long asked = Time.nanos(error.retryAfter().orElse(Duration.ofSeconds(1)));
        long pause = Math.min(Math.max(asked, Time.SECOND / 10), 60 * Time.SECOND);
        course.retryAt = now + Ids.chance(1.0, 1.2, pause);
    }

    private static void notice(String text, Course course, HeadwayException error) {
        Log.say(Level.WARNING, "headway: " + String.format(text, course.id(), Log.words(error)));
    }

    // The connection.

    private void heard() {
        contact.heard();
        if (!looked) {
            looked = true;
            inbox.put(() -> Postman.collect(target, credentials));
        }
    }

    private void outage(HeadwayException error) {
        // Who says this is well. After all else the connection is not believed: what went wrong on
        // it once may stay wrong, and
        // gRPC would pause before it connects anew.
        if (error.code() == Code.RESOURCE_EXHAUSTED) {
            dropStream();
        } else {
            hangUp();
        }
        contact.lost(error, Time.now());
        courses.forEach(course -> course.waiting().forEach(Step::giveUpWaiting));
    }

    private void dropStream() {
        if (stream != null) {
            stream.close();
        }
        stream = null;
        if (batch != null) {
            batch.senders.forEach(sender -> sender.course().due = 0);
        }
        batch = null;
    }

    /** Closes the connection, and with it all calls that are under way. */
    @Override
    public void hangUp() {
        dropStream();
        calls.clear();
        courses.forEach(course -> course.calling = false);
        if (channel != null) {
            channel.shutdownNow();
        }
        channel = null;
    }
}

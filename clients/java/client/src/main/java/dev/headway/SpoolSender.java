package dev.headway;

import com.google.protobuf.Message;

import dev.headway.v1.CreateJobRequest;
import dev.headway.v1.FailJobRequest;
import dev.headway.v1.FinishJobRequest;
import dev.headway.v1.JobServiceGrpc;
import dev.headway.v1.ReportProgressRequest;
import dev.headway.v1.StartJobRequest;
import dev.headway.v1.UpdateJobRequest;

import io.grpc.Channel;
import io.grpc.ChannelCredentials;
import io.grpc.ManagedChannel;
import io.grpc.StatusRuntimeException;

import java.io.IOException;
import java.lang.System.Logger.Level;
import java.nio.file.Path;
import java.util.HashSet;
import java.util.LinkedHashMap;
import java.util.List;
import java.util.Map;
import java.util.Optional;
import java.util.Set;
import java.util.concurrent.CompletableFuture;
import java.util.concurrent.TimeUnit;

/**
 * Leaves in the spool what this process could not deliver, and sends what earlier ones left, one
 * letter after the other over a channel of its own. If the server does not answer, the rest stays
 * for later.
 */
final class Postman {
    private final Target target;
    private final ChannelCredentials credentials;
    private final List<Path> letters;

    private enum Outcome {
        SENT,
        REFUSED,
        WAITING
    }

    private Postman(Target target, ChannelCredentials credentials, List<Path> letters) {
        this.target = target;
        this.credentials = credentials;
        this.letters = letters;
    }

    /**
     * Writes what these jobs have left to say. For each that has something left: where it is, or ""
     * if it cannot be written. One notice says why, however many jobs there are. Belongs in the
     * engine's thread.
     */
    static Map<Course, String> writeDown(List<Course> courses, Target target) {
        Map<Course, String> left = new LinkedHashMap<>();
        Exception fault = null;
        for (Course course : courses) {
            try {
                List<Message> requests = course.over ? List.of() : course.remains();
                if (requests.isEmpty()) {
                    continue;
                }
                left.put(course, "");
                if (Spool.isOn()) {
                    String name = course.state().getName();
                    Words words =
                            new Words(target.address(), target.tls(), course.id(), name, requests);
                    course.letter = Spool.write(words, course.letter);
                    left.put(course, course.letter.path.toString());
                }
            } catch (IOException | RuntimeException error) {
                fault = error;
            }
        }
        if (fault != null) {
            Log.say(Level.WARNING, "headway: what is left to say cannot be written down: " + fault);
        }
        return left;
    }

    /** Starts to send what waits for this server, if anything does. */
    static void collect(Target target, ChannelCredentials credentials) {
        start(target, credentials, "");
    }

    /**
     * Sends what earlier processes left to say of this job, before it is another's turn; waits so
     * long at most for that.
     */
    static void catchUp(Target target, ChannelCredentials credentials, String jobId, long nanos) {
        Waiting.atMost(start(target, credentials, jobId), nanos);
    }

    private static CompletableFuture<Void> start(
            Target target, ChannelCredentials credentials, String jobId) {
        List<Path> letters = Spool.letters(target, jobId);
        CompletableFuture<Void> done = new CompletableFuture<>();
        if (letters.isEmpty()) {
            done.complete(null);
            return done;
        }
        Postman postman = new Postman(target, credentials, letters);
        Thread thread =
                new Thread(
                        () -> {
                            try {
                                postman.round();
                            } catch (RuntimeException fault) {
                                Log.fault(
                                        Level.DEBUG, "headway: the spool is left for later", fault);
                            } finally {
                                done.complete(null);
                            }
                        },
                        "headway-spool");
        thread.setDaemon(true);
        thread.start();
        return done;
    }

    /** Sends all that waits for this server, and says what became of it. */
    static SpoolReport flush(Target target, ChannelCredentials credentials) {
        return new Postman(target, credentials, Spool.letters(target, "")).round();
    }

    private SpoolReport round() {
        int sent = 0;
        int refused = 0;
        ManagedChannel channel = Channels.open(target, credentials, false);
        try {
            Set<String> held = new HashSet<>();
            for (Path path : letters) {
                String job = Spool.jobIn(path);
                var letter = held.contains(job) ? Optional.<Letter>empty() : Letter.claim(path);
                if (letter.isEmpty()) {
                    // What comes after it of the same job waits for it.
                    held.add(job);
                }
                Outcome outcome = letter.isPresent() ? deliver(letter.get(), channel) : null;
                if (outcome == Outcome.WAITING) {
                    break;
                }
                sent += outcome == Outcome.SENT ? 1 : 0;
                refused += outcome == Outcome.REFUSED ? 1 : 0;
            }
        } finally {
            channel.shutdownNow();
        }
        return new SpoolReport(sent, refused, Spool.letters(target, "").size());
    }

    /**
     * Sends a letter and removes it, puts it aside if the server will never take it, or else leaves
     * it where it is.
     */
    private static Outcome deliver(Letter letter, Channel channel) {
        try {
            Words words = letter.read();
            send(channel, words.requests());
            letter.remove();
            Log.say(
                    Level.INFO,
                    "headway: what was left to say of job " + words.jobId() + " is delivered");
            return Outcome.SENT;
        } catch (IllegalArgumentException damaged) {
            return refuse(letter, damaged.getMessage());
        } catch (HeadwayException error) {
            Verdict verdict = Verdict.of(error);
            boolean last = verdict == Verdict.GONE || verdict == Verdict.REFUSED;
            return last ? refuse(letter, Log.words(error)) : Outcome.WAITING;
        } catch (IOException unreadable) {
            return Outcome.WAITING;
        } finally {
            letter.release();
        }
    }

    private static Outcome refuse(Letter letter, String why) {
        Log.say(
                Level.WARNING,
                "headway: what was left to say of a job is refused, see "
                        + letter.refuse()
                        + ": "
                        + why);
        return Outcome.REFUSED;
    }

    /** Makes these calls in order. HeadwayException if one fails that matters. */
    static void send(Channel channel, List<Message> requests) {
        HeadwayException ended = null;
        for (Message request : requests) {
            boolean end = request instanceof FinishJobRequest || request instanceof FailJobRequest;
            try {
                call(channel, request);
                ended = end ? null : ended;
            } catch (HeadwayException error) {
                // If the end did arrive, and only its answer did not, then so did all before it:
                // its repeat tells.
                if (end || !error.reason().equals("JOB_ENDED")) {
                    throw error;
                }
                ended = error;
            }
        }
        if (ended != null) {
            throw ended;
        }
    }

    private static void call(Channel channel, Message request) {
        try {
            callOnce(channel, request);
        } catch (HeadwayException error) {
            // As the engine does: what is refused of a job must not keep the rest of it back.
            if (Verdict.of(error) != Verdict.REFUSED) {
                throw error;
            }
            if (request instanceof ReportProgressRequest report) {
                Message rest = Reporter.lighter(report, error.fields());
                if (rest != null) {
                    call(channel, rest);
                }
            } else if (request instanceof FinishJobRequest finish && finish.hasResults()) {
                callOnce(channel, finish.toBuilder().clearResults().build());
            } else if (!(request instanceof UpdateJobRequest)) {
                throw error;
            }
        }
    }

    private static void callOnce(Channel channel, Message request) {
        var stub =
                JobServiceGrpc.newBlockingStub(channel)
                        .withDeadlineAfter(Calls.PATIENCE, TimeUnit.SECONDS);
        try {
            if (request instanceof ReportProgressRequest report) {
                stub.reportProgress(report);
            } else if (request instanceof CreateJobRequest create) {
                stub.createJob(create);
            } else if (request instanceof StartJobRequest start) {
                stub.startJob(start);
            } else if (request instanceof UpdateJobRequest update) {
                stub.updateJob(update);
            } else if (request instanceof FinishJobRequest finish) {
                stub.finishJob(finish);
            } else if (request instanceof FailJobRequest fail) {
                stub.failJob(fail);
            }
        } catch (StatusRuntimeException error) {
            throw HeadwayException.of(error);
        }
    }
}

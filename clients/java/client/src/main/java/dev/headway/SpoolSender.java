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
 * Saves in the spool what this process could not deliver. Sends what earlier processes left there,
 * one file after the other over a channel of its own. If the server does not answer, the rest stays
 * for later.
 */
final class SpoolSender {
    private final Target target;
    private final ChannelCredentials credentials;
    private final List<Path> files;

    private enum Outcome {
        SENT,
        REFUSED,
        WAITING
    }

    private SpoolSender(Target target, ChannelCredentials credentials, List<Path> files) {
        this.target = target;
        this.credentials = credentials;
        this.files = files;
    }

    /**
     * Saves what these jobs have left to send. The result has an entry for each job with something
     * left: the path of its file, or "" if it cannot be saved. One warning says why, however many
     * jobs there are. Runs in the engine's thread.
     */
    static Map<JobState, String> spoolUndelivered(List<JobState> jobs, Target target) {
        Map<JobState, String> left = new LinkedHashMap<>();
        Exception fault = null;
        for (JobState jobState : jobs) {
            try {
                List<Message> requests = jobState.over ? List.of() : jobState.undelivered();
                if (requests.isEmpty()) {
                    continue;
                }
                left.put(jobState, "");
                if (Spool.isOn()) {
                    String name = jobState.state().getName();
                    SpoolRecord spoolRecord =
                            new SpoolRecord(
                                    target.address(), target.tls(), jobState.id(), name, requests);
                    jobState.file = Spool.write(spoolRecord, jobState.file);
                    left.put(jobState, jobState.file.path.toString());
                }
            } catch (IOException | RuntimeException error) {
                fault = error;
            }
        }
        if (fault != null) {
            Log.say(Level.WARNING, "headway: undelivered reports cannot be saved: " + fault);
        }
        return left;
    }

    /** Starts to send the files that wait for this server, if there are any. */
    static void collect(Target target, ChannelCredentials credentials) {
        start(target, credentials, "");
    }

    /**
     * Sends what earlier processes left for this job, before this worker takes it over. Waits for
     * that at most so long.
     */
    static void catchUp(Target target, ChannelCredentials credentials, String jobId, long nanos) {
        Waiting.atMost(start(target, credentials, jobId), nanos);
    }

    private static CompletableFuture<Void> start(
            Target target, ChannelCredentials credentials, String jobId) {
        List<Path> files = Spool.waitingFiles(target, jobId);
        CompletableFuture<Void> done = new CompletableFuture<>();
        if (files.isEmpty()) {
            done.complete(null);
            return done;
        }
        SpoolSender sender = new SpoolSender(target, credentials, files);
        Thread thread =
                new Thread(
                        () -> {
                            try {
                                sender.sendAll();
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

    /** Sends everything that waits for this server, and returns the counts. */
    static SpoolReport flush(Target target, ChannelCredentials credentials) {
        return new SpoolSender(target, credentials, Spool.waitingFiles(target, "")).sendAll();
    }

    private SpoolReport sendAll() {
        int sent = 0;
        int refused = 0;
        ManagedChannel channel = Channels.open(target, credentials, false);
        try {
            Set<String> held = new HashSet<>();
            for (Path path : files) {
                String job = Spool.jobInName(path);
                var file = held.contains(job) ? Optional.<SpoolFile>empty() : SpoolFile.claim(path);
                if (file.isEmpty()) {
                    // Later files of the same job wait for it.
                    held.add(job);
                }
                Outcome outcome = file.isPresent() ? deliver(file.get(), channel) : null;
                if (outcome == Outcome.WAITING) {
                    break;
                }
                sent += outcome == Outcome.SENT ? 1 : 0;
                refused += outcome == Outcome.REFUSED ? 1 : 0;
            }
        } finally {
            channel.shutdownNow();
        }
        return new SpoolReport(sent, refused, Spool.waitingFiles(target, "").size());
    }

    /**
     * Sends a file and removes it. If the server will never accept it, sets it aside. Otherwise
     * leaves it.
     */
    private static Outcome deliver(SpoolFile file, Channel channel) {
        try {
            SpoolRecord spoolRecord = file.read();
            send(channel, spoolRecord.requests());
            file.remove();
            Log.say(
                    Level.INFO,
                    "headway: the spool file of job " + spoolRecord.jobId() + " is delivered");
            return Outcome.SENT;
        } catch (IllegalArgumentException damaged) {
            return refuse(file, damaged.getMessage());
        } catch (HeadwayException error) {
            ErrorPolicy policy = ErrorPolicy.of(error);
            boolean last = policy == ErrorPolicy.STOP || policy == ErrorPolicy.DROP;
            return last ? refuse(file, Log.line(error)) : Outcome.WAITING;
        } catch (IOException unreadable) {
            return Outcome.WAITING;
        } finally {
            file.release();
        }
    }

    private static Outcome refuse(SpoolFile file, String why) {
        Log.say(
                Level.WARNING,
                "headway: the server refused what an earlier process left for a job, see "
                        + file.refuse()
                        + ": "
                        + why);
        return Outcome.REFUSED;
    }

    /** Makes these calls in order. HeadwayException if an essential call fails. */
    static void send(Channel channel, List<Message> requests) {
        HeadwayException ended = null;
        for (Message request : requests) {
            boolean end = request instanceof FinishJobRequest || request instanceof FailJobRequest;
            try {
                call(channel, request);
                ended = end ? null : ended;
            } catch (HeadwayException error) {
                // If the end arrived and only its answer was lost, everything before it arrived
                // too. Repeating the end tells.
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
            // As in the engine: a refused part of a job must not hold back the rest.
            if (ErrorPolicy.of(error) != ErrorPolicy.DROP) {
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
                        .withDeadlineAfter(Calls.ANSWER_TIMEOUT_SECONDS, TimeUnit.SECONDS);
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

package dev.headway;

import static org.junit.jupiter.api.Assertions.assertEquals;
import static org.junit.jupiter.api.Assertions.assertFalse;
import static org.junit.jupiter.api.Assertions.assertThrows;
import static org.junit.jupiter.api.Assertions.assertTrue;

import com.google.protobuf.FieldMask;

import dev.headway.v1.CreateJobRequest;
import dev.headway.v1.FailJobRequest;
import dev.headway.v1.FinishJobRequest;
import dev.headway.v1.GetJobRequest;
import dev.headway.v1.JobServiceGrpc;
import dev.headway.v1.JobStatus;
import dev.headway.v1.ReportProgressRequest;
import dev.headway.v1.StreamProgressRequest;
import dev.headway.v1.StreamProgressResponse;
import dev.headway.v1.UpdateJobRequest;

import io.grpc.InsecureServerCredentials;
import io.grpc.Server;
import io.grpc.okhttp.OkHttpServerBuilder;
import io.grpc.stub.StreamObserver;

import org.junit.jupiter.api.AfterEach;
import org.junit.jupiter.api.BeforeEach;
import org.junit.jupiter.api.Test;

import java.io.IOException;
import java.net.InetAddress;
import java.net.InetSocketAddress;
import java.time.Duration;
import java.util.List;
import java.util.Map;
import java.util.Queue;
import java.util.concurrent.ConcurrentLinkedQueue;
import java.util.logging.Handler;
import java.util.logging.LogRecord;
import java.util.logging.Logger;

/** Jobs at a server that accepts everything. */
class JobTest {
    private static final String ID = "0190b5a1c8d07b2a9c3e5f60718293a4";

    private final Queue<String> seen = new ConcurrentLinkedQueue<>();
    private volatile JobStatus status = JobStatus.JOB_STATUS_RUNNING;
    private Server server;
    private HeadwayClient client;

    @BeforeEach
    void start() throws IOException {
        var address = new InetSocketAddress(InetAddress.getLoopbackAddress(), 0);
        server =
                OkHttpServerBuilder.forPort(address, InsecureServerCredentials.create())
                        .addService(new Obliging())
                        .build()
                        .start();
        client = at("127.0.0.1:" + server.getPort(), Duration.ofSeconds(5));
    }

    @AfterEach
    void stop() {
        client.close();
        server.shutdownNow();
    }

    private static HeadwayClient at(String target, Duration exitTimeout) {
        return HeadwayClient.builder()
                .target(target)
                .session("s")
                .exitTimeout(exitTimeout)
                .connect();
    }

    private final class Obliging extends JobServiceGrpc.JobServiceImplBase {
        private void answer(String name, StreamObserver<dev.headway.v1.Job> to) {
            to.onNext(
                    dev.headway.v1.Job.newBuilder()
                            .setId(ID)
                            .setName(name)
                            .setStatus(status)
                            .setAttempt(1)
                            .build());
            to.onCompleted();
        }

        @Override
        public void getJob(GetJobRequest request, StreamObserver<dev.headway.v1.Job> to) {
            answer("as it was", to);
        }

        @Override
        public void createJob(CreateJobRequest request, StreamObserver<dev.headway.v1.Job> to) {
            answer(request.getName(), to);
        }

        @Override
        public void finishJob(FinishJobRequest request, StreamObserver<dev.headway.v1.Job> to) {
            seen.add("finish");
            answer("", to);
        }

        @Override
        public void failJob(FailJobRequest request, StreamObserver<dev.headway.v1.Job> to) {
            seen.add(request.getError().getMessage());
            answer("", to);
        }

        @Override
        public StreamObserver<StreamProgressRequest> streamProgress(
                StreamObserver<StreamProgressResponse> to) {
            return new StreamObserver<>() {
                private int acked;

                @Override
                public void onNext(StreamProgressRequest request) {
                    request.getReportsList()
                            .forEach(report -> seen.add(report.getPart() + report.getProgress()));
                    acked++;
                    to.onNext(StreamProgressResponse.newBuilder().setAcked(acked).build());
                }

                @Override
                public void onError(Throwable error) {}

                @Override
                public void onCompleted() {
                    to.onCompleted();
                }
            };
        }
    }

    @Test
    void aFetchedJobIsLetGoWhenItIsClosed() {
        try (Job job = client.fetch(ID).orElseThrow()) {
            job.part("a").advance(3);
        }
        assertEquals(List.of("a3"), List.copyOf(seen));
    }

    @Test
    void reportsOfAPendingJobFlowOnceItIsKnownToRun() {
        status = JobStatus.JOB_STATUS_PENDING;
        Job job = client.fetch(ID).orElseThrow();
        job.part("a").advance(3);
        job.flush();
        assertEquals(List.of(), List.copyOf(seen));
        status = JobStatus.JOB_STATUS_RUNNING;
        job.refresh();
        assertTrue(job.flush());
        assertEquals(List.of("a3"), List.copyOf(seen));
    }

    @Test
    void whatWasSaidAfterAFlushInVainIsLeft() {
        Meter meter = new Meter("", 0);
        var jobState = new JobState("s", named("a"), meter, 0, true);
        meter.advance(1);
        jobState.add(PendingCall.marker());
        jobState.reports(0);
        meter.advance(1);
        assertEquals(
                List.of(1L, 2L),
                jobState.undelivered().stream()
                        .map(left -> ((ReportProgressRequest) left).getProgress())
                        .toList());
    }

    @Test
    void aJobThatWaitsForAnotherIsNeitherHeldNorFailed() {
        status = JobStatus.JOB_STATUS_PENDING;
        client.create(NewJob.named("a").id(ID).pending()).close();
        assertEquals(List.of(), List.copyOf(seen));
        assertEquals(List.of(), Delivery.jobs(client.connection().engine));
    }

    @Test
    void aNewNameIsNotForgottenOverAnOlderAnswer() {
        var jobState = new JobState("s", named("first"), new Meter("", 0), 0, true);
        PendingCall second = renaming("second");
        jobState.add(second);
        jobState.add(renaming("third"));
        jobState.change(job -> job.setName("third"));
        jobState.answered(second, named("second"));
        assertEquals("third", jobState.state().getName());
    }

    private static dev.headway.v1.Job named(String name) {
        return dev.headway.v1.Job.newBuilder().setId(ID).setName(name).build();
    }

    private static PendingCall renaming(String name) {
        return PendingCall.call(
                UpdateJobRequest.newBuilder()
                        .setJob(named(name))
                        .setUpdateMask(FieldMask.newBuilder().addPaths("name"))
                        .build());
    }

    @Test
    void aLogThatThrowsStopsNothing() {
        Logger log = Logger.getLogger("headway");
        Handler broken =
                new Handler() {
                    @Override
                    public void publish(LogRecord said) {
                        throw new IllegalStateException("the log is broken");
                    }

                    @Override
                    public void flush() {}

                    @Override
                    public void close() {}
                };
        log.addHandler(broken);
        try {
            Job job = client.create(NewJob.named("a").id(ID));
            job.advance();
            Log.say(System.Logger.Level.WARNING, "nobody hears it");
            assertTrue(job.flush());
        } finally {
            log.removeHandler(broken);
        }
    }

    @Test
    void errorsAreNamedWhateverTheyAre() {
        RuntimeException error =
                new RuntimeException() {
                    private static final long serialVersionUID = 1L;

                    @Override
                    public String getMessage() {
                        throw new IllegalStateException("no text");
                    }
                };
        client.create(NewJob.named("a").id(ID)).fail(error);
        assertEquals(List.of("RuntimeException"), List.copyOf(seen));
    }

    @Test
    void variablesAreAnsweredAsTheServerWould() {
        Job job = client.create(NewJob.named("a").id(ID));
        job.set(Map.of("line", 17));
        assertEquals(17L, job.get("line"));
    }

    @Test
    void aClosedClientTakesNoNewJob() {
        client.close();
        assertThrows(IllegalStateException.class, () -> client.create("late"));
    }

    @Test
    void whatCannotBeStoredIsNotFlushed() {
        try (HeadwayClient away = at("127.0.0.1:1", Duration.ZERO)) {
            assertFalse(away.create("a").flush(Duration.ZERO));
        }
    }

    @Test
    void gRpcUnderstandsAddressesOfVersionSix() {
        Target target = Target.of("[::1]:50051", null, null, Map.of());
        assertEquals("dns:///%5B::1%5D:50051", Channels.uri(target));
    }

    @Test
    void aStatusOfALaterVersionIsNoFault() {
        var job = dev.headway.v1.Job.newBuilder().setStatusValue(99).build();
        assertFalse(Status.isFinal(job));
    }
}

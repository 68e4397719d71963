package dev.headway;

import com.google.protobuf.Message;

import dev.headway.v1.CreateJobRequest;
import dev.headway.v1.FailJobRequest;
import dev.headway.v1.FinishJobRequest;
import dev.headway.v1.Job;
import dev.headway.v1.JobServiceGrpc;
import dev.headway.v1.StartJobRequest;
import dev.headway.v1.UpdateJobRequest;

import io.grpc.CallOptions;
import io.grpc.Channel;
import io.grpc.ClientCall;
import io.grpc.MethodDescriptor;
import io.grpc.Status.Code;
import io.grpc.stub.ClientCalls;
import io.grpc.stub.StreamObserver;

import java.util.concurrent.TimeUnit;

/** Makes a job's calls, each with the method for its request. */
final class Calls {
    /** Seconds that the engine waits for an answer before the connection counts as broken. */
    static final long ANSWER_TIMEOUT_SECONDS = 10;

    private Calls() {}

    /** Receives the result of a call, in a thread of the transport. */
    interface Listener {
        /** One of the two is null. */
        void ended(Job job, HeadwayException error);
    }

    /** Starts the call. */
    static ClientCall<?, ?> begin(Channel channel, Message request, Listener listener) {
        if (request instanceof CreateJobRequest create) {
            return begin(channel, JobServiceGrpc.getCreateJobMethod(), create, listener);
        }
        if (request instanceof StartJobRequest start) {
            return begin(channel, JobServiceGrpc.getStartJobMethod(), start, listener);
        }
        if (request instanceof UpdateJobRequest update) {
            return begin(channel, JobServiceGrpc.getUpdateJobMethod(), update, listener);
        }
        if (request instanceof FinishJobRequest finish) {
            return begin(channel, JobServiceGrpc.getFinishJobMethod(), finish, listener);
        }
        return begin(
                channel, JobServiceGrpc.getFailJobMethod(), (FailJobRequest) request, listener);
    }

    private static <Q> ClientCall<Q, Job> begin(
            Channel channel, MethodDescriptor<Q, Job> method, Q request, Listener listener) {
        ClientCall<Q, Job> call =
                channel.newCall(
                        method,
                        CallOptions.DEFAULT.withDeadlineAfter(
                                ANSWER_TIMEOUT_SECONDS, TimeUnit.SECONDS));
        ClientCalls.asyncUnaryCall(
                call,
                request,
                new StreamObserver<>() {
                    private Job job;

                    @Override
                    public void onNext(Job answer) {
                        job = answer;
                    }

                    @Override
                    public void onError(Throwable error) {
                        listener.ended(null, HeadwayException.of(error));
                    }

                    @Override
                    public void onCompleted() {
                        listener.ended(
                                job,
                                job == null
                                        ? new HeadwayException(Code.UNKNOWN, "no answer")
                                        : null);
                    }
                });
        return call;
    }
}

package dev.headway;

import com.google.protobuf.Message;

import dev.headway.v1.CreateJobRequest;
import dev.headway.v1.FailJobRequest;
import dev.headway.v1.FinishJobRequest;
import dev.headway.v1.Job;

import java.util.concurrent.CompletableFuture;

/**
 * A call that a job has to make, or with no request the point up to which its reports shall go out.
 */
final class Step {
    /** The engine may take out of it what was refused. */
    Message request;

    /** Whether it is not its turn before the job's reports are through. */
    boolean afterReports;

    /** All that its reports have to say is known; what changes later comes too late for it. */
    boolean sampled;

    /** The job is left alone after this step. */
    final boolean release;

    /** What the server answered (null: nothing was asked), or its refusal. */
    final CompletableFuture<Job> answer = new CompletableFuture<>();

    /** Done with the answer, or as soon as it is known that the server does not answer now. */
    final CompletableFuture<Void> tried = new CompletableFuture<>();

    private Step(Message request, boolean afterReports, boolean release) {
        this.request = request;
        this.afterReports = afterReports;
        this.release = release;
    }

    /** A call that reports need not be ready for. */
    static Step call(Message request) {
        return new Step(request, false, false);
    }

    /** The job's end, after all that is left to report. */
    static Step end(Message request) {
        return new Step(request, true, false);
    }

    /** Done once all that was said so far has arrived. */
    static Step mark() {
        return new Step(null, true, false);
    }

    /** Lets the job go, once all that was said so far has arrived, or at once. */
    static Step release(boolean afterReports) {
        return new Step(null, afterReports, true);
    }

    boolean isEnd() {
        return request instanceof FinishJobRequest || request instanceof FailJobRequest;
    }

    boolean isCreate() {
        return request instanceof CreateJobRequest;
    }

    void settle(Job job, HeadwayException error) {
        if (error == null) {
            answer.complete(job);
        } else {
            answer.completeExceptionally(error);
        }
        giveUpWaiting();
    }

    void giveUpWaiting() {
        tried.complete(null);
    }
}

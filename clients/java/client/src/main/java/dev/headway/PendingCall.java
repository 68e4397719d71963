package dev.headway;

import com.google.protobuf.Message;

import dev.headway.v1.CreateJobRequest;
import dev.headway.v1.FailJobRequest;
import dev.headway.v1.FinishJobRequest;
import dev.headway.v1.Job;

import java.util.concurrent.CompletableFuture;

/**
 * A call that a job still has to make. Without a request it marks a point: the reports before it
 * have to go out first.
 */
final class PendingCall {
    /** The engine may remove from it what the server refused. */
    Message request;

    /** Whether the job's reports go first. */
    boolean afterReports;

    /**
     * Everything that the reports before this call have to contain is taken. Later changes do not
     * delay the call.
     */
    boolean sampled;

    /** The engine forgets the job after this call. */
    final boolean release;

    /** What the server answered (null: no request), or its error. */
    final CompletableFuture<Job> answer = new CompletableFuture<>();

    /** Done together with the answer, or as soon as the server is known to be unreachable. */
    final CompletableFuture<Void> tried = new CompletableFuture<>();

    private PendingCall(Message request, boolean afterReports, boolean release) {
        this.request = request;
        this.afterReports = afterReports;
        this.release = release;
    }

    /** A call that does not wait for reports. */
    static PendingCall call(Message request) {
        return new PendingCall(request, false, false);
    }

    /** The job's end, after all its reports. */
    static PendingCall end(Message request) {
        return new PendingCall(request, true, false);
    }

    /** Done once everything reported so far has arrived. */
    static PendingCall marker() {
        return new PendingCall(null, true, false);
    }

    /** Releases the job, after everything reported so far has arrived, or at once. */
    static PendingCall release(boolean afterReports) {
        return new PendingCall(null, afterReports, true);
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

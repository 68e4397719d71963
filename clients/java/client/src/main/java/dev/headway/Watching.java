package dev.headway;

import dev.headway.v1.Job;
import dev.headway.v1.JobServiceGrpc;
import dev.headway.v1.WatchJobRequest;
import dev.headway.v1.WatchJobResponse;
import dev.headway.v1.WatchJobsRequest;
import dev.headway.v1.WatchJobsResponse;

import io.grpc.CallOptions;

/** The two kinds of watches. */
final class Watching {
    private Watching() {}

    /** One job, until it has ended. */
    static final class OneJob extends Watch.Source<Job, WatchJobResponse> {
        private final Connection connection;
        private final WatchJobRequest.Builder request;

        OneJob(Connection connection, String session, String jobId) {
            this.connection = connection;
            this.request = WatchJobRequest.newBuilder().setSessionId(session).setJobId(jobId);
        }

        @Override
        Watch.Opened<WatchJobRequest, WatchJobResponse> open(CallOptions options) {
            var call = connection.channel().newCall(JobServiceGrpc.getWatchJobMethod(), options);
            return new Watch.Opened<>(call, request.build());
        }

        @Override
        Job heard(WatchJobResponse answer) {
            request.setAfterRevision(answer.getJob().getRevision());
            return answer.getJob();
        }

        @Override
        boolean isLast(Job job) {
            return Status.isFinal(job);
        }
    }

    /** The jobs of a session, without an end. */
    static final class AllJobs extends Watch.Source<WatchJobsResponse, WatchJobsResponse> {
        private final Connection connection;
        private final WatchJobsRequest.Builder request;

        AllJobs(Connection connection, String session, String resumeToken) {
            this.connection = connection;
            this.request =
                    WatchJobsRequest.newBuilder().setSessionId(session).setResumeToken(resumeToken);
        }

        @Override
        Watch.Opened<WatchJobsRequest, WatchJobsResponse> open(CallOptions options) {
            var call = connection.channel().newCall(JobServiceGrpc.getWatchJobsMethod(), options);
            return new Watch.Opened<>(call, request.build());
        }

        @Override
        WatchJobsResponse heard(WatchJobsResponse answer) {
            request.setResumeToken(answer.getResumeToken());
            return answer;
        }

        @Override
        boolean isLast(WatchJobsResponse change) {
            return false;
        }
    }
}

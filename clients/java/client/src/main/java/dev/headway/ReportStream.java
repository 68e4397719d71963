package dev.headway;

import dev.headway.v1.JobServiceGrpc;
import dev.headway.v1.StreamProgressRequest;
import dev.headway.v1.StreamProgressResponse;

import io.grpc.CallOptions;
import io.grpc.Channel;
import io.grpc.ClientCall;
import io.grpc.stub.ClientCalls;
import io.grpc.stub.StreamObserver;

/** One open StreamProgress call. */
final class ReportStream {
    /** How many requests were sent. */
    long sent;

    private final ClientCall<StreamProgressRequest, StreamProgressResponse> call;
    private final StreamObserver<StreamProgressRequest> outgoing;

    /** Receives what arrives, in a thread of the transport. */
    interface Listener {
        void arrived(ReportStream stream, StreamProgressResponse response);

        /** The stream is over; error is null if the server ended it normally. */
        void broken(ReportStream stream, HeadwayException error);
    }

    ReportStream(Channel channel, Listener listener) {
        call = channel.newCall(JobServiceGrpc.getStreamProgressMethod(), CallOptions.DEFAULT);
        outgoing =
                ClientCalls.asyncBidiStreamingCall(
                        call,
                        new StreamObserver<>() {
                            @Override
                            public void onNext(StreamProgressResponse response) {
                                listener.arrived(ReportStream.this, response);
                            }

                            @Override
                            public void onError(Throwable error) {
                                listener.broken(ReportStream.this, HeadwayException.of(error));
                            }

                            @Override
                            public void onCompleted() {
                                listener.broken(ReportStream.this, null);
                            }
                        });
    }

    void send(StreamProgressRequest request) {
        sent++;
        outgoing.onNext(request);
    }

    /** Ends the call at once. */
    void close() {
        call.cancel("no longer needed", null);
    }
}

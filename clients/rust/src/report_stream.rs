//! One open `StreamProgress` call.

use std::pin::Pin;
use std::task::{Context, Poll};

use futures_core::Stream;
use tokio::sync::mpsc::{UnboundedReceiver, UnboundedSender, unbounded_channel};
use tokio::task::AbortHandle;

use crate::error::Error;
use crate::proto::headway::v1::{StreamProgressRequest, StreamProgressResponse};
use crate::target::Stub;

/// What a stream gives: its responses, at the end the error or none.
pub(crate) enum Arrival {
    Response(StreamProgressResponse),
    End(Option<Error>),
}

/// Sends requests, and passes on what arrives with the number of the stream.
pub(crate) struct ReportStream {
    pub(crate) number: u64,
    pub(crate) sent: i64,
    outgoing: UnboundedSender<StreamProgressRequest>,
    reader: AbortHandle,
}

impl ReportStream {
    /// Runs in the engine's runtime.
    pub(crate) fn open(number: u64, mut stub: Stub, arrived: impl Fn(u64, Arrival) + Send + Sync + 'static) -> Self {
        let (outgoing, requests) = unbounded_channel();
        let reader = tokio::spawn(async move {
            let read = async {
                let call = stub.stream_progress(Outgoing(requests)).await?;
                let mut responses = call.into_inner();
                while let Some(response) = responses.message().await? {
                    arrived(number, Arrival::Response(response));
                }
                Ok::<_, tonic::Status>(())
            };
            let error = read.await.err().map(Error::from);
            arrived(number, Arrival::End(error));
        });
        Self { number, sent: 0, outgoing, reader: reader.abort_handle() }
    }

    pub(crate) fn send(&mut self, request: StreamProgressRequest) {
        self.sent += 1;
        // A stream that has just ended reports that itself.
        let _ = self.outgoing.send(request);
    }
}

impl Drop for ReportStream {
    fn drop(&mut self) {
        self.reader.abort();
    }
}

struct Outgoing(UnboundedReceiver<StreamProgressRequest>);

impl Stream for Outgoing {
    type Item = StreamProgressRequest;

    fn poll_next(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        self.0.poll_recv(context)
    }
}

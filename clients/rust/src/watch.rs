//! A job, or all jobs of a session, as they change.

use std::fmt;
use std::future::poll_fn;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use futures_core::Stream;
use tokio::sync::mpsc::{Receiver, Sender, channel};
use tokio::task::unconstrained;
use tokio::time::{Instant, sleep, timeout_at};
use tonic::{Code, Response, Status, Streaming};

use crate::client::{Client, Connection, State};
use crate::error::Error;
use crate::ids::spread;
use crate::promise::{Answer, block_on};
use crate::proto::headway::v1::watch_jobs_response::Change;
use crate::proto::headway::v1::{JobStatus, WatchJobRequest, WatchJobResponse, WatchJobsRequest, WatchJobsResponse};
use crate::target::{Line, Stub, Target};

impl Client {
    /// The job's current state, then each newer state, until it has ended. After a broken connection it continues where
    /// it stopped, for as long as it takes. A slow reader gets the latest state and not a queue of old ones.
    ///
    /// It is a [`Stream`] for tasks, and `for state in client.watch(id)` for threads. Its last item is an error if
    /// there is no such job, or if the job is cleared meanwhile: `NotFound`.
    pub fn watch(&self, job_id: &str) -> Watch {
        self.watch_until(job_id, None)
    }

    /// The current jobs of the session, then each change, including new jobs and removals, until the watch is dropped.
    /// Otherwise as [`watch`](Self::watch). An error `RESUME_TOKEN_EXPIRED` ends it if the server was unreachable for
    /// so long that it no longer knows what was removed.
    pub fn watch_session(&self) -> Watch<SessionChange> {
        let request = self.session().map(|session_id| WatchJobsRequest { session_id, resume_token: String::new() });
        self.watch_source(request, None)
    }

    /// Waits until the job has ended, no matter who ends it, and returns its final state. `DeadlineExceeded` if that
    /// takes longer than `timeout`; `NotFound` if there is no such job, or if it is cleared meanwhile.
    pub fn wait(&self, job_id: &str, timeout: Option<Duration>) -> Answer<Result<State, Error>> {
        let end = timeout.and_then(|timeout| Instant::now().checked_add(timeout));
        let mut watch = self.watch_until(job_id, end);
        Answer::new(async move {
            let mut last = Err(Error::closed());
            while let Some(item) = watch.next_item().await {
                last = item;
            }
            last
        })
    }

    fn watch_until(&self, job_id: &str, end: Option<Instant>) -> Watch {
        let request = self.session().map(|session_id| WatchJobRequest {
            session_id,
            job_id: job_id.to_owned(),
            after_revision: 0,
        });
        self.watch_source(request, end)
    }

    fn watch_source<S: Source>(&self, source: Result<S, Error>, end: Option<Instant>) -> Watch<S::Item> {
        let (sender, items) = channel(1);
        let engine = &self.connection.engine;
        match source {
            Ok(source) => {
                let watching = keep_watching(engine.target.clone(), engine.line.clone(), source, end, sender);
                drop(engine.spawn((), watching));
            }
            Err(error) => {
                let _ = sender.try_send(Err(error));
            }
        }
        Watch { items, _connection: Arc::clone(&self.connection) }
    }
}

/// A change in [`Client::watch_session`].
#[derive(Clone, Debug, PartialEq)]
pub enum SessionChange {
    /// A job's current state.
    Job(Box<State>),
    /// The id of a job that was removed.
    Removed(String),
}

/// The target of a watch, and where it continues.
trait Source: Send + 'static {
    type Response: Send;
    type Item: Send + 'static;

    fn open(&self, stub: Stub) -> impl Future<Output = Result<Response<Streaming<Self::Response>>, Status>> + Send;

    /// What to pass on, and whether it is the last. A watch that reconnects continues after it.
    fn heed(&mut self, response: Self::Response) -> Option<(Self::Item, bool)>;
}

impl Source for WatchJobRequest {
    type Response = WatchJobResponse;
    type Item = State;

    async fn open(&self, mut stub: Stub) -> Result<Response<Streaming<WatchJobResponse>>, Status> {
        stub.watch_job(self.clone()).await
    }

    fn heed(&mut self, response: WatchJobResponse) -> Option<(State, bool)> {
        let job = response.job?;
        self.after_revision = job.revision;
        let ended = matches!(job.status(), JobStatus::Completed | JobStatus::Failed | JobStatus::Cancelled);
        Some((job, ended))
    }
}

impl Source for WatchJobsRequest {
    type Response = WatchJobsResponse;
    type Item = SessionChange;

    async fn open(&self, mut stub: Stub) -> Result<Response<Streaming<WatchJobsResponse>>, Status> {
        stub.watch_jobs(self.clone()).await
    }

    fn heed(&mut self, response: WatchJobsResponse) -> Option<(SessionChange, bool)> {
        self.resume_token = response.resume_token;
        let change = match response.change? {
            Change::Job(job) => SessionChange::Job(Box::new(job)),
            Change::RemovedJobId(id) => SessionChange::Removed(id),
        };
        Some((change, false))
    }
}

/// The states of a job, or the changes of a session; made by [`Client::watch`] and [`Client::watch_session`].
#[must_use = "nothing is seen before it is iterated over"]
pub struct Watch<T = State> {
    items: Receiver<Result<T, Error>>,
    _connection: Arc<Connection>,
}

impl<T> Watch<T> {
    /// Without the budget of a tokio task, which does not grow while its thread is blocked.
    async fn next_item(&mut self) -> Option<Result<T, Error>> {
        unconstrained(poll_fn(|context| self.items.poll_recv(context))).await
    }
}

impl<T> Stream for Watch<T> {
    type Item = Result<T, Error>;

    fn poll_next(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        self.items.poll_recv(context)
    }
}

impl<T> IntoIterator for Watch<T> {
    type Item = Result<T, Error>;
    type IntoIter = Watching<T>;

    fn into_iter(self) -> Watching<T> {
        Watching(self)
    }
}

/// The same, blocking the thread between items.
pub struct Watching<T = State>(Watch<T>);

impl<T> Iterator for Watching<T> {
    type Item = Result<T, Error>;

    fn next(&mut self) -> Option<Self::Item> {
        block_on(self.0.next_item())
    }
}

impl<T> fmt::Debug for Watch<T> {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.debug_struct("Watch").finish_non_exhaustive()
    }
}

impl<T> fmt::Debug for Watching<T> {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.debug_struct("Watching").finish_non_exhaustive()
    }
}

type Items<S> = Sender<Result<<S as Source>::Item, Error>>;

async fn keep_watching<S: Source>(target: Target, line: Line, source: S, end: Option<Instant>, items: Items<S>) {
    let watching = take_up_again(&target, &line, source, &items);
    let outcome = match end {
        None => watching.await,
        Some(end) => timeout_at(end, watching)
            .await
            .unwrap_or_else(|_| Err(Error::new(Code::DeadlineExceeded, "The job has not ended in time."))),
    };
    if let Err(error) = outcome {
        let _ = items.send(Err(error)).await;
    }
}

/// Ends normally with the job, or when the watch is dropped.
async fn take_up_again<S: Source>(target: &Target, line: &Line, mut source: S, items: &Items<S>) -> Result<(), Error> {
    let mut tries = 0;
    loop {
        let broken = tokio::select! {
            broken = once(line.stub(target), &mut source, items, &mut tries) => broken,
            () = items.closed() => return Ok(()),
        };
        let Err(error) = broken else {
            return Ok(());
        };
        line.heed(&Err::<(), _>(error.clone()));
        if !matches!(error.code(), Code::Unavailable | Code::Cancelled) {
            return Err(error);
        }
        if error.reason() != "STREAM_EXPIRED" || tries > 0 {
            tries += 1;
            let pause = Duration::from_millis(100) * (1 << tries.min(6));
            sleep(spread(pause.min(Duration::from_secs(5)), 0.5, 1.0)).await;
        }
    }
}

async fn once<S: Source>(stub: Stub, source: &mut S, items: &Items<S>, tries: &mut u32) -> Result<(), Error> {
    let mut responses = source.open(stub).await?.into_inner();
    while let Some(response) = responses.message().await? {
        *tries = 0;
        let Some((item, last)) = source.heed(response) else {
            continue;
        };
        if items.send(Ok(item)).await.is_err() || last {
            break;
        }
    }
    Ok(())
}

//! A job as it changes.

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
use tonic::Code;

use crate::client::{Client, Connection, State};
use crate::error::Error;
use crate::ids::spread;
use crate::promise::{Answer, block_on};
use crate::proto::headway::v1::{JobStatus, WatchJobRequest};
use crate::target::{Line, Target};

type Item = Result<State, Error>;

impl Client {
    /// The job as it stands, then each newer state, until it has ended. A connection that breaks is taken up again where it
    /// broke off, for as long as it takes. A reader slower than the job gets its latest state and not a queue of old ones.
    ///
    /// It is a [`Stream`] for tasks, and `for state in client.watch(id)` for threads. Its last item is an error if there is no
    /// such job, or it is cleared meanwhile: `NotFound`.
    pub fn watch(&self, job_id: &str) -> Watch {
        self.watch_until(job_id, None)
    }

    /// Waits until the job has ended, whoever ends it, and gives its final state. `DeadlineExceeded` if that takes longer than
    /// `timeout`; `NotFound` if there is no such job, or it is cleared meanwhile.
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
        let (sender, items) = channel(1);
        let engine = &self.connection.engine;
        match self.session() {
            Ok(session_id) => {
                let request = WatchJobRequest { session_id, job_id: job_id.to_owned(), after_revision: 0 };
                let watching = keep_watching(engine.target.clone(), engine.line.clone(), request, end, sender);
                drop(engine.spawn((), watching));
            }
            Err(error) => {
                let _ = sender.try_send(Err(error));
            }
        }
        Watch { items, _connection: Arc::clone(&self.connection) }
    }
}

/// The states of a job; made by [`Client::watch`].
#[must_use = "nothing is seen before it is iterated over"]
pub struct Watch {
    items: Receiver<Item>,
    _connection: Arc<Connection>,
}

impl Watch {
    /// Without regard to the budget of a task of tokio's, which does not grow while its thread is blocked.
    async fn next_item(&mut self) -> Option<Item> {
        unconstrained(poll_fn(|context| self.items.poll_recv(context))).await
    }
}

impl Stream for Watch {
    type Item = Item;

    fn poll_next(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Option<Item>> {
        self.items.poll_recv(context)
    }
}

impl IntoIterator for Watch {
    type Item = Item;
    type IntoIter = Watching;

    fn into_iter(self) -> Watching {
        Watching(self)
    }
}

/// The same, blocking the thread between one state and the next.
pub struct Watching(Watch);

impl Iterator for Watching {
    type Item = Item;

    fn next(&mut self) -> Option<Item> {
        block_on(self.0.next_item())
    }
}

impl fmt::Debug for Watch {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.debug_struct("Watch").finish_non_exhaustive()
    }
}

impl fmt::Debug for Watching {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.debug_struct("Watching").finish_non_exhaustive()
    }
}

async fn keep_watching(
    target: Target,
    line: Line,
    request: WatchJobRequest,
    end: Option<Instant>,
    items: Sender<Item>,
) {
    let watching = take_up_again(&target, &line, request, &items);
    let error = match end {
        None => watching.await,
        Some(end) => timeout_at(end, watching).await.unwrap_or_else(|_| {
            let late = Error::new(Code::DeadlineExceeded, "The job has not ended in time.");
            Err(late)
        }),
    };
    if let Err(error) = error {
        let _ = items.send(Err(error)).await;
    }
}

/// Ends well with the job, or when nobody listens any more.
async fn take_up_again(
    target: &Target,
    line: &Line,
    mut request: WatchJobRequest,
    items: &Sender<Item>,
) -> Result<(), Error> {
    let mut tries = 0;
    loop {
        let broken = tokio::select! {
            broken = once(target, line, &mut request, items, &mut tries) => broken,
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

async fn once(
    target: &Target,
    line: &Line,
    request: &mut WatchJobRequest,
    items: &Sender<Item>,
    tries: &mut u32,
) -> Result<(), Error> {
    let mut states = line.stub(target).watch_job(request.clone()).await?.into_inner();
    while let Some(response) = states.message().await? {
        *tries = 0;
        let Some(job) = response.job else {
            continue;
        };
        request.after_revision = job.revision;
        let ended = matches!(job.status(), JobStatus::Completed | JobStatus::Failed | JobStatus::Cancelled);
        if items.send(Ok(job)).await.is_err() || ended {
            break;
        }
    }
    Ok(())
}

//! The thread behind all jobs of a client.
//!
//! It alone owns the channel and the stream; other threads hand it work through an inbox. It samples the meters when
//! the server wants a report, keeps one request in flight, and repeats what was not acknowledged. Sequence numbers and
//! ids chosen by the client make repeats count once. Whatever the server does, the worker's threads never wait here
//! unless they ask to.

mod answers;
mod run;

use std::future::Future;
use std::io;
use std::sync::{Arc, Mutex};
use std::thread::{self, ThreadId};
use std::time::Duration;

use tokio::runtime::{Builder, Handle};
use tokio::sync::mpsc::{UnboundedSender, unbounded_channel};
use tokio::time::{Instant, timeout_at};

use crate::error::Error;
use crate::job_state::JobState;
use crate::pending_call::PendingCall;
use crate::promise::{Arrival, Promise, lock};
use crate::proto::headway::v1::Job;
use crate::report_stream;
use crate::spool_sender;
use crate::target::{Line, Target};

/// A message to the engine's loop.
#[expect(clippy::large_enum_variant, reason = "few are there at a time")]
enum Note {
    Submitted(Arc<JobState>),
    AddWaiting,
    RemoveWaiting,
    Arrived(u64, report_stream::Arrival),
    Called(u64, Result<Option<Job>, Error>),
    Look,
    Quit,
}

/// The engine, as other threads see it.
#[derive(Clone)]
pub(crate) struct Engine {
    pub(crate) target: Target,
    /// For calls that a caller waits for.
    pub(crate) line: Line,
    jobs: Arc<Mutex<Vec<Arc<JobState>>>>,
    inbox: UnboundedSender<Note>,
    runtime: Handle,
    thread: ThreadId,
    /// Set when its thread has ended.
    gone: Arc<Promise<()>>,
}

impl Engine {
    /// Starts the thread. It sends nothing before there is something to send.
    pub(crate) fn start(target: Target) -> io::Result<Self> {
        let runtime =
            Builder::new_current_thread().enable_all().thread_name("headway-names").max_blocking_threads(2).build()?;
        let (inbox, notes) = unbounded_channel();
        let (handle, gone) = (runtime.handle().clone(), Promise::new());
        let started = Promise::new();
        let thread = {
            let (gone, started) = (Arc::clone(&gone), Arc::clone(&started));
            thread::Builder::new().name("headway".to_owned()).spawn(move || {
                if let Some(engine) = runtime.block_on(started.arrival()) {
                    runtime.block_on(run::run(engine, notes));
                }
                // A name lookup may still run; do not wait for it.
                runtime.shutdown_background();
                gone.set(());
            })?
        };
        let engine = Self {
            target,
            line: Line::default(),
            jobs: Arc::default(),
            inbox,
            runtime: handle,
            thread: thread.thread().id(),
            gone,
        };
        started.set(Some(engine.clone()));
        Ok(engine)
    }

    /// Takes charge of a job, and queues a call for it.
    pub(crate) fn submit(&self, job_state: &Arc<JobState>, pending: Option<PendingCall>) {
        if let Some(pending) = pending {
            job_state.add_call(pending);
        }
        let new = {
            let mut state = job_state.state();
            let new = !state.over && !state.taken;
            state.taken = state.taken || new;
            new
        };
        if new {
            lock(&self.jobs).push(Arc::clone(job_state));
        }
        self.tell(Note::Submitted(Arc::clone(job_state)));
    }

    /// All jobs in charge.
    pub(crate) fn jobs(&self) -> Vec<Arc<JobState>> {
        lock(&self.jobs).clone()
    }

    fn tell(&self, note: Note) {
        // After the engine's end there is nothing left to do.
        let _ = self.inbox.send(note);
    }

    /// Runs something in the engine's runtime. Its result, or `gone` if the engine ends before, can be awaited
    /// anywhere.
    pub(crate) fn spawn<T, F>(&self, gone: T, work: F) -> Arrival<T>
    where
        T: Clone + Send + 'static,
        F: Future<Output = T> + Send + 'static,
    {
        let promise = Promise::new();
        let arrival = promise.arrival();
        let guard = Guard(promise, Some(gone));
        self.runtime.spawn(async move {
            let guard = guard;
            guard.0.set(work.await);
        });
        arrival
    }

    /// The promise's value, if it comes in time.
    pub(crate) fn within<T>(&self, timeout: Duration, promise: &Arc<Promise<T>>) -> Arrival<Option<T>>
    where
        T: Clone + Send + 'static,
    {
        let arrival = promise.arrival();
        self.spawn(None, async move { tokio::time::timeout(timeout, arrival).await.ok() })
    }

    /// Waits until everything of these jobs is delivered. Returns the jobs that have something left. Runs in the
    /// engine's runtime.
    pub(crate) async fn wait_delivered(&self, jobs: Vec<Arc<JobState>>, timeout: Duration) -> Vec<Arc<JobState>> {
        let end = Instant::now().checked_add(timeout);
        let end = end.unwrap_or_else(|| Instant::now() + Duration::from_secs(86_400 * 365));
        let mut waiting = Vec::new();
        for job_state in jobs {
            let pending = PendingCall::milestone();
            let answer = Arc::clone(&pending.answers.answer);
            self.submit(&job_state, Some(pending));
            waiting.push((job_state, answer));
        }
        self.tell(Note::AddWaiting);
        for (_, answer) in &waiting {
            if timeout_at(end, answer.arrival()).await.is_err() {
                break;
            }
        }
        self.tell(Note::RemoveWaiting);
        waiting.retain(|(_, answer)| !answer.is_set());
        waiting.into_iter().map(|(job_state, _)| job_state).collect()
    }

    /// Waits until everything is stored, at most so long. Then it saves the rest in the spool, and logs that. Sending
    /// goes on in the background until the engine ends. This waits for each job only once.
    async fn deliver(self, timeout: Duration) {
        let mut jobs = self.jobs();
        jobs.retain(|job_state| {
            let state = job_state.state();
            !state.over && !state.given_up
        });
        let late = self.wait_delivered(jobs, timeout).await;
        for job_state in &late {
            job_state.state().given_up = true;
        }
        for (job_state, place) in spool_sender::spool_undelivered(&late, &self.target) {
            let after = match place {
                Some(place) => {
                    format!(" yet, and is saved in {} until `headway flush` or the next run sends it", place.display())
                }
                None => String::new(),
            };
            log::warn!(
                target: "headway",
                "{} has not answered in time; the last state of job {} is not delivered{after}",
                self.target.address,
                job_state.id,
            );
        }
        for job_state in self.jobs() {
            self.submit(&job_state, Some(PendingCall::release(true)));
        }
    }

    /// Delivers everything, then releases all jobs.
    pub(crate) fn close(&self, timeout: Duration) -> Arrival<()> {
        self.spawn((), self.clone().deliver(timeout))
    }

    /// Ends the thread, and waits for its end, except in that thread itself.
    pub(crate) fn quit(&self, timeout: Duration) {
        self.tell(Note::Quit);
        if !self.is_here() {
            self.gone.wait_for(timeout);
        }
    }

    /// Whether this is the engine's own thread.
    pub(crate) fn is_here(&self) -> bool {
        thread::current().id() == self.thread
    }
}

struct Guard<T>(Arc<Promise<T>>, Option<T>);

impl<T> Drop for Guard<T> {
    fn drop(&mut self) {
        if let Some(gone) = self.1.take() {
            self.0.set(gone);
        }
    }
}

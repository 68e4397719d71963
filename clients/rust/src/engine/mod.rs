//! The thread behind all jobs of a client.
//!
//! It alone owns the channel and the stream; others hand it work through an inbox. It samples the meters when the server
//! wants to hear of them, keeps one request in flight, and repeats what was not acknowledged: sequences and chosen ids
//! make that count once. Whatever the server does, the worker's threads never wait here unless they ask to.

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

use crate::course::Course;
use crate::error::Error;
use crate::postman;
use crate::promise::{Arrival, Promise, lock};
use crate::proto::headway::v1::Job;
use crate::step::Step;
use crate::stream;
use crate::target::{Line, Target};

/// What the engine's loop is told.
#[expect(clippy::large_enum_variant, reason = "few are there at a time")]
enum Note {
    Submitted(Arc<Course>),
    Hurry,
    Relax,
    Arrived(u64, stream::Arrival),
    Called(u64, Result<Option<Job>, Error>),
    Look,
    Quit,
}

/// The engine, as other threads see it.
#[derive(Clone)]
pub(crate) struct Engine {
    pub(crate) target: Target,
    /// For what callers ask and wait for.
    pub(crate) line: Line,
    courses: Arc<Mutex<Vec<Arc<Course>>>>,
    inbox: UnboundedSender<Note>,
    runtime: Handle,
    thread: ThreadId,
    /// Set when its thread has ended.
    gone: Arc<Promise<()>>,
}

impl Engine {
    /// Starts the thread. Nothing is sent before there is something to say.
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
                // A name may still be looked up, and nobody waits for that.
                runtime.shutdown_background();
                gone.set(());
            })?
        };
        let engine = Self {
            target,
            line: Line::default(),
            courses: Arc::default(),
            inbox,
            runtime: handle,
            thread: thread.thread().id(),
            gone,
        };
        started.set(Some(engine.clone()));
        Ok(engine)
    }

    /// Takes a course in charge, and queues a step for it.
    pub(crate) fn submit(&self, course: &Arc<Course>, step: Option<Step>) {
        if let Some(step) = step {
            course.add_step(step);
        }
        let new = {
            let mut state = course.state();
            let new = !state.over && !state.taken;
            state.taken = state.taken || new;
            new
        };
        if new {
            lock(&self.courses).push(Arc::clone(course));
        }
        self.tell(Note::Submitted(Arc::clone(course)));
    }

    /// All courses in charge.
    pub(crate) fn courses(&self) -> Vec<Arc<Course>> {
        lock(&self.courses).clone()
    }

    fn tell(&self, note: Note) {
        // After its end there is nothing left to do.
        let _ = self.inbox.send(note);
    }

    /// Runs something in the engine's runtime. What it brings, or `gone` if the engine ends before, can be awaited
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

    /// Waits until all that these jobs have to say has been delivered; returns those of which something is left.
    /// Belongs in the engine's runtime.
    pub(crate) async fn linger(&self, courses: Vec<Arc<Course>>, timeout: Duration) -> Vec<Arc<Course>> {
        let end = Instant::now().checked_add(timeout);
        let end = end.unwrap_or_else(|| Instant::now() + Duration::from_secs(86_400 * 365));
        let mut waiting = Vec::new();
        for course in courses {
            let step = Step::milestone();
            let answer = Arc::clone(&step.answers.answer);
            self.submit(&course, Some(step));
            waiting.push((course, answer));
        }
        self.tell(Note::Hurry);
        for (_, answer) in &waiting {
            if timeout_at(end, answer.arrival()).await.is_err() {
                break;
            }
        }
        self.tell(Note::Relax);
        waiting.retain(|(_, answer)| !answer.is_set());
        waiting.into_iter().map(|(course, _)| course).collect()
    }

    /// Waits until all that is said is stored, at most so long; then writes what is left to the spool, and notes it. It
    /// goes on in the background until the engine ends. A job is waited for in this way once.
    async fn deliver(self, timeout: Duration) {
        let mut courses = self.courses();
        courses.retain(|course| {
            let state = course.state();
            !state.over && !state.given_up
        });
        let late = self.linger(courses, timeout).await;
        for course in &late {
            course.state().given_up = true;
        }
        for (course, place) in postman::write_down(&late, &self.target) {
            let after = match place {
                Some(place) => format!(" yet, and waits in {} for `headway flush` or the next run", place.display()),
                None => String::new(),
            };
            log::warn!(
                target: "headway",
                "{} has not answered in time; the last state of job {} is not delivered{after}",
                self.target.address,
                course.id,
            );
        }
        for course in self.courses() {
            self.submit(&course, Some(Step::release(true)));
        }
    }

    /// Delivers all that is said, then lets go of all jobs.
    pub(crate) fn close(&self, timeout: Duration) -> Arrival<()> {
        self.spawn((), self.clone().deliver(timeout))
    }

    /// Ends the thread, and waits for that, but not in that thread itself.
    pub(crate) fn quit(&self, patience: Duration) {
        self.tell(Note::Quit);
        if !self.is_here() {
            self.gone.wait_for(patience);
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

//! A job as its worker sees it.

use std::fmt::{self, Display};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::thread;
use std::time::Duration;

use futures_core::Stream;
use serde::Serialize;
use serde_json::{Map, Value};
use tonic::Code;

use crate::client::{Client, Connection, State};
use crate::error::Error;
use crate::job_state::JobState;
use crate::meter::Meter;
use crate::options::MAX_NAME_LENGTH;
use crate::part::Part;
use crate::pending_call::{PendingCall, Request};
use crate::promise::{Answer, lock};
use crate::proto::google::rpc;
use crate::proto::headway::v1::{self, FailJobRequest, FinishJobRequest, JobStatus, UpdateJobRequest};
use crate::track::{Tracked, TrackedStream};
use crate::values::{clean, clean_text, to_wire};

/// A job as its worker sees it; made by [`Client::create`], [`Client::run`], [`Client::resume`] and [`Client::fetch`].
///
/// Updates only touch memory: the client's thread sends them, at the pace that the server asks for. Updates never wait,
/// and never fail because the server is unreachable or refuses them: the crate `log`, target `headway`, gets a warning
/// of that.
///
/// Clones share the job. When the last clone and the last [`Part`] are dropped and the job has not ended, it ends as
/// FAILED: with "the worker panicked" during a panic, else with "dropped without finish". A job that was fetched, or is
/// PENDING, stays as it is, and so do all jobs after the client was closed.
#[derive(Clone)]
pub struct Job {
    pub(crate) part: Part,
}

/// What all clones of a job share.
pub(crate) struct Inner {
    pub(crate) connection: Arc<Connection>,
    pub(crate) job_state: Arc<JobState>,
    /// Whether the worker has not changed it yet, so that the engine does not know it.
    looked_at: AtomicBool,
    /// Whether this worker ends it.
    owned: bool,
    pub(crate) ended: AtomicBool,
    pub(crate) told: AtomicBool,
    known: Mutex<Map<String, Value>>,
    pub(crate) results: Mutex<Option<Value>>,
}

impl Inner {
    /// A job that was only fetched is reported from its first change on.
    #[inline]
    pub(crate) fn touch(&self) {
        if self.looked_at.load(Ordering::Relaxed) {
            self.join();
        }
    }

    #[cold]
    fn join(&self) {
        if self.looked_at.swap(false, Ordering::Relaxed) {
            self.connection.engine.submit(&self.job_state, None);
        }
    }

    pub(crate) fn know(&self, variables: Map<String, Value>) {
        lock(&self.known).extend(variables);
    }

    pub(crate) fn complain(&self, what: &str) {
        log::warn!(target: "headway", "job {}: {what}", self.job_state.id);
    }

    /// Requests the end of the job, once; none if it was requested before.
    pub(crate) fn end(&self, error: Option<rpc::Status>) -> Option<PendingCall> {
        if self.ended.swap(true, Ordering::AcqRel) {
            return None;
        }
        let (session_id, job_id) = (self.job_state.session.clone(), self.job_state.id.clone());
        let request = if error.is_some() {
            Request::Fail(FailJobRequest { session_id, job_id, attempt: 0, error })
        } else {
            Request::Finish(FinishJobRequest {
                session_id,
                job_id,
                attempt: 0,
                results: lock(&self.results).as_ref().map(to_wire),
            })
        };
        Some(PendingCall::end(request))
    }

    pub(crate) fn submit(&self, pending: PendingCall) {
        self.looked_at.store(false, Ordering::Relaxed);
        self.connection.engine.submit(&self.job_state, Some(pending));
    }
}

impl Drop for Inner {
    fn drop(&mut self) {
        if self.connection.is_closed() {
            return;
        }
        if self.owned {
            let message = if thread::panicking() { "the worker panicked" } else { "dropped without finish" };
            if let Some(pending) = self.end(Some(failure(Code::Unknown, message))) {
                self.submit(pending);
            }
        } else if !self.looked_at.load(Ordering::Relaxed) {
            // After everything is sent, the engine releases it too.
            self.submit(PendingCall::release(true));
        }
    }
}

pub(crate) fn failure(code: Code, message: impl Display) -> rpc::Status {
    rpc::Status { code: code.into(), message: clean_text(message, 1024), details: Vec::new() }
}

impl Job {
    pub(crate) fn new(
        connection: Arc<Connection>,
        job_state: Arc<JobState>,
        meter: Arc<Meter>,
        owned: bool,
        joined: bool,
    ) -> Self {
        let inner = Inner {
            connection,
            job_state,
            looked_at: AtomicBool::new(!joined),
            owned,
            ended: AtomicBool::new(false),
            told: AtomicBool::new(false),
            known: Mutex::default(),
            results: Mutex::default(),
        };
        Self { part: Part { inner: Arc::new(inner), meter } }
    }

    pub(crate) fn know(&self, variables: Map<String, Value>) {
        self.part.inner.know(variables);
    }

    pub(crate) fn keep_results(&self, results: Option<Value>) {
        *lock(&self.part.inner.results) = results;
    }

    pub(crate) fn job_state(&self) -> &JobState {
        &self.part.inner.job_state
    }

    pub(crate) fn client(&self) -> Client {
        Client { connection: Arc::clone(&self.part.inner.connection), session: Some(self.job_state().session.clone()) }
    }

    /// 32 hexadecimal digits, chosen by this client.
    #[must_use]
    pub fn id(&self) -> &str {
        &self.job_state().id
    }

    /// The server's last description of the job, including the progress of all parts; [`refresh`](Self::refresh) renews
    /// it.
    #[must_use]
    pub fn snapshot(&self) -> State {
        self.job_state().state().job.clone()
    }

    /// The status that the server last reported.
    #[must_use]
    pub fn status(&self) -> JobStatus {
        self.job_state().state().job.status()
    }

    /// The number of this worker: 1, and one more after each take-over; 0 before the server has answered.
    #[must_use]
    pub fn attempt(&self) -> i32 {
        self.job_state().state().attempt
    }

    /// Describes the job to people.
    #[must_use]
    pub fn name(&self) -> String {
        self.job_state().state().job.name.clone()
    }

    /// Changes its name: the first 256 characters.
    pub fn set_name(&self, name: impl Display) {
        self.update(name, "name", |job| &mut job.name);
    }

    /// Who or what started the job.
    #[must_use]
    pub fn invoker(&self) -> String {
        self.job_state().state().job.invoker.clone()
    }

    /// Changes its invoker, at most 256 characters.
    pub fn set_invoker(&self, invoker: impl Display) {
        self.update(invoker, "invoker", |job| &mut job.invoker);
    }

    /// Names what is counted: "records".
    #[must_use]
    pub fn unit(&self) -> String {
        self.job_state().state().job.unit.clone()
    }

    /// The amount of work, in units; 0 = not known.
    #[must_use]
    pub fn size(&self) -> i64 {
        self.part.meter.size().unwrap_or_else(|| self.job_state().state().job.size)
    }

    /// Sets the amount of work, in units; 0 = not known.
    pub fn set_size(&self, units: i64) {
        self.part.inner.touch();
        self.part.meter.set_size(units);
    }

    /// The part with that name, for a thread or process that shares the job. Its progress adds to the job's. Names have
    /// at most 128 characters, a job has at most 256 parts.
    #[must_use]
    pub fn part(&self, name: &str) -> Part {
        self.part.inner.touch();
        Part { inner: Arc::clone(&self.part.inner), meter: self.job_state().add_part(&clean(name, 128)) }
    }

    /// See [`Part::advance`].
    #[inline]
    pub fn advance(&self, n: i64) {
        self.part.advance(n);
    }

    /// See [`Part::set_progress`].
    #[inline]
    pub fn set_progress(&self, done: i64) {
        self.part.set_progress(done);
    }

    /// See [`Part::progress`]; that of all parts is in [`snapshot`](Self::snapshot).
    #[must_use]
    pub fn progress(&self) -> i64 {
        self.part.progress()
    }

    /// See [`Part::track`].
    pub fn track<I: IntoIterator>(&self, items: I) -> Tracked<I::IntoIter> {
        let items = items.into_iter();
        self.expect(items.size_hint());
        self.part.track(items)
    }

    /// See [`Part::track`]; for a [`Stream`].
    pub fn track_stream<S: Stream>(&self, items: S) -> TrackedStream<S> {
        self.expect(items.size_hint());
        self.part.track_stream(items)
    }

    fn expect(&self, (least, most): (usize, Option<usize>)) {
        if most == Some(least) && self.size() == 0 {
            self.set_size(i64::try_from(least).unwrap_or(i64::MAX));
        }
    }

    /// See [`Part::count`].
    pub fn count(&self, counter: &str, n: i64) {
        self.part.count(counter, n);
    }

    /// See [`Part::record_error`].
    pub fn record_error(&self, record: impl Display, code: impl Display, message: impl Display) {
        self.part.record_error(record, code, message);
    }

    /// See [`Part::set`].
    pub fn set(&self, variables: impl Serialize) {
        self.part.set(variables);
    }

    /// See [`Part::checkpoint`].
    pub fn checkpoint(&self, variables: impl Serialize) {
        self.part.checkpoint(variables);
    }

    /// See [`Part::set_message`].
    pub fn set_message(&self, text: impl Display) {
        self.part.set_message(text);
    }

    /// What the job is doing now: the last text of this process, or before that of the server.
    #[must_use]
    pub fn message(&self) -> String {
        let own = self.part.meter.message();
        own.unwrap_or_else(|| self.job_state().state().job.message.clone())
    }

    /// A variable, none if it was never set. Variables that this process set or took over come from memory. For others
    /// it asks the server.
    ///
    /// # Errors
    /// As [`Client::variables`].
    pub fn get(&self, name: &str) -> Answer<Result<Option<Value>, Error>> {
        let known = lock(&self.part.inner.known).get(name).cloned();
        let (client, job, name) = (self.client(), self.clone(), name.to_owned());
        Answer::new(async move {
            if known.is_some() {
                return Ok(known);
            }
            let mut found = client.variables(job.id(), &[&name]).await?;
            Ok(found.remove(&name))
        })
    }

    /// Asks the server for the job's current state.
    ///
    /// # Errors
    /// As [`Client::get`].
    pub fn refresh(&self) -> Answer<Result<(), Error>> {
        let (client, job) = (self.client(), self.clone());
        Answer::new(async move {
            let state = client.get(job.id()).await?;
            let completed = state.status() == JobStatus::Completed;
            job.job_state().learn(state);
            if completed && job.results().is_none() {
                job.keep_results(client.results(job.id()).await?);
            }
            Ok(())
        })
    }

    /// Waits until the job has ended, no matter who ends it; see [`Client::wait`].
    pub fn ended(&self, timeout: Option<Duration>) -> Answer<Result<State, Error>> {
        self.learning(self.client().wait(self.id(), timeout))
    }

    /// Asks the job's worker to end early; see [`Client::cancel`].
    pub fn cancel(&self, reason: &str, grace: Option<Duration>) -> Answer<Result<State, Error>> {
        self.learning(self.client().cancel(self.id(), reason, grace))
    }

    fn learning(&self, answer: Answer<Result<State, Error>>) -> Answer<Result<State, Error>> {
        let job = self.clone();
        Answer::new(async move {
            let state = answer.await?;
            job.job_state().learn(state.clone());
            Ok(state)
        })
    }

    fn update(&self, text: impl Display, field: &str, of: impl Fn(&mut v1::Job) -> &mut String) {
        let text = clean_text(text, MAX_NAME_LENGTH);
        let mut change = v1::Job { id: self.id().to_owned(), ..v1::Job::default() };
        of(&mut change).clone_from(&text);
        *of(&mut self.job_state().state().job) = text;
        self.part.inner.submit(PendingCall::call(Request::Update(UpdateJobRequest {
            session_id: self.job_state().session.clone(),
            job: Some(change),
            update_mask: Some(prost_types::FieldMask { paths: vec![field.to_owned()] }),
            revision: 0,
        })));
    }
}

impl fmt::Debug for Job {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter
            .debug_struct("Job")
            .field("id", &self.id())
            .field("name", &self.name())
            .field("status", &self.status())
            .finish_non_exhaustive()
    }
}

//! The connection: creates jobs.

use std::fmt;
use std::path::PathBuf;
use std::sync::{Arc, OnceLock};
use std::time::{Duration, Instant};

use tonic::Code;

use crate::calls::ANSWER_TIMEOUT;
use crate::engine::Engine;
use crate::error::Error;
use crate::error_policy::{ErrorPolicy, policy_for};
use crate::job::Job;
use crate::job_state::{Heartbeat, JobState, heartbeat};
use crate::meter::Meter;
use crate::options::{JobOptions, described};
use crate::pending_call::{PendingCall, Request};
use crate::promise::{Answer, Arrival};
use crate::proto::headway::v1::{self, JobStatus};
use crate::spool_sender::{self, SpoolFlush};
use crate::target::{Target, variable};

/// Bounds the wait of a new job for a server that neither answers nor refuses the connection. Then the work begins, and
/// the job is created in the background.
const CREATE_TIMEOUT: Duration = Duration::from_secs(1);

/// Bounds the wait for a job that another worker may have begun. Without the answer this worker would do all that work
/// again.
pub(crate) const FIND_TIMEOUT: Duration = Duration::from_secs(5);

/// What the engine may need beyond `exit_timeout` to save what is left.
const SPOOL_TIMEOUT: Duration = Duration::from_secs(5);

/// How to reach a server; made by [`Client::builder`].
#[derive(Clone, Debug)]
#[must_use]
pub struct ClientBuilder {
    target: Option<String>,
    token: Option<Secret>,
    ca: Option<PathBuf>,
    session: Option<Secret>,
    exit_timeout: Duration,
    call_timeout: Duration,
}

#[derive(Clone)]
struct Secret(String);

impl fmt::Debug for Secret {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str("…")
    }
}

impl ClientBuilder {
    /// `host:port`, or `https://host:port` with the crate's feature `tls`. Default: `HEADWAY_TARGET`, else
    /// 127.0.0.1:50051.
    pub fn target(mut self, target: impl Into<String>) -> Self {
        self.target = Some(target.into());
        self
    }

    /// The bearer token. Default: `HEADWAY_TOKEN`, else none.
    pub fn token(mut self, token: impl Into<String>) -> Self {
        self.token = Some(Secret(token.into()));
        self
    }

    /// A PEM file of the authorities to trust; it means TLS. Default: `HEADWAY_CA`, else those of the system.
    pub fn ca(mut self, file: impl Into<PathBuf>) -> Self {
        self.ca = Some(file.into());
        self
    }

    /// The session of all calls: a secret of the caller. Default: `HEADWAY_SESSION`.
    pub fn session(mut self, session: impl Into<String>) -> Self {
        self.session = Some(Secret(session.into()));
        self
    }

    /// Bounds how long the end of a job, and of the client, waits until everything is delivered. Default: 10 s.
    pub fn exit_timeout(mut self, timeout: Duration) -> Self {
        self.exit_timeout = timeout;
        self
    }

    /// Bounds how long a call waits for its answer. Default: 10 s.
    pub fn call_timeout(mut self, timeout: Duration) -> Self {
        self.call_timeout = timeout;
        self
    }

    /// Starts the client's thread. It sends nothing before the client is used.
    ///
    /// # Errors
    /// If the target is malformed, the CA file cannot be read, or the system gives no thread.
    pub fn connect(self) -> Result<Client, Error> {
        let target = Target::find(self.target, self.token.map(|token| token.0), self.ca)?;
        let engine = Engine::start(target).map_err(|error| {
            Error::new(Code::ResourceExhausted, format!("The client's thread cannot start: {error}."))
        })?;
        Ok(Client {
            connection: Arc::new(Connection {
                engine,
                exit_timeout: self.exit_timeout,
                call_timeout: self.call_timeout,
                closing: OnceLock::new(),
            }),
            session: self.session.map(|session| session.0),
        })
    }
}

/// A connection to one server. Clones share it; it can be used from any thread and any executor.
///
/// When the last clone and the last [`Job`] are dropped, the connection is closed: that blocks until everything is
/// delivered, at most `exit_timeout`, and saves the rest in the spool. Asynchronous code calls [`close`](Self::close)
/// before. A process that ends by [`std::process::exit`] drops nothing, so it must also call `close` before.
#[derive(Clone)]
pub struct Client {
    pub(crate) connection: Arc<Connection>,
    pub(crate) session: Option<String>,
}

/// What all clones of a client, and all its jobs, share.
pub(crate) struct Connection {
    pub(crate) engine: Engine,
    pub(crate) exit_timeout: Duration,
    pub(crate) call_timeout: Duration,
    closing: OnceLock<Arrival<()>>,
}

impl Connection {
    /// Delivers what is left, once, and releases all jobs.
    fn close(&self) -> Arrival<()> {
        self.closing.get_or_init(|| self.engine.close(self.exit_timeout)).clone()
    }

    /// Whether all jobs are released.
    pub(crate) fn is_closed(&self) -> bool {
        self.closing.get().is_some()
    }
}

impl Drop for Connection {
    fn drop(&mut self) {
        if !self.engine.is_here() {
            let timeout = self.exit_timeout.saturating_add(SPOOL_TIMEOUT);
            self.close().wait_for(timeout);
            // Also reports after `close`. A job whose delivery was given up is not waited for again.
            self.engine.close(self.exit_timeout).wait_for(timeout);
        }
        self.engine.quit(SPOOL_TIMEOUT);
    }
}

impl Client {
    /// A connection as the environment says: `HEADWAY_TARGET`, `HEADWAY_TOKEN`, `HEADWAY_CA`, `HEADWAY_SESSION`.
    ///
    /// # Errors
    /// See [`ClientBuilder::connect`].
    pub fn connect() -> Result<Self, Error> {
        Self::builder().connect()
    }

    /// A connection with your own settings.
    pub fn builder() -> ClientBuilder {
        ClientBuilder {
            target: None,
            token: None,
            ca: None,
            session: None,
            exit_timeout: Duration::from_secs(10),
            call_timeout: ANSWER_TIMEOUT,
        }
    }

    /// The same connection, for another session.
    #[must_use]
    pub fn with_session(&self, session: impl Into<String>) -> Self {
        Self { connection: Arc::clone(&self.connection), session: Some(session.into()) }
    }

    pub(crate) fn session(&self) -> Result<String, Error> {
        let found = self.session.clone().filter(|session| !session.is_empty());
        found
            .or_else(|| variable("HEADWAY_SESSION"))
            .ok_or_else(|| Error::misuse("No session: give one with ClientBuilder::session, or set HEADWAY_SESSION."))
    }

    /// Creates a job and begins to work on it.
    ///
    /// If the server does not answer, the client creates the job in the background, under the id that it has already.
    /// The call waits for that as long as a refused connection takes, or at most a second. With a key or `continues` it
    /// waits at most 5 s, and then begins a new job; if an unfinished job has the key, the new job is created without
    /// it.
    ///
    /// # Errors
    /// Without a session. If the server answers at once that this cannot be: `InvalidArgument` for what is malformed,
    /// `AlreadyExists`, `Unauthenticated`, `PermissionDenied`; of what it continues `NotFound` or `FailedPrecondition`.
    pub fn create(&self, options: impl Into<JobOptions>) -> Answer<Result<Job, Error>> {
        self.begin(options.into())
    }

    fn begin(&self, options: JobOptions) -> Answer<Result<Job, Error>> {
        let (connection, client) = (Arc::clone(&self.connection), self.clone());
        let session = self.session();
        Answer::new(async move {
            let engine = &connection.engine;
            let session = session?;
            let may_have_begun = options.may_have_begun();
            let end = Instant::now() + if may_have_begun { FIND_TIMEOUT } else { CREATE_TIMEOUT };
            if let Some(id) = options.chosen_id() {
                catch_up(engine, Some(id), CREATE_TIMEOUT).await;
            }
            let mut request = options.request(&session);
            if may_have_begun {
                match client.find_or_create(&session, &request, end).await {
                    Err(error) if !matches!(policy_for(&error), ErrorPolicy::Stop | ErrorPolicy::Drop) => {
                        // The server did not answer in time. The worker begins, and its work becomes a job of its own.
                        request.key_if_free = true;
                    }
                    answer => return answer,
                }
            }
            let state = described(&request);
            let pending = request.pending;
            // A job that waits for a worker gets its heartbeats from that worker.
            let beat = if pending { Heartbeat::Never } else { heartbeat(request.heartbeat_timeout.as_ref()) };
            let meter = Arc::new(Meter::new("", 0));
            let job_state = JobState::new(session, state, Arc::clone(&meter), beat, false);
            let create = PendingCall::call(Request::Create(request));
            let answers = create.answers.clone();
            engine.submit(&job_state, Some(create));
            let tried = engine.within(end.saturating_duration_since(Instant::now()), &answers.tried);
            // Make the handle now: a task that is dropped while it waits must not leave a job without an end.
            let job = Job::new(Arc::clone(&connection), job_state, meter, !pending, true);
            tried.await;
            match answers.answer.get() {
                Some(Err(error)) => Err(error),
                _ => Ok(job),
            }
        })
    }

    /// Takes a job over from a worker that is gone, or starts a PENDING one. The server refuses further reports of the
    /// former worker. If the job has ended, a new job continues it, as with [`JobOptions::continues`]. If it was
    /// continued already, this takes the last job of that chain. Progress continues from where it was, and [`Job::get`]
    /// reads the variables (the checkpoint).
    ///
    /// # Errors
    /// `NotFound`; others if the server does not answer.
    pub fn resume(&self, job_id: &str) -> Answer<Result<Job, Error>> {
        let (session, client, job_id) = (self.session(), self.clone(), job_id.to_owned());
        Answer::new(async move { client.carry_on(session?, job_id).await })
    }

    /// A job to read it, to change it, or to report a part of it; none if it is not in this session.
    ///
    /// It sends no heartbeats, and does not end when it is dropped. Its values are those of this moment:
    /// [`refresh`](Job::refresh) renews them.
    ///
    /// # Errors
    /// If the server does not answer.
    pub fn fetch(&self, job_id: &str) -> Answer<Result<Option<Job>, Error>> {
        let (connection, client) = (Arc::clone(&self.connection), self.clone());
        let (session, job_id) = (self.session(), job_id.to_owned());
        Answer::new(async move {
            let session = session?;
            let client = client.with_session(&session);
            let state = match client.get(&job_id).await {
                Err(error) if error.code() == Code::NotFound => return Ok(None),
                state => state?,
            };
            let results = match state.status() {
                JobStatus::Completed => client.results(&job_id).await?,
                _ => None,
            };
            let started = state.status() != JobStatus::Pending;
            let meter = Arc::new(Meter::new("", state.parts.get("").copied().unwrap_or(0)));
            let job_state = JobState::new(session, state, Arc::clone(&meter), Heartbeat::Never, started);
            let job = Job::new(connection, job_state, meter, false, false);
            job.keep_results(results);
            Ok(Some(job))
        })
    }

    /// Sends what earlier processes left in the spool for this server. The client also does that at the server's first
    /// answer.
    pub fn flush_spool(&self) -> Answer<SpoolFlush> {
        let engine = &self.connection.engine;
        let flushed = engine.spawn(SpoolFlush::default(), spool_sender::flush(engine.target.clone()));
        Answer::new(flushed)
    }

    /// Waits until everything is delivered, at most `exit_timeout`, and saves the rest in the spool. Jobs that have not
    /// ended stay as they are, also those that are created later. It starts at once, and can be called twice. Later
    /// reports are delivered when the last clone of the client and of its jobs is dropped.
    pub fn close(&self) -> Answer<()> {
        // The connection itself waits for it, if no caller does.
        Answer::new(self.connection.close())
    }
}

/// A worker that takes a job over continues after the last report of the former worker, which may still be in the
/// spool.
pub(crate) async fn catch_up(engine: &Engine, job_id: Option<&str>, timeout: Duration) {
    let sending = Box::pin(spool_sender::catch_up(engine.target.clone(), job_id.map(str::to_owned)));
    let sent = engine.spawn((), async move {
        let _ = tokio::time::timeout(timeout, sending).await;
    });
    sent.await;
}

/// The job as the protocol's message; its fields are documented there.
pub(crate) type State = v1::Job;

impl fmt::Debug for Client {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.debug_struct("Client").field("target", &self.connection.engine.target).finish_non_exhaustive()
    }
}

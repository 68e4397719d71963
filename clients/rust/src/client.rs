//! The connection: where jobs are made.

use std::fmt;
use std::path::PathBuf;
use std::sync::{Arc, OnceLock};
use std::time::{Duration, Instant};

use tonic::Code;

use crate::calls::PATIENCE;
use crate::course::{Course, Heartbeat, heartbeat};
use crate::engine::Engine;
use crate::error::Error;
use crate::job::Job;
use crate::meter::Meter;
use crate::options::{JobOptions, described};
use crate::postman::{self, SpoolFlush};
use crate::promise::{Answer, Arrival};
use crate::proto::headway::v1::{self, JobStatus};
use crate::step::{Request, Step};
use crate::target::{Target, variable};
use crate::verdict::{Verdict, judge};

/// What a new job waits for a server that neither answers nor refuses the connection; then the work begins, and the job is
/// created in the background.
const CREATE_PATIENCE: Duration = Duration::from_secs(1);

/// What a job waits likewise which another one's worker may have begun: without the answer all that work would be done again.
pub(crate) const FIND_TIMEOUT: Duration = Duration::from_secs(5);

/// What the engine has beyond `exit_timeout` to take down what is left.
const WRITING: Duration = Duration::from_secs(5);

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

    /// How long the end of a job, and of the client, waits at most until all is delivered. Default: 10 s.
    pub fn exit_timeout(mut self, timeout: Duration) -> Self {
        self.exit_timeout = timeout;
        self
    }

    /// How long the server has to answer a call that its caller waits for. Default: 10 s.
    pub fn call_timeout(mut self, timeout: Duration) -> Self {
        self.call_timeout = timeout;
        self
    }

    /// Starts the client's thread. Nothing is sent before it is used.
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
/// When the last clone is dropped, and the last [`Job`] with it, the connection is closed: that blocks until all is
/// delivered, at most `exit_timeout`, and leaves the rest in the spool. Asynchronous code calls [`close`](Self::close)
/// before. A process that ends by [`std::process::exit`] drops nothing, and so must do the same.
#[derive(Clone)]
pub struct Client {
    pub(crate) connection: Arc<Connection>,
    pub(crate) session: Option<String>,
}

/// What all clones of a client, and all of its jobs, hold on to.
pub(crate) struct Connection {
    pub(crate) engine: Engine,
    pub(crate) exit_timeout: Duration,
    pub(crate) call_timeout: Duration,
    closing: OnceLock<Arrival<()>>,
}

impl Connection {
    /// Delivers what is left, once, and lets go of all jobs.
    fn close(&self) -> Arrival<()> {
        self.closing.get_or_init(|| self.engine.close(self.exit_timeout)).clone()
    }

    /// Whether all jobs were let go.
    pub(crate) fn is_closed(&self) -> bool {
        self.closing.get().is_some()
    }
}

impl Drop for Connection {
    fn drop(&mut self) {
        if !self.engine.is_here() {
            let patience = self.exit_timeout.saturating_add(WRITING);
            self.close().wait_for(patience);
            // What was said after somebody closed it; of what was given up, nothing is waited for again.
            self.engine.close(self.exit_timeout).wait_for(patience);
        }
        self.engine.quit(WRITING);
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

    /// A connection of one's own making.
    pub fn builder() -> ClientBuilder {
        ClientBuilder {
            target: None,
            token: None,
            ca: None,
            session: None,
            exit_timeout: Duration::from_secs(10),
            call_timeout: PATIENCE,
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
    /// If the server does not answer, the job is created in the background, under the id that it has already; that takes
    /// a refused connection, or at most a second. One with a key or that continues another takes 5 s at most, and
    /// begins anew then; should an unfinished job have the key, it is created without it.
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
            let end = Instant::now() + if may_have_begun { FIND_TIMEOUT } else { CREATE_PATIENCE };
            if let Some(id) = options.chosen_id() {
                catch_up(engine, Some(id), CREATE_PATIENCE).await;
            }
            let mut request = options.request(&session);
            if may_have_begun {
                match client.find_or_create(&session, &request, end).await {
                    Err(error) if !matches!(judge(&error), Verdict::Gone | Verdict::Refused) => {
                        // Nobody could be asked in time: the worker begins, and its work is a job of its own.
                        request.key_if_free = true;
                    }
                    answer => return answer,
                }
            }
            let state = described(&request);
            let pending = request.pending;
            // The heartbeats of one that waits for a worker are that worker's.
            let beat = if pending { Heartbeat::Never } else { heartbeat(request.heartbeat_timeout.as_ref()) };
            let meter = Arc::new(Meter::new("", 0));
            let course = Course::new(session, state, Arc::clone(&meter), beat, false);
            let step = Step::call(Request::Create(request));
            let answers = step.answers.clone();
            engine.submit(&course, Some(step));
            let tried = engine.within(end.saturating_duration_since(Instant::now()), &answers.tried);
            // Now, since a task that is dropped while it waits shall leave nothing behind that nobody ends.
            let job = Job::new(Arc::clone(&connection), course, meter, !pending, true);
            tried.await;
            match answers.answer.get() {
                Some(Err(error)) => Err(error),
                _ => Ok(job),
            }
        })
    }

    /// Carries a job on. One that goes on is taken over from a worker that is gone, a PENDING one is started; reports of
    /// the former worker are refused from now on. One that has ended is continued by a new job, as by
    /// [`JobOptions::continues`]; if it was continued already, the last of those that continue it is carried on. The
    /// progress goes on where it stood, and the variables, the checkpoint, can be read with [`Job::get`].
    ///
    /// # Errors
    /// `NotFound`; others if the server does not answer.
    pub fn resume(&self, job_id: &str) -> Answer<Result<Job, Error>> {
        let (session, client, job_id) = (self.session(), self.clone(), job_id.to_owned());
        Answer::new(async move { client.carry_on(session?, job_id).await })
    }

    /// The job, to look at it, to change it, or to report a part of it; none if it is not in this session.
    ///
    /// It gives no heartbeats, is left as it is when it is dropped, and what it says is as of now:
    /// [`refresh`](Job::refresh) renews it.
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
            let course = Course::new(session, state, Arc::clone(&meter), Heartbeat::Never, started);
            let job = Job::new(connection, course, meter, false, false);
            job.keep_results(results);
            Ok(Some(job))
        })
    }

    /// Sends what earlier processes have left in the spool for this server. The client does so by itself when the server
    /// first answers.
    pub fn flush_spool(&self) -> Answer<SpoolFlush> {
        let engine = &self.connection.engine;
        let flushed = engine.spawn(SpoolFlush::default(), postman::flush(engine.target.clone()));
        Answer::new(flushed)
    }

    /// Waits until all is delivered, at most `exit_timeout`, and leaves the rest in the spool. Jobs that have not ended
    /// are let go as they are, and so are those that are created after it. Asked for at once; can be called twice. What is
    /// said after it is delivered when the last clone of the client, and of its jobs, is dropped.
    pub fn close(&self) -> Answer<()> {
        // The connection itself waits for it, if nobody else does.
        Answer::new(self.connection.close())
    }
}

/// A job that is taken up again goes on from the last word of its former worker, wherever that is.
pub(crate) async fn catch_up(engine: &Engine, job_id: Option<&str>, patience: Duration) {
    let sending = Box::pin(postman::catch_up(engine.target.clone(), job_id.map(str::to_owned)));
    let sent = engine.spawn((), async move {
        let _ = tokio::time::timeout(patience, sending).await;
    });
    sent.await;
}

/// The job as the protocol has it; its fields are documented there.
pub(crate) type State = v1::Job;

impl fmt::Debug for Client {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.debug_struct("Client").field("target", &self.connection.engine.target).finish_non_exhaustive()
    }
}

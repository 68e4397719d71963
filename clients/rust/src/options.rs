//! Options of a new job, and the filter of a list.

use std::collections::BTreeMap;
use std::fmt::Display;
use std::time::Duration;

use crate::ids::uuid7;
use crate::proto::headway::v1::{CreateJobRequest, Job, JobStatus, ListJobsRequest};
use crate::values::{clean_text, to_duration};

const HEARTBEAT_TIMEOUT: Duration = Duration::from_secs(60);
/// The server reports which texts are too long.
const ANY_LENGTH: usize = 10_000;
/// The maximum length of a job's name and of its invoker.
pub(crate) const MAX_NAME_LENGTH: usize = 256;
const MAX_UNIT_LENGTH: usize = 32;
const MAX_LABEL_LENGTH: usize = 256;

/// Options of a new job. A plain `&str` is enough: it is the name.
///
/// ```
/// use headway::JobOptions;
///
/// let options = JobOptions::new("Import MARC records").size(40_000).unit("records").label("site", "main");
/// ```
#[derive(Clone, Debug)]
#[must_use]
pub struct JobOptions {
    name: String,
    job_id: Option<String>,
    invoker: String,
    size: i64,
    unit: String,
    labels: BTreeMap<String, String>,
    heartbeat_timeout: Duration,
    stall_timeout: Option<Duration>,
    retention: Option<Duration>,
    pending: bool,
    continues: String,
    key: String,
}

impl JobOptions {
    /// A job with that name, for people: the first 256 characters.
    pub fn new(name: impl Display) -> Self {
        Self {
            name: clean_text(name, MAX_NAME_LENGTH),
            job_id: None,
            invoker: String::new(),
            size: 0,
            unit: String::new(),
            labels: BTreeMap::new(),
            heartbeat_timeout: HEARTBEAT_TIMEOUT,
            stall_timeout: None,
            retention: None,
            pending: false,
            continues: String::new(),
            key: String::new(),
        }
    }

    /// Your own id: 32 lower-case hexadecimal digits, best a `UUIDv7`. Default: a new one.
    pub fn job_id(mut self, id: impl Into<String>) -> Self {
        self.job_id = Some(id.into());
        self
    }

    /// Who or what starts the job: the first 256 characters.
    pub fn invoker(mut self, invoker: impl Display) -> Self {
        self.invoker = clean_text(invoker, MAX_NAME_LENGTH);
        self
    }

    /// The amount of work, in units. Default: 0, not known yet.
    pub fn size(mut self, units: i64) -> Self {
        self.size = units.max(0);
        self
    }

    /// Names what is counted: "records". The first 32 characters.
    pub fn unit(mut self, unit: impl Display) -> Self {
        self.unit = clean_text(unit, MAX_UNIT_LENGTH);
        self
    }

    /// A label to filter by; at most 64, keys of at most 63 characters, the first 256 of each value.
    pub fn label(mut self, key: impl Display, value: impl Display) -> Self {
        self.labels.insert(clean_text(key, ANY_LENGTH), clean_text(value, MAX_LABEL_LENGTH));
        self
    }

    /// After this long without contact the job counts as LOST. Default: 60 s; zero: never.
    pub fn heartbeat_timeout(mut self, timeout: Duration) -> Self {
        self.heartbeat_timeout = timeout;
        self
    }

    /// After this long without progress the job counts as stalled. Default: never.
    pub fn stall_timeout(mut self, timeout: Duration) -> Self {
        self.stall_timeout = Some(timeout);
        self
    }

    /// How long the server keeps the job after its end. Default: the server's setting, 30 days.
    pub fn retention(mut self, span: Duration) -> Self {
        self.retention = Some(span);
        self
    }

    /// The job waits for a worker that calls [`resume`](crate::Client::resume).
    pub fn pending(mut self) -> Self {
        self.pending = true;
        self
    }

    /// The id of a job that has ended, or is LOST. The new job begins with the old one's name, invoker, size, unit,
    /// labels, progress, counters and variables (the checkpoint). Options that are set here win.
    pub fn continues(mut self, job_id: impl Into<String>) -> Self {
        self.continues = job_id.into();
        self
    }

    /// Finds the unfinished job of the session that has this key, and takes it over from its worker. If there is none,
    /// a job is created with the key. So a job can be created at every start: "nightly-2026-11"; at most 256
    /// characters. A key is no lock: a former worker that is still at work learns of the take-over by
    /// [`stopped`](crate::Job::stopped).
    pub fn key(mut self, key: impl Display) -> Self {
        self.key = clean_text(key, ANY_LENGTH);
        self
    }

    /// Whether another worker may have begun the job, so that its worker must wait for the answer.
    pub(crate) fn may_have_begun(&self) -> bool {
        !self.key.is_empty() || !self.continues.is_empty()
    }

    pub(crate) fn chosen_id(&self) -> Option<&str> {
        self.job_id.as_deref()
    }

    pub(crate) fn request(self, session: &str) -> CreateJobRequest {
        CreateJobRequest {
            session_id: session.to_owned(),
            job_id: self.job_id.unwrap_or_else(uuid7),
            name: self.name,
            invoker: self.invoker,
            size: self.size,
            unit: self.unit,
            labels: self.labels,
            heartbeat_timeout: Some(to_duration(self.heartbeat_timeout)),
            stall_timeout: self.stall_timeout.map(to_duration),
            retention: self.retention.map(to_duration),
            pending: self.pending,
            continues: self.continues,
            key: self.key,
            key_if_free: false,
        }
    }
}

impl<T: Display> From<T> for JobOptions {
    fn from(name: T) -> Self {
        Self::new(name)
    }
}

/// The job as its creator knows it before the server has answered.
pub(crate) fn described(request: &CreateJobRequest) -> Job {
    let status = if request.pending { JobStatus::Pending } else { JobStatus::Running };
    Job {
        id: request.job_id.clone(),
        name: request.name.clone(),
        invoker: request.invoker.clone(),
        size: request.size,
        unit: request.unit.clone(),
        labels: request.labels.clone(),
        status: status.into(),
        heartbeat_timeout: request.heartbeat_timeout,
        ..Job::default()
    }
}

/// Selects jobs of a session: those that match everything that is set here.
#[derive(Clone, Debug, Default)]
#[must_use]
pub struct JobFilter {
    statuses: Vec<JobStatus>,
    name: String,
    invoker: String,
    labels: BTreeMap<String, String>,
    stalled: Option<bool>,
    page_size: i32,
}

impl JobFilter {
    /// All jobs.
    pub fn new() -> Self {
        Self::default()
    }

    /// Jobs with this status; several calls: with any of them.
    pub fn status(mut self, status: JobStatus) -> Self {
        self.statuses.push(status);
        self
    }

    /// Jobs with exactly this name.
    pub fn name(mut self, name: impl Into<String>) -> Self {
        self.name = name.into();
        self
    }

    /// Jobs with exactly this invoker.
    pub fn invoker(mut self, invoker: impl Into<String>) -> Self {
        self.invoker = invoker.into();
        self
    }

    /// Jobs that have this label with this value; several calls: all of them.
    pub fn label(mut self, key: impl Into<String>, value: impl Into<String>) -> Self {
        self.labels.insert(key.into(), value.into());
        self
    }

    /// Only stalled jobs, or only those that are not.
    pub fn stalled(mut self, stalled: bool) -> Self {
        self.stalled = Some(stalled);
        self
    }

    /// The number of jobs in one call: 50 by default, at most 1,000.
    pub fn page_size(mut self, jobs: i32) -> Self {
        self.page_size = jobs;
        self
    }

    pub(crate) fn request(self, session: &str) -> ListJobsRequest {
        ListJobsRequest {
            session_id: session.to_owned(),
            page_size: self.page_size,
            page_token: String::new(),
            statuses: self.statuses.into_iter().map(Into::into).collect(),
            name: self.name,
            invoker: self.invoker,
            labels: self.labels,
            stalled: self.stalled,
        }
    }
}

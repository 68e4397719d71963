//! The calls that a job makes besides its reports.

use std::sync::Arc;

use prost::Message as _;

use crate::error::Error;
use crate::promise::Promise;
use crate::proto::headway::v1::{
    CreateJobRequest, FailJobRequest, FinishJobRequest, Job, ReportProgressRequest, StartJobRequest, UpdateJobRequest,
};

/// One call, as the engine makes it, or as a later process will.
#[derive(Clone, PartialEq)]
#[expect(clippy::large_enum_variant, reason = "a job has few of them")]
pub(crate) enum Request {
    Create(CreateJobRequest),
    Start(StartJobRequest),
    Update(UpdateJobRequest),
    Report(ReportProgressRequest),
    Finish(FinishJobRequest),
    Fail(FailJobRequest),
}

impl Request {
    pub(crate) fn encoded_len(&self) -> usize {
        match self {
            Self::Create(request) => request.encoded_len(),
            Self::Start(request) => request.encoded_len(),
            Self::Update(request) => request.encoded_len(),
            Self::Report(request) => request.encoded_len(),
            Self::Finish(request) => request.encoded_len(),
            Self::Fail(request) => request.encoded_len(),
        }
    }

    /// Whether it ends the job.
    pub(crate) fn ends(&self) -> bool {
        matches!(self, Self::Finish(_) | Self::Fail(_))
    }

    /// Makes the worker's change in the known state of the job.
    pub(crate) fn apply(&self, job: &mut Job) {
        let Self::Update(UpdateJobRequest { job: Some(change), update_mask: Some(mask), .. }) = self else {
            return;
        };
        for field in &mask.paths {
            match field.as_str() {
                "name" => job.name.clone_from(&change.name),
                "invoker" => job.invoker.clone_from(&change.invoker),
                _ => {}
            }
        }
    }

    pub(crate) fn set_attempt(&mut self, number: i32) {
        match self {
            Self::Finish(request) => request.attempt = number,
            Self::Fail(request) => request.attempt = number,
            _ => {}
        }
    }
}

/// The server's answer to a pending call that has one.
pub(crate) type Outcome = Result<Option<Job>, Error>;

/// A call that a job still has to make. Without a request it marks a point: the reports before it have to go out first.
pub(crate) struct PendingCall {
    pub(crate) request: Option<Request>,
    pub(crate) after_reports: bool,
    /// Everything that the reports before this call have to contain is taken. Later changes do not delay the call.
    pub(crate) sampled: bool,
    /// The engine forgets the job after this call.
    pub(crate) release: bool,
    pub(crate) answers: Answers,
}

/// How waiting callers learn the result of a pending call.
#[derive(Clone)]
pub(crate) struct Answers {
    /// What the server answered, or its error.
    pub(crate) answer: Arc<Promise<Outcome>>,
    /// Set together with the answer, or as soon as the server is known to be unreachable.
    pub(crate) tried: Arc<Promise<()>>,
}

impl Answers {
    pub(crate) fn settle(&self, outcome: Outcome) {
        self.answer.set(outcome);
        self.tried.set(());
    }
}

impl PendingCall {
    fn new(request: Option<Request>, after_reports: bool, release: bool) -> Self {
        Self {
            request,
            after_reports,
            sampled: false,
            release,
            answers: Answers { answer: Promise::new(), tried: Promise::new() },
        }
    }

    /// Whether both change the same fields of the job.
    pub(crate) fn same_change(&self, other: &Self) -> bool {
        match (&self.request, &other.request) {
            (Some(Request::Update(one)), Some(Request::Update(other))) => one.update_mask == other.update_mask,
            _ => false,
        }
    }

    /// A call to make at once.
    pub(crate) fn call(request: Request) -> Self {
        Self::new(Some(request), false, false)
    }

    /// The end of a job, after its reports.
    pub(crate) fn end(request: Request) -> Self {
        Self::new(Some(request), true, false)
    }

    /// Done after everything reported so far is stored.
    pub(crate) fn milestone() -> Self {
        Self::new(None, true, false)
    }

    /// Releases the job as it is: after its reports, or at once.
    pub(crate) fn release(after_reports: bool) -> Self {
        Self::new(None, after_reports, true)
    }
}

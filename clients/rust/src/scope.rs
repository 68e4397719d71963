//! A job that ends together with its work.

use std::any::Any;
use std::error::Error as StdError;
use std::fmt::Display;
use std::future::poll_fn;
use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};
use std::pin::pin;
use std::task::Poll;

use serde::Serialize;
use tonic::Code;

use crate::client::Client;
use crate::error::{Error, JobCancelled};
use crate::job::Job;
use crate::options::JobOptions;
use crate::promise::Answer;

impl Client {
    /// Creates a job, works on it, and ends it as the work ends; see [`Job::scope`].
    ///
    /// ```no_run
    /// # fn main() -> Result<(), Box<dyn std::error::Error>> {
    /// use headway::{Client, JobOptions};
    ///
    /// let client = Client::connect()?;
    /// let total = client.run(JobOptions::new("Count").size(3), |job| {
    ///     let mut total = 0;
    ///     for number in job.track([1, 2, 3]) {
    ///         job.check_cancelled()?;
    ///         total += number;
    ///     }
    ///     Ok::<_, Box<dyn std::error::Error>>(total)
    /// })?;
    /// # Ok(()) }
    /// ```
    ///
    /// # Errors
    /// Those of [`create`](Self::create), and then nothing was begun; those of the work.
    pub fn run<T, E>(&self, options: impl Into<JobOptions>, work: impl FnOnce(&Job) -> Result<T, E>) -> Result<T, E>
    where
        T: Serialize,
        E: Display + From<Error> + 'static,
    {
        self.create(options).wait()?.scope(work)
    }

    /// The same for a task. If its future is dropped before it is done, the job ends as CANCELLED.
    ///
    /// # Errors
    /// As [`run`](Self::run).
    pub async fn run_async<T, E, F>(&self, options: impl Into<JobOptions>, work: impl FnOnce(Job) -> F) -> Result<T, E>
    where
        T: Serialize,
        E: Display + From<Error> + 'static,
        F: Future<Output = Result<T, E>>,
    {
        let job = self.create(options).await?;
        job.scope_async(work).await
    }
}

impl Job {
    /// Works on the job, and ends it: COMPLETED with the work's value as results (`()`: those of
    /// [`set_results`](Self::set_results)); FAILED with the error's text; CANCELLED if the error is, or comes from, a
    /// [`JobCancelled`] (if its type hides that: if [`check_cancelled`](Self::check_cancelled) has reported the
    /// request); FAILED if the work panics, with the panic's message. Waits as [`finish`](Self::finish) does.
    ///
    /// # Errors
    /// Those of the work, unchanged.
    pub fn scope<T, E>(&self, work: impl FnOnce(&Self) -> Result<T, E>) -> Result<T, E>
    where
        T: Serialize,
        E: Display + 'static,
    {
        match catch_unwind(AssertUnwindSafe(|| work(self))) {
            Ok(outcome) => {
                self.end_as(&outcome).wait();
                outcome
            }
            Err(payload) => {
                self.fail(panic_text(payload.as_ref())).wait();
                resume_unwind(payload)
            }
        }
    }

    /// The same for a task. If its future is dropped before it is done, the job ends as CANCELLED.
    ///
    /// # Errors
    /// Those of the work, unchanged.
    pub async fn scope_async<T, E, F>(&self, work: impl FnOnce(Self) -> F) -> Result<T, E>
    where
        T: Serialize,
        E: Display + 'static,
        F: Future<Output = Result<T, E>>,
    {
        let guard = TaskGuard(self);
        let mut working = pin!(work(self.clone()));
        let outcome = poll_fn(|context| {
            let pending = catch_unwind(AssertUnwindSafe(|| working.as_mut().poll(context)));
            pending.map_or_else(|payload| Poll::Ready(Err(payload)), |pending| pending.map(Ok))
        });
        let outcome = outcome.await;
        std::mem::forget(guard);
        match outcome {
            Ok(outcome) => {
                self.end_as(&outcome).await;
                outcome
            }
            Err(payload) => {
                self.fail(panic_text(payload.as_ref())).await;
                resume_unwind(payload)
            }
        }
    }

    fn end_as<T: Serialize, E: Display + 'static>(&self, outcome: &Result<T, E>) -> Answer<()> {
        match outcome {
            Ok(results) => self.finish(results),
            Err(error) if cancels(error).unwrap_or_else(|| self.has_told()) => self.fail_with(Code::Cancelled, error),
            Err(error) => self.fail(format_args!("{error:#}")),
        }
    }
}

struct TaskGuard<'a>(&'a Job);

impl Drop for TaskGuard<'_> {
    fn drop(&mut self) {
        // The end is requested, and goes on in the background.
        drop(if std::thread::panicking() {
            self.0.fail("the worker panicked")
        } else {
            self.0.fail_with(Code::Cancelled, "the task was cancelled")
        });
    }
}

/// Whether the error is a [`JobCancelled`], or comes from one; none if its type hides that.
fn cancels(error: &dyn Any) -> Option<bool> {
    if error.is::<JobCancelled>() {
        return Some(true);
    }
    let boxed = error.downcast_ref::<Box<dyn StdError + Send + Sync>>();
    let boxed = boxed.map(|error| &**error as &dyn StdError);
    let local = error.downcast_ref::<Box<dyn StdError>>();
    let mut source = Some(boxed.or(local.map(|error| &**error))?);
    while let Some(error) = source {
        if error.is::<JobCancelled>() {
            return Some(true);
        }
        source = error.source();
    }
    Some(false)
}

fn panic_text(payload: &(dyn Any + Send)) -> String {
    let text = payload.downcast_ref::<&str>().copied();
    match text.or(payload.downcast_ref::<String>().map(String::as_str)) {
        Some(text) => format!("panic: {text}"),
        None => "the worker panicked".to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use std::future::pending;
    use std::sync::Arc;
    use std::thread;
    use std::time::Duration;

    use super::*;
    use crate::job_state::JobState;
    use crate::pending_call::Request;

    type Outcome = Result<(), Box<dyn StdError + Send + Sync>>;

    fn client() -> Client {
        let builder = Client::builder().target("127.0.0.1:1").session("s").exit_timeout(Duration::ZERO);
        builder.connect().unwrap()
    }

    fn job() -> (Job, Arc<JobState>) {
        let job = client().create("Test").wait().unwrap();
        let job_state = Arc::clone(&job.part.inner.job_state);
        (job, job_state)
    }

    /// How the job ends: the code and message of its error, 0 if it completes.
    fn end(job_state: &JobState) -> Option<(i32, String)> {
        match job_state.undelivered().pop()? {
            Request::Fail(request) => request.error.map(|error| (error.code, error.message)),
            Request::Finish(_) => Some((0, String::new())),
            _ => None,
        }
    }

    fn with(code: Code, message: &str) -> (i32, String) {
        (code.into(), message.to_owned())
    }

    #[test]
    fn a_cancellation_is_seen_through_boxes() {
        let boxed: Box<dyn StdError + Send + Sync> = JobCancelled::new("x").into();
        let local: Box<dyn StdError> = JobCancelled::new("x").into();
        let other: Box<dyn StdError> = "JobCancelled".into();
        assert_eq!(cancels(&JobCancelled::new("x")), Some(true));
        assert_eq!((cancels(&boxed), cancels(&local)), (Some(true), Some(true)));
        assert_eq!((cancels(&other), cancels(&"text")), (Some(false), None));
    }

    #[test]
    fn a_scope_ends_its_job() {
        let (done, job_state) = job();
        done.scope(|_| -> Outcome { Ok(()) }).unwrap();
        assert_eq!(end(&job_state), Some(with(Code::Ok, "")));
        let (broken, job_state) = job();
        broken.scope(|_| -> Outcome { Err("out of paper".into()) }).unwrap_err();
        assert_eq!(end(&job_state), Some(with(Code::Unknown, "out of paper")));
        let (cancelled, job_state) = job();
        cancelled.scope(|_| -> Outcome { Err(JobCancelled::new("").into()) }).unwrap_err();
        assert_eq!(end(&job_state), Some(with(Code::Cancelled, "the job was cancelled")));
    }

    #[test]
    fn a_panic_fails_the_job_and_goes_on() {
        let (told, job_state) = job();
        let scope = AssertUnwindSafe(|| told.scope(|_| -> Outcome { panic!("out of {}", "ink") }));
        assert!(catch_unwind(scope).is_err());
        assert_eq!(end(&job_state), Some(with(Code::Unknown, "panic: out of ink")));
        let (dropped, job_state) = job();
        let worker = thread::spawn(move || {
            let _job = dropped;
            panic!("out of ink");
        });
        assert!(worker.join().is_err());
        assert_eq!(end(&job_state), Some(with(Code::Unknown, "the worker panicked")));
    }

    #[test]
    fn the_last_one_who_drops_a_job_fails_it() {
        let (first, job_state) = job();
        let part = first.clone().part("a");
        drop(first);
        assert_eq!(end(&job_state), None);
        drop(part);
        assert_eq!(end(&job_state), Some(with(Code::Unknown, "dropped without finish")));
    }

    #[test]
    fn a_task_that_is_dropped_while_it_creates_a_job_leaves_none() {
        // Accepts the connection, and never answers.
        let mute = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        let address = mute.local_addr().unwrap().to_string();
        let builder = Client::builder().target(address).session("s").exit_timeout(Duration::ZERO);
        let client = builder.connect().unwrap();
        let mut creating = client.create("Test");
        let mut context = std::task::Context::from_waker(std::task::Waker::noop());
        let deadline = std::time::Instant::now() + Duration::from_secs(10);
        let job_state = loop {
            assert!(std::pin::Pin::new(&mut creating).poll(&mut context).is_pending());
            if let Some(job_state) = client.connection.engine.jobs().pop() {
                break job_state;
            }
            assert!(std::time::Instant::now() < deadline);
        };
        drop(creating);
        assert_eq!(end(&job_state), Some(with(Code::Unknown, "dropped without finish")));
    }

    #[test]
    fn a_job_of_another_is_let_go_when_it_is_dropped() {
        let client = client();
        let waiting = client.create(JobOptions::new("Test").pending()).wait().unwrap();
        let job_state = Arc::clone(&waiting.part.inner.job_state);
        assert!(matches!(job_state.state().heartbeat, crate::job_state::Heartbeat::Never));
        drop(waiting);
        assert_eq!(end(&job_state), None);
        assert!(job_state.state().pending_calls.back().unwrap().release);
    }

    #[test]
    fn a_closed_client_has_let_go_of_its_jobs() {
        let client = client();
        let job = client.create("Test").wait().unwrap();
        let job_state = Arc::clone(&job.part.inner.job_state);
        client.close().wait();
        drop(job);
        assert_eq!(end(&job_state), None);
    }

    #[test]
    fn what_is_said_after_somebody_waited_in_vain_is_left() {
        let (job, job_state) = job();
        job.set_progress(1);
        let mut waited = crate::pending_call::PendingCall::milestone();
        waited.sampled = true;
        job_state.add_call(waited);
        job.set_progress(2);
        job.finish(()).wait();
        let left = job_state.undelivered();
        let Request::Report(report) = &left[left.len() - 2] else {
            panic!("no report");
        };
        assert_eq!(report.amount, Some(crate::proto::headway::v1::report_progress_request::Amount::Progress(2)));
    }

    #[test]
    fn of_changes_that_wait_the_last_one_counts() {
        let (job, job_state) = job();
        for number in 0..1000 {
            job.set_name(number);
        }
        job.set_invoker("somebody");
        let left = job_state.undelivered();
        let [Request::Create(_), Request::Update(name), Request::Update(_)] = &left[..] else {
            panic!("{} requests", left.len());
        };
        assert_eq!(name.job.as_ref().unwrap().name, "999");
    }

    #[test]
    fn an_answer_keeps_what_the_server_does_not_know_yet() {
        use crate::proto::headway::v1::{Cancellation, Job as State};

        let (job, job_state) = job();
        job.set_name("new");
        let cancellation = Cancellation { requested: true, ..Cancellation::default() };
        job_state.state().job.cancellation = Some(cancellation.clone());
        job_state.answered(Some(State {
            name: "old".into(),
            invoker: "somebody".into(),
            revision: 2,
            ..State::default()
        }));
        job_state.learn(State { revision: 1, ..State::default() });
        let known = job.snapshot();
        assert_eq!((known.name.as_str(), known.invoker.as_str(), known.revision), ("new", "somebody", 2));
        assert_eq!(known.cancellation, Some(cancellation));
    }

    #[test]
    fn reading_a_job_shows_a_cancellation_request() {
        use crate::proto::headway::v1::{Cancellation, Job as State};

        let (job, job_state) = job();
        let cancellation = Cancellation { requested: true, reason: "late".into(), ..Cancellation::default() };
        job_state.learn(State { attempt: 2, cancellation: Some(cancellation), ..State::default() });
        assert_eq!(job.check_cancelled().unwrap_err().reason(), "late");
        // Another worker's.
        assert_eq!(job.attempt(), 0);
    }

    #[test]
    fn what_is_refused_is_not_stored() {
        let (job, job_state) = job();
        job_state.end(Some(&Error::new(Code::FailedPrecondition, "").with_reason("STALE_ATTEMPT")));
        assert!(!job.flush(Duration::from_secs(60)).wait());
    }

    #[test]
    fn tasks_wait_without_blocking_and_block_without_panicking() {
        let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
        runtime.block_on(async {
            let client = client();
            let blocking = client.create("Test").wait().unwrap();
            blocking.finish(()).wait();
            let task = tokio::spawn(async move { client.run_async("Test", |_| async { Outcome::Ok(()) }).await });
            task.await.unwrap().unwrap();
        });
    }

    #[test]
    fn a_task_that_is_dropped_cancels_its_job() {
        let (cut_short, job_state) = job();
        let mut scope = Box::pin(cut_short.scope_async(|_| pending::<Outcome>()));
        let mut context = std::task::Context::from_waker(std::task::Waker::noop());
        assert!(scope.as_mut().poll(&mut context).is_pending());
        drop(scope);
        assert_eq!(end(&job_state), Some(with(Code::Cancelled, "the task was cancelled")));
    }

    #[test]
    fn jobs_can_be_shared() {
        fn shared<T: Clone + Send + Sync>() {}
        shared::<Job>();
        shared::<crate::Part>();
        shared::<Client>();
    }
}

//! A job that ends with the work on it.

use std::any::Any;
use std::error::Error as StdError;
use std::fmt::Display;
use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};

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
    /// Works on the job, and ends it: COMPLETED with what comes of the work as results (`()`: those of
    /// [`set_results`](Self::set_results)); FAILED with the error's text; CANCELLED if the error is, or comes from, a
    /// [`JobCancelled`] (where its type does not let that be seen: if [`check_cancelled`](Self::check_cancelled) has told of
    /// the wish); FAILED if the work panics, with the panic's message. Waits as [`finish`](Self::finish) does.
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

    /// The same for a task. If its future is dropped before it is done, the job ends as CANCELLED; if it panics, as FAILED.
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
        let outcome = work(self.clone()).await;
        std::mem::forget(guard);
        self.end_as(&outcome).await;
        outcome
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
        // The end is asked for, and goes on in the background.
        drop(if std::thread::panicking() {
            self.0.fail("the worker panicked")
        } else {
            self.0.fail_with(Code::Cancelled, "the task was cancelled")
        });
    }
}

/// Whether the error is a [`JobCancelled`], or comes from one; none if its type does not let that be seen.
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
    use super::*;

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
    fn what_a_panic_says_is_told() {
        assert_eq!(panic_text(&"no"), "panic: no");
        assert_eq!(panic_text(&7), "the worker panicked");
    }
}

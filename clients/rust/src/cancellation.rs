//! How the wish that a job end early, or the news that its work is for nothing, reaches the worker.

use std::sync::atomic::Ordering;
use std::time::Duration;

use crate::error::{Cancellation, Error, JobCancelled};
use crate::job::Job;

impl Job {
    /// Whether somebody wants the job to end early.
    #[must_use]
    pub fn is_cancelled(&self) -> bool {
        self.course().unwanted() && self.course().wish.is_set()
    }

    /// The wish that the job end early, if there is one.
    #[must_use]
    pub fn cancellation(&self) -> Option<Cancellation> {
        self.course().wish.get()
    }

    /// Arrives once somebody wants the job to end early: a branch of a `select!`.
    pub fn cancelled(&self) -> impl Future<Output = Cancellation> + Send + use<> {
        self.course().wish.arrival()
    }

    /// Blocks until somebody wants the job to end early, at most so long.
    #[must_use]
    pub fn wait_cancelled(&self, timeout: Duration) -> Option<Cancellation> {
        self.course().wish.wait_for(timeout)
    }

    /// For `job.check_cancelled()?` between two records.
    ///
    /// # Errors
    /// Once somebody wants the job to end early. To let it pass ends the job CANCELLED in [`run`](crate::Client::run).
    pub fn check_cancelled(&self) -> Result<(), JobCancelled> {
        if !self.course().unwanted() {
            return Ok(());
        }
        self.cancellation().map_or(Ok(()), |wish| {
            self.part.inner.told.store(true, Ordering::Relaxed);
            Err(JobCancelled::wished(wish))
        })
    }

    /// Whether `check_cancelled` has told of the wish.
    pub(crate) fn has_told(&self) -> bool {
        self.part.inner.told.load(Ordering::Relaxed)
    }

    /// Why the server takes no more reports of this worker, once it does not: reason `STALE_ATTEMPT` if another has taken
    /// the job over, `JOB_ENDED` if it has ended without this one, `JOB_NOT_FOUND` if it was cleared.
    #[must_use]
    pub fn stopped(&self) -> Option<Error> {
        self.course().stop.get()
    }

    /// Arrives once the server takes no more reports of this worker.
    pub fn until_stopped(&self) -> impl Future<Output = Error> + Send + use<> {
        self.course().stop.arrival()
    }

    /// Blocks until the server takes no more reports of this worker, at most so long.
    #[must_use]
    pub fn wait_stopped(&self, timeout: Duration) -> Option<Error> {
        self.course().stop.wait_for(timeout)
    }
}

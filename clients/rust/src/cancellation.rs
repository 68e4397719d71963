//! How a cancellation request, or the end of the server's interest, reaches the worker.

use std::sync::atomic::Ordering;
use std::time::Duration;

use crate::error::{Cancellation, Error, JobCancelled};
use crate::job::Job;

impl Job {
    /// Whether somebody has requested cancellation.
    #[must_use]
    pub fn is_cancelled(&self) -> bool {
        self.job_state().unwanted() && self.job_state().cancellation.is_set()
    }

    /// The cancellation request, if there is one.
    #[must_use]
    pub fn cancellation(&self) -> Option<Cancellation> {
        self.job_state().cancellation.get()
    }

    /// Arrives after a cancellation request: a branch of a `select!`.
    pub fn cancelled(&self) -> impl Future<Output = Cancellation> + Send + use<> {
        self.job_state().cancellation.arrival()
    }

    /// Blocks until a cancellation request, at most so long.
    #[must_use]
    pub fn wait_cancelled(&self, timeout: Duration) -> Option<Cancellation> {
        self.job_state().cancellation.wait_for(timeout)
    }

    /// For `job.check_cancelled()?` between two records.
    ///
    /// # Errors
    /// Once somebody wants the job to end early. To let it pass ends the job CANCELLED in [`run`](crate::Client::run).
    pub fn check_cancelled(&self) -> Result<(), JobCancelled> {
        if !self.job_state().unwanted() {
            return Ok(());
        }
        self.cancellation().map_or(Ok(()), |cancellation| {
            self.part.inner.told.store(true, Ordering::Relaxed);
            Err(JobCancelled::requested(cancellation))
        })
    }

    /// Whether `check_cancelled` has reported the request.
    pub(crate) fn has_told(&self) -> bool {
        self.part.inner.told.load(Ordering::Relaxed)
    }

    /// Why the server accepts no more reports of this worker, if it does not: reason `STALE_ATTEMPT` if another worker
    /// has taken the job over, `JOB_ENDED` if it has ended elsewhere, `JOB_NOT_FOUND` if it was cleared.
    #[must_use]
    pub fn stopped(&self) -> Option<Error> {
        self.job_state().stop.get()
    }

    /// Arrives if the server accepts no more reports of this worker.
    pub fn until_stopped(&self) -> impl Future<Output = Error> + Send + use<> {
        self.job_state().stop.arrival()
    }

    /// Blocks until the server accepts no more reports of this worker, at most so long.
    #[must_use]
    pub fn wait_stopped(&self, timeout: Duration) -> Option<Error> {
        self.job_state().stop.wait_for(timeout)
    }
}

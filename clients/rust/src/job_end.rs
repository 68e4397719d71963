//! How a job ends.

use std::fmt::Display;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use serde::Serialize;
use serde_json::Value;
use tonic::Code;

use crate::error::Error;
use crate::job::{Job, failure};
use crate::pending_call::PendingCall;
use crate::promise::{Answer, lock};
use crate::values::json;

impl Job {
    /// The job's results. Of a fetched job they are those of that moment.
    #[must_use]
    pub fn results(&self) -> Option<Value> {
        lock(&self.part.inner.results).clone()
    }

    /// Sets the job's results before its end: anything that serializes to JSON, usually a map, at most 1 MiB.
    pub fn set_results(&self, results: impl Serialize) {
        match json(results) {
            Ok(value) => self.keep_results(Some(value)),
            Err(reason) => self.part.inner.complain(&format!("its results are no JSON: {reason}")),
        }
    }

    /// Ends the job as COMPLETED, with results that [`set_results`](Self::set_results) describes; `()` adds none.
    ///
    /// The end is requested at once. The answer comes when the server has stored it, after at most `exit_timeout`, and
    /// early if the server is unreachable. The rest goes on in the background.
    pub fn finish(&self, results: impl Serialize) -> Answer<()> {
        match json(results) {
            Ok(Value::Null) => {}
            Ok(value) => self.keep_results(Some(value)),
            Err(reason) => self.part.inner.complain(&format!("it ends without results, which are no JSON: {reason}")),
        }
        self.settle(self.part.inner.end(None))
    }

    /// Ends the job as FAILED, because of an error or a text: its first 1,024 characters. See [`finish`](Self::finish).
    pub fn fail(&self, error: impl Display) -> Answer<()> {
        self.fail_with(Code::Unknown, error)
    }

    /// Ends the job as FAILED with a code; with [`Code::Cancelled`] as CANCELLED.
    pub fn fail_with(&self, code: Code, error: impl Display) -> Answer<()> {
        let code = if code == Code::Ok { Code::Unknown } else { code };
        self.settle(self.part.inner.end(Some(failure(code, error))))
    }

    fn settle(&self, pending: Option<PendingCall>) -> Answer<()> {
        let tried = pending.map(|pending| {
            let tried = Arc::clone(&pending.answers.tried);
            self.part.inner.submit(pending);
            let connection = &self.part.inner.connection;
            connection.engine.within(connection.exit_timeout, &tried)
        });
        Answer::new(async move {
            if let Some(tried) = tried {
                tried.await;
            }
        })
    }

    /// Waits until everything reported so far is stored, at most so long. Returns whether it is; false if the server
    /// accepts no more reports of this worker.
    pub fn flush(&self, timeout: Duration) -> Answer<bool> {
        let engine = self.part.inner.connection.engine.clone();
        let job_state = Arc::clone(&self.part.inner.job_state);
        let jobs =
            if self.job_state().state().over { Vec::new() } else { vec![Arc::clone(&self.part.inner.job_state)] };
        let here = engine.clone();
        let late = engine.spawn(false, async move {
            here.wait_delivered(jobs, timeout).await.is_empty() && !job_state.stop.is_set()
        });
        Answer::new(late)
    }

    /// Removes the job and everything that belongs to it. Nothing more is reported.
    ///
    /// # Errors
    /// As [`Client::clear`](crate::Client::clear).
    pub fn clear(&self) -> Answer<Result<(), Error>> {
        self.part.inner.ended.store(true, Ordering::Release);
        self.part.inner.submit(PendingCall::release(false));
        self.client().clear(self.id())
    }
}

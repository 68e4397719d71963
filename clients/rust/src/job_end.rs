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
use crate::promise::{Answer, lock};
use crate::step::Step;
use crate::values::json;

impl Job {
    /// What came of it. Of a fetched job: what had come of it then.
    #[must_use]
    pub fn results(&self) -> Option<Value> {
        lock(&self.part.inner.results).clone()
    }

    /// Sets what came of it before it ends: whatever serializes to JSON, a map by custom, at most 1 MiB.
    pub fn set_results(&self, results: impl Serialize) {
        match json(results) {
            Ok(value) => self.keep_results(Some(value)),
            Err(reason) => self.part.inner.complain(&format!("its results are no JSON: {reason}")),
        }
    }

    /// Ends the job as COMPLETED, with results that [`set_results`](Self::set_results) describes; `()` adds none.
    ///
    /// It is asked for at once. The answer comes when the server has it, as long as it answers, after at most `exit_timeout`;
    /// what is left goes on in the background.
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

    fn settle(&self, step: Option<Step>) -> Answer<()> {
        let tried = step.map(|step| {
            let tried = Arc::clone(&step.answers.tried);
            self.part.inner.submit(step);
            let connection = &self.part.inner.connection;
            connection.engine.within(connection.exit_timeout, &tried)
        });
        Answer::new(async move {
            if let Some(tried) = tried {
                tried.await;
            }
        })
    }

    /// Waits until all said so far is stored, at most so long; whether it is. It is not where the server takes no more
    /// reports of this worker.
    pub fn flush(&self, timeout: Duration) -> Answer<bool> {
        let engine = self.part.inner.connection.engine.clone();
        let course = Arc::clone(&self.part.inner.course);
        let courses = if self.course().state().over { Vec::new() } else { vec![Arc::clone(&self.part.inner.course)] };
        let here = engine.clone();
        let late =
            engine.spawn(false, async move { here.linger(courses, timeout).await.is_empty() && !course.stop.is_set() });
        Answer::new(late)
    }

    /// Removes the job and all that belongs to it; nothing more is reported.
    ///
    /// # Errors
    /// As [`Client::clear`](crate::Client::clear).
    pub fn clear(&self) -> Answer<Result<(), Error>> {
        self.part.inner.ended.store(true, Ordering::Release);
        self.part.inner.submit(Step::release(false));
        self.client().clear(self.id())
    }
}

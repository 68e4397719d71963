//! A part of a job: a worker, thread or task that shares the job moves its own.

use std::fmt::{self, Display};
use std::sync::Arc;

use futures_core::Stream;
use serde::Serialize;
use serde_json::Value;

use crate::job::Inner;
use crate::meter::Meter;
use crate::proto::headway::v1::RecordError;
use crate::track::{Tracked, TrackedStream};
use crate::values::{clean_text, json, to_fields};

/// A part of a job; made by [`Job::part`](crate::Job::part). A [`Job`](crate::Job) has the same methods for its part "".
///
/// Every method returns at once, and none fails because of the server. Clones share the part; use one part from one process.
#[derive(Clone)]
pub struct Part {
    pub(crate) inner: Arc<Inner>,
    pub(crate) meter: Arc<Meter>,
}

impl Part {
    /// Its name; the job's own part has an empty one.
    #[must_use]
    pub fn part_name(&self) -> &str {
        &self.meter.part
    }

    /// Counts `n` more units as done; a negative number counts fewer. Safe from several threads; takes a few
    /// nanoseconds.
    #[inline]
    pub fn advance(&self, n: i64) {
        self.inner.touch();
        self.meter.advance(n);
    }

    /// Sets how many units are done. The last value always arrives, those between may not. Takes a few nanoseconds.
    #[inline]
    pub fn set_progress(&self, done: i64) {
        self.inner.touch();
        self.meter.set_progress(done);
    }

    /// Units done by this part, as far as this process knows.
    #[must_use]
    pub fn progress(&self) -> i64 {
        self.meter.progress()
    }

    /// Yields the items, and counts each as done when the next is asked for. An item at which the loop is left does not
    /// count. If the job's size is not known yet and the iterator knows its length, that becomes the size; a part's
    /// length does not.
    pub fn track<I: IntoIterator>(&self, items: I) -> Tracked<I::IntoIter> {
        self.inner.touch();
        Tracked::new(items.into_iter(), Arc::clone(&self.meter))
    }

    /// The same for a [`Stream`].
    pub fn track_stream<S: Stream>(&self, items: S) -> TrackedStream<S> {
        self.inner.touch();
        TrackedStream::new(items, Arc::clone(&self.meter))
    }

    /// Adds to a named counter (`added`, `updated`, `skipped`): a job has at most 64 (a part drops further ones), with
    /// names of 1 to 128 characters.
    pub fn count(&self, counter: &str, n: i64) {
        self.inner.touch();
        self.meter.count(counter, n);
    }

    /// Reports a record that could not be processed: which (its first 256 characters), a code to group by (64), and why
    /// (1,024).
    ///
    /// Every error is counted. If more than 1,000 wait for the server, only the first and the last 500 keep their
    /// texts. The server keeps only the first and the last 100 of a job.
    pub fn record_error(&self, record: impl Display, code: impl Display, message: impl Display) {
        self.inner.touch();
        let record = Some(clean_text(record, 256)).filter(|record| !record.is_empty());
        self.meter.record_error(RecordError {
            record: record.unwrap_or_else(|| "?".to_owned()),
            code: clean_text(code, 64),
            message: clean_text(message, 1024),
        });
    }

    /// Merges into the job's variables anything that serializes to a JSON object: `json!({"file": name})`, a map, a
    /// struct. At most 256 variables, of 256 KiB in all. Sent with the next report. Anything else causes a warning, and
    /// changes nothing.
    pub fn set(&self, variables: impl Serialize) {
        self.merge(variables, false);
    }

    /// Merges variables and stores them together with the current progress, counters and record errors, or not at all.
    /// A worker that resumes the job after a crash reads them.
    pub fn checkpoint(&self, variables: impl Serialize) {
        self.merge(variables, true);
    }

    /// What the job is doing now, for people: its first 1,024 characters.
    pub fn set_message(&self, text: impl Display) {
        self.inner.touch();
        self.meter.set_message(clean_text(text, 1024));
    }

    /// The last text that this process has set.
    #[must_use]
    pub fn message(&self) -> String {
        self.meter.message().unwrap_or_default()
    }

    fn merge(&self, variables: impl Serialize, checkpoint: bool) {
        match json(variables) {
            Ok(Value::Object(entries)) => {
                self.inner.touch();
                self.meter.merge(to_fields(&entries), checkpoint);
                self.inner.know(entries);
            }
            Ok(_) => self.inner.complain("variables must be a JSON object"),
            Err(reason) => self.inner.complain(&format!("variables are no JSON: {reason}")),
        }
    }
}

impl fmt::Debug for Part {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter
            .debug_struct("Part")
            .field("job", &self.inner.job_state.id)
            .field("name", &self.meter.part)
            .field("progress", &self.progress())
            .finish()
    }
}

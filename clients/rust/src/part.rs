//! A part of a job: what a worker, thread or task that shares the job moves on its own.

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
    /// Its name; that of the job's own is empty.
    #[must_use]
    pub fn part_name(&self) -> &str {
        &self.meter.part
    }

    /// Counts `n` more units as done; negative to take some back. Safe from several threads; a few nanoseconds.
    #[inline]
    pub fn advance(&self, n: i64) {
        self.inner.touch();
        self.meter.advance(n);
    }

    /// So many units are done. The last value always arrives, those between may not. A few nanoseconds.
    #[inline]
    pub fn set_progress(&self, done: i64) {
        self.inner.touch();
        self.meter.set_progress(done);
    }

    /// Units done by this part, in this process's eyes.
    #[must_use]
    pub fn progress(&self) -> i64 {
        self.meter.progress()
    }

    /// Yields the items, and counts each as done when the next is asked for: one at which the loop is left is not counted.
    /// If the job's size is not known yet and the iterator knows its length, that becomes the size; a part's own is not the
    /// job's.
    pub fn track<I: IntoIterator>(&self, items: I) -> Tracked<I::IntoIter> {
        self.inner.touch();
        Tracked::new(items.into_iter(), Arc::clone(&self.meter))
    }

    /// The same for a [`Stream`].
    pub fn track_stream<S: Stream>(&self, items: S) -> TrackedStream<S> {
        self.inner.touch();
        TrackedStream::new(items, Arc::clone(&self.meter))
    }

    /// Adds to a named tally (`added`, `updated`, `skipped`): at most 64 a job (a part drops further ones), names of 1 to
    /// 128 characters.
    pub fn count(&self, counter: &str, n: i64) {
        self.inner.touch();
        self.meter.count(counter, n);
    }

    /// Notes a record that could not be worked on: which (its first 256 characters), a code to group by (64), and why
    /// (1,024).
    ///
    /// Each is counted. Of more than 1,000 that wait for the server the first and the last 500 keep their texts; it keeps
    /// but the first and the last 100 of a job itself.
    pub fn record_error(&self, record: impl Display, code: impl Display, message: impl Display) {
        self.inner.touch();
        let record = Some(clean_text(record, 256)).filter(|record| !record.is_empty());
        self.meter.record_error(RecordError {
            record: record.unwrap_or_else(|| "?".to_owned()),
            code: clean_text(code, 64),
            message: clean_text(message, 1024),
        });
    }

    /// Merges into the job's variables whatever serializes to a JSON object: `json!({"file": name})`, a map, a struct. At
    /// most 256 variables, of 256 KiB in all. Sent with the next report. Anything else is a warning, and changes nothing.
    pub fn set(&self, variables: impl Serialize) {
        self.merge(variables, false);
    }

    /// Merges variables that are stored together with the progress, counters and record errors of this moment, or not at
    /// all: what a worker needs that resumes the job after a crash.
    pub fn checkpoint(&self, variables: impl Serialize) {
        self.merge(variables, true);
    }

    /// What the job is doing now, for people: its first 1,024 characters.
    pub fn set_message(&self, text: impl Display) {
        self.inner.touch();
        self.meter.set_message(clean_text(text, 1024));
    }

    /// What it is doing now, as this process last said.
    #[must_use]
    pub fn message(&self) -> String {
        self.meter.message().unwrap_or_default()
    }

    fn merge(&self, variables: impl Serialize, cut: bool) {
        match json(variables) {
            Ok(Value::Object(entries)) => {
                self.inner.touch();
                self.meter.merge(to_fields(&entries), cut);
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
            .field("job", &self.inner.course.id)
            .field("name", &self.meter.part)
            .field("progress", &self.progress())
            .finish()
    }
}

//! The state of one part, as a worker moves it: progress, counters, record errors and variables.
//!
//! A meter knows nothing of the network. The engine samples it when a report is due, so an update costs as much as an
//! atomic instruction.

use std::collections::{BTreeMap, VecDeque};
use std::mem::take;
use std::sync::Mutex;
use std::sync::atomic::{AtomicI64, Ordering};

use prost::Message as _;
use prost_types::{Struct, Value};

use crate::promise::lock;
use crate::proto::headway::v1::RecordError;

/// The server would refuse more, and with them everything else in their report.
const MAX_COUNTERS: usize = 64;
const MAX_ERRORS_PER_REPORT: usize = 1000;
const MAX_ERRORS_AT_EACH_END: usize = 500;

/// What a meter has to report: current totals, and record errors and variables that were not taken before.
pub(crate) struct Sample {
    pub(crate) progress: i64,
    pub(crate) counters: BTreeMap<String, i64>,
    pub(crate) errors: Vec<RecordError>,
    pub(crate) variables: Option<Struct>,
    pub(crate) message: Option<String>,
    pub(crate) size: Option<i64>,
    /// True: something is left for a further sample.
    pub(crate) more: bool,
    /// True: record errors are left, which pile up if the next sample is delayed.
    pub(crate) pressing: bool,
}

/// One part of a job.
pub(crate) struct Meter {
    pub(crate) part: String,
    done: AtomicI64,
    rest: Mutex<Rest>,
}

#[derive(Default)]
struct Rest {
    counters: BTreeMap<String, i64>,
    errors: Backlog,
    errors_taken: usize,
    variables: Option<Struct>,
    checkpoint: Option<Checkpoint>,
    message: Option<String>,
    size: Option<i64>,
}

/// The state of a meter at the moment of a checkpoint.
struct Checkpoint {
    progress: i64,
    counters: BTreeMap<String, i64>,
    errors: usize,
}

impl Meter {
    pub(crate) fn new(part: &str, progress: i64) -> Self {
        Self { part: part.to_owned(), done: AtomicI64::new(progress), rest: Mutex::default() }
    }

    #[inline]
    pub(crate) fn advance(&self, n: i64) {
        self.done.fetch_add(n, Ordering::Relaxed);
    }

    #[inline]
    pub(crate) fn set_progress(&self, done: i64) {
        self.done.store(done, Ordering::Relaxed);
    }

    pub(crate) fn progress(&self) -> i64 {
        self.done.load(Ordering::Relaxed)
    }

    pub(crate) fn count(&self, counter: &str, n: i64) {
        let mut rest = lock(&self.rest);
        if let Some(total) = rest.counters.get_mut(counter) {
            *total = total.saturating_add(n);
        } else if rest.counters.len() < MAX_COUNTERS {
            rest.counters.insert(counter.to_owned(), n);
        }
    }

    pub(crate) fn record_error(&self, error: RecordError) {
        lock(&self.rest).errors.push(error);
    }

    pub(crate) fn set_message(&self, text: String) {
        lock(&self.rest).message = Some(text);
    }

    pub(crate) fn message(&self) -> Option<String> {
        lock(&self.rest).message.clone()
    }

    pub(crate) fn set_size(&self, units: i64) {
        lock(&self.rest).size = Some(units.max(0));
    }

    pub(crate) fn size(&self) -> Option<i64> {
        lock(&self.rest).size
    }

    /// Merges variables; with `checkpoint`, those of a checkpoint.
    pub(crate) fn merge(&self, fields: BTreeMap<String, Value>, checkpoint: bool) {
        let mut rest = lock(&self.rest);
        let variables = rest.variables.get_or_insert_with(Struct::default);
        variables.fields.extend(fields);
        if checkpoint {
            rest.checkpoint = Some(Checkpoint {
                progress: self.progress(),
                counters: rest.counters.clone(),
                errors: rest.errors_taken + rest.errors.len(),
            });
        }
    }

    /// For the engine: takes everything there is to report. The record errors have at most `room` bytes, plus one.
    pub(crate) fn sample(&self, room: usize) -> Sample {
        let mut rest = lock(&self.rest);
        let mut waiting = match &rest.checkpoint {
            Some(checkpoint) => checkpoint.errors - rest.errors_taken,
            None => rest.errors.len(),
        };
        let mut errors = Vec::new();
        let mut bytes = 0;
        while waiting > 0 && bytes < room && errors.len() < MAX_ERRORS_PER_REPORT {
            let Some(error) = rest.errors.pop() else {
                break;
            };
            bytes += error.encoded_len() + 4;
            errors.push(error);
            waiting -= 1;
        }
        rest.errors_taken += errors.len();
        let (progress, counters, more) = match &rest.checkpoint {
            Some(checkpoint) => (checkpoint.progress, checkpoint.counters.clone(), true),
            None => (self.progress(), rest.counters.clone(), waiting > 0),
        };
        let variables = if waiting == 0 {
            rest.checkpoint = None;
            take(&mut rest.variables)
        } else {
            None
        };
        Sample {
            progress: progress.max(0),
            counters,
            errors,
            variables,
            message: rest.message.clone(),
            size: rest.size,
            more,
            pressing: waiting > 0,
        }
    }
}

/// Holds record errors until they are sent. It counts all of them, and keeps the texts of the first and the last.
#[derive(Default)]
struct Backlog {
    first: VecDeque<RecordError>,
    nameless: usize,
    last: VecDeque<RecordError>,
}

impl Backlog {
    fn len(&self) -> usize {
        self.first.len() + self.nameless + self.last.len()
    }

    fn push(&mut self, error: RecordError) {
        if self.nameless == 0 && self.last.is_empty() && self.first.len() < MAX_ERRORS_AT_EACH_END {
            self.first.push_back(error);
            return;
        }
        self.last.push_back(error);
        if self.last.len() > MAX_ERRORS_AT_EACH_END {
            self.last.pop_front();
            self.nameless += 1;
        }
    }

    fn pop(&mut self) -> Option<RecordError> {
        if let Some(error) = self.first.pop_front() {
            return Some(error);
        }
        if self.nameless > 0 {
            self.nameless -= 1;
            return Some(RecordError { record: "?".to_owned(), ..RecordError::default() });
        }
        self.last.pop_front()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const ROOM: usize = 1 << 20;

    fn bad(record: usize) -> RecordError {
        RecordError { record: record.to_string(), ..RecordError::default() }
    }

    fn one(value: f64) -> BTreeMap<String, Value> {
        BTreeMap::from([("at".to_owned(), Value::from(value))])
    }

    #[test]
    fn a_checkpoint_holds_what_was_there_when_it_was_made() {
        let meter = Meter::new("", 0);
        meter.advance(5);
        meter.count("added", 5);
        meter.record_error(bad(1));
        meter.merge(one(5.0), true);
        meter.advance(2);
        meter.count("added", 2);
        meter.record_error(bad(2));

        let checkpoint = meter.sample(ROOM);
        assert_eq!((checkpoint.progress, checkpoint.counters["added"], checkpoint.errors.len()), (5, 5, 1));
        assert!(checkpoint.variables.is_some() && checkpoint.more);

        let rest = meter.sample(ROOM);
        assert_eq!((rest.progress, rest.counters["added"], rest.errors.len()), (7, 7, 1));
        assert!(rest.variables.is_none() && !rest.more);
    }

    #[test]
    fn of_many_record_errors_those_at_the_ends_keep_their_texts() {
        let meter = Meter::new("", 0);
        for record in 0..2500 {
            meter.record_error(bad(record));
        }
        let mut errors = Vec::new();
        loop {
            let sample = meter.sample(ROOM);
            assert!(sample.errors.len() <= 1000);
            errors.extend(sample.errors);
            if !sample.more {
                break;
            }
        }
        assert_eq!(errors.len(), 2500);
        assert_eq!(errors[499].record, "499");
        assert_eq!(errors[500].record, "?");
        assert_eq!(errors[1999].record, "?");
        assert_eq!(errors[2000].record, "2000");
    }

    #[test]
    fn variables_wait_for_the_record_errors_before_them() {
        let meter = Meter::new("", 0);
        for record in 0..600 {
            meter.record_error(bad(record));
        }
        meter.merge(one(1.0), true);
        let first = meter.sample(100);
        assert!(first.variables.is_none() && first.pressing && first.more);
        let last = meter.sample(ROOM);
        assert!(last.variables.is_some() && !last.pressing);
    }

    #[test]
    fn threads_lose_no_count() {
        let meter = Meter::new("", 0);
        std::thread::scope(|scope| {
            for _ in 0..4 {
                scope.spawn(|| (0..10_000).for_each(|_| meter.advance(1)));
            }
        });
        assert_eq!(meter.sample(ROOM).progress, 40_000);
    }
}

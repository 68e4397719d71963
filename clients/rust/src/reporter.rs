//! Knows what was reported of one meter and what was not: numbered reports make a retry count once.

use std::collections::{BTreeMap, VecDeque};
use std::sync::Arc;

use crate::error::{Error, FieldViolation};
use crate::ids::since_epoch;
use crate::meter::Meter;
use crate::proto::headway::v1::ReportProgressRequest;
use crate::proto::headway::v1::report_progress_request::Amount;
use crate::values::clean;

const MAX_ERROR_BYTES_PER_REPORT: usize = 1024 * 1024;

/// No clock gives a sequence from here on, and counting on from it could exceed 2⁶³. Such a sequence is ignored.
const MAX_USABLE_SEQUENCE: i64 = 1 << 62;

/// The fields that all reports of a job carry.
pub(crate) struct About<'a> {
    pub(crate) session: &'a str,
    pub(crate) job_id: &'a str,
    pub(crate) attempt: i32,
}

impl About<'_> {
    /// An empty report: a heartbeat.
    pub(crate) fn empty(&self) -> ReportProgressRequest {
        ReportProgressRequest {
            session_id: self.session.to_owned(),
            job_id: self.job_id.to_owned(),
            attempt: self.attempt,
            ..ReportProgressRequest::default()
        }
    }
}

/// Turns one meter's state into reports. A report stays the same, and is sent again, until it is settled.
pub(crate) struct Reporter {
    pub(crate) meter: Arc<Meter>,
    sequence: i64,
    progress: i64,
    size: i64,
    message: String,
    counters: BTreeMap<String, i64>,
    unsettled: VecDeque<ReportProgressRequest>,
    more: bool,
    pressing: bool,
}

impl Reporter {
    pub(crate) fn new(meter: Arc<Meter>, progress: i64, size: i64) -> Self {
        Self {
            meter,
            sequence: i64::try_from(since_epoch().as_micros()).unwrap_or(0),
            progress,
            size,
            message: String::new(),
            counters: BTreeMap::new(),
            unsettled: VecDeque::new(),
            more: false,
            pressing: false,
        }
    }

    /// The server has applied a report with the sequence `last`. Later reports must have higher numbers, even if an
    /// earlier process of the same attempt had a faster clock.
    pub(crate) fn number_above(&mut self, last: i64) {
        if last < MAX_USABLE_SEQUENCE {
            self.sequence = self.sequence.max(last);
        }
    }

    /// Whether a report is unsettled, or another must follow without waiting.
    pub(crate) fn busy(&self) -> bool {
        !self.unsettled.is_empty() || self.pressing
    }

    /// Whether a report is not settled yet.
    pub(crate) fn unsettled(&self) -> bool {
        !self.unsettled.is_empty()
    }

    /// The unsettled report, or a new one, or none if nothing has changed. Without `fresh` it makes a new report only
    /// to complete the one before.
    pub(crate) fn report(&mut self, about: &About<'_>, fresh: bool) -> Option<&ReportProgressRequest> {
        if self.unsettled.is_empty() && (fresh || self.more) {
            self.freeze(about);
        }
        self.unsettled.front()
    }

    /// Everything that this meter has left to report, exactly as it is sent if this process still sends it.
    pub(crate) fn drain(&mut self, about: &About<'_>, fresh: bool) -> Vec<ReportProgressRequest> {
        let mut more = !fresh || self.freeze(about);
        while more && self.more {
            more = self.freeze(about);
        }
        self.unsettled.iter().cloned().collect()
    }

    /// The server has applied the report.
    pub(crate) fn settle(&mut self) {
        self.unsettled.pop_front();
    }

    /// The server has refused the report. The rest of it goes out again without the invalid fields.
    pub(crate) fn refused(&mut self, error: &Error) {
        let lighter = self.unsettled.front_mut().is_some_and(|report| lighten(report, error.fields()));
        if !lighter {
            self.settle();
            return;
        }
        for report in &mut self.unsettled {
            self.sequence += 1;
            report.sequence = self.sequence;
        }
    }

    fn freeze(&mut self, about: &About<'_>) -> bool {
        let report = self.draft(about);
        let some = report.is_some();
        self.unsettled.extend(report);
        some
    }

    fn draft(&mut self, about: &About<'_>) -> Option<ReportProgressRequest> {
        let sample = self.meter.sample(MAX_ERROR_BYTES_PER_REPORT);
        self.more = sample.more;
        self.pressing = sample.pressing;
        let mut report = ReportProgressRequest { part: self.meter.part.clone(), ..about.empty() };
        let empty = report.clone();
        if sample.progress != self.progress {
            self.progress = sample.progress;
            report.amount = Some(Amount::Progress(sample.progress));
        }
        if let Some(size) = sample.size
            && size != self.size
        {
            self.size = size;
            report.size = Some(size);
        }
        if let Some(message) = sample.message
            && message != self.message
        {
            self.message.clone_from(&message);
            report.message = Some(message);
        }
        for (name, total) in &sample.counters {
            let delta = total.saturating_sub(self.counters.get(name).copied().unwrap_or(0));
            if delta != 0 {
                let name = Some(clean(name, 128)).filter(|name| !name.is_empty());
                let sum = report.counters.entry(name.unwrap_or_else(|| "?".to_owned())).or_default();
                *sum = sum.saturating_add(delta);
            }
        }
        self.counters = sample.counters;
        report.record_errors = sample.errors;
        report.variables = sample.variables;
        if report == empty {
            return None;
        }
        self.sequence += 1;
        report.sequence = self.sequence;
        Some(report)
    }
}

/// Removes from a report what the server refused, and returns whether there was such a thing. If the error names
/// counters or the progress (they can exceed a limit together with other reports), this removes those, else the
/// variables.
fn lighten(report: &mut ReportProgressRequest, faults: &[FieldViolation]) -> bool {
    let mut lighter = false;
    for fault in faults {
        let field = fault.field.as_str();
        if let Some(counter) = field.strip_prefix("counters[").and_then(|rest| rest.strip_suffix(']')) {
            lighter |= report.counters.remove(counter).is_some();
        } else if field == "counters" {
            lighter |= !std::mem::take(&mut report.counters).is_empty();
        } else if field == "progress" {
            lighter |= report.amount.take().is_some();
        }
    }
    lighter || report.variables.take().is_some()
}

#[cfg(test)]
mod tests {
    use prost_types::Value;
    use tonic::Code;

    use super::*;

    const ABOUT: About<'static> = About { session: "s", job_id: "j", attempt: 1 };

    fn reporter() -> Reporter {
        Reporter::new(Arc::new(Meter::new("", 0)), 0, 0)
    }

    #[test]
    fn a_report_stays_the_same_until_it_is_settled() {
        let mut reporter = reporter();
        reporter.meter.advance(3);
        reporter.meter.count("added", 3);
        let first = reporter.report(&ABOUT, true).cloned().unwrap();
        reporter.meter.advance(1);
        reporter.meter.count("added", 1);
        assert_eq!(reporter.report(&ABOUT, true), Some(&first));
        reporter.settle();
        let second = reporter.report(&ABOUT, true).cloned().unwrap();
        assert_eq!(second.amount, Some(Amount::Progress(4)));
        assert_eq!(second.counters["added"], 1);
        assert!(second.sequence > first.sequence);
        reporter.settle();
        assert_eq!(reporter.report(&ABOUT, true), None);
    }

    #[test]
    fn what_is_refused_goes_out_again_without_variables() {
        let mut reporter = reporter();
        reporter.meter.advance(3);
        reporter.meter.merge([("x".to_owned(), Value::from(1.0))].into(), false);
        let first = reporter.report(&ABOUT, true).cloned().unwrap();
        let error = Error::new(Code::InvalidArgument, "");
        reporter.refused(&error);
        let second = reporter.report(&ABOUT, true).cloned().unwrap();
        assert!(second.variables.is_none() && second.sequence > first.sequence);
        assert_eq!(second.amount, Some(Amount::Progress(3)));
        reporter.refused(&error);
        assert_eq!(reporter.report(&ABOUT, true), None);
    }

    #[test]
    fn what_is_refused_loses_only_what_is_at_fault() {
        let mut report = ReportProgressRequest {
            amount: Some(Amount::Progress(1)),
            counters: [("a".to_owned(), 1), ("b".to_owned(), 1)].into(),
            variables: Some(prost_types::Struct::default()),
            ..ReportProgressRequest::default()
        };
        let mut refused = |field: &str| {
            let lighter = lighten(&mut report, &[FieldViolation { field: field.into(), description: String::new() }]);
            (lighter, report.counters.len(), report.amount.is_some(), report.variables.is_some())
        };
        assert_eq!(refused("counters[a]"), (true, 1, true, true));
        assert_eq!(refused("counters"), (true, 0, true, true));
        assert_eq!(refused("progress"), (true, 0, false, true));
        assert_eq!(refused("counters"), (true, 0, false, false));
        assert_eq!(refused("part"), (false, 0, false, false));
    }

    #[test]
    fn what_is_drained_is_what_would_be_sent() {
        let mut reporter = reporter();
        reporter.meter.advance(1);
        let sent = reporter.report(&ABOUT, true).cloned().unwrap();
        reporter.meter.advance(1);
        let left = reporter.drain(&ABOUT, true);
        assert_eq!(left.len(), 2);
        assert_eq!(left[0], sent);
        assert_eq!(reporter.drain(&ABOUT, true), left);
    }

    #[test]
    fn sequences_go_on_above_those_of_a_later_clock() {
        let mut reporter = reporter();
        for last in [4_071_006_245_678_901, 0, i64::MAX] {
            reporter.number_above(last);
        }
        reporter.meter.advance(1);
        let report = reporter.report(&ABOUT, true).unwrap();
        assert_eq!(report.sequence, 4_071_006_245_678_902);
    }
}

//! One request of the stream: the reports of many jobs, and whose they are.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use prost::Message as _;

use crate::contact::Moment;
use crate::course::Course;
use crate::error::Error;
use crate::proto::headway::v1::StreamProgressRequest;

/// What the server takes in one message, less room for its frame.
pub(crate) const MESSAGE_BYTES: usize = 4 * 1024 * 1024 - 64 * 1024;

const REPORTS: usize = 1000;
const BYTES: usize = 2 * 1024 * 1024;

/// Whose report it is: one of the course's reporters, or none for a heartbeat.
pub(crate) type Sender = (Arc<Course>, Option<usize>);

/// Filled with what is due, as far as it has room; what has none is due still.
#[derive(Default)]
pub(crate) struct Batch {
    pub(crate) request: StreamProgressRequest,
    pub(crate) senders: Vec<Sender>,
    /// Position in `senders` → why that report was refused.
    pub(crate) failures: BTreeMap<usize, Error>,
    /// Reports that fit in no request.
    pub(crate) oversized: Vec<Sender>,
    bytes: usize,
}

impl Batch {
    pub(crate) fn fill(&mut self, mut courses: Vec<Arc<Course>>, now: Moment, pace: Duration) {
        courses.sort_by_key(|course| course.state().due);
        for course in courses {
            let reports = course.reports(now);
            let turn = now + course.state().turn(pace);
            for (reporter, report) in reports {
                let bytes = report.encoded_len();
                if bytes > MESSAGE_BYTES {
                    self.oversized.push((Arc::clone(&course), reporter));
                } else {
                    self.bytes += bytes;
                    let full = self.bytes > BYTES || self.senders.len() == REPORTS;
                    if full && !self.senders.is_empty() {
                        return;
                    }
                    self.request.reports.push(report);
                    self.senders.push((Arc::clone(&course), reporter));
                }
                course.state().beat_at = turn;
            }
            course.state().due = turn;
        }
    }
}

//! One request of the stream: the reports of many jobs, and their senders.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use prost::Message as _;

use crate::connection_state::Moment;
use crate::error::Error;
use crate::job_state::JobState;
use crate::proto::headway::v1::StreamProgressRequest;

/// What the server accepts in one message, less room for its frame.
pub(crate) const MAX_MESSAGE_BYTES: usize = 4 * 1024 * 1024 - 64 * 1024;

const MAX_BATCH_REPORTS: usize = 1000;
const MAX_BATCH_BYTES: usize = 2 * 1024 * 1024;

/// The sender of a report: one of the job's reporters, or none for a heartbeat.
pub(crate) type Sender = (Arc<JobState>, Option<usize>);

/// Filled with the reports that are due, as far as there is room. The rest stays due.
#[derive(Default)]
pub(crate) struct Batch {
    pub(crate) request: StreamProgressRequest,
    pub(crate) senders: Vec<Sender>,
    /// Position in `senders` → the error of that report.
    pub(crate) failures: BTreeMap<usize, Error>,
    /// Reports that fit in no request.
    pub(crate) oversized: Vec<Sender>,
    bytes: usize,
}

impl Batch {
    pub(crate) fn fill(&mut self, mut jobs: Vec<Arc<JobState>>, now: Moment, pace: Duration) {
        jobs.sort_by_key(|job_state| job_state.state().due);
        for job_state in jobs {
            let reports = job_state.reports(now);
            let turn = now + job_state.state().turn(pace);
            for (reporter, report) in reports {
                let bytes = report.encoded_len();
                if bytes > MAX_MESSAGE_BYTES {
                    self.oversized.push((Arc::clone(&job_state), reporter));
                } else {
                    self.bytes += bytes;
                    let full = self.bytes > MAX_BATCH_BYTES || self.senders.len() == MAX_BATCH_REPORTS;
                    if full && !self.senders.is_empty() {
                        return;
                    }
                    self.request.reports.push(report);
                    self.senders.push((Arc::clone(&job_state), reporter));
                }
                job_state.state().beat_at = turn;
            }
            job_state.state().due = turn;
        }
    }
}

//! The engine's record of one job: what it still has to send to the server, in order.

use std::collections::VecDeque;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::Duration;

use crate::connection_state::{AT_ONCE, Moment};
use crate::error::{Cancellation, Error};
use crate::meter::Meter;
use crate::pending_call::{PendingCall, Request};
use crate::promise::{Promise, lock};
use crate::proto::headway::v1::{self, Job, JobStatus, ReportProgressRequest};
use crate::reporter::{About, Reporter};
use crate::spool::SpoolFile;
use crate::values::{from_duration, from_timestamp};

/// The shortest time from one report of a job to the next.
pub(crate) const MIN_REPORT_INTERVAL: Duration = Duration::from_millis(10);

/// How often a job sends a heartbeat.
#[derive(Clone, Copy)]
pub(crate) enum Heartbeat {
    /// Often enough for this timeout; zero: at the server's pace.
    Within(Duration),
    /// Never: another worker has the job.
    Never,
}

/// The engine's record of one job. Threads of the worker read it and add parts; everything else belongs to the engine.
pub(crate) struct JobState {
    pub(crate) session: String,
    pub(crate) id: String,
    /// Set after a cancellation request.
    pub(crate) cancellation: Arc<Promise<Cancellation>>,
    /// Set, with the error, if the server accepts no more of it.
    pub(crate) stop: Arc<Promise<Error>>,
    /// Whether one of these two is set.
    unwanted: AtomicBool,
    state: Mutex<State>,
}

#[expect(clippy::struct_excessive_bools, reason = "each is a fact of its own")]
pub(crate) struct State {
    /// The job as the server last described it, or as the worker did before that.
    pub(crate) job: Job,
    /// The attempt of this worker.
    pub(crate) attempt: i32,
    pub(crate) heartbeat: Heartbeat,
    /// Whether reports may be sent: not before the job is created, or while it is PENDING.
    started: bool,
    /// Nothing more is sent for this job.
    pub(crate) over: bool,
    /// Whether a wait for delivery has ended without it.
    pub(crate) given_up: bool,
    /// The spool file of what is left, until that is delivered from here after all.
    pub(crate) file: Option<SpoolFile>,
    pub(crate) calling: bool,
    /// Whether the engine has charge of it.
    pub(crate) taken: bool,
    /// When the engine next looks for something to report.
    pub(crate) due: Moment,
    /// When to send a heartbeat if there is nothing to report.
    pub(crate) beat_at: Moment,
    pub(crate) retry_at: Moment,
    pub(crate) reporters: Vec<Reporter>,
    pub(crate) pending_calls: VecDeque<PendingCall>,
}

impl JobState {
    pub(crate) fn new(session: String, job: Job, meter: Arc<Meter>, heartbeat: Heartbeat, started: bool) -> Arc<Self> {
        let progress = meter.progress();
        let job_state = Self {
            session,
            id: job.id.clone(),
            cancellation: Promise::new(),
            stop: Promise::new(),
            unwanted: AtomicBool::new(false),
            state: Mutex::new(State {
                attempt: job.attempt,
                heartbeat,
                started,
                over: false,
                given_up: false,
                file: None,
                calling: false,
                taken: false,
                due: AT_ONCE,
                beat_at: AT_ONCE,
                retry_at: AT_ONCE,
                reporters: vec![Reporter::new(meter, progress, job.size)],
                pending_calls: VecDeque::new(),
                job,
            }),
        };
        if let Some(cancellation) = job_state.state().job.cancellation.clone() {
            job_state.cancel(&cancellation);
        }
        Arc::new(job_state)
    }

    pub(crate) fn state(&self) -> MutexGuard<'_, State> {
        lock(&self.state)
    }

    pub(crate) fn unwanted(&self) -> bool {
        self.unwanted.load(Ordering::Acquire)
    }

    /// The meter of a part; the same one for the same name.
    pub(crate) fn add_part(&self, name: &str) -> Arc<Meter> {
        let mut state = self.state();
        if let Some(reporter) = state.reporters.iter().find(|reporter| reporter.meter.part == name) {
            return Arc::clone(&reporter.meter);
        }
        let progress = state.job.parts.get(name).copied().unwrap_or(0);
        let meter = Arc::new(Meter::new(name, progress));
        state.reporters.push(Reporter::new(Arc::clone(&meter), progress, 0));
        meter
    }

    pub(crate) fn add_call(&self, pending: PendingCall) {
        let mut state = self.state();
        if !state.over {
            // Of the changes that are not sent yet only the last one counts.
            let free = state.pending_calls.len() > usize::from(state.calling);
            let same = free && state.pending_calls.back().is_some_and(|last| last.same_change(&pending));
            let former = if same { state.pending_calls.pop_back() } else { None };
            state.pending_calls.push_back(pending);
            state.due = AT_ONCE;
            drop(state);
            if let Some(former) = former {
                former.answers.settle(Ok(None));
            }
            return;
        }
        drop(state);
        pending.answers.settle(self.stop.get().map_or(Ok(None), Err));
    }

    fn about(&self, attempt: i32) -> About<'_> {
        About { session: &self.session, job_id: &self.id, attempt }
    }

    /// The reports to send now, with their reporters. If there are none: a heartbeat, or the call that waited for them
    /// goes ahead.
    pub(crate) fn reports(&self, now: Moment) -> Vec<(Option<usize>, ReportProgressRequest)> {
        let mut state = self.state();
        let state = &mut *state;
        let about = self.about(state.attempt);
        let fresh = state.pending_calls.front().is_none_or(|pending| !pending.sampled);
        let (mut complete, mut reports) = (true, Vec::new());
        if state.started {
            for (index, reporter) in state.reporters.iter_mut().enumerate() {
                complete = complete && !reporter.unsettled();
                reporter.number_above(state.job.last_sequence);
                if let Some(report) = reporter.report(&about, fresh) {
                    reports.push((Some(index), report.clone()));
                }
            }
        }
        if let Some(pending) = state.pending_calls.front_mut() {
            // Other threads may still count. A call waits only for what was there when it was queued.
            pending.sampled = pending.sampled || complete;
            pending.after_reports = pending.after_reports && !reports.is_empty();
        } else if reports.is_empty() && !matches!(state.heartbeat, Heartbeat::Never) && now >= state.beat_at {
            reports.push((None, about.empty()));
        }
        reports
    }

    /// All calls that are left to make, in order.
    pub(crate) fn undelivered(&self) -> Vec<Request> {
        let mut state = self.state();
        let state = &mut *state;
        let mut left = Vec::new();
        for reporter in &mut state.reporters {
            reporter.number_above(state.job.last_sequence);
        }
        // A job whose creation is unanswered begins with its first attempt.
        let (mut started, mut attempt) = (state.started, state.attempt.max(1));
        for pending in &state.pending_calls {
            let Some(request) = &pending.request else {
                continue;
            };
            match request {
                Request::Create(request) => started = !request.pending,
                Request::Start(_) => {
                    // Only the server knows which attempt that will be: 0 is not checked.
                    (started, attempt) = (true, 0);
                }
                _ => {}
            }
            if request.ends() {
                if started && pending.after_reports {
                    left.extend(drain(&mut state.reporters, &self.about(attempt), !pending.sampled));
                }
                let mut request = request.clone();
                request.set_attempt(attempt);
                left.push(request);
                return left;
            }
            left.push(request.clone());
        }
        if started {
            // Also reports after the point that somebody waits for.
            left.extend(drain(&mut state.reporters, &self.about(attempt), true));
        }
        left
    }

    /// The first pending call is done.
    pub(crate) fn answered(&self, job: Option<Job>) {
        let mut state = self.state();
        let Some(pending) = state.pending_calls.pop_front() else {
            return;
        };
        state.retry_at = AT_ONCE;
        if let Some(job) = &job {
            state.started = job.status() != JobStatus::Pending;
            match pending.request {
                // The creator of a job is its first worker, even if another worker took the job over before the answer
                // came.
                Some(Request::Create(_)) => state.attempt = 1,
                Some(Request::Start(_)) => state.attempt = job.attempt,
                _ => {}
            }
            let mut known = job.clone();
            // The server does not know yet what the worker has changed meanwhile.
            state
                .pending_calls
                .iter()
                .filter_map(|pending| pending.request.as_ref())
                .for_each(|request| request.apply(&mut known));
            state.learn(known);
        }
        let cancellation = job.as_ref().and_then(|job| job.cancellation.clone());
        let ended = pending.release || pending.request.as_ref().is_some_and(Request::ends);
        drop(state);
        if let Some(cancellation) = cancellation {
            self.cancel(&cancellation);
        }
        if ended {
            self.end(None);
        }
        pending.answers.settle(Ok(job));
    }

    /// Takes over the server's description of the job.
    pub(crate) fn learn(&self, job: Job) {
        let cancellation = job.cancellation.clone();
        self.state().learn(job);
        if let Some(cancellation) = cancellation {
            self.cancel(&cancellation);
        }
    }

    /// The server reports that the job is to end early.
    pub(crate) fn cancel(&self, cancellation: &v1::Cancellation) {
        if cancellation.requested {
            self.unwanted.store(true, Ordering::Release);
            self.cancellation.set(Cancellation {
                reason: cancellation.reason.clone(),
                deadline: cancellation.deadline.and_then(from_timestamp),
            });
        }
    }

    /// Nothing more is sent for this job. `error` is the reason, unless it has simply ended.
    pub(crate) fn end(&self, error: Option<&Error>) {
        let pending_calls = {
            let mut state = self.state();
            state.over = true;
            std::mem::take(&mut state.pending_calls)
        };
        if let Some(error) = error {
            self.unwanted.store(true, Ordering::Release);
            self.stop.set(error.clone());
        }
        for pending in pending_calls {
            pending.answers.settle(error.cloned().map_or(Ok(None), Err));
        }
    }

    /// The server is known to be unreachable.
    pub(crate) fn give_up_waiting(&self) {
        let answers: Vec<_> = self.state().pending_calls.iter().map(|pending| pending.answers.clone()).collect();
        for answer in answers {
            answer.tried.set(());
        }
    }
}

impl State {
    /// Takes over the server's description of the job, unless a newer one is known.
    fn learn(&mut self, mut job: Job) {
        if job.revision < self.job.revision {
            return;
        }
        // The stream reports a cancellation request without a revision, and so possibly before this answer.
        let cancellation = self.job.cancellation.take().filter(|cancellation| cancellation.requested);
        job.cancellation = job.cancellation.filter(|cancellation| cancellation.requested).or(cancellation);
        self.job = job;
    }

    /// Whether reports are next, or the call that waits for them.
    pub(crate) fn reporting(&self) -> bool {
        !self.over && self.pending_calls.front().map_or(self.started, |pending| pending.after_reports)
    }

    /// Whether a call is next.
    pub(crate) fn wants_call(&self) -> bool {
        !self.over && !self.calling && self.pending_calls.front().is_some_and(|pending| !pending.after_reports)
    }

    /// Whether to send more without waiting for the next report interval.
    pub(crate) fn urgent(&self) -> bool {
        !self.pending_calls.is_empty() || self.reporters.iter().any(Reporter::busy)
    }

    /// How long until its next report, at the server's pace.
    pub(crate) fn turn(&self, pace: Duration) -> Duration {
        match self.heartbeat {
            // Never without a delay, however short the timeout is.
            Heartbeat::Within(timeout) if !timeout.is_zero() => pace.min((timeout / 3).max(MIN_REPORT_INTERVAL)),
            _ => pace,
        }
    }
}

fn drain(reporters: &mut [Reporter], about: &About<'_>, fresh: bool) -> Vec<Request> {
    let drained = reporters.iter_mut().flat_map(|reporter| reporter.drain(about, fresh));
    drained.map(Request::Report).collect()
}

/// The heartbeat that a job was created with.
pub(crate) fn heartbeat(timeout: Option<&prost_types::Duration>) -> Heartbeat {
    Heartbeat::Within(timeout.map(from_duration).unwrap_or_default())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_heartbeat_is_without_a_pause() {
        let meter = Arc::new(Meter::new("", 0));
        let beat = Heartbeat::Within(Duration::from_nanos(1));
        let job_state = JobState::new("s".to_owned(), Job::default(), meter, beat, true);
        assert_eq!(job_state.state().turn(Duration::from_secs(1)), MIN_REPORT_INTERVAL);
    }
}

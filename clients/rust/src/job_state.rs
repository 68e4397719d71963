//! The engine's record of one job: what it still has to tell the server, in order.

use std::collections::VecDeque;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::Duration;

use crate::contact::{AT_ONCE, Moment};
use crate::error::{Cancellation, Error};
use crate::meter::Meter;
use crate::promise::{Promise, lock};
use crate::proto::headway::v1::{self, Job, JobStatus, ReportProgressRequest};
use crate::report::{About, Reporter};
use crate::spool::Letter;
use crate::step::{Request, Step};
use crate::values::{from_duration, from_timestamp};

/// How long it is at least from one report of a job to the next.
pub(crate) const FASTEST: Duration = Duration::from_millis(10);

/// How often a job gives a sign of life.
#[derive(Clone, Copy)]
pub(crate) enum Heartbeat {
    /// Often enough for this timeout; zero: at the server's pace.
    Within(Duration),
    /// Never: somebody else works on it.
    Never,
}

/// One job on its way. Threads of the worker look at it and add parts; all else is the engine's.
pub(crate) struct Course {
    pub(crate) session: String,
    pub(crate) id: String,
    /// Set once somebody wants it to end early.
    pub(crate) wish: Arc<Promise<Cancellation>>,
    /// Set once the server wants no more of it, with why.
    pub(crate) stop: Arc<Promise<Error>>,
    /// Whether one of these two is set.
    unwanted: AtomicBool,
    state: Mutex<State>,
}

#[expect(clippy::struct_excessive_bools, reason = "each is a fact of its own")]
pub(crate) struct State {
    /// The job as the server last described it; before it did, as the worker did.
    pub(crate) job: Job,
    /// Which worker this is.
    pub(crate) attempt: i32,
    pub(crate) heartbeat: Heartbeat,
    /// Whether reports may flow: not before the job is created, or while it is PENDING.
    started: bool,
    /// Nothing more is sent for this job.
    pub(crate) over: bool,
    /// Whether somebody has waited in vain for the last of it to be delivered.
    pub(crate) given_up: bool,
    /// Where that is written down for a later process, until it is delivered from here after all.
    pub(crate) letter: Option<Letter>,
    pub(crate) calling: bool,
    /// Whether the engine has it.
    pub(crate) taken: bool,
    /// When to look for something to report.
    pub(crate) due: Moment,
    /// When to give a heartbeat if there is nothing to report.
    pub(crate) beat_at: Moment,
    pub(crate) retry_at: Moment,
    pub(crate) reporters: Vec<Reporter>,
    pub(crate) steps: VecDeque<Step>,
}

impl Course {
    pub(crate) fn new(session: String, job: Job, meter: Arc<Meter>, heartbeat: Heartbeat, started: bool) -> Arc<Self> {
        let progress = meter.progress();
        let course = Self {
            session,
            id: job.id.clone(),
            wish: Promise::new(),
            stop: Promise::new(),
            unwanted: AtomicBool::new(false),
            state: Mutex::new(State {
                attempt: job.attempt,
                heartbeat,
                started,
                over: false,
                given_up: false,
                letter: None,
                calling: false,
                taken: false,
                due: AT_ONCE,
                beat_at: AT_ONCE,
                retry_at: AT_ONCE,
                reporters: vec![Reporter::new(meter, progress, job.size)],
                steps: VecDeque::new(),
                job,
            }),
        };
        if let Some(wish) = course.state().job.cancellation.clone() {
            course.cancel(&wish);
        }
        Arc::new(course)
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

    pub(crate) fn add_step(&self, step: Step) {
        let mut state = self.state();
        if !state.over {
            // Of changes that nobody has sent yet the last one counts, however many there are.
            let free = state.steps.len() > usize::from(state.calling);
            let same = free && state.steps.back().is_some_and(|last| last.same_change(&step));
            let former = if same { state.steps.pop_back() } else { None };
            state.steps.push_back(step);
            state.due = AT_ONCE;
            drop(state);
            if let Some(former) = former {
                former.answers.settle(Ok(None));
            }
            return;
        }
        drop(state);
        step.answers.settle(self.stop.get().map_or(Ok(None), Err));
    }

    fn about(&self, attempt: i32) -> About<'_> {
        About { session: &self.session, job_id: &self.id, attempt }
    }

    /// The reports to send now, and whose they are; if there are none, a heartbeat, or the turn of the step that waited
    /// for them.
    pub(crate) fn reports(&self, now: Moment) -> Vec<(Option<usize>, ReportProgressRequest)> {
        let mut state = self.state();
        let state = &mut *state;
        let about = self.about(state.attempt);
        let fresh = state.steps.front().is_none_or(|step| !step.sampled);
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
        if let Some(step) = state.steps.front_mut() {
            // Other threads may still count: a step waits for what was there when it came, and not for ever.
            step.sampled = step.sampled || complete;
            step.after_reports = step.after_reports && !reports.is_empty();
        } else if reports.is_empty() && !matches!(state.heartbeat, Heartbeat::Never) && now >= state.beat_at {
            reports.push((None, about.empty()));
        }
        reports
    }

    /// All calls that are left to make, in order.
    pub(crate) fn remains(&self) -> Vec<Request> {
        let mut state = self.state();
        let state = &mut *state;
        let mut left = Vec::new();
        for reporter in &mut state.reporters {
            reporter.number_above(state.job.last_sequence);
        }
        // A job that nobody has answered for yet begins with its first attempt.
        let (mut started, mut attempt) = (state.started, state.attempt.max(1));
        for step in &state.steps {
            let Some(request) = &step.request else {
                continue;
            };
            match request {
                Request::Create(request) => started = !request.pending,
                Request::Start(_) => {
                    // Which attempt that will be, only the server can tell: 0 is not checked.
                    (started, attempt) = (true, 0);
                }
                _ => {}
            }
            if request.ends() {
                if started && step.after_reports {
                    left.extend(drain(&mut state.reporters, &self.about(attempt), !step.sampled));
                }
                let mut request = request.clone();
                request.set_attempt(attempt);
                left.push(request);
                return left;
            }
            left.push(request.clone());
        }
        if started {
            // Also what was said after somebody began to wait for what there was before.
            left.extend(drain(&mut state.reporters, &self.about(attempt), true));
        }
        left
    }

    /// The step in front is done.
    pub(crate) fn answered(&self, job: Option<Job>) {
        let mut state = self.state();
        let Some(step) = state.steps.pop_front() else {
            return;
        };
        state.retry_at = AT_ONCE;
        if let Some(job) = &job {
            state.started = job.status() != JobStatus::Pending;
            match step.request {
                // Who creates a job is its first worker, whoever has taken it over before the answer came.
                Some(Request::Create(_)) => state.attempt = 1,
                Some(Request::Start(_)) => state.attempt = job.attempt,
                _ => {}
            }
            let mut known = job.clone();
            // What the worker has set meanwhile, the server does not know yet.
            state.steps.iter().filter_map(|step| step.request.as_ref()).for_each(|request| request.apply(&mut known));
            state.learn(known);
        }
        let wish = job.as_ref().and_then(|job| job.cancellation.clone());
        let ended = step.release || step.request.as_ref().is_some_and(Request::ends);
        drop(state);
        if let Some(wish) = wish {
            self.cancel(&wish);
        }
        if ended {
            self.end(None);
        }
        step.answers.settle(Ok(job));
    }

    /// Takes what the server says of the job.
    pub(crate) fn learn(&self, job: Job) {
        let wish = job.cancellation.clone();
        self.state().learn(job);
        if let Some(wish) = wish {
            self.cancel(&wish);
        }
    }

    /// The server says that the job shall end early.
    pub(crate) fn cancel(&self, wish: &v1::Cancellation) {
        if wish.requested {
            self.unwanted.store(true, Ordering::Release);
            self.wish
                .set(Cancellation { reason: wish.reason.clone(), deadline: wish.deadline.and_then(from_timestamp) });
        }
    }

    /// Nothing more is sent for this job; `error` says why, if it has not simply ended.
    pub(crate) fn end(&self, error: Option<&Error>) {
        let steps = {
            let mut state = self.state();
            state.over = true;
            std::mem::take(&mut state.steps)
        };
        if let Some(error) = error {
            self.unwanted.store(true, Ordering::Release);
            self.stop.set(error.clone());
        }
        for step in steps {
            step.answers.settle(error.cloned().map_or(Ok(None), Err));
        }
    }

    /// It is known that the server does not answer now.
    pub(crate) fn give_up_waiting(&self) {
        let answers: Vec<_> = self.state().steps.iter().map(|step| step.answers.clone()).collect();
        for answer in answers {
            answer.tried.set(());
        }
    }
}

impl State {
    /// Takes what the server says of the job, unless something newer is known.
    fn learn(&mut self, mut job: Job) {
        if job.revision < self.job.revision {
            return;
        }
        // The stream tells of a wish without a revision, and so maybe before this.
        let wish = self.job.cancellation.take().filter(|wish| wish.requested);
        job.cancellation = job.cancellation.filter(|wish| wish.requested).or(wish);
        self.job = job;
    }

    /// Whether it is the turn of reports, or of the step that waits for them.
    pub(crate) fn reporting(&self) -> bool {
        !self.over && self.steps.front().map_or(self.started, |step| step.after_reports)
    }

    /// Whether it is the turn of a call.
    pub(crate) fn wants_call(&self) -> bool {
        !self.over && !self.calling && self.steps.front().is_some_and(|step| !step.after_reports)
    }

    /// Whether more should go out without waiting for the next turn.
    pub(crate) fn urgent(&self) -> bool {
        !self.steps.is_empty() || self.reporters.iter().any(Reporter::busy)
    }

    /// How long until its next turn, at the server's pace.
    pub(crate) fn turn(&self, pace: Duration) -> Duration {
        match self.heartbeat {
            // Never without a pause, however short the timeout is.
            Heartbeat::Within(timeout) if !timeout.is_zero() => pace.min((timeout / 3).max(FASTEST)),
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
        let course = Course::new("s".to_owned(), Job::default(), meter, beat, true);
        assert_eq!(course.state().turn(Duration::from_secs(1)), FASTEST);
    }
}

//! What the engine's thread does.

use std::collections::HashMap;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::mpsc::UnboundedReceiver;
use tokio::task::AbortHandle;
use tonic::Code;

use super::answers::{declined, refused, retry_later, stop};
use super::{Engine, Note};
use crate::batch::{Batch, MAX_MESSAGE_BYTES};
use crate::calls::{ANSWER_TIMEOUT, place};
use crate::connection_state::{AT_ONCE, ConnectionState, Moment, now};
use crate::error::Error;
use crate::error_policy::{ErrorPolicy, denies_access, policy_for, too_large};
use crate::job_state::{JobState, MIN_REPORT_INTERVAL};
use crate::pending_call::Request;
use crate::promise::lock;
use crate::proto::headway::v1::{Job, StreamProgressResponse};
use crate::report_stream::{Arrival, ReportStream};
use crate::spool_sender;
use crate::target::Stub;
use crate::values::from_duration;

const MAX_CALLS_IN_FLIGHT: usize = 16;
const DEFAULT_REPORT_INTERVAL: Duration = Duration::from_millis(250);
const MAX_REPORT_INTERVAL: Duration = Duration::from_secs(30);

/// Runs until it is told to quit.
pub(super) async fn run(engine: Engine, mut inbox: UnboundedReceiver<Note>) {
    let mut job_state = Loop {
        connection_state: ConnectionState::new(&engine.target.address),
        engine,
        stub: None,
        streams: 0,
        stream: None,
        batch: None,
        ack_by: AT_ONCE,
        calls: HashMap::new(),
        called: 0,
        report_interval: DEFAULT_REPORT_INTERVAL,
        looked: false,
    };
    loop {
        let idle = job_state.idle_for();
        tokio::select! {
            note = inbox.recv() => match note {
                Some(Note::Quit) | None => break,
                Some(note) => job_state.guarded(|job_state| job_state.heed(note)),
            },
            () = tokio::time::sleep(idle) => {}
        }
        loop {
            match inbox.try_recv() {
                Ok(Note::Quit) => return job_state.quit(),
                Ok(note) => job_state.guarded(|job_state| job_state.heed(note)),
                Err(_) => break,
            }
        }
        job_state.guarded(|job_state| job_state.pump(now()));
    }
    job_state.quit();
}

struct Loop {
    engine: Engine,
    stub: Option<Stub>,
    streams: u64,
    stream: Option<ReportStream>,
    /// Sent, and not acknowledged yet.
    batch: Option<Batch>,
    ack_by: Moment,
    calls: HashMap<u64, (Arc<JobState>, AbortHandle)>,
    called: u64,
    report_interval: Duration,
    connection_state: ConnectionState,
    /// Whether the spool of earlier processes was checked for this server.
    looked: bool,
}

impl Loop {
    /// A fault of the client stops nothing. It counts as an outage, so that it is not repeated at once.
    fn guarded(&mut self, action: impl FnOnce(&mut Self)) {
        if catch_unwind(AssertUnwindSafe(|| action(self))).is_err() {
            self.outage(&Error::new(Code::Unknown, "a fault of the client's own"));
        }
    }

    fn heed(&mut self, note: Note) {
        match note {
            Note::Submitted(job_state) => {
                if self.connection_state.down {
                    job_state.give_up_waiting();
                }
                let mut state = job_state.state();
                if state.beat_at == AT_ONCE {
                    state.beat_at = now() + state.turn(self.report_interval);
                }
            }
            Note::AddWaiting => self.connection_state.add_waiting(now()),
            Note::RemoveWaiting => self.connection_state.remove_waiting(),
            Note::Arrived(number, arrival) => {
                if self.stream.as_ref().is_some_and(|stream| stream.number == number) {
                    match arrival {
                        Arrival::Response(response) => self.arrived(&response),
                        Arrival::End(error) => self.broken(error),
                    }
                }
            }
            Note::Called(number, answer) => {
                if let Some((job_state, _)) = self.calls.remove(&number) {
                    job_state.state().calling = false;
                    self.answer(&job_state, answer);
                }
            }
            Note::Look => spool_sender::collect(&self.engine.target),
            Note::Quit => {}
        }
    }

    fn idle_for(&self) -> Duration {
        let now = now();
        let long = Duration::from_secs(3600);
        if self.connection_state.retry_at > now {
            return self.connection_state.retry_at.saturating_sub(now);
        }
        let mut next = self.batch.as_ref().map_or(now + long, |_| self.ack_by);
        for job_state in lock(&self.engine.jobs).iter() {
            let state = job_state.state();
            if self.batch.is_none() && state.reporting() {
                next = next.min(state.due.max(state.retry_at));
            }
            if self.calls.len() < MAX_CALLS_IN_FLIGHT && state.wants_call() {
                next = next.min(state.retry_at);
            }
        }
        next.saturating_sub(now)
    }

    fn pump(&mut self, now: Moment) {
        if self.batch.is_some() && now >= self.ack_by {
            self.outage(&Error::no_answer());
        }
        self.forget_those_over();
        if now < self.connection_state.retry_at {
            return;
        }
        let jobs = self.engine.jobs();
        if self.batch.is_none() {
            self.report(&jobs, now);
        }
        for job_state in jobs {
            if self.calls.len() >= MAX_CALLS_IN_FLIGHT {
                break;
            }
            let turn = {
                let state = job_state.state();
                state.wants_call() && state.retry_at <= now
            };
            if turn {
                self.call(&job_state);
            }
        }
    }

    fn forget_those_over(&self) {
        lock(&self.engine.jobs).retain(|job_state| {
            let mut state = job_state.state();
            if state.over
                && let Some(file) = state.file.take()
            {
                if job_state.stop.is_set() {
                    file.refuse();
                } else {
                    file.remove();
                }
            }
            !state.over
        });
    }

    fn stub(&mut self) -> Stub {
        self.stub.get_or_insert_with(|| self.engine.target.open()).clone()
    }

    fn report(&mut self, jobs: &[Arc<JobState>], now: Moment) {
        let due = jobs.iter().filter(|job_state| {
            let state = job_state.state();
            state.reporting() && state.due <= now && state.retry_at <= now
        });
        let mut batch = Batch::default();
        batch.fill(due.cloned().collect(), now, self.report_interval);
        for (job_state, reporter) in std::mem::take(&mut batch.oversized) {
            refused(&job_state, reporter, &too_large());
            job_state.state().due = now;
        }
        if batch.senders.is_empty() {
            return;
        }
        if self.stream.is_none() {
            self.streams += 1;
            let engine = self.engine.clone();
            let arrived = move |number, arrival| engine.tell(Note::Arrived(number, arrival));
            self.stream = Some(ReportStream::open(self.streams, self.stub(), arrived));
        }
        if let Some(stream) = &mut self.stream {
            stream.send(batch.request.clone());
        }
        self.ack_by = now + ANSWER_TIMEOUT;
        self.batch = Some(batch);
    }

    fn arrived(&mut self, response: &StreamProgressResponse) {
        self.heard();
        let sent = self.stream.as_ref().map_or(0, |stream| stream.sent);
        if let Some(batch) = &mut self.batch {
            for failure in &response.failures {
                if let (true, Ok(report), Some(status)) =
                    (failure.request == sent - 1, usize::try_from(failure.report), &failure.status)
                {
                    batch.failures.insert(report, Error::from_proto(status));
                }
            }
        }
        for request in &response.cancellations {
            let jobs = self.engine.jobs();
            let job_state = jobs.iter().filter(|job_state| job_state.id == request.job_id);
            for job_state in job_state {
                if let Some(cancellation) = &request.cancellation {
                    job_state.state().job.cancellation = Some(cancellation.clone());
                    job_state.cancel(cancellation);
                }
            }
        }
        if let Some(pace) = &response.next_report_after {
            self.report_interval = from_duration(pace).clamp(MIN_REPORT_INTERVAL, MAX_REPORT_INTERVAL);
        }
        if response.acked >= sent
            && let Some(batch) = self.batch.take()
        {
            self.acked(batch, now());
        }
    }

    fn acked(&mut self, mut batch: Batch, now: Moment) {
        for (position, (job_state, reporter)) in batch.senders.iter().enumerate() {
            match batch.failures.remove(&position) {
                None => {
                    if let Some(index) = *reporter {
                        job_state.state().reporters[index].settle();
                    }
                }
                Some(error) => match policy_for(&error) {
                    ErrorPolicy::Stop => stop(job_state, &error),
                    ErrorPolicy::Drop => refused(job_state, *reporter, &error),
                    ErrorPolicy::Retry | ErrorPolicy::Reconnect => retry_later(job_state, &error, now),
                },
            }
            let mut state = job_state.state();
            let turn = now + state.turn(self.report_interval);
            state.beat_at = state.beat_at.min(turn);
            state.due = if state.urgent() { now } else { state.due.min(turn) };
        }
    }

    fn heard(&mut self) {
        self.connection_state.answered();
        if !self.looked {
            self.looked = true;
            self.engine.tell(Note::Look);
        }
    }

    fn broken(&mut self, error: Option<Error>) {
        let unanswered = self.batch.is_some();
        self.drop_stream();
        let expired = error.as_ref().is_some_and(|error| error.reason() == "STREAM_EXPIRED");
        if unanswered && !expired {
            self.outage(&error.unwrap_or_else(|| Error::new(Code::Unavailable, "the stream ended")));
        }
    }

    fn drop_stream(&mut self) {
        self.stream = None;
        if let Some(batch) = self.batch.take() {
            for (job_state, _) in batch.senders {
                job_state.state().due = AT_ONCE;
            }
        }
    }

    fn call(&mut self, job_state: &Arc<JobState>) {
        let request = {
            let mut state = job_state.state();
            let attempt = state.attempt;
            state.pending_calls.front_mut().and_then(|pending| {
                let request = pending.request.as_mut()?;
                request.set_attempt(attempt);
                Some(request.clone())
            })
        };
        let Some(request) = request else {
            job_state.answered(None);
            return;
        };
        if request.encoded_len() > MAX_MESSAGE_BYTES {
            self.answer(job_state, Err(too_large()));
            return;
        }
        job_state.state().calling = true;
        self.called += 1;
        let (number, engine, stub) = (self.called, self.engine.clone(), self.stub());
        let call = tokio::spawn(async move {
            let answer = place(stub, request).await;
            engine.tell(Note::Called(number, answer));
        });
        self.calls.insert(number, (Arc::clone(job_state), call.abort_handle()));
    }

    fn answer(&mut self, job_state: &Arc<JobState>, answer: Result<Option<Job>, Error>) {
        let error = match answer {
            Ok(Some(job)) if job.id == job_state.id => {
                self.heard();
                job_state.answered(Some(job));
                let mut state = job_state.state();
                state.due = AT_ONCE;
                state.beat_at = now() + state.turn(self.report_interval);
                return;
            }
            Ok(_) => Error::new(Code::Unknown, "an answer to something else"),
            Err(error) => error,
        };
        let creating = {
            let state = job_state.state();
            matches!(state.pending_calls.front().map(|pending| &pending.request), Some(Some(Request::Create(_))))
        };
        match policy_for(&error) {
            ErrorPolicy::Retry => {
                retry_later(job_state, &error, now());
                job_state.give_up_waiting();
            }
            ErrorPolicy::Reconnect if !(creating && denies_access(&error)) => self.outage(&error),
            _ => declined(job_state, &error),
        }
    }

    fn outage(&mut self, error: &Error) {
        // A server that says these is healthy, or the connection is made again by itself. After any other error it is
        // not trusted: a fault on it, in its compressed headers for example, may stay for all later calls.
        if matches!(error.code(), Code::Unavailable | Code::ResourceExhausted) {
            self.drop_stream();
        } else {
            self.disconnect();
        }
        self.connection_state.failed(error, now());
        for job_state in lock(&self.engine.jobs).iter() {
            job_state.give_up_waiting();
        }
    }

    /// Closes the connection, and with it all calls in flight.
    fn disconnect(&mut self) {
        self.drop_stream();
        for (_, (job_state, call)) in self.calls.drain() {
            call.abort();
            job_state.state().calling = false;
        }
        self.stub = None;
    }

    fn quit(mut self) {
        self.guarded(Self::forget_those_over_and_write);
        self.disconnect();
    }

    fn forget_those_over_and_write(&mut self) {
        self.forget_those_over();
        // Jobs whose delivery went on after they were saved.
        let mut left = self.engine.jobs();
        left.retain(|job_state| job_state.state().given_up);
        spool_sender::spool_undelivered(&left, &self.engine.target);
    }
}

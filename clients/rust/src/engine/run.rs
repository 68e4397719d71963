//! What the engine's thread does.

use std::collections::HashMap;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::mpsc::UnboundedReceiver;
use tokio::task::AbortHandle;
use tonic::Code;

use super::answers::{declined, later, refused, stop};
use super::{Engine, Note};
use crate::batch::{Batch, MESSAGE_BYTES};
use crate::calls::{PATIENCE, place};
use crate::contact::{AT_ONCE, Contact, Moment, now};
use crate::course::{Course, FASTEST};
use crate::error::Error;
use crate::postman;
use crate::promise::lock;
use crate::proto::headway::v1::{Job, StreamProgressResponse};
use crate::step::Request;
use crate::stream::{Arrival, ReportStream};
use crate::target::Stub;
use crate::values::from_duration;
use crate::verdict::{Verdict, judge, keeps_out, too_large};

const CALLS: usize = 16;
const FIRST_PACE: Duration = Duration::from_millis(250);
const SLOWEST: Duration = Duration::from_secs(30);

/// Works until it is told to quit.
pub(super) async fn run(engine: Engine, mut inbox: UnboundedReceiver<Note>) {
    let mut course = Loop {
        contact: Contact::new(&engine.target.address),
        engine,
        stub: None,
        streams: 0,
        stream: None,
        batch: None,
        ack_by: AT_ONCE,
        calls: HashMap::new(),
        called: 0,
        pace: FIRST_PACE,
        looked: false,
    };
    loop {
        let idle = course.idle_for();
        tokio::select! {
            note = inbox.recv() => match note {
                Some(Note::Quit) | None => break,
                Some(note) => course.guarded(|course| course.heed(note)),
            },
            () = tokio::time::sleep(idle) => {}
        }
        loop {
            match inbox.try_recv() {
                Ok(Note::Quit) => return course.quit(),
                Ok(note) => course.guarded(|course| course.heed(note)),
                Err(_) => break,
            }
        }
        course.guarded(|course| course.pump(now()));
    }
    course.quit();
}

struct Loop {
    engine: Engine,
    stub: Option<Stub>,
    streams: u64,
    stream: Option<ReportStream>,
    /// Sent and not acknowledged yet.
    batch: Option<Batch>,
    ack_by: Moment,
    calls: HashMap<u64, (Arc<Course>, AbortHandle)>,
    called: u64,
    pace: Duration,
    contact: Contact,
    /// Whether it was seen what earlier processes left for this server.
    looked: bool,
}

impl Loop {
    /// A fault of its own stops nothing, and is not tried again at once.
    fn guarded(&mut self, action: impl FnOnce(&mut Self)) {
        if catch_unwind(AssertUnwindSafe(|| action(self))).is_err() {
            self.outage(&Error::new(Code::Unknown, "a fault of the client's own"));
        }
    }

    fn heed(&mut self, note: Note) {
        match note {
            Note::Submitted(course) => {
                if self.contact.down {
                    course.give_up_waiting();
                }
                let mut state = course.state();
                if state.beat_at == AT_ONCE {
                    state.beat_at = now() + state.turn(self.pace);
                }
            }
            Note::Hurry => self.contact.hurry(now()),
            Note::Relax => self.contact.relax(),
            Note::Arrived(number, arrival) => {
                if self.stream.as_ref().is_some_and(|stream| stream.number == number) {
                    match arrival {
                        Arrival::Response(response) => self.arrived(&response),
                        Arrival::End(error) => self.broken(error),
                    }
                }
            }
            Note::Called(number, answer) => {
                if let Some((course, _)) = self.calls.remove(&number) {
                    course.state().calling = false;
                    self.answer(&course, answer);
                }
            }
            Note::Look => postman::collect(&self.engine.target),
            Note::Quit => {}
        }
    }

    fn idle_for(&self) -> Duration {
        let now = now();
        let long = Duration::from_secs(3600);
        if self.contact.retry_at > now {
            return self.contact.retry_at.saturating_sub(now);
        }
        let mut next = self.batch.as_ref().map_or(now + long, |_| self.ack_by);
        for course in lock(&self.engine.courses).iter() {
            let state = course.state();
            if self.batch.is_none() && state.reporting() {
                next = next.min(state.due.max(state.retry_at));
            }
            if self.calls.len() < CALLS && state.wants_call() {
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
        if now < self.contact.retry_at {
            return;
        }
        let courses = self.engine.courses();
        if self.batch.is_none() {
            self.report(&courses, now);
        }
        for course in courses {
            if self.calls.len() >= CALLS {
                break;
            }
            let turn = {
                let state = course.state();
                state.wants_call() && state.retry_at <= now
            };
            if turn {
                self.call(&course);
            }
        }
    }

    fn forget_those_over(&self) {
        lock(&self.engine.courses).retain(|course| {
            let mut state = course.state();
            if state.over
                && let Some(letter) = state.letter.take()
            {
                if course.stop.is_set() {
                    letter.refuse();
                } else {
                    letter.remove();
                }
            }
            !state.over
        });
    }

    fn stub(&mut self) -> Stub {
        self.stub.get_or_insert_with(|| self.engine.target.open()).clone()
    }

    fn report(&mut self, courses: &[Arc<Course>], now: Moment) {
        let due = courses.iter().filter(|course| {
            let state = course.state();
            state.reporting() && state.due <= now && state.retry_at <= now
        });
        let mut batch = Batch::default();
        batch.fill(due.cloned().collect(), now, self.pace);
        for (course, reporter) in std::mem::take(&mut batch.oversized) {
            refused(&course, reporter, &too_large());
            course.state().due = now;
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
        self.ack_by = now + PATIENCE;
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
        for wish in &response.cancellations {
            let courses = self.engine.courses();
            let course = courses.iter().filter(|course| course.id == wish.job_id);
            for course in course {
                if let Some(cancellation) = &wish.cancellation {
                    course.state().job.cancellation = Some(cancellation.clone());
                    course.cancel(cancellation);
                }
            }
        }
        if let Some(pace) = &response.next_report_after {
            self.pace = from_duration(pace).clamp(FASTEST, SLOWEST);
        }
        if response.acked >= sent
            && let Some(batch) = self.batch.take()
        {
            self.acked(batch, now());
        }
    }

    fn acked(&mut self, mut batch: Batch, now: Moment) {
        for (position, (course, reporter)) in batch.senders.iter().enumerate() {
            match batch.failures.remove(&position) {
                None => {
                    if let Some(index) = *reporter {
                        course.state().reporters[index].settle();
                    }
                }
                Some(error) => match judge(&error) {
                    Verdict::Gone => stop(course, &error),
                    Verdict::Refused => refused(course, *reporter, &error),
                    Verdict::Later | Verdict::Away => later(course, &error, now),
                },
            }
            let mut state = course.state();
            let turn = now + state.turn(self.pace);
            state.beat_at = state.beat_at.min(turn);
            state.due = if state.urgent() { now } else { state.due.min(turn) };
        }
    }

    fn heard(&mut self) {
        self.contact.heard();
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
            for (course, _) in batch.senders {
                course.state().due = AT_ONCE;
            }
        }
    }

    fn call(&mut self, course: &Arc<Course>) {
        let request = {
            let mut state = course.state();
            let attempt = state.attempt;
            state.steps.front_mut().and_then(|step| {
                let request = step.request.as_mut()?;
                request.set_attempt(attempt);
                Some(request.clone())
            })
        };
        let Some(request) = request else {
            course.answered(None);
            return;
        };
        if request.encoded_len() > MESSAGE_BYTES {
            self.answer(course, Err(too_large()));
            return;
        }
        course.state().calling = true;
        self.called += 1;
        let (number, engine, stub) = (self.called, self.engine.clone(), self.stub());
        let call = tokio::spawn(async move {
            let answer = place(stub, request).await;
            engine.tell(Note::Called(number, answer));
        });
        self.calls.insert(number, (Arc::clone(course), call.abort_handle()));
    }

    fn answer(&mut self, course: &Arc<Course>, answer: Result<Option<Job>, Error>) {
        let error = match answer {
            Ok(Some(job)) if job.id == course.id => {
                self.heard();
                course.answered(Some(job));
                let mut state = course.state();
                state.due = AT_ONCE;
                state.beat_at = now() + state.turn(self.pace);
                return;
            }
            Ok(_) => Error::new(Code::Unknown, "an answer to something else"),
            Err(error) => error,
        };
        let creating = {
            let state = course.state();
            matches!(state.steps.front().map(|step| &step.request), Some(Some(Request::Create(_))))
        };
        match judge(&error) {
            Verdict::Later => {
                later(course, &error, now());
                course.give_up_waiting();
            }
            Verdict::Away if !(creating && keeps_out(&error)) => self.outage(&error),
            _ => declined(course, &error),
        }
    }

    fn outage(&mut self, error: &Error) {
        // Who says these is well, or the connection is made anew by itself. After all else it is not believed: what went
        // wrong on it once, in its compressed headers for example, stays wrong for all later calls.
        if matches!(error.code(), Code::Unavailable | Code::ResourceExhausted) {
            self.drop_stream();
        } else {
            self.hang_up();
        }
        self.contact.lost(error, now());
        for course in lock(&self.engine.courses).iter() {
            course.give_up_waiting();
        }
    }

    /// Closes the connection, and with it all calls that are under way.
    fn hang_up(&mut self) {
        self.drop_stream();
        for (_, (course, call)) in self.calls.drain() {
            call.abort();
            course.state().calling = false;
        }
        self.stub = None;
    }

    fn quit(mut self) {
        self.guarded(Self::forget_those_over_and_write);
        self.hang_up();
    }

    fn forget_those_over_and_write(&mut self) {
        self.forget_those_over();
        // Those of which something went on after it was written down.
        let mut left = self.engine.courses();
        left.retain(|course| course.state().given_up);
        postman::write_down(&left, &self.engine.target);
    }
}

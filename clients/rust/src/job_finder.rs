//! How a worker comes by a job that may have come some way already.

use std::sync::Arc;
use std::time::{Duration, Instant};

use crate::calls::within;
use crate::client::{Client, FIND_TIMEOUT, State, catch_up};
use crate::course::{Course, Heartbeat, heartbeat};
use crate::error::Error;
use crate::job::Job;
use crate::meter::Meter;
use crate::options::JobOptions;
use crate::proto::headway::v1::{CreateJobRequest, JobStatus, StartJobRequest};
use crate::verdict::{Verdict, judge};

/// What there is at least before a server that is overloaded is asked again.
const FIRST_PAUSE: Duration = Duration::from_millis(100);

fn pause(error: &Error) -> Duration {
    error.retry_after().unwrap_or_default().max(FIRST_PAUSE)
}

impl Client {
    /// Creates the job, or takes over the one with its key. At once, as its worker must know how far the job has come before
    /// it begins. First comes what earlier workers left to say: of which job that is, only the server can tell.
    pub(crate) async fn find_or_create(
        &self,
        session: &str,
        request: &CreateJobRequest,
        end: Instant,
    ) -> Result<Job, Error> {
        catch_up(&self.connection.engine, None, FIND_TIMEOUT).await;
        loop {
            let longest = end.saturating_duration_since(Instant::now());
            let mut state = self.place_create(request, longest).await;
            if let Ok(found) = &state
                && !request.pending
                && found.id != request.job_id
            {
                state = self.take_over(session, &found.id, longest).await;
            }
            match state {
                // Just now.
                Err(error) if error.reason() == "JOB_ENDED" => {}
                // A server that is overloaded is asked again.
                Err(error) if judge(&error) == Verdict::Later && Instant::now() + pause(&error) < end => {
                    let pause = pause(&error);
                    self.connection.engine.spawn((), async move { tokio::time::sleep(pause).await }).await;
                }
                state => return self.attach(session, state?).await,
            }
        }
    }

    /// Takes a job that goes on over; continues one that has ended, or the last of those that continue it.
    pub(crate) async fn carry_on(&self, session: String, mut job_id: String) -> Result<Job, Error> {
        let mut create = JobOptions::new("").request(&session);
        let longest = self.connection.call_timeout;
        loop {
            catch_up(&self.connection.engine, Some(&job_id), self.connection.exit_timeout).await;
            let mut state = self.take_over(&session, &job_id, longest).await;
            if matches!(&state, Err(error) if error.reason() == "JOB_ENDED") {
                create.continues.clone_from(&job_id);
                state = self.place_create(&create, longest).await;
            }
            match state {
                Err(error) if error.reason() == "JOB_ALREADY_CONTINUED" => {
                    job_id = self.with_session(&session).get(&job_id).await?.continued_by;
                }
                state => return self.attach(&session, state?).await,
            }
        }
    }

    async fn place_create(&self, request: &CreateJobRequest, longest: Duration) -> Result<State, Error> {
        let request = request.clone();
        self.ask(async move |mut stub, patience| within(patience.min(longest), stub.create_job(request)).await).await
    }

    async fn take_over(&self, session: &str, job_id: &str, longest: Duration) -> Result<State, Error> {
        let request = StartJobRequest { session_id: session.to_owned(), job_id: job_id.to_owned(), take_over: true };
        self.ask(async move |mut stub, patience| within(patience.min(longest), stub.start_job(request)).await).await
    }

    /// Works on a job that the server has given to this worker.
    async fn attach(&self, session: &str, state: State) -> Result<Job, Error> {
        let known = self.with_session(session).variables(&state.id, &[]).await?;
        let pending = state.status() == JobStatus::Pending;
        // The heartbeats of one that waits for a worker are that worker's.
        let beat = if pending { Heartbeat::Never } else { heartbeat(state.heartbeat_timeout.as_ref()) };
        let meter = Arc::new(Meter::new("", state.parts.get("").copied().unwrap_or(0)));
        let course = Course::new(session.to_owned(), state, Arc::clone(&meter), beat, !pending);
        self.connection.engine.submit(&course, None);
        let job = Job::new(Arc::clone(&self.connection), course, meter, !pending, true);
        job.know(known);
        Ok(job)
    }
}

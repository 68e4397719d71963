//! How a worker gets a job that may have been started before.

use std::sync::Arc;
use std::time::{Duration, Instant};

use crate::calls::within;
use crate::client::{Client, FIND_TIMEOUT, State, catch_up};
use crate::error::Error;
use crate::error_policy::{ErrorPolicy, policy_for};
use crate::job::Job;
use crate::job_state::{Heartbeat, JobState, heartbeat};
use crate::meter::Meter;
use crate::options::JobOptions;
use crate::proto::headway::v1::{CreateJobRequest, JobStatus, StartJobRequest};

/// The minimum delay before an overloaded server is asked again.
const FIRST_PAUSE: Duration = Duration::from_millis(100);

fn pause(error: &Error) -> Duration {
    error.retry_after().unwrap_or_default().max(FIRST_PAUSE)
}

impl Client {
    /// Creates the job, or takes over the one with its key. It waits for the answer, since the worker must know the
    /// job's progress before it begins. It first sends the whole spool: only the server can tell which job has the key.
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
                // It has ended just now.
                Err(error) if error.reason() == "JOB_ENDED" => {}
                // An overloaded server is asked again.
                Err(error) if policy_for(&error) == ErrorPolicy::Retry && Instant::now() + pause(&error) < end => {
                    let pause = pause(&error);
                    self.connection.engine.spawn((), async move { tokio::time::sleep(pause).await }).await;
                }
                state => return self.attach(session, state?).await,
            }
        }
    }

    /// Takes over a running job. If it has ended, a new job continues it, or the last job that continues it.
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
        self.ask(async move |mut stub, timeout| within(timeout.min(longest), stub.create_job(request)).await).await
    }

    async fn take_over(&self, session: &str, job_id: &str, longest: Duration) -> Result<State, Error> {
        let request = StartJobRequest { session_id: session.to_owned(), job_id: job_id.to_owned(), take_over: true };
        self.ask(async move |mut stub, timeout| within(timeout.min(longest), stub.start_job(request)).await).await
    }

    /// Begins the work on a job that the server has given to this worker.
    async fn attach(&self, session: &str, state: State) -> Result<Job, Error> {
        let known = self.with_session(session).variables(&state.id, &[]).await?;
        let pending = state.status() == JobStatus::Pending;
        // A job that waits for a worker gets its heartbeats from that worker.
        let beat = if pending { Heartbeat::Never } else { heartbeat(state.heartbeat_timeout.as_ref()) };
        let meter = Arc::new(Meter::new("", state.parts.get("").copied().unwrap_or(0)));
        let job_state = JobState::new(session.to_owned(), state, Arc::clone(&meter), beat, !pending);
        self.connection.engine.submit(&job_state, None);
        let job = Job::new(Arc::clone(&self.connection), job_state, meter, !pending, true);
        job.know(known);
        Ok(job)
    }
}

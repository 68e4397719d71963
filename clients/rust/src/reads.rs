//! The client's calls to the server.

use std::sync::Arc;
use std::time::Duration;

use serde_json::{Map, Value};

use crate::calls::{repeated, within};
use crate::client::{Client, State};
use crate::error::Error;
use crate::options::JobFilter;
use crate::promise::Answer;
use crate::proto::headway::v1::{
    CancelJobRequest, ClearJobRequest, GetJobRequest, GetResultsRequest, GetVariablesRequest, ListRecordErrorsRequest,
    ListRecordErrorsResponse,
};
use crate::target::Stub;
use crate::values::{clean, from_fields, from_wire, to_duration};

/// Every answer here takes at most the client's `call_timeout`; `list` takes as long for each page. Reads are repeated
/// within it while the server is unavailable. Errors: `NotFound` if the session has no such job; `DeadlineExceeded` or
/// `Unavailable` if the server does not answer.
impl Client {
    /// The job's current state.
    pub fn get(&self, job_id: &str) -> Answer<Result<State, Error>> {
        let job_id = job_id.to_owned();
        self.read(move |session_id, mut stub, timeout| {
            let request = GetJobRequest { session_id, job_id: job_id.clone(), ..GetJobRequest::default() };
            async move { within(timeout, stub.get_job(request)).await }
        })
    }

    /// The jobs of the session that match the filter, newest first: all pages.
    pub fn list(&self, filter: JobFilter) -> Answer<Result<Vec<State>, Error>> {
        let (client, session) = (self.clone(), self.session());
        Answer::new(async move {
            let mut request = filter.request(&session?);
            let mut jobs = Vec::new();
            loop {
                let page = request.clone();
                let answer = client.read(move |_, mut stub: Stub, timeout| {
                    let page = page.clone();
                    async move { within(timeout, stub.list_jobs(page)).await }
                });
                let page = answer.await?;
                jobs.extend(page.jobs);
                if page.next_page_token.is_empty() {
                    return Ok(jobs);
                }
                request.page_token = page.next_page_token;
            }
        })
    }

    /// The job's results; none unless it is COMPLETED with results.
    pub fn results(&self, job_id: &str) -> Answer<Result<Option<Value>, Error>> {
        let job_id = job_id.to_owned();
        let answer = self.read(move |session_id, mut stub, timeout| {
            let request = GetResultsRequest { session_id, job_id: job_id.clone() };
            async move { within(timeout, stub.get_results(request)).await }
        });
        Answer::new(async move { Ok(answer.await?.results.as_ref().map(from_wire)) })
    }

    /// The job's variables, or those of these names that are set.
    pub fn variables(&self, job_id: &str, names: &[&str]) -> Answer<Result<Map<String, Value>, Error>> {
        let job_id = job_id.to_owned();
        let names: Vec<String> = names.iter().map(|&name| name.to_owned()).collect();
        let answer = self.read(move |session_id, mut stub, timeout| {
            let request = GetVariablesRequest { session_id, job_id: job_id.clone(), names: names.clone() };
            async move { within(timeout, stub.get_variables(request)).await }
        });
        Answer::new(async move {
            let variables = answer.await?.variables.unwrap_or_default();
            Ok(from_fields(&variables.fields))
        })
    }

    /// The first and the last 100 record errors, and how many there were.
    pub fn record_errors(&self, job_id: &str) -> Answer<Result<ListRecordErrorsResponse, Error>> {
        let job_id = job_id.to_owned();
        self.read(move |session_id, mut stub, timeout| {
            let request = ListRecordErrorsRequest { session_id, job_id: job_id.clone() };
            async move { within(timeout, stub.list_record_errors(request)).await }
        })
    }

    /// Asks the job's worker to end early; its reason has at most 1,024 characters. The server ends the job after `grace`:
    /// by default 60 s, zero = at once. `FailedPrecondition` if it has ended otherwise.
    pub fn cancel(&self, job_id: &str, reason: &str, grace: Option<Duration>) -> Answer<Result<State, Error>> {
        let request = self.session().map(|session_id| CancelJobRequest {
            session_id,
            job_id: job_id.to_owned(),
            reason: clean(reason, 1024),
            grace_period: grace.map(to_duration),
        });
        let client = self.clone();
        Answer::new(async move {
            let request = request?;
            client.ask(async move |mut stub, timeout| within(timeout, stub.cancel_job(request)).await).await
        })
    }

    /// Removes the job with its variables, results and record errors. A missing job is no error.
    pub fn clear(&self, job_id: &str) -> Answer<Result<(), Error>> {
        let request = self.session().map(|session_id| ClearJobRequest {
            session_id,
            job_id: job_id.to_owned(),
            allow_missing: true,
        });
        let client = self.clone();
        Answer::new(async move {
            let request = request?;
            client.ask(async move |mut stub, timeout| within(timeout, stub.clear_job(request)).await).await
        })
    }

    /// A call that can be repeated.
    fn read<T, F>(&self, call: impl Fn(String, Stub, Duration) -> F + Send + Sync + 'static) -> Answer<Result<T, Error>>
    where
        T: Clone + Send + 'static,
        F: Future<Output = Result<T, Error>> + Send,
    {
        let (session, client) = (self.session(), self.clone());
        Answer::new(async move {
            let session = session?;
            client
                .ask(async move |stub: Stub, timeout| repeated(|| call(session.clone(), stub.clone(), timeout)).await)
                .await
        })
    }

    /// Makes a call in the engine's runtime, over a channel of its own.
    pub(crate) async fn ask<T, F, C>(&self, call: C) -> Result<T, Error>
    where
        T: Clone + Send + 'static,
        F: Future<Output = Result<T, Error>> + Send + 'static,
        C: FnOnce(Stub, Duration) -> F + Send + 'static,
    {
        let connection = Arc::clone(&self.connection);
        let (engine, timeout) = (&connection.engine, connection.call_timeout);
        let line = engine.line.clone();
        let target = engine.target.clone();
        let answer = engine.spawn(Err(Error::closed()), async move {
            let stub = line.stub(&target);
            let answer = tokio::time::timeout(timeout, call(stub, timeout));
            let answer = answer.await.unwrap_or_else(|_| Err(Error::no_answer()));
            line.heed(&answer);
            answer
        });
        answer.await
    }
}

//! The method for each of a job's requests, and its timeout.

use std::future::Future;
use std::time::Duration;

use tonic::{Code, Response, Status};

use crate::error::Error;
use crate::ids::spread;
use crate::pending_call::Request;
use crate::proto::headway::v1::Job;
use crate::target::Stub;

/// Bounds how long the engine waits for an answer before the connection counts as broken.
pub(crate) const ANSWER_TIMEOUT: Duration = Duration::from_secs(10);

const MAX_CALL_ATTEMPTS: u32 = 5;

/// Awaits a call, at most so long.
pub(crate) async fn within<T>(
    timeout: Duration,
    call: impl Future<Output = Result<Response<T>, Status>>,
) -> Result<T, Error> {
    match tokio::time::timeout(timeout, call).await {
        Ok(answer) => Ok(answer?.into_inner()),
        Err(_) => Err(Error::no_answer()),
    }
}

/// Makes the call; a report returns no job.
pub(crate) async fn place(mut stub: Stub, request: Request) -> Result<Option<Job>, Error> {
    let answer = match request {
        Request::Create(request) => within(ANSWER_TIMEOUT, stub.create_job(request)).await,
        Request::Start(request) => within(ANSWER_TIMEOUT, stub.start_job(request)).await,
        Request::Update(request) => within(ANSWER_TIMEOUT, stub.update_job(request)).await,
        Request::Finish(request) => within(ANSWER_TIMEOUT, stub.finish_job(request)).await,
        Request::Fail(request) => within(ANSWER_TIMEOUT, stub.fail_job(request)).await,
        Request::Report(request) => {
            within(ANSWER_TIMEOUT, stub.report_progress(request)).await?;
            return Ok(None);
        }
    };
    answer.map(Some)
}

/// Repeats a call that has no second effect while the server is UNAVAILABLE: up to 5 times, within about 3 s.
pub(crate) async fn repeated<T, F>(mut call: impl FnMut() -> F) -> Result<T, Error>
where
    F: Future<Output = Result<T, Error>>,
{
    let mut pause = Duration::from_millis(100);
    for _ in 1..MAX_CALL_ATTEMPTS {
        match call().await {
            Err(error) if error.code() == Code::Unavailable => {
                tokio::time::sleep(spread(pause, 0.8, 1.2)).await;
                pause = pause.mul_f64(2.5).min(Duration::from_secs(2));
            }
            answer => return answer,
        }
    }
    call().await
}

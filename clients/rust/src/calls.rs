//! Which method takes which of a job's requests, and how long it may take.

use std::future::Future;
use std::time::Duration;

use tonic::{Code, Response, Status};

use crate::error::Error;
use crate::ids::spread;
use crate::proto::headway::v1::Job;
use crate::step::Request;
use crate::target::Stub;

/// What the server has for an answer before the connection counts as broken.
pub(crate) const PATIENCE: Duration = Duration::from_secs(10);

const TRIES: u32 = 5;

/// Awaits a call, at most so long.
pub(crate) async fn within<T>(
    patience: Duration,
    call: impl Future<Output = Result<Response<T>, Status>>,
) -> Result<T, Error> {
    match tokio::time::timeout(patience, call).await {
        Ok(answer) => Ok(answer?.into_inner()),
        Err(_) => Err(Error::no_answer()),
    }
}

/// Makes the call; a report brings no job.
pub(crate) async fn place(mut stub: Stub, request: Request) -> Result<Option<Job>, Error> {
    let answer = match request {
        Request::Create(request) => within(PATIENCE, stub.create_job(request)).await,
        Request::Start(request) => within(PATIENCE, stub.start_job(request)).await,
        Request::Update(request) => within(PATIENCE, stub.update_job(request)).await,
        Request::Finish(request) => within(PATIENCE, stub.finish_job(request)).await,
        Request::Fail(request) => within(PATIENCE, stub.fail_job(request)).await,
        Request::Report(request) => {
            within(PATIENCE, stub.report_progress(request)).await?;
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
    for _ in 1..TRIES {
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

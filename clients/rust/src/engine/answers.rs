//! What an error from the server means for its job.

use std::time::Duration;

use tonic::Code;

use crate::connection_state::{AT_ONCE, Moment};
use crate::error::Error;
use crate::error_policy::{ErrorPolicy, log_text, policy_for};
use crate::ids::spread;
use crate::job_state::JobState;
use crate::pending_call::Request;

pub(super) fn declined(job_state: &JobState, error: &Error) {
    enum Way {
        WithoutResults,
        Skip,
        Stop,
    }
    let way = {
        let mut state = job_state.state();
        match state.pending_calls.front_mut().and_then(|pending| pending.request.as_mut()) {
            Some(Request::Finish(request)) if request.results.is_some() && error.code() == Code::InvalidArgument => {
                request.results = None;
                Way::WithoutResults
            }
            Some(Request::Update(_)) if policy_for(error) != ErrorPolicy::Stop => Way::Skip,
            _ => Way::Stop,
        }
    };
    match way {
        Way::WithoutResults => warn(job_state, "its results were refused, so it ends without", error),
        Way::Skip => {
            warn(job_state, "a change was refused", error);
            job_state.answered(None);
        }
        Way::Stop => stop(job_state, error),
    }
}

pub(super) fn stop(job_state: &JobState, error: &Error) {
    if !job_state.state().over {
        warn(job_state, "it is no longer reported", error);
        job_state.end(Some(error));
    }
}

pub(super) fn refused(job_state: &JobState, reporter: Option<usize>, error: &Error) {
    let Some(index) = reporter else {
        // A heartbeat has nothing that could be left out.
        stop(job_state, error);
        return;
    };
    warn(job_state, "a report was refused", error);
    job_state.state().reporters[index].refused(error);
}

pub(super) fn retry_later(job_state: &JobState, error: &Error, now: Moment) {
    let first = job_state.state().retry_at == AT_ONCE;
    if first {
        warn(job_state, "it has to wait", error);
    }
    let pause = error.retry_after().unwrap_or(Duration::from_secs(1));
    let pause = pause.clamp(Duration::from_millis(100), Duration::from_secs(60));
    job_state.state().retry_at = now + spread(pause, 1.0, 1.2);
}

fn warn(job_state: &JobState, what: &str, error: &Error) {
    log::warn!(target: "headway", "job {}: {what}: {}", job_state.id, log_text(error));
}

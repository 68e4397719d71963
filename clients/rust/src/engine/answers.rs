//! What an error from the server means for the job that it is about.

use std::time::Duration;

use tonic::Code;

use crate::contact::{AT_ONCE, Moment};
use crate::course::Course;
use crate::error::Error;
use crate::ids::spread;
use crate::step::Request;
use crate::verdict::{Verdict, in_words, judge};

pub(super) fn declined(course: &Course, error: &Error) {
    enum Way {
        WithoutResults,
        Skip,
        Stop,
    }
    let way = {
        let mut state = course.state();
        match state.steps.front_mut().and_then(|step| step.request.as_mut()) {
            Some(Request::Finish(request)) if request.results.is_some() && error.code() == Code::InvalidArgument => {
                request.results = None;
                Way::WithoutResults
            }
            Some(Request::Update(_)) if judge(error) != Verdict::Gone => Way::Skip,
            _ => Way::Stop,
        }
    };
    match way {
        Way::WithoutResults => notice(course, "its results were refused, so it ends without", error),
        Way::Skip => {
            notice(course, "a change was refused", error);
            course.answered(None);
        }
        Way::Stop => stop(course, error),
    }
}

pub(super) fn stop(course: &Course, error: &Error) {
    if !course.state().over {
        notice(course, "it is no longer reported", error);
        course.end(Some(error));
    }
}

pub(super) fn refused(course: &Course, reporter: Option<usize>, error: &Error) {
    let Some(index) = reporter else {
        // Nothing in a heartbeat could be put right.
        stop(course, error);
        return;
    };
    notice(course, "a report was refused", error);
    course.state().reporters[index].refused(error);
}

pub(super) fn later(course: &Course, error: &Error, now: Moment) {
    let first = course.state().retry_at == AT_ONCE;
    if first {
        notice(course, "it has to wait", error);
    }
    let pause = error.retry_after().unwrap_or(Duration::from_secs(1));
    let pause = pause.clamp(Duration::from_millis(100), Duration::from_secs(60));
    course.state().retry_at = now + spread(pause, 1.0, 1.2);
}

fn notice(course: &Course, what: &str, error: &Error) {
    log::warn!(target: "headway", "job {}: {what}: {}", course.id, in_words(error));
}

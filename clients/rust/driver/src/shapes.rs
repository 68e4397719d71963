//! The values that the suite checks, as JSON.

use std::collections::BTreeMap;

use headway::{Cancellation, Code, Error, Job, JobStatus, v1};
use serde_json::{Map, Value, json};

pub fn error(error: &Error) -> Value {
    let fields: Vec<_> = error.fields().iter().map(|violation| &violation.field).collect();
    let mut shape = json!({
        "code": code(error.code()),
        "reason": error.reason(),
        "message": error.to_string(),
        "fields": fields,
    });
    if let Some(span) = error.retry_after() {
        shape["retry_after"] = json!(span.as_secs_f64());
    }
    shape
}

/// `NotFound` → `NOT_FOUND`.
fn code(code: Code) -> String {
    let mut name = String::new();
    for file in format!("{code:?}").chars() {
        if file.is_uppercase() && !name.is_empty() {
            name.push('_');
        }
        name.push(file.to_ascii_uppercase());
    }
    name
}

pub fn status(status: JobStatus) -> &'static str {
    status.as_str_name().trim_start_matches("JOB_STATUS_")
}

pub fn view(job: &Job) -> Value {
    json!({
        "id": job.id(),
        "name": job.name(),
        "invoker": job.invoker(),
        "status": status(job.status()),
        "progress": job.progress(),
        "size": job.size(),
        "unit": job.unit(),
        "message": job.message(),
        "attempt": job.attempt(),
        "results": job.results(),
        "cancelled": job.is_cancelled(),
    })
}

pub fn state(job: &v1::Job) -> Value {
    let error = job.error.as_ref().map(|error| json!({"code": code(Code::from(error.code)), "message": error.message}));
    json!({
        "id": job.id,
        "name": job.name,
        "invoker": job.invoker,
        "status": status(job.status()),
        "progress": job.progress,
        "size": job.size,
        "unit": job.unit,
        "message": job.message,
        "labels": job.labels,
        "parts": counts(&job.parts),
        "counters": counts(&job.counters),
        "error_count": job.error_count,
        "error": error,
        "attempt": job.attempt,
        "revision": job.revision,
        "stalled": job.stalled,
        "continues": job.continues,
        "continued_by": job.continued_by,
        "key": job.key,
    })
}

fn counts(counts: &BTreeMap<String, i64>) -> Value {
    let entries = counts.iter().map(|(name, count)| (name.clone(), json!(count)));
    Value::Object(entries.collect::<Map<_, _>>())
}

pub fn record_errors(errors: &v1::ListRecordErrorsResponse) -> Value {
    let shapes = |errors: &[v1::RecordError]| -> Value {
        let shape =
            |error: &v1::RecordError| json!({"record": error.record, "code": error.code, "message": error.message});
        errors.iter().map(shape).collect()
    };
    json!({"first": shapes(&errors.first), "last": shapes(&errors.last), "total": errors.total})
}

pub fn cancellation(cancellation: &Cancellation) -> Value {
    let deadline = cancellation.deadline.map(|moment| prost_types::Timestamp::from(moment).to_string());
    json!({"reason": cancellation.reason, "deadline": deadline})
}

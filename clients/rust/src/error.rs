//! The errors that a caller can get. Reports never fail: errors come from creating and reading jobs.

use std::error::Error as _;
use std::fmt;
use std::time::{Duration, SystemTime};

use prost::Message as _;
pub use tonic::Code;

use crate::proto::google::rpc;
use crate::values::from_duration;

/// A call that the server refused, or that did not reach it.
#[derive(Clone)]
pub struct Error(Box<Details>);

#[derive(Clone)]
struct Details {
    code: Code,
    message: String,
    reason: String,
    fields: Vec<FieldViolation>,
    retry_after: Option<Duration>,
}

/// An invalid field of a request.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct FieldViolation {
    /// Its path in the request: `labels["x"]`.
    pub field: String,
    /// What it must be.
    pub description: String,
}

impl Error {
    pub(crate) fn new(code: Code, message: impl Into<String>) -> Self {
        Self(Box::new(Details {
            code,
            message: message.into(),
            reason: String::new(),
            fields: Vec::new(),
            retry_after: None,
        }))
    }

    pub(crate) fn with_reason(mut self, reason: &str) -> Self {
        reason.clone_into(&mut self.0.reason);
        self
    }

    /// A mistake of the caller, found before anything was sent.
    pub(crate) fn misuse(message: impl Into<String>) -> Self {
        Self::new(Code::InvalidArgument, message)
    }

    pub(crate) fn closed() -> Self {
        Self::new(Code::Cancelled, "the client is closed")
    }

    pub(crate) fn no_answer() -> Self {
        Self::new(Code::DeadlineExceeded, "no answer")
    }

    /// The code of the error.
    #[must_use]
    pub fn code(&self) -> Code {
        self.0.code
    }

    /// A sentence for people that says what to do.
    #[must_use]
    pub fn message(&self) -> &str {
        &self.0.message
    }

    /// A name of [`ErrorReason`](crate::v1::ErrorReason), such as `JOB_ENDED`; empty if the error does not come from a
    /// Headway server.
    #[must_use]
    pub fn reason(&self) -> &str {
        &self.0.reason
    }

    /// The invalid fields of a malformed request.
    #[must_use]
    pub fn fields(&self) -> &[FieldViolation] {
        &self.0.fields
    }

    /// How long the server asks to wait before the next try.
    #[must_use]
    pub fn retry_after(&self) -> Option<Duration> {
        self.0.retry_after
    }

    /// Decodes a google.rpc.Status with its details, as far as they can be read.
    pub(crate) fn from_proto(status: &rpc::Status) -> Self {
        let mut error = Self::new(Code::from_i32(status.code), status.message.clone());
        for detail in &status.details {
            let bytes = detail.value.as_slice();
            match detail.type_url.rsplit('/').next() {
                Some("google.rpc.ErrorInfo") => {
                    if let Ok(info) = ErrorInfo::decode(bytes)
                        && info.domain == "headway"
                    {
                        error.0.reason = info.reason;
                    }
                }
                Some("google.rpc.BadRequest") => {
                    if let Ok(bad) = BadRequest::decode(bytes) {
                        error.0.fields = bad.violations.into_iter().map(Into::into).collect();
                    }
                }
                Some("google.rpc.RetryInfo") => {
                    if let Ok(retry) = RetryInfo::decode(bytes) {
                        error.0.retry_after = retry.delay.as_ref().map(from_duration);
                    }
                }
                _ => {}
            }
        }
        error
    }
}

impl From<tonic::Status> for Error {
    fn from(status: tonic::Status) -> Self {
        if let Ok(details) = rpc::Status::decode(status.details())
            && details.code == i32::from(status.code())
        {
            return Self::from_proto(&details);
        }
        let code = match status.code() {
            // tonic's error for a broken connection. Other clients report it as UNAVAILABLE.
            Code::Unknown | Code::Internal if status.source().is_some() => Code::Unavailable,
            code => code,
        };
        let mut message = status.message().to_owned();
        let mut source = status.source();
        while let Some(cause) = source {
            message = cause.to_string();
            source = cause.source();
        }
        Self::new(code, message)
    }
}

impl fmt::Display for Error {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.0.message.is_empty() {
            formatter.write_str(self.0.code.description())
        } else {
            formatter.write_str(&self.0.message)
        }
    }
}

impl fmt::Debug for Error {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter
            .debug_struct("Error")
            .field("code", &self.0.code)
            .field("reason", &self.0.reason)
            .field("message", &self.0.message)
            .field("fields", &self.0.fields)
            .field("retry_after", &self.0.retry_after)
            .finish()
    }
}

impl std::error::Error for Error {}

/// A request that a job end early.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Cancellation {
    /// The reason given with the request.
    pub reason: String,
    /// When the server ends the job itself, if that is known.
    pub deadline: Option<SystemTime>,
}

/// A cancellation request. Pass it on with `?`: the job then ends CANCELLED.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct JobCancelled(Cancellation);

impl JobCancelled {
    /// For a worker that ends its job as CANCELLED for a reason of its own.
    #[must_use]
    pub fn new(reason: impl Into<String>) -> Self {
        Self(Cancellation { reason: reason.into(), deadline: None })
    }

    pub(crate) fn requested(cancellation: Cancellation) -> Self {
        Self(cancellation)
    }

    /// The reason given with the request.
    #[must_use]
    pub fn reason(&self) -> &str {
        &self.0.reason
    }

    /// When the server ends the job itself, if that is known.
    #[must_use]
    pub fn deadline(&self) -> Option<SystemTime> {
        self.0.deadline
    }
}

impl fmt::Display for JobCancelled {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.0.reason.is_empty() {
            formatter.write_str("the job was cancelled")
        } else {
            write!(formatter, "the job was cancelled: {}", self.0.reason)
        }
    }
}

impl std::error::Error for JobCancelled {}

#[derive(Clone, PartialEq, prost::Message)]
struct ErrorInfo {
    #[prost(string, tag = "1")]
    reason: String,
    #[prost(string, tag = "2")]
    domain: String,
}

#[derive(Clone, PartialEq, prost::Message)]
struct BadRequest {
    #[prost(message, repeated, tag = "1")]
    violations: Vec<Violation>,
}

#[derive(Clone, PartialEq, prost::Message)]
struct Violation {
    #[prost(string, tag = "1")]
    field: String,
    #[prost(string, tag = "2")]
    description: String,
}

impl From<Violation> for FieldViolation {
    fn from(violation: Violation) -> Self {
        Self { field: violation.field, description: violation.description }
    }
}

#[derive(Clone, PartialEq, prost::Message)]
struct RetryInfo {
    #[prost(message, optional, tag = "1")]
    delay: Option<prost_types::Duration>,
}

#[cfg(test)]
mod tests {
    use prost_types::Any;

    use super::*;

    fn packed(name: &str, message: &impl prost::Message) -> Any {
        Any { type_url: format!("type.googleapis.com/google.rpc.{name}"), value: message.encode_to_vec() }
    }

    #[test]
    fn details_are_decoded_as_far_as_they_can_be_read() {
        let info = ErrorInfo { reason: "INVALID_REQUEST".into(), domain: "headway".into() };
        let violation = Violation { field: "size".into(), description: "must not be negative".into() };
        let bad = BadRequest { violations: vec![violation] };
        let retry = RetryInfo { delay: Some(prost_types::Duration { seconds: 1, nanos: 500_000_000 }) };
        let mut damaged = packed("ErrorInfo", &info);
        damaged.value.truncate(3);
        let error = Error::from_proto(&rpc::Status {
            code: 3,
            message: "No.".into(),
            details: vec![packed("ErrorInfo", &info), packed("BadRequest", &bad), packed("RetryInfo", &retry), damaged],
        });
        assert_eq!(error.code(), Code::InvalidArgument);
        assert_eq!(error.reason(), "INVALID_REQUEST");
        assert_eq!(error.fields()[0].field, "size");
        assert_eq!(error.retry_after(), Some(Duration::from_millis(1500)));
        assert_eq!(error.to_string(), "No.");
    }

    #[test]
    fn a_reason_of_another_domain_is_none_of_ours() {
        let info = ErrorInfo { reason: "JOB_ENDED".into(), domain: "proxy".into() };
        let error = Error::from_proto(&rpc::Status {
            code: 9,
            message: String::new(),
            details: vec![packed("ErrorInfo", &info)],
        });
        assert_eq!(error.reason(), "");
    }
}

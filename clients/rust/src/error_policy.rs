//! What an error means for the report or call that failed.

use tonic::Code;

use crate::error::Error;

/// What to do about an error.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum ErrorPolicy {
    /// The server accepts no more of this job.
    Stop,
    /// The server would refuse the same request again. Leave it out.
    Drop,
    /// The same request can succeed later.
    Retry,
    /// Nothing is known about the request: the connection, or what is behind it, is at fault. Reconnect and repeat.
    Reconnect,
}

/// Trusts only errors that a Headway server sends, with a reason. A proxy's 404 must not end a job.
pub(crate) fn policy_for(error: &Error) -> ErrorPolicy {
    match (error.reason(), error.code()) {
        ("JOB_ENDED" | "STALE_ATTEMPT" | "JOB_NOT_FOUND" | "JOB_ID_AMBIGUOUS", _) => ErrorPolicy::Stop,
        // The message was well-formed when it was sent, so the connection is at fault.
        ("" | "MALFORMED_MESSAGE", _) => ErrorPolicy::Reconnect,
        (
            _,
            Code::InvalidArgument | Code::AlreadyExists | Code::NotFound | Code::FailedPrecondition | Code::Aborted,
        ) => ErrorPolicy::Drop,
        (_, Code::ResourceExhausted) => ErrorPolicy::Retry,
        _ => ErrorPolicy::Reconnect,
    }
}

/// Whether the caller apparently has no right to create a job.
pub(crate) fn denies_access(error: &Error) -> bool {
    !error.reason().is_empty() && matches!(error.code(), Code::Unauthenticated | Code::PermissionDenied)
}

/// The error of a message that is too large to send.
pub(crate) fn too_large() -> Error {
    Error::new(Code::InvalidArgument, "It is larger than a message may be.").with_reason("INVALID_REQUEST")
}

/// The error as one line for a log, whatever the server or a proxy has written into it.
pub(crate) fn log_text(error: &Error) -> String {
    let text = error.to_string();
    let parts = text
        .split(|character: char| character.is_whitespace() || character.is_control())
        .filter(|word| !word.is_empty());
    parts.collect::<Vec<_>>().join(" ").chars().take(300).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_a_headway_server_ends_something() {
        let cases = [
            (Code::FailedPrecondition, "JOB_ENDED", ErrorPolicy::Stop),
            (Code::NotFound, "JOB_NOT_FOUND", ErrorPolicy::Stop),
            (Code::NotFound, "", ErrorPolicy::Reconnect),
            (Code::InvalidArgument, "INVALID_REQUEST", ErrorPolicy::Drop),
            (Code::InvalidArgument, "MALFORMED_MESSAGE", ErrorPolicy::Reconnect),
            (Code::InvalidArgument, "", ErrorPolicy::Reconnect),
            (Code::ResourceExhausted, "OVERLOADED", ErrorPolicy::Retry),
            (Code::ResourceExhausted, "", ErrorPolicy::Reconnect),
            (Code::Unavailable, "SHUTTING_DOWN", ErrorPolicy::Reconnect),
        ];
        for (code, reason, policy) in cases {
            let error = Error::new(code, "").with_reason(reason);
            assert_eq!(policy_for(&error), policy, "{code:?} {reason}");
        }
    }
}

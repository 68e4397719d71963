//! What an error means for whoever sent the report or call.

use tonic::Code;

use crate::error::Error;

/// What to do about an error.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Verdict {
    /// The server wants no more of this job.
    Gone,
    /// The same would be refused again.
    Refused,
    /// The same will do, later.
    Later,
    /// Nothing is known: the connection or what is behind it is at fault.
    Away,
}

/// Only what a Headway server says, with a reason, can end something: a proxy's 404 ends nothing.
pub(crate) fn judge(error: &Error) -> Verdict {
    match (error.reason(), error.code()) {
        ("JOB_ENDED" | "STALE_ATTEMPT" | "JOB_NOT_FOUND" | "JOB_ID_AMBIGUOUS", _) => Verdict::Gone,
        // It was well-formed when it was sent.
        ("" | "MALFORMED_MESSAGE", _) => Verdict::Away,
        (
            _,
            Code::InvalidArgument | Code::AlreadyExists | Code::NotFound | Code::FailedPrecondition | Code::Aborted,
        ) => Verdict::Refused,
        (_, Code::ResourceExhausted) => Verdict::Later,
        _ => Verdict::Away,
    }
}

/// Whether the caller has no right to create a job, as far as can be seen.
pub(crate) fn keeps_out(error: &Error) -> bool {
    !error.reason().is_empty() && matches!(error.code(), Code::Unauthenticated | Code::PermissionDenied)
}

/// For what is not even sent.
pub(crate) fn too_large() -> Error {
    Error::new(Code::InvalidArgument, "It is larger than a message may be.").with_reason("INVALID_REQUEST")
}

/// Why, as one line for a log, whatever the other side has written into it.
pub(crate) fn in_words(error: &Error) -> String {
    let text = error.to_string();
    let words =
        text.split(|letter: char| letter.is_whitespace() || letter.is_control()).filter(|word| !word.is_empty());
    words.collect::<Vec<_>>().join(" ").chars().take(300).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_a_headway_server_ends_something() {
        let cases = [
            (Code::FailedPrecondition, "JOB_ENDED", Verdict::Gone),
            (Code::NotFound, "JOB_NOT_FOUND", Verdict::Gone),
            (Code::NotFound, "", Verdict::Away),
            (Code::InvalidArgument, "INVALID_REQUEST", Verdict::Refused),
            (Code::InvalidArgument, "MALFORMED_MESSAGE", Verdict::Away),
            (Code::InvalidArgument, "", Verdict::Away),
            (Code::ResourceExhausted, "OVERLOADED", Verdict::Later),
            (Code::ResourceExhausted, "", Verdict::Away),
            (Code::Unavailable, "SHUTTING_DOWN", Verdict::Away),
        ];
        for (code, reason, verdict) in cases {
            let error = Error::new(code, "").with_reason(reason);
            assert_eq!(judge(&error), verdict, "{code:?} {reason}");
        }
    }
}

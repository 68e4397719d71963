package headway

import "google.golang.org/grpc/codes"

// verdict is what an error means for whoever sent the report or call.
type verdict int

const (
	// away: nothing is known; the connection, or what is behind it, is at fault.
	away verdict = iota
	// gone: the server wants no more of this job.
	gone
	// refused: the same would be refused again.
	refused
	// later: the same will do, later.
	later
)

// judge believes only what a Headway server says, with a reason: a proxy's 404 ends nothing.
func judge(err *Error) verdict {
	switch err.Reason {
	case "":
		return away
	case "JOB_ENDED", "STALE_ATTEMPT", "JOB_NOT_FOUND", "JOB_ID_AMBIGUOUS":
		return gone
	case "MALFORMED_MESSAGE":
		// It was well-formed when it was sent.
		return away
	}
	switch err.Code {
	case codes.InvalidArgument, codes.AlreadyExists, codes.NotFound, codes.FailedPrecondition, codes.Aborted:
		return refused
	case codes.ResourceExhausted:
		return later
	}
	return away
}

// keepsOut says whether the caller has no right to create a job, as far as can be seen.
func keepsOut(err *Error) bool {
	return err.Reason != "" && (err.Code == codes.Unauthenticated || err.Code == codes.PermissionDenied)
}

// tooLarge is for what is not even sent.
func tooLarge() *Error {
	return &Error{Code: codes.InvalidArgument, Message: "It is larger than a message may be.", Reason: "INVALID_REQUEST"}
}

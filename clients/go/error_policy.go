package headway

import "google.golang.org/grpc/codes"

// errorPolicy is what an error means for the report or call that failed.
type errorPolicy int

const (
	// policyReconnect: nothing is known about the request. The connection, or what is behind it, is at fault. Reconnect
	// and repeat.
	policyReconnect errorPolicy = iota
	// policyStop: the server accepts no more of this job.
	policyStop
	// policyDrop: the server would refuse the same request again. Leave it out.
	policyDrop
	// policyRetry: the same request can succeed later.
	policyRetry
)

// policyFor trusts only errors that a Headway server sends, with a reason. A proxy's 404 must not end a job.
func policyFor(err *Error) errorPolicy {
	switch err.Reason {
	case "":
		return policyReconnect
	case "JOB_ENDED", "STALE_ATTEMPT", "JOB_NOT_FOUND", "JOB_ID_AMBIGUOUS":
		return policyStop
	case "MALFORMED_MESSAGE":
		// The message was well-formed when it was sent, so the connection is at fault.
		return policyReconnect
	}
	switch err.Code {
	case codes.InvalidArgument, codes.AlreadyExists, codes.NotFound, codes.FailedPrecondition, codes.Aborted:
		return policyDrop
	case codes.ResourceExhausted:
		return policyRetry
	}
	return policyReconnect
}

// deniesAccess reports whether the caller apparently has no right to create a job.
func deniesAccess(err *Error) bool {
	return err.Reason != "" && (err.Code == codes.Unauthenticated || err.Code == codes.PermissionDenied)
}

// tooLarge is the error of a message that is too large to send.
func tooLarge() *Error {
	return &Error{Code: codes.InvalidArgument, Message: "It is larger than a message may be.", Reason: "INVALID_REQUEST"}
}

package headway

import (
	"context"
	"errors"
	"fmt"
	"time"

	"google.golang.org/genproto/googleapis/rpc/errdetails"
	statuspb "google.golang.org/genproto/googleapis/rpc/status"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
)

// Kinds of [*Error], by code, for errors.Is.
var (
	// ErrNotFound: there is no such job in this session.
	ErrNotFound = errors.New("headway: not found")
	// ErrInvalid: the request is malformed; Error.Fields says where.
	ErrInvalid = errors.New("headway: invalid request")
	// ErrState: the job has ended, is not started, or belongs to another worker; Error.Reason says which.
	ErrState = errors.New("headway: the job's state does not allow it")
	// ErrUnavailable: the server, or its database, does not answer. Try again later.
	ErrUnavailable = errors.New("headway: unavailable")
)

// ErrNoSession is returned by calls without a session.
var ErrNoSession = errors.New("headway: no session: set Config.Session or HEADWAY_SESSION, or use Client.Session")

// ErrClosed is returned by calls of a client that is closed.
var ErrClosed error = &Error{Code: codes.Canceled, Message: "the client is closed"}

// ErrUndelivered is returned by Client.Close if the server does not have everything.
var ErrUndelivered = errors.New("headway: not all is delivered")

// Error is a call that the server refused, or that did not reach it. Updates of a job never return one.
type Error struct {
	// Code is one of google.rpc.Code.
	Code codes.Code
	// Message is a sentence for people that says what to do.
	Message string
	// Reason is the name of a headwayv1.ErrorReason, such as "JOB_ENDED"; empty if the error does not come from a Headway
	// server.
	Reason string
	// Fields are the invalid fields of the request.
	Fields []FieldError
	// RetryAfter is how long the server asks to wait before the next try; 0 = not given.
	RetryAfter time.Duration
}

// FieldError says what is wrong with one field of a request.
type FieldError struct {
	// Field is its path in the request: "job_id".
	Field string
	// Description says what it must be.
	Description string
}

func (e *Error) Error() string {
	text := e.Message
	if text == "" {
		text = e.Code.String()
	}
	if e.Reason != "" {
		return fmt.Sprintf("headway: %s (%s)", text, e.Reason)
	}
	return "headway: " + text
}

// Is tells errors.Is of the kinds in this package, and of context.Canceled and context.DeadlineExceeded.
func (e *Error) Is(target error) bool {
	switch target {
	case ErrNotFound:
		return e.Code == codes.NotFound
	case ErrInvalid:
		return e.Code == codes.InvalidArgument
	case ErrState:
		return e.Code == codes.FailedPrecondition
	case ErrUnavailable:
		return e.Code == codes.Unavailable
	case context.Canceled:
		return e.Code == codes.Canceled
	case context.DeadlineExceeded:
		return e.Code == codes.DeadlineExceeded
	}
	return false
}

// GRPCStatus lets the status package of gRPC see the code.
func (e *Error) GRPCStatus() *status.Status {
	return status.New(e.Code, e.Message)
}

// CancelledError is the cause of a job's context after a cancellation request. A job that is closed with it, or with
// context.Canceled, ends CANCELLED.
type CancelledError struct {
	// Reason is the reason given with the request; may be empty.
	Reason string
	// Deadline is when the server ends the job itself; zero = not known.
	Deadline time.Time
}

func (e *CancelledError) Error() string {
	if e.Reason == "" {
		return "the job was cancelled"
	}
	return "the job was cancelled: " + e.Reason
}

// Is makes errors.Is(err, context.Canceled) true.
func (e *CancelledError) Is(target error) bool { return target == context.Canceled }

// fromError decodes what a stub returned.
func fromError(err error) *Error {
	if known := (*Error)(nil); errors.As(err, &known) {
		return known
	}
	if known, ok := status.FromError(err); ok {
		return fromStatus(known.Proto())
	}
	return &Error{Code: status.FromContextError(err).Code(), Message: err.Error()}
}

// fromStatus decodes a google.rpc.Status with its details, as far as they can be read.
func fromStatus(told *statuspb.Status) *Error {
	code := codes.Code(told.GetCode())
	if code > codes.Unauthenticated {
		code = codes.Unknown
	}
	result := &Error{Code: code, Message: told.GetMessage()}
	for _, detail := range told.GetDetails() {
		message, err := detail.UnmarshalNew()
		if err != nil {
			continue
		}
		switch about := message.(type) {
		case *errdetails.ErrorInfo:
			if about.GetDomain() == "headway" {
				result.Reason = about.GetReason()
			}
		case *errdetails.BadRequest:
			result.Fields = nil
			for _, fault := range about.GetFieldViolations() {
				result.Fields = append(result.Fields, FieldError{fault.GetField(), fault.GetDescription()})
			}
		case *errdetails.RetryInfo:
			result.RetryAfter = about.GetRetryDelay().AsDuration()
		}
	}
	return result
}

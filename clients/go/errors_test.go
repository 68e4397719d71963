package headway

import (
	"context"
	"errors"
	"testing"
	"time"

	"google.golang.org/genproto/googleapis/rpc/errdetails"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/types/known/durationpb"
)

func TestErrorIsDecodedWithItsDetails(t *testing.T) {
	told, err := status.New(codes.InvalidArgument, "job_id: no").WithDetails(
		&errdetails.ErrorInfo{Domain: "headway", Reason: "INVALID_REQUEST"},
		&errdetails.BadRequest{FieldViolations: []*errdetails.BadRequest_FieldViolation{{Field: "job_id", Description: "no"}}},
		&errdetails.RetryInfo{RetryDelay: durationpb.New(2 * time.Second)},
	)
	if err != nil {
		t.Fatal(err)
	}
	found := fromError(told.Err())
	if !errors.Is(found, ErrInvalid) || errors.Is(found, ErrNotFound) || found.Reason != "INVALID_REQUEST" ||
		len(found.Fields) != 1 || found.Fields[0] != (FieldError{"job_id", "no"}) || found.RetryAfter != 2*time.Second {
		t.Errorf("%+v", found)
	}
	if status.Code(found) != codes.InvalidArgument {
		t.Error("gRPC does not see the code")
	}
}

func TestOnlyAHeadwayServerCanEndAJob(t *testing.T) {
	for _, c := range []struct {
		code   codes.Code
		reason string
		want   errorPolicy
	}{
		{codes.NotFound, "", policyReconnect},
		{codes.NotFound, "JOB_NOT_FOUND", policyStop},
		{codes.FailedPrecondition, "STALE_ATTEMPT", policyStop},
		{codes.InvalidArgument, "INVALID_REQUEST", policyDrop},
		{codes.InvalidArgument, "MALFORMED_MESSAGE", policyReconnect},
		{codes.ResourceExhausted, "OVERLOADED", policyRetry},
		{codes.ResourceExhausted, "", policyReconnect},
		{codes.Unavailable, "SHUTTING_DOWN", policyReconnect},
		{codes.Unauthenticated, "CREDENTIALS_INVALID", policyReconnect},
	} {
		if got := policyFor(&Error{Code: c.code, Reason: c.reason}); got != c.want {
			t.Errorf("%v %s: %v", c.code, c.reason, got)
		}
	}
}

func TestErrorsOfContextsAreRecognised(t *testing.T) {
	if !errors.Is(fromError(status.FromContextError(context.DeadlineExceeded).Err()), context.DeadlineExceeded) {
		t.Error("a deadline")
	}
	if !errors.Is(&CancelledError{Reason: "late"}, context.Canceled) {
		t.Error("a cancelled job")
	}
}

// Command driver carries out the operations of a conformance case, with the client's public API, and answers with what
// it saw: one JSON object a line in, one out. The protocol is in clients/conformance/README.md.
package main

import (
	"bufio"
	"encoding/json"
	"errors"
	"fmt"
	"os"

	"google.golang.org/grpc/codes"

	headway "github.com/headway-project/headway/clients/go"
)

// errUnsupported answers an operation that the client does not have.
var errUnsupported = errors.New("the client does not have this operation")

type fault struct {
	Code       string   `json:"code"`
	Reason     string   `json:"reason"`
	Message    string   `json:"message"`
	Fields     []string `json:"fields"`
	RetryAfter float64  `json:"retry_after,omitempty"`
}

func main() {
	d := &driver{jobs: map[string]*headway.Job{}}
	lines := bufio.NewScanner(os.Stdin)
	lines.Buffer(nil, 64<<20)
	out := json.NewEncoder(os.Stdout)
	for lines.Scan() {
		var a arguments
		if err := json.Unmarshal(lines.Bytes(), &a); err != nil {
			fmt.Fprintln(os.Stderr, "driver:", err)
			os.Exit(2)
		}
		answer := map[string]any{"id": a.ID}
		value, err := d.do(&a)
		switch {
		case errors.Is(err, errUnsupported):
			answer["unsupported"] = a.Op
		case err != nil:
			answer["error"] = describe(err)
		default:
			answer["value"] = value
		}
		if err := out.Encode(answer); err != nil {
			os.Exit(2)
		}
	}
	if d.client != nil {
		_ = d.client.Close()
	}
}

func describe(err error) fault {
	told := &headway.Error{Code: codes.Unknown, Message: err.Error()}
	if known := (*headway.Error)(nil); errors.As(err, &known) {
		told = known
	} else if errors.Is(err, headway.ErrNoSession) {
		told.Code = codes.InvalidArgument
	} else if isTimeout(err) {
		told.Code = codes.DeadlineExceeded
	}
	fields := []string{}
	for _, field := range told.Fields {
		fields = append(fields, field.Field)
	}
	return fault{codeNames[told.Code], told.Reason, told.Message, fields, told.RetryAfter.Seconds()}
}

var codeNames = map[codes.Code]string{
	codes.OK: "OK", codes.Canceled: "CANCELLED", codes.Unknown: "UNKNOWN", codes.InvalidArgument: "INVALID_ARGUMENT",
	codes.DeadlineExceeded: "DEADLINE_EXCEEDED", codes.NotFound: "NOT_FOUND", codes.AlreadyExists: "ALREADY_EXISTS",
	codes.PermissionDenied: "PERMISSION_DENIED", codes.ResourceExhausted: "RESOURCE_EXHAUSTED",
	codes.FailedPrecondition: "FAILED_PRECONDITION", codes.Aborted: "ABORTED", codes.OutOfRange: "OUT_OF_RANGE",
	codes.Unimplemented: "UNIMPLEMENTED", codes.Internal: "INTERNAL", codes.Unavailable: "UNAVAILABLE",
	codes.DataLoss: "DATA_LOSS", codes.Unauthenticated: "UNAUTHENTICATED",
}

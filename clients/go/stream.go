package headway

import (
	"context"
	"errors"
	"io"

	"google.golang.org/protobuf/proto"

	"github.com/headway-project/headway/clients/go/headwayv1"
)

// stream is one open StreamProgress call. Each response is handed to arrived, and at the end the error, or nothing.
type stream struct {
	sent     int64
	outgoing chan *headwayv1.StreamProgressRequest
	cancel   context.CancelFunc
}

type arrival func(*stream, *headwayv1.StreamProgressResponse, *Error)

func openStream(stub headwayv1.JobServiceClient, arrived arrival) *stream {
	ctx, cancel := context.WithCancel(context.Background())
	// One request is under way at most, so that a send never waits.
	s := &stream{outgoing: make(chan *headwayv1.StreamProgressRequest, 1), cancel: cancel}
	go s.run(ctx, stub, arrived)
	return s
}

func (s *stream) send(request *headwayv1.StreamProgressRequest) {
	s.sent++
	s.outgoing <- request
}

// close ends the call at once.
func (s *stream) close() { s.cancel() }

func (s *stream) run(ctx context.Context, stub headwayv1.JobServiceClient, arrived arrival) {
	defer s.cancel()
	call, err := stub.StreamProgress(ctx)
	if err != nil {
		arrived(s, nil, fromError(err))
		return
	}
	go func() {
		for {
			select {
			case request := <-s.outgoing:
				// What went wrong is told by Recv.
				if call.Send(request) != nil {
					return
				}
			case <-ctx.Done():
				return
			}
		}
	}()
	for {
		response, err := call.Recv()
		if errors.Is(err, io.EOF) {
			arrived(s, nil, nil)
			return
		}
		if err != nil {
			arrived(s, nil, fromError(err))
			return
		}
		arrived(s, response, nil)
	}
}

// place makes the call that takes a job's request.
func place(ctx context.Context, stub headwayv1.JobServiceClient, request proto.Message) (*headwayv1.Job, error) {
	switch known := request.(type) {
	case *headwayv1.CreateJobRequest:
		return stub.CreateJob(ctx, known)
	case *headwayv1.StartJobRequest:
		return stub.StartJob(ctx, known)
	case *headwayv1.UpdateJobRequest:
		return stub.UpdateJob(ctx, known)
	case *headwayv1.FinishJobRequest:
		return stub.FinishJob(ctx, known)
	case *headwayv1.FailJobRequest:
		return stub.FailJob(ctx, known)
	}
	return nil, errors.New("no such call")
}

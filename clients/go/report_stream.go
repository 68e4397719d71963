package headway

import (
	"context"
	"errors"
	"io"
	"sync"

	"google.golang.org/grpc"
	"google.golang.org/protobuf/proto"

	"github.com/headway-project/headway/clients/go/headwayv1"
)

// reportStream is one open StreamProgress call. It hands each response to arrived, and at the end the error, if any.
type reportStream struct {
	sent     int64
	outgoing chan *headwayv1.StreamProgressRequest
	arrived  func(*reportStream, *headwayv1.StreamProgressResponse, *Error)
	ctx      context.Context
	// close ends the call at once.
	close context.CancelFunc
}

func newReportStream(arrived func(*reportStream, *headwayv1.StreamProgressResponse, *Error)) *reportStream {
	// At most one request is in flight, so send never blocks.
	s := &reportStream{outgoing: make(chan *headwayv1.StreamProgressRequest, 1), arrived: arrived}
	s.ctx, s.close = context.WithCancel(context.Background())
	return s
}

func (s *reportStream) send(request *headwayv1.StreamProgressRequest) {
	s.sent++
	s.outgoing <- request
}

func (s *reportStream) run(stub headwayv1.JobServiceClient) {
	var passing sync.WaitGroup
	defer passing.Wait()
	defer s.close()
	call, err := stub.StreamProgress(s.ctx)
	if err != nil {
		s.arrived(s, nil, fromError(err))
		return
	}
	passing.Go(func() { s.pass(call) })
	for {
		response, err := call.Recv()
		if errors.Is(err, io.EOF) {
			s.arrived(s, nil, nil)
			return
		}
		if err != nil {
			s.arrived(s, nil, fromError(err))
			return
		}
		s.arrived(s, response, nil)
	}
}

// pass sends the queued requests.
func (s *reportStream) pass(call grpc.BidiStreamingClient[headwayv1.StreamProgressRequest, headwayv1.StreamProgressResponse]) {
	for {
		select {
		case request := <-s.outgoing:
			// Recv reports the error.
			if call.Send(request) != nil {
				return
			}
		case <-s.ctx.Done():
			return
		}
	}
}

// makeCall makes the call that takes this request.
func makeCall(ctx context.Context, stub headwayv1.JobServiceClient, request proto.Message) (*headwayv1.Job, error) {
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

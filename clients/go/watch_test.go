package headway

import (
	"net"
	"testing"
	"time"

	"google.golang.org/grpc"

	"github.com/headway-project/headway/clients/go/headwayv1"
)

// watchServer gives each watch one state, and signals when the client has left.
type watchServer struct {
	headwayv1.UnimplementedJobServiceServer
	left chan struct{}
}

func (w watchServer) WatchJob(_ *headwayv1.WatchJobRequest, call grpc.ServerStreamingServer[headwayv1.WatchJobResponse]) error {
	state := &headwayv1.Job{Status: headwayv1.JobStatus_JOB_STATUS_RUNNING, Revision: 1}
	if err := call.Send(&headwayv1.WatchJobResponse{Job: state}); err != nil {
		return err
	}
	<-call.Context().Done()
	w.left <- struct{}{}
	return call.Context().Err()
}

func TestWatchThatIsLeftIsClosed(t *testing.T) {
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	service, watchServer := grpc.NewServer(), watchServer{left: make(chan struct{})}
	headwayv1.RegisterJobServiceServer(service, watchServer)
	go func() { _ = service.Serve(listener) }()
	defer service.Stop()
	client, err := Open(Config{Target: listener.Addr().String(), Session: "s", Logger: quiet})
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = client.Close() }()

	for name, leave := range map[string]func(){"break": func() {}, "panic": func() { panic("oh") }} {
		func() {
			defer func() { _ = recover() }()
			for range client.Watch(t.Context(), "j", 0) {
				leave()
				break
			}
		}()
		select {
		case <-watchServer.left:
		case <-time.After(10 * time.Second):
			t.Errorf("%s: the watch goes on", name)
		}
	}
}

package headway

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"os"
	"path/filepath"
	"runtime"
	"strings"
	"testing"
	"time"

	"google.golang.org/grpc/codes"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/fieldmaskpb"

	"github.com/headway-project/headway/clients/go/headwayv1"
)

var quiet = slog.New(slog.DiscardHandler)

// unreachable is a client of a server that does not exist: everything its jobs report ends up in the spool.
func unreachableClient(t *testing.T, logger *slog.Logger) *Client {
	t.Helper()
	t.Setenv("HEADWAY_SPOOL", filepath.Join(t.TempDir(), "spool"))
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	_ = listener.Close()
	client, err := Open(Config{Target: listener.Addr().String(), Session: "secret", Token: "hidden", ExitTimeout: time.Millisecond, Logger: logger})
	if err != nil {
		t.Fatal(err)
	}
	return client
}

// spooled closes the client and reads what it left in the spool.
func spooled(t *testing.T, client *Client) []proto.Message {
	t.Helper()
	if err := client.Close(); !errors.Is(err, ErrUndelivered) {
		t.Errorf("closed with %v", err)
	}
	waiting := waitingFiles(client.target, "")
	if len(waiting) != 1 {
		t.Fatalf("waiting: %v", waiting)
	}
	data, err := os.ReadFile(waiting[0])
	if err != nil {
		t.Fatal(err)
	}
	left, err := decodeSpoolRecord(data)
	if err != nil {
		t.Fatal(err)
	}
	return left.requests
}

func TestCloseEndsTheJobAsTheFunctionEnded(t *testing.T) {
	for name, c := range map[string]struct {
		work func(*Job) error
		want string
	}{
		"well":      {func(*Job) error { return nil }, `results:{number_value:3}`},
		"error":     {func(*Job) error { return errors.New("no disk") }, `error:{code:2 message:"no disk"}`},
		"cancelled": {func(*Job) error { return &CancelledError{Reason: "late"} }, `error:{code:1 message:"the job was cancelled: late"}`},
		"context":   {func(j *Job) error { return fmt.Errorf("reading: %w", context.Canceled) }, `error:{code:1 message:"reading: context canceled"}`},
		"panic":     {func(*Job) error { panic("oh") }, `error:{code:2 message:"panic: oh"}`},
	} {
		t.Run(name, func(t *testing.T) {
			client := unreachableClient(t, quiet)
			func() {
				defer func() {
					if fault := recover(); (fault != nil) != (name == "panic") {
						t.Errorf("panicked: %v", fault)
					}
				}()
				_ = func() (err error) {
					job, err := client.Create(t.Context(), Spec{Name: "Import"})
					if err != nil {
						return err
					}
					defer job.Close(&err)
					job.SetResults(3)
					return c.work(job)
				}()
			}()
			left := spooled(t, client)
			if _, created := left[0].(*headwayv1.CreateJobRequest); !created || len(left) != 2 {
				t.Fatalf("left: %v", left)
			}
			if end := strings.Join(strings.Fields(fmt.Sprint(left[1])), " "); !strings.Contains(strings.ReplaceAll(end, ": ", ":"), strings.ReplaceAll(c.want, ": ", ":")) {
				t.Errorf("%s\nwants %s", end, c.want)
			}
		})
	}
}

func TestLastValueIsSpooled(t *testing.T) {
	client := unreachableClient(t, quiet)
	job, err := client.Create(t.Context(), Spec{})
	if err != nil {
		t.Fatal(err)
	}
	for i := range int64(1000) {
		job.SetProgress(i)
	}
	job.Part("b").Advance(5)
	left := spooled(t, client)
	sum := int64(0)
	for _, request := range left[1:] {
		sum += request.(*headwayv1.ReportProgressRequest).GetProgress()
	}
	if len(left) != 3 || sum != 999+5 {
		t.Errorf("left: %v", left)
	}
	if _, err := client.Create(t.Context(), Spec{}); !errors.Is(err, ErrClosed) {
		t.Errorf("created after the end: %v", err)
	}
	if _, err := client.Get(t.Context(), job.ID()); !errors.Is(err, ErrClosed) {
		t.Errorf("read after the end: %v", err)
	}
}

func TestContextOfAJobEndsWithIt(t *testing.T) {
	client := unreachableClient(t, quiet)
	defer func() { _ = client.Close() }()
	ctx, cancel := context.WithCancelCause(t.Context())
	job, err := client.Create(ctx, Spec{})
	if err != nil {
		t.Fatal(err)
	}
	if job.Context().Err() != nil || job.Cancelled() || job.Err() != nil {
		t.Error("it has ended before it began")
	}
	why := errors.New("why")
	cancel(why)
	<-job.Context().Done()
	if context.Cause(job.Context()) != why {
		t.Errorf("because of %v", context.Cause(job.Context()))
	}
	job.jobState.cancelled(&headwayv1.Cancellation{Requested: true, Reason: "late"})
	if !job.Cancelled() {
		t.Error("nobody cancelled it")
	}
}

func TestSecretsAreNeverWritten(t *testing.T) {
	var written bytes.Buffer
	client := unreachableClient(t, slog.New(slog.NewJSONHandler(&written, &slog.HandlerOptions{Level: slog.LevelDebug})))
	job, err := client.Create(t.Context(), Spec{Name: "Import"})
	if err != nil {
		t.Fatal(err)
	}
	config := Config{Target: "server:1", Session: "secret", Token: "hidden"}
	client.log.Info("all of it", "config", config, "client", client, "job", job)
	fmt.Fprintf(&written, "%v %+v %#v %s", config, config, config, &config)
	fmt.Fprintf(&written, "%v %+v %#v", client, client, client)
	fmt.Fprintf(&written, "%v %+v %#v", *client, *client, *client)
	fmt.Fprintf(&written, "%v %+v %#v", job, job, job)
	fmt.Fprint(&written, client.Close())
	if text := written.String(); strings.Contains(text, "secret") || strings.Contains(text, "hidden") {
		t.Error(text)
	}
}

func TestNoSessionSaysWhatToDo(t *testing.T) {
	t.Setenv("HEADWAY_SESSION", "")
	client, err := Open(Config{Logger: quiet})
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = client.Close() }()
	if _, err := client.Create(t.Context(), Spec{}); !errors.Is(err, ErrNoSession) || !strings.Contains(err.Error(), "HEADWAY_SESSION") {
		t.Error(err)
	}
}

func TestCloseLeavesNoGoroutine(t *testing.T) {
	client := unreachableClient(t, quiet)
	job, err := client.Create(t.Context(), Spec{})
	if err != nil {
		t.Fatal(err)
	}
	job.Advance(1)
	_ = client.Close()
	stacks := make([]byte, 1<<20)
	for end := time.Now().Add(5 * time.Second); ; runtime.Gosched() {
		// A goroutine that has closed its channel may still be on the stack.
		running := stacks[:runtime.Stack(stacks, true)]
		at := bytes.Index(running, []byte("clients/go.(*engine)"))
		if at < 0 {
			return
		}
		if time.Now().After(end) {
			t.Fatalf("%s", running[at:])
		}
	}
}

func TestReportsAfterAFailedFlushAreSpooled(t *testing.T) {
	for name, last := range map[string]func(*Job){"let go": func(*Job) {}, "ended": func(job *Job) { job.Finish(nil) }} {
		t.Run(name, func(t *testing.T) {
			client := unreachableClient(t, quiet)
			job, err := client.Create(t.Context(), Spec{})
			if err != nil {
				t.Fatal(err)
			}
			job.SetProgress(1)
			waited := newPendingCall(nil)
			waited.afterReports, waited.sampled = true, true
			client.engine.submit(job.jobState, waited)
			job.SetProgress(2)
			last(job)
			left := spooled(t, client)
			if len(left) < 2 || left[1].(*headwayv1.ReportProgressRequest).GetProgress() != 2 {
				t.Errorf("left: %v", left)
			}
		})
	}
}

func TestOfChangesThatWaitTheLastOneCounts(t *testing.T) {
	client := unreachableClient(t, quiet)
	job, err := client.Create(t.Context(), Spec{Name: "a"})
	if err != nil {
		t.Fatal(err)
	}
	for i := range 1000 {
		job.SetName(fmt.Sprint(i))
	}
	job.SetInvoker("b")
	left := spooled(t, client)
	if len(left) != 3 || left[1].(*headwayv1.UpdateJobRequest).GetJob().GetName() != "999" {
		t.Errorf("left: %v", left)
	}
}

func TestAnswerKeepsWhatTheServerDoesNotKnowYet(t *testing.T) {
	jobState := newJobState("s", &headwayv1.Job{Id: "j"}, newMeter("", 0, nil, nil), time.Minute, false, func(error) {})
	jobState.addCall(newPendingCall(&headwayv1.CreateJobRequest{JobId: "j"}))
	change := &headwayv1.UpdateJobRequest{
		Job: &headwayv1.Job{Name: "new"}, UpdateMask: &fieldmaskpb.FieldMask{Paths: []string{"name"}},
	}
	jobState.addCall(newPendingCall(change))
	jobState.cancelled(&headwayv1.Cancellation{Requested: true, Reason: "late"})
	jobState.answered(&headwayv1.Job{Id: "j", Name: "old", Invoker: "somebody", Revision: 1})
	if known := jobState.state.Load(); known.GetName() != "new" || known.GetInvoker() != "somebody" || !known.GetCancellation().GetRequested() {
		t.Errorf("known: %v", known)
	}
}

func TestClosedClientDoesNotWait(t *testing.T) {
	client := unreachableClient(t, quiet)
	client.exitTimeout = time.Minute
	job := client.newJob(t.Context(), "s", &headwayv1.Job{Id: newID()}, time.Minute, true)
	if err := client.Close(); err != nil {
		t.Error(err)
	}
	job.Advance(1)
	if err := job.Flush(t.Context()); err != ErrClosed {
		t.Errorf("flushed: %v", err)
	}
	job.Finish(nil)
}

func TestEngineForgetsAJobThatWaitsForAWorker(t *testing.T) {
	client := unreachableClient(t, quiet)
	defer func() { _ = client.Close() }()
	ctx, cancel := context.WithCancel(t.Context())
	job, err := client.Create(ctx, Spec{Pending: true})
	if err != nil {
		t.Fatal(err)
	}
	cancel()
	if job.Context().Err() != nil {
		t.Error("the job's context ends with its creator's")
	}
	held := make(chan int, 2)
	look := func() {
		client.engine.pump(time.Now())
		held <- len(client.engine.jobs)
	}
	client.engine.post(func() {
		look()
		job.jobState.answered(&headwayv1.Job{Id: job.ID(), Status: headwayv1.JobStatus_JOB_STATUS_PENDING})
		look()
	})
	if before, after := <-held, <-held; before != 1 || after != 0 {
		t.Errorf("held: %d, then %d", before, after)
	}
	job.SetName("again")
	if again := len(client.engine.active()); again != 1 {
		t.Errorf("held again: %d", again)
	}
	if job.jobState.heartbeat >= 0 {
		t.Error("its creator gives it heartbeats")
	}
}

func TestFlushReturnsTheErrorThatStoppedTheJob(t *testing.T) {
	client := unreachableClient(t, quiet)
	defer func() { _ = client.Close() }()
	job := client.newJob(t.Context(), "s", &headwayv1.Job{Id: newID()}, time.Minute, true)
	gone := &Error{Code: codes.FailedPrecondition, Reason: "STALE_ATTEMPT"}
	job.jobState.stop(gone)
	if err := job.Flush(t.Context()); err != gone {
		t.Errorf("flushed: %v", err)
	}
}

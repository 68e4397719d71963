package headway

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"os"
	"runtime"
	"strings"
	"testing"
	"time"

	"google.golang.org/protobuf/proto"

	"github.com/headway-project/headway/clients/go/headwayv1"
)

var quiet = slog.New(slog.DiscardHandler)

// nobody is a client of a server that is not there: what its jobs say ends up in the spool.
func nobody(t *testing.T, logger *slog.Logger) *Client {
	t.Helper()
	t.Setenv("HEADWAY_SPOOL", t.TempDir())
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

// lastWords closes the client and reads what it left.
func lastWords(t *testing.T, client *Client) []proto.Message {
	t.Helper()
	if err := client.Close(); !errors.Is(err, ErrUndelivered) {
		t.Errorf("closed with %v", err)
	}
	waiting := letters(client.target, "")
	if len(waiting) != 1 {
		t.Fatalf("waiting: %v", waiting)
	}
	data, err := os.ReadFile(waiting[0])
	if err != nil {
		t.Fatal(err)
	}
	left, err := decodeWords(data)
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
			client := nobody(t, quiet)
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
			left := lastWords(t, client)
			if _, created := left[0].(*headwayv1.CreateJobRequest); !created || len(left) != 2 {
				t.Fatalf("left: %v", left)
			}
			if end := strings.Join(strings.Fields(fmt.Sprint(left[1])), " "); !strings.Contains(strings.ReplaceAll(end, ": ", ":"), strings.ReplaceAll(c.want, ": ", ":")) {
				t.Errorf("%s\nwants %s", end, c.want)
			}
		})
	}
}

func TestLastValueIsWrittenDown(t *testing.T) {
	client := nobody(t, quiet)
	job, err := client.Create(t.Context(), Spec{})
	if err != nil {
		t.Fatal(err)
	}
	for i := range int64(1000) {
		job.SetProgress(i)
	}
	job.Part("b").Advance(5)
	left := lastWords(t, client)
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
	client := nobody(t, quiet)
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
	job.course.cancelled(&headwayv1.Cancellation{Requested: true, Reason: "late"})
	if !job.Cancelled() {
		t.Error("nobody cancelled it")
	}
}

func TestSecretsAreNeverWritten(t *testing.T) {
	var written bytes.Buffer
	client := nobody(t, slog.New(slog.NewJSONHandler(&written, &slog.HandlerOptions{Level: slog.LevelDebug})))
	job, err := client.Create(t.Context(), Spec{Name: "Import"})
	if err != nil {
		t.Fatal(err)
	}
	config := Config{Target: "server:1", Session: "secret", Token: "hidden"}
	client.log.Info("all of it", "config", config, "client", client, "job", job)
	fmt.Fprintf(&written, "%v %+v %#v %s", config, config, config, &config)
	fmt.Fprintf(&written, "%v %+v %#v", client, client, client)
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
	client := nobody(t, quiet)
	job, err := client.Create(t.Context(), Spec{})
	if err != nil {
		t.Fatal(err)
	}
	job.Advance(1)
	_ = client.Close()
	stacks := make([]byte, 1<<20)
	stacks = stacks[:runtime.Stack(stacks, true)]
	if at := bytes.Index(stacks, []byte("clients/go.(*engine)")); at >= 0 {
		t.Errorf("%s", stacks[at:])
	}
}

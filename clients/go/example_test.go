package headway_test

import (
	"context"
	"errors"
	"fmt"
	"log"
	"os"
	"os/signal"
	"sync"
	"time"

	headway "github.com/headway-project/headway/clients/go"
	"github.com/headway-project/headway/clients/go/headwayv1"
)

type record struct{}

func importRecord(context.Context, record) error { return nil }

var records []record

// A worker.
func Example() {
	client, err := headway.Open(headway.Config{})
	if err != nil {
		log.Fatal(err)
	}
	defer client.Close()

	work := func(ctx context.Context) (err error) {
		job, err := client.Create(ctx, headway.Spec{Name: "Import", Unit: "records"})
		if err != nil {
			return err
		}
		defer job.Close(&err)
		for _, record := range headway.TrackSlice(job, records) {
			if err := importRecord(job.Context(), record); err != nil {
				return err
			}
		}
		return nil
	}
	if err := work(context.Background()); err != nil {
		log.Print(err)
	}
}

func ExampleOpen() {
	client, err := headway.Open(headway.Config{
		Target:      "https://headway.example:443",
		CA:          "/etc/ssl/our-ca.pem",
		Session:     os.Getenv("CGISESSID"),
		ExitTimeout: 3 * time.Second,
	})
	if err != nil {
		log.Fatal(err)
	}
	defer client.Close()
	another := client.Session("another session")
	_, _ = another.Get(context.Background(), "0190b5a1c8d07b2a9c3e5f60718293a4")
}

func ExampleClient_Create() {
	var client *headway.Client
	ctx := context.Background()
	job, err := client.Create(ctx, headway.Spec{
		Name:             "Import MARC records",
		Invoker:          "staged.pl",
		Size:             40_000,
		Unit:             "records",
		Labels:           map[string]string{"branch": "CPL"},
		HeartbeatTimeout: 30 * time.Second,
		StallTimeout:     5 * time.Minute,
	})
	if errors.Is(err, headway.ErrInvalid) {
		log.Print("it can not be created so: ", err)
	}
	_ = job
}

func ExampleJob() {
	var job *headway.Job

	job.SetProgress(10)
	job.Advance(1)
	job.Count("added", 1)
	job.RecordError("ocm0042", "BAD_LEADER", "type of record ' '")
	job.SetMessage("reading authorities")
	job.SetSize(50_000)
	job.Set(map[string]any{"file": "books.mrc"})
	job.Checkpoint(map[string]any{"offset": 1 << 20})

	job.Finish(map[string]any{"added": 12})
	job.Fail(errors.New("the disk is full"))
}

func ExampleJob_Part() {
	var job *headway.Job
	var workers sync.WaitGroup
	for _, file := range []string{"a.mrc", "b.mrc"} {
		part := job.Part(file)
		workers.Go(func() {
			for range headway.TrackSlice(part, records) {
			}
		})
	}
	workers.Wait()
}

func ExampleJob_Context() {
	var job *headway.Job
	work := func() error {
		for _, record := range headway.TrackSlice(job, records) {
			if err := importRecord(job.Context(), record); err != nil {
				return err
			}
			if job.Context().Err() != nil {
				return context.Cause(job.Context())
			}
		}
		return nil
	}
	err := work()
	if cancelled := (*headway.CancelledError)(nil); errors.As(err, &cancelled) {
		log.Printf("cancelled (%s), time until %v", cancelled.Reason, cancelled.Deadline)
	}
}

func ExampleJob_Close() {
	var client *headway.Client
	// Ctrl-C cancels the context, and so the job ends CANCELLED.
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt)
	defer stop()
	_ = func() (err error) {
		job, err := client.Create(ctx, headway.Spec{Name: "Import"})
		if err != nil {
			return err
		}
		defer job.Close(&err)
		job.SetResults(map[string]any{"added": 12})
		return job.Context().Err()
	}()
}

func ExampleJob_Stopped() {
	var job *headway.Job
	<-job.Stopped()
	log.Print("this worker is no longer wanted: ", job.Err())
}

func ExampleClient_Resume() {
	var client *headway.Client
	ctx := context.Background()
	job, err := client.Resume(ctx, "0190b5a1c8d07b2a9c3e5f60718293a4")
	fmt.Println("going on at", job.Progress(), err)
}

func ExampleClient_Create_key() {
	var client *headway.Client
	ctx := context.Background()
	job, err := client.Create(ctx, headway.Spec{Name: "Nightly import", Key: "nightly-2026-11"})
	if err != nil {
		log.Fatal(err)
	}
	offset, err := job.Get(ctx, "offset")
	fmt.Println("going on at", offset, err)
}

func ExampleClient_Watch() {
	var client *headway.Client
	ctx, cancel := context.WithTimeout(context.Background(), time.Hour)
	defer cancel()
	for job, err := range client.Watch(ctx, "0190b5a1c8d07b2a9c3e5f60718293a4", 0) {
		if err != nil {
			log.Fatal(err)
		}
		fmt.Println(job.GetStatus(), job.GetProgress(), job.GetSize())
	}
}

func ExampleClient_List() {
	var client *headway.Client
	ctx, id := context.Background(), "0190b5a1c8d07b2a9c3e5f60718293a4"
	running := headway.Filter{Statuses: []headwayv1.JobStatus{headwayv1.JobStatus_JOB_STATUS_RUNNING}}
	for job, err := range client.List(ctx, running) {
		fmt.Println(job.GetName(), err)
	}
	state, err := client.Get(ctx, id)
	results, err := client.Results(ctx, id)
	variables, err := client.Variables(ctx, id, "offset")
	faults, err := client.RecordErrors(ctx, id)
	state, err = client.Cancel(ctx, id, "the wrong file")
	state, err = client.CancelWithin(ctx, id, "at once", 0)
	state, err = client.Wait(ctx, id)
	err = client.Clear(ctx, id)
	fmt.Println(state, results, variables, faults, err)
}

func ExampleClient_Stub() {
	var client *headway.Client
	ctx := context.Background()
	answer, err := client.Stub().StartJob(ctx, &headwayv1.StartJobRequest{
		SessionId: os.Getenv("HEADWAY_SESSION"), JobId: "0190b5a1c8d07b2a9c3e5f60718293a4",
	})
	fmt.Println(answer, err)
}

func ExampleError() {
	var client *headway.Client
	_, err := client.Get(context.Background(), "0190b5a1c8d07b2a9c3e5f60718293a4")
	if fault := (*headway.Error)(nil); errors.As(err, &fault) {
		fmt.Println(fault.Code, fault.Reason, fault.Message, fault.Fields, fault.RetryAfter)
	}
	switch {
	case errors.Is(err, headway.ErrNotFound):
	case errors.Is(err, headway.ErrState):
	case errors.Is(err, headway.ErrUnavailable):
	}
}

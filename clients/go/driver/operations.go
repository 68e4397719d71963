package main

import (
	"context"
	"errors"
	"time"

	"google.golang.org/grpc/codes"

	headway "github.com/headway-project/headway/clients/go"
	"github.com/headway-project/headway/clients/go/headwayv1"
)

type arguments struct {
	ID          any
	Op          string
	Job         string
	Of          string
	Session     *string
	ExitTimeout *float64 `json:"exit_timeout"`
	CallTimeout *float64 `json:"call_timeout"`
	Token       string
	Target      string

	Name      *string
	Invoker   string
	Size      int64
	Unit      string
	Labels    map[string]string
	Heartbeat *float64 `json:"heartbeat_timeout"`
	Stall     *float64 `json:"stall_timeout"`
	Retention *float64
	Pending   bool
	JobID     string `json:"job_id"`
	Continues string
	Key       string

	Part       string
	Value      any
	Times      *int
	By         *int64
	Items      int
	StopBefore int `json:"stop_before"`
	Counter    string
	Record     string
	Message    string
	Code       any
	Variables  map[string]any
	Results    any
	How        string
	Timeout    *float64
	Reason     string
	Grace      *float64
	Statuses   []string
	Stalled    *bool
	PageSize   int32 `json:"page_size"`
	Names      []string
}

type driver struct {
	client *headway.Client
	jobs   map[string]*headway.Job
}

func span(seconds *float64) time.Duration {
	if seconds == nil {
		return 0
	}
	return time.Duration(*seconds * float64(time.Second))
}

// orNever is for durations whose zero value means the default.
func orNever(seconds *float64) time.Duration {
	if seconds != nil && *seconds == 0 {
		return headway.Never
	}
	return span(seconds)
}

func isTimeout(err error) bool { return errors.Is(err, context.DeadlineExceeded) }

// within is a context for an operation whose case may give a time limit.
func (a *arguments) within() (context.Context, context.CancelFunc) {
	if a.Timeout == nil {
		return context.WithCancel(context.Background())
	}
	return context.WithTimeout(context.Background(), span(a.Timeout))
}

func (a *arguments) times() int64 {
	if a.Times == nil {
		return 1
	}
	return int64(*a.Times)
}

func (a *arguments) by() int64 {
	if a.By == nil {
		return 1
	}
	return *a.By
}

func (a *arguments) text() string {
	text, _ := a.Value.(string)
	return text
}

func (a *arguments) number() int64 {
	number, _ := a.Value.(float64)
	return int64(number)
}

func (a *arguments) name() string {
	if a.Name == nil {
		return ""
	}
	return *a.Name
}

// do carries out one operation.
func (d *driver) do(a *arguments) (any, error) {
	ctx := context.Background()
	if a.Op == "connect" {
		client, err := headway.Open(headway.Config{
			Target: a.Target, Token: a.Token, ExitTimeout: orNever(a.ExitTimeout), CallTimeout: span(a.CallTimeout),
		})
		d.client = client
		return nil, err
	}
	if d.client == nil {
		return nil, errors.New("connect comes first")
	}
	client := d.client
	if a.Session != nil {
		client = client.Session(*a.Session)
	}
	if job, ok := d.jobs[a.Job]; ok && a.Op != "create" && a.Op != "resume" && a.Op != "fetch" {
		return d.onJob(ctx, job, a)
	}
	switch a.Op {
	case "close":
		// Undelivered reports are a warning, as for a worker.
		_ = client.Close()
		return nil, nil
	case "create":
		job, err := client.Create(ctx, headway.Spec{
			ID: a.JobID, Name: a.name(), Invoker: a.Invoker, Size: a.Size, Unit: a.Unit, Labels: a.Labels,
			HeartbeatTimeout: orNever(a.Heartbeat), StallTimeout: span(a.Stall), Retention: span(a.Retention), Pending: a.Pending,
			Continues: a.Continues, Key: a.Key,
		})
		return d.keep(a, job, err)
	case "resume":
		job, err := client.Resume(ctx, a.Of)
		return d.keep(a, job, err)
	case "fetch":
		job, err := client.Fetch(ctx, a.Of)
		if errors.Is(err, headway.ErrNotFound) {
			return nil, nil
		}
		return d.keep(a, job, err)
	case "cancel":
		if a.Grace != nil {
			return asState(client.CancelWithin(ctx, a.Of, a.Reason, span(a.Grace)))
		}
		return asState(client.Cancel(ctx, a.Of, a.Reason))
	case "clear":
		return nil, client.Clear(ctx, a.Of)
	case "read":
		return asState(client.Get(ctx, a.Of))
	case "list":
		return list(ctx, client, a)
	case "results":
		return client.Results(ctx, a.Of)
	case "variables":
		return client.Variables(ctx, a.Of, a.Names...)
	case "record_errors":
		found, err := client.RecordErrors(ctx, a.Of)
		return map[string]any{"first": records(found.GetFirst()), "last": records(found.GetLast()), "total": found.GetTotal()}, err
	case "watch":
		return watch(client, a)
	case "wait":
		ctx, cancel := a.within()
		defer cancel()
		return asState(client.Wait(ctx, a.Of))
	case "flush_spool":
		report := client.FlushSpool(ctx)
		return map[string]int{"sent": report.Sent, "refused": report.Refused, "waiting": report.Waiting}, nil
	}
	return nil, errUnsupported
}

func (d *driver) keep(a *arguments, job *headway.Job, err error) (any, error) {
	if err != nil {
		return nil, err
	}
	d.jobs[a.Job] = job
	return view(job), nil
}

func list(ctx context.Context, client *headway.Client, a *arguments) (any, error) {
	filter := headway.Filter{
		Name: a.name(), Invoker: a.Invoker, Labels: a.Labels, Stalled: a.Stalled, PageSize: a.PageSize,
	}
	for _, status := range a.Statuses {
		filter.Statuses = append(filter.Statuses, headwayv1.JobStatus(headwayv1.JobStatus_value["JOB_STATUS_"+status]))
	}
	found := []any{}
	for job, err := range client.List(ctx, filter) {
		if err != nil {
			return nil, err
		}
		found = append(found, state(job))
	}
	return found, nil
}

func watch(client *headway.Client, a *arguments) (any, error) {
	ctx, cancel := a.within()
	defer cancel()
	seen := [][3]any{}
	for job, err := range client.Watch(ctx, a.Of, 0) {
		if err != nil {
			return nil, err
		}
		seen = append(seen, [3]any{job.GetRevision(), status(job.GetStatus()), job.GetProgress()})
	}
	return seen, nil
}

// code is a google.rpc.Code by its name or number.
func (a *arguments) code() codes.Code {
	switch known := a.Code.(type) {
	case float64:
		return codes.Code(known)
	case string:
		for code, name := range codeNames {
			if name == known {
				return code
			}
		}
	}
	return codes.Unknown
}

// track leaves the loop in the item stopBefore, and returns the number of items seen.
func track(job headway.Tracker, count, stopBefore int) int {
	seen := 0
	for index := range headway.TrackSlice(job, make([]struct{}, count)) {
		seen++
		if index+1 == stopBefore {
			break
		}
	}
	return seen
}

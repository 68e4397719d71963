package headway

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"strings"
	"sync"
	"time"

	statuspb "google.golang.org/genproto/googleapis/rpc/status"
	"google.golang.org/grpc/codes"
	"google.golang.org/protobuf/types/known/fieldmaskpb"
	"google.golang.org/protobuf/types/known/structpb"

	"github.com/headway-project/headway/clients/go/headwayv1"
)

// Job is a job as its worker sees it; made by [Client.Create], [Client.Resume] and [Client.Fetch]. It is also the
// [Meter] with the empty name.
//
// All methods are safe from many goroutines. Those that change the job return at once. Only the methods that end it
// wait until the server has stored the end: at most Config.ExitTimeout, and not while the server is unreachable. The
// rest goes on in the background.
type Job struct {
	*Meter
	client   *Client
	jobState *jobState
	ctx      context.Context

	mu      sync.Mutex
	ended   bool
	known   map[string]*structpb.Value
	results any
}

func (c *Client) newJob(ctx context.Context, session string, state *headwayv1.Job, heartbeat time.Duration, started bool) *Job {
	job := &Job{client: c.Session(session), known: map[string]*structpb.Value{}}
	job.Meter = newMeter("", state.GetParts()[""], job.join, job.expect)
	ctx, wake := context.WithCancelCause(ctx)
	job.ctx = ctx
	job.jobState = newJobState(session, state, job.Meter, heartbeat, started, wake)
	job.jobState.learn(state)
	return job
}

// Format keeps the session out of what fmt prints.
func (j *Job) Format(out fmt.State, _ rune) {
	_, _ = fmt.Fprintf(out, "headway.Job(%s %q %s)", j.ID(), j.Name(), strings.TrimPrefix(j.Status().String(), "JOB_STATUS_"))
}

// Context is done when the work is over or no longer needed. Its cause (context.Cause) is a [*CancelledError] after a
// cancellation request, the [*Error] if the server accepts no more reports of this worker, and context.Canceled after
// the end. Otherwise it behaves as the context that the job was created with.
func (j *Job) Context() context.Context { return j.ctx }

// Stopped is closed if the server accepts no more reports of this worker: another worker has taken the job over, or the
// job has ended elsewhere, or was cleared. [Job.Err] says which.
func (j *Job) Stopped() <-chan struct{} { return j.jobState.stopped }

// Err is why the server accepts no more reports of this worker (an [*Error] with the reasons STALE_ATTEMPT, JOB_ENDED,
// …); nil as long as it does.
func (j *Job) Err() error {
	if err := j.jobState.err.Load(); err != nil {
		return err
	}
	return nil
}

// State is the server's last description of the job; [Job.Refresh] renews it. It must not be changed.
func (j *Job) State() *headwayv1.Job { return j.jobState.state.Load() }

// ID is 32 hexadecimal digits, chosen by the client that created the job.
func (j *Job) ID() string { return j.jobState.id }

// Name describes the job to people.
func (j *Job) Name() string { return j.State().GetName() }

// Invoker says who or what started the job.
func (j *Job) Invoker() string { return j.State().GetInvoker() }

// Unit names what is counted: "records".
func (j *Job) Unit() string { return j.State().GetUnit() }

// Attempt is the number of this worker: 1, and one more after each take-over; 0 before the server has answered.
func (j *Job) Attempt() int32 { return j.jobState.attempt.Load() }

// Status is the status that the server last reported; [Job.Refresh] renews it.
func (j *Job) Status() headwayv1.JobStatus { return j.State().GetStatus() }

// Cancelled reports whether somebody has requested cancellation.
func (j *Job) Cancelled() bool { return j.State().GetCancellation().GetRequested() }

// Size is the amount of work, in units; 0 = not known.
func (j *Job) Size() int64 {
	j.Meter.mu.Lock()
	defer j.Meter.mu.Unlock()
	if j.size != nil {
		return *j.size
	}
	return j.State().GetSize()
}

// SetSize sets the amount of work, in units; 0 = not known.
func (j *Job) SetSize(units int64) {
	j.touch()
	units = max(units, 0)
	j.Meter.mu.Lock()
	defer j.Meter.mu.Unlock()
	j.size = &units
}

// Message is the last text given to [Meter.SetMessage] here.
func (j *Job) Message() string {
	j.Meter.mu.Lock()
	defer j.Meter.mu.Unlock()
	if j.message != nil {
		return *j.message
	}
	return ""
}

// SetName sets the job's description for people: the first 256 characters.
func (j *Job) SetName(name string) {
	name = clean(name, maxNameChars)
	j.update("name", &headwayv1.Job{Id: j.ID(), Name: name}, func(job *headwayv1.Job) { job.Name = name })
}

// SetInvoker sets who or what started the job: the first 256 characters.
func (j *Job) SetInvoker(invoker string) {
	invoker = clean(invoker, maxNameChars)
	j.update("invoker", &headwayv1.Job{Id: j.ID(), Invoker: invoker}, func(job *headwayv1.Job) { job.Invoker = invoker })
}

func (j *Job) update(field string, changed *headwayv1.Job, change func(*headwayv1.Job)) {
	j.jobState.describe(change)
	j.client.engine.submit(j.jobState, newPendingCall(&headwayv1.UpdateJobRequest{
		SessionId: j.jobState.session, Job: changed, UpdateMask: &fieldmaskpb.FieldMask{Paths: []string{field}},
	}))
}

// Part is one part of the job, for a goroutine or process that shares it. Its progress adds to the job's. Names have at
// most 128 characters, a job has at most 256 parts.
func (j *Job) Part(name string) *Meter {
	j.touch()
	return j.jobState.addPart(clean(name, maxCounterChars))
}

// Set merges into the job's variables; see [Meter.Set].
func (j *Job) Set(variables map[string]any) { j.merge(toFields(variables), false) }

// Checkpoint merges variables together with the progress of this moment; see [Meter.Checkpoint].
func (j *Job) Checkpoint(variables map[string]any) { j.merge(toFields(variables), true) }

func (j *Job) merge(fields map[string]*structpb.Value, withCheckpoint bool) {
	j.mu.Lock()
	maps.Copy(j.known, fields)
	j.mu.Unlock()
	j.Meter.merge(fields, withCheckpoint)
}

// Get returns a variable as encoding/json would decode it, nil if it was never set. Variables that this process set or
// took over come from memory. For others it asks the server, and returns its error.
func (j *Job) Get(ctx context.Context, name string) (any, error) {
	j.mu.Lock()
	value, known := j.known[name]
	j.mu.Unlock()
	if known {
		return value.AsInterface(), nil
	}
	found, err := j.client.Variables(ctx, j.ID(), name)
	return found[name], err
}

// Results are the results set here. Of a fetched job they are those of that moment, nil unless it was COMPLETED.
func (j *Job) Results() any {
	j.mu.Lock()
	defer j.mu.Unlock()
	return j.results
}

// SetResults sets the job's results, for [Job.Close]: usually a map, at most 1 MiB as JSON.
func (j *Job) SetResults(results any) {
	j.mu.Lock()
	defer j.mu.Unlock()
	j.results = results
}

// Refresh asks the server for the job's current state.
func (j *Job) Refresh(ctx context.Context) error {
	state, err := j.client.Get(ctx, j.ID())
	if err != nil {
		return err
	}
	j.jobState.learn(state)
	return j.fetchResults(ctx)
}

func (j *Job) fetchResults(ctx context.Context) error {
	if j.Status() != headwayv1.JobStatus_JOB_STATUS_COMPLETED || j.Results() != nil {
		return nil
	}
	results, err := j.client.Results(ctx, j.ID())
	if err == nil {
		j.SetResults(results)
	}
	return err
}

// Flush waits until everything reported so far is stored. It waits until the context ends, or at most
// Config.ExitTimeout if the context has no deadline; the error is then context.DeadlineExceeded or the context's cause.
// It returns [Job.Err] if the server accepts no more of this worker, and ErrClosed after [Client.Close].
func (j *Job) Flush(ctx context.Context) error {
	if _, bounded := ctx.Deadline(); !bounded {
		var cancel context.CancelFunc
		ctx, cancel = context.WithTimeout(ctx, j.client.exitTimeout)
		defer cancel()
	}
	late := j.client.engine.waitDelivered(ctx, []*jobState{j.jobState})
	switch {
	case j.Err() != nil:
		return j.Err()
	case len(late) == 0:
		return nil
	case ctx.Err() == nil:
		return ErrClosed
	}
	return context.Cause(ctx)
}

// Finish ends the job as COMPLETED, with these results. If they are nil, the results set before count.
func (j *Job) Finish(results any) {
	if results != nil {
		j.SetResults(results)
	}
	j.end(nil)
}

// Fail ends the job as FAILED because of this error; as CANCELLED if it is a [*CancelledError] or context.Canceled.
func (j *Job) Fail(err error) {
	if err == nil {
		err = errors.New("failed")
	}
	code := codes.Unknown
	if errors.Is(err, context.Canceled) {
		code = codes.Canceled
	}
	j.FailWith(code, j.explain(err))
}

// FailWith is [Job.Fail] with a google.rpc.Code other than OK and a text of at most 1,024 characters.
func (j *Job) FailWith(code codes.Code, message string) {
	if code == codes.OK {
		code = codes.Unknown
	}
	j.end(&statuspb.Status{Code: int32(code), Message: clean(message, maxMessageChars)})
}

// explain replaces a bare context.Canceled, which says nothing, by the cause of the job's context.
func (j *Job) explain(err error) string {
	if cancelled := (*CancelledError)(nil); err == context.Canceled && errors.As(context.Cause(j.ctx), &cancelled) {
		err = cancelled
	}
	return inText(err)
}

// Close ends the job together with the function that works on it. Defer it:
//
//	defer job.Close(&err)
//
// The job ends COMPLETED, with the results set, if *err is nil; CANCELLED if it is a [*CancelledError] or
// context.Canceled; else FAILED. A panic fails the job and goes on. Close has no effect on a job that has already
// ended. err itself may be nil: then only a panic fails the job.
func (j *Job) Close(err *error) {
	if fault := recover(); fault != nil {
		j.FailWith(codes.Unknown, strings.TrimSpace("panic: "+fmt.Sprint(fault)))
		panic(fault)
	}
	if err == nil || *err == nil {
		j.end(nil)
	} else {
		j.Fail(*err)
	}
}

func (j *Job) end(failure *statuspb.Status) {
	j.mu.Lock()
	again := j.ended
	j.ended = true
	results := j.results
	j.mu.Unlock()
	if again {
		return
	}
	var end *pendingCall
	if failure != nil {
		end = newPendingCall(&headwayv1.FailJobRequest{SessionId: j.jobState.session, JobId: j.ID(), Error: failure})
	} else {
		request := &headwayv1.FinishJobRequest{SessionId: j.jobState.session, JobId: j.ID()}
		if results != nil {
			request.Results = toValue(results, 0)
		}
		end = newPendingCall(request)
	}
	end.afterReports = true
	j.client.engine.submit(j.jobState, end)
	limit := time.NewTimer(j.client.exitTimeout)
	defer limit.Stop()
	select {
	case <-end.tried:
	case <-limit.C:
	}
}

// Cancel asks the job's worker to end early; see [Client.Cancel].
func (j *Job) Cancel(ctx context.Context, reason string) error {
	state, err := j.client.Cancel(ctx, j.ID(), reason)
	if err == nil {
		j.jobState.learn(state)
	}
	return err
}

// Clear removes the job and everything that belongs to it. Nothing more is reported.
func (j *Job) Clear(ctx context.Context) error {
	j.mu.Lock()
	j.ended = true
	j.mu.Unlock()
	last := newPendingCall(nil)
	last.release = true
	j.client.engine.submit(j.jobState, last)
	return j.client.Clear(ctx, j.ID())
}

// Wait waits until the job has ended, no matter who ends it; see [Client.Wait].
func (j *Job) Wait(ctx context.Context) (*headwayv1.Job, error) {
	state, err := j.client.Wait(ctx, j.ID())
	if err == nil {
		j.jobState.learn(state)
	}
	return state, err
}

func (j *Job) join() {
	if j.fetchedOnly.Swap(false) {
		j.client.engine.submit(j.jobState)
	}
}

func (j *Job) expect(units int64) {
	if j.Size() == 0 {
		j.SetSize(units)
	}
}

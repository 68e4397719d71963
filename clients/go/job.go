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

// Job is a job in the hands of its worker; made by [Client.Create], [Client.Resume] and [Client.Fetch]. It is itself the
// [Meter] with the empty name.
//
// All methods are safe from many goroutines. Those that change it return at once, but for the ends, which wait until the
// server has them: as long as it answers, at most Config.ExitTimeout; what is left goes on in the background.
type Job struct {
	*Meter
	client *Client
	course *course
	ctx    context.Context

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
	job.course = newCourse(session, state, job.Meter, heartbeat, started, wake)
	job.course.learn(state)
	return job
}

// Format keeps the session out of what fmt prints.
func (j *Job) Format(out fmt.State, _ rune) {
	_, _ = fmt.Fprintf(out, "headway.Job(%s %q %s)", j.ID(), j.Name(), strings.TrimPrefix(j.Status().String(), "JOB_STATUS_"))
}

// Context is done once the work is for nothing, or over. Its cause (context.Cause) is a [*CancelledError] once somebody
// wants the job to end early, the [*Error] once the server takes no more reports of this worker, and context.Canceled
// after the end. Otherwise it is as the context that the job was created with.
func (j *Job) Context() context.Context { return j.ctx }

// Stopped is closed once the server takes no more reports of this worker: another has taken the job over, or it has ended
// without this one, or was cleared. [Job.Err] says which.
func (j *Job) Stopped() <-chan struct{} { return j.course.stopped }

// Err is why the server takes no more reports of this worker (an [*Error] with the reasons STALE_ATTEMPT, JOB_ENDED, …);
// nil as long as it does.
func (j *Job) Err() error {
	if err := j.course.err.Load(); err != nil {
		return err
	}
	return nil
}

// State is all that the server last said of the job; [Job.Refresh] asks it. It must not be changed.
func (j *Job) State() *headwayv1.Job { return j.course.state.Load() }

// ID is 32 hexadecimal digits, chosen by the client that created the job.
func (j *Job) ID() string { return j.course.id }

// Name is what the job is, for people.
func (j *Job) Name() string { return j.State().GetName() }

// Invoker is who or what started it.
func (j *Job) Invoker() string { return j.State().GetInvoker() }

// Unit is what is counted: "records".
func (j *Job) Unit() string { return j.State().GetUnit() }

// Attempt is which worker this is: 1, and one more after each take-over; 0 before the server has answered.
func (j *Job) Attempt() int32 { return j.course.attempt.Load() }

// Status is as the server last said; [Job.Refresh] asks it.
func (j *Job) Status() headwayv1.JobStatus { return j.State().GetStatus() }

// Cancelled says whether somebody wants the job to end early.
func (j *Job) Cancelled() bool { return j.State().GetCancellation().GetRequested() }

// Size is how much there is to do, in units; 0 = not known.
func (j *Job) Size() int64 {
	j.Meter.mu.Lock()
	defer j.Meter.mu.Unlock()
	if j.size != nil {
		return *j.size
	}
	return j.State().GetSize()
}

// SetSize says how much there is to do, in units; 0 = not known.
func (j *Job) SetSize(units int64) {
	j.touch()
	units = max(units, 0)
	j.Meter.mu.Lock()
	defer j.Meter.mu.Unlock()
	j.size = &units
}

// Message is what [Meter.SetMessage] said last here.
func (j *Job) Message() string {
	j.Meter.mu.Lock()
	defer j.Meter.mu.Unlock()
	if j.message != nil {
		return *j.message
	}
	return ""
}

// SetName says what the job is, for people: the first 256 characters.
func (j *Job) SetName(name string) {
	name = clean(name, lettersName)
	j.update("name", &headwayv1.Job{Id: j.ID(), Name: name}, func(job *headwayv1.Job) { job.Name = name })
}

// SetInvoker says who or what started it: the first 256 characters.
func (j *Job) SetInvoker(invoker string) {
	invoker = clean(invoker, lettersName)
	j.update("invoker", &headwayv1.Job{Id: j.ID(), Invoker: invoker}, func(job *headwayv1.Job) { job.Invoker = invoker })
}

func (j *Job) update(field string, changed *headwayv1.Job, change func(*headwayv1.Job)) {
	j.course.describe(change)
	j.client.engine.submit(j.course, newStep(&headwayv1.UpdateJobRequest{
		SessionId: j.course.session, Job: changed, UpdateMask: &fieldmaskpb.FieldMask{Paths: []string{field}},
	}))
}

// Part is one part of the job, for a goroutine or process that shares it: its progress adds to the job's. Names have at
// most 128 characters, a job at most 256 parts.
func (j *Job) Part(name string) *Meter {
	j.touch()
	return j.course.addPart(clean(name, lettersCounter))
}

// Set merges into the job's variables; see [Meter.Set].
func (j *Job) Set(variables map[string]any) { j.merge(toFields(variables), false) }

// Checkpoint merges variables together with the progress of this moment; see [Meter.Checkpoint].
func (j *Job) Checkpoint(variables map[string]any) { j.merge(toFields(variables), true) }

func (j *Job) merge(fields map[string]*structpb.Value, withCut bool) {
	j.mu.Lock()
	maps.Copy(j.known, fields)
	j.mu.Unlock()
	j.Meter.merge(fields, withCut)
}

// Get is a variable as encoding/json would decode it, nil if it was never set. What this process set, or took over, is
// answered from memory; for the rest the server is asked, and an error is its.
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

// Results are those set here; of a fetched job, as they were then, nil unless it was COMPLETED.
func (j *Job) Results() any {
	j.mu.Lock()
	defer j.mu.Unlock()
	return j.results
}

// SetResults says what came of the job, for [Job.Close]: a map by custom, at most 1 MiB as JSON.
func (j *Job) SetResults(results any) {
	j.mu.Lock()
	defer j.mu.Unlock()
	j.results = results
}

// Refresh asks the server how the job stands.
func (j *Job) Refresh(ctx context.Context) error {
	state, err := j.client.Get(ctx, j.ID())
	if err != nil {
		return err
	}
	j.course.learn(state)
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

// Flush waits until all said so far is stored, as long as the context lasts, and if that has no deadline at most
// Config.ExitTimeout; then it is context.DeadlineExceeded or what the context says. [Job.Err] if the server takes no more
// of this worker, and ErrClosed after [Client.Close].
func (j *Job) Flush(ctx context.Context) error {
	if _, bounded := ctx.Deadline(); !bounded {
		var cancel context.CancelFunc
		ctx, cancel = context.WithTimeout(ctx, j.client.exitTimeout)
		defer cancel()
	}
	late := j.client.engine.linger(ctx, []*course{j.course})
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

// Finish ends the job as COMPLETED, with these results, or if they are nil with those set before.
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
	j.end(&statuspb.Status{Code: int32(code), Message: clean(message, lettersMessage)})
}

// explain gives for a bare context.Canceled, which says nothing, what cancelled the job's context.
func (j *Job) explain(err error) string {
	if wish := (*CancelledError)(nil); err == context.Canceled && errors.As(context.Cause(j.ctx), &wish) {
		err = wish
	}
	return inText(err)
}

// Close ends the job with the function that works on it, and is meant to be deferred:
//
//	defer job.Close(&err)
//
// The job ends COMPLETED, with the results set, if *err is nil; CANCELLED if it is a [*CancelledError] or
// context.Canceled; else FAILED. A panic fails the job and goes on. Without effect on a job that has ended already.
// err itself may be nil: then only a panic fails the job.
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
	var end *step
	if failure != nil {
		end = newStep(&headwayv1.FailJobRequest{SessionId: j.course.session, JobId: j.ID(), Error: failure})
	} else {
		request := &headwayv1.FinishJobRequest{SessionId: j.course.session, JobId: j.ID()}
		if results != nil {
			request.Results = toValue(results, 0)
		}
		end = newStep(request)
	}
	end.afterReports = true
	j.client.engine.submit(j.course, end)
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
		j.course.learn(state)
	}
	return err
}

// Clear removes the job and all that belongs to it; nothing more is reported.
func (j *Job) Clear(ctx context.Context) error {
	j.mu.Lock()
	j.ended = true
	j.mu.Unlock()
	last := newStep(nil)
	last.release = true
	j.client.engine.submit(j.course, last)
	return j.client.Clear(ctx, j.ID())
}

// Wait waits until the job has ended, whoever ends it; see [Client.Wait].
func (j *Job) Wait(ctx context.Context) (*headwayv1.Job, error) {
	state, err := j.client.Wait(ctx, j.ID())
	if err == nil {
		j.course.learn(state)
	}
	return state, err
}

func (j *Job) join() {
	if j.still.Swap(false) {
		j.client.engine.submit(j.course)
	}
}

func (j *Job) expect(units int64) {
	if j.Size() == 0 {
		j.SetSize(units)
	}
}

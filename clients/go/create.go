package headway

import (
	"context"
	"errors"
	"slices"
	"time"
	"unicode/utf8"

	"google.golang.org/grpc/codes"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/durationpb"

	"github.com/headway-project/headway/clients/go/headwayv1"
)

const (
	// DefaultHeartbeatTimeout is that of jobs that are created without one.
	DefaultHeartbeatTimeout = time.Minute
	// Never, as Spec.HeartbeatTimeout: the job never counts as lost.
	Never time.Duration = -1

	createPatience = time.Second
	// findTimeout is how long a job waits that another one's worker may have begun: without the answer all that work
	// would be done again.
	findTimeout = 5 * time.Second
)

// Spec says what a job is. Everything is optional.
type Spec struct {
	// ID is 32 lower-case hexadecimal digits of one's own. Default: a new UUIDv7.
	ID string
	// Name is what the job is, for people; at most 256 characters.
	Name string
	// Invoker is who or what starts it; at most 256 characters.
	Invoker string
	// Size is how much there is to do, in units; 0 = not known yet.
	Size int64
	// Unit is what is counted: "records"; at most 32 characters.
	Unit string
	// Labels are for filters; at most 64, keys of 1 to 63 and values of at most 256 characters.
	Labels map[string]string
	// HeartbeatTimeout: no contact for this long, and the job counts as LOST. Default: [DefaultHeartbeatTimeout].
	HeartbeatTimeout time.Duration
	// StallTimeout: no progress for this long, and it counts as stalled. Default: never.
	StallTimeout time.Duration
	// Retention is how long it is kept after its end. Default: the server's setting.
	Retention time.Duration
	// Pending: the job waits for a worker, who calls [Client.Resume]. Its creator gives it no heartbeats, and need not
	// close it; the context of its creator's Job does not end with the one given to Create.
	Pending bool
	// Continues is the id of a job that has ended, or is LOST: the new one begins with its name, invoker, size, unit,
	// labels, progress, counters and variables, the checkpoint. What is set here wins.
	Continues string
	// Key finds the unfinished job of the session that has it, and takes it over from its worker; if there is none, the
	// job is created with it. So Create can be called at every start: "nightly-2026-11"; at most 256 characters. A key
	// is no lock: a former worker that is still at work learns of it by [Job.Stopped].
	Key string
}

// Create creates a job and begins to work on it. The job's context is made from ctx.
//
// If the server does not answer, the job is created in the background, under the id that it has already; that takes a
// refused connection, or at most a second. One with a Key or that Continues another takes 5 s at most, and begins anew then;
// should an unfinished job have the key, it is created without it. [ErrNoSession] without a session. An [*Error] if the server answers at once
// that this cannot be: ErrInvalid for a malformed request, or the codes AlreadyExists, Unauthenticated, PermissionDenied;
// of Continues ErrNotFound, or ErrState with the reason JOB_NOT_ENDED or JOB_ALREADY_CONTINUED.
func (c *Client) Create(ctx context.Context, spec Spec) (*Job, error) {
	session, err := c.in()
	if err != nil {
		return nil, err
	}
	if err := ctx.Err(); err != nil {
		return nil, err
	}
	if !utf8.ValidString(session) || !utf8.ValidString(spec.ID+spec.Continues) {
		return nil, &Error{Code: codes.InvalidArgument, Message: "The session and the jobs' ids must be UTF-8."}
	}
	timeout, mayHaveBegun := createPatience, spec.Key != "" || spec.Continues != ""
	if mayHaveBegun {
		timeout = findTimeout
	}
	soon, cancel := context.WithTimeout(ctx, timeout)
	defer cancel()
	if spec.ID != "" {
		c.catchUp(soon, spec.ID, createPatience)
	}
	request := spec.request(session)
	if mayHaveBegun {
		job, err := c.findOrCreate(ctx, soon, session, request)
		if err == nil {
			return job, nil
		}
		if told := (*Error)(nil); errors.As(err, &told) && (judge(told) == gone || judge(told) == refused) {
			return nil, err
		}
		// Nobody could be asked in time: the worker begins, and its work is a job of its own.
		request.KeyIfFree = true
	}
	heartbeat, work := request.GetHeartbeatTimeout().AsDuration(), ctx
	if spec.Pending {
		// It need not be closed, so nothing may wait for that.
		heartbeat, work = -1, context.WithoutCancel(ctx)
	}
	job := c.newJob(work, session, described(request), heartbeat, false)
	create := newStep(request)
	if !c.engine.submit(job.course, create) {
		job.course.wake(nil)
		return nil, ErrClosed
	}
	select {
	case <-create.tried:
	case <-soon.Done():
	}
	select {
	case <-create.answered:
		if create.err != nil {
			return nil, create.err
		}
	default:
	}
	return job, nil
}

// findOrCreate makes the call soon, as the worker must know how far the job has come before it begins. First comes what
// earlier workers left to say: of which job that is, only the server can tell.
func (c *Client) findOrCreate(
	ctx, soon context.Context, session string, request *headwayv1.CreateJobRequest,
) (*Job, error) {
	c.catchUp(soon, "", findTimeout)
	for {
		state, err := once(soon, c.connection, request, headwayv1.JobServiceClient.CreateJob)
		if err == nil && !request.GetPending() && state.GetId() != request.GetJobId() {
			state, err = c.takeOver(soon, session, state.GetId())
		}
		if hasReason(err, "JOB_ENDED") {
			// Just now.
			continue
		}
		if told := (*Error)(nil); errors.As(err, &told) && judge(told) == later &&
			sleep(soon, max(told.RetryAfter, firstRetry)) {
			continue
		}
		if err != nil {
			return nil, err
		}
		return c.attach(ctx, session, state)
	}
}

func (c *Client) takeOver(ctx context.Context, session, id string) (*headwayv1.Job, error) {
	request := &headwayv1.StartJobRequest{SessionId: session, JobId: id, TakeOver: true}
	return once(ctx, c.connection, request, headwayv1.JobServiceClient.StartJob)
}

func hasReason(err error, reasons ...string) bool {
	told := (*Error)(nil)
	return errors.As(err, &told) && slices.Contains(reasons, told.Reason)
}

// Resume carries a job on. It takes one that goes on over from a worker that is gone, and starts a PENDING one; reports of
// the former worker are refused from now on. One that has ended is continued by a new job, as with Spec.Continues; if it
// was continued already, the last of those that continue it is carried on. The progress goes on where it stood, and the
// variables, the checkpoint, can be read with [Job.Get].
//
// ErrNotFound; [Error] if the server does not answer.
func (c *Client) Resume(ctx context.Context, id string) (*Job, error) {
	session, err := c.in()
	if err != nil {
		return nil, err
	}
	create := Spec{}.request(session)
	for {
		c.catchUp(ctx, id, DefaultExitTimeout)
		state, err := c.takeOver(ctx, session, id)
		if hasReason(err, "JOB_ENDED") {
			create.Continues = id
			state, err = once(ctx, c.connection, create, headwayv1.JobServiceClient.CreateJob)
		}
		if hasReason(err, "JOB_ALREADY_CONTINUED") {
			if state, err = c.Get(ctx, id); err == nil {
				id = state.GetContinuedBy()
				continue
			}
		}
		if err != nil {
			return nil, err
		}
		return c.attach(ctx, session, state)
	}
}

// attach works on a job that the server has given to this worker.
func (c *Client) attach(ctx context.Context, session string, state *headwayv1.Job) (*Job, error) {
	known, err := c.variables(ctx, state.GetId())
	if err != nil {
		return nil, err
	}
	heartbeat, started := state.GetHeartbeatTimeout().AsDuration(), state.GetStatus() != headwayv1.JobStatus_JOB_STATUS_PENDING
	if !started {
		// It waits for another worker, and need not be closed.
		heartbeat, ctx = -1, context.WithoutCancel(ctx)
	}
	job := c.newJob(ctx, session, state, heartbeat, started)
	job.known = known
	if !c.engine.submit(job.course) {
		job.course.wake(nil)
		return nil, ErrClosed
	}
	return job, nil
}

// Fetch is the job to read it, to change it, or to report a [Job.Part] of it. It gives no heartbeats, and what it says is
// as of now; [Job.Refresh] renews it, and the progress in [Job.State]. One that was changed is held until the
// server wants no more of it, or the client is closed. ErrNotFound if it is not in this session.
func (c *Client) Fetch(ctx context.Context, id string) (*Job, error) {
	session, err := c.in()
	if err != nil {
		return nil, err
	}
	state, err := c.Get(ctx, id)
	if err != nil {
		return nil, err
	}
	started := state.GetStatus() != headwayv1.JobStatus_JOB_STATUS_PENDING
	// It need not be closed, so nothing may wait for that.
	job := c.newJob(context.WithoutCancel(ctx), session, state, -1, started)
	job.still.Store(true)
	if err := job.fetchResults(ctx); err != nil {
		return nil, err
	}
	return job, nil
}

// catchUp sends what earlier processes left to say of a job, before it is another's turn.
func (c *Client) catchUp(ctx context.Context, id string, patience time.Duration) {
	if len(letters(c.target, id)) > 0 {
		ctx, cancel := context.WithTimeout(ctx, patience)
		defer cancel()
		postman{c.target, c.log}.run(ctx, id)
	}
}

func (s Spec) request(session string) *headwayv1.CreateJobRequest {
	request := &headwayv1.CreateJobRequest{
		SessionId: session,
		JobId:     s.ID,
		Name:      clean(s.Name, lettersName),
		Invoker:   clean(s.Invoker, lettersName),
		Size:      max(s.Size, 0),
		Unit:      clean(s.Unit, lettersUnit),
		Labels:    cleanLabels(s.Labels),
		Pending:   s.Pending,
		Continues: s.Continues,
		Key:       clean(s.Key, anyLimit),
	}
	if request.JobId == "" {
		request.JobId = newID()
	}
	switch s.HeartbeatTimeout {
	case 0:
		request.HeartbeatTimeout = durationpb.New(DefaultHeartbeatTimeout)
	case Never:
		request.HeartbeatTimeout = durationpb.New(0)
	default:
		request.HeartbeatTimeout = durationpb.New(s.HeartbeatTimeout)
	}
	if s.StallTimeout != 0 {
		request.StallTimeout = durationpb.New(s.StallTimeout)
	}
	if s.Retention != 0 {
		request.Retention = durationpb.New(s.Retention)
	}
	return request
}

func cleanLabels(labels map[string]string) map[string]string {
	if labels == nil {
		return nil
	}
	result := make(map[string]string, len(labels))
	for key, value := range labels {
		result[clean(key, anyLimit)] = clean(value, lettersLabel)
	}
	return result
}

// described is the job as its creator knows it before the server has answered.
func described(request *headwayv1.CreateJobRequest) *headwayv1.Job {
	status := headwayv1.JobStatus_JOB_STATUS_RUNNING
	if request.GetPending() {
		status = headwayv1.JobStatus_JOB_STATUS_PENDING
	}
	known := proto.CloneOf(request)
	return &headwayv1.Job{
		Id: known.GetJobId(), Name: known.GetName(), Invoker: known.GetInvoker(), Size: known.GetSize(),
		Unit: known.GetUnit(), Labels: known.GetLabels(), Status: status,
	}
}

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
	// DefaultHeartbeatTimeout is the heartbeat timeout of jobs that are created without one.
	DefaultHeartbeatTimeout = time.Minute
	// Never, as Spec.HeartbeatTimeout, means that the job never counts as lost.
	Never time.Duration = -1

	createTimeout = time.Second
	// findTimeout bounds the wait for a job that another worker may have begun. Without the answer this worker would do
	// all that work again.
	findTimeout = 5 * time.Second
)

// Spec says what a job is. Everything is optional.
type Spec struct {
	// ID is 32 lower-case hexadecimal digits of your choice. Default: a new UUIDv7.
	ID string
	// Name describes the job to people; at most 256 characters.
	Name string
	// Invoker says who or what starts the job; at most 256 characters.
	Invoker string
	// Size is the amount of work, in units; 0 = not known yet.
	Size int64
	// Unit names what is counted: "records"; at most 32 characters.
	Unit string
	// Labels are for filters; at most 64, keys of 1 to 63 and values of at most 256 characters.
	Labels map[string]string
	// HeartbeatTimeout: after this long without contact the job counts as LOST. Default: [DefaultHeartbeatTimeout].
	HeartbeatTimeout time.Duration
	// StallTimeout: after this long without progress the job counts as stalled. Default: never.
	StallTimeout time.Duration
	// Retention is how long the server keeps the job after its end. Default: the server's setting.
	Retention time.Duration
	// Pending: the job waits for a worker that calls [Client.Resume]. Its creator sends no heartbeats and need not close
	// it. The context of the creator's Job does not end with the one given to Create.
	Pending bool
	// Continues is the id of a job that has ended, or is LOST. The new job begins with the old one's name, invoker, size,
	// unit, labels, progress, counters and variables (the checkpoint). Fields that are set here win.
	Continues string
	// Key finds the unfinished job of the session that has it, and takes it over from its worker. If there is none, Create
	// creates a job with the key. So Create can be called at every start: "nightly-2026-11"; at most 256 characters. A key
	// is no lock: a former worker that is still at work learns of the take-over by [Job.Stopped].
	Key string
}

// Create creates a job and begins to work on it. The job's context is made from ctx.
//
// If the server does not answer, the client creates the job in the background, under the id that it has already. Create
// waits for that as long as a refused connection takes, or at most a second. With Key or Continues, Create waits at
// most 5 s, and then begins a new job; if an unfinished job has the key, the new job is created without it. Errors:
// [ErrNoSession] without a session. An [*Error] if the server refuses at once: ErrInvalid for a malformed request, or
// the codes AlreadyExists, Unauthenticated, PermissionDenied; with Continues ErrNotFound, or ErrState with the reason
// JOB_NOT_ENDED or JOB_ALREADY_CONTINUED.
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
	timeout, mayHaveBegun := createTimeout, spec.Key != "" || spec.Continues != ""
	if mayHaveBegun {
		timeout = findTimeout
	}
	soon, cancel := context.WithTimeout(ctx, timeout)
	defer cancel()
	if spec.ID != "" {
		c.catchUp(soon, spec.ID, createTimeout)
	}
	request := spec.request(session)
	if mayHaveBegun {
		job, err := c.findOrCreate(ctx, soon, session, request)
		if err == nil {
			return job, nil
		}
		if told := (*Error)(nil); errors.As(err, &told) && (policyFor(told) == policyStop || policyFor(told) == policyDrop) {
			return nil, err
		}
		// The server did not answer in time. The worker begins, and its work becomes a job of its own.
		request.KeyIfFree = true
	}
	heartbeat, work := request.GetHeartbeatTimeout().AsDuration(), ctx
	if spec.Pending {
		// This Job need not be closed, so nothing may wait for that.
		heartbeat, work = -1, context.WithoutCancel(ctx)
	}
	job := c.newJob(work, session, described(request), heartbeat, false)
	create := newPendingCall(request)
	if !c.engine.submit(job.jobState, create) {
		job.jobState.wake(nil)
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

// findOrCreate waits for the answer, since the worker must know the job's progress before it begins. It first sends the
// whole spool: only the server can tell which job has the key.
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
			// It has ended just now.
			continue
		}
		if told := (*Error)(nil); errors.As(err, &told) && policyFor(told) == policyRetry &&
			sleep(soon, max(told.RetryAfter, firstCallRetryDelay)) {
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

// Resume takes a job over from a worker that is gone, or starts a PENDING one. The server refuses further reports of
// the former worker. If the job has ended, a new job continues it, as with Spec.Continues. If it was continued already,
// Resume takes the last job of that chain. Progress continues from where it was, and [Job.Get] reads the variables (the
// checkpoint).
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

// attach begins the work on a job that the server has given to this worker.
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
	if !c.engine.submit(job.jobState) {
		job.jobState.wake(nil)
		return nil, ErrClosed
	}
	return job, nil
}

// Fetch returns a job to read it, to change it, or to report a [Job.Part] of it. It sends no heartbeats. Its values are
// those of this moment; [Job.Refresh] renews them, and the progress in [Job.State]. A job that was changed stays with
// the engine until the server accepts no more of it, or the client is closed. ErrNotFound if it is not in this session.
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
	// This Job need not be closed, so nothing may wait for that.
	job := c.newJob(context.WithoutCancel(ctx), session, state, -1, started)
	job.fetchedOnly.Store(true)
	if err := job.fetchResults(ctx); err != nil {
		return nil, err
	}
	return job, nil
}

// catchUp sends what earlier processes left in the spool for a job, before this worker takes it over.
func (c *Client) catchUp(ctx context.Context, id string, timeout time.Duration) {
	if len(waitingFiles(c.target, id)) > 0 {
		ctx, cancel := context.WithTimeout(ctx, timeout)
		defer cancel()
		spoolSender{c.target, c.log}.run(ctx, id)
	}
}

func (s Spec) request(session string) *headwayv1.CreateJobRequest {
	request := &headwayv1.CreateJobRequest{
		SessionId: session,
		JobId:     s.ID,
		Name:      clean(s.Name, maxNameChars),
		Invoker:   clean(s.Invoker, maxNameChars),
		Size:      max(s.Size, 0),
		Unit:      clean(s.Unit, maxUnitChars),
		Labels:    cleanLabels(s.Labels),
		Pending:   s.Pending,
		Continues: s.Continues,
		Key:       clean(s.Key, noLimit),
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
		result[clean(key, noLimit)] = clean(value, maxLabelChars)
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

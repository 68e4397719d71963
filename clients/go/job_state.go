package headway

import (
	"context"
	"iter"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"google.golang.org/protobuf/proto"

	"github.com/headway-project/headway/clients/go/headwayv1"
)

// pendingCall is a call that a job still has to make. Without a request it marks a point: the reports before it have to
// go out first.
type pendingCall struct {
	request      proto.Message
	afterReports bool
	// sampled: everything that the reports before this call have to contain is taken. Later changes do not delay the call.
	sampled bool
	// release: the engine forgets the job after this call.
	release bool

	once sync.Once
	// answered is closed after the server has answered, or refused the call with err.
	answered chan struct{}
	err      *Error
	// tried is closed together with answered, or as soon as the server is known to be unreachable.
	tried chan struct{}
}

func newPendingCall(request proto.Message) *pendingCall {
	return &pendingCall{request: request, answered: make(chan struct{}), tried: make(chan struct{})}
}

func (s *pendingCall) settle(err *Error) {
	s.err = err
	close(s.answered)
	s.giveUpWaiting()
}

func (s *pendingCall) giveUpWaiting() { s.once.Do(func() { close(s.tried) }) }

// jobState is the engine's record of one job: what it still has to send to the server, in order. Other goroutines may
// only touch the state, the parts and the atomic fields.
type jobState struct {
	session string
	id      string
	// heartbeat is the job's heartbeat_timeout; negative = the job sends no heartbeats.
	heartbeat time.Duration
	// state is the job as the server last described it, or as the worker did before that. It is never changed in place.
	state atomic.Pointer[headwayv1.Job]
	// attempt is the attempt of this worker, even if another worker has the job meanwhile; 0 before the server has
	// answered.
	attempt atomic.Int32
	// wake cancels the job's context.
	wake context.CancelCauseFunc
	// stopped is closed once err is set.
	stopped chan struct{}
	err     atomic.Pointer[Error]
	over    atomic.Bool

	// started: reports may be sent. This is not so before the job is created, or while it is PENDING.
	started bool
	held    bool
	calling bool
	// due is when the engine next looks for something to report.
	due time.Time
	// beatAt is when to send a heartbeat if there is nothing to report.
	beatAt  time.Time
	retryAt time.Time
	pending []*pendingCall

	mu        sync.Mutex
	reporters []*reporter
}

func newJobState(session string, job *headwayv1.Job, main *Meter, heartbeat time.Duration, started bool, wake context.CancelCauseFunc) *jobState {
	c := &jobState{
		session: session, id: job.GetId(), heartbeat: heartbeat, wake: wake, stopped: make(chan struct{}), started: started,
		reporters: []*reporter{newReporter(main, job.GetParts()[""], job.GetSize())},
	}
	c.state.Store(job)
	c.attempt.Store(job.GetAttempt())
	return c
}

// describe changes the known state of the job.
func (c *jobState) describe(change func(*headwayv1.Job)) {
	for {
		known := c.state.Load()
		changed := proto.CloneOf(known)
		change(changed)
		if c.state.CompareAndSwap(known, changed) {
			return
		}
	}
}

// learn takes over the server's description of the job, unless a newer one is known.
func (c *jobState) learn(job *headwayv1.Job) {
	for {
		known := c.state.Load()
		if job.GetRevision() < known.GetRevision() {
			break
		}
		if cancellation := known.GetCancellation(); cancellation.GetRequested() && !job.GetCancellation().GetRequested() {
			// This answer is older than the cancellation that the stream has reported. The stream sends no revision.
			job = proto.CloneOf(job)
			job.Cancellation = cancellation
		}
		if c.state.CompareAndSwap(known, job) {
			break
		}
	}
	if cancellation := job.GetCancellation(); cancellation.GetRequested() {
		c.wake(asError(cancellation))
	}
}

// addPart returns the meter of that part; the same meter for the same name.
func (c *jobState) addPart(name string) *Meter {
	c.mu.Lock()
	defer c.mu.Unlock()
	for _, reporter := range c.reporters {
		if reporter.meter.name == name {
			return reporter.meter
		}
	}
	progress := c.state.Load().GetParts()[name]
	meter := newMeter(name, progress, nil, func(int64) {})
	c.reporters = append(c.reporters, newReporter(meter, progress, 0))
	return meter
}

func (c *jobState) parts() []*reporter {
	c.mu.Lock()
	defer c.mu.Unlock()
	return slices.Clone(c.reporters)
}

func (c *jobState) about() about {
	return about{c.session, c.id, c.attempt.Load(), c.state.Load().GetLastSequence()}
}

func (c *jobState) addCall(s *pendingCall) {
	if c.over.Load() {
		s.settle(c.err.Load())
		return
	}
	if last := len(c.pending) - 1; last > 0 || last == 0 && !c.calling {
		// Of the changes that are not sent yet only the last one counts.
		if former := c.pending[last]; sameChange(former.request, s.request) {
			c.pending[last] = s
			former.settle(nil)
			return
		}
	}
	c.pending = append(c.pending, s)
}

// sameChange: both change the same fields of the job.
func sameChange(one, other proto.Message) bool {
	former, known := one.(*headwayv1.UpdateJobRequest)
	change, update := other.(*headwayv1.UpdateJobRequest)
	return known && update && proto.Equal(former.GetUpdateMask(), change.GetUpdateMask())
}

// nextCall is the call to make now; nil if reports go first.
func (c *jobState) nextCall() *pendingCall {
	if c.calling || len(c.pending) == 0 || c.pending[0].afterReports {
		return nil
	}
	return c.pending[0]
}

// reports gives the reports to send now. If there are none, it gives a heartbeat, or lets the call that waited for them
// go ahead.
func (c *jobState) reports(now time.Time) iter.Seq2[*reporter, *headwayv1.ReportProgressRequest] {
	return func(yield func(*reporter, *headwayv1.ReportProgressRequest) bool) {
		var waiting *pendingCall
		if len(c.pending) > 0 {
			waiting = c.pending[0]
		}
		fresh := waiting == nil || !waiting.sampled
		complete, silent := true, true
		about := c.about()
		if c.started {
			for _, reporter := range c.parts() {
				complete = complete && len(reporter.unsettled) == 0
				if report := reporter.report(about, fresh); report != nil {
					silent = false
					if !yield(reporter, report) {
						return
					}
				}
			}
		}
		if waiting != nil {
			// Other goroutines may still count. A call waits only for what was there when it was queued.
			waiting.sampled = waiting.sampled || complete
			waiting.afterReports = waiting.afterReports && !silent
		} else if silent && c.heartbeat >= 0 && !now.Before(c.beatAt) {
			yield(nil, &headwayv1.ReportProgressRequest{SessionId: about.session, JobId: about.id, Attempt: about.attempt})
		}
	}
}

// reporting: reports are next, or the call that waits for them.
func (c *jobState) reporting() bool {
	if c.over.Load() {
		return false
	}
	if len(c.pending) > 0 {
		return c.pending[0].afterReports
	}
	return c.started
}

// urgent: send more without waiting for the next report interval.
func (c *jobState) urgent() bool {
	return len(c.pending) > 0 || slices.ContainsFunc(c.parts(), (*reporter).busy)
}

// undelivered gives all calls that are left to make, in order.
func (c *jobState) undelivered() []proto.Message {
	var left []proto.Message
	about := c.about()
	// A job whose creation is unanswered begins with its first attempt.
	about.attempt = max(about.attempt, 1)
	started := c.started
	drain := func(fresh bool) {
		for _, reporter := range c.parts() {
			for _, report := range reporter.drain(about, fresh) {
				left = append(left, report)
			}
		}
	}
	for _, s := range c.pending {
		switch request := s.request.(type) {
		case nil:
			continue
		case *headwayv1.CreateJobRequest:
			started = !request.GetPending()
		case *headwayv1.FinishJobRequest, *headwayv1.FailJobRequest:
			if started && s.afterReports {
				drain(!s.sampled)
			}
			return append(left, withAttempt(request, about.attempt))
		}
		left = append(left, s.request)
	}
	if started {
		// A wait that has ended without delivery must hold nothing back: take everything that is left.
		drain(true)
	}
	return left
}

// withAttempt returns a copy, since gRPC may still read the request that was sent.
func withAttempt(request proto.Message, attempt int32) proto.Message {
	switch end := request.(type) {
	case *headwayv1.FinishJobRequest:
		end = proto.CloneOf(end)
		end.Attempt = attempt
		return end
	case *headwayv1.FailJobRequest:
		end = proto.CloneOf(end)
		end.Attempt = attempt
		return end
	}
	return request
}

// answered: the first call is done.
func (c *jobState) answered(job *headwayv1.Job) {
	s := c.pending[0]
	c.pending = c.pending[1:]
	c.retryAt = time.Time{}
	if job != nil {
		// The server does not know yet what the worker has changed meanwhile.
		for _, later := range c.pending {
			if change, ok := later.request.(*headwayv1.UpdateJobRequest); ok {
				apply(change, job)
			}
		}
		c.learn(job)
		// The creator of a job is its first worker, even if another worker took the job over before the answer came.
		c.attempt.CompareAndSwap(0, 1)
		c.started = job.GetStatus() != headwayv1.JobStatus_JOB_STATUS_PENDING
	}
	switch s.request.(type) {
	case *headwayv1.FinishJobRequest, *headwayv1.FailJobRequest:
		c.stop(nil)
	default:
		if s.release {
			c.stop(nil)
		}
	}
	s.settle(nil)
}

// apply makes the change in the known state of the job.
func apply(change *headwayv1.UpdateJobRequest, job *headwayv1.Job) {
	for _, field := range change.GetUpdateMask().GetPaths() {
		switch field {
		case "name":
			job.Name = change.GetJob().GetName()
		case "invoker":
			job.Invoker = change.GetJob().GetInvoker()
		}
	}
}

// cancelled: the server reports that the job is to end early.
func (c *jobState) cancelled(cancellation *headwayv1.Cancellation) {
	c.wake(asError(cancellation))
	if !proto.Equal(c.state.Load().GetCancellation(), cancellation) {
		c.describe(func(job *headwayv1.Job) { job.Cancellation = cancellation })
	}
}

func asError(cancellation *headwayv1.Cancellation) *CancelledError {
	cause := &CancelledError{Reason: cancellation.GetReason()}
	if cancellation.GetDeadline() != nil {
		cause.Deadline = cancellation.GetDeadline().AsTime()
	}
	return cause
}

// stop: nothing more is sent for this job. With an error: the server accepts no more of it.
func (c *jobState) stop(err *Error) {
	if c.over.Load() {
		return
	}
	if err != nil {
		c.err.Store(err)
	}
	c.over.Store(true)
	for _, s := range c.pending {
		s.settle(err)
	}
	c.pending = nil
	if err != nil {
		close(c.stopped)
		c.wake(err)
	} else {
		c.wake(nil)
	}
}

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

// step is a call that a job has to make, or with no request the point up to which its reports shall go out.
type step struct {
	request      proto.Message
	afterReports bool
	// sampled: all that its reports have to say is known; what changes later comes too late for it.
	sampled bool
	// release: the job is left alone after this step.
	release bool

	once sync.Once
	// answered is closed once the server has answered, or refused, with err.
	answered chan struct{}
	err      *Error
	// tried is closed with answered, or as soon as it is known that the server does not answer now.
	tried chan struct{}
}

func newStep(request proto.Message) *step {
	return &step{request: request, answered: make(chan struct{}), tried: make(chan struct{})}
}

func (s *step) settle(err *Error) {
	s.err = err
	close(s.answered)
	s.giveUpWaiting()
}

func (s *step) giveUpWaiting() { s.once.Do(func() { close(s.tried) }) }

// course is the engine's record of one job: what it still has to tell the server, in order. Only the state, the parts
// and what is atomic may be touched by others than the engine.
type course struct {
	session string
	id      string
	// heartbeat is the job's heartbeat_timeout; negative = it gives none.
	heartbeat time.Duration
	// state is the job as the server last described it; before it did, as the worker did. Never changed in place.
	state atomic.Pointer[headwayv1.Job]
	// attempt is which worker this is, whoever else has the job meanwhile; 0 before the server said.
	attempt atomic.Int32
	// wake cancels the job's context.
	wake context.CancelCauseFunc
	// stopped is closed once err is set.
	stopped chan struct{}
	err     atomic.Pointer[Error]
	over    atomic.Bool

	// started: reports may flow; not before the job is created, or while it is PENDING.
	started bool
	inHand  bool
	calling bool
	// due is when to look for something to report.
	due time.Time
	// beatAt is when to give a heartbeat if there is nothing to report.
	beatAt  time.Time
	retryAt time.Time
	steps   []*step

	mu        sync.Mutex
	reporters []*reporter
}

func newCourse(session string, job *headwayv1.Job, main *Meter, heartbeat time.Duration, started bool, wake context.CancelCauseFunc) *course {
	c := &course{
		session: session, id: job.GetId(), heartbeat: heartbeat, wake: wake, stopped: make(chan struct{}), started: started,
		reporters: []*reporter{newReporter(main, job.GetParts()[""], job.GetSize())},
	}
	c.state.Store(job)
	c.attempt.Store(job.GetAttempt())
	return c
}

// describe changes what is known of the job.
func (c *course) describe(change func(*headwayv1.Job)) {
	for {
		known := c.state.Load()
		changed := proto.CloneOf(known)
		change(changed)
		if c.state.CompareAndSwap(known, changed) {
			return
		}
	}
}

// learn takes what the server says of the job, unless something newer is known.
func (c *course) learn(job *headwayv1.Job) {
	for {
		known := c.state.Load()
		if job.GetRevision() < known.GetRevision() {
			break
		}
		if wish := known.GetCancellation(); wish.GetRequested() && !job.GetCancellation().GetRequested() {
			// This answer is older than the stream's word of the wish, which comes without a revision.
			job = proto.CloneOf(job)
			job.Cancellation = wish
		}
		if c.state.CompareAndSwap(known, job) {
			break
		}
	}
	if wish := job.GetCancellation(); wish.GetRequested() {
		c.wake(asError(wish))
	}
}

// addPart is the part of that name; the same one for the same name.
func (c *course) addPart(name string) *Meter {
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

func (c *course) parts() []*reporter {
	c.mu.Lock()
	defer c.mu.Unlock()
	return slices.Clone(c.reporters)
}

func (c *course) about() about {
	return about{c.session, c.id, c.attempt.Load(), c.state.Load().GetLastSequence()}
}

func (c *course) addStep(s *step) {
	if c.over.Load() {
		s.settle(c.err.Load())
		return
	}
	if last := len(c.steps) - 1; last > 0 || last == 0 && !c.calling {
		// Of changes that nobody has sent yet the last one counts, however many there are.
		if former := c.steps[last]; sameChange(former.request, s.request) {
			c.steps[last] = s
			former.settle(nil)
			return
		}
	}
	c.steps = append(c.steps, s)
}

// sameChange: both change the same fields of the job.
func sameChange(one, other proto.Message) bool {
	former, known := one.(*headwayv1.UpdateJobRequest)
	change, update := other.(*headwayv1.UpdateJobRequest)
	return known && update && proto.Equal(former.GetUpdateMask(), change.GetUpdateMask())
}

// nextStep is the one whose turn it is, unless reports come first.
func (c *course) nextStep() *step {
	if c.calling || len(c.steps) == 0 || c.steps[0].afterReports {
		return nil
	}
	return c.steps[0]
}

// reports gives those to send now; if there are none, a heartbeat, or the turn of the step that waited for them.
func (c *course) reports(now time.Time) iter.Seq2[*reporter, *headwayv1.ReportProgressRequest] {
	return func(yield func(*reporter, *headwayv1.ReportProgressRequest) bool) {
		var waiting *step
		if len(c.steps) > 0 {
			waiting = c.steps[0]
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
			// Others may still count: a step waits for what was there when it came, and not for ever.
			waiting.sampled = waiting.sampled || complete
			waiting.afterReports = waiting.afterReports && !silent
		} else if silent && c.heartbeat >= 0 && !now.Before(c.beatAt) {
			yield(nil, &headwayv1.ReportProgressRequest{SessionId: about.session, JobId: about.id, Attempt: about.attempt})
		}
	}
}

// reporting: it is the turn of reports, or of the step that waits for them.
func (c *course) reporting() bool {
	if c.over.Load() {
		return false
	}
	if len(c.steps) > 0 {
		return c.steps[0].afterReports
	}
	return c.started
}

// urgent: more should go out without waiting for the next turn.
func (c *course) urgent() bool {
	return len(c.steps) > 0 || slices.ContainsFunc(c.parts(), (*reporter).busy)
}

// remains is all calls that are left to make, in order.
func (c *course) remains() []proto.Message {
	var left []proto.Message
	about := c.about()
	// A job that nobody has answered for yet begins with its first attempt.
	about.attempt = max(about.attempt, 1)
	started := c.started
	drain := func(fresh bool) {
		for _, reporter := range c.parts() {
			for _, report := range reporter.drain(about, fresh) {
				left = append(left, report)
			}
		}
	}
	for _, s := range c.steps {
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
		// Whoever has waited in vain for what was there at a time, for that time no longer waits: all of it is left.
		drain(true)
	}
	return left
}

// withAttempt is a copy, since gRPC may still read what was sent.
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

// answered: the first step is done.
func (c *course) answered(job *headwayv1.Job) {
	s := c.steps[0]
	c.steps = c.steps[1:]
	c.retryAt = time.Time{}
	if job != nil {
		// What the worker has set meanwhile, the server does not know yet.
		for _, later := range c.steps {
			if change, ok := later.request.(*headwayv1.UpdateJobRequest); ok {
				apply(change, job)
			}
		}
		c.learn(job)
		// Who creates a job is its first worker, whoever has taken it over before the answer came.
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

// apply makes the change to what is known of the job.
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

// cancelled: the server says that the job shall end early.
func (c *course) cancelled(wish *headwayv1.Cancellation) {
	c.wake(asError(wish))
	if !proto.Equal(c.state.Load().GetCancellation(), wish) {
		c.describe(func(job *headwayv1.Job) { job.Cancellation = wish })
	}
}

func asError(wish *headwayv1.Cancellation) *CancelledError {
	cause := &CancelledError{Reason: wish.GetReason()}
	if wish.GetDeadline() != nil {
		cause.Deadline = wish.GetDeadline().AsTime()
	}
	return cause
}

// stop: nothing more is sent for this job; with an error, because the server does not want it.
func (c *course) stop(err *Error) {
	if c.over.Load() {
		return
	}
	if err != nil {
		c.err.Store(err)
	}
	c.over.Store(true)
	for _, s := range c.steps {
		s.settle(err)
	}
	c.steps = nil
	if err != nil {
		close(c.stopped)
		c.wake(err)
	} else {
		c.wake(nil)
	}
}

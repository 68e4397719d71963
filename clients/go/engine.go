package headway

import (
	"context"
	"fmt"
	"log/slog"
	"runtime/debug"
	"slices"
	"sync"
	"time"

	"google.golang.org/grpc/codes"
	"google.golang.org/protobuf/proto"

	"github.com/headway-project/headway/clients/go/headwayv1"
)

const (
	// answerTimeout bounds how long the engine waits for an answer before the connection counts as broken.
	answerTimeout         = 10 * time.Second
	maxCallsInFlight      = 16
	defaultReportInterval = 250 * time.Millisecond
	minReportInterval     = 10 * time.Millisecond
	maxReportInterval     = 30 * time.Second
)

// engine is the goroutine behind all jobs of a client. It alone owns the stream and every job state; other goroutines
// hand it work through post. It samples the meters when the server wants a report, keeps one request in flight, and
// repeats what was not acknowledged. Sequence numbers and ids chosen by the client make repeats count once. Whatever
// the server does, the worker's goroutines never wait here unless they ask to.
type engine struct {
	conn *lazyConn
	log  *slog.Logger
	// onFirstAnswer is called once, when the server has answered for the first time.
	onFirstAnswer func()

	mu      sync.Mutex
	inbox   []func()
	running bool
	halted  bool
	wake    chan struct{}
	ended   chan struct{}
	// helpers make the calls. They end soon after they are cancelled.
	helpers sync.WaitGroup

	// Only the engine's goroutine uses the following fields.
	jobs   []*jobState
	stream *reportStream
	// batch is sent, and not acknowledged yet.
	batch           *batch
	ackBy           time.Time
	calls           map[*call]struct{}
	reportInterval  time.Duration
	connectionState connectionState
	stopped         bool
}

// call is one call in flight.
type call struct{ cancel context.CancelFunc }

func newEngine(target target, log *slog.Logger, onFirstAnswer func()) *engine {
	return &engine{
		conn: &lazyConn{target: target}, log: log, onFirstAnswer: onFirstAnswer,
		wake: make(chan struct{}, 1), ended: make(chan struct{}), calls: map[*call]struct{}{}, reportInterval: defaultReportInterval,
		connectionState: connectionState{address: target.address, log: log},
	}
}

// The worker's goroutines call the following methods.

// submit hands a job to the engine and queues calls for it. It returns false if the engine has ended.
func (e *engine) submit(c *jobState, pending ...*pendingCall) bool {
	taken := e.post(func() { e.take(c, pending) })
	for _, s := range pending {
		if !taken {
			s.giveUpWaiting()
		}
	}
	return taken
}

// active gives all jobs that may have something to send.
func (e *engine) active() []*jobState {
	found := make(chan []*jobState, 1)
	if !e.post(func() { found <- slices.Clone(e.jobs) }) {
		return nil
	}
	select {
	case jobs := <-found:
		return jobs
	case <-e.ended:
		return nil
	}
}

// waitDelivered waits until everything of these jobs is delivered. It returns the jobs that have something left.
func (e *engine) waitDelivered(ctx context.Context, jobs []*jobState) []*jobState {
	waiting := make([]*pendingCall, len(jobs))
	var late []*jobState
	for i, c := range jobs {
		waiting[i] = newPendingCall(nil)
		waiting[i].afterReports = true
		if !e.submit(c, waiting[i]) {
			return jobs
		}
	}
	e.post(func() { e.connectionState.addWaiting(1, time.Now()) })
	defer e.post(func() { e.connectionState.addWaiting(-1, time.Now()) })
	for i, s := range waiting {
		select {
		case <-s.answered:
		case <-ctx.Done():
		case <-e.ended:
		}
		// An answer that arrives together with the end of the wait counts.
		select {
		case <-s.answered:
		default:
			late = append(late, jobs[i])
		}
	}
	return late
}

// halt runs last in the engine's goroutine, ends it, and closes the connection.
func (e *engine) halt(last func()) {
	e.post(func() {
		// Stop even if last panics: otherwise halt would wait forever.
		defer func() { e.stopped = true }()
		last()
	})
	e.mu.Lock()
	e.halted = true
	running := e.running
	e.mu.Unlock()
	if running {
		<-e.ended
	}
	e.conn.close()
	e.helpers.Wait()
}

// post returns whether the goroutine will run the action.
func (e *engine) post(action func()) bool {
	e.mu.Lock()
	defer e.mu.Unlock()
	if e.halted {
		return false
	}
	e.inbox = append(e.inbox, action)
	if !e.running {
		e.running = true
		go e.run()
	}
	select {
	case e.wake <- struct{}{}:
	default:
	}
	return true
}

// The engine's goroutine runs the following methods.

func (e *engine) run() {
	defer close(e.ended)
	timer := time.NewTimer(0)
	for !e.stopped {
		timeout := timer.C
		if idle, bounded := e.idleFor(time.Now()); bounded {
			timer.Reset(idle)
		} else {
			timeout = nil
		}
		select {
		case <-e.wake:
		case <-timeout:
		}
		e.mu.Lock()
		actions := e.inbox
		e.inbox = nil
		e.mu.Unlock()
		for _, action := range actions {
			e.guarded(action)
		}
		if !e.stopped {
			e.guarded(func() { e.pump(time.Now()) })
		}
	}
	e.mu.Lock()
	e.halted = true
	late := e.inbox
	e.inbox = nil
	e.mu.Unlock()
	for _, action := range late {
		e.guarded(action)
	}
	for _, c := range e.jobs {
		for _, s := range c.pending {
			s.giveUpWaiting()
		}
		c.wake(nil)
	}
	e.disconnect()
}

// guarded keeps a panic of the client from ending the engine. It counts as an outage, so that it is not repeated at
// once.
func (e *engine) guarded(action func()) {
	defer func() {
		if fault := recover(); fault != nil {
			e.log.Debug("headway: a fault of its own", "fault", fault, "stack", string(debug.Stack()))
			e.outage(&Error{Code: codes.Unknown, Message: fmt.Sprint(fault)})
		}
	}()
	action()
}

func (e *engine) take(c *jobState, pending []*pendingCall) {
	if !c.over.Load() && !c.held {
		c.held = true
		e.jobs = append(e.jobs, c)
		c.beatAt = time.Now().Add(e.turn(c))
	}
	for _, s := range pending {
		c.addCall(s)
		if e.connectionState.down {
			s.giveUpWaiting()
		}
	}
	c.due = time.Time{}
}

// idleFor is how long there is nothing to do. It is not bounded if only a posted action can change that.
func (e *engine) idleFor(now time.Time) (idle time.Duration, bounded bool) {
	if len(e.jobs) == 0 {
		return 0, false
	}
	if e.batch != nil {
		return e.ackBy.Sub(now), true
	}
	if e.connectionState.retryAt.After(now) {
		return e.connectionState.retryAt.Sub(now), true
	}
	var next time.Time
	consider := func(moment time.Time) {
		if !bounded || moment.Before(next) {
			next, bounded = moment, true
		}
	}
	for _, c := range e.jobs {
		if c.reporting() {
			if c.retryAt.After(c.due) {
				consider(c.retryAt)
			} else {
				consider(c.due)
			}
		}
		if len(e.calls) < maxCallsInFlight && c.nextCall() != nil {
			consider(c.retryAt)
		}
	}
	if next.IsZero() {
		return 0, bounded
	}
	return max(next.Sub(now), 0), bounded
}

func (e *engine) pump(now time.Time) {
	if e.batch != nil && !now.Before(e.ackBy) {
		e.outage(&Error{Code: codes.DeadlineExceeded, Message: "no answer"})
	}
	e.jobs = slices.DeleteFunc(e.jobs, func(c *jobState) bool {
		// The engine forgets a job that waits for another worker, until there is something to do for it again.
		waits := !c.started && len(c.pending) == 0
		c.held = !waits
		return waits || c.over.Load()
	})
	if now.Before(e.connectionState.retryAt) {
		return
	}
	if e.batch == nil {
		e.report(now)
	}
	for _, c := range e.jobs {
		if len(e.calls) >= maxCallsInFlight {
			break
		}
		if s := c.nextCall(); s != nil && !now.Before(c.retryAt) {
			e.call(c, s)
		}
	}
}

func (e *engine) report(now time.Time) {
	var due []*jobState
	for _, c := range e.jobs {
		if c.reporting() && !now.Before(c.due) && !now.Before(c.retryAt) {
			due = append(due, c)
		}
	}
	batch := newBatch()
	batch.fill(due, now, e.turn)
	for _, from := range batch.oversized {
		e.refused(from, tooLarge())
		from.jobState.due = now
	}
	if len(batch.senders) == 0 {
		return
	}
	if e.stream == nil {
		opened := newReportStream(func(s *reportStream, response *headwayv1.StreamProgressResponse, err *Error) {
			e.post(func() { e.arrived(s, response, err) })
		})
		e.stream = opened
		e.helpers.Go(func() { opened.run(e.conn.stub()) })
	}
	e.batch, e.ackBy = batch, now.Add(answerTimeout)
	e.stream.send(batch.request)
}

func (e *engine) turn(c *jobState) time.Duration {
	if c.heartbeat > 0 {
		return min(e.reportInterval, max(c.heartbeat/3, minReportInterval))
	}
	return e.reportInterval
}

func (e *engine) call(c *jobState, s *pendingCall) {
	if s.request == nil {
		c.answered(nil)
		return
	}
	if proto.Size(s.request) > maxMessageBytes {
		e.answer(c, s, nil, tooLarge())
		return
	}
	request := withAttempt(s.request, c.attempt.Load())
	ctx, cancel := context.WithTimeout(context.Background(), answerTimeout)
	inFlight := &call{cancel}
	c.calling = true
	e.calls[inFlight] = struct{}{}
	e.helpers.Go(func() {
		defer cancel()
		job, err := makeCall(ctx, e.conn.stub(), request)
		e.post(func() { e.called(c, s, inFlight, job, err) })
	})
}

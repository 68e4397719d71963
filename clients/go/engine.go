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
	// patience is how long the server has for an answer before the connection counts as broken.
	patience  = 10 * time.Second
	mostCalls = 16
	firstPace = 250 * time.Millisecond
	shortPace = 10 * time.Millisecond
	longPace  = 30 * time.Second
)

// engine is the goroutine behind all jobs of a client. It alone owns the stream and every course; others hand it work
// through post. It samples the parts when the server wants to hear of them, keeps one request in flight, and repeats
// what was not acknowledged: sequences and chosen ids make that count once. Whatever the server does, the worker's
// goroutines never wait here unless they ask to.
type engine struct {
	line *line
	log  *slog.Logger
	// firstHeard is called once, when the server has answered for the first time.
	firstHeard func()

	mu      sync.Mutex
	inbox   []func()
	running bool
	halted  bool
	wake    chan struct{}
	gone    chan struct{}
	// helpers make the calls, and end soon after they are cancelled.
	helpers sync.WaitGroup

	// What follows is the goroutine's own.
	courses []*course
	stream  *stream
	// batch is sent and not acknowledged yet.
	batch   *batch
	ackBy   time.Time
	calls   map[*call]struct{}
	pace    time.Duration
	contact contact
	stopped bool
}

// call is a step's call that is under way.
type call struct{ cancel context.CancelFunc }

func newEngine(target target, log *slog.Logger, firstHeard func()) *engine {
	return &engine{
		line: &line{target: target}, log: log, firstHeard: firstHeard,
		wake: make(chan struct{}, 1), gone: make(chan struct{}), calls: map[*call]struct{}{}, pace: firstPace,
		contact: contact{address: target.address, log: log},
	}
}

// What the worker's goroutines call.

// submit takes a course in charge and queues steps for it; not if the engine has halted.
func (e *engine) submit(c *course, steps ...*step) bool {
	taken := e.post(func() { e.take(c, steps) })
	for _, s := range steps {
		if !taken {
			s.giveUpWaiting()
		}
	}
	return taken
}

// live is all jobs that there may be something to say of.
func (e *engine) live() []*course {
	found := make(chan []*course, 1)
	if !e.post(func() { found <- slices.Clone(e.courses) }) {
		return nil
	}
	select {
	case courses := <-found:
		return courses
	case <-e.gone:
		return nil
	}
}

// linger waits until all that these jobs have to say has been delivered; returns those of which something is left.
func (e *engine) linger(ctx context.Context, courses []*course) []*course {
	waiting := make([]*step, len(courses))
	var late []*course
	for i, c := range courses {
		waiting[i] = newStep(nil)
		waiting[i].afterReports = true
		if !e.submit(c, waiting[i]) {
			return courses
		}
	}
	e.post(func() { e.contact.hurry(1, time.Now()) })
	defer e.post(func() { e.contact.hurry(-1, time.Now()) })
	for i, s := range waiting {
		select {
		case <-s.answered:
		case <-ctx.Done():
		case <-e.gone:
		}
		// What has come with the end of the time is there all the same.
		select {
		case <-s.answered:
		default:
			late = append(late, courses[i])
		}
	}
	return late
}

// halt ends the goroutine, after last has run in it, and closes the connection.
func (e *engine) halt(last func()) {
	e.post(func() {
		// Also after a fault in it: nobody shall wait for the end for ever.
		defer func() { e.stopped = true }()
		last()
	})
	e.mu.Lock()
	e.halted = true
	running := e.running
	e.mu.Unlock()
	if running {
		<-e.gone
	}
	e.line.close()
	e.helpers.Wait()
}

// post says whether the goroutine will run the action.
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

// What the engine's goroutine does.

func (e *engine) run() {
	defer close(e.gone)
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
	for _, c := range e.courses {
		for _, s := range c.steps {
			s.giveUpWaiting()
		}
		c.wake(nil)
	}
	e.hangUp()
}

// guarded: what should not happen stops nothing, and is not tried again at once.
func (e *engine) guarded(action func()) {
	defer func() {
		if fault := recover(); fault != nil {
			e.log.Debug("headway: a fault of its own", "fault", fault, "stack", string(debug.Stack()))
			e.outage(&Error{Code: codes.Unknown, Message: fmt.Sprint(fault)})
		}
	}()
	action()
}

func (e *engine) take(c *course, steps []*step) {
	if !c.over.Load() && !c.inHand {
		c.inHand = true
		e.courses = append(e.courses, c)
		c.beatAt = time.Now().Add(e.turn(c))
	}
	for _, s := range steps {
		c.addStep(s)
		if e.contact.down {
			s.giveUpWaiting()
		}
	}
	c.due = time.Time{}
}

// idleFor is how long there is nothing to do; not bounded, if only a message can change that.
func (e *engine) idleFor(now time.Time) (idle time.Duration, bounded bool) {
	if len(e.courses) == 0 {
		return 0, false
	}
	if e.batch != nil {
		return e.ackBy.Sub(now), true
	}
	if e.contact.retryAt.After(now) {
		return e.contact.retryAt.Sub(now), true
	}
	var next time.Time
	consider := func(moment time.Time) {
		if !bounded || moment.Before(next) {
			next, bounded = moment, true
		}
	}
	for _, c := range e.courses {
		if c.reporting() {
			if c.retryAt.After(c.due) {
				consider(c.retryAt)
			} else {
				consider(c.due)
			}
		}
		if len(e.calls) < mostCalls && c.nextStep() != nil {
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
	e.courses = slices.DeleteFunc(e.courses, func(c *course) bool {
		// One that waits for a worker is another's from now on, unless there is something to do for it again.
		waits := !c.started && len(c.steps) == 0
		c.inHand = !waits
		return waits || c.over.Load()
	})
	if now.Before(e.contact.retryAt) {
		return
	}
	if e.batch == nil {
		e.report(now)
	}
	for _, c := range e.courses {
		if len(e.calls) >= mostCalls {
			break
		}
		if s := c.nextStep(); s != nil && !now.Before(c.retryAt) {
			e.call(c, s)
		}
	}
}

func (e *engine) report(now time.Time) {
	var due []*course
	for _, c := range e.courses {
		if c.reporting() && !now.Before(c.due) && !now.Before(c.retryAt) {
			due = append(due, c)
		}
	}
	batch := newBatch()
	batch.fill(due, now, e.turn)
	for _, from := range batch.oversized {
		e.refused(from, tooLarge())
		from.course.due = now
	}
	if len(batch.senders) == 0 {
		return
	}
	if e.stream == nil {
		opened := newStream(func(s *stream, response *headwayv1.StreamProgressResponse, err *Error) {
			e.post(func() { e.arrived(s, response, err) })
		})
		e.stream = opened
		e.helpers.Go(func() { opened.run(e.line.stub()) })
	}
	e.batch, e.ackBy = batch, now.Add(patience)
	e.stream.send(batch.request)
}

func (e *engine) turn(c *course) time.Duration {
	if c.heartbeat > 0 {
		return min(e.pace, max(c.heartbeat/3, shortPace))
	}
	return e.pace
}

func (e *engine) call(c *course, s *step) {
	if s.request == nil {
		c.answered(nil)
		return
	}
	if proto.Size(s.request) > messageBytes {
		e.answer(c, s, nil, tooLarge())
		return
	}
	request := withAttempt(s.request, c.attempt.Load())
	ctx, cancel := context.WithTimeout(context.Background(), patience)
	placed := &call{cancel}
	c.calling = true
	e.calls[placed] = struct{}{}
	e.helpers.Go(func() {
		defer cancel()
		job, err := place(ctx, e.line.stub(), request)
		e.post(func() { e.called(c, s, placed, job, err) })
	})
}

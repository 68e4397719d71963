package headway

import (
	"time"

	"google.golang.org/grpc/codes"

	"github.com/headway-project/headway/clients/go/headwayv1"
)

func (e *engine) arrived(from *stream, response *headwayv1.StreamProgressResponse, err *Error) {
	if from != e.stream {
		return
	}
	if response == nil {
		e.broken(err)
		return
	}
	e.heard()
	for _, failure := range response.GetFailures() {
		if e.batch != nil && failure.GetRequest() == from.sent-1 {
			e.batch.failures[failure.GetReport()] = fromStatus(failure.GetStatus())
		}
	}
	for _, wish := range response.GetCancellations() {
		for _, c := range e.courses {
			if c.id == wish.GetJobId() {
				c.cancelled(wish.GetCancellation())
			}
		}
	}
	if response.GetNextReportAfter() != nil {
		e.pace = min(max(response.GetNextReportAfter().AsDuration(), shortPace), longPace)
	}
	if e.batch != nil && response.GetAcked() >= from.sent {
		batch := e.batch
		e.batch = nil
		e.acked(batch, time.Now())
	}
}

func (e *engine) acked(batch *batch, now time.Time) {
	for position, from := range batch.senders {
		c := from.course
		if err := batch.failures[int32(position)]; err == nil {
			if from.reporter != nil {
				from.reporter.settle()
			}
			if !c.retryAt.After(now) {
				c.retryAt = time.Time{}
			}
		} else {
			switch judge(err) {
			case gone:
				e.stop(c, err)
			case refused:
				e.refused(from, err)
			default:
				e.later(c, err, now)
			}
		}
		turn := now.Add(e.turn(c))
		c.beatAt = earlier(c.beatAt, turn)
		if c.urgent() {
			c.due = now
		} else {
			c.due = earlier(c.due, turn)
		}
	}
}

func earlier(a, b time.Time) time.Time {
	if a.Before(b) {
		return a
	}
	return b
}

func (e *engine) heard() {
	e.contact.heard()
	if e.firstHeard != nil {
		e.firstHeard()
		e.firstHeard = nil
	}
}

func (e *engine) broken(err *Error) {
	unanswered := e.batch != nil
	e.dropStream()
	if err != nil && err.Reason == "STREAM_EXPIRED" {
		return
	}
	if err == nil {
		err = &Error{Code: codes.Unavailable, Message: "the stream ended"}
	}
	if unanswered {
		e.outage(err)
	}
}

func (e *engine) dropStream() {
	if e.stream != nil {
		e.stream.close()
	}
	e.stream = nil
	if e.batch != nil {
		for _, from := range e.batch.senders {
			from.course.due = time.Time{}
		}
	}
	e.batch = nil
}

func (e *engine) called(c *course, s *step, placed *call, job *headwayv1.Job, err error) {
	if _, known := e.calls[placed]; !known {
		return
	}
	delete(e.calls, placed)
	c.calling = false
	switch {
	case err != nil:
		e.answer(c, s, nil, fromError(err))
	case job.GetId() != c.id:
		e.answer(c, s, nil, &Error{Code: codes.Unknown, Message: "an answer to something else"})
	default:
		e.answer(c, s, job, nil)
	}
}

func (e *engine) answer(c *course, s *step, job *headwayv1.Job, err *Error) {
	if c.over.Load() {
		return
	}
	if err == nil {
		e.heard()
		c.answered(job)
		c.due, c.beatAt = time.Time{}, time.Now().Add(e.turn(c))
		return
	}
	_, creating := s.request.(*headwayv1.CreateJobRequest)
	switch verdict := judge(err); {
	case verdict == later:
		e.later(c, err, time.Now())
		s.giveUpWaiting()
	case verdict != away || (creating && keepsOut(err)):
		e.declined(c, s, err)
	default:
		e.outage(err)
	}
}

func (e *engine) declined(c *course, s *step, err *Error) {
	switch request := s.request.(type) {
	case *headwayv1.FinishJobRequest:
		if request.GetResults() != nil && err.Code == codes.InvalidArgument {
			e.notice("the results of job "+c.id+" were refused, so it ends without", err)
			request.Results = nil
			return
		}
	case *headwayv1.UpdateJobRequest:
		if judge(err) != gone {
			e.notice("a change of job "+c.id+" was refused", err)
			c.answered(nil)
			return
		}
	}
	e.stop(c, err)
}

func (e *engine) stop(c *course, err *Error) {
	if !c.over.Load() {
		e.notice("job "+c.id+" is no longer reported", err)
		c.stop(err)
	}
}

func (e *engine) refused(from sender, err *Error) {
	if from.reporter == nil {
		// Nothing in a heartbeat could be put right.
		e.stop(from.course, err)
		return
	}
	e.notice("a report of job "+from.course.id+" was refused", err)
	from.reporter.refused(err)
}

func (e *engine) later(c *course, err *Error, now time.Time) {
	if c.retryAt.IsZero() {
		e.notice("job "+c.id+" has to wait", err)
	}
	pause := err.RetryAfter
	if pause == 0 {
		pause = time.Second
	}
	c.retryAt = now.Add(jitter(min(max(pause, 100*time.Millisecond), time.Minute), 1, 1.2))
}

func (e *engine) notice(text string, err *Error) {
	e.log.Warn("headway: " + text + ": " + inWords(err))
}

func (e *engine) outage(err *Error) {
	// A server that says so itself is well. After all else the connection is not believed: what went wrong on it once
	// stays wrong for all later calls, and gRPC would wait longer than we do before it connects anew.
	if err.Reason != "" && (err.Code == codes.Unavailable || err.Code == codes.ResourceExhausted) {
		e.dropStream()
	} else {
		e.hangUp()
	}
	e.contact.lost(err, time.Now())
	for _, c := range e.courses {
		for _, s := range c.steps {
			s.giveUpWaiting()
		}
	}
}

// hangUp closes the connection, and with it all calls that are under way.
func (e *engine) hangUp() {
	e.dropStream()
	for placed := range e.calls {
		placed.cancel()
	}
	clear(e.calls)
	for _, c := range e.courses {
		c.calling = false
	}
	e.line.hangUp()
}

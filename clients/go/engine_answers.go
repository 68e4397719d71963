package headway

import (
	"time"

	"google.golang.org/grpc/codes"

	"github.com/headway-project/headway/clients/go/headwayv1"
)

func (e *engine) arrived(from *reportStream, response *headwayv1.StreamProgressResponse, err *Error) {
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
	for _, cancellation := range response.GetCancellations() {
		for _, c := range e.jobs {
			if c.id == cancellation.GetJobId() {
				c.cancelled(cancellation.GetCancellation())
			}
		}
	}
	if response.GetNextReportAfter() != nil {
		e.reportInterval = min(max(response.GetNextReportAfter().AsDuration(), minReportInterval), maxReportInterval)
	}
	if e.batch != nil && response.GetAcked() >= from.sent {
		batch := e.batch
		e.batch = nil
		e.acked(batch, time.Now())
	}
}

func (e *engine) acked(batch *batch, now time.Time) {
	for position, from := range batch.senders {
		c := from.jobState
		if err := batch.failures[int32(position)]; err == nil {
			if from.reporter != nil {
				from.reporter.settle()
			}
			if !c.retryAt.After(now) {
				c.retryAt = time.Time{}
			}
		} else {
			switch policyFor(err) {
			case policyStop:
				e.stop(c, err)
			case policyDrop:
				e.refused(from, err)
			default:
				e.retryLater(c, err, now)
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
	e.connectionState.answered()
	if e.onFirstAnswer != nil {
		e.onFirstAnswer()
		e.onFirstAnswer = nil
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
			from.jobState.due = time.Time{}
		}
	}
	e.batch = nil
}

func (e *engine) called(c *jobState, s *pendingCall, inFlight *call, job *headwayv1.Job, err error) {
	if _, known := e.calls[inFlight]; !known {
		return
	}
	delete(e.calls, inFlight)
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

func (e *engine) answer(c *jobState, s *pendingCall, job *headwayv1.Job, err *Error) {
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
	switch policy := policyFor(err); {
	case policy == policyRetry:
		e.retryLater(c, err, time.Now())
		s.giveUpWaiting()
	case policy != policyReconnect || (creating && deniesAccess(err)):
		e.declined(c, s, err)
	default:
		e.outage(err)
	}
}

func (e *engine) declined(c *jobState, s *pendingCall, err *Error) {
	switch request := s.request.(type) {
	case *headwayv1.FinishJobRequest:
		if request.GetResults() != nil && err.Code == codes.InvalidArgument {
			e.warn("the results of job "+c.id+" were refused, so it ends without", err)
			request.Results = nil
			return
		}
	case *headwayv1.UpdateJobRequest:
		if policyFor(err) != policyStop {
			e.warn("a change of job "+c.id+" was refused", err)
			c.answered(nil)
			return
		}
	}
	e.stop(c, err)
}

func (e *engine) stop(c *jobState, err *Error) {
	if !c.over.Load() {
		e.warn("job "+c.id+" is no longer reported", err)
		c.stop(err)
	}
}

func (e *engine) refused(from sender, err *Error) {
	if from.reporter == nil {
		// A heartbeat has nothing that could be left out.
		e.stop(from.jobState, err)
		return
	}
	e.warn("a report of job "+from.jobState.id+" was refused", err)
	from.reporter.refused(err)
}

func (e *engine) retryLater(c *jobState, err *Error, now time.Time) {
	if c.retryAt.IsZero() {
		e.warn("job "+c.id+" has to wait", err)
	}
	pause := err.RetryAfter
	if pause == 0 {
		pause = time.Second
	}
	c.retryAt = now.Add(jitter(min(max(pause, 100*time.Millisecond), time.Minute), 1, 1.2))
}

func (e *engine) warn(text string, err *Error) {
	e.log.Warn("headway: " + text + ": " + logText(err))
}

func (e *engine) outage(err *Error) {
	// A server that says this itself is healthy. After any other error the connection is not trusted: a fault on it may
	// stay for all later calls, and gRPC waits longer than this client before it reconnects.
	if err.Reason != "" && (err.Code == codes.Unavailable || err.Code == codes.ResourceExhausted) {
		e.dropStream()
	} else {
		e.disconnect()
	}
	e.connectionState.failed(err, time.Now())
	for _, c := range e.jobs {
		for _, s := range c.pending {
			s.giveUpWaiting()
		}
	}
}

// disconnect closes the connection, and with it all calls in flight.
func (e *engine) disconnect() {
	e.dropStream()
	for inFlight := range e.calls {
		inFlight.cancel()
	}
	clear(e.calls)
	for _, c := range e.jobs {
		c.calling = false
	}
	e.conn.disconnect()
}

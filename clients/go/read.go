package headway

import (
	"context"
	"errors"
	"io"
	"iter"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/protobuf/types/known/durationpb"
	"google.golang.org/protobuf/types/known/structpb"

	"github.com/headway-project/headway/clients/go/headwayv1"
)

const (
	maxCallAttempts     = 5
	firstCallRetryDelay = 100 * time.Millisecond
	maxCallRetryDelay   = 2 * time.Second
	callRetryGrowth     = 2.5
	maxWatchRetryDelay  = 5 * time.Second
)

type method[Q, A any] func(headwayv1.JobServiceClient, context.Context, Q, ...grpc.CallOption) (A, error)

// once makes a call that its caller waits for.
func once[Q, A any](ctx context.Context, c *connection, request Q, call method[Q, A]) (A, error) {
	ctx, cancel := context.WithTimeout(ctx, c.callTimeout)
	defer cancel()
	return attempt(ctx, c, request, call)
}

// repeated is once for calls without a second effect. It tries up to 5 times, within about 3 s, while the server is
// UNAVAILABLE.
func repeated[Q, A any](ctx context.Context, c *connection, request Q, call method[Q, A]) (A, error) {
	ctx, cancel := context.WithTimeout(ctx, c.callTimeout)
	defer cancel()
	pause := firstCallRetryDelay
	for try := 1; ; try++ {
		answer, err := attempt(ctx, c, request, call)
		if try == maxCallAttempts || !errors.Is(err, ErrUnavailable) || !sleep(ctx, jitter(pause, 0.8, 1.2)) {
			return answer, err
		}
		pause = min(time.Duration(float64(pause)*callRetryGrowth), maxCallRetryDelay)
	}
}

func attempt[Q, A any](ctx context.Context, c *connection, request Q, call method[Q, A]) (answer A, err error) {
	answer, failed := call(c.conn.stub(), ctx, request)
	if failed == nil {
		return answer, nil
	}
	told := fromError(failed)
	if told.Code == codes.Canceled && told.Reason == "" && error(told) != ErrClosed && ctx.Err() == nil {
		// The engine closed the connection during this call, to open another.
		told.Code = codes.Unavailable
	}
	return answer, told
}

// sleep returns true after the duration, and false if the context ends before.
func sleep(ctx context.Context, span time.Duration) bool {
	timer := time.NewTimer(span)
	defer timer.Stop()
	select {
	case <-timer.C:
		return true
	case <-ctx.Done():
		return false
	}
}

// Get returns the job's current state. ErrNotFound.
func (c *Client) Get(ctx context.Context, id string) (*headwayv1.Job, error) {
	session, err := c.in()
	if err != nil {
		return nil, err
	}
	request := &headwayv1.GetJobRequest{SessionId: session, JobId: id}
	return repeated(ctx, c.connection, request, headwayv1.JobServiceClient.GetJob)
}

// Filter selects jobs of a session: those that match every field that is set.
type Filter struct {
	Statuses []headwayv1.JobStatus
	Name     string
	Invoker  string
	Labels   map[string]string
	Stalled  *bool
	// PageSize is the number of jobs in one call: 50 by default, at most 1,000.
	PageSize int32
}

// List gives the jobs of the session that match the filter, newest first, page by page. It ends after an error.
func (c *Client) List(ctx context.Context, filter Filter) iter.Seq2[*headwayv1.Job, error] {
	return func(yield func(*headwayv1.Job, error) bool) {
		session, err := c.in()
		if err != nil {
			yield(nil, err)
			return
		}
		request := &headwayv1.ListJobsRequest{
			SessionId: session, PageSize: filter.PageSize, Statuses: filter.Statuses, Name: filter.Name,
			Invoker: filter.Invoker, Labels: filter.Labels, Stalled: filter.Stalled,
		}
		for {
			page, err := repeated(ctx, c.connection, request, headwayv1.JobServiceClient.ListJobs)
			if err != nil {
				yield(nil, err)
				return
			}
			for _, job := range page.GetJobs() {
				if !yield(job, nil) {
					return
				}
			}
			if request.PageToken = page.GetNextPageToken(); request.PageToken == "" {
				return
			}
		}
	}
}

// Results returns the job's results, as encoding/json would decode them; nil unless it is COMPLETED with results.
// ErrNotFound.
func (c *Client) Results(ctx context.Context, id string) (any, error) {
	session, err := c.in()
	if err != nil {
		return nil, err
	}
	request := &headwayv1.GetResultsRequest{SessionId: session, JobId: id}
	answer, err := repeated(ctx, c.connection, request, headwayv1.JobServiceClient.GetResults)
	if err != nil {
		return nil, err
	}
	return answer.GetResults().AsInterface(), nil
}

// Variables are the job's variables, or those of these names that are set, as encoding/json would decode them. ErrNotFound.
func (c *Client) Variables(ctx context.Context, id string, names ...string) (map[string]any, error) {
	fields, err := c.variables(ctx, id, names...)
	if err != nil {
		return nil, err
	}
	found := make(map[string]any, len(fields))
	for name, value := range fields {
		found[name] = value.AsInterface()
	}
	return found, nil
}

func (c *Client) variables(ctx context.Context, id string, names ...string) (map[string]*structpb.Value, error) {
	session, err := c.in()
	if err != nil {
		return nil, err
	}
	request := &headwayv1.GetVariablesRequest{SessionId: session, JobId: id, Names: names}
	answer, err := repeated(ctx, c.connection, request, headwayv1.JobServiceClient.GetVariables)
	fields := answer.GetVariables().GetFields()
	if fields == nil {
		fields = map[string]*structpb.Value{}
	}
	return fields, err
}

// RecordErrors are the first and the last 100 record errors of the job, and how many there were. ErrNotFound.
func (c *Client) RecordErrors(ctx context.Context, id string) (*headwayv1.ListRecordErrorsResponse, error) {
	session, err := c.in()
	if err != nil {
		return nil, err
	}
	request := &headwayv1.ListRecordErrorsRequest{SessionId: session, JobId: id}
	return repeated(ctx, c.connection, request, headwayv1.JobServiceClient.ListRecordErrors)
}

// Cancel asks the job's worker to end early, for a reason of at most 1,024 characters, and ends the job itself after the
// server's grace period (60 s by default). ErrNotFound; ErrState if it has ended otherwise.
func (c *Client) Cancel(ctx context.Context, id, reason string) (*headwayv1.Job, error) {
	return c.cancel(ctx, id, reason, nil)
}

// CancelWithin is [Client.Cancel] with your own grace period; 0 = at once.
func (c *Client) CancelWithin(ctx context.Context, id, reason string, grace time.Duration) (*headwayv1.Job, error) {
	return c.cancel(ctx, id, reason, durationpb.New(grace))
}

func (c *Client) cancel(ctx context.Context, id, reason string, grace *durationpb.Duration) (*headwayv1.Job, error) {
	session, err := c.in()
	if err != nil {
		return nil, err
	}
	request := &headwayv1.CancelJobRequest{
		SessionId: session, JobId: id, Reason: clean(reason, maxMessageChars), GracePeriod: grace,
	}
	return once(ctx, c.connection, request, headwayv1.JobServiceClient.CancelJob)
}

// Clear removes the job with its variables, results and record errors. A missing job is no error.
func (c *Client) Clear(ctx context.Context, id string) error {
	session, err := c.in()
	if err != nil {
		return err
	}
	request := &headwayv1.ClearJobRequest{SessionId: session, JobId: id, AllowMissing: true}
	_, err = once(ctx, c.connection, request, headwayv1.JobServiceClient.ClearJob)
	return err
}

// Watch gives the job's state once it is newer than the revision (0: at once), then each newer state, until the job has
// ended. After a broken connection it continues where it stopped, until the context ends. It ends after an error:
// ErrNotFound, also if the job is cleared meanwhile, or the context's cause.
func (c *Client) Watch(ctx context.Context, id string, revision int64) iter.Seq2[*headwayv1.Job, error] {
	return func(yield func(*headwayv1.Job, error) bool) {
		session, err := c.in()
		if err != nil {
			yield(nil, err)
			return
		}
		request := &headwayv1.WatchJobRequest{SessionId: session, JobId: id, AfterRevision: revision}
		err = c.rewatch(ctx, func(ctx context.Context, heard func()) (bool, error) {
			call, err := c.Stub().WatchJob(ctx, request)
			for err == nil {
				var response *headwayv1.WatchJobResponse
				if response, err = call.Recv(); err != nil {
					break
				}
				heard()
				request.AfterRevision = response.GetJob().GetRevision()
				if !yield(response.GetJob(), nil) || Ended(response.GetJob().GetStatus()) {
					return true, nil
				}
			}
			return errors.Is(err, io.EOF), err
		})
		if err != nil {
			yield(nil, err)
		}
	}
}

// WatchSession gives the current jobs of the session, then each change: a job, or the id of one that was removed. It
// reconnects after broken connections, until the context ends.
//
// The token is that of the last change received, or empty. WatchSession ends after an error: ErrState with the reason
// RESUME_TOKEN_EXPIRED if the token is too old.
func (c *Client) WatchSession(ctx context.Context, token string) iter.Seq2[*headwayv1.WatchJobsResponse, error] {
	return func(yield func(*headwayv1.WatchJobsResponse, error) bool) {
		session, err := c.in()
		if err != nil {
			yield(nil, err)
			return
		}
		request := &headwayv1.WatchJobsRequest{SessionId: session, ResumeToken: token}
		err = c.rewatch(ctx, func(ctx context.Context, heard func()) (bool, error) {
			call, err := c.Stub().WatchJobs(ctx, request)
			for err == nil {
				var change *headwayv1.WatchJobsResponse
				if change, err = call.Recv(); err != nil {
					break
				}
				heard()
				request.ResumeToken = change.GetResumeToken()
				if !yield(change, nil) {
					return true, nil
				}
			}
			return false, err
		})
		if err != nil {
			yield(nil, err)
		}
	}
}

// rewatch repeats a watch after a broken connection, until it is over or its error is final.
func (c *Client) rewatch(ctx context.Context, watch func(context.Context, func()) (bool, error)) error {
	failures := 0
	for {
		over, err := func() (bool, error) {
			// Also if the caller's loop panics.
			call, cancel := context.WithCancel(ctx)
			defer cancel()
			return watch(call, func() { failures = 0 })
		}()
		if over {
			return nil
		}
		if ctx.Err() != nil {
			return context.Cause(ctx)
		}
		broken := &Error{Code: codes.Unavailable}
		if !errors.Is(err, io.EOF) {
			broken = fromError(err)
		}
		if broken.Code != codes.Unavailable && broken.Code != codes.Canceled || error(broken) == ErrClosed {
			return broken
		}
		if broken.Reason == "STREAM_EXPIRED" && failures == 0 {
			continue
		}
		failures++
		if !sleep(ctx, jitter(min(firstCallRetryDelay<<min(failures, 6), maxWatchRetryDelay), 0.5, 1)) {
			return context.Cause(ctx)
		}
	}
}

// Wait waits until the job has ended, no matter who ends it, and returns its final state. It waits as long as the context
// allows. ErrNotFound if the job is cleared meanwhile.
func (c *Client) Wait(ctx context.Context, id string) (*headwayv1.Job, error) {
	var last *headwayv1.Job
	for job, err := range c.Watch(ctx, id, 0) {
		if err != nil {
			return nil, err
		}
		last = job
	}
	if !Ended(last.GetStatus()) {
		return nil, &Error{Code: codes.Unavailable, Message: "the watch ended before the job"}
	}
	return last, nil
}

// Ended reports whether a job with this status has ended.
func Ended(status headwayv1.JobStatus) bool {
	switch status {
	case headwayv1.JobStatus_JOB_STATUS_COMPLETED, headwayv1.JobStatus_JOB_STATUS_FAILED, headwayv1.JobStatus_JOB_STATUS_CANCELLED:
		return true
	}
	return false
}

package main

import (
	"context"
	"errors"
	"time"

	"google.golang.org/grpc/codes"

	headway "github.com/headway-project/headway/clients/go"
	"github.com/headway-project/headway/clients/go/headwayv1"
)

// onJob carries out an operation on a job object.
func (d *driver) onJob(ctx context.Context, job *headway.Job, a *arguments) (any, error) {
	meter := job.Meter
	if a.Part != "" {
		meter = job.Part(a.Part)
	}
	// Meter has Set and Checkpoint too; those of the job also remember for Get.
	set, checkpoint := meter.Set, meter.Checkpoint
	if a.Part == "" {
		set, checkpoint = job.Set, job.Checkpoint
	}
	switch a.Op {
	case "view":
		return view(job), nil
	case "refresh":
		err := job.Refresh(ctx)
		return view(job), err
	case "progress":
		for i := range a.times() {
			meter.SetProgress(a.number() + i)
		}
	case "advance":
		for range a.times() {
			meter.Advance(a.by())
		}
	case "track":
		if a.Part != "" {
			return track(meter, a.Items, a.StopBefore), nil
		}
		return track(job, a.Items, a.StopBefore), nil
	case "count":
		for range a.times() {
			meter.Count(a.Counter, a.by())
		}
	case "record_error":
		code, _ := a.Code.(string)
		for range a.times() {
			meter.RecordError(a.Record, code, a.Message)
		}
	case "set":
		set(a.Variables)
	case "checkpoint":
		checkpoint(a.Variables)
	case "message":
		meter.SetMessage(a.text())
	case "size":
		job.SetSize(a.number())
	case "name":
		job.SetName(a.text())
	case "invoker":
		job.SetInvoker(a.text())
	case "finish":
		job.Finish(a.Results)
	case "fail":
		job.FailWith(a.code(), a.Message)
	case "leave":
		return nil, leave(job, a)
	case "flush":
		ctx, cancel := a.within()
		defer cancel()
		return job.Flush(ctx) == nil, nil
	case "get":
		return job.Get(ctx, a.name())
	case "wait_cancelled":
		return waitCancelled(job, a), nil
	case "wait_stopped":
		ctx, cancel := a.within()
		defer cancel()
		select {
		case <-job.Stopped():
		case <-ctx.Done():
			return nil, nil
		}
		stopped := (*headway.Error)(nil)
		errors.As(job.Err(), &stopped)
		return map[string]string{"reason": stopped.Reason}, nil
	default:
		return nil, errUnsupported
	}
	return nil, nil
}

// leave ends a function that works on the job, in the way that the case says.
func leave(job *headway.Job, a *arguments) error {
	work := func() (err error) {
		defer job.Close(&err)
		switch a.How {
		case "error":
			return errors.New(a.Message)
		case "cancelled":
			if cause := (*headway.CancelledError)(nil); errors.As(context.Cause(job.Context()), &cause) {
				return cause
			}
			return &headway.CancelledError{Reason: a.Message}
		}
		return nil
	}
	if err := work(); err != nil && a.How == "done" {
		return err
	}
	return nil
}

func waitCancelled(job *headway.Job, a *arguments) any {
	ctx, cancel := a.within()
	defer cancel()
	select {
	case <-job.Context().Done():
	case <-ctx.Done():
		return nil
	}
	cancelled := (*headway.CancelledError)(nil)
	if !errors.As(context.Cause(job.Context()), &cancelled) {
		return nil
	}
	var deadline any
	if !cancelled.Deadline.IsZero() {
		deadline = cancelled.Deadline.Format(time.RFC3339Nano)
	}
	return map[string]any{"reason": cancelled.Reason, "deadline": deadline}
}

func view(job *headway.Job) map[string]any {
	return map[string]any{
		"id": job.ID(), "name": job.Name(), "invoker": job.Invoker(), "status": status(job.Status()),
		"progress": job.Progress(), "size": job.Size(), "unit": job.Unit(), "message": job.Message(),
		"attempt": job.Attempt(), "results": job.Results(), "cancelled": job.Cancelled(),
	}
}

func status(status headwayv1.JobStatus) string { return status.String()[len("JOB_STATUS_"):] }

func asState(job *headwayv1.Job, err error) (any, error) {
	if err != nil {
		return nil, err
	}
	return state(job), nil
}

func state(job *headwayv1.Job) map[string]any {
	var ended any
	if job.GetError() != nil {
		ended = map[string]any{"code": codeNames[codes.Code(job.GetError().GetCode())], "message": job.GetError().GetMessage()}
	}
	return map[string]any{
		"id": job.GetId(), "name": job.GetName(), "invoker": job.GetInvoker(), "status": status(job.GetStatus()),
		"progress": job.GetProgress(), "size": job.GetSize(), "unit": job.GetUnit(), "message": job.GetMessage(),
		"labels": orEmpty(job.GetLabels()), "parts": orEmpty(job.GetParts()), "counters": orEmpty(job.GetCounters()),
		"error_count": job.GetErrorCount(), "error": ended, "attempt": job.GetAttempt(), "revision": job.GetRevision(),
		"stalled": job.GetStalled(), "continues": job.GetContinues(), "continued_by": job.GetContinuedBy(), "key": job.GetKey(),
	}
}

func orEmpty[V any](found map[string]V) map[string]V {
	if found == nil {
		return map[string]V{}
	}
	return found
}

func records(found []*headwayv1.RecordError) []map[string]string {
	result := []map[string]string{}
	for _, record := range found {
		result = append(result, map[string]string{
			"record": record.GetRecord(), "code": record.GetCode(), "message": record.GetMessage(),
		})
	}
	return result
}

package headway

import (
	"context"
	"log/slog"
	"os"

	"google.golang.org/protobuf/proto"

	"github.com/headway-project/headway/clients/go/headwayv1"
)

// SpoolReport counts what happened to the spool files of earlier processes for this server.
type SpoolReport struct {
	// Sent is the number of spool files that the server has stored.
	Sent int
	// Refused is the number of files that the server will never accept. They stay in the spool's folder as *.refused.
	Refused int
	// Waiting is the number of files that are left for later: the server is unreachable, or another process has them.
	Waiting int
}

type outcome int

const (
	sent outcome = iota
	rejected
	waiting
)

// spoolSender sends the spool files for one server, one after the other, over a connection of its own.
type spoolSender struct {
	target target
	log    *slog.Logger
}

// run sends the files that are there, or those of one job, until the context ends. After the server does not answer,
// the rest stays for later.
func (p spoolSender) run(ctx context.Context, jobID string) SpoolReport {
	var report SpoolReport
	conn := &lazyConn{target: p.target}
	defer conn.close()
	down := false
	blocked := map[string]bool{}
	for _, path := range waitingFiles(p.target, jobID) {
		job := jobInName(path)
		if down || ctx.Err() != nil || blocked[job] {
			report.Waiting++
			continue
		}
		file := claimSpoolFile(path)
		if file == nil {
			// Another process has the file. Later files of the same job must wait for it.
			blocked[job] = true
			report.Waiting++
			continue
		}
		switch p.deliver(ctx, file, conn.stub()) {
		case sent:
			report.Sent++
		case rejected:
			report.Refused++
		case waiting:
			report.Waiting++
			down = true
		}
	}
	return report
}

// deliver sends a file and removes it. If the server will never accept it, deliver sets it aside. Otherwise it leaves
// the file.
func (p spoolSender) deliver(ctx context.Context, file *spoolFile, stub headwayv1.JobServiceClient) outcome {
	defer file.release()
	data, err := os.ReadFile(file.path)
	if err != nil {
		return waiting
	}
	record, err := decodeSpoolRecord(data)
	if err != nil {
		p.log.Warn("headway: the server refused what an earlier process left for a job, see " + file.refuse() + ": " + err.Error())
		return rejected
	}
	if err := send(ctx, stub, record.requests); err != nil {
		if policy := policyFor(err); policy == policyStop || policy == policyDrop {
			p.log.Warn("headway: the server refused what an earlier process left for a job, see " + file.refuse() + ": " + logText(err))
			return rejected
		}
		return waiting
	}
	p.log.Info("headway: the spool file of job " + record.jobID + " is delivered")
	file.remove()
	return sent
}

// send makes these calls in order. It returns an error if an essential call fails.
func send(ctx context.Context, stub headwayv1.JobServiceClient, requests []proto.Message) *Error {
	var ended *Error
	for _, request := range requests {
		err := sendOne(ctx, stub, request)
		switch {
		case err == nil && isEnd(request):
			ended = nil
		case err == nil:
		case isEnd(request) || err.Reason != "JOB_ENDED":
			return err
		default:
			// If the end arrived and only its answer was lost, everything before it arrived too. Repeating the end tells.
			ended = err
		}
	}
	return ended
}

func isEnd(request proto.Message) bool {
	switch request.(type) {
	case *headwayv1.FinishJobRequest, *headwayv1.FailJobRequest:
		return true
	}
	return false
}

func sendOne(ctx context.Context, stub headwayv1.JobServiceClient, request proto.Message) *Error {
	err := sendOnce(ctx, stub, request)
	if err == nil || policyFor(err) != policyDrop {
		return err
	}
	// A refused part of a job must not hold back the rest.
	switch known := request.(type) {
	case *headwayv1.ReportProgressRequest:
		if known.Variables == nil {
			return nil
		}
		known.Variables = nil
	case *headwayv1.UpdateJobRequest:
		return nil
	case *headwayv1.FinishJobRequest:
		if known.Results == nil {
			return err
		}
		known.Results = nil
	default:
		return err
	}
	return sendOnce(ctx, stub, request)
}

func sendOnce(ctx context.Context, stub headwayv1.JobServiceClient, request proto.Message) *Error {
	ctx, cancel := context.WithTimeout(ctx, answerTimeout)
	defer cancel()
	var err error
	if report, ok := request.(*headwayv1.ReportProgressRequest); ok {
		_, err = stub.ReportProgress(ctx, report)
	} else {
		_, err = makeCall(ctx, stub, request)
	}
	if err != nil {
		return fromError(err)
	}
	return nil
}

// spoolUndelivered saves in the spool what these jobs have left to send. The result has an entry for each job with
// something left: its file, or nil if there is no spool. Of several errors it returns the last.
func spoolUndelivered(to target, jobs []*jobState) (left map[*jobState]*spoolFile, fault error) {
	left = map[*jobState]*spoolFile{}
	for _, c := range jobs {
		if c.over.Load() {
			continue
		}
		requests := c.undelivered()
		if len(requests) == 0 {
			continue
		}
		left[c] = nil
		if spoolFolder() == "" {
			continue
		}
		file, err := writeToSpool(to, &spoolRecord{to.address, to.tls, c.id, c.state.Load().GetName(), requests})
		if err != nil {
			fault = err
			continue
		}
		left[c] = file
	}
	return left, fault
}

package headway

import (
	"context"
	"log/slog"
	"os"

	"google.golang.org/protobuf/proto"

	"github.com/headway-project/headway/clients/go/headwayv1"
)

// SpoolReport says what became of what earlier processes left for this server.
type SpoolReport struct {
	// Sent is how many jobs' words arrived.
	Sent int
	// Refused is how many the server will never take; they stay in the spool's folder as *.refused.
	Refused int
	// Waiting is how many are left for later: the server does not answer, or another process has them.
	Waiting int
}

type outcome int

const (
	sent outcome = iota
	turnedDown
	waiting
)

// postman goes through the letters for one server, one after the other, over a connection of its own.
type postman struct {
	target target
	log    *slog.Logger
}

// run sends what is there, of that job alone if one is given, until the context ends. Once the server does not answer,
// the rest stays for later.
func (p postman) run(ctx context.Context, jobID string) SpoolReport {
	var report SpoolReport
	line := &line{target: p.target}
	defer line.close()
	down := false
	held := map[string]bool{}
	for _, path := range letters(p.target, jobID) {
		job := jobIn(path)
		if down || ctx.Err() != nil || held[job] {
			report.Waiting++
			continue
		}
		letter := claimLetter(path)
		if letter == nil {
			// Another process has it, and what comes after it must wait for it.
			held[job] = true
			report.Waiting++
			continue
		}
		switch p.deliver(ctx, letter, line.stub()) {
		case sent:
			report.Sent++
		case turnedDown:
			report.Refused++
		case waiting:
			report.Waiting++
			down = true
		}
	}
	return report
}

// deliver sends a letter and removes it, puts it aside if the server will never take it, or else leaves it.
func (p postman) deliver(ctx context.Context, letter *letter, stub headwayv1.JobServiceClient) outcome {
	defer letter.release()
	data, err := os.ReadFile(letter.path)
	if err != nil {
		return waiting
	}
	words, err := decodeWords(data)
	if err != nil {
		p.log.Warn("headway: what was left to say of a job is refused, see " + letter.refuse() + ": " + err.Error())
		return turnedDown
	}
	if err := send(ctx, stub, words.requests); err != nil {
		if verdict := judge(err); verdict == gone || verdict == refused {
			p.log.Warn("headway: what was left to say of a job is refused, see " + letter.refuse() + ": " + inWords(err))
			return turnedDown
		}
		return waiting
	}
	p.log.Info("headway: what was left to say of job " + words.jobID + " is delivered")
	letter.remove()
	return sent
}

// send makes these calls in order, and fails if one fails that matters.
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
			// If the end did arrive, and only its answer did not, then so did all before it: its repeat tells.
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
	if err == nil || judge(err) != refused {
		return err
	}
	// What is refused of a job must not keep the rest of it back.
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
	ctx, cancel := context.WithTimeout(ctx, patience)
	defer cancel()
	var err error
	if report, ok := request.(*headwayv1.ReportProgressRequest); ok {
		_, err = stub.ReportProgress(ctx, report)
	} else {
		_, err = place(ctx, stub, request)
	}
	if err != nil {
		return fromError(err)
	}
	return nil
}

// writeDown puts in the spool what these jobs have left to say. For each that has something: the letter, or nil if
// there is no spool. Of several faults the last is told.
func writeDown(to target, courses []*course) (left map[*course]*letter, fault error) {
	left = map[*course]*letter{}
	for _, c := range courses {
		if c.over.Load() {
			continue
		}
		requests := c.remains()
		if len(requests) == 0 {
			continue
		}
		left[c] = nil
		if spoolFolder() == "" {
			continue
		}
		letter, err := spool(to, &words{to.address, to.tls, c.id, c.state.Load().GetName(), requests})
		if err != nil {
			fault = err
			continue
		}
		left[c] = letter
	}
	return left, fault
}

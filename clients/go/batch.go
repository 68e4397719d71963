package headway

import (
	"slices"
	"time"

	"google.golang.org/protobuf/proto"

	"github.com/headway-project/headway/clients/go/headwayv1"
)

const (
	// maxMessageBytes is what the server accepts in one message, less room for its frame.
	maxMessageBytes = 4<<20 - 64<<10
	maxBatchReports = 1000
	maxBatchBytes   = 2 << 20
)

// sender says whose report is at a position of a batch. Without a reporter it is a heartbeat.
type sender struct {
	jobState *jobState
	reporter *reporter
}

// batch is one request of the stream. It is filled with the reports that are due, as far as there is room.
type batch struct {
	request   *headwayv1.StreamProgressRequest
	senders   []sender
	failures  map[int32]*Error
	oversized []sender
	bytes     int
}

func newBatch() *batch {
	return &batch{request: &headwayv1.StreamProgressRequest{}, failures: map[int32]*Error{}}
}

func (b *batch) fill(jobs []*jobState, now time.Time, turn func(*jobState) time.Duration) {
	slices.SortStableFunc(jobs, func(a, b *jobState) int { return a.due.Compare(b.due) })
	for _, jobState := range jobs {
		for reporter, report := range jobState.reports(now) {
			size := proto.Size(report)
			if size > maxMessageBytes {
				b.oversized = append(b.oversized, sender{jobState, reporter})
				continue
			}
			if !b.add(sender{jobState, reporter}, report, size) {
				return
			}
			jobState.beatAt = now.Add(turn(jobState))
		}
		jobState.due = now.Add(turn(jobState))
	}
}

func (b *batch) add(from sender, report *headwayv1.ReportProgressRequest, size int) bool {
	b.bytes += size
	if len(b.senders) > 0 && (b.bytes > maxBatchBytes || len(b.senders) == maxBatchReports) {
		return false
	}
	b.request.Reports = append(b.request.Reports, report)
	b.senders = append(b.senders, from)
	return true
}

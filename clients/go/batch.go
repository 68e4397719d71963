package headway

import (
	"slices"
	"time"

	"google.golang.org/protobuf/proto"

	"github.com/headway-project/headway/clients/go/headwayv1"
)

const (
	// messageBytes is what the server takes in one message, less room for its frame.
	messageBytes = 4<<20 - 64<<10
	batchReports = 1000
	batchBytes   = 2 << 20
)

// sender is whose report stands at a place of a batch; without a reporter it is a heartbeat.
type sender struct {
	course   *course
	reporter *reporter
}

// batch is one request of the stream. It is filled with what is due, as far as it has room.
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

func (b *batch) fill(courses []*course, now time.Time, turn func(*course) time.Duration) {
	slices.SortStableFunc(courses, func(a, b *course) int { return a.due.Compare(b.due) })
	for _, course := range courses {
		for reporter, report := range course.reports(now) {
			size := proto.Size(report)
			if size > messageBytes {
				b.oversized = append(b.oversized, sender{course, reporter})
				continue
			}
			if !b.add(sender{course, reporter}, report, size) {
				return
			}
			course.beatAt = now.Add(turn(course))
		}
		course.due = now.Add(turn(course))
	}
}

func (b *batch) add(from sender, report *headwayv1.ReportProgressRequest, size int) bool {
	b.bytes += size
	if len(b.senders) > 0 && (b.bytes > batchBytes || len(b.senders) == batchReports) {
		return false
	}
	b.request.Reports = append(b.request.Reports, report)
	b.senders = append(b.senders, from)
	return true
}

package headway

import (
	"fmt"
	"math"
	"slices"
	"sync"
	"testing"
	"time"

	"google.golang.org/grpc/codes"
	"google.golang.org/protobuf/proto"

	"github.com/headway-project/headway/clients/go/headwayv1"
)

func TestUpdatesFromManyGoroutinesAreAllCounted(t *testing.T) {
	meter := newMeter("", 0, nil, nil)
	var workers sync.WaitGroup
	for range 8 {
		workers.Go(func() {
			for range 1000 {
				meter.Advance(2)
				meter.Count("added", 1)
				meter.RecordError("1", "", "")
			}
		})
	}
	workers.Wait()
	taken := meter.sample(maxErrorBytesPerReport)
	if taken.progress != 16000 || taken.counters["added"] != 8000 {
		t.Errorf("progress %d, added %d", taken.progress, taken.counters["added"])
	}
	count := len(taken.errors)
	for taken.more {
		taken = meter.sample(maxErrorBytesPerReport)
		count += len(taken.errors)
	}
	if count != 8000 {
		t.Errorf("%d record errors", count)
	}
}

func TestOfManyRecordErrorsBothEndsKeepTheirTexts(t *testing.T) {
	var waiting backlog
	meter := newMeter("", 0, nil, nil)
	for i := range 1300 {
		meter.RecordError(fmt.Sprint(i), "", "")
	}
	waiting = meter.errors
	var records []string
	for waiting.len() > 0 {
		records = append(records, waiting.take().GetRecord())
	}
	if len(records) != 1300 || records[499] != "499" || records[500] != "?" || records[799] != "?" || records[800] != "800" {
		t.Errorf("%d: %v", len(records), records[498:802])
	}
}

func TestCheckpointIsSentWithItsOwnMoment(t *testing.T) {
	meter := newMeter("", 0, nil, nil)
	meter.SetProgress(5)
	meter.Count("added", 5)
	meter.Checkpoint(map[string]any{"records": 5})
	meter.SetProgress(9)
	meter.Count("added", 4)
	reporter := newReporter(meter, 0, 0)
	first := reporter.report(about{"s", "j", 1, 0}, true)
	if first.GetProgress() != 5 || first.GetCounters()["added"] != 5 || first.GetVariables().GetFields()["records"].GetNumberValue() != 5 {
		t.Errorf("checkpoint: %v", first)
	}
	reporter.settle()
	second := reporter.report(about{"s", "j", 1, 0}, false)
	if second.GetProgress() != 9 || second.GetCounters()["added"] != 4 || second.GetVariables() != nil {
		t.Errorf("after it: %v", second)
	}
}

func TestReportStaysTheSameUntilItIsSettled(t *testing.T) {
	meter := newMeter("", 0, nil, nil)
	reporter := newReporter(meter, 0, 0)
	meter.Advance(1)
	first := proto.CloneOf(reporter.report(about{"s", "j", 1, 0}, true))
	meter.Advance(1)
	if again := reporter.report(about{"s", "j", 1, 0}, true); !proto.Equal(first, again) {
		t.Errorf("%v became %v", first, again)
	}
	reporter.settle()
	next := reporter.report(about{"s", "j", 1, 0}, true)
	if next.GetProgress() != 2 || next.GetSequence() <= first.GetSequence() {
		t.Errorf("after %v came %v", first, next)
	}
	reporter.settle()
	if idle := reporter.report(about{"s", "j", 1, 0}, true); idle != nil {
		t.Errorf("nothing changed, but %v", idle)
	}
}

func TestRefusedReportGoesOutAgainWithoutVariables(t *testing.T) {
	meter := newMeter("", 0, nil, nil)
	meter.Advance(1)
	meter.Set(map[string]any{"": 1})
	reporter := newReporter(meter, 0, 0)
	first := reporter.report(about{"s", "j", 1, 0}, true)
	unknown := &Error{Code: codes.InvalidArgument, Fields: []FieldError{{"variables", "no"}}}
	reporter.refused(unknown)
	second := reporter.report(about{"s", "j", 1, 0}, true)
	if second.GetVariables() != nil || second.GetProgress() != 1 || second.GetSequence() <= first.GetSequence() {
		t.Errorf("%v became %v", first, second)
	}
	reporter.refused(unknown)
	if reporter.busy() {
		t.Error("refused again, and still there")
	}
}

func TestRefusedReportLosesOnlyWhatIsAtFault(t *testing.T) {
	meter := newMeter("", 0, nil, nil)
	reporter := newReporter(meter, 0, 0)
	refused := func(field string) *headwayv1.ReportProgressRequest {
		reporter.refused(&Error{Code: codes.InvalidArgument, Fields: []FieldError{{field, "too much"}}})
		return reporter.report(about{"s", "j", 1, 0}, false)
	}
	meter.Advance(1)
	meter.Count("a", 1)
	meter.Count("b", 1)
	meter.RecordError("r", "", "")
	meter.Set(map[string]any{"x": 1})
	reporter.report(about{"s", "j", 1, 0}, true)
	if left := refused("counters[a]"); left.GetCounters()["b"] != 1 || len(left.GetCounters()) != 1 || left.GetProgress() != 1 || left.GetVariables() == nil {
		t.Errorf("a counter at fault: %v", left)
	}
	if left := refused("counters"); len(left.GetCounters()) != 0 || left.GetProgress() != 1 {
		t.Errorf("counters at fault: %v", left)
	}
	if left := refused("progress"); left.GetAmount() != nil || len(left.GetRecordErrors()) != 1 || left.GetVariables() == nil {
		t.Errorf("progress at fault: %v", left)
	}
	if left := refused("progress"); left.GetVariables() != nil || len(left.GetRecordErrors()) != 1 {
		t.Errorf("still at fault: %v", left)
	}
	if left := refused("part"); left != nil {
		t.Errorf("all of it at fault: %v", left)
	}
}

func TestCounterStopsAtTheEndOfItsNumbers(t *testing.T) {
	meter := newMeter("", 0, nil, nil)
	for range 3 {
		meter.Count("up", math.MaxInt64/2+1)
		meter.Count("down", math.MinInt64/2-1)
	}
	if counters := meter.sample(0).counters; counters["up"] != math.MaxInt64 || counters["down"] != math.MinInt64 {
		t.Error(counters)
	}
}

func TestNoHeartbeatIsWithoutAPause(t *testing.T) {
	e := newEngine(target{}, quiet, nil)
	if turn := e.turn(&jobState{heartbeat: 1}); turn != minReportInterval {
		t.Error(turn)
	}
}

func TestTrackCountsAnItemWhenItsTurnIsOver(t *testing.T) {
	meter := newMeter("", 0, nil, func(int64) {})
	for item := range Track(meter, slices.Values([]int{1, 2, 3})) {
		if done := meter.Progress(); done != int64(item-1) {
			t.Errorf("in item %d: %d done", item, done)
		}
	}
	for index := range TrackSlice(meter, make([]int, 5)) {
		if index == 2 {
			break
		}
	}
	items := make(chan int, 2)
	items <- 1
	items <- 2
	close(items)
	for range TrackChan(meter, items) {
	}
	for range Track2(meter, slices.All([]int{1})) {
	}
	if meter.Progress() != 3+2+2+1 {
		t.Errorf("%d done", meter.Progress())
	}
}

func TestFurtherCountersAreNotKept(t *testing.T) {
	meter := newMeter("", 0, nil, nil)
	for i := range 100 {
		meter.Count(fmt.Sprint(i), 1)
	}
	if kept := len(meter.sample(0).counters); kept != maxCounters {
		t.Errorf("%d counters", kept)
	}
}

func BenchmarkSetProgress(b *testing.B) {
	meter := newMeter("", 0, nil, nil)
	for i := range b.N {
		meter.SetProgress(int64(i))
	}
}

func TestSequencesGoOnAboveThoseOfALaterClock(t *testing.T) {
	meter := newMeter("", 0, nil, func(int64) {})
	reporter := newReporter(meter, 0, 0)
	anHourOn := time.Now().Add(time.Hour).UnixMicro()
	for number, last := range []int64{anHourOn, 0, math.MaxInt64} {
		meter.Advance(1)
		report := reporter.report(about{"s", "j", 1, last}, true)
		if want := anHourOn + int64(number) + 1; report.GetSequence() != want {
			t.Errorf("after %d came %d, not %d", last, report.GetSequence(), want)
		}
		reporter.settle()
	}
}

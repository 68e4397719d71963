package headway

import (
	"strings"
	"time"

	"google.golang.org/protobuf/proto"

	"github.com/headway-project/headway/clients/go/headwayv1"
)

const maxErrorBytesPerReport = 1 << 20

// No clock gives a sequence from here on, and counting on from it could exceed 2⁶³. Such a sequence is ignored.
const maxUsableSequence = 1 << 62

// about holds the fields that all reports of a job carry.
type about struct {
	session, id string
	attempt     int32
	// last is the greatest sequence of the reports that the server has applied; 0 = none, or not known.
	last int64
}

// reporter turns one meter's state into numbered reports. A report stays the same, and is sent again, until it is
// settled. So a retry counts once.
type reporter struct {
	meter     *Meter
	sequence  int64
	progress  int64
	size      int64
	message   string
	counters  map[string]int64
	unsettled []*headwayv1.ReportProgressRequest
	more      bool
	pressing  bool
}

func newReporter(meter *Meter, progress, size int64) *reporter {
	return &reporter{meter: meter, sequence: time.Now().UnixMicro(), progress: progress, size: size}
}

// busy: a report is unsettled, or another must follow without waiting.
func (r *reporter) busy() bool { return len(r.unsettled) > 0 || r.pressing }

// report is the unsettled report, or a new one, or nil if nothing has changed. Without fresh it makes a new report only
// to complete the one before.
func (r *reporter) report(about about, fresh bool) *headwayv1.ReportProgressRequest {
	if len(r.unsettled) == 0 && (fresh || r.more) {
		r.freeze(about)
	}
	if len(r.unsettled) == 0 {
		return nil
	}
	return r.unsettled[0]
}

// drain gives everything that this meter has left to report.
func (r *reporter) drain(about about, fresh bool) []*headwayv1.ReportProgressRequest {
	for more := !fresh || r.freeze(about); more && r.more; {
		more = r.freeze(about)
	}
	return r.unsettled
}

// settle: the server has applied the report.
func (r *reporter) settle() { r.unsettled = r.unsettled[1:] }

// refused: the server has refused the report. The rest of it goes out again without the invalid fields.
func (r *reporter) refused(err *Error) {
	if len(r.unsettled) == 0 {
		return
	}
	// gRPC may still read the report that was sent.
	lighter := proto.CloneOf(r.unsettled[0])
	if !lighten(lighter, err.Fields) {
		r.settle()
		return
	}
	r.unsettled[0] = lighter
	for _, report := range r.unsettled {
		r.number(report)
	}
}

// lighten removes from a report what the server refused, and reports whether there was such a thing. If the error names
// counters or the progress (they can exceed a limit together with other reports), lighten removes those, else the
// variables.
func lighten(report *headwayv1.ReportProgressRequest, faults []FieldError) (lighter bool) {
	for _, fault := range faults {
		counter, one := strings.CutPrefix(fault.Field, "counters[")
		switch {
		case one:
			counter = strings.TrimSuffix(counter, "]")
			_, there := report.Counters[counter]
			delete(report.Counters, counter)
			lighter = lighter || there
		case fault.Field == "counters":
			lighter = lighter || len(report.Counters) > 0
			report.Counters = nil
		case fault.Field == "progress":
			lighter = lighter || report.Amount != nil
			report.Amount = nil
		}
	}
	if !lighter {
		lighter = report.Variables != nil
		report.Variables = nil
	}
	return lighter
}

func (r *reporter) freeze(about about) bool {
	// Later reports must have higher numbers, even if an earlier process of the same attempt had a faster clock.
	if about.last < maxUsableSequence {
		r.sequence = max(r.sequence, about.last)
	}
	report := r.draft(about)
	if report != nil {
		r.number(report)
		r.unsettled = append(r.unsettled, report)
	}
	return report != nil
}

func (r *reporter) draft(about about) *headwayv1.ReportProgressRequest {
	taken := r.meter.sample(maxErrorBytesPerReport)
	r.more, r.pressing = taken.more, taken.pressing
	report := &headwayv1.ReportProgressRequest{
		SessionId: about.session, JobId: about.id, Attempt: about.attempt, Part: r.meter.name,
		RecordErrors: taken.errors, Variables: taken.variables,
	}
	changed := len(taken.errors) > 0 || taken.variables != nil
	if taken.progress != r.progress {
		r.progress, changed = taken.progress, true
		report.Amount = &headwayv1.ReportProgressRequest_Progress{Progress: taken.progress}
	}
	if taken.size != nil && *taken.size != r.size {
		r.size, changed = *taken.size, true
		report.Size = taken.size
	}
	if taken.message != nil && *taken.message != r.message {
		r.message, changed = *taken.message, true
		report.Message = taken.message
	}
	for name, total := range taken.counters {
		if delta := total - r.counters[name]; delta != 0 {
			if report.Counters == nil {
				report.Counters = map[string]int64{}
			}
			report.Counters[name], changed = delta, true
		}
	}
	r.counters = taken.counters
	if !changed {
		return nil
	}
	return report
}

func (r *reporter) number(report *headwayv1.ReportProgressRequest) {
	r.sequence++
	report.Sequence = r.sequence
}

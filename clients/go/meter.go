package headway

import (
	"maps"
	"math"
	"strings"
	"sync"
	"sync/atomic"

	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/structpb"

	"github.com/headway-project/headway/clients/go/headwayv1"
)

const (
	mostCounters   = 64
	errorsAtOnce   = 1000
	lettersCounter = 128
	lettersRecord  = 256
	lettersCode    = 64
	lettersMessage = 1024
	lettersName    = 256
	lettersUnit    = 32
	lettersLabel   = 256
)

// Meter is one part of a job: what goroutines or processes that share the job move on their own. A [Job] is itself the
// meter of the part with the empty name.
//
// Every method returns at once, whatever the server does, and is safe from many goroutines. Nothing here knows the
// network: the client looks at a meter when a report is due.
type Meter struct {
	name string
	done atomic.Int64
	// still: of a job that was only fetched, until it is changed here.
	still atomic.Bool
	// join puts a job that was only fetched into the reports.
	join func()
	// expect is told the length of what is tracked; a part's own is not the job's.
	expect func(int64)

	mu          sync.Mutex
	counters    map[string]*int64
	errors      backlog
	errorsTaken int
	variables   map[string]*structpb.Value
	cut         *cut
	message     *string
	size        *int64
}

// cut is a meter at the moment of a checkpoint.
type cut struct {
	progress int64
	counters map[string]int64
	errors   int
}

// sample is what a meter has to say: totals as they stand, and what was not taken before.
type sample struct {
	progress  int64
	counters  map[string]int64
	errors    []*headwayv1.RecordError
	variables *structpb.Struct
	message   *string
	size      *int64
	// more: something is left for a further sample.
	more bool
	// pressing: what is left grows with every sample that is put off: record errors.
	pressing bool
}

func newMeter(name string, progress int64, join func(), expect func(int64)) *Meter {
	meter := &Meter{name: name, join: join, expect: expect, counters: map[string]*int64{}}
	meter.done.Store(progress)
	return meter
}

// SetProgress sets how many units of this part are done.
func (m *Meter) SetProgress(units int64) {
	if m.still.Load() {
		m.join()
	}
	m.done.Store(units)
}

// Advance counts so many more units of this part as done; fewer, if units is negative.
func (m *Meter) Advance(units int64) {
	if m.still.Load() {
		m.join()
	}
	m.done.Add(units)
}

// Progress is how many units of this part are done, in this process's eyes.
func (m *Meter) Progress() int64 { return m.done.Load() }

// Count adds n to a named tally ("added", "updated"). A job has at most 64, with names of 1 to 128 characters; further
// ones are not kept.
func (m *Meter) Count(counter string, n int64) {
	m.touch()
	m.mu.Lock()
	defer m.mu.Unlock()
	total := m.counters[counter]
	if total == nil {
		name := first(clean(counter, lettersCounter), "?")
		if total = m.counters[name]; total == nil {
			if len(m.counters) == mostCounters {
				return
			}
			total = new(int64)
			// A copy, since it stays: the name may be a piece of something large.
			m.counters[strings.Clone(name)] = total
		}
	}
	*total = sum(*total, n)
}

// sum stops at the ends of what an int64 holds.
func sum(a, b int64) int64 {
	switch {
	case b > 0 && a > math.MaxInt64-b:
		return math.MaxInt64
	case b < 0 && a < math.MinInt64-b:
		return math.MinInt64
	}
	return a + b
}

// RecordError notes a record that could not be worked on: which (its first 256 characters), a code of one's own to
// group by (64), and why (1,024).
//
// Each is counted. Of more than 1,000 that wait for the server the first and the last 500 keep their texts; the server
// keeps the first and the last 100 of a job.
func (m *Meter) RecordError(record, code, message string) {
	m.touch()
	note := &headwayv1.RecordError{
		Record:  first(clean(record, lettersRecord), "?"),
		Code:    clean(code, lettersCode),
		Message: clean(message, lettersMessage),
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	m.errors.add(note)
}

// Set merges into the job's variables: at most 256, of 256 KiB in all as JSON. Values are what encoding/json takes;
// they are read before Set returns, and sent with the next report.
func (m *Meter) Set(variables map[string]any) { m.merge(toFields(variables), false) }

// Checkpoint merges variables that are stored together with this part's progress, counters and record errors of this
// moment, or not at all: what a worker needs that resumes the job after a crash.
func (m *Meter) Checkpoint(variables map[string]any) { m.merge(toFields(variables), true) }

// SetMessage says what the job is doing now, for people: at most 1,024 characters.
func (m *Meter) SetMessage(message string) {
	m.touch()
	message = clean(message, lettersMessage)
	m.mu.Lock()
	defer m.mu.Unlock()
	m.message = &message
}

func (m *Meter) touch() {
	if m.still.Load() {
		m.join()
	}
}

func (m *Meter) merge(fields map[string]*structpb.Value, withCut bool) {
	m.touch()
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.variables == nil {
		m.variables = map[string]*structpb.Value{}
	}
	maps.Copy(m.variables, fields)
	if withCut {
		m.cut = &cut{m.done.Load(), m.totals(), m.errorsTaken + m.errors.len()}
	}
}

func (m *Meter) totals() map[string]int64 {
	totals := make(map[string]int64, len(m.counters))
	for name, total := range m.counters {
		totals[name] = *total
	}
	return totals
}

// sample is all there is to say, with record errors of at most room bytes, one of them apart.
func (m *Meter) sample(room int) sample {
	m.mu.Lock()
	defer m.mu.Unlock()
	taken := sample{message: m.message, size: m.size, more: m.cut != nil}
	waiting := m.errors.len()
	if m.cut != nil {
		waiting = m.cut.errors - m.errorsTaken
		taken.progress, taken.counters = m.cut.progress, m.cut.counters
	} else {
		taken.progress, taken.counters = m.done.Load(), m.totals()
	}
	taken.progress = max(taken.progress, 0)
	for waiting > 0 && room > 0 && len(taken.errors) < errorsAtOnce {
		note := m.errors.take()
		taken.errors = append(taken.errors, note)
		room -= proto.Size(note)
		waiting--
	}
	m.errorsTaken += len(taken.errors)
	if waiting > 0 {
		taken.more, taken.pressing = true, true
		return taken
	}
	if m.variables != nil {
		taken.variables = &structpb.Struct{Fields: m.variables}
	}
	m.variables, m.cut = nil, nil
	return taken
}

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
	maxCounters        = 64
	maxErrorsPerReport = 1000
	maxCounterChars    = 128
	maxRecordChars     = 256
	maxCodeChars       = 64
	maxMessageChars    = 1024
	maxNameChars       = 256
	maxUnitChars       = 32
	maxLabelChars      = 256
)

// Meter is one part of a job: goroutines or processes that share the job each move their own. A [Job] is also the meter
// of the part with the empty name.
//
// Every method returns at once, whatever the server does, and is safe from many goroutines. A meter knows nothing of
// the network: the client reads it when a report is due.
type Meter struct {
	name string
	done atomic.Int64
	// fetchedOnly: the job was only fetched, and not changed here yet.
	fetchedOnly atomic.Bool
	// join hands a job that was only fetched to the engine.
	join func()
	// expect receives the length of what is tracked. The length of a part is not the job's size.
	expect func(int64)

	mu          sync.Mutex
	counters    map[string]*int64
	errors      backlog
	errorsTaken int
	variables   map[string]*structpb.Value
	checkpoint  *checkpoint
	message     *string
	size        *int64
}

// checkpoint is the state of a meter at the moment of a checkpoint.
type checkpoint struct {
	progress int64
	counters map[string]int64
	errors   int
}

// sample is what a meter has to report: current totals, and record errors and variables that were not taken before.
type sample struct {
	progress  int64
	counters  map[string]int64
	errors    []*headwayv1.RecordError
	variables *structpb.Struct
	message   *string
	size      *int64
	// more: something is left for a further sample.
	more bool
	// pressing: record errors are left, which pile up if the next sample is delayed.
	pressing bool
}

func newMeter(name string, progress int64, join func(), expect func(int64)) *Meter {
	meter := &Meter{name: name, join: join, expect: expect, counters: map[string]*int64{}}
	meter.done.Store(progress)
	return meter
}

// SetProgress sets how many units of this part are done.
func (m *Meter) SetProgress(units int64) {
	if m.fetchedOnly.Load() {
		m.join()
	}
	m.done.Store(units)
}

// Advance counts so many more units of this part as done. A negative number counts fewer.
func (m *Meter) Advance(units int64) {
	if m.fetchedOnly.Load() {
		m.join()
	}
	m.done.Add(units)
}

// Progress is how many units of this part are done, as far as this process knows.
func (m *Meter) Progress() int64 { return m.done.Load() }

// Count adds n to a named counter ("added", "updated"). A job has at most 64, with names of 1 to 128 characters.
// Further counters are dropped.
func (m *Meter) Count(counter string, n int64) {
	m.touch()
	m.mu.Lock()
	defer m.mu.Unlock()
	total := m.counters[counter]
	if total == nil {
		name := first(clean(counter, maxCounterChars), "?")
		if total = m.counters[name]; total == nil {
			if len(m.counters) == maxCounters {
				return
			}
			total = new(int64)
			// Store a copy: the name may be a slice of something large.
			m.counters[strings.Clone(name)] = total
		}
	}
	*total = sum(*total, n)
}

// sum does not overflow: it stops at the limits of int64.
func sum(a, b int64) int64 {
	switch {
	case b > 0 && a > math.MaxInt64-b:
		return math.MaxInt64
	case b < 0 && a < math.MinInt64-b:
		return math.MinInt64
	}
	return a + b
}

// RecordError reports a record that could not be processed: which (its first 256 characters), a code of your choice to
// group by (64), and why (1,024).
//
// Every error is counted. If more than 1,000 wait for the server, only the first and the last 500 keep their texts. The
// server keeps the first and the last 100 of a job.
func (m *Meter) RecordError(record, code, message string) {
	m.touch()
	note := &headwayv1.RecordError{
		Record:  first(clean(record, maxRecordChars), "?"),
		Code:    clean(code, maxCodeChars),
		Message: clean(message, maxMessageChars),
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	m.errors.add(note)
}

// Set merges into the job's variables: at most 256, of 256 KiB in all as JSON. Values are what encoding/json accepts.
// They are read before Set returns, and sent with the next report.
func (m *Meter) Set(variables map[string]any) { m.merge(toFields(variables), false) }

// Checkpoint merges variables and stores them together with this part's current progress, counters and record errors,
// or not at all. A worker that resumes the job after a crash reads them.
func (m *Meter) Checkpoint(variables map[string]any) { m.merge(toFields(variables), true) }

// SetMessage says what the job is doing now, for people: at most 1,024 characters.
func (m *Meter) SetMessage(message string) {
	m.touch()
	message = clean(message, maxMessageChars)
	m.mu.Lock()
	defer m.mu.Unlock()
	m.message = &message
}

func (m *Meter) touch() {
	if m.fetchedOnly.Load() {
		m.join()
	}
}

func (m *Meter) merge(fields map[string]*structpb.Value, withCheckpoint bool) {
	m.touch()
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.variables == nil {
		m.variables = map[string]*structpb.Value{}
	}
	maps.Copy(m.variables, fields)
	if withCheckpoint {
		m.checkpoint = &checkpoint{m.done.Load(), m.totals(), m.errorsTaken + m.errors.len()}
	}
}

func (m *Meter) totals() map[string]int64 {
	totals := make(map[string]int64, len(m.counters))
	for name, total := range m.counters {
		totals[name] = *total
	}
	return totals
}

// sample takes everything there is to report. The record errors have at most room bytes, plus one.
func (m *Meter) sample(room int) sample {
	m.mu.Lock()
	defer m.mu.Unlock()
	taken := sample{message: m.message, size: m.size, more: m.checkpoint != nil}
	waiting := m.errors.len()
	if m.checkpoint != nil {
		waiting = m.checkpoint.errors - m.errorsTaken
		taken.progress, taken.counters = m.checkpoint.progress, m.checkpoint.counters
	} else {
		taken.progress, taken.counters = m.done.Load(), m.totals()
	}
	taken.progress = max(taken.progress, 0)
	for waiting > 0 && room > 0 && len(taken.errors) < maxErrorsPerReport {
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
	m.variables, m.checkpoint = nil, nil
	return taken
}

package headway

import "github.com/headway-project/headway/clients/go/headwayv1"

const maxErrorsAtEachEnd = 500

// backlog holds record errors until they are sent. It counts all of them, and keeps the texts of the first and the
// last.
type backlog struct {
	first    []*headwayv1.RecordError
	nameless int
	last     []*headwayv1.RecordError
}

func (b *backlog) len() int { return len(b.first) + b.nameless + len(b.last) }

func (b *backlog) add(note *headwayv1.RecordError) {
	if b.nameless == 0 && len(b.last) == 0 && len(b.first) < maxErrorsAtEachEnd {
		b.first = append(b.first, note)
		return
	}
	b.last = append(b.last, note)
	if len(b.last) > maxErrorsAtEachEnd {
		b.last[0] = nil
		b.last = b.last[1:]
		b.nameless++
	}
}

// take removes and returns the oldest one. The backlog must not be empty.
func (b *backlog) take() *headwayv1.RecordError {
	if len(b.first) > 0 {
		note := b.first[0]
		b.first = b.first[1:]
		return note
	}
	if b.nameless > 0 {
		b.nameless--
		return &headwayv1.RecordError{Record: "?"}
	}
	note := b.last[0]
	b.last = b.last[1:]
	return note
}

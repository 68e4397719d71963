package headway

import (
	"log/slog"
	"strings"
	"time"
	"unicode"
)

const (
	firstPause     = 100 * time.Millisecond
	longestPause   = 5 * time.Second
	longestInHaste = 500 * time.Millisecond
	longestLine    = 300
)

// inWords is why, as one line for a log, whatever the other side has written into it.
func inWords(err *Error) string {
	text := strings.Map(func(letter rune) rune {
		if unicode.IsPrint(letter) {
			return letter
		}
		return ' '
	}, err.Message)
	return first(clean(strings.Join(strings.Fields(text), " "), longestLine), err.Code.String())
}

// contact knows whether the server answers, and when to try it again if it does not: pauses grow from 0.1 to 5 s while
// it is away, to half a second if somebody waits for it.
type contact struct {
	address string
	log     *slog.Logger
	down    bool
	retryAt time.Time
	tries   int
	waiting int
}

// hurry: so many more, or fewer, wait until all is delivered.
func (c *contact) hurry(waiting int, now time.Time) {
	c.waiting += waiting
	if soon := now.Add(longestInHaste); c.waiting > 0 && c.retryAt.After(soon) {
		c.retryAt = soon
	}
}

func (c *contact) heard() {
	if c.tries > 1 {
		c.log.Info("headway: " + c.address + " answers again")
	}
	c.down, c.tries, c.retryAt = false, 0, time.Time{}
}

func (c *contact) lost(err *Error, now time.Time) {
	// All that was under way fails together; that is one failure.
	if now.Before(c.retryAt) {
		return
	}
	c.down = true
	longest := longestPause
	if c.waiting > 0 {
		longest = longestInHaste
	}
	c.retryAt = now.Add(jitter(min(firstPause<<min(c.tries, 10), longest), 0.5, 1))
	c.tries++
	// A server that only restarts, or moves a stream to another, is back before the second failure.
	if c.tries == 2 {
		c.log.Warn("headway: " + c.address + " does not answer (" + inWords(err) + "); the work goes on")
	}
}

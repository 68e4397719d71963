package headway

import (
	"log/slog"
	"strings"
	"time"
	"unicode"
)

const (
	firstRetryDelay           = 100 * time.Millisecond
	maxRetryDelay             = 5 * time.Second
	maxRetryDelayWhileAwaited = 500 * time.Millisecond
	maxLogChars               = 300
)

// logText is the error as one printable line for a log, whatever the server or a proxy has written into it.
func logText(err *Error) string {
	text := strings.Map(func(char rune) rune {
		if unicode.IsPrint(char) {
			return char
		}
		return ' '
	}, err.Message)
	return first(clean(strings.Join(strings.Fields(text), " "), maxLogChars), err.Code.String())
}

// connectionState knows whether the server answers, and when to try again if it does not. The retry delay grows from
// 0.1 to 5 s while the server is unreachable, and to 0.5 s while somebody waits for delivery.
type connectionState struct {
	address string
	log     *slog.Logger
	down    bool
	retryAt time.Time
	tries   int
	waiting int
}

// addWaiting adds to the number of callers that wait for delivery. A negative number removes some.
func (c *connectionState) addWaiting(waiting int, now time.Time) {
	c.waiting += waiting
	if soon := now.Add(maxRetryDelayWhileAwaited); c.waiting > 0 && c.retryAt.After(soon) {
		c.retryAt = soon
	}
}

func (c *connectionState) answered() {
	if c.tries > 1 {
		c.log.Info("headway: " + c.address + " answers again")
	}
	c.down, c.tries, c.retryAt = false, 0, time.Time{}
}

func (c *connectionState) failed(err *Error, now time.Time) {
	// All calls in flight fail together. Count that as one failure.
	if now.Before(c.retryAt) {
		return
	}
	c.down = true
	longest := maxRetryDelay
	if c.waiting > 0 {
		longest = maxRetryDelayWhileAwaited
	}
	c.retryAt = now.Add(jitter(min(firstRetryDelay<<min(c.tries, 10), longest), 0.5, 1))
	c.tries++
	// A server that only restarts, or moves a stream to another server, is back before the second failure.
	if c.tries == 2 {
		c.log.Warn("headway: " + c.address + " does not answer (" + logText(err) + "); the work goes on")
	}
}

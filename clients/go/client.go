// Package headway reports long-running jobs to a Headway server, and reads and watches them.
//
// A worker opens a [Client] once, creates a [Job], moves it, and closes it:
//
//	job, err := client.Create(ctx, headway.Spec{Name: "Import", Size: 3, Unit: "records"})
//	if err != nil {
//		return err
//	}
//	defer job.Close(&err)
//
// Updates only touch memory: a goroutine of the client sends them, at the pace that the server asks for. They never
// wait and never fail, whatever becomes of the server; what it does not take is a warning of the client's logger.
package headway

import (
	"context"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"sync"
	"time"

	"github.com/headway-project/headway/clients/go/headwayv1"
)

const (
	// DefaultExitTimeout is how long the end of a job, and of a client, waits at most until all is delivered.
	DefaultExitTimeout = 10 * time.Second
	// DefaultCallTimeout is how long the server has to answer a call whose context has no earlier end.
	DefaultCallTimeout = 10 * time.Second
)

// Config says where the server is. Its zero value is all from the environment.
type Config struct {
	// Target is host:port or http://host:port (plain text), or https://host:port. Default: HEADWAY_TARGET, else
	// 127.0.0.1:50051.
	Target string
	// Token is the bearer token. Default: HEADWAY_TOKEN, else none.
	Token string
	// CA is a PEM file of the authorities to trust; it means TLS. Default: HEADWAY_CA, else those of the system.
	CA string
	// Session is the session of all calls, a secret. Default: HEADWAY_SESSION.
	Session string
	// ExitTimeout is how long the end of a job, and of the client, waits at most until all is delivered. Default:
	// [DefaultExitTimeout]; negative = not at all.
	ExitTimeout time.Duration
	// CallTimeout is how long the server has to answer a call. Default: [DefaultCallTimeout].
	CallTimeout time.Duration
	// Logger gets warnings and notices, never a session id. Default: slog.Default().
	Logger *slog.Logger
}

// Format keeps the secrets out of what fmt prints.
func (c Config) Format(out fmt.State, _ rune) {
	_, _ = fmt.Fprintf(out, "headway.Config(%s)", c.Target)
}

// LogValue keeps the secrets out of what slog writes.
func (c Config) LogValue() slog.Value { return slog.StringValue(fmt.Sprint(c)) }

// Client is a connection to one server, for one session. It is safe from many goroutines; a program needs one.
type Client struct {
	*connection
	session string
}

// connection is what the clients of several sessions share.
type connection struct {
	target      target
	line        *line
	engine      *engine
	log         *slog.Logger
	exitTimeout time.Duration
	callTimeout time.Duration

	closing sync.Once
	undone  error
	mail    context.CancelFunc
	mailed  sync.WaitGroup
}

// Open makes a client; nothing is sent before it is used. It fails if the target is malformed, or the CA file cannot be
// read. Close it at the end of the program.
func Open(config Config) (*Client, error) {
	target, err := findTarget(config.Target, config.Token, config.CA)
	if err != nil {
		return nil, err
	}
	log := config.Logger
	if log == nil {
		log = slog.Default()
	}
	conn := &connection{
		target: target, line: &line{target: target}, log: log, exitTimeout: config.ExitTimeout,
		callTimeout: config.CallTimeout,
	}
	if conn.exitTimeout == 0 {
		conn.exitTimeout = DefaultExitTimeout
	}
	if conn.callTimeout <= 0 {
		conn.callTimeout = DefaultCallTimeout
	}
	var ctx context.Context
	ctx, conn.mail = context.WithCancel(context.Background())
	conn.engine = newEngine(target, log, func() {
		conn.mailed.Go(func() { postman{target, log}.run(ctx, "") })
	})
	return &Client{conn, first(config.Session, os.Getenv("HEADWAY_SESSION"))}, nil
}

// Session is the same connection for another session. Closing either closes both.
func (c *Client) Session(id string) *Client { return &Client{c.connection, id} }

// Format keeps the session out of what fmt prints.
func (c Client) Format(out fmt.State, _ rune) {
	_, _ = fmt.Fprintf(out, "headway.Client(%s)", c.target.address)
}

// Stub is the generated gRPC client on this connection, for all that Client does not do. It returns gRPC's own errors.
func (c *Client) Stub() headwayv1.JobServiceClient { return c.line.stub() }

// Close waits until all is delivered, at most Config.ExitTimeout. What is left then goes into the spool, a folder of
// files that the next client of this server delivers; Close warns of that and returns [ErrUndelivered]. Jobs that have
// not ended are let go as they are. Close can be called twice.
func (c *Client) Close() error {
	c.closing.Do(c.connection.close)
	return c.undone
}

func (c *connection) close() {
	ctx, cancel := context.WithTimeout(context.Background(), c.exitTimeout)
	defer cancel()
	c.engine.linger(ctx, c.engine.live())
	c.mail()
	var letters []*letter
	c.engine.halt(func() { letters = c.leave() })
	// Not before: until the engine has ended, it may start another.
	c.mailed.Wait()
	// Only now, when nothing is sent from here any more, another may take them up.
	for _, letter := range letters {
		letter.release()
	}
	c.line.close()
}

// leave writes down what is left, in the engine's goroutine.
func (c *connection) leave() (letters []*letter) {
	left, fault := writeDown(c.target, c.engine.courses)
	if len(left) == 0 {
		return nil
	}
	for _, letter := range left {
		if letter != nil {
			letters = append(letters, letter)
		}
	}
	fate := "is lost"
	switch {
	case len(letters) == len(left):
		fate = "waits in " + filepath.Dir(letters[0].path) + " for `headway flush` or the next run"
	case fault != nil:
		fate = "cannot be written down: " + fault.Error()
	}
	c.undone = fmt.Errorf("%w to %s: what %s left to say %s", ErrUndelivered, c.target.address, jobsHave(len(left)), fate)
	c.log.Warn(c.undone.Error())
	return letters
}

func jobsHave(count int) string {
	if count == 1 {
		return "a job has"
	}
	return fmt.Sprintf("%d jobs have", count)
}

// FlushSpool sends what earlier processes could not deliver to this server, until the context ends.
func (c *Client) FlushSpool(ctx context.Context) SpoolReport {
	return postman{c.target, c.log}.run(ctx, "")
}

func (c *Client) in() (string, error) {
	if c.session == "" {
		return "", ErrNoSession
	}
	return c.session, nil
}

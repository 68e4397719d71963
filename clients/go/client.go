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
// wait and never fail, whatever happens to the server. The client's logger warns of updates that the server refuses.
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
	// DefaultExitTimeout bounds how long the end of a job, and of a client, waits until everything is delivered.
	DefaultExitTimeout = 10 * time.Second
	// DefaultCallTimeout bounds how long a call waits for its answer, if its context has no earlier deadline.
	DefaultCallTimeout = 10 * time.Second
)

// Config says where the server is. Its zero value takes everything from the environment.
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
	// ExitTimeout bounds how long the end of a job, and of the client, waits until everything is delivered. Default:
	// [DefaultExitTimeout]; negative = no wait.
	ExitTimeout time.Duration
	// CallTimeout bounds how long a call waits for its answer. Default: [DefaultCallTimeout].
	CallTimeout time.Duration
	// Logger gets warnings and messages, never a session id. Default: slog.Default().
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
	conn        *lazyConn
	engine      *engine
	log         *slog.Logger
	exitTimeout time.Duration
	callTimeout time.Duration

	closing     sync.Once
	undone      error
	stopSending context.CancelFunc
	sending     sync.WaitGroup
}

// Open makes a client. It sends nothing before the client is used. It fails if the target is malformed, or if the CA
// file cannot be read. Close the client at the end of the program.
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
		target: target, conn: &lazyConn{target: target}, log: log, exitTimeout: config.ExitTimeout,
		callTimeout: config.CallTimeout,
	}
	if conn.exitTimeout == 0 {
		conn.exitTimeout = DefaultExitTimeout
	}
	if conn.callTimeout <= 0 {
		conn.callTimeout = DefaultCallTimeout
	}
	var ctx context.Context
	ctx, conn.stopSending = context.WithCancel(context.Background())
	conn.engine = newEngine(target, log, func() {
		conn.sending.Go(func() { spoolSender{target, log}.run(ctx, "") })
	})
	return &Client{conn, first(config.Session, os.Getenv("HEADWAY_SESSION"))}, nil
}

// Session is the same connection for another session. Closing either closes both.
func (c *Client) Session(id string) *Client { return &Client{c.connection, id} }

// Format keeps the session out of what fmt prints.
func (c Client) Format(out fmt.State, _ rune) {
	_, _ = fmt.Fprintf(out, "headway.Client(%s)", c.target.address)
}

// Stub is the generated gRPC client on this connection, for everything that Client does not do. It returns gRPC's own
// errors.
func (c *Client) Stub() headwayv1.JobServiceClient { return c.conn.stub() }

// Close waits until everything is delivered, at most Config.ExitTimeout. It then saves the rest in the spool, a folder
// of files that the next client of this server sends. In that case it logs a warning and returns [ErrUndelivered]. Jobs
// that have not ended stay as they are. Close can be called twice.
func (c *Client) Close() error {
	c.closing.Do(c.connection.close)
	return c.undone
}

func (c *connection) close() {
	ctx, cancel := context.WithTimeout(context.Background(), c.exitTimeout)
	defer cancel()
	c.engine.waitDelivered(ctx, c.engine.active())
	c.stopSending()
	var files []*spoolFile
	c.engine.halt(func() { files = c.spoolRest() })
	// Only after the engine has ended: until then it may start another sender.
	c.sending.Wait()
	// Only now does this process send nothing more, so another process may take the files.
	for _, file := range files {
		file.release()
	}
	c.conn.close()
}

// spoolRest saves what is undelivered. It runs in the engine's goroutine.
func (c *connection) spoolRest() (files []*spoolFile) {
	left, fault := spoolUndelivered(c.target, c.engine.jobs)
	if len(left) == 0 {
		return nil
	}
	for _, file := range left {
		if file != nil {
			files = append(files, file)
		}
	}
	outcome := "is lost"
	switch {
	case len(files) == len(left):
		outcome = "is saved in " + filepath.Dir(files[0].path) + " until `headway flush` or the next run sends it"
	case fault != nil:
		outcome = "cannot be saved: " + fault.Error()
	}
	c.undone = fmt.Errorf("%w to %s: what %s not delivered %s", ErrUndelivered, c.target.address, jobsHave(len(left)), outcome)
	c.log.Warn(c.undone.Error())
	return files
}

func jobsHave(count int) string {
	if count == 1 {
		return "a job has"
	}
	return fmt.Sprintf("%d jobs have", count)
}

// FlushSpool sends to this server what earlier processes could not deliver, until the context ends.
func (c *Client) FlushSpool(ctx context.Context) SpoolReport {
	return spoolSender{c.target, c.log}.run(ctx, "")
}

func (c *Client) in() (string, error) {
	if c.session == "" {
		return "", ErrNoSession
	}
	return c.session, nil
}

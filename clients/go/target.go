package headway

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"os"
	"regexp"
	"strconv"
	"sync"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/backoff"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/connectivity"
	"google.golang.org/grpc/credentials"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/grpc/keepalive"
	"google.golang.org/grpc/status"

	"github.com/headway-project/headway/clients/go/headwayv1"
)

const (
	defaultTarget    = "127.0.0.1:50051"
	maxReceivedBytes = 8 << 20
)

var addressForm = regexp.MustCompile(`^(?:(https?)://)?(\[[0-9A-Fa-f:.%]+\]|[^\s:/\[\]@]+):(\d{1,5})/?$`)

// tokenForm is what gRPC can send. It would refuse any other token at every call.
var tokenForm = regexp.MustCompile(`^[ -~]+$`)

// target is a server's address, and the options to connect to it.
type target struct {
	address string // host:port
	tls     bool
	options []grpc.DialOption
}

// findTarget takes the given values, else the environment, else the default.
func findTarget(given, token, ca string) (target, error) {
	given = first(given, os.Getenv("HEADWAY_TARGET"), defaultTarget)
	token = first(token, os.Getenv("HEADWAY_TOKEN"))
	ca = first(ca, os.Getenv("HEADWAY_CA"))
	match := addressForm.FindStringSubmatch(given)
	if match == nil {
		return target{}, fmt.Errorf("headway: the target must be host:port or https://host:port, such as %s; not %q", defaultTarget, given)
	}
	if port, _ := strconv.Atoi(match[3]); port == 0 || port > 65535 {
		return target{}, fmt.Errorf("headway: the target's port must be from 1 to 65535; not %q", given)
	}
	if match[1] == "http" && ca != "" {
		return target{}, errors.New("headway: the target says http:// (plain text), but there is a CA file: write https://, or drop it")
	}
	found := target{address: match[2] + ":" + match[3], tls: match[1] == "https" || ca != ""}
	security := insecure.NewCredentials()
	if found.tls {
		settings := &tls.Config{MinVersion: tls.VersionTLS12}
		if ca != "" {
			pem, err := os.ReadFile(ca)
			if err != nil {
				return target{}, fmt.Errorf("headway: the CA file cannot be read: %w", err)
			}
			settings.RootCAs = x509.NewCertPool()
			if !settings.RootCAs.AppendCertsFromPEM(pem) {
				return target{}, fmt.Errorf("headway: the CA file %q holds no certificate", ca)
			}
		}
		security = credentials.NewTLS(settings)
	}
	found.options = []grpc.DialOption{
		grpc.WithTransportCredentials(security),
		grpc.WithUserAgent("headway-go"),
		grpc.WithDisableRetry(),
		// gRPC would look for it in the DNS, which can take seconds if there is none.
		grpc.WithDisableServiceConfig(),
		grpc.WithDefaultCallOptions(grpc.MaxCallRecvMsgSize(maxReceivedBytes)),
		// The server allows a ping every 10 s.
		grpc.WithKeepaliveParams(keepalive.ClientParameters{Time: 30 * time.Second, Timeout: 10 * time.Second}),
		// gRPC waits up to two minutes between connection attempts, much longer than a restart takes.
		grpc.WithConnectParams(grpc.ConnectParams{
			Backoff:           backoff.Config{BaseDelay: 100 * time.Millisecond, Multiplier: 1.6, Jitter: 0.2, MaxDelay: 2 * time.Second},
			MinConnectTimeout: 5 * time.Second,
		}),
	}
	if token != "" {
		if !tokenForm.MatchString(token) {
			return target{}, errors.New("headway: the token holds characters that no header can carry")
		}
		found.options = append(found.options, grpc.WithPerRPCCredentials(bearer(token)))
	}
	return found, nil
}

func first(texts ...string) string {
	for _, text := range texts {
		if text != "" {
			return text
		}
	}
	return ""
}

// bearer adds the token to each call, even over plain text: on loopback there is no TLS.
type bearer string

func (b bearer) GetRequestMetadata(context.Context, ...string) (map[string]string, error) {
	return map[string]string{"authorization": "Bearer " + string(b)}, nil
}

func (bearer) RequireTransportSecurity() bool { return false }

// lazyConn is a connection that opens at its first use, and again after it has failed. A gRPC connection that has
// failed returns a remembered error for a while, even if the server is back.
type lazyConn struct {
	target target

	mu     sync.Mutex
	conn   *grpc.ClientConn
	closed bool
}

func (l *lazyConn) stub() headwayv1.JobServiceClient { return headwayv1.NewJobServiceClient(l) }

func (l *lazyConn) open() (*grpc.ClientConn, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.closed {
		return nil, ErrClosed
	}
	if l.conn != nil && l.conn.GetState() == connectivity.TransientFailure {
		_ = l.conn.Close()
		l.conn = nil
	}
	if l.conn == nil {
		conn, err := grpc.NewClient(l.target.address, l.target.options...)
		if err != nil {
			return nil, status.Error(codes.Unavailable, err.Error())
		}
		l.conn = conn
	}
	return l.conn, nil
}

// Invoke makes lazyConn a grpc.ClientConnInterface.
func (l *lazyConn) Invoke(ctx context.Context, method string, args, reply any, options ...grpc.CallOption) error {
	conn, err := l.open()
	if err != nil {
		return err
	}
	return conn.Invoke(ctx, method, args, reply, options...)
}

// NewStream makes lazyConn a grpc.ClientConnInterface.
func (l *lazyConn) NewStream(ctx context.Context, about *grpc.StreamDesc, method string, options ...grpc.CallOption) (grpc.ClientStream, error) {
	conn, err := l.open()
	if err != nil {
		return nil, err
	}
	return conn.NewStream(ctx, about, method, options...)
}

// disconnect closes the connection and all calls on it. The next call opens another.
func (l *lazyConn) disconnect() {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.conn != nil {
		_ = l.conn.Close()
		l.conn = nil
	}
}

func (l *lazyConn) close() {
	l.mu.Lock()
	l.closed = true
	l.mu.Unlock()
	l.disconnect()
}

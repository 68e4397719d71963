package headway

import (
	"context"
	"encoding/pem"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"google.golang.org/grpc"
	"google.golang.org/grpc/metadata"

	"github.com/headway-project/headway/clients/go/headwayv1"
)

// tokenEcho answers GetJob with the token that it received.
type tokenEcho struct {
	headwayv1.UnimplementedJobServiceServer
}

func (tokenEcho) GetJob(ctx context.Context, _ *headwayv1.GetJobRequest) (*headwayv1.Job, error) {
	return &headwayv1.Job{Name: metadata.ValueFromIncomingContext(ctx, "authorization")[0]}, nil
}

func TestTokenIsShownOverTLS(t *testing.T) {
	service := grpc.NewServer()
	headwayv1.RegisterJobServiceServer(service, tokenEcho{})
	server := httptest.NewUnstartedServer(service)
	server.EnableHTTP2 = true
	server.StartTLS()
	defer server.Close()
	ca := filepath.Join(t.TempDir(), "ca.pem")
	block := pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: server.Certificate().Raw})
	if err := os.WriteFile(ca, block, 0o600); err != nil {
		t.Fatal(err)
	}
	client, err := Open(Config{Target: server.Listener.Addr().String(), CA: ca, Token: "t", Session: "s", Logger: quiet})
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = client.Close() }()
	job, err := client.Get(t.Context(), "j")
	if err != nil || job.GetName() != "Bearer t" {
		t.Errorf("%v, %v", job, err)
	}
}

func TestTargets(t *testing.T) {
	t.Setenv("HEADWAY_TARGET", "")
	t.Setenv("HEADWAY_CA", "")
	for given, want := range map[string]target{
		"":                        {address: defaultTarget},
		"server:1":                {address: "server:1"},
		"http://server:1":         {address: "server:1"},
		"https://server:1/":       {address: "server:1", tls: true},
		"[::1]:50051":             {address: "[::1]:50051"},
		"https://[fe80::1%2]:443": {address: "[fe80::1%2]:443", tls: true},
	} {
		if got, err := findTarget(given, "", ""); err != nil || got.address != want.address || got.tls != want.tls {
			t.Errorf("%q: %+v, %v", given, got, err)
		}
	}
	for _, given := range []string{"server", "server:0", "server:70000", "ftp://server:1", "a b:1", "::1:50051"} {
		if _, err := findTarget(given, "", ""); err == nil {
			t.Errorf("%q is taken", given)
		}
	}
	for _, token := range []string{"a\nb", "a\x00", "é"} {
		if _, err := findTarget("server:1", token, ""); err == nil || strings.Contains(err.Error(), token) {
			t.Errorf("token %q: %v", token, err)
		}
	}
	if _, err := findTarget("server:1", "", "/no/such/file.pem"); err == nil {
		t.Error("a CA file that is not there is taken")
	}
}

package headway

import (
	"os"
	"path/filepath"
	"strings"
	"testing"

	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/structpb"

	"github.com/headway-project/headway/clients/go/headwayv1"
)

func someRecord(requests ...proto.Message) *spoolRecord {
	return &spoolRecord{address: "server:1", jobID: strings.Repeat("a", 32), name: "Import", requests: requests}
}

func TestAFolderThatIsNotTheUsersAloneKeepsItsModeAndGetsNothing(t *testing.T) {
	folder := filepath.Join(t.TempDir(), "of-all")
	if err := os.Mkdir(folder, 0o755); err != nil {
		t.Fatal(err)
	}
	if err := os.Chmod(folder, 0o755); err != nil {
		t.Fatal(err)
	}
	t.Setenv("HEADWAY_SPOOL", folder)
	if _, err := writeToSpool(target{address: "server:1"}, someRecord()); err == nil || !strings.Contains(err.Error(), "is open to others") {
		t.Errorf("%v", err)
	}
	about, err := os.Stat(folder)
	if err != nil || about.Mode().Perm() != 0o755 {
		t.Errorf("%v, %v", about.Mode(), err)
	}
	if there, _ := os.ReadDir(folder); len(there) != 0 {
		t.Errorf("there is %v", there)
	}
}

func TestSpoolFileIsReadAsItWasWritten(t *testing.T) {
	folder := filepath.Join(t.TempDir(), "spool")
	t.Setenv("HEADWAY_SPOOL", folder)
	to := target{address: "server:1"}
	said := someRecord(
		&headwayv1.ReportProgressRequest{SessionId: "s", Sequence: 7, Counters: map[string]int64{"added": 1}},
		&headwayv1.FinishJobRequest{SessionId: "s", Attempt: 1},
	)
	written, err := writeToSpool(to, said)
	if err != nil {
		t.Fatal(err)
	}
	for path, want := range map[string]os.FileMode{folder: 0o700, written.path: 0o600} {
		if about, err := os.Stat(path); err != nil || about.Mode().Perm() != want {
			t.Errorf("%s: %v, %v", path, about.Mode(), err)
		}
	}
	waiting := waitingFiles(to, said.jobID)
	if len(waiting) != 1 || len(waitingFiles(target{address: "other:1"}, "")) != 0 || len(waitingFiles(to, "b")) != 0 {
		t.Fatalf("waiting: %v", waiting)
	}
	if claimSpoolFile(waiting[0]) != nil {
		t.Error("a file of this process was claimed again")
	}
	written.release()
	claimed := claimSpoolFile(waiting[0])
	if claimed == nil {
		t.Fatal("a released file was not claimed")
	}
	data, _ := os.ReadFile(claimed.path)
	read, err := decodeSpoolRecord(data)
	if err != nil || read.address != said.address || read.jobID != said.jobID || read.name != said.name || len(read.requests) != 2 {
		t.Fatalf("%+v, %v", read, err)
	}
	for i, request := range read.requests {
		if !proto.Equal(request, said.requests[i]) {
			t.Errorf("%v became %v", said.requests[i], request)
		}
	}
	claimed.remove()
	if left, _ := os.ReadDir(folder); len(left) != 0 {
		t.Errorf("left: %v", left)
	}
}

func TestSpoolFileThatIsTooLargeLosesTheLastRecordErrors(t *testing.T) {
	full := func() *headwayv1.ReportProgressRequest {
		report := &headwayv1.ReportProgressRequest{SessionId: "s"}
		for range 4000 {
			report.RecordErrors = append(report.RecordErrors, &headwayv1.RecordError{Record: "1", Message: strings.Repeat("m", 1000)})
		}
		return report
	}
	data, err := someRecord(full(), full(), &headwayv1.FinishJobRequest{SessionId: "s"}).encode()
	if err != nil || len(data) > maxSpoolBytes {
		t.Fatalf("%d bytes, %v", len(data), err)
	}
	read, err := decodeSpoolRecord(data)
	if err != nil || len(read.requests) != 3 {
		t.Fatal(err)
	}
	kept := len(read.requests[0].(*headwayv1.ReportProgressRequest).GetRecordErrors())
	lost := len(read.requests[1].(*headwayv1.ReportProgressRequest).GetRecordErrors())
	if kept != 4000 || lost != 0 {
		t.Errorf("kept %d and %d", kept, lost)
	}
}

func TestDamagedSpoolFileIsSetAside(t *testing.T) {
	folder := t.TempDir()
	t.Setenv("HEADWAY_SPOOL", folder)
	to := target{address: "server:1"}
	path := filepath.Join(folder, serverKey(to)+"-"+newID()+"-odd.json")
	if err := os.WriteFile(path, []byte(`{"version": 2}`), 0o600); err != nil {
		t.Fatal(err)
	}
	report := spoolSender{to, quiet}.run(t.Context(), "")
	if report != (SpoolReport{Refused: 1}) {
		t.Errorf("%+v", report)
	}
	if left, _ := filepath.Glob(filepath.Join(folder, "*.refused")); len(left) != 1 {
		t.Errorf("left: %v", left)
	}
}

func TestSpoolFileWaitsForTheOneBeforeIt(t *testing.T) {
	folder := t.TempDir()
	t.Setenv("HEADWAY_SPOOL", folder)
	to := target{address: "127.0.0.1:1"}
	first, err := writeSpoolFile(filepath.Join(folder, serverKey(to)+"-1-a.json"), someRecord())
	if err != nil {
		t.Fatal(err)
	}
	defer first.release()
	second, err := writeSpoolFile(filepath.Join(folder, serverKey(to)+"-2-a.json"), someRecord())
	if err != nil {
		t.Fatal(err)
	}
	second.release()
	if report := (spoolSender{to, quiet}).run(t.Context(), ""); report != (SpoolReport{Waiting: 2}) {
		t.Errorf("%+v", report)
	}
}

func TestOnlyAFileIsASpoolFile(t *testing.T) {
	folder := t.TempDir()
	file := filepath.Join(folder, "file")
	if err := os.WriteFile(file, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	link := filepath.Join(folder, "link.json")
	if err := os.Symlink(file, link); err != nil {
		t.Skip(err)
	}
	for _, path := range []string{link, folder, filepath.Join(folder, "nothing")} {
		if claimSpoolFile(path) != nil {
			t.Errorf("%s is taken for a spool file", path)
		}
	}
}

func TestSpoolFileThatNoServerCouldReadIsDamaged(t *testing.T) {
	deep := structpb.NewNullValue()
	for range 100 {
		deep = structpb.NewListValue(&structpb.ListValue{Values: []*structpb.Value{deep}})
	}
	data, err := someRecord(&headwayv1.FinishJobRequest{Results: deep}).encode()
	if err != nil {
		t.Fatal(err)
	}
	if _, err := decodeSpoolRecord(data); err == nil {
		t.Error("it is taken")
	}
}

func TestSpoolIsFullAtAHundredFiles(t *testing.T) {
	t.Setenv("HEADWAY_SPOOL", filepath.Join(t.TempDir(), "[1]*"))
	for range maxSpoolFiles {
		file, err := writeToSpool(target{}, someRecord())
		if err != nil {
			t.Fatal(err)
		}
		file.release()
	}
	if _, err := writeToSpool(target{}, someRecord()); err == nil {
		t.Error("one more was taken")
	}
}

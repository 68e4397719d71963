package headway

import (
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"hash/crc32"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"google.golang.org/protobuf/proto"

	"github.com/headway-project/headway/clients/go/headwayv1"
)

// The spool keeps what could not be delivered: one file for each job of each process. All clients share the format
// (docs/client-engine.md). The files contain session ids, which are secrets: mode 0600, in a folder of 0700.

const (
	spoolVersion      = 1
	maxSpoolFiles     = 100
	maxSpoolBytes     = 8 << 20
	spoolFileOverhead = 4096
)

var spoolRequestTypes = map[string]func() proto.Message{
	"CreateJobRequest":      func() proto.Message { return &headwayv1.CreateJobRequest{} },
	"StartJobRequest":       func() proto.Message { return &headwayv1.StartJobRequest{} },
	"UpdateJobRequest":      func() proto.Message { return &headwayv1.UpdateJobRequest{} },
	"ReportProgressRequest": func() proto.Message { return &headwayv1.ReportProgressRequest{} },
	"FinishJobRequest":      func() proto.Message { return &headwayv1.FinishJobRequest{} },
	"FailJobRequest":        func() proto.Message { return &headwayv1.FailJobRequest{} },
}

// spoolRecord is what one job has left to send, in order, and to which server. Reports keep their sequences, so that a
// report that did arrive does not count twice.
type spoolRecord struct {
	address  string
	tls      bool
	jobID    string
	name     string
	requests []proto.Message
}

type spoolFileJSON struct {
	Version  int         `json:"version"`
	Target   string      `json:"target"`
	TLS      bool        `json:"tls"`
	Job      string      `json:"job"`
	Name     string      `json:"name"`
	Requests [][2]string `json:"requests"`
}

// encode gives JSON of at most 8 MiB. If there is no room, it drops record errors, the last ones first.
func (w *spoolRecord) encode() ([]byte, error) {
	form := spoolFileJSON{Version: spoolVersion, Target: w.address, TLS: w.tls, Job: w.jobID, Name: w.name}
	size := 0
	put := func(place int, request proto.Message) error {
		data, err := proto.Marshal(request)
		form.Requests[place] = [2]string{string(request.ProtoReflect().Descriptor().Name()), base64.StdEncoding.EncodeToString(data)}
		size += len(form.Requests[place][1])
		return err
	}
	form.Requests = make([][2]string, len(w.requests))
	for place, request := range w.requests {
		if err := put(place, request); err != nil {
			return nil, err
		}
	}
	room := maxSpoolBytes - spoolFileOverhead - 32*len(w.requests)
	for place := len(w.requests) - 1; place >= 0 && size > room; place-- {
		if report, ok := w.requests[place].(*headwayv1.ReportProgressRequest); ok {
			short := proto.CloneOf(report)
			short.RecordErrors = nil
			size -= len(form.Requests[place][1])
			if err := put(place, short); err != nil {
				return nil, err
			}
		}
	}
	return json.Marshal(form)
}

// The server's parser has the same limit. A deeper record could never be sent, and would hold back all files behind it.
var readable = proto.UnmarshalOptions{RecursionLimit: 100}

// decodeSpoolRecord fails if encode did not make this data, or if it has another version.
func decodeSpoolRecord(data []byte) (*spoolRecord, error) {
	var form spoolFileJSON
	if err := json.Unmarshal(data, &form); err != nil {
		return nil, errors.New("it is damaged")
	}
	if form.Version != spoolVersion {
		return nil, fmt.Errorf("it is of version %d", form.Version)
	}
	found := &spoolRecord{address: form.Target, tls: form.TLS, jobID: form.Job, name: form.Name}
	for _, entry := range form.Requests {
		kind := spoolRequestTypes[entry[0]]
		data, err := base64.StdEncoding.DecodeString(entry[1])
		if kind == nil || err != nil {
			return nil, errors.New("it is damaged")
		}
		request := kind()
		if readable.Unmarshal(data, request) != nil {
			return nil, errors.New("it is damaged")
		}
		found.requests = append(found.requests, request)
	}
	return found, nil
}

// spoolFile is a file of the spool that this process has claimed, until remove, refuse or release.
type spoolFile struct {
	path string
	file *os.File
}

// writeSpoolFile writes the whole file, or nothing.
func writeSpoolFile(path string, w *spoolRecord) (written *spoolFile, err error) {
	data, err := w.encode()
	if err != nil {
		return nil, err
	}
	draft := fmt.Sprintf("%s.%d.tmp", strings.TrimSuffix(path, ".json"), os.Getpid())
	_ = os.Remove(draft)
	file, err := os.OpenFile(draft, os.O_WRONLY|os.O_CREATE|os.O_EXCL, 0o600)
	if err != nil {
		return nil, err
	}
	defer func() {
		if err != nil {
			_ = file.Close()
			_ = os.Remove(draft)
		}
	}()
	// Lock it before it has its name, so that no other process ever finds it unlocked.
	if err = lockFile(file); err != nil {
		return nil, err
	}
	if _, err = file.Write(data); err != nil {
		return nil, err
	}
	if err = file.Sync(); err != nil {
		return nil, err
	}
	if !locking {
		_ = file.Close()
	}
	if err = os.Rename(draft, path); err != nil {
		return nil, err
	}
	if folder, failed := os.Open(filepath.Dir(path)); failed == nil {
		_ = folder.Sync()
		_ = folder.Close()
	}
	return &spoolFile{path, file}, nil
}

// claimSpoolFile claims the file; nil if another process has it, has sent it meanwhile, or if it belongs to another
// user.
func claimSpoolFile(path string) *spoolFile {
	file, err := os.OpenFile(path, os.O_RDWR|noFollow, 0)
	if err != nil {
		return nil
	}
	if lockFile(file) == nil {
		// It may have been removed or written again before it was locked.
		held, err := file.Stat()
		there, missing := os.Lstat(path)
		if err == nil && missing == nil && os.SameFile(held, there) && held.Mode().IsRegular() && ownFile(held) {
			if !locking {
				_ = file.Close()
			}
			return &spoolFile{path, file}
		}
	}
	_ = file.Close()
	return nil
}

// remove: everything in it has arrived.
func (l *spoolFile) remove() {
	_ = os.Remove(l.path)
	l.release()
}

// refuse: the server will never accept it. The file stays beside the others, for people to look at.
func (l *spoolFile) refuse() string {
	beside := strings.TrimSuffix(l.path, ".json") + ".refused"
	if os.Rename(l.path, beside) == nil {
		old := filesOf(filepath.Dir(l.path), func(name string) bool { return strings.HasSuffix(name, ".refused") })
		for len(old) > maxSpoolFiles {
			_ = os.Remove(old[0])
			old = old[1:]
		}
	}
	l.release()
	return beside
}

// release leaves the file to the next process.
func (l *spoolFile) release() { _ = l.file.Close() }

// spoolFolder is where the files are, whether the folder exists or not; empty = no spool.
func spoolFolder() string {
	if folder, set := os.LookupEnv("HEADWAY_SPOOL"); set {
		return folder
	}
	state := os.Getenv("XDG_STATE_HOME")
	if state == "" {
		home, err := os.UserHomeDir()
		if err != nil {
			return ""
		}
		state = filepath.Join(home, ".local", "state")
	}
	return filepath.Join(state, "headway", "spool")
}

// waitingFiles are the files that wait for a server, oldest first; only those of one job if an id is given.
func waitingFiles(to target, jobID string) []string {
	folder := spoolFolder()
	if folder == "" {
		return nil
	}
	return filesOf(folder, func(name string) bool {
		return strings.HasPrefix(name, serverKey(to)+"-") && strings.HasSuffix(name, ".json") &&
			(jobID == "" || strings.HasSuffix(name, "-"+fileNameID(jobID)+".json"))
	})
}

// filesOf are the files of the folder with such a name, oldest first.
func filesOf(folder string, wanted func(name string) bool) []string {
	entries, _ := os.ReadDir(folder)
	var paths []string
	for _, entry := range entries {
		if wanted(entry.Name()) {
			paths = append(paths, filepath.Join(folder, entry.Name()))
		}
	}
	// A name is the server's key, a UUIDv7 and the job. After the key, names sort by time.
	slices.SortFunc(paths, func(a, b string) int { return strings.Compare(sortKey(a), sortKey(b)) })
	return paths
}

func sortKey(path string) string {
	_, rest, _ := strings.Cut(filepath.Base(path), "-")
	return rest
}

// jobInName is the job's id in the file's name.
func jobInName(path string) string {
	name := strings.TrimSuffix(filepath.Base(path), ".json")
	return name[strings.LastIndex(name, "-")+1:]
}

// writeToSpool saves the record. It returns an error if the spool is full, or if others can read its folder.
func writeToSpool(to target, w *spoolRecord) (*spoolFile, error) {
	folder := spoolFolder()
	if err := os.MkdirAll(folder, 0o700); err != nil {
		return nil, err
	}
	about, err := os.Stat(folder)
	if err != nil {
		return nil, err
	}
	if !ownFile(about) {
		return nil, fmt.Errorf("%s belongs to another user", folder)
	}
	if openToOthers(about) {
		// The folder existed before, perhaps with other files in it. Do not change its mode.
		return nil, fmt.Errorf("%s is open to others: chmod 700 it, or name another folder in HEADWAY_SPOOL", folder)
	}
	there := filesOf(folder, func(name string) bool { return strings.HasSuffix(name, ".json") })
	if len(there) >= maxSpoolFiles {
		return nil, fmt.Errorf("%s has %d files already", folder, len(there))
	}
	return writeSpoolFile(filepath.Join(folder, serverKey(to)+"-"+newID()+"-"+fileNameID(w.jobID)+".json"), w)
}

// serverKey is part of the name, so that the names alone tell whether there is something for a server. All clients
// compute it in the same way.
func serverKey(to target) string {
	secured := "False"
	if to.tls {
		secured = "True"
	}
	return fmt.Sprintf("%08x", crc32.ChecksumIEEE([]byte(to.address+" "+secured)))
}

// fileNameID: the worker chooses the id, and only the server checks it.
func fileNameID(id string) string {
	plain := func(char rune) bool {
		return !(char >= '0' && char <= '9' || char >= 'a' && char <= 'z' || char >= 'A' && char <= 'Z')
	}
	if id == "" || len(id) > 64 || strings.ContainsFunc(id, plain) {
		return "odd"
	}
	return id
}

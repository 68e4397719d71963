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

// The spool holds what could not be delivered until it is: one file for each job of each process, the same files as
// those of Headway's other clients. They hold session ids, which are secrets: 0600, in a folder of 0700.

const (
	spoolVersion = 1
	spoolFiles   = 100
	spoolBytes   = 8 << 20
	spoolFrame   = 4096
)

var spoolKinds = map[string]func() proto.Message{
	"CreateJobRequest":      func() proto.Message { return &headwayv1.CreateJobRequest{} },
	"StartJobRequest":       func() proto.Message { return &headwayv1.StartJobRequest{} },
	"UpdateJobRequest":      func() proto.Message { return &headwayv1.UpdateJobRequest{} },
	"ReportProgressRequest": func() proto.Message { return &headwayv1.ReportProgressRequest{} },
	"FinishJobRequest":      func() proto.Message { return &headwayv1.FinishJobRequest{} },
	"FailJobRequest":        func() proto.Message { return &headwayv1.FailJobRequest{} },
}

// words are what one job has left to say, in order, and to whom. Reports have the sequences that they had, so that what
// did arrive is not counted twice.
type words struct {
	address  string
	tls      bool
	jobID    string
	name     string
	requests []proto.Message
}

type letterForm struct {
	Version  int         `json:"version"`
	Target   string      `json:"target"`
	TLS      bool        `json:"tls"`
	Job      string      `json:"job"`
	Name     string      `json:"name"`
	Requests [][2]string `json:"requests"`
}

// encode gives JSON of at most 8 MiB. What has no room are record errors, the last ones first.
func (w *words) encode() ([]byte, error) {
	form := letterForm{Version: spoolVersion, Target: w.address, TLS: w.tls, Job: w.jobID, Name: w.name}
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
	room := spoolBytes - spoolFrame - 32*len(w.requests)
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

// readable is what the server reads too: one that is nested deeper would keep back all letters behind it for ever.
var readable = proto.UnmarshalOptions{RecursionLimit: 100}

// decodeWords fails if this is not what encode makes, or not of this version.
func decodeWords(data []byte) (*words, error) {
	var form letterForm
	if err := json.Unmarshal(data, &form); err != nil {
		return nil, errors.New("it is damaged")
	}
	if form.Version != spoolVersion {
		return nil, fmt.Errorf("it is of version %d", form.Version)
	}
	found := &words{address: form.Target, tls: form.TLS, jobID: form.Job, name: form.Name}
	for _, entry := range form.Requests {
		kind := spoolKinds[entry[0]]
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

// letter is a file of the spool in the hands of this process, until remove, refuse or release.
type letter struct {
	path string
	file *os.File
}

// writeLetter puts the file there as a whole, or not at all.
func writeLetter(path string, w *words) (written *letter, err error) {
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
	// Locked before it has its name, so that no other process ever finds it free.
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
	return &letter{path, file}, nil
}

// claimLetter takes the file in hand; nil if another has it, or has sent it meanwhile, or if it is another user's.
func claimLetter(path string) *letter {
	file, err := os.OpenFile(path, os.O_RDWR|noFollow, 0)
	if err != nil {
		return nil
	}
	if lockFile(file) == nil {
		// It may have been removed, or written anew, between the two.
		held, err := file.Stat()
		there, missing := os.Lstat(path)
		if err == nil && missing == nil && os.SameFile(held, there) && held.Mode().IsRegular() && ownFile(held) {
			if !locking {
				_ = file.Close()
			}
			return &letter{path, file}
		}
	}
	_ = file.Close()
	return nil
}

// remove: all of it has arrived.
func (l *letter) remove() {
	_ = os.Remove(l.path)
	l.release()
}

// refuse: the server will never take it; it stays beside, for people to look at.
func (l *letter) refuse() string {
	beside := strings.TrimSuffix(l.path, ".json") + ".refused"
	if os.Rename(l.path, beside) == nil {
		old := filesOf(filepath.Dir(l.path), func(name string) bool { return strings.HasSuffix(name, ".refused") })
		for len(old) > spoolFiles {
			_ = os.Remove(old[0])
			old = old[1:]
		}
	}
	l.release()
	return beside
}

// release leaves the file to whoever takes it up next.
func (l *letter) release() { _ = l.file.Close() }

// spoolFolder is where the files are, whether it exists or not; empty if there shall be none.
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

// letters are the files that wait for a server, oldest first; of that job alone, if one is given.
func letters(to target, jobID string) []string {
	folder := spoolFolder()
	if folder == "" {
		return nil
	}
	return filesOf(folder, func(name string) bool {
		return strings.HasPrefix(name, mark(to)+"-") && strings.HasSuffix(name, ".json") &&
			(jobID == "" || strings.HasSuffix(name, "-"+plainID(jobID)+".json"))
	})
}

// filesOf are the files of the folder that have such a name, oldest first.
func filesOf(folder string, wanted func(name string) bool) []string {
	entries, _ := os.ReadDir(folder)
	var paths []string
	for _, entry := range entries {
		if wanted(entry.Name()) {
			paths = append(paths, filepath.Join(folder, entry.Name()))
		}
	}
	// The server's mark, a UUIDv7 and the job: behind the mark, names sort by time.
	slices.SortFunc(paths, func(a, b string) int { return strings.Compare(since(a), since(b)) })
	return paths
}

func since(path string) string {
	_, rest, _ := strings.Cut(filepath.Base(path), "-")
	return rest
}

// jobIn is whose letter it is, as its name says.
func jobIn(path string) string {
	name := strings.TrimSuffix(filepath.Base(path), ".json")
	return name[strings.LastIndex(name, "-")+1:]
}

// spool writes these words down. An error, also if the spool is full, or if its folder is not the user's alone.
func spool(to target, w *words) (*letter, error) {
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
		// It was there before, perhaps with other things in it: its mode is not ours to change.
		return nil, fmt.Errorf("%s is open to others: chmod 700 it, or name another folder in HEADWAY_SPOOL", folder)
	}
	there := filesOf(folder, func(name string) bool { return strings.HasSuffix(name, ".json") })
	if len(there) >= spoolFiles {
		return nil, fmt.Errorf("%s has %d files already", folder, len(there))
	}
	return writeLetter(filepath.Join(folder, mark(to)+"-"+newID()+"-"+plainID(w.jobID)+".json"), w)
}

// mark stands in the name, so that a look at the folder tells whether there is something for a server. All of Headway's
// clients compute it alike.
func mark(to target) string {
	secured := "False"
	if to.tls {
		secured = "True"
	}
	return fmt.Sprintf("%08x", crc32.ChecksumIEEE([]byte(to.address+" "+secured)))
}

// plainID: the worker chooses the id, and only the server says whether it is one.
func plainID(id string) string {
	plain := func(letter rune) bool {
		return !(letter >= '0' && letter <= '9' || letter >= 'a' && letter <= 'z' || letter >= 'A' && letter <= 'Z')
	}
	if id == "" || len(id) > 64 || strings.ContainsFunc(id, plain) {
		return "odd"
	}
	return id
}

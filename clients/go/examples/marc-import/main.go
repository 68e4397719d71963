// Command marc-import imports a file of MARC 21 records into a catalogue in memory, and tracks that as one job.
//
//	marc-import [--rate RECORDS_A_SECOND] FILE
//
// The server and the session come from the environment: HEADWAY_TARGET, HEADWAY_SESSION.
package main

import (
	"context"
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"os"
	"path/filepath"
	"time"

	headway "github.com/headway-project/headway/clients/go"
)

func main() {
	rate := flag.Float64("rate", 0, "records a second; as fast as it can by default")
	flag.Parse()
	if flag.NArg() != 1 {
		flag.Usage()
		os.Exit(2)
	}
	done, seconds, err := run(context.Background(), flag.Arg(0), *rate)
	if err != nil && !errors.Is(err, context.Canceled) {
		fmt.Fprintln(os.Stderr, "marc-import:", err)
		os.Exit(1)
	}
	line, _ := json.Marshal(struct {
		outcome
		Seconds float64 `json:"seconds"`
	}{done, seconds})
	fmt.Println(string(line))
}

func run(ctx context.Context, path string, rate float64) (done outcome, seconds float64, err error) {
	file, err := os.ReadFile(path)
	if err != nil {
		return done, 0, err
	}
	client, err := headway.Open(headway.Config{})
	if err != nil {
		return done, 0, err
	}
	// The spool keeps what an unreachable server does not get. That is no failure of the import.
	defer func() { _ = client.Close() }()

	job, err := client.Create(ctx, headway.Spec{Name: "Import MARC records", Size: countRecords(file), Unit: "records"})
	if err != nil {
		return done, 0, err
	}
	defer job.Close(&err)
	start := time.Now()
	done, err = importRecords(job, filepath.Base(path), file, pace{start, rate})
	job.SetResults(done)
	return done, time.Since(start).Seconds(), err
}

// importRecords is the work. A cancelled job ends it after the current record.
func importRecords(job *headway.Job, name string, file []byte, pace pace) (done outcome, err error) {
	catalogue := map[string][]byte{}
	for raw := range split(file) {
		if job.Cancelled() {
			return done, context.Canceled
		}
		pace.wait(done.records() + 1)
		number, fault := check(raw.data)
		if fault != nil {
			if number == "" {
				number = fmt.Sprintf("%s, byte %d", name, raw.offset)
			}
			job.RecordError(number, fault.code, fault.message)
			done.Failed++
		} else {
			before, there := catalogue[number]
			catalogue[number] = raw.data
			job.Count(done.count(before, there, raw.data), 1)
		}
		job.Advance(1)
		if done.records()%1000 == 0 {
			job.Checkpoint(map[string]any{"records": done.records()})
		}
	}
	return done, nil
}

// pace spreads the records evenly, as a real catalogue would.
type pace struct {
	start time.Time
	rate  float64
}

func (p pace) wait(record int64) {
	if p.rate > 0 {
		time.Sleep(time.Until(p.start.Add(time.Duration(float64(record) / p.rate * float64(time.Second)))))
	}
}

// Command bench measures what an update of a job costs, and what the same costs with a popular progress bar. It has a
// module of its own, so that users of the client do not get the bar.
package main

import (
	"context"
	"encoding/json"
	"fmt"
	"io"
	"log/slog"
	"os"
	"runtime/debug"
	"slices"
	"time"

	"github.com/schollz/progressbar/v3"

	headway "github.com/headway-project/headway/clients/go"
)

const (
	repeats  = 7
	shortest = 100 * time.Millisecond
	barPath  = "github.com/schollz/progressbar/v3"
)

type figure struct {
	What string  `json:"what"`
	Of   string  `json:"of,omitempty"`
	Ns   float64 `json:"ns"`
}

func main() {
	quiet := slog.New(slog.DiscardHandler)
	client, err := headway.Open(headway.Config{Logger: quiet, ExitTimeout: time.Millisecond})
	if err != nil {
		fail(err)
	}
	job, err := client.Create(context.Background(), headway.Spec{Name: "Bench"})
	if err != nil {
		fail(err)
	}
	show(figure{What: "set progress", Ns: measure(func(n int) {
		for i := range n {
			job.SetProgress(int64(i))
		}
	})})
	show(figure{What: "advance", Ns: measure(func(n int) {
		for range n {
			job.Advance(1)
		}
	})})
	show(figure{What: "track", Ns: measure(func(n int) {
		for range headway.Track(job, upTo(n)) {
		}
	})})
	bar := progressbar.NewOptions64(1<<62, progressbar.OptionSetWriter(io.Discard), progressbar.OptionThrottle(65*time.Millisecond))
	show(figure{What: "set progress", Of: barName(), Ns: measure(func(n int) {
		for i := range n {
			_ = bar.Set(i)
		}
	})})
	_ = client.Close()
}

func upTo(n int) func(func(int) bool) {
	return func(yield func(int) bool) {
		for i := range n {
			if !yield(i) {
				return
			}
		}
	}
}

// measure is the median of what one turn costs, in nanoseconds.
func measure(turns func(n int)) float64 {
	n := 1000
	for {
		start := time.Now()
		turns(n)
		if time.Since(start) >= shortest {
			break
		}
		n *= 2
	}
	var costs []float64
	for range repeats {
		start := time.Now()
		turns(n)
		costs = append(costs, float64(time.Since(start).Nanoseconds())/float64(n))
	}
	slices.Sort(costs)
	return costs[repeats/2]
}

func barName() string {
	if build, ok := debug.ReadBuildInfo(); ok {
		for _, module := range build.Deps {
			if module.Path == barPath {
				return "progressbar " + module.Version
			}
		}
	}
	return "progressbar"
}

func show(f figure) {
	line, _ := json.Marshal(f)
	fmt.Println(string(line))
}

func fail(err error) {
	fmt.Fprintln(os.Stderr, "bench:", err)
	os.Exit(1)
}

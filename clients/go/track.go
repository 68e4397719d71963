package headway

import "iter"

// Tracker is what can be moved by a loop: a [*Job] or a [*Meter].
type Tracker interface{ meter() *Meter }

func (m *Meter) meter() *Meter { return m }

// Track gives the items and counts each as done when its turn of the loop is over. A turn that breaks the loop, returns
// or panics is not counted.
//
// The loop ends with the items. To end it early, once somebody cancels the job, look at [Job.Context] in it.
func Track[T any](tracker Tracker, items iter.Seq[T]) iter.Seq[T] {
	return func(yield func(T) bool) {
		meter := tracker.meter()
		meter.touch()
		for item := range items {
			if !yield(item) {
				return
			}
			meter.done.Add(1)
		}
	}
}

// Track2 is [Track] for pairs.
func Track2[K, V any](tracker Tracker, items iter.Seq2[K, V]) iter.Seq2[K, V] {
	return func(yield func(K, V) bool) {
		meter := tracker.meter()
		meter.touch()
		for key, value := range items {
			if !yield(key, value) {
				return
			}
			meter.done.Add(1)
		}
	}
}

// TrackSlice is [Track] over a slice, with each item's index. If the job's size is not known yet, it becomes the length.
func TrackSlice[T any](tracker Tracker, items []T) iter.Seq2[int, T] {
	return func(yield func(int, T) bool) {
		meter := tracker.meter()
		meter.touch()
		meter.expect(int64(len(items)))
		for index, item := range items {
			if !yield(index, item) {
				return
			}
			meter.done.Add(1)
		}
	}
}

// TrackChan is [Track] over what a channel gives until it is closed.
func TrackChan[T any](tracker Tracker, items <-chan T) iter.Seq[T] {
	return func(yield func(T) bool) {
		meter := tracker.meter()
		meter.touch()
		for item := range items {
			if !yield(item) {
				return
			}
			meter.done.Add(1)
		}
	}
}

package headway

import "iter"

// Tracker is what a loop can move: a [*Job] or a [*Meter].
type Tracker interface{ meter() *Meter }

func (m *Meter) meter() *Meter { return m }

// Track gives the items and counts each as done after its turn of the loop. A turn that breaks the loop, returns or
// panics does not count.
//
// The loop ends with the items. To end it early after a cancellation request, check [Job.Context] in the loop.
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

// TrackSlice is [Track] over a slice, with each item's index. It sets the job's size to the length if that is not known
// yet.
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

// TrackChan is [Track] over a channel until it is closed.
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

//! Iterators that count their items.

use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};

use futures_core::Stream;
use pin_project_lite::pin_project;

use crate::meter::Meter;

/// An iterator whose items are counted; made by [`Job::track`](crate::Job::track).
#[must_use = "iterators do nothing unless consumed"]
pub struct Tracked<I> {
    items: I,
    meter: Arc<Meter>,
    in_hand: i64,
}

impl<I> Tracked<I> {
    pub(crate) fn new(items: I, meter: Arc<Meter>) -> Self {
        Self { items, meter, in_hand: 0 }
    }
}

impl<I: Iterator> Iterator for Tracked<I> {
    type Item = I::Item;

    #[inline]
    fn next(&mut self) -> Option<I::Item> {
        self.meter.advance(self.in_hand);
        let item = self.items.next();
        self.in_hand = i64::from(item.is_some());
        item
    }

    fn size_hint(&self) -> (usize, Option<usize>) {
        self.items.size_hint()
    }
}

impl<I: ExactSizeIterator> ExactSizeIterator for Tracked<I> {}

impl<I> std::fmt::Debug for Tracked<I> {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        formatter.debug_struct("Tracked").finish_non_exhaustive()
    }
}

pin_project! {
    /// A stream whose items are counted; made by [`Job::track_stream`](crate::Job::track_stream).
    #[must_use = "streams do nothing unless polled"]
    pub struct TrackedStream<S> {
        #[pin]
        items: S,
        meter: Arc<Meter>,
        in_hand: i64,
    }
}

impl<S> TrackedStream<S> {
    pub(crate) fn new(items: S, meter: Arc<Meter>) -> Self {
        Self { items, meter, in_hand: 0 }
    }
}

impl<S: Stream> Stream for TrackedStream<S> {
    type Item = S::Item;

    fn poll_next(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Option<S::Item>> {
        let this = self.project();
        // Asking for the next item means that the one before is done, even if the next is not there yet.
        this.meter.advance(std::mem::take(this.in_hand));
        let item = ready!(this.items.poll_next(context));
        *this.in_hand = i64::from(item.is_some());
        Poll::Ready(item)
    }

    fn size_hint(&self) -> (usize, Option<usize>) {
        self.items.size_hint()
    }
}

impl<S> std::fmt::Debug for TrackedStream<S> {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        formatter.debug_struct("TrackedStream").finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_item_is_done_when_the_next_is_asked_for() {
        let meter = Arc::new(Meter::new("", 0));
        for item in Tracked::new(1..=5, Arc::clone(&meter)) {
            assert_eq!(meter.progress(), item - 1);
            if item == 4 {
                break;
            }
        }
        assert_eq!(meter.progress(), 3);
        assert_eq!(Tracked::new(1..=5, Arc::clone(&meter)).count(), 5);
        assert_eq!(meter.progress(), 8);
    }

    /// Gives a number at every second poll.
    struct Slow(std::ops::RangeInclusive<i64>, bool);

    impl Stream for Slow {
        type Item = i64;

        fn poll_next(mut self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<Option<i64>> {
            self.1 = !self.1;
            if self.1 { Poll::Pending } else { Poll::Ready(self.0.next()) }
        }
    }

    #[test]
    fn an_item_of_a_stream_is_done_when_the_next_is_asked_for() {
        let meter = Arc::new(Meter::new("", 0));
        let mut stream = std::pin::pin!(TrackedStream::new(Slow(1..=3, false), Arc::clone(&meter)));
        let mut context = Context::from_waker(std::task::Waker::noop());
        let mut next = || stream.as_mut().poll_next(&mut context);
        for item in 1..=3 {
            assert!(next().is_pending());
            assert_eq!((next(), meter.progress()), (Poll::Ready(Some(item)), item - 1));
        }
        assert!(next().is_pending());
        assert_eq!((next(), meter.progress()), (Poll::Ready(None), 3));
    }
}

//! A value that arrives once, for threads and for tasks of any executor.

use std::collections::BTreeMap;
use std::fmt;
use std::future::Future;
use std::pin::Pin;
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll, Wake, Waker};
use std::thread::Thread;
use std::time::{Duration, Instant};

/// The lock, even if the thread that had it before has panicked: no thread here leaves its data half changed.
pub(crate) fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// A value that is set once, and that many can await.
pub(crate) struct Promise<T> {
    state: Mutex<State<T>>,
    arrived: Condvar,
}

struct State<T> {
    value: Option<T>,
    wakers: BTreeMap<u64, Waker>,
    /// How many tasks have ever waited.
    waited: u64,
}

impl<T> Promise<T> {
    pub(crate) fn new() -> Arc<Self> {
        let state = State { value: None, wakers: BTreeMap::new(), waited: 0 };
        Arc::new(Self { state: Mutex::new(state), arrived: Condvar::new() })
    }

    /// Sets the value, unless it is set already.
    pub(crate) fn set(&self, value: T) {
        let mut state = lock(&self.state);
        if state.value.is_some() {
            return;
        }
        state.value = Some(value);
        let wakers = std::mem::take(&mut state.wakers);
        drop(state);
        self.arrived.notify_all();
        for waker in wakers.into_values() {
            waker.wake();
        }
    }

    pub(crate) fn is_set(&self) -> bool {
        lock(&self.state).value.is_some()
    }
}

impl<T: Clone> Promise<T> {
    pub(crate) fn get(&self) -> Option<T> {
        lock(&self.state).value.clone()
    }

    /// Blocks until the value is there, at most so long.
    pub(crate) fn wait_for(&self, timeout: Duration) -> Option<T> {
        let end = Instant::now().checked_add(timeout);
        let mut state = lock(&self.state);
        while state.value.is_none() {
            let left = end.map_or(Duration::MAX, |end| end.saturating_duration_since(Instant::now()));
            if left.is_zero() {
                break;
            }
            // So long a wait would overflow in some systems.
            let left = left.min(Duration::from_secs(86_400));
            state = self.arrived.wait_timeout(state, left).unwrap_or_else(PoisonError::into_inner).0;
        }
        state.value.clone()
    }

    /// The value, once it is there.
    pub(crate) fn arrival(self: &Arc<Self>) -> Arrival<T> {
        Arrival { promise: Arc::clone(self), place: None }
    }
}

pub(crate) struct Arrival<T> {
    promise: Arc<Promise<T>>,
    /// The position of its waker.
    place: Option<u64>,
}

impl<T: Clone> Arrival<T> {
    /// Blocks until the value is there, at most so long.
    pub(crate) fn wait_for(&self, timeout: Duration) -> Option<T> {
        self.promise.wait_for(timeout)
    }
}

impl<T> Clone for Arrival<T> {
    fn clone(&self) -> Self {
        Self { promise: Arc::clone(&self.promise), place: None }
    }
}

impl<T> Drop for Arrival<T> {
    fn drop(&mut self) {
        // Many may wait briefly for a value that never comes.
        let forgotten = self.place.and_then(|place| lock(&self.promise.state).wakers.remove(&place));
        drop(forgotten);
    }
}

impl<T: Clone> Future for Arrival<T> {
    type Output = T;

    fn poll(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<T> {
        let this = &mut *self;
        let mut state = lock(&this.promise.state);
        if let Some(value) = &state.value {
            return Poll::Ready(value.clone());
        }
        let place = *this.place.get_or_insert_with(|| {
            state.waited += 1;
            state.waited
        });
        let former = state.wakers.insert(place, context.waker().clone());
        drop(state);
        // A waker may run any code when it is dropped.
        drop(former);
        Poll::Pending
    }
}

/// The result of a call: `.wait()` for it in a thread, or `.await` it in a task, of any executor.
///
/// Waiting never depends on the executor, so `.wait()` cannot deadlock or panic inside one. It only blocks the thread.
#[must_use = "wait() for it, or await it"]
pub struct Answer<T> {
    future: Pin<Box<dyn Future<Output = T> + Send>>,
}

impl<T> Answer<T> {
    pub(crate) fn new(future: impl Future<Output = T> + Send + 'static) -> Self {
        Self { future: Box::pin(future) }
    }

    /// Blocks this thread until the answer is there. The method that gives the answer documents how long that may take.
    #[expect(clippy::must_use_candidate, reason = "many are waited for that bring nothing")]
    pub fn wait(self) -> T {
        block_on(self.future)
    }
}

impl<T> Future for Answer<T> {
    type Output = T;

    fn poll(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<T> {
        self.future.as_mut().poll(context)
    }
}

impl<T> fmt::Debug for Answer<T> {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.debug_struct("Answer").finish_non_exhaustive()
    }
}

struct Unpark(Thread);

impl Wake for Unpark {
    fn wake(self: Arc<Self>) {
        self.0.unpark();
    }
}

/// Runs a future in this thread. It must not need an executor's timers or sockets.
pub(crate) fn block_on<F: Future>(future: F) -> F::Output {
    let mut future = std::pin::pin!(future);
    let waker = Waker::from(Arc::new(Unpark(std::thread::current())));
    let mut context = Context::from_waker(&waker);
    loop {
        if let Poll::Ready(value) = future.as_mut().poll(&mut context) {
            return value;
        }
        std::thread::park();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_value_reaches_threads_and_tasks() {
        let promise = Promise::new();
        let waiting = {
            let promise = Arc::clone(&promise);
            std::thread::spawn(move || promise.wait_for(Duration::from_secs(60)))
        };
        let awaiting = {
            let arrival = promise.arrival();
            std::thread::spawn(move || block_on(arrival))
        };
        promise.set(7);
        promise.set(8);
        assert_eq!(waiting.join().unwrap(), Some(7));
        assert_eq!(awaiting.join().unwrap(), 7);
        assert_eq!(promise.get(), Some(7));
    }

    #[test]
    fn who_waits_no_longer_is_forgotten() {
        let promise = Promise::<()>::new();
        let mut context = Context::from_waker(Waker::noop());
        let mut waiting = promise.arrival();
        for _ in 0..3 {
            assert!(Pin::new(&mut waiting).poll(&mut context).is_pending());
            assert!(Pin::new(&mut promise.arrival()).poll(&mut context).is_pending());
        }
        assert_eq!(lock(&promise.state).wakers.len(), 1);
        drop(waiting);
        assert!(lock(&promise.state).wakers.is_empty());
    }

    #[test]
    fn a_wait_ends() {
        let promise = Promise::<()>::new();
        assert_eq!(promise.wait_for(Duration::from_millis(1)), None);
    }
}

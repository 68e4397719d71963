//! Whether the server answers, and when to try again if it does not.

use std::sync::LazyLock;
use std::time::{Duration, Instant};

use crate::error::Error;
use crate::error_policy::log_text;
use crate::ids::spread;

/// Time since this process first read the clock.
pub(crate) type Moment = Duration;

/// A moment that is always in the past.
pub(crate) const AT_ONCE: Moment = Duration::ZERO;

const FIRST_PAUSE: Duration = Duration::from_millis(100);
const MAX_RETRY_DELAY: Duration = Duration::from_secs(5);
const MAX_RETRY_DELAY_WHILE_AWAITED: Duration = Duration::from_millis(500);

static START: LazyLock<Instant> = LazyLock::new(Instant::now);

pub(crate) fn now() -> Moment {
    START.elapsed()
}

/// The retry delay grows from 0.1 to 5 s while the server is unreachable, and to 0.5 s while somebody waits for
/// delivery.
pub(crate) struct ConnectionState {
    address: String,
    /// Whether the last call got no answer.
    pub(crate) down: bool,
    /// When to try again.
    pub(crate) retry_at: Moment,
    tries: u32,
    waiting: usize,
}

impl ConnectionState {
    pub(crate) fn new(address: &str) -> Self {
        Self { address: address.to_owned(), down: false, retry_at: AT_ONCE, tries: 0, waiting: 0 }
    }

    /// One more caller waits for delivery.
    pub(crate) fn add_waiting(&mut self, now: Moment) {
        self.waiting += 1;
        self.retry_at = self.retry_at.min(now + MAX_RETRY_DELAY_WHILE_AWAITED);
    }

    /// One caller less waits for delivery.
    pub(crate) fn remove_waiting(&mut self) {
        self.waiting = self.waiting.saturating_sub(1);
    }

    pub(crate) fn answered(&mut self) {
        if self.tries > 1 {
            log::info!(target: "headway", "{} answers again", self.address);
        }
        self.down = false;
        self.tries = 0;
        self.retry_at = AT_ONCE;
    }

    pub(crate) fn failed(&mut self, error: &Error, now: Moment) {
        // All calls in flight fail together. Count that as one failure.
        if now < self.retry_at {
            return;
        }
        self.down = true;
        let longest = if self.waiting > 0 { MAX_RETRY_DELAY_WHILE_AWAITED } else { MAX_RETRY_DELAY };
        let pause = (FIRST_PAUSE * (1 << self.tries.min(10))).min(longest);
        self.retry_at = now + spread(pause, 0.5, 1.0);
        self.tries += 1;
        // A server that only restarts, or moves a stream to another server, is back before the second failure.
        if self.tries == 2 {
            log::warn!(
                target: "headway",
                "{} does not answer ({}); the work goes on",
                self.address,
                log_text(error)
            );
        }
    }
}

//! Whether the server answers, and when to try it again if it does not.

use std::sync::LazyLock;
use std::time::{Duration, Instant};

use crate::error::Error;
use crate::ids::spread;
use crate::verdict::in_words;

/// Time since this process first looked at the clock.
pub(crate) type Moment = Duration;

/// The moment that is always over.
pub(crate) const AT_ONCE: Moment = Duration::ZERO;

const FIRST_PAUSE: Duration = Duration::from_millis(100);
const LONGEST_PAUSE: Duration = Duration::from_secs(5);
const LONGEST_IN_HASTE: Duration = Duration::from_millis(500);

static START: LazyLock<Instant> = LazyLock::new(Instant::now);

pub(crate) fn now() -> Moment {
    START.elapsed()
}

/// Pauses grow from 0.1 to 5 s while the server is away, to half a second if somebody waits for it.
pub(crate) struct Contact {
    address: String,
    /// Whether the server did not answer when last asked.
    pub(crate) down: bool,
    /// When to ask again.
    pub(crate) retry_at: Moment,
    tries: u32,
    waiting: usize,
}

impl Contact {
    pub(crate) fn new(address: &str) -> Self {
        Self { address: address.to_owned(), down: false, retry_at: AT_ONCE, tries: 0, waiting: 0 }
    }

    /// One more waits until all is delivered.
    pub(crate) fn hurry(&mut self, now: Moment) {
        self.waiting += 1;
        self.retry_at = self.retry_at.min(now + LONGEST_IN_HASTE);
    }

    /// One less does.
    pub(crate) fn relax(&mut self) {
        self.waiting = self.waiting.saturating_sub(1);
    }

    pub(crate) fn heard(&mut self) {
        if self.tries > 1 {
            log::info!(target: "headway", "{} answers again", self.address);
        }
        self.down = false;
        self.tries = 0;
        self.retry_at = AT_ONCE;
    }

    pub(crate) fn lost(&mut self, error: &Error, now: Moment) {
        // All that was under way fails together; that is one failure.
        if now < self.retry_at {
            return;
        }
        self.down = true;
        let longest = if self.waiting > 0 { LONGEST_IN_HASTE } else { LONGEST_PAUSE };
        let pause = (FIRST_PAUSE * (1 << self.tries.min(10))).min(longest);
        self.retry_at = now + spread(pause, 0.5, 1.0);
        self.tries += 1;
        // A server that only restarts, or moves a stream to another, is back before the second failure.
        if self.tries == 2 {
            log::warn!(
                target: "headway",
                "{} does not answer ({}); the work goes on",
                self.address,
                in_words(error)
            );
        }
    }
}

//! Ids and random durations that a worker can choose on its own.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

/// Random bytes, or zeros on a machine without a source of them.
fn random<const N: usize>() -> [u8; N] {
    let mut bytes = [0; N];
    // Without it ids still differ by their time, and retry delays are merely equal.
    let _ = getrandom::fill(&mut bytes);
    bytes
}

/// A random duration between `low` and `high` times the span, so that many clients do not retry at the same moment.
pub(crate) fn spread(span: Duration, low: f64, high: f64) -> Duration {
    let share = f64::from(u32::from_be_bytes(random())) / f64::from(u32::MAX);
    span.mul_f64(low + (high - low) * share)
}

/// The time since 1970.
pub(crate) fn since_epoch() -> Duration {
    SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default()
}

/// A `UUIDv7` (RFC 9562) as 32 lower-case hexadecimal digits: sorts by time to the millisecond.
pub(crate) fn uuid7() -> String {
    let random = u128::from_be_bytes(random());
    let milliseconds = since_epoch().as_millis() & ((1 << 48) - 1);
    let high = (random >> 64) & 0xfff;
    let low = random & ((1 << 62) - 1);
    let id = milliseconds << 80 | 0x7 << 76 | high << 64 | 0b10 << 62 | low;
    format!("{id:032x}")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ids_are_of_version_7_and_differ() {
        let (one, two) = (uuid7(), uuid7());
        assert_eq!(one.len(), 32);
        assert_eq!(&one[12..13], "7");
        assert!("89ab".contains(&one[16..17]));
        assert_ne!(one, two);
        assert_eq!(one[..8], two[..8]);
    }
}

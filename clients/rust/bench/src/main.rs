//! Measures what an update costs: one thread, no server.

use std::error::Error;
use std::hint::black_box;
use std::time::{Duration, Instant};

use headway::{Client, JobOptions};
use indicatif::ProgressBar;
use serde_json::json;

const PEER: &str = "indicatif 0.18";
const REPEATS: usize = 7;
const LEAST: Duration = Duration::from_millis(100);

fn main() -> Result<(), Box<dyn Error>> {
    let client = Client::builder().exit_timeout(Duration::ZERO).connect()?;
    let job = client.create(JobOptions::new("Benchmark").size(i64::MAX)).wait()?;

    tell(
        "set progress",
        None,
        median(|times| (0..times).for_each(|done| job.set_progress(black_box(i64::from(done))))),
    );
    tell("advance", None, median(|times| (0..times).for_each(|_| job.advance(black_box(1)))));
    tell(
        "track",
        None,
        median(|times| {
            for item in job.track(0..times) {
                black_box(item);
            }
        }),
    );

    let bar = ProgressBar::hidden();
    tell(
        "set progress",
        Some(PEER),
        median(|times| (0..times).for_each(|done| bar.set_position(black_box(u64::from(done))))),
    );
    job.fail("a benchmark is no work").wait();
    client.close().wait();
    Ok(())
}

fn tell(what: &str, of: Option<&str>, nanoseconds: f64) {
    let mut line = json!({"what": what, "ns": (nanoseconds * 100.0).round() / 100.0});
    if let Some(peer) = of {
        line["of"] = json!(peer);
    }
    println!("{line}");
}

/// Nanoseconds of one update.
fn median(mut repeat: impl FnMut(u32)) -> f64 {
    let mut times = 1_000;
    // The warm-up, which finds how many fill the time.
    while measure(&mut repeat, times) < LEAST {
        times *= 2;
    }
    let mut spans: Vec<_> = (0..REPEATS).map(|_| measure(&mut repeat, times)).collect();
    spans.sort();
    spans[REPEATS / 2].as_secs_f64() * 1e9 / f64::from(times)
}

fn measure(repeat: &mut impl FnMut(u32), times: u32) -> Duration {
    let start = Instant::now();
    repeat(times);
    start.elapsed()
}

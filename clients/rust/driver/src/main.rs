//! Carries out the operations of a conformance case, with the client's public API, and answers with what it saw.

mod arguments;
mod driver;
mod shapes;

use std::io::{self, BufRead as _, Write as _};

use driver::{Driver, Fault};
use serde_json::{Value, json};

struct ToStandardError;

impl log::Log for ToStandardError {
    fn enabled(&self, metadata: &log::Metadata<'_>) -> bool {
        metadata.target() == "headway"
    }

    fn log(&self, record: &log::Record<'_>) {
        if self.enabled(record.metadata()) {
            eprintln!("{}: {}", record.level(), record.args());
        }
    }

    fn flush(&self) {}
}

fn main() -> io::Result<()> {
    log::set_logger(&ToStandardError).map_err(|error| io::Error::other(error.to_string()))?;
    log::set_max_level(log::LevelFilter::Info);
    // A failing worker is part of many cases.
    std::panic::set_hook(Box::new(|_| {}));
    let mut driver = Driver::default();
    let mut out = io::stdout().lock();
    for line in io::stdin().lock().lines() {
        let request: Value = serde_json::from_str(&line?)?;
        let id = &request["id"];
        let answer = match driver.heed(&request) {
            Ok(value) => json!({"id": id, "value": value}),
            Err(Fault::Error(error)) => json!({"id": id, "error": shapes::error(&error)}),
            Err(Fault::Unsupported(why)) => json!({"id": id, "unsupported": why}),
        };
        writeln!(out, "{answer}")?;
        out.flush()?;
    }
    driver.close();
    Ok(())
}

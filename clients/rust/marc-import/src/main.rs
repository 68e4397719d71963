//! Imports a file of MARC 21 records into a catalogue in memory, and tracks it as one job.

mod records;

use std::collections::HashMap;
use std::error::Error;
use std::path::PathBuf;
use std::process::ExitCode;
use std::thread::sleep;
use std::time::{Duration, Instant};
use std::{env, fs};

use headway::{Client, Job, JobCancelled, JobOptions};
use serde_json::json;

const USAGE: &str = "usage: marc-import [--rate RECORDS_A_SECOND] FILE";

fn main() -> ExitCode {
    match run() {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("marc-import: {error}");
            ExitCode::from(2)
        }
    }
}

fn run() -> Result<(), Box<dyn Error>> {
    let (file, rate) = arguments()?;
    let name = file.file_name().unwrap_or_default().to_string_lossy().into_owned();
    let bytes = fs::read(&file)?;
    let size = i64::try_from(records::split(&bytes).count())?;

    let client = Client::connect()?;
    let options = JobOptions::new("Import MARC records").unit("records").size(size);
    let mut import = Import { name, rate, ..Import::default() };
    let outcome = client.run(options, |job| import.work(&bytes, job));
    if let Err(error) = outcome {
        if !error.is::<JobCancelled>() {
            return Err(error);
        }
        eprintln!("{error}");
    }
    let mut outcome = import.outcome();
    outcome["seconds"] = json!(import.seconds);
    println!("{outcome}");
    Ok(())
}

fn arguments() -> Result<(PathBuf, Option<f64>), Box<dyn Error>> {
    let (mut file, mut rate) = (None, None);
    let mut arguments = env::args_os().skip(1);
    while let Some(argument) = arguments.next() {
        if argument == "--rate" {
            let value = arguments.next().and_then(|value| value.to_str()?.parse().ok());
            rate = Some(value.filter(|rate: &f64| *rate > 0.0).ok_or(USAGE)?);
        } else if file.replace(PathBuf::from(argument)).is_some() {
            return Err(USAGE.into());
        }
    }
    Ok((file.ok_or(USAGE)?, rate))
}

#[derive(Default)]
struct Import {
    name: String,
    rate: Option<f64>,
    /// Control number → the record.
    catalogue: HashMap<String, Vec<u8>>,
    added: u64,
    updated: u64,
    skipped: u64,
    failed: u64,
    seconds: f64,
}

impl Import {
    fn work(&mut self, bytes: &[u8], job: &Job) -> Result<serde_json::Value, Box<dyn Error>> {
        let start = Instant::now();
        let done = self.import(bytes, job, start);
        self.seconds = start.elapsed().as_secs_f64();
        done?;
        Ok(self.outcome())
    }

    fn import(&mut self, bytes: &[u8], job: &Job, start: Instant) -> Result<(), JobCancelled> {
        for (number, (offset, raw)) in (1_u32..).zip(records::split(bytes)) {
            if let Some(rate) = self.rate {
                let turn = start + Duration::from_secs_f64(f64::from(number) / rate);
                sleep(turn.saturating_duration_since(Instant::now()));
            }
            match records::check(raw) {
                Ok(control_number) => self.store(control_number, raw, job),
                Err(fault) => {
                    self.failed += 1;
                    let place = format!("{}, byte {offset}", self.name);
                    job.record_error(fault.control_number.unwrap_or(place), fault.code, fault.message);
                }
            }
            job.advance(1);
            if number.is_multiple_of(1000) {
                job.checkpoint(json!({"records": number}));
            }
            job.check_cancelled()?;
        }
        Ok(())
    }

    fn store(&mut self, control_number: String, raw: &[u8], job: &Job) {
        match self.catalogue.insert(control_number, raw.to_vec()) {
            None => {
                self.added += 1;
                job.count("added", 1);
            }
            Some(before) if before == raw => {
                self.skipped += 1;
                job.count("skipped", 1);
            }
            Some(_) => {
                self.updated += 1;
                job.count("updated", 1);
            }
        }
    }

    fn outcome(&self) -> serde_json::Value {
        json!({"added": self.added, "updated": self.updated, "skipped": self.skipped, "failed": self.failed})
    }
}

//! Saves in the spool what this process could not deliver, and sends what earlier processes left there.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use crate::calls::place;
use crate::error::Error;
use crate::error_policy::{ErrorPolicy, log_text, policy_for};
use crate::job_state::JobState;
use crate::pending_call::Request;
use crate::proto::headway::v1::{FinishJobRequest, ReportProgressRequest};
use crate::spool::{self, SpoolFile, SpoolRecord};
use crate::target::{Stub, Target};

/// Counts what happened to the spool files for this server.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct SpoolFlush {
    /// Files that the server has stored.
    pub sent: usize,
    /// Files that the server will never accept; they stay as `*.refused`.
    pub refused: usize,
    /// Files that still wait: the server does not answer, or another process has claimed them.
    pub waiting: usize,
}

enum Delivery {
    Sent,
    Refused,
    Waiting,
}

/// Saves what these jobs have left to send. The result has an entry for each job with something left: the path of its
/// file, or none if it cannot be saved. One warning says why, however many jobs there are. Runs in the engine's thread.
pub(crate) fn spool_undelivered(jobs: &[Arc<JobState>], target: &Target) -> Vec<(Arc<JobState>, Option<PathBuf>)> {
    let mut left = Vec::new();
    let mut fault = None;
    for job_state in jobs {
        if job_state.state().over {
            continue;
        }
        let requests = job_state.undelivered();
        if requests.is_empty() {
            continue;
        }
        let mut state = job_state.state();
        let record = SpoolRecord {
            address: target.address.clone(),
            tls: target.tls,
            job_id: job_state.id.clone(),
            name: state.job.name.clone(),
            requests,
        };
        let place = if spool::folder().is_some() {
            match spool::write(&record, state.file.as_ref()) {
                Ok(file) => {
                    let path = file.path.clone();
                    state.file = Some(file);
                    Some(path)
                }
                Err(error) => {
                    fault = Some(error);
                    None
                }
            }
        } else {
            None
        };
        left.push((Arc::clone(job_state), place));
    }
    if let Some(fault) = fault {
        log::warn!(target: "headway", "undelivered reports cannot be saved: {fault}");
    }
    left
}

/// Starts to send the files that wait for this server, if there are any. Runs in the engine's runtime.
pub(crate) fn collect(target: &Target) {
    if !spool::waiting_files(target, None).is_empty() {
        let target = target.clone();
        tokio::spawn(async move { Box::pin(send_all(&target, None)).await });
    }
}

/// Sends what earlier processes left for this job, before this worker takes it over.
pub(crate) async fn catch_up(target: Target, job_id: Option<String>) {
    Box::pin(send_all(&target, job_id.as_deref())).await;
}

/// Sends the spool files for one server, or of one job there, one after the other. If the server does not answer, the
/// rest stays for a later process.
async fn send_all(target: &Target, job_id: Option<&str>) {
    let (mut stub, mut held) = (None, BTreeSet::new());
    for path in spool::waiting_files(target, job_id) {
        let Some(file) = claim_in_turn(&path, &mut held) else {
            continue;
        };
        let stub = stub.get_or_insert_with(|| target.open());
        if matches!(deliver(file, stub).await, Delivery::Waiting) {
            return;
        }
    }
}

/// Sends all spool files for this server that can be sent.
pub(crate) async fn flush(target: Target) -> SpoolFlush {
    let mut flush = SpoolFlush::default();
    let (stub, mut away, mut held) = (target.open(), false, BTreeSet::new());
    for path in spool::waiting_files(&target, None) {
        let file = if away { None } else { claim_in_turn(&path, &mut held) };
        let Some(file) = file else {
            // Another process may have sent it meanwhile.
            flush.waiting += usize::from(path.exists());
            continue;
        };
        match deliver(file, &stub).await {
            Delivery::Sent => flush.sent += 1,
            Delivery::Refused => flush.refused += 1,
            Delivery::Waiting => {
                away = true;
                flush.waiting += 1;
            }
        }
    }
    flush
}

/// Claims the file, unless another process has it, or an earlier one of the same job: those wait for each other.
fn claim_in_turn(path: &Path, held: &mut BTreeSet<String>) -> Option<SpoolFile> {
    let job = spool::job_in_name(path);
    let file = if held.contains(&job) { None } else { SpoolFile::claim(path) };
    if file.is_none() {
        held.insert(job);
    }
    file
}

/// Sends a file and removes it. If the server will never accept it, sets it aside. Otherwise leaves it.
async fn deliver(file: SpoolFile, stub: &Stub) -> Delivery {
    let record = match file.read() {
        Ok(Ok(record)) => record,
        Ok(Err(reason)) => return refuse(file, &reason),
        Err(_) => return Delivery::Waiting,
    };
    match Box::pin(send(stub, record.requests)).await {
        Ok(()) => {
            log::info!(target: "headway", "the spool file of job {} is delivered", record.job_id);
            file.remove();
            Delivery::Sent
        }
        Err(error) if matches!(policy_for(&error), ErrorPolicy::Stop | ErrorPolicy::Drop) => {
            refuse(file, &log_text(&error))
        }
        Err(_) => Delivery::Waiting,
    }
}

fn refuse(file: SpoolFile, reason: &str) -> Delivery {
    let place = file.refuse();
    log::warn!(
        target: "headway",
        "the server refused what an earlier process left for a job, see {}: {reason}",
        place.display()
    );
    Delivery::Refused
}

/// Makes these calls in order. An error if an essential call fails.
async fn send(stub: &Stub, requests: Vec<Request>) -> Result<(), Error> {
    let mut ended = None;
    for request in requests {
        let ends = request.ends();
        match call(stub, request).await {
            Ok(()) if ends => ended = None,
            Ok(()) => {}
            // If the end arrived and only its answer was lost, everything before it arrived too. Repeating the end
            // tells.
            Err(error) if ends || error.reason() != "JOB_ENDED" => return Err(error),
            Err(error) => ended = Some(error),
        }
    }
    ended.map_or(Ok(()), Err)
}

async fn call(stub: &Stub, request: Request) -> Result<(), Error> {
    let error = match place(stub.clone(), request.clone()).await {
        Ok(_) => return Ok(()),
        // As in the engine: a refused part of a job must not hold back the rest.
        Err(error) if policy_for(&error) == ErrorPolicy::Drop => error,
        Err(error) => return Err(error),
    };
    let lesser = match request {
        Request::Report(report) if report.variables.is_some() => {
            Request::Report(ReportProgressRequest { variables: None, ..report })
        }
        Request::Finish(finish) if finish.results.is_some() => {
            Request::Finish(FinishJobRequest { results: None, ..finish })
        }
        Request::Report(_) | Request::Update(_) => return Ok(()),
        _ => return Err(error),
    };
    place(stub.clone(), lesser).await.map(drop)
}

#[cfg(all(test, unix))]
mod tests {
    use super::*;

    #[test]
    fn a_spool_file_waits_for_the_one_before_it() {
        let folder = std::env::temp_dir().join(format!("headway-spool-sender-{}", crate::ids::uuid7()));
        std::fs::create_dir(&folder).unwrap();
        let paths = ["0-1-a.json", "0-2-a.json", "0-3-b.json"].map(|name| folder.join(name));
        for path in &paths {
            std::fs::write(path, "").unwrap();
        }
        let another = SpoolFile::claim(&paths[0]).unwrap();
        let mut held = BTreeSet::new();
        let claimed = paths.each_ref().map(|path| claim_in_turn(path, &mut held).is_some());
        assert_eq!(claimed, [false, false, true]);
        drop(another);
        std::fs::remove_dir_all(&folder).unwrap();
    }
}

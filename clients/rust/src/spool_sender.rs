//! Leaves in the spool what this process could not deliver, and sends what earlier ones left.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use crate::calls::place;
use crate::course::Course;
use crate::error::Error;
use crate::proto::headway::v1::{FinishJobRequest, ReportProgressRequest};
use crate::spool::{self, Letter, Words};
use crate::step::Request;
use crate::target::{Stub, Target};
use crate::verdict::{Verdict, in_words, judge};

/// What became of what waited in the spool for this server.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct SpoolFlush {
    /// Files of which all has arrived.
    pub sent: usize,
    /// Files that the server will never take; they stay beside, as `*.refused`.
    pub refused: usize,
    /// Files that wait still: the server does not answer, or another process has them in hand.
    pub waiting: usize,
}

enum Fate {
    Sent,
    Refused,
    Waiting,
}

/// Writes what these jobs have left to say. For each that has something left: where it is, or none if it cannot be
/// written. One notice says why, however many jobs there are. Belongs in the engine's thread.
pub(crate) fn write_down(courses: &[Arc<Course>], target: &Target) -> Vec<(Arc<Course>, Option<PathBuf>)> {
    let mut left = Vec::new();
    let mut fault = None;
    for course in courses {
        if course.state().over {
            continue;
        }
        let requests = course.remains();
        if requests.is_empty() {
            continue;
        }
        let mut state = course.state();
        let words = Words {
            address: target.address.clone(),
            tls: target.tls,
            job_id: course.id.clone(),
            name: state.job.name.clone(),
            requests,
        };
        let place = if spool::folder().is_some() {
            match spool::write(&words, state.letter.as_ref()) {
                Ok(letter) => {
                    let path = letter.path.clone();
                    state.letter = Some(letter);
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
        left.push((Arc::clone(course), place));
    }
    if let Some(fault) = fault {
        log::warn!(target: "headway", "what is left to say cannot be written down: {fault}");
    }
    left
}

/// Starts to send what waits for this server, if anything does. Belongs in the engine's runtime.
pub(crate) fn collect(target: &Target) {
    if !spool::letters(target, None).is_empty() {
        let target = target.clone();
        tokio::spawn(async move { Box::pin(send_all(&target, None)).await });
    }
}

/// Sends what earlier processes left to say of this job, before it is another's turn.
pub(crate) async fn catch_up(target: Target, job_id: Option<String>) {
    Box::pin(send_all(&target, job_id.as_deref())).await;
}

/// Goes once through the letters for one server, or of one job there, one after the other. If the server does not answer,
/// the rest stays for a later process.
async fn send_all(target: &Target, job_id: Option<&str>) {
    let (mut stub, mut held) = (None, BTreeSet::new());
    for path in spool::letters(target, job_id) {
        let Some(letter) = claim_in_turn(&path, &mut held) else {
            continue;
        };
        let stub = stub.get_or_insert_with(|| target.open());
        if matches!(deliver(letter, stub).await, Fate::Waiting) {
            return;
        }
    }
}

/// Sends all letters for this server that can be sent.
pub(crate) async fn flush(target: Target) -> SpoolFlush {
    let mut flush = SpoolFlush::default();
    let (stub, mut away, mut held) = (target.open(), false, BTreeSet::new());
    for path in spool::letters(&target, None) {
        let letter = if away { None } else { claim_in_turn(&path, &mut held) };
        let Some(letter) = letter else {
            // Another process may have sent it meanwhile.
            flush.waiting += usize::from(path.exists());
            continue;
        };
        match deliver(letter, &stub).await {
            Fate::Sent => flush.sent += 1,
            Fate::Refused => flush.refused += 1,
            Fate::Waiting => {
                away = true;
                flush.waiting += 1;
            }
        }
    }
    flush
}

/// Takes the letter in hand, unless another process has it, or one of the same job before it: those wait for each other.
fn claim_in_turn(path: &Path, held: &mut BTreeSet<String>) -> Option<Letter> {
    let job = spool::job_in(path);
    let letter = if held.contains(&job) { None } else { Letter::claim(path) };
    if letter.is_none() {
        held.insert(job);
    }
    letter
}

/// Sends a letter and removes it, puts it aside if the server will never take it, or else leaves it where it is.
async fn deliver(letter: Letter, stub: &Stub) -> Fate {
    let words = match letter.read() {
        Ok(Ok(words)) => words,
        Ok(Err(reason)) => return refuse(letter, &reason),
        Err(_) => return Fate::Waiting,
    };
    match Box::pin(send(stub, words.requests)).await {
        Ok(()) => {
            log::info!(target: "headway", "what was left to say of job {} is delivered", words.job_id);
            letter.remove();
            Fate::Sent
        }
        Err(error) if matches!(judge(&error), Verdict::Gone | Verdict::Refused) => refuse(letter, &in_words(&error)),
        Err(_) => Fate::Waiting,
    }
}

fn refuse(letter: Letter, reason: &str) -> Fate {
    let place = letter.refuse();
    log::warn!(
        target: "headway",
        "what was left to say of a job is refused, see {}: {reason}",
        place.display()
    );
    Fate::Refused
}

/// Makes these calls in order; an error if one fails that matters.
async fn send(stub: &Stub, requests: Vec<Request>) -> Result<(), Error> {
    let mut ended = None;
    for request in requests {
        let ends = request.ends();
        match call(stub, request).await {
            Ok(()) if ends => ended = None,
            Ok(()) => {}
            // If the end did arrive, and only its answer did not, then so did all before it: its repeat tells.
            Err(error) if ends || error.reason() != "JOB_ENDED" => return Err(error),
            Err(error) => ended = Some(error),
        }
    }
    ended.map_or(Ok(()), Err)
}

async fn call(stub: &Stub, request: Request) -> Result<(), Error> {
    let error = match place(stub.clone(), request.clone()).await {
        Ok(_) => return Ok(()),
        // As the engine does: what is refused of a job must not keep the rest of it back.
        Err(error) if judge(&error) == Verdict::Refused => error,
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
    fn a_letter_waits_for_the_one_before_it() {
        let folder = std::env::temp_dir().join(format!("headway-postman-{}", crate::ids::uuid7()));
        std::fs::create_dir(&folder).unwrap();
        let paths = ["0-1-a.json", "0-2-a.json", "0-3-b.json"].map(|name| folder.join(name));
        for path in &paths {
            std::fs::write(path, "").unwrap();
        }
        let another = Letter::claim(&paths[0]).unwrap();
        let mut held = BTreeSet::new();
        let claimed = paths.each_ref().map(|path| claim_in_turn(path, &mut held).is_some());
        assert_eq!(claimed, [false, false, true]);
        drop(another);
        std::fs::remove_dir_all(&folder).unwrap();
    }
}

//! What could not be delivered, on disk until it is: one file for each job of each process.
//!
//! The folder is `HEADWAY_SPOOL`, else `headway/spool` in the user's state folder (`$XDG_STATE_HOME` or
//! `~/.local/state`); an empty `HEADWAY_SPOOL` turns it off, and so does a system without Unix permissions. A file holds
//! session ids, which are secrets: it is readable by its user alone. All clients share the folder and the format.
//!
//! A file is in the hands of the process that has it locked. The system lets go of the lock of a process that has died,
//! so whatever happened to it, another one takes the file up.

mod files;
mod words;

use std::env;
use std::path::PathBuf;

pub(crate) use files::{Letter, job_in, letters, write};
pub(crate) use words::Words;

const FILES: usize = 100;
const BYTES: usize = 8 * 1024 * 1024;

/// Where the files are, whether it exists or not; none if there shall be none.
pub(crate) fn folder() -> Option<PathBuf> {
    if cfg!(not(unix)) {
        return None;
    }
    if let Some(path) = env::var_os("HEADWAY_SPOOL") {
        return Some(PathBuf::from(path)).filter(|path| !path.as_os_str().is_empty());
    }
    let state = env::var_os("XDG_STATE_HOME").filter(|path| !path.is_empty());
    let state = match state {
        Some(path) => PathBuf::from(path),
        None => env::home_dir()?.join(".local/state"),
    };
    Some(state.join("headway/spool"))
}

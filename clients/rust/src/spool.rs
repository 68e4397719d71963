//! Keeps on disk what could not be delivered: one file for each job of each process.
//!
//! The folder is `HEADWAY_SPOOL`, else `headway/spool` in the user's state folder (`$XDG_STATE_HOME` or
//! `~/.local/state`). An empty `HEADWAY_SPOOL` turns the spool off, and so does a system without Unix permissions. A
//! file contains session ids, which are secrets: only its user can read it. All clients share the folder and the
//! format.
//!
//! A process claims a file by locking it. The system releases the lock of a process that has died, so that another one
//! can claim the file in any case.

mod files;
mod record;

use std::env;
use std::path::PathBuf;

pub(crate) use files::{SpoolFile, job_in_name, waiting_files, write};
pub(crate) use record::SpoolRecord;

const MAX_FILES: usize = 100;
const MAX_FILE_BYTES: usize = 8 * 1024 * 1024;

/// Where the files are, whether the folder exists or not; none = no spool.
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

//! The files of the spool: written as a whole or not at all, and locked by the process that has claimed them.

use std::fs::{self, File, Metadata, OpenOptions};
use std::io::{self, Write as _};
use std::path::{Path, PathBuf};
use std::process;

use super::{MAX_FILES, SpoolRecord, folder};
use crate::ids::uuid7;
use crate::target::Target;

/// A file that this process has claimed, until it is removed, refused, or dropped.
pub(crate) struct SpoolFile {
    pub(crate) path: PathBuf,
    /// Open as long as the file is claimed: closing it releases the lock.
    _locked: File,
}

impl SpoolFile {
    fn write(path: &Path, record: &SpoolRecord) -> io::Result<Self> {
        let draft = path.with_extension(format!("{}.tmp", process::id()));
        let _ = fs::remove_file(&draft);
        let written = Self::put(&draft, path, record);
        if written.is_err() {
            let _ = fs::remove_file(&draft);
        }
        written
    }

    fn put(draft: &Path, path: &Path, record: &SpoolRecord) -> io::Result<Self> {
        let mut file = private().write(true).create_new(true).open(draft)?;
        // Lock it before it has its name, so that no other process ever finds it unlocked.
        file.try_lock()?;
        file.write_all(&record.encode())?;
        file.sync_all()?;
        fs::rename(draft, path)?;
        if let Some(folder) = path.parent() {
            // The file exists already; not every file system can sync a folder.
            let _ = File::open(folder).and_then(|folder| folder.sync_all());
        }
        Ok(Self { path: path.to_owned(), _locked: file })
    }

    /// Claims the file; none if another process has it, has sent it meanwhile, or if it belongs to another user.
    pub(crate) fn claim(path: &Path) -> Option<Self> {
        // Opening anything else could block, or lead elsewhere.
        fs::symlink_metadata(path).ok().filter(Metadata::is_file)?;
        let file = OpenOptions::new().read(true).write(true).open(path).ok()?;
        file.try_lock().ok()?;
        // It may have been removed or written again meanwhile.
        let (here, there) = (file.metadata().ok()?, fs::symlink_metadata(path).ok()?);
        (same(&here, &there) && ours(&here)).then(|| Self { path: path.to_owned(), _locked: file })
    }

    /// The record in it; or why it cannot be read, for good or for now.
    pub(crate) fn read(&self) -> io::Result<Result<SpoolRecord, String>> {
        Ok(SpoolRecord::decode(&fs::read(&self.path)?))
    }

    /// Everything in it has arrived.
    pub(crate) fn remove(self) {
        let _ = fs::remove_file(&self.path);
    }

    /// The server will never accept it. The file stays beside the others, for people to look at. Returns its new path.
    pub(crate) fn refuse(self) -> PathBuf {
        let refused = self.path.with_extension("refused");
        if fs::rename(&self.path, &refused).is_ok()
            && let Some(folder) = self.path.parent()
        {
            let mut old = list(folder, |name| name.ends_with(".refused"));
            old.truncate(old.len().saturating_sub(MAX_FILES));
            for path in old {
                let _ = fs::remove_file(path);
            }
        }
        refused
    }
}

/// The files that wait for this server, oldest first; only those of one job if an id is given. Only `claim` checks
/// their owner.
pub(crate) fn waiting_files(target: &Target, job_id: Option<&str>) -> Vec<PathBuf> {
    let Some(folder) = folder() else {
        return Vec::new();
    };
    let start = format!("{:08x}-", server_key(&target.address, target.tls));
    let end = ending(job_id);
    list(&folder, |name| name.starts_with(&start) && name.ends_with(&end))
}

/// Saves this record, in place of the file `before` if there was one.
pub(crate) fn write(record: &SpoolRecord, before: Option<&SpoolFile>) -> io::Result<SpoolFile> {
    if let Some(file) = before {
        return SpoolFile::write(&file.path, record);
    }
    let folder = folder().ok_or_else(|| io::Error::other("HEADWAY_SPOOL is empty"))?;
    prepare(&folder)?;
    if list(&folder, |name| name.ends_with(&ending(None))).len() >= MAX_FILES {
        return Err(io::Error::other(format!("{} has {MAX_FILES} files already", folder.display())));
    }
    let key = server_key(&record.address, record.tls);
    let name = format!("{key:08x}-{}-{}.json", uuid7(), file_name_id(&record.job_id));
    SpoolFile::write(&folder.join(name), record)
}

/// The end of the names of waiting files, or of those of one job.
fn ending(job_id: Option<&str>) -> String {
    job_id.map_or_else(|| ".json".to_owned(), |id| format!("-{}.json", file_name_id(id)))
}

fn list(folder: &Path, wanted: impl Fn(&str) -> bool) -> Vec<PathBuf> {
    let entries = fs::read_dir(folder).into_iter().flatten().flatten();
    let names = entries.filter_map(|entry| entry.file_name().into_string().ok());
    let mut names: Vec<_> = names.filter(|name| wanted(name)).collect();
    names.sort_by(|one, other| since(one).cmp(since(other)));
    names.into_iter().map(|name| folder.join(name)).collect()
}

fn since(name: &str) -> &str {
    name.split_once('-').map_or(name, |(_, rest)| rest)
}

/// The job's id in the file's name.
pub(crate) fn job_in_name(path: &Path) -> String {
    let name = path.file_stem().unwrap_or_default().to_string_lossy();
    name.rsplit_once('-').map_or_else(String::new, |(_, job)| job.to_owned())
}

/// Part of the name, so that the names alone tell whether there is something for a server: a CRC-32.
fn server_key(address: &str, tls: bool) -> u32 {
    let text = format!("{address} {}", if tls { "True" } else { "False" });
    !text.bytes().fold(!0, |crc, byte| {
        (0..8).fold(crc ^ u32::from(byte), |crc, _| (crc >> 1) ^ (0xedb8_8320 & (crc & 1).wrapping_neg()))
    })
}

/// The worker chooses the id, and only the server checks it.
fn file_name_id(job_id: &str) -> &str {
    let sound = !job_id.is_empty() && job_id.len() <= 64 && job_id.chars().all(char::is_alphanumeric);
    if sound { job_id } else { "odd" }
}

#[cfg(unix)]
fn private() -> OpenOptions {
    use std::os::unix::fs::OpenOptionsExt as _;

    let mut options = OpenOptions::new();
    options.mode(0o600);
    options
}

#[cfg(unix)]
fn same(one: &Metadata, other: &Metadata) -> bool {
    use std::os::unix::fs::MetadataExt as _;

    (one.dev(), one.ino()) == (other.dev(), other.ino())
}

#[cfg(unix)]
fn ours(about: &Metadata) -> bool {
    use std::os::unix::fs::MetadataExt as _;

    about.uid() == rustix::process::geteuid().as_raw()
}

#[cfg(unix)]
fn prepare(folder: &Path) -> io::Result<()> {
    use std::os::unix::fs::{DirBuilderExt as _, PermissionsExt as _};

    if let Some(above) = folder.parent() {
        fs::create_dir_all(above)?;
    }
    match fs::DirBuilder::new().mode(0o700).create(folder) {
        Err(error) if error.kind() != io::ErrorKind::AlreadyExists => return Err(error),
        _ => {}
    }
    let about = fs::metadata(folder)?;
    if !ours(&about) {
        return Err(io::Error::other(format!("{} belongs to another user", folder.display())));
    }
    if about.permissions().mode() & 0o077 != 0 {
        // The folder existed before, perhaps with other files in it. Do not change its mode.
        let advice = "is open to others: chmod 700 it, or name another folder in HEADWAY_SPOOL";
        return Err(io::Error::other(format!("{} {advice}", folder.display())));
    }
    Ok(())
}

#[cfg(not(unix))]
fn private() -> OpenOptions {
    OpenOptions::new()
}

#[cfg(not(unix))]
fn same(_: &Metadata, _: &Metadata) -> bool {
    false
}

#[cfg(not(unix))]
fn ours(_: &Metadata) -> bool {
    false
}

#[cfg(not(unix))]
fn prepare(_: &Path) -> io::Result<()> {
    Err(io::Error::from(io::ErrorKind::Unsupported))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_those_of_the_other_clients() {
        // zlib.crc32(b"127.0.0.1:50051 False") in Python
        assert_eq!(server_key("127.0.0.1:50051", false), 0x1e37_332c);
        assert_eq!(file_name_id("0190ab"), "0190ab");
        assert_eq!(file_name_id("../x"), "odd");
    }

    #[cfg(unix)]
    #[test]
    fn a_folder_that_is_not_the_users_alone_keeps_its_mode() {
        use std::os::unix::fs::PermissionsExt as _;

        let folder = std::env::temp_dir().join(format!("headway-spool-{}", uuid7()));
        fs::create_dir(&folder).unwrap();
        fs::set_permissions(&folder, fs::Permissions::from_mode(0o755)).unwrap();
        assert!(prepare(&folder).unwrap_err().to_string().contains("is open to others: chmod 700 it"));
        assert_eq!(fs::metadata(&folder).unwrap().permissions().mode() & 0o777, 0o755);
        fs::remove_dir_all(&folder).unwrap();
    }

    #[cfg(unix)]
    #[test]
    fn a_file_is_in_one_hand_at_a_time() {
        use std::os::unix::fs::PermissionsExt as _;

        let folder = std::env::temp_dir().join(format!("headway-spool-{}", uuid7()));
        prepare(&folder).unwrap();
        let record = SpoolRecord {
            address: "h:1".into(),
            tls: false,
            job_id: "j".into(),
            name: "n".into(),
            requests: Vec::new(),
        };
        let path = folder.join("0-1-j.json");
        let file = SpoolFile::write(&path, &record).unwrap();
        assert_eq!(fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o600);
        assert_eq!(fs::metadata(&folder).unwrap().permissions().mode() & 0o777, 0o700);
        assert!(SpoolFile::claim(&path).is_none());
        drop(file);
        let file = SpoolFile::claim(&path).unwrap();
        assert_eq!(file.read().unwrap().unwrap().job_id, "j");
        let refused = file.refuse();
        assert!(refused.exists() && !path.exists());
        fs::remove_dir_all(&folder).unwrap();
    }
}

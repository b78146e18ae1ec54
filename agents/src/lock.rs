//! One process per party and one writer per home: file locks, which the system drops when their
//! holder ends, however it ends.

use std::fs::{File, OpenOptions, TryLockError};
use std::io::{self, Read, Write};
use std::path::{Path, PathBuf};

use crate::drafts::{self, OF_RUNNING};

/// The file whose lock says that a party runs; it holds the process's number, and [`TIED`] for one that `ward up` started.
const LOCK: &str = "lock";
/// The file whose lock is held while one looks at [`LOCK`]: a look would otherwise make a claim fail.
const GATE: &str = "lock.gate";

/// What stands behind the number of a process that ends with its parent.
const TIED: &str = "tied";

/// Proof that no other process runs as this party, until it is dropped.
#[derive(Debug)]
pub(crate) struct Running {
    _lock: File,
}

/// Why a party cannot be claimed.
#[derive(Debug, thiserror::Error)]
pub(crate) enum ClaimError {
    /// Another process has it.
    #[error(
        "{name} is already running in this home{}: a name runs once per home; stop that process first",
        process(*.pid)
    )]
    Running {
        /// The folder's name, which is the party's.
        name: String,
        /// The other process, where it has written its number.
        pid: Option<u32>,
    },
    /// There is no such party here.
    #[error(
        "`{}` does not exist: `ward up` and `ward certs init` make a home with the parties of a study, `ward certs \
         request` a party's own",
        .0.display()
    )]
    Missing(PathBuf),
    /// The lock's file cannot be used.
    #[error("cannot use the lock `{}`: {cause}", .path.display())]
    File {
        /// The file.
        path: PathBuf,
        /// What the system said.
        cause: io::Error,
    },
}

fn process(pid: Option<u32>) -> String {
    pid.map(|pid| format!(" (process {pid})")).unwrap_or_default()
}

impl Running {
    /// Claims the party of the folder `dir` for this process, which is `tied` where it ends with its parent; a second claim
    /// fails at once.
    ///
    /// # Errors
    /// [`ClaimError::Running`] names the process that has it, [`ClaimError::Missing`] a folder that is not there.
    pub(crate) fn claim(dir: &Path, tied: bool) -> Result<Self, ClaimError> {
        if !dir.is_dir() {
            return Err(ClaimError::Missing(dir.into()));
        }
        let _gate = Exclusive::wait(&dir.join(GATE))?;
        let path = dir.join(LOCK);
        let mut file = open(&path)?;
        match file.try_lock() {
            Ok(()) => take_over(dir, &mut file, tied).map_err(|cause| ClaimError::File { path, cause })?,
            Err(TryLockError::WouldBlock) => {
                return Err(ClaimError::Running { name: folder_name(dir), pid: read_pid(&mut file) });
            }
            Err(TryLockError::Error(cause)) => return Err(ClaimError::File { path, cause }),
        }
        Ok(Self { _lock: file })
    }
}

/// Who runs as a party.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Holder {
    /// No process does.
    Nobody,
    /// A process of its own.
    Process,
    /// One that ends with the `ward up` that started it.
    Tied,
}

/// Who runs as the party of the folder `dir`; creates nothing where nobody ever did.
///
/// # Errors
/// [`ClaimError::File`] if there is a lock that cannot be looked at.
pub(crate) fn holder(dir: &Path) -> Result<Holder, ClaimError> {
    let path = dir.join(LOCK);
    if !path.exists() {
        return Ok(Holder::Nobody);
    }
    let _gate = Exclusive::wait(&dir.join(GATE))?;
    let mut file = open(&path)?;
    match file.try_lock_shared() {
        Ok(()) => Ok(Holder::Nobody),
        Err(TryLockError::WouldBlock) if read(&mut file).is_some_and(|text| text.trim_end().ends_with(TIED)) => {
            Ok(Holder::Tied)
        }
        Err(TryLockError::WouldBlock) => Ok(Holder::Process),
        Err(TryLockError::Error(cause)) => Err(ClaimError::File { path, cause }),
    }
}

/// A lock for a piece of work, such as an entry in the CA's register; dropped with the value.
#[derive(Debug)]
pub(crate) struct Exclusive {
    _lock: File,
}

impl Exclusive {
    /// Takes the lock of the file at `path`, after whoever has it now.
    ///
    /// # Errors
    /// [`ClaimError::File`].
    pub(crate) fn wait(path: &Path) -> Result<Self, ClaimError> {
        let file = open(path)?;
        file.lock().map_err(|cause| ClaimError::File { path: path.into(), cause })?;
        Ok(Self { _lock: file })
    }

    /// Takes the lock of the file at `path`; `None` where somebody has it.
    ///
    /// # Errors
    /// [`ClaimError::File`].
    pub(crate) fn attempt(path: &Path) -> Result<Option<Self>, ClaimError> {
        let file = open(path)?;
        match file.try_lock() {
            Ok(()) => Ok(Some(Self { _lock: file })),
            Err(TryLockError::WouldBlock) => Ok(None),
            Err(TryLockError::Error(cause)) => Err(ClaimError::File { path: path.into(), cause }),
        }
    }
}

fn open(path: &Path) -> Result<File, ClaimError> {
    let options = OpenOptions::new().read(true).write(true).create(true).truncate(false).open(path);
    options.map_err(|cause| ClaimError::File { path: path.into(), cause })
}

/// What its last process had begun when it was killed goes, and it is said who this one is.
fn take_over(dir: &Path, file: &mut File, tied: bool) -> io::Result<()> {
    drafts::clear(dir, OF_RUNNING)?;
    write_pid(file, tied)
}

fn write_pid(file: &mut File, tied: bool) -> io::Result<()> {
    file.set_len(0)?;
    let tied = if tied { TIED } else { "" };
    writeln!(file, "{} {tied}", std::process::id())
}

fn read(file: &mut File) -> Option<String> {
    let mut text = String::new();
    file.take(32).read_to_string(&mut text).ok()?;
    Some(text)
}

fn read_pid(file: &mut File) -> Option<u32> {
    read(file)?.split_whitespace().next()?.parse().ok()
}

fn folder_name(dir: &Path) -> String {
    dir.file_name().unwrap_or(dir.as_os_str()).to_string_lossy().into_owned()
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use super::*;

    #[test]
    fn a_second_claim_fails_and_names_the_process() {
        let home = tempfile::tempdir().unwrap();
        let dir = home.path().join("alice");
        std::fs::create_dir(&dir).unwrap();
        assert_eq!(holder(&dir).unwrap(), Holder::Nobody);
        let claim = Running::claim(&dir, false).unwrap();
        assert_eq!(holder(&dir).unwrap(), Holder::Process);
        let refused = Running::claim(&dir, false).unwrap_err().to_string();
        let expected = format!("alice is already running in this home (process {})", std::process::id());
        assert!(refused.starts_with(&expected), "{refused}");
        drop(claim);
        assert_eq!(holder(&dir).unwrap(), Holder::Nobody);
        let _tied = Running::claim(&dir, true).unwrap();
        assert_eq!(holder(&dir).unwrap(), Holder::Tied);
        assert!(Running::claim(&dir, false).unwrap_err().to_string().starts_with(&expected));
    }

    #[test]
    fn an_attempt_fails_while_another_has_the_lock() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("one.lock");
        let first = Exclusive::attempt(&path).unwrap();
        assert!(first.is_some() && Exclusive::attempt(&path).unwrap().is_none());
        drop(first);
        assert!(Exclusive::attempt(&path).unwrap().is_some());
    }

    #[test]
    fn a_stale_file_is_no_claim() {
        let dir = tempfile::tempdir().unwrap();
        std::fs::write(dir.path().join(LOCK), "999999999999\n").unwrap();
        assert_eq!(holder(dir.path()).unwrap(), Holder::Nobody);
        Running::claim(dir.path(), false).unwrap();
    }

    #[test]
    fn what_a_killed_process_had_begun_goes_with_the_next_claim() {
        let dir = tempfile::tempdir().unwrap();
        let draft = dir.path().join(format!("{OF_RUNNING}AbCdEf"));
        std::fs::write(&draft, "").unwrap();
        let _claim = Running::claim(dir.path(), false).unwrap();
        assert!(!draft.exists());
        // It is at work on this one.
        std::fs::write(&draft, "").unwrap();
        Running::claim(dir.path(), false).unwrap_err();
        assert!(draft.exists());
    }

    #[test]
    fn looking_never_makes_a_claim_fail() {
        let dir = tempfile::tempdir().unwrap();
        std::thread::scope(|scope| {
            scope.spawn(|| (0..500).for_each(|_| _ = holder(dir.path()).unwrap()));
            (0..500).for_each(|_| drop(Running::claim(dir.path(), false).unwrap()));
        });
    }

    #[test]
    fn a_folder_that_is_missing_is_named() {
        let dir = tempfile::tempdir().unwrap();
        let nowhere = dir.path().join("nowhere");
        assert_eq!(holder(&nowhere).unwrap(), Holder::Nobody);
        assert!(!nowhere.exists());
        assert!(Running::claim(&nowhere, false).unwrap_err().to_string().contains("nowhere` does not exist"));
    }
}

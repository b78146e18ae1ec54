//! Where an agent keeps what must outlive it: one database, any number of parties, commits in groups.

use std::path::{Path, PathBuf};

use anyhow::Context as _;
use protocol::{Name, Records, Write};
use redb::{Database, ReadableDatabase, TableDefinition, WriteTransaction};
use tokio::sync::{mpsc, oneshot};

use crate::drafts;

/// (party, key) -> value.
const RECORDS: TableDefinition<'_, (&str, &str), &[u8]> = TableDefinition::new("records");

/// Why a store cannot be opened.
#[derive(Debug, thiserror::Error)]
pub enum OpenError {
    /// What stands in the file is no database, or not a whole one.
    #[error(
        "the store {} is damaged ({cause}) and is not used. If another file was put in its place, put it back as it \
         was, no older copy. Else move it away and start again: its sessions are lost to this party. A session goes on \
         without its patients and members; one whose hospital or server it was is opened anew with `ward hospital sum \
         --new`. What a patient shared before must not be given under its label again, as it cannot know of it any more: \
         give it the next one (`--snapshot`)",
        .path.display()
    )]
    Damaged {
        /// The file.
        path: PathBuf,
        /// What is wrong with it.
        cause: Box<redb::Error>,
    },
    /// Another process has it open.
    #[error("the store {} is open in another process: stop that one first", .0.display())]
    InUse(PathBuf),
    /// The system does not let it be opened.
    #[error("the store {} cannot be opened: {cause}", .path.display())]
    Closed {
        /// The file.
        path: PathBuf,
        /// What the system or the database said.
        cause: Box<redb::Error>,
    },
}

impl OpenError {
    fn new(path: &Path, cause: redb::Error) -> Self {
        use redb::Error;
        use std::io::ErrorKind::{InvalidData, UnexpectedEof};
        let (path, cause) = (path.to_owned(), Box::new(cause));
        match &*cause {
            Error::DatabaseAlreadyOpen | Error::LockProtocolMismatch => OpenError::InUse(path),
            Error::Io(error) if !matches!(error.kind(), InvalidData | UnexpectedEof) => {
                OpenError::Closed { path, cause }
            }
            _ => OpenError::Damaged { path, cause },
        }
    }
}

/// One party's changes, and where to say that they are on the disk.
struct Commit {
    party: Name,
    writes: Vec<Write>,
    done: oneshot::Sender<Result<(), String>>,
}

/// A database. Clones share it; commits that wait for one another go to the disk together.
#[derive(Clone)]
pub struct Store {
    commits: mpsc::UnboundedSender<Commit>,
    database: std::sync::Arc<Database>,
}

impl Store {
    /// Opens the database at `path`, readable by its owner only, and makes it if it is not there.
    ///
    /// # Errors
    /// [`OpenError`] names the file, what is wrong with it and the remedy.
    pub fn open(path: &Path) -> anyhow::Result<Self> {
        let database = open(path).map_err(|cause| OpenError::new(path, cause))?;
        let database = std::sync::Arc::new(database);
        let (commits, queue) = mpsc::unbounded_channel();
        let writer = database.clone();
        std::thread::Builder::new().name("store".into()).spawn(move || write_groups(&writer, queue))?;
        Ok(Self { commits, database })
    }

    /// All records of `party`.
    ///
    /// # Errors
    /// If the database cannot be read.
    pub fn load(&self, party: &Name) -> anyhow::Result<Records> {
        let table = self.database.begin_read()?.open_table(RECORDS)?;
        let mut records = Records::new();
        for entry in table.range((party.as_str(), "")..)? {
            let (key, value) = entry?;
            if key.value().0 != party.as_str() {
                break;
            }
            records.insert(key.value().1.to_string(), value.value().to_vec().into());
        }
        Ok(records)
    }

    /// Makes these changes durable, all or none.
    ///
    /// # Errors
    /// If they could not be written: the agent must not go on.
    pub async fn commit(&self, party: &Name, writes: Vec<Write>) -> anyhow::Result<()> {
        if writes.is_empty() {
            return Ok(());
        }
        let (done, answer) = oneshot::channel();
        let commit = Commit { party: party.clone(), writes, done };
        let gone = "the store's thread is gone";
        self.commits.send(commit).map_err(|_| anyhow::anyhow!(gone))?;
        answer.await.context(gone)?.map_err(|why| anyhow::anyhow!("the store cannot be written: {why}"))
    }
}

fn open(path: &Path) -> Result<Database, redb::Error> {
    if !path.try_exists()? {
        create(path)?;
    }
    // The library may panic where a page is not what it should be.
    let opened = std::panic::catch_unwind(|| checked(path));
    opened.unwrap_or_else(|_| Err(redb::Error::Corrupted("it cannot be read".into())))
}

/// Makes an empty database, whole from the first moment: a file of which something is missing is then never a new one.
fn create(path: &Path) -> Result<(), redb::Error> {
    let folder = path.parent().unwrap_or(Path::new("."));
    // Readable by its owner only.
    let draft = tempfile::Builder::new().prefix(drafts::OF_RUNNING).tempfile_in(folder)?;
    let start = begin(&Database::create(draft.path())?)?;
    start.open_table(RECORDS)?;
    start.commit()?;
    draft.persist_noclobber(path).map_err(|refused| refused.error)?;
    Ok(std::fs::File::open(folder)?.sync_all()?)
}

/// The database, if all of it is as it was written: a record that was altered would be a key or a promise that never was.
fn checked(path: &Path) -> Result<Database, redb::Error> {
    let mut database = Database::open(path)?;
    match database.check_integrity()? {
        true => Ok(database),
        false => Err(redb::Error::Corrupted("parts of it do not fit each other".into())),
    }
}

/// A change that is on the disk before anything says so there. (After a crash the library would else take the state of
/// before where the newest one is altered, and a party would not know what it had said.)
fn begin(database: &Database) -> Result<WriteTransaction, redb::Error> {
    let mut transaction = database.begin_write()?;
    transaction.set_two_phase_commit(true);
    Ok(transaction)
}

/// Takes all commits that wait and puts them to the disk at once, again and again.
fn write_groups(database: &Database, mut queue: mpsc::UnboundedReceiver<Commit>) {
    while let Some(first) = queue.blocking_recv() {
        let mut group = vec![first];
        while let Ok(next) = queue.try_recv() {
            group.push(next);
        }
        let outcome = write_group(database, &group).map_err(|error| error.to_string());
        for commit in group {
            // Whoever asked may be gone by now; the records are written all the same.
            let _ = commit.done.send(outcome.clone());
        }
    }
}

fn write_group(database: &Database, group: &[Commit]) -> Result<(), redb::Error> {
    let transaction = begin(database)?;
    {
        let mut table = transaction.open_table(RECORDS)?;
        for commit in group {
            for write in &commit.writes {
                let key = (commit.party.as_str(), write.key.as_str());
                match &write.value {
                    Some(value) => drop(table.insert(key, &value[..])?),
                    None => drop(table.remove(key)?),
                }
            }
        }
    }
    transaction.commit()?;
    Ok(())
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use std::os::unix::fs::PermissionsExt as _;

    fn put(key: &str, value: &[u8]) -> Write {
        Write { key: key.into(), value: Some(value.to_vec().into()) }
    }

    /// Opens the store at `path` once the thread of one that was dropped has let go of the file.
    async fn reopen(path: &Path) -> Store {
        loop {
            match Store::open(path) {
                Ok(store) => return store,
                Err(_) => tokio::task::yield_now().await,
            }
        }
    }

    #[tokio::test]
    async fn what_is_committed_is_there_after_opening_again_and_nobody_sees_others() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("state.redb");
        let (alice, bob): (Name, Name) = ("alice".parse().unwrap(), "alice2".parse().unwrap());
        {
            let store = Store::open(&path).unwrap();
            let both = tokio::join!(
                store.commit(&alice, vec![put("a", b"1"), put("b", b"2")]),
                store.commit(&bob, vec![put("a", b"3")])
            );
            both.0.unwrap();
            both.1.unwrap();
            store.commit(&alice, vec![Write { key: "b".into(), value: None }]).await.unwrap();
        }
        assert_eq!(std::fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o600);
        let store = reopen(&path).await;
        assert_eq!(store.load(&alice).unwrap(), Records::from([("a".into(), b"1".to_vec().into())]));
        assert_eq!(store.load(&bob).unwrap(), Records::from([("a".into(), b"3".to_vec().into())]));
    }

    #[test]
    fn a_damaged_store_is_named_with_its_remedy_and_left_as_it_is() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("state.redb");
        for junk in [&b""[..], b"junk", &[0x5a; 100_000]] {
            std::fs::write(&path, junk).unwrap();
            let why = Store::open(&path).map(drop).unwrap_err().to_string();
            for part in [path.to_str().unwrap(), "is damaged (", "move it away and start again", "--new"] {
                assert!(why.contains(part), "{part}: {why}");
            }
            assert_eq!(std::fs::read(&path).unwrap(), junk);
        }
        std::fs::remove_file(&path).unwrap();
        let open = Store::open(&path).unwrap();
        let why = Store::open(&path).map(drop).unwrap_err().to_string();
        assert!(why.ends_with("is open in another process: stop that one first"), "{why}");
        drop(open);
        let why = Store::open(dir.path()).map(drop).unwrap_err().to_string();
        assert!(why.contains("cannot be opened: "), "{why}");
    }

    /// The byte of the file in which a bit says which of the two last states is the newest.
    const NEWEST: usize = 9;

    /// Whatever bytes of a store are altered or missing, also of one that was not closed: it is named as damaged, or has all
    /// that was written.
    #[tokio::test]
    async fn no_record_of_a_damaged_store_is_believed() {
        let dir = tempfile::tempdir().unwrap();
        let (path, alice): (_, Name) = (dir.path().join("state.redb"), "alice".parse().unwrap());
        let store = Store::open(&path).unwrap();
        for part in 0..3 {
            let records: Vec<Write> = (0..20).map(|i| put(&format!("{part} {i}"), &[i; 3000])).collect();
            store.commit(&alice, records).await.unwrap();
        }
        let live = std::fs::read(&path).unwrap();
        let expected = store.load(&alice).unwrap();
        drop(store);
        drop(reopen(&path).await);
        // Closed here, not by a thread in its own time.
        while checked(&path).map(drop).is_err() {
            tokio::task::yield_now().await;
        }
        let closed = std::fs::read(&path).unwrap();
        let mut damaged = 0;
        for (state, whole) in [("live", live), ("closed", closed)] {
            // The head byte by byte, as the library decides by it which of its states is the newest. The one bit that says so
            // is believed: SECURITY.md says that too.
            for at in (0..320).filter(|at| *at != NEWEST).chain((320..whole.len()).step_by(whole.len() / 100)) {
                for (what, bytes) in damages(&whole, at) {
                    let path = dir.path().join("damaged.redb");
                    std::fs::write(&path, bytes).unwrap();
                    match Store::open(&path).map_err(|why| why.to_string()) {
                        Ok(store) => assert!(store.load(&alice).unwrap() == expected, "{state} {what} at {at}"),
                        Err(why) => {
                            assert!(why.contains("is damaged ("), "{state} {what} at {at}: {why}");
                            damaged += 1;
                        }
                    }
                    std::fs::remove_file(&path).unwrap();
                }
            }
        }
        assert!(damaged > 1000, "{damaged}");
    }

    /// The store with one bit or byte of it altered, a page of it blank, or cut off.
    fn damages(whole: &[u8], at: usize) -> Vec<(&'static str, Vec<u8>)> {
        let mut bit = whole.to_vec();
        bit[at] ^= 1;
        let mut byte = whole.to_vec();
        byte[at] ^= 0xff;
        let mut blank = whole.to_vec();
        blank[at / 4096 * 4096..].iter_mut().take(4096).for_each(|byte| *byte = 0);
        vec![("bit", bit), ("byte", byte), ("blank", blank), ("cut", whole[..at].to_vec())]
    }
}

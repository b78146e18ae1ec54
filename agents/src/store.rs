//! Where an agent keeps what must outlive it: one database, any number of parties, commits in groups.

use std::path::Path;

use anyhow::Context as _;
use protocol::{Name, Records, Write};
use redb::{Database, ReadableDatabase, TableDefinition};
use tokio::sync::{mpsc, oneshot};

/// (party, key) -> value.
const RECORDS: TableDefinition<'_, (&str, &str), &[u8]> = TableDefinition::new("records");

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
    /// If the file cannot be opened, or another process has it open.
    pub fn open(path: &Path) -> anyhow::Result<Self> {
        let open = || -> anyhow::Result<Database> {
            create_private(path)?;
            let database = Database::create(path)?;
            let start = database.begin_write()?;
            start.open_table(RECORDS)?;
            start.commit()?;
            Ok(database)
        };
        let database = open().with_context(|| format!("the store {} cannot be opened", path.display()))?;
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

/// The file's mode is set before the database puts anything into it.
fn create_private(path: &Path) -> std::io::Result<()> {
    use std::os::unix::fs::OpenOptionsExt as _;
    std::fs::OpenOptions::new().create(true).append(true).mode(0o600).open(path).map(drop)
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
    let transaction = database.begin_write()?;
    {
        let mut table = transaction.open_table(RECORDS)?;
        for commit in group {
            for write in &commit.writes {
                let key = (commit.party.as_str(), write.key.as_str());
                match &write.value {
                    Some(value) => drop(table.insert(key, value.as_slice())?),
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
        let mut reopened = Store::open(&path);
        while reopened.is_err() {
            // The first store's thread lets go of the file when it has seen that nobody is left.
            tokio::task::yield_now().await;
            reopened = Store::open(&path);
        }
        let store = reopened.unwrap();
        assert_eq!(store.load(&alice).unwrap(), Records::from([("a".into(), b"1".to_vec().into())]));
        assert_eq!(store.load(&bob).unwrap(), Records::from([("a".into(), b"3".to_vec().into())]));
    }
}

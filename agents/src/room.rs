//! Room for masked vectors that wait to be sent. A process may run many patients, and each masks a vector much faster than it
//! can send it: without a bound all vectors would lie in memory at once.

use std::sync::{Arc, OnceLock};

use bytes::Bytes;
use protocol::{Job, Outcome};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};

/// The most bytes of masked vectors in one process; a longer vector takes all the room there is.
const ROOM: usize = 64 << 20;
/// Room is given out in pieces of so many bytes.
const PIECE: usize = 1 << 10;

/// Room for one vector, given back with the last of its chunks.
#[derive(Clone)]
pub struct Room {
    _pieces: Arc<OwnedSemaphorePermit>,
}

impl Room {
    /// Waits for room for what `job` gives; none is needed for a job whose outcome is not kept.
    pub async fn wait_for(job: &Job) -> Option<Self> {
        let pieces = job.held().min(ROOM).div_ceil(PIECE);
        if pieces == 0 {
            return None;
        }
        // The semaphore is never closed.
        let permit = room().clone().acquire_many_owned(pieces as u32).await.ok()?;
        Some(Self { _pieces: Arc::new(permit) })
    }

    /// The outcome, whose chunks keep the room until they are dropped.
    pub fn keep_with(self, outcome: Outcome) -> Outcome {
        let Outcome::Masked { chunks, digests, seeds } = outcome else { return outcome };
        let chunks = chunks.into_iter().map(|bytes| Bytes::from_owner(Kept { bytes, _room: self.clone() }));
        Outcome::Masked { chunks: chunks.collect(), digests, seeds }
    }
}

/// A chunk and the room that it is in.
struct Kept {
    bytes: Bytes,
    _room: Room,
}

impl AsRef<[u8]> for Kept {
    fn as_ref(&self) -> &[u8] {
        &self.bytes
    }
}

fn room() -> &'static Arc<Semaphore> {
    static SPACE: OnceLock<Arc<Semaphore>> = OnceLock::new();
    SPACE.get_or_init(|| Arc::new(Semaphore::new(ROOM / PIECE)))
}

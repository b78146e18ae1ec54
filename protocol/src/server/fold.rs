//! The sum of the masked vectors, chunk by chunk: bytes are added as they arrive and not kept.

use bytes::Bytes;
use vectors::Lanes;

use crate::chunks::Chunks;
use crate::id::{Address, Place};
use crate::job::Job;
use crate::shards::Shard;
use crate::slot::Slot;

/// Where one chunk of one patient stands.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Part {
    /// Not here yet.
    Awaited,
    /// Being added, or waiting to be.
    Adding(Address),
    /// In the sum; the address finds it on the board again.
    Added(Address),
    /// Being read again, to be taken out.
    Removing(Address),
    /// Read again, and being taken out: what else comes under its name changes nothing.
    Leaving,
    /// Not in the sum any more.
    Removed,
}

/// Adding or taking out one chunk.
#[derive(Debug)]
pub(super) struct Change {
    pub(super) place: Place,
    pub(super) bytes: Bytes,
    pub(super) remove: bool,
}

/// The sum so far, over one server's chunks, which are counted here from 0.
#[derive(Debug)]
pub(super) struct Sum {
    chunks: Chunks,
    slots: Vec<Slot<Change>>,
    /// By chunk: whose changes a job makes.
    lent: Vec<Vec<Place>>,
}

impl Sum {
    pub(super) fn new(chunks: Chunks, shard: Shard) -> Self {
        let slots: Vec<_> = shard.chunks(&chunks).map(|chunk| Slot::zero(&chunks, chunk)).collect();
        Self { chunks, lent: vec![Vec::new(); slots.len()], slots }
    }

    /// Queues a change of chunk `at`; the job that makes it, where the chunk is at rest.
    pub(super) fn change(&mut self, at: usize, change: Change) -> Option<Job> {
        self.slots[at].waiting.push(change);
        self.next(at)
    }

    /// Drops queued additions of a patient that is not in the cohort; which chunks they were of.
    pub(super) fn cancel(&mut self, place: Place) -> Vec<usize> {
        let mut cancelled = Vec::new();
        for (at, slot) in self.slots.iter_mut().enumerate() {
            let before = slot.waiting.len();
            slot.waiting.retain(|change| change.place != place || change.remove);
            if slot.waiting.len() < before {
                cancelled.push(at);
            }
        }
        cancelled
    }

    /// A job brought chunk `at` back: whose changes it made.
    pub(super) fn settle(&mut self, at: usize, sum: Lanes) -> Vec<Place> {
        self.slots[at].back(sum);
        std::mem::take(&mut self.lent[at])
    }

    /// The job for what waits at chunk `at`, if it is at rest and something waits.
    pub(super) fn next(&mut self, at: usize) -> Option<Job> {
        let (sum, changes) = self.slots[at].lend()?;
        self.lent[at] = changes.iter().map(|change| change.place).collect();
        let (subtract, add): (Vec<Change>, Vec<Change>) = changes.into_iter().partition(|change| change.remove);
        let bytes = |changes: Vec<Change>| changes.into_iter().map(|change| change.bytes).collect();
        Some(Job::Fold { at, sum, ring: self.chunks.ring(), add: bytes(add), subtract: bytes(subtract) })
    }

    /// The whole sum, where no chunk is lent and nothing waits; it is given away.
    pub(super) fn take(&mut self) -> Option<Vec<Lanes>> {
        let is_done = self.slots.iter().all(Slot::is_done);
        is_done.then(|| std::mem::take(&mut self.slots).iter_mut().filter_map(Slot::take).collect())
    }
}

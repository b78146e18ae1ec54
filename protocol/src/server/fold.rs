//! The sum of the masked vectors, chunk by chunk: bytes are added as they arrive and not kept.

use bytes::Bytes;
use vectors::Lanes;

use crate::chunks::Chunks;
use crate::id::{Address, Place};
use crate::job::Job;
use crate::shards::Shard;

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

/// One chunk of the sum: at rest, or lent to a job.
#[derive(Debug)]
enum Slot {
    Rest(Lanes),
    Lent { changes: Vec<(Place, bool)> },
}

/// The sum so far, over one server's chunks, which are counted here from 0. Each is with at most one job at a time; what
/// arrives meanwhile waits for the next.
#[derive(Debug)]
pub(super) struct Sum {
    chunks: Chunks,
    slots: Vec<Slot>,
    waiting: Vec<Vec<Change>>,
}

impl Sum {
    pub(super) fn new(chunks: Chunks, shard: Shard) -> Self {
        let zero = |chunk| Slot::Rest(Lanes::zero(chunks.ring(), chunks.len(chunk)));
        let slots: Vec<Slot> = shard.chunks(&chunks).map(zero).collect();
        Self { chunks, waiting: slots.iter().map(|_| Vec::new()).collect(), slots }
    }

    /// Queues a change of chunk `at`; the job that makes it, where the chunk is at rest.
    pub(super) fn change(&mut self, at: usize, change: Change) -> Option<Job> {
        self.waiting[at].push(change);
        self.next(at)
    }

    /// Drops queued additions of a patient that is not in the cohort; which chunks they were of.
    pub(super) fn cancel(&mut self, place: Place) -> Vec<usize> {
        let mut cancelled = Vec::new();
        for (at, waiting) in self.waiting.iter_mut().enumerate() {
            let before = waiting.len();
            waiting.retain(|change| change.place != place || change.remove);
            if waiting.len() < before {
                cancelled.push(at);
            }
        }
        cancelled
    }

    /// A job brought chunk `at` back: whose changes it made, and whether each was a removal.
    pub(super) fn settle(&mut self, at: usize, sum: Lanes) -> Vec<(Place, bool)> {
        match std::mem::replace(&mut self.slots[at], Slot::Rest(sum)) {
            Slot::Lent { changes } => changes,
            Slot::Rest(_) => Vec::new(),
        }
    }

    /// The job for what waits at chunk `at`, if it is at rest and something waits.
    pub(super) fn next(&mut self, at: usize) -> Option<Job> {
        if self.waiting[at].is_empty() || matches!(self.slots[at], Slot::Lent { .. }) {
            return None;
        }
        let waiting = std::mem::take(&mut self.waiting[at]);
        let changes = waiting.iter().map(|change| (change.place, change.remove)).collect();
        let Slot::Rest(sum) = std::mem::replace(&mut self.slots[at], Slot::Lent { changes }) else { return None };
        let (subtract, add): (Vec<Change>, Vec<Change>) = waiting.into_iter().partition(|change| change.remove);
        let bytes = |changes: Vec<Change>| changes.into_iter().map(|change| change.bytes).collect();
        Some(Job::Fold { at, sum, ring: self.chunks.ring(), add: bytes(add), subtract: bytes(subtract) })
    }

    /// The whole sum, where no chunk is lent and nothing waits; it is given away.
    pub(super) fn take(&mut self) -> Option<Vec<Lanes>> {
        let at_rest = self.slots.iter().all(|slot| matches!(slot, Slot::Rest(_)));
        if !at_rest || self.waiting.iter().any(|waiting| !waiting.is_empty()) {
            return None;
        }
        let slots = std::mem::take(&mut self.slots).into_iter();
        Some(slots.filter_map(|slot| if let Slot::Rest(lanes) = slot { Some(lanes) } else { None }).collect())
    }
}

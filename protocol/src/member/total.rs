//! Sums of masks over some blocks, chunk by chunk: made ahead while others still upload, where this member is the one that
//! will be asked, and made to fit the cohort once that is fixed (PROTOCOL.md, *Open*).

use std::collections::BTreeSet;

use vectors::Lanes;

use crate::chunks::Chunks;
use crate::id::Place;
use crate::job::Job;
use crate::places::Places;
use vectors::StreamKey;

/// One chunk of a sum: at rest, or lent to a job.
#[derive(Debug)]
enum Slot {
    Rest(Lanes),
    Lent,
}

/// Masks to add, or to take out again.
#[derive(Debug, Default)]
struct Waiting {
    add: Vec<Place>,
    subtract: Vec<Place>,
}

/// The sum of the masks of some patients. Each chunk is with at most one job at a time; what comes meanwhile waits for the
/// next, so many masks are added in one walk. `keys` gives a patient's stream keys for the blocks of the sum.
#[derive(Debug)]
pub(super) struct Total {
    chunks: Chunks,
    slots: Vec<Slot>,
    waiting: Vec<Waiting>,
    /// Whose masks are in the sum, or on their way.
    counted: BTreeSet<Place>,
}

impl Total {
    pub(super) fn new(chunks: Chunks) -> Self {
        let zero = |chunk| Slot::Rest(Lanes::zero(chunks.ring(), chunks.len(chunk)));
        let slots: Vec<Slot> = (0..chunks.count()).map(zero).collect();
        Self { chunks, waiting: slots.iter().map(|_| Waiting::default()).collect(), slots, counted: BTreeSet::new() }
    }

    /// Adds the masks of `place`; the jobs that can begin.
    pub(super) fn add(&mut self, place: Place, keys: &impl Fn(Place) -> Vec<StreamKey>) -> Vec<Job> {
        if self.counted.insert(place) {
            self.waiting.iter_mut().for_each(|waiting| waiting.add.push(place));
        }
        self.begin(keys)
    }

    /// Makes this the sum over exactly `cohort`; the jobs that can begin.
    pub(super) fn fit(&mut self, cohort: &Places, keys: &impl Fn(Place) -> Vec<StreamKey>) -> Vec<Job> {
        let wanted: BTreeSet<Place> = cohort.iter().collect();
        for waiting in &mut self.waiting {
            waiting.add.extend(wanted.difference(&self.counted));
            waiting.subtract.extend(self.counted.difference(&wanted));
        }
        self.counted = wanted;
        self.begin(keys)
    }

    fn begin(&mut self, keys: &impl Fn(Place) -> Vec<StreamKey>) -> Vec<Job> {
        (0..self.chunks.count()).filter_map(|chunk| self.next(chunk, keys)).collect()
    }

    /// A job brought `chunk` back; the next job for it.
    pub(super) fn back(&mut self, chunk: u32, sum: Lanes, keys: &impl Fn(Place) -> Vec<StreamKey>) -> Option<Job> {
        *self.slots.get_mut(chunk as usize)? = Slot::Rest(sum);
        self.next(chunk, keys)
    }

    fn next(&mut self, chunk: u32, keys: &impl Fn(Place) -> Vec<StreamKey>) -> Option<Job> {
        let at = chunk as usize;
        let idle = self.waiting[at].add.is_empty() && self.waiting[at].subtract.is_empty();
        if idle || matches!(self.slots[at], Slot::Lent) {
            return None;
        }
        let Slot::Rest(sum) = std::mem::replace(&mut self.slots[at], Slot::Lent) else { return None };
        let Waiting { add, subtract } = std::mem::take(&mut self.waiting[at]);
        let all = |places: Vec<Place>| places.into_iter().flat_map(keys).collect();
        Some(Job::Expand { chunk, chunks: self.chunks, sum, add: all(add), subtract: all(subtract) })
    }

    /// Whether nothing is under way and nothing waits.
    pub(super) fn is_done(&self) -> bool {
        let idle = |waiting: &Waiting| waiting.add.is_empty() && waiting.subtract.is_empty();
        self.slots.iter().all(|slot| matches!(slot, Slot::Rest(_))) && self.waiting.iter().all(idle)
    }

    /// The sum.
    pub(super) fn into_sums(self) -> Vec<Lanes> {
        self.slots
            .into_iter()
            .filter_map(|slot| if let Slot::Rest(lanes) = slot { Some(lanes) } else { None })
            .collect()
    }
}

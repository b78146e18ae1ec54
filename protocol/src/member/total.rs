//! Sums of masks over some blocks, chunk by chunk: made ahead while others still upload, where this member is the one that
//! will be asked, and made to fit the cohort once that is fixed (PROTOCOL.md, *Open*).

use std::collections::BTreeSet;

use vectors::{Lanes, StreamKey};

use crate::chunks::Chunks;
use crate::id::Place;
use crate::job::Job;
use crate::places::Places;
use crate::slot::Slot;

/// A patient's masks, to add or to take out again.
#[derive(Clone, Copy, Debug)]
struct Change {
    place: Place,
    remove: bool,
}

/// The sum of the masks of some patients. `keys` gives a patient's stream keys for the blocks of the sum.
#[derive(Debug)]
pub(super) struct Total {
    chunks: Chunks,
    slots: Vec<Slot<Change>>,
    /// Whose masks are in the sum, or on their way.
    counted: BTreeSet<Place>,
}

impl Total {
    pub(super) fn new(chunks: Chunks) -> Self {
        let slots = (0..chunks.count()).map(|chunk| Slot::zero(&chunks, chunk)).collect();
        Self { chunks, slots, counted: BTreeSet::new() }
    }

    /// Adds the masks of `place`; the jobs that can begin.
    pub(super) fn add(&mut self, place: Place, keys: &impl Fn(Place) -> Vec<StreamKey>) -> Vec<Job> {
        if self.counted.insert(place) {
            self.slots.iter_mut().for_each(|slot| slot.waiting.push(Change { place, remove: false }));
        }
        self.begin(keys)
    }

    /// Makes this the sum over exactly `cohort`; the jobs that can begin.
    pub(super) fn fit(&mut self, cohort: &Places, keys: &impl Fn(Place) -> Vec<StreamKey>) -> Vec<Job> {
        let wanted: BTreeSet<Place> = cohort.iter().collect();
        let add = wanted.difference(&self.counted).map(|place| Change { place: *place, remove: false });
        let remove = self.counted.difference(&wanted).map(|place| Change { place: *place, remove: true });
        let changes: Vec<Change> = add.chain(remove).collect();
        self.slots.iter_mut().for_each(|slot| slot.waiting.extend(&changes));
        self.counted = wanted;
        self.begin(keys)
    }

    fn begin(&mut self, keys: &impl Fn(Place) -> Vec<StreamKey>) -> Vec<Job> {
        (0..self.chunks.count()).filter_map(|chunk| self.next(chunk, keys)).collect()
    }

    /// A job brought `chunk` back; the next job for it.
    pub(super) fn back(&mut self, chunk: u32, sum: Lanes, keys: &impl Fn(Place) -> Vec<StreamKey>) -> Option<Job> {
        self.slots.get_mut(chunk as usize)?.back(sum);
        self.next(chunk, keys)
    }

    fn next(&mut self, chunk: u32, keys: &impl Fn(Place) -> Vec<StreamKey>) -> Option<Job> {
        let (sum, changes) = self.slots[chunk as usize].lend()?;
        let (subtract, add): (Vec<Change>, Vec<Change>) = changes.into_iter().partition(|change| change.remove);
        let all = |changes: Vec<Change>| changes.into_iter().flat_map(|change| keys(change.place)).collect();
        Some(Job::Expand { chunk, chunks: self.chunks, sum, add: all(add), subtract: all(subtract) })
    }

    /// Whether nothing is under way and nothing waits.
    pub(super) fn is_done(&self) -> bool {
        self.slots.iter().all(Slot::is_done)
    }

    /// The sum.
    pub(super) fn into_sums(mut self) -> Vec<Lanes> {
        self.slots.iter_mut().filter_map(Slot::take).collect()
    }
}

//! Who holds whom: what members and other servers reported, set against the Shares that the first server has.

use std::collections::{BTreeMap, BTreeSet};

use crate::desk::{Stop, rule};
use crate::id::{Digest, Place};
use crate::message::Held;
use crate::places::{Counted, Places};

/// The reports of some holders, by their index, over the places of one Roster.
#[derive(Debug)]
pub(super) struct Votes {
    universe: u32,
    said: Vec<BTreeMap<Place, Digest>>,
    /// Of whom each holds the Share that the first server has.
    agreed: Vec<Counted>,
    /// Who says that a patient's box does not fit.
    faulted: BTreeMap<Place, BTreeSet<usize>>,
}

impl Votes {
    pub(super) fn new(holders: usize, universe: u32) -> Self {
        let (said, agreed) = (vec![BTreeMap::new(); holders], vec![Counted::new(Places::none(universe)); holders]);
        Self { universe, said, agreed, faulted: BTreeMap::new() }
    }

    /// The holder `by` reports; `share` is the digest of the Share that the first server has of a patient.
    pub(super) fn report(
        &mut self,
        by: usize,
        held: Held,
        share: impl Fn(Place) -> Option<Digest>,
    ) -> Result<(), Stop> {
        let Held { held, faults } = held;
        if held.iter().map(|(place, _)| place).chain(&faults).any(|place| place.0 >= self.universe) {
            return Err(rule("a Held of a place that the Roster does not have"));
        }
        for (place, digest) in held {
            // What a holder said first stands: it cannot hold two Shares of one patient.
            let said = *self.said[by].entry(place).or_insert(digest);
            if share(place) == Some(said) {
                self.agreed[by].insert(place);
            }
        }
        for place in faults {
            self.faulted.entry(place).or_default().insert(by);
        }
        Ok(())
    }

    /// The first server has the Share of `place` now.
    pub(super) fn shared(&mut self, place: Place, share: Digest) {
        for (said, agreed) in self.said.iter().zip(&mut self.agreed) {
            if said.get(&place) == Some(&share) {
                agreed.insert(place);
            }
        }
    }

    /// Whom each holder holds, by its index.
    pub(super) fn agreed(&self) -> Vec<&Places> {
        self.agreed.iter().map(Counted::places).collect()
    }

    /// How many the holder of the fewest holds; without holders there is no bound.
    pub(super) fn fewest(&self) -> u32 {
        self.agreed.iter().map(Counted::len).min().unwrap_or(u32::MAX)
    }

    /// Those of whom fewer than `quorum` holders can hold the seeds.
    pub(super) fn lost(&self, quorum: usize) -> impl Iterator<Item = Place> + '_ {
        let lost = move |by: &BTreeSet<usize>| self.said.len() - by.len() < quorum;
        self.faulted.iter().filter(move |(_, by)| lost(by)).map(|(place, _)| *place)
    }

    /// The holders that said nothing.
    pub(super) fn silent(&self) -> impl Iterator<Item = usize> + '_ {
        self.said.iter().enumerate().filter(|(_, said)| said.is_empty()).map(|(holder, _)| holder)
    }
}

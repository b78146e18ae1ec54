//! What a member confirmed in one session, and what it may confirm beside that: the rules between rounds.

use serde::{Deserialize, Serialize};

use crate::error::Wrong;
use crate::id::{Digest, RoundNo, Snapshot};
use crate::message::Refuse;
use crate::places::Places;
use crate::session::{Asked, Fixed};

/// The cohorts that one member confirmed, at most one for each round, in the order in which it did.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub(super) struct Confirms(Vec<Confirmed>);

/// A cohort that this member confirmed: it never confirms another one for that round.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Confirmed {
    round: RoundNo,
    snapshot: Snapshot,
    places: Places,
    cohort: Digest,
    /// Forward only: once a mask sum was sealed for release.
    released: bool,
}

/// A Cohort that a member is asked to confirm, and the Begin that it answers.
#[derive(Clone, Copy, Debug)]
pub(super) struct Proposal<'a> {
    round: RoundNo,
    snapshot: &'a Snapshot,
    same_as: Option<RoundNo>,
    places: &'a Places,
    cohort: Digest,
}

impl<'a> Proposal<'a> {
    pub(super) fn new(asked: &'a Asked, fixed: &'a Fixed) -> Self {
        let (begin, places) = (&asked.begin, &fixed.cohort.places);
        Self { round: asked.round, snapshot: &begin.snapshot, same_as: begin.same_as, places, cohort: fixed.digest }
    }
}

impl Confirms {
    /// The newest round that something was confirmed in.
    pub(super) fn newest(&self) -> Option<RoundNo> {
        self.0.last().map(|confirmed| confirmed.round)
    }

    /// Fails with [`Wrong::Equivocation`] where another cohort of this round was confirmed, before a restart too.
    pub(super) fn once(&self, proposal: Proposal<'_>) -> Result<(), Wrong> {
        let another = |earlier: &Confirmed| earlier.round == proposal.round && earlier.cohort != proposal.cohort;
        if self.0.iter().any(another) { Err(Wrong::Equivocation) } else { Ok(()) }
    }

    /// Which cohort of another round forbids this one (PROTOCOL.md, *Confirm*).
    pub(super) fn clash(&self, proposal: Proposal<'_>) -> Option<Refuse> {
        self.0.iter().filter(|earlier| earlier.round != proposal.round).find_map(|earlier| {
            if proposal.same_as == Some(earlier.round) && earlier.places != *proposal.places {
                return Some(Refuse::NotSame { round: earlier.round });
            }
            let apart = earlier.snapshot != *proposal.snapshot || earlier.places.same_or_apart(proposal.places);
            (!apart).then_some(Refuse::Overlap { round: earlier.round })
        })
    }

    /// Remembers that it is confirmed; what was confirmed already stays as it is.
    pub(super) fn add(&mut self, proposal: Proposal<'_>) {
        if self.0.iter().all(|earlier| earlier.round != proposal.round) {
            self.0.push(Confirmed {
                round: proposal.round,
                snapshot: proposal.snapshot.clone(),
                places: proposal.places.clone(),
                cohort: proposal.cohort,
                released: false,
            });
        }
    }

    /// Remembers that a mask sum of this cohort was sealed.
    pub(super) fn release(&mut self, cohort: Digest) {
        if let Some(confirmed) = self.0.iter_mut().find(|confirmed| confirmed.cohort == cohort) {
            confirmed.released = true;
        }
    }
}

#[cfg(test)]
#[path = "confirms_exhaustive.rs"]
mod exhaustive;

//! What the hospital checks once all sums are in (design section 4, *Checks*), and what it does where they are wrong.

use std::collections::BTreeSet;

use bytes::Bytes;

use super::HospitalDesk;
use super::recount::{Lost, Recount};
use super::sums::Masked;
use crate::chunks::Chunks;
use crate::error::{Fault, Wrong};
use crate::id::{Digest, Kind, Name};
use crate::kdf;
use crate::plan::Audit;
use crate::secret::Root;
use crate::session::Lineup;
use crate::step::Event;

/// What became of the checks of one cohort.
#[derive(Debug)]
pub(super) struct Checks {
    /// The chunks that were drawn.
    pub(super) drawn: Vec<u32>,
    /// Servers whose part of the masked sum is wrong.
    wrong: BTreeSet<usize>,
    /// Whose sums were wrong.
    pub(super) caught: Vec<Name>,
}

/// The chunks to check: the lowest by a digest that nobody but the hospital can foretell. Ascending.
fn draw(audit: Audit, chunks: &Chunks, root: &Root, cohort: Digest) -> Vec<u32> {
    let rank = |chunk: &u32| kdf::derive("ward/1 audit draw", root.expose(), &[&cohort.0, &chunk.to_le_bytes()]);
    let mut all: Vec<u32> = (0..chunks.count()).collect();
    if audit != Audit::Full {
        all.sort_by_cached_key(rank);
        all.truncate(audit.draws(chunks.count()) as usize);
        all.sort_unstable();
    }
    all
}

impl Checks {
    /// All sums are in: draws the chunks that are checked. Nobody knew before which they would be.
    pub(super) fn begin(audit: Audit, chunks: &Chunks, root: &Root, cohort: Digest) -> Self {
        Self { drawn: draw(audit, chunks, root, cohort), wrong: BTreeSet::new(), caught: Vec::new() }
    }

    /// Names a party whose sum is wrong.
    pub(super) fn accuse(&mut self, from: &Name, kind: Kind, rule: &'static str, desk: &mut HospitalDesk<'_>) {
        if !self.caught.contains(from) {
            self.caught.push(from.clone());
            desk.out.event(Event::Fault(Fault { from: from.clone(), kind, wrong: Wrong::Rule(rule) }));
        }
    }

    /// Compares the servers' masked sums with the hospital's own; the masked sum to go on with, once it is certain.
    /// If one is wrong, every chunk is added up again, and its server is named.
    pub(super) fn masked(
        &mut self,
        masked: &Masked,
        recount: &mut Recount,
        chunks: &Chunks,
        lineup: &Lineup,
        desk: &mut HospitalDesk<'_>,
    ) -> Result<Option<Vec<Bytes>>, Lost> {
        recount.draw(self.drawn.iter().copied());
        recount.read_on(desk)?;
        let of = |chunk: u32| chunk as usize % lineup.servers.len();
        let added = recount.added().filter(|(chunk, _, digest)| masked.digest(*chunk) != Some(*digest));
        let wrong: BTreeSet<usize> = added.map(|(chunk, ..)| of(chunk)).chain(masked.unfit(chunks)).collect();
        for server in &wrong {
            let rule = "a masked sum that is not the sum of the vectors it was sent";
            self.accuse(&lineup.servers[*server].name, Kind::MaskedSum, rule, desk);
        }
        self.wrong.extend(wrong);
        if !self.wrong.is_empty() {
            recount.draw(0..chunks.count());
            recount.read_on(desk)?;
        }
        let Some(mut sum) = masked.chunks(chunks).filter(|_| recount.is_done()) else { return Ok(None) };
        for (chunk, bytes, _) in recount.added() {
            sum[chunk as usize] = bytes.clone();
        }
        Ok(Some(sum))
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use crate::ring::Ring;

    fn drawn(audit: Audit, d: u64, root: u8, cohort: u8) -> Vec<u32> {
        let chunks = Chunks::new(Ring::new(64).unwrap(), d).unwrap();
        draw(audit, &chunks, &Root::new([root; 32]), Digest([cohort; 32]))
    }

    #[test]
    fn an_eighth_is_drawn_rounded_up_and_differs_by_root_and_cohort() {
        let chunk = 65_536;
        assert_eq!(drawn(Audit::Sample, 1, 1, 1), [0]);
        assert_eq!(drawn(Audit::Full, 3 * chunk, 1, 1), [0, 1, 2]);
        assert_eq!(drawn(Audit::Sample, 9 * chunk, 1, 1).len(), 2);
        assert_eq!(drawn(Audit::None, 9 * chunk, 1, 1), []);
        let sample = |root, cohort| drawn(Audit::Sample, 800 * chunk, root, cohort);
        assert_eq!(sample(1, 1).len(), 100);
        assert_eq!(sample(1, 1), sample(1, 1));
        assert!(sample(1, 1).is_sorted_by(|a, b| a < b));
        assert!(sample(1, 1) != sample(2, 1) && sample(1, 1) != sample(1, 2));
    }

    #[test]
    fn every_chunk_is_drawn_as_often_as_any_other() {
        let mut counts = [0; 16];
        for root in 0..=255 {
            drawn(Audit::Sample, 16 * 65_536, root, 1).iter().for_each(|chunk| counts[*chunk as usize] += 1);
        }
        // 512 draws over 16 chunks: 32 each, with a standard deviation of 5.3.
        assert!(counts.iter().all(|count| (10..=54).contains(count)), "{counts:?}");
    }
}

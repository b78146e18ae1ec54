//! What a server has of a round's masked vectors: its chunks of everybody's, added up as they arrive (design section 4,
//! *Folding*).

use std::collections::BTreeMap;

use bytes::Bytes;

use super::fold::{Change, Part, Sum};
use crate::chunks::Chunks;
use crate::desk::Stop;
use crate::error::Wrong;
use crate::id::{Address, Digest, MessageName, Place};
use crate::job::Job;
use crate::places::Places;
use crate::ring::Lanes;
use crate::shards::Shard;

/// A patient whose Share is here.
#[derive(Debug)]
pub(super) struct Sharer {
    /// The digest of its Share.
    pub(super) share: Digest,
    /// The name of the message that brought it.
    pub(super) name: MessageName,
    /// The digests of this server's chunks of its vector.
    chunks: Vec<Digest>,
    parts: Vec<Part>,
}

impl Sharer {
    fn is_whole(&self) -> bool {
        self.parts.iter().all(|part| matches!(part, Part::Added(_)))
    }
}

/// What became of a chunk that was hashed.
#[derive(Debug)]
pub(super) enum Found {
    /// It is of no use.
    Nothing,
    /// It changes the sum; the job that does so, unless it waits for another one.
    Change(Option<Job>),
    /// No Share names it.
    Unnamed,
    /// Other bytes stand where a chunk was read that was added: the board has lost it.
    Lost,
}

/// The masked vectors of one round at one server.
#[derive(Debug)]
pub(super) struct Gather {
    chunks: Chunks,
    shard: Shard,
    sharers: BTreeMap<Place, Sharer>,
    /// Of whom every chunk is in the sum.
    whole: Places,
    sum: Sum,
}

impl Gather {
    pub(super) fn new(chunks: Chunks, shard: Shard, universe: u32) -> Self {
        let sum = Sum::new(chunks, shard);
        Self { chunks, shard, sharers: BTreeMap::new(), whole: Places::none(universe), sum }
    }

    /// Takes note of a Share, which names all chunks of its vector.
    pub(super) fn expect(
        &mut self,
        place: Place,
        share: Digest,
        name: MessageName,
        chunks: &[Digest],
    ) -> Result<(), Stop> {
        if let Some(known) = self.sharers.get(&place) {
            let same = known.share == share;
            return Err(if same { Stop::Useless("the share is known") } else { Stop::Fault(Wrong::Equivocation) });
        }
        let mine: Vec<Digest> = self.shard.chunks(&self.chunks).map(|chunk| chunks[chunk as usize]).collect();
        let sharer = Sharer { share, name, parts: vec![Part::Awaited; mine.len()], chunks: mine };
        if sharer.is_whole() {
            self.whole.insert(place);
        }
        self.sharers.insert(place, sharer);
        Ok(())
    }

    pub(super) fn sharer(&self, place: Place) -> Option<&Sharer> {
        self.sharers.get(&place)
    }

    pub(super) fn is_empty(&self) -> bool {
        self.sharers.is_empty()
    }

    /// Of whom this server holds its whole part.
    pub(super) fn whole(&self) -> &Places {
        &self.whole
    }

    /// A chunk was hashed: fold it into the sum while chunks still count, or take it out again.
    pub(super) fn identified(
        &mut self,
        place: Place,
        address: Address,
        bytes: Bytes,
        digest: Digest,
        counts: bool,
    ) -> Found {
        let Some(sharer) = self.sharers.get_mut(&place) else { return Found::Nothing };
        let Some(at) = sharer.chunks.iter().position(|known| *known == digest) else {
            let lost = sharer.parts.contains(&Part::Reading(address));
            return if lost { Found::Lost } else { Found::Unnamed };
        };
        let chunk = self.shard.chunks(&self.chunks).nth(at).unwrap_or_default();
        let remove = match &sharer.parts[at] {
            Part::Awaited if counts => false,
            Part::Reading(_) => true,
            _ => return Found::Nothing,
        };
        if bytes.len() != self.chunks.bytes(chunk) {
            return Found::Nothing;
        }
        sharer.parts[at] = if remove { Part::Removing } else { Part::Adding(address) };
        Found::Change(self.sum.change(at, Change { place, bytes, remove }))
    }

    /// A job brought part `at` of the sum back: who is whole by it, and the next job for it.
    pub(super) fn folded(&mut self, at: usize, sum: Lanes) -> (Vec<Place>, Option<Job>) {
        let mut completed = Vec::new();
        for (place, removed) in self.sum.settle(at, sum) {
            let Some(sharer) = self.sharers.get_mut(&place) else { continue };
            let part = &mut sharer.parts[at];
            *part = match std::mem::replace(part, Part::Awaited) {
                Part::Adding(address) if !removed => Part::Added(address),
                Part::Removing if removed => Part::Removed,
                other => other,
            };
            if !removed && sharer.is_whole() {
                self.whole.insert(place);
                completed.push(place);
            }
        }
        (completed, self.sum.next(at))
    }

    /// The cohort is fixed: what waits of others is not added any more.
    pub(super) fn keep_only(&mut self, cohort: &Places) {
        let outside: Vec<Place> = self.sharers.keys().copied().filter(|place| !cohort.contains(*place)).collect();
        for place in outside {
            for at in self.sum.cancel(place) {
                if let Some(sharer) = self.sharers.get_mut(&place) {
                    sharer.parts[at] = Part::Removed;
                }
            }
        }
    }

    /// What must be read again, to be taken out of the sum; and whether something is still to come out or under way.
    pub(super) fn take_out(&mut self, cohort: &Places) -> (Vec<Address>, bool) {
        let (mut read, mut waiting) = (Vec::new(), false);
        for (_, sharer) in self.sharers.iter_mut().filter(|(place, _)| !cohort.contains(**place)) {
            for part in &mut sharer.parts {
                if let Part::Added(address) = part {
                    read.push(address.clone());
                    *part = Part::Reading(address.clone());
                }
                waiting |= matches!(part, Part::Adding(_) | Part::Reading(_) | Part::Removing);
            }
        }
        (read, waiting)
    }

    /// The sum, once nothing is under way; it is given away.
    pub(super) fn take_sum(&mut self) -> Option<Vec<Lanes>> {
        self.sum.take()
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::panic)]
    use super::*;
    use crate::id::{Kind, RoundNo, SessionTag, To};
    use crate::job::Outcome;
    use crate::kdf;
    use crate::ring::Ring;

    /// What a board does that starts again while vectors are read: it delivers them once more, under the same names.
    #[test]
    fn a_chunk_that_comes_twice_while_it_is_taken_out_is_taken_out_once() {
        let ring = Ring::new(16).unwrap();
        let bytes = Bytes::from(Lanes::from_i64(ring, &[1, 2, 3]).unwrap().pack(ring));
        let digest = kdf::chunk_digest(&bytes);
        let mut gather = Gather::new(Chunks::new(ring, 3).unwrap(), Shard::new(0, 1), 1);
        gather.expect(Place(0), Digest([1; 32]), MessageName([0; 16]), &[digest]).unwrap();
        let come = |gather: &mut Gather| gather.identified(Place(0), address(), bytes.clone(), digest, true);
        let fold = |gather: &mut Gather, found: Found| {
            let Found::Change(Some(job)) = found else { panic!("{found:?} is no job") };
            let Outcome::Folded { at, sum } = job.run() else { panic!("the job does not fold") };
            assert!(gather.folded(at, sum).1.is_none(), "nothing else waits");
        };

        let added = come(&mut gather);
        fold(&mut gather, added);
        assert_eq!(gather.take_out(&Places::none(1)), (vec![address()], true));
        let removed = come(&mut gather);
        assert!(matches!(come(&mut gather), Found::Nothing));
        fold(&mut gather, removed);
        assert!(matches!(come(&mut gather), Found::Nothing));
        assert_eq!(gather.take_out(&Places::none(1)), (vec![], false));
        assert_eq!(gather.take_sum().unwrap()[0].to_i64(ring), [0, 0, 0]);
    }

    fn address() -> Address {
        let (from, to) = ("p00".parse().unwrap(), To::One("server".parse().unwrap()));
        let (session, name) = (SessionTag([0; 16]), MessageName([1; 16]));
        Address { session, round: RoundNo(1), from, to, kind: Kind::Chunk, name }
    }
}

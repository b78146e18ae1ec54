//! What a server has of a round's masked vectors: its chunks of everybody's, added up as they arrive (PROTOCOL.md,
//! *Folding*).

use std::collections::{BTreeMap, BTreeSet, VecDeque};

use bytes::Bytes;
use vectors::Lanes;

use super::fold::{Change, Part, Sum};
use crate::chunks::{Chunks, read_window};
use crate::desk::Stop;
use crate::error::Wrong;
use crate::id::{Address, Digest, MessageName, Place};
use crate::job::Job;
use crate::places::{Counted, Places};
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
    /// It is not in the cohort: what of it is in the sum comes out again.
    out: bool,
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
    whole: Counted,
    sum: Sum,
    /// What of patients outside the cohort is in the sum and must be read again: whose part, in the order of the board.
    unread: VecDeque<(Place, usize)>,
    /// What of it is being read, or is read and not yet out of the sum.
    reading: BTreeSet<(Place, usize)>,
    /// How many parts of them are being added, or are to come out of the sum.
    leaving: usize,
}

impl Gather {
    pub(super) fn new(chunks: Chunks, shard: Shard, universe: u32) -> Self {
        let sum = Sum::new(chunks, shard);
        let whole = Counted::new(Places::none(universe));
        let (unread, reading) = (VecDeque::new(), BTreeSet::new());
        Self { chunks, shard, sharers: BTreeMap::new(), whole, sum, unread, reading, leaving: 0 }
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
        let sharer = Sharer { share, name, parts: vec![Part::Awaited; mine.len()], chunks: mine, out: false };
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
    pub(super) fn whole(&self) -> &Counted {
        &self.whole
    }

    /// How many shared.
    pub(super) fn count(&self) -> u32 {
        self.sharers.len() as u32
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
            let lost = sharer.parts.contains(&Part::Removing(address));
            return if lost { Found::Lost } else { Found::Unnamed };
        };
        let chunk = self.shard.chunks(&self.chunks).nth(at).unwrap_or_default();
        let remove = match &sharer.parts[at] {
            Part::Awaited if counts => false,
            Part::Removing(_) => true,
            _ => return Found::Nothing,
        };
        if bytes.len() != self.chunks.bytes(chunk) {
            return Found::Nothing;
        }
        sharer.parts[at] = if remove { Part::Leaving } else { Part::Adding(address) };
        Found::Change(self.sum.change(at, Change { place, bytes, remove }))
    }

    /// A job brought part `at` of the sum back: who is whole by it, and the next job for it.
    pub(super) fn folded(&mut self, at: usize, sum: Lanes) -> (Vec<Place>, Option<Job>) {
        let mut completed = Vec::new();
        for place in self.sum.settle(at, sum) {
            let Some(sharer) = self.sharers.get_mut(&place) else { continue };
            let part = &mut sharer.parts[at];
            *part = match std::mem::replace(part, Part::Awaited) {
                Part::Adding(address) if sharer.out => {
                    self.unread.push_back((place, at));
                    Part::Removing(address)
                }
                Part::Adding(address) => Part::Added(address),
                Part::Leaving => {
                    self.reading.remove(&(place, at));
                    self.leaving -= 1;
                    Part::Removed
                }
                other => other,
            };
            if sharer.is_whole() {
                self.whole.insert(place);
                completed.push(place);
            }
        }
        (completed, self.sum.next(at))
    }

    /// The cohort is fixed: what waits of others is not added any more, and what was added is to come out.
    pub(super) fn keep_only(&mut self, cohort: &Places) {
        for (place, sharer) in self.sharers.iter_mut().filter(|(place, _)| !cohort.contains(**place)) {
            sharer.out = true;
            for at in self.sum.cancel(*place) {
                sharer.parts[at] = Part::Removed;
            }
            for (at, part) in sharer.parts.iter_mut().enumerate() {
                if let Part::Added(address) = part {
                    self.unread.push_back((*place, at));
                    *part = Part::Removing(address.clone());
                }
                self.leaving += usize::from(matches!(part, Part::Adding(_) | Part::Removing(_)));
            }
        }
    }

    /// What must be read again now, to be taken out of the sum, a few chunks at a time; and whether something is still to
    /// come out.
    pub(super) fn take_out(&mut self) -> (Vec<Address>, bool) {
        let mut read = Vec::new();
        while self.reading.len() < read_window(self.chunks.bytes(0))
            && let Some((place, at)) = self.unread.pop_front()
        {
            // What came twice is out already.
            if let Some(Part::Removing(address)) = self.sharers.get(&place).and_then(|sharer| sharer.parts.get(at)) {
                read.push(address.clone());
                self.reading.insert((place, at));
            }
        }
        (read, self.leaving > 0)
    }

    /// The names of what was added: this server's chunks, ascending, and for each those of `cohort`, by ascending place.
    pub(super) fn names(&self, cohort: &Places) -> Vec<MessageName> {
        let name = |at: usize, place: Place| match self.sharers.get(&place)?.parts.get(at)? {
            Part::Added(address) => Some(address.name),
            _ => None,
        };
        let chunks = 0..self.shard.count(&self.chunks);
        chunks.flat_map(|at| cohort.iter().filter_map(move |place| name(at, place))).collect()
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
    use crate::id::{Kind, RoundNo, To};
    use crate::job::Outcome;
    use crate::kdf::chunk_digest;
    use vectors::Ring;

    const D: usize = 4;

    /// The vector of the patient at `place`, packed, and where it stands.
    fn vector(place: u32) -> (Address, Bytes) {
        let address = Address {
            session: Digest::default().into(),
            round: RoundNo(1),
            from: format!("patient-{place}").parse().unwrap(),
            to: To::One("server".parse().unwrap()),
            kind: Kind::Share,
            name: MessageName([place as u8; 16]),
        };
        (address, Bytes::from(vec![place as u8; 2 * D]))
    }

    fn empty(patients: u32) -> Gather {
        let chunks = Chunks::new(Ring::new(16).unwrap(), D as u64).unwrap();
        Gather::new(chunks, Shard::new(0, 1), patients)
    }

    /// The vector of the patient at `place` comes.
    fn comes(gather: &mut Gather, place: u32) -> Found {
        let (address, bytes) = vector(place + 1);
        let digest = chunk_digest(&bytes);
        gather.expect(Place(place), Digest([place as u8; 32]), address.name, &[digest]).unwrap();
        gather.identified(Place(place), address, bytes, digest, true)
    }

    /// Adds the vectors of so many patients.
    fn gather_of(patients: u32) -> Gather {
        let mut gather = empty(patients);
        for place in 0..patients {
            let found = comes(&mut gather, place);
            run(&mut gather, found);
        }
        gather
    }

    /// Runs a job to its end; what is next.
    fn run_job(gather: &mut Gather, job: Job) -> Option<Job> {
        let Outcome::Folded { at, sum } = job.run() else { panic!("no fold") };
        gather.folded(at, sum).1
    }

    fn run(gather: &mut Gather, found: Found) {
        let Found::Change(Some(job)) = found else { panic!("no job: {found:?}") };
        assert!(run_job(gather, job).is_none());
    }

    /// The cohort is fixed while one vector is being added and others wait for that: who is not in it comes out again, or
    /// never in.
    #[test]
    fn a_cohort_that_is_fixed_while_vectors_are_added_is_what_the_sum_is_of() {
        let mut gather = empty(3);
        let Found::Change(Some(job)) = comes(&mut gather, 0) else { panic!("no job") };
        for place in [1, 2] {
            let waits = comes(&mut gather, place);
            assert!(matches!(waits, Found::Change(None)), "{waits:?}");
        }
        gather.keep_only(&Places::of(3, [Place(2)]));
        assert_eq!(gather.take_out(), (vec![], true));
        let next = run_job(&mut gather, job).unwrap();
        assert!(run_job(&mut gather, next).is_none());
        assert_eq!(gather.take_out(), (vec![vector(1).0], true));
        let (address, bytes) = vector(1);
        let found = gather.identified(Place(0), address, bytes.clone(), chunk_digest(&bytes), false);
        run(&mut gather, found);
        assert_eq!(gather.take_out(), (vec![], false));
        assert_eq!(gather.take_sum().unwrap()[0].pack(Ring::new(16).unwrap()), vector(3).1);
    }

    #[test]
    fn what_comes_twice_is_taken_out_once() {
        let mut gather = gather_of(2);
        gather.keep_only(&Places::of(2, [Place(0)]));
        let (read, waiting) = gather.take_out();
        assert_eq!((read, waiting), (vec![vector(2).0], true));
        assert_eq!(gather.take_out(), (vec![], true));
        let (address, bytes) = vector(2);
        let digest = chunk_digest(&bytes);
        let mut again = || gather.identified(Place(1), address.clone(), bytes.clone(), digest, false);
        let (first, second) = (again(), again());
        assert!(matches!(second, Found::Nothing), "{second:?}");
        run(&mut gather, first);
        assert_eq!(gather.take_out(), (vec![], false));
        let ring = Ring::new(16).unwrap();
        assert_eq!(gather.take_sum().unwrap()[0].pack(ring), vector(1).1);
    }

    #[test]
    fn what_is_taken_out_is_read_a_few_chunks_at_a_time() {
        let dropped = read_window(2 * D) + 2;
        let mut gather = gather_of(1 + dropped as u32);
        gather.keep_only(&Places::of(1 + dropped as u32, [Place(0)]));
        let (mut reading, _) = gather.take_out();
        assert_eq!(reading.len() + 2, dropped);
        assert_eq!(gather.take_out(), (vec![], true));
        for taken in 1..=dropped {
            let address = reading.remove(0);
            let place = Place(u32::from(address.name.0[0]) - 1);
            let (_, bytes) = vector(place.0 + 1);
            let digest = chunk_digest(&bytes);
            let found = gather.identified(place, address, bytes, digest, false);
            run(&mut gather, found);
            let (more, waiting) = gather.take_out();
            assert!(more.len() <= 1, "{more:?}");
            reading.extend(more);
            assert_eq!(waiting, taken < dropped);
        }
        assert!(reading.is_empty(), "{reading:?}");
    }
}

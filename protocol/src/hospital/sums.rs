//! The sums that come to the hospital, put together from their pieces: the masked sum and the members' mask sums.

use std::collections::{BTreeMap, BTreeSet};

use bytes::Bytes;

use crate::chunks::Chunks;
use crate::id::Digest;
use crate::job::SealedSum;
use crate::message::MaskSum;
use crate::shards::Shard;
use crate::wire;

/// Pieces that are known by digest, in order, and fill up as they arrive.
#[derive(Debug, Default)]
struct Pieces(Vec<(Digest, Option<Bytes>)>);

impl Pieces {
    fn new(digests: Vec<Digest>) -> Self {
        Self(digests.into_iter().map(|digest| (digest, None)).collect())
    }

    /// Takes a piece, if it is one of these.
    fn take(&mut self, digest: Digest, bytes: &Bytes) -> bool {
        let mut named = false;
        for (_, piece) in self.0.iter_mut().filter(|(known, _)| *known == digest) {
            *piece = Some(bytes.clone());
            named = true;
        }
        named
    }

    fn whole(&self) -> Option<Vec<Bytes>> {
        self.0.iter().map(|(_, piece)| piece.clone()).collect()
    }
}

/// The servers' sums of masked vectors, each of its own chunks.
#[derive(Debug)]
pub(super) struct Masked {
    /// By server.
    parts: Vec<Option<Pieces>>,
}

impl Masked {
    pub(super) fn new(servers: usize) -> Self {
        Self { parts: (0..servers).map(|_| None).collect() }
    }

    /// A server says which chunks its sum has; false where it said otherwise before.
    pub(super) fn expect(&mut self, server: usize, digests: &[Digest]) -> bool {
        if let Some(known) = &self.parts[server] {
            return known.0.iter().map(|(digest, _)| digest).eq(digests);
        }
        self.parts[server] = Some(Pieces::new(digests.to_vec()));
        true
    }

    /// Takes a chunk, if a server named it.
    pub(super) fn take(&mut self, digest: Digest, bytes: &Bytes) -> bool {
        self.parts.iter_mut().flatten().fold(false, |named, part| part.take(digest, bytes) | named)
    }

    /// The digest of a chunk of the vector, as its server said.
    pub(super) fn digest(&self, chunk: u32) -> Option<Digest> {
        let (server, at) = (chunk as usize % self.parts.len(), chunk as usize / self.parts.len());
        self.parts[server].as_ref()?.0.get(at).map(|(digest, _)| *digest)
    }

    /// The servers whose part is not here.
    pub(super) fn missing(&self) -> impl Iterator<Item = usize> + '_ {
        let whole = |part: &Option<Pieces>| part.as_ref().is_some_and(|part| part.whole().is_some());
        self.parts.iter().enumerate().filter(move |(_, part)| !whole(part)).map(|(server, _)| server)
    }

    /// The servers of whose part a chunk has another length than the vector's.
    pub(super) fn unfit(&self, chunks: &Chunks) -> Vec<usize> {
        let fits = |(chunk, bytes): (u32, &Bytes)| bytes.len() == chunks.bytes(chunk);
        let parts = self.parts.iter().zip(Shard::all(self.parts.len())).enumerate();
        let whole = parts.filter_map(|(server, (part, shard))| Some((server, part.as_ref()?.whole()?, shard)));
        let unfit = whole.filter(|(_, part, shard)| !shard.chunks(chunks).zip(part).all(fits));
        unfit.map(|(server, ..)| server).collect()
    }

    /// All chunks in the order of the vector, once they are here.
    pub(super) fn chunks(&self, chunks: &Chunks) -> Option<Vec<Bytes>> {
        let mut all = vec![Bytes::new(); chunks.count() as usize];
        for (part, shard) in self.parts.iter().zip(Shard::all(self.parts.len())) {
            for (chunk, bytes) in shard.chunks(chunks).zip(part.as_ref()?.whole()?) {
                all[chunk as usize] = bytes;
            }
        }
        Some(all)
    }
}

/// A member's mask sum on its way.
#[derive(Debug)]
pub(super) struct Incoming {
    encapsulation: Vec<u8>,
    blocks: Vec<u16>,
    pieces: Pieces,
}

impl Incoming {
    pub(super) fn new(sum: MaskSum) -> Self {
        Self::of(sum.encapsulation.into_vec(), sum.pieces)
    }

    /// Sealed pieces with these digests.
    pub(super) fn of(encapsulation: Vec<u8>, pieces: Vec<Digest>) -> Self {
        Self { encapsulation, blocks: Vec::new(), pieces: Pieces::new(pieces) }
    }

    /// Takes a piece, if it is one of these.
    pub(super) fn take(&mut self, digest: Digest, bytes: &Bytes) -> bool {
        self.pieces.take(digest, bytes)
    }

    /// Whether all pieces are here.
    pub(super) fn is_whole(&self) -> bool {
        self.pieces.whole().is_some()
    }

    /// The blocks that it was asked for.
    pub(super) fn blocks(&self) -> &[u16] {
        &self.blocks
    }

    /// The digests of its pieces.
    pub(super) fn digests(&self) -> Vec<Digest> {
        self.pieces.0.iter().map(|(digest, _)| *digest).collect()
    }

    /// The sum for the job that opens it.
    pub(super) fn sealed(&self, seat: u8, info: Vec<u8>) -> SealedSum {
        self.sealed_as(seat, info, wire::encode(&self.blocks))
    }

    /// As above, for a sum whose first piece says `blocks`.
    pub(super) fn sealed_as(&self, seat: u8, info: Vec<u8>, blocks: Vec<u8>) -> SealedSum {
        SealedSum {
            seat,
            encapsulation: self.encapsulation.clone(),
            info,
            blocks,
            pieces: self.pieces.whole().unwrap_or_default(),
        }
    }
}

/// What was asked of the members, Open by Open, and what came.
#[derive(Debug)]
pub(super) struct MaskSums {
    blocks: u16,
    /// By (Open, seat): the blocks that were asked for.
    wanted: BTreeMap<(Digest, u8), Vec<u16>>,
    came: BTreeMap<(Digest, u8), Incoming>,
    /// Seats whose sum did not hold.
    rejected: BTreeSet<u8>,
    /// What comes now comes too late.
    closed: bool,
}

impl MaskSums {
    pub(super) fn new(blocks: u16) -> Self {
        Self { blocks, wanted: BTreeMap::new(), came: BTreeMap::new(), rejected: BTreeSet::new(), closed: false }
    }

    /// From now on only the sums count that are here.
    pub(super) fn close(&mut self) {
        self.came.retain(|_, sum| sum.is_whole());
        self.closed = true;
    }

    /// An Open asked `senders`.
    pub(super) fn asked(&mut self, open: Digest, senders: Vec<(u8, Vec<u16>)>) {
        self.wanted.extend(senders.into_iter().map(|(seat, blocks)| ((open, seat), blocks)));
    }

    /// A sum came, its pieces may be on their way; false where it was not asked for, is known or late.
    pub(super) fn arrived(&mut self, open: Digest, seat: u8, mut sum: Incoming) -> bool {
        let Some(blocks) = self.wanted.get(&(open, seat)) else { return false };
        if self.closed || self.came.contains_key(&(open, seat)) || self.rejected.contains(&seat) {
            return false;
        }
        sum.blocks = blocks.clone();
        self.came.insert((open, seat), sum);
        true
    }

    /// Takes a piece for every sum that names it: one may be a copy of another's digests.
    pub(super) fn take(&mut self, digest: Digest, bytes: &Bytes) -> bool {
        self.came.values_mut().fold(false, |named, sum| sum.pieces.take(digest, bytes) | named)
    }

    /// The blocks of which `seat` sent sums.
    pub(super) fn blocks_of(&self, seat: u8) -> Vec<u16> {
        let sums = self.came.iter().filter(|((_, from), _)| *from == seat);
        sums.flat_map(|(_, sum)| sum.blocks.iter().copied()).collect()
    }

    /// Forgets what `seat` sent, for good.
    pub(super) fn reject(&mut self, seat: u8) {
        self.rejected.insert(seat);
        self.came.retain(|(_, from), _| *from != seat);
    }

    /// The sums that are whole.
    fn whole(&self) -> Vec<(Digest, u8, &Incoming)> {
        let whole = self.came.iter().filter(|(_, sum)| sum.pieces.whole().is_some());
        whole.map(|((open, seat), sum)| (*open, *seat, sum)).collect()
    }

    /// A set of whole sums in which each block occurs exactly once, if there is one.
    pub(super) fn cover(&self) -> Option<Vec<(Digest, u8, &Incoming)>> {
        let mut chosen = Vec::new();
        search(&self.whole(), &(0..self.blocks).collect(), &mut chosen).then_some(chosen)
    }

    /// The seats that were asked and whose sum is not here.
    pub(super) fn silent(&self) -> BTreeSet<u8> {
        let whole: BTreeSet<(Digest, u8)> = self.whole().iter().map(|(open, seat, _)| (*open, *seat)).collect();
        self.wanted.keys().filter(|asked| !whole.contains(asked)).map(|(_, seat)| *seat).collect()
    }

    /// The blocks that no whole sum has.
    pub(super) fn missing_blocks(&self) -> Vec<u16> {
        let here: BTreeSet<u16> = self.whole().iter().flat_map(|(_, _, sum)| sum.blocks.iter().copied()).collect();
        (0..self.blocks).filter(|block| !here.contains(block)).collect()
    }
}

/// Chooses sums that cover `open` exactly; depth first over the few that there are.
fn search<'a>(
    sums: &[(Digest, u8, &'a Incoming)],
    open: &BTreeSet<u16>,
    chosen: &mut Vec<(Digest, u8, &'a Incoming)>,
) -> bool {
    let Some(first) = open.first() else { return true };
    for sum in sums.iter().filter(|(_, _, sum)| sum.blocks.contains(first)) {
        if sum.2.blocks.iter().all(|block| open.contains(block)) {
            let rest = open.iter().copied().filter(|block| !sum.2.blocks.contains(block)).collect();
            chosen.push(*sum);
            if search(sums, &rest, chosen) {
                return true;
            }
            chosen.pop();
        }
    }
    false
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use serde_bytes::ByteBuf;

    fn sums(asked: &[(u8, u8, &[u16])], came: &[(u8, u8)], blocks: u16) -> MaskSums {
        let mut sums = MaskSums::new(blocks);
        for (open, seat, blocks) in asked {
            sums.asked(Digest([*open; 32]), vec![(*seat, blocks.to_vec())]);
        }
        for (open, seat) in came {
            let piece = Digest([open * 16 + seat; 32]);
            let sum = MaskSum { encapsulation: ByteBuf::new(), pieces: vec![piece] };
            assert!(sums.arrived(Digest([*open; 32]), *seat, Incoming::new(sum)));
            assert!(sums.take(piece, &Bytes::new()));
        }
        sums
    }

    fn cover(sums: &MaskSums) -> Option<Vec<u8>> {
        sums.cover().map(|cover| cover.iter().map(|(_, seat, _)| *seat).collect())
    }

    #[test]
    fn each_block_counts_exactly_once_even_if_a_slow_sum_arrives_too() {
        let asked: [(u8, u8, &[u16]); 4] = [(1, 0, &[0, 1]), (1, 1, &[2]), (2, 2, &[0]), (2, 3, &[1])];
        assert_eq!(cover(&sums(&asked, &[(1, 1)], 3)), None);
        assert_eq!(cover(&sums(&asked, &[(1, 1), (2, 2), (2, 3)], 3)), Some(vec![2, 3, 1]));
        let all = sums(&asked, &[(1, 0), (1, 1), (2, 2), (2, 3)], 3);
        assert_eq!(cover(&all).unwrap().len(), 2);
    }

    #[test]
    fn overlapping_sums_that_cannot_be_separated_are_no_cover() {
        let asked: [(u8, u8, &[u16]); 2] = [(1, 0, &[0, 1]), (2, 1, &[1, 2])];
        assert_eq!(cover(&sums(&asked, &[(1, 0), (2, 1)], 3)), None);
    }

    #[test]
    fn a_rejected_seat_is_silent_and_its_blocks_are_missing() {
        let asked: [(u8, u8, &[u16]); 2] = [(1, 0, &[0]), (1, 1, &[1])];
        let mut sums = sums(&asked, &[(1, 0), (1, 1)], 2);
        sums.reject(1);
        assert_eq!(sums.silent(), BTreeSet::from([1]));
        assert_eq!(sums.missing_blocks(), vec![1]);
    }
}

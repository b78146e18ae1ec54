//! Who on the committee holds which seed: replicated sharing over blocks (PROTOCOL.md, *Sharing*).

use serde::{Deserialize, Serialize};

/// The most members of a committee.
pub const MOST_MEMBERS: usize = 10;

/// The most blocks that a committee can have: as many as there are sets of half of it.
pub const MOST_BLOCKS: usize = 252;

/// A committee's size c and the number t of its members that may collude; `2 <= c <= 10`, `1 <= t < c`.
///
/// Everything else follows and is computed by every party: the quorum, the blocks, who may drop.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(try_from = "(u8, u8)", into = "(u8, u8)")]
pub struct Sharing {
    committee: u8,
    threshold: u8,
}

/// Why there is no such committee.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum SharingError {
    /// Fewer than 2 or more than 10 members.
    #[error("a committee of {0} is not possible: choose 2 to 10 members")]
    Committee(u8),
    /// No colluder, or as many as there are members.
    #[error("{threshold} colluders of a committee of {committee}: choose 1 to {most}, one fewer than its members")]
    Threshold {
        /// The committee's size.
        committee: u8,
        /// The number of colluders asked for.
        threshold: u8,
        /// The largest possible.
        most: u8,
    },
}

/// A set of committee seats that all lack one seed. Seats are counted from 0, by name.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct Block(u16);

impl Block {
    fn of(seats: impl IntoIterator<Item = u8>) -> Self {
        Self(seats.into_iter().fold(0, |bits, seat| bits | 1 << seat))
    }

    /// The set as a bit mask: bit `s` stands for seat `s`.
    pub fn bits(self) -> u16 {
        self.0
    }

    /// Whether the member in this seat is in the block and so lacks its seed.
    pub fn contains(self, seat: u8) -> bool {
        1_u16.checked_shl(seat.into()).is_some_and(|bit| self.0 & bit != 0)
    }

    /// The seats outside the block: their members hold its seed.
    pub fn holders(self, sharing: Sharing) -> impl Iterator<Item = u8> {
        (0..sharing.committee).filter(move |&seat| !self.contains(seat))
    }
}

impl Sharing {
    /// A committee of `committee` members of whom any `threshold` may collude.
    pub fn new(committee: u8, threshold: u8) -> Result<Self, SharingError> {
        if !(2..=10).contains(&committee) {
            return Err(SharingError::Committee(committee));
        }
        if !(1..committee).contains(&threshold) {
            return Err(SharingError::Threshold { committee, threshold, most: committee - 1 });
        }
        Ok(Self { committee, threshold })
    }

    /// The default for a session that expects `expect` patients: `c = min(5, expect)`,
    /// `t = max(1, floor((c - 1) / 3))`. Fails where `expect` is below 2.
    pub fn default_for(expect: u32) -> Result<Self, SharingError> {
        let committee = expect.min(5) as u8;
        Self::new(committee, (committee.saturating_sub(1) / 3).max(1))
    }

    /// c: how many members.
    pub fn committee(self) -> u8 {
        self.committee
    }

    /// t: how many of them may collude.
    pub fn threshold(self) -> u8 {
        self.threshold
    }

    /// `q = floor((c + t) / 2) + 1`: two sets of q members share more than t, hence an honest one.
    pub fn quorum(self) -> u8 {
        (self.committee + self.threshold) / 2 + 1
    }

    /// `c - q`: how many members may drop.
    pub fn may_drop(self) -> u8 {
        self.committee - self.quorum()
    }

    /// Whether any quorum holds t+1 copies of every seed, so that mask sums can be checked: `c >= 3t`.
    pub fn checkable(self) -> bool {
        self.committee >= 3 * self.threshold
    }

    /// The most members in a block: `q - t - 1` where checks are possible, else `q - 1`.
    pub fn block_size(self) -> u8 {
        if self.checkable() { self.quorum() - self.threshold - 1 } else { self.quorum() - 1 }
    }

    /// The blocks, in the order in which all parties number them. Any t seats lie in one of them.
    ///
    /// For t > 1 this is a greedy search over at most 252 sets: keep the list, do not ask again.
    pub fn blocks(self) -> Vec<Block> {
        if self.threshold == 1 { self.runs() } else { self.greedy_cover() }
    }

    /// The indexes of the blocks whose seed the member in `seat` holds.
    pub fn held_by(self, seat: u8) -> Vec<usize> {
        let blocks = self.blocks();
        (0..blocks.len()).filter(|&index| !blocks[index].contains(seat)).collect()
    }

    /// Which member sends which mask sums when `confirmed` are the seats that confirmed: the Open's
    /// default holders, in the order in which they are counted, each with the indexes of its blocks.
    pub fn default_senders(&self, confirmed: &[u8], round: u32) -> Vec<(u8, Vec<u16>)> {
        let all: Vec<u16> = (0..self.blocks().len() as u16).collect();
        self.senders_for(confirmed, round, &all)
    }

    /// As [`Sharing::default_senders`], for the blocks in `wanted` only: how a further Open finds
    /// other holders for the sums that are missing. A block that no seat in `from` holds is left out.
    pub fn senders_for(&self, from: &[u8], round: u32, wanted: &[u16]) -> Vec<(u8, Vec<u16>)> {
        let blocks = self.blocks();
        let mut open = wanted.to_vec();
        let first = (round % u32::from(self.committee)) as u8;
        let seats = (first..self.committee).chain(0..first).filter(|seat| from.contains(seat));
        let turns = seats.map(|seat| {
            let holds = |index: &u16| blocks.get(usize::from(*index)).is_some_and(|block| !block.contains(seat));
            (seat, open.extract_if(.., |index| holds(index)).collect::<Vec<_>>())
        });
        turns.filter(|(_, taken)| !taken.is_empty()).collect()
    }

    /// t = 1: the seats cut into as few runs as possible, as even as can be, longer ones first.
    fn runs(self) -> Vec<Block> {
        let count = self.committee.div_ceil(self.block_size());
        let (length, longer) = (self.committee / count, self.committee % count);
        let start = |run: u8| run * length + run.min(longer);
        (0..count).map(|run| Block::of(start(run)..start(run + 1))).collect()
    }

    /// t > 1: again and again the set, first in lexicographic order, that covers most t-sets not yet
    /// covered.
    fn greedy_cover(self) -> Vec<Block> {
        let candidates = subsets(self.committee, self.block_size());
        let mut uncovered = subsets(self.committee, self.threshold);
        let mut blocks = Vec::new();
        while let Some(best) = first_best(&candidates, &uncovered) {
            uncovered.retain(|set| !lies_in(*set, best));
            blocks.push(best);
        }
        blocks
    }
}

/// The first candidate that covers most of `uncovered`; none when nothing is left to cover.
fn first_best(candidates: &[Block], uncovered: &[Block]) -> Option<Block> {
    let gain = |block: Block| uncovered.iter().filter(|set| lies_in(**set, block)).count();
    // `max_by_key` returns the last of equals: so count from the back.
    let best = candidates.iter().rev().copied().max_by_key(|&block| gain(block));
    best.filter(|_| !uncovered.is_empty())
}

fn lies_in(set: Block, block: Block) -> bool {
    set.0 & !block.0 == 0
}

/// All sets of `size` of the seats `0..seats`, in lexicographic order of their sorted members.
fn subsets(seats: u8, size: u8) -> Vec<Block> {
    let all = (0..1_u16 << seats).filter(|bits| bits.count_ones() == u32::from(size));
    let mut sets: Vec<Block> = all.map(Block).collect();
    // Seat 0 as the highest bit: the earlier list then is the greater number.
    sets.sort_by_key(|set| std::cmp::Reverse(set.0.reverse_bits()));
    sets
}

impl TryFrom<(u8, u8)> for Sharing {
    type Error = SharingError;

    fn try_from((committee, threshold): (u8, u8)) -> Result<Self, SharingError> {
        Self::new(committee, threshold)
    }
}

impl From<Sharing> for (u8, u8) {
    fn from(sharing: Sharing) -> (u8, u8) {
        (sharing.committee, sharing.threshold)
    }
}

/// k, the smallest cohort, by default: half of `expect` rounded up, and at least 3.
pub fn default_min_cohort(expect: u32) -> u32 {
    expect.div_ceil(2).max(3)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use super::*;

    fn all() -> impl Iterator<Item = Sharing> {
        (2..=10).flat_map(|c| (1..c).map(move |t| Sharing::new(c, t).unwrap()))
    }

    fn seats(set: Block) -> Vec<u8> {
        (0..16).filter(|&seat| set.contains(seat)).collect()
    }

    fn count(c: u8, t: u8) -> usize {
        Sharing::new(c, t).unwrap().blocks().len()
    }

    #[test]
    fn block_counts_of_the_design() {
        assert_eq!([count(3, 1), count(4, 1)], [3, 4]);
        assert!((5..=10).all(|c| count(c, 1) == 3));
        assert_eq!([count(7, 2), count(8, 2), count(10, 2)], [21, 11, 9]);
        for c in 2..=10 {
            let blocks = Sharing::new(c, c - 1).unwrap().blocks();
            assert_eq!(blocks.len(), usize::from(c));
            assert!(blocks.iter().all(|block| block.bits().count_ones() == u32::from(c) - 1));
        }
    }

    #[test]
    fn runs_are_even_and_in_order() {
        let runs = |c| Sharing::new(c, 1).unwrap().blocks().into_iter().map(seats).collect::<Vec<_>>();
        assert_eq!(runs(5), [vec![0, 1], vec![2, 3], vec![4]]);
        assert_eq!(runs(7), [vec![0, 1, 2], vec![3, 4], vec![5, 6]]);
    }

    #[test]
    fn the_greedy_choice_is_the_first_in_lexicographic_order() {
        let blocks: Vec<_> = Sharing::new(8, 2).unwrap().blocks().into_iter().map(seats).collect();
        assert_eq!(blocks[..3], [vec![0, 1, 2], vec![0, 3, 4], vec![0, 5, 6]]);
        let sets: Vec<_> = subsets(4, 2).into_iter().map(seats).collect();
        assert_eq!(sets, [[0, 1], [0, 2], [0, 3], [1, 2], [1, 3], [2, 3]]);
    }

    #[test]
    fn what_the_blocks_promise() {
        for sharing in all() {
            let (c, t, q, blocks) = (sharing.committee(), sharing.threshold(), sharing.quorum(), sharing.blocks());
            assert!(q <= c && sharing.may_drop() == c - q);
            assert!(usize::from(c) <= MOST_MEMBERS && blocks.len() <= MOST_BLOCKS);
            assert!(blocks.iter().all(|block| block.bits().count_ones() <= u32::from(sharing.block_size())));
            let colluders = subsets(c, t);
            assert!(colluders.iter().all(|set| blocks.iter().any(|block| lies_in(*set, *block))), "{sharing:?}");

            let fewest_holders = subsets(c, q)
                .into_iter()
                .flat_map(|quorum| blocks.iter().map(move |block| (quorum.bits() & !block.bits()).count_ones() as u8));
            let fewest_holders = fewest_holders.min().unwrap();
            assert!(fewest_holders >= 1, "{sharing:?}");
            assert_eq!(fewest_holders > t, sharing.checkable(), "{sharing:?}");
        }
    }

    #[test]
    fn two_quorums_share_an_honest_member() {
        for sharing in all() {
            let quorums = subsets(sharing.committee(), sharing.quorum());
            let shared = quorums.iter().flat_map(|a| quorums.iter().map(|b| (a.bits() & b.bits()).count_ones()));
            assert!(shared.min().unwrap() > u32::from(sharing.threshold()), "{sharing:?}");
        }
    }

    #[test]
    fn default_senders_take_every_block_once() {
        for sharing in all() {
            let blocks = sharing.blocks();
            for quorum in subsets(sharing.committee(), sharing.quorum()) {
                let round = u32::from(quorum.bits());
                let senders = sharing.default_senders(&seats(quorum), round);
                assert!(senders.iter().all(|(seat, taken)| quorum.contains(*seat)
                    && !taken.is_empty()
                    && taken.iter().all(|&index| !blocks[usize::from(index)].contains(*seat))));
                let mut taken: Vec<u16> = senders.into_iter().flat_map(|(_, taken)| taken).collect();
                taken.sort_unstable();
                assert!(taken.into_iter().eq(0..blocks.len() as u16));
            }
        }
    }

    #[test]
    fn default_senders_rotate_and_skip() {
        let sharing = Sharing::new(5, 1).unwrap();
        assert_eq!(sharing.default_senders(&[0, 1, 2, 3, 4], 0), [(0, vec![1, 2]), (2, vec![0])]);
        assert_eq!(sharing.default_senders(&[0, 1, 2, 3, 4], 4), [(4, vec![0, 1]), (0, vec![2])]);
        assert_eq!(sharing.default_senders(&[4, 3, 1, 0], 7), [(3, vec![0, 2]), (4, vec![1])]);
        assert_eq!(sharing.senders_for(&[1, 3], 0, &[0, 1]), [(1, vec![1]), (3, vec![0])]);
        assert_eq!(sharing.senders_for(&[0, 1], 0, &[0, 99]), []);
        assert_eq!(sharing.held_by(4), [0, 1]);
        assert_eq!(sharing.blocks()[1].holders(sharing).collect::<Vec<_>>(), [0, 1, 4]);
    }

    #[test]
    fn defaults_and_limits() {
        let default = |expect| Sharing::default_for(expect).map(<(u8, u8)>::from);
        assert_eq!([default(2), default(4), default(1000)], [Ok((2, 1)), Ok((4, 1)), Ok((5, 1))]);
        assert_eq!(default(1), Err(SharingError::Committee(1)));
        assert_eq!([1, 6, 7, 100].map(default_min_cohort), [3, 3, 4, 50]);
        assert_eq!(Sharing::new(11, 1), Err(SharingError::Committee(11)));
        assert!(Sharing::new(3, 0).is_err() && Sharing::new(3, 3).is_err());
        assert!(!Block(1).contains(255));
    }

    #[test]
    fn decoding_checks() {
        let sharing = Sharing::new(8, 2).unwrap();
        assert_eq!(rmp_serde::from_slice::<Sharing>(&rmp_serde::to_vec(&sharing).unwrap()).unwrap(), sharing);
        assert!(rmp_serde::from_slice::<Sharing>(&rmp_serde::to_vec(&(3, 3)).unwrap()).is_err());
    }
}

//! The mask sums once more (PROTOCOL.md, *Checks*): t+1 holders of each block send its sum; what t+1 agree on is
//! right, as at most t lie. Where they differ more holders are asked, and the whole of the block's sum is taken from them.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use super::sums::Incoming;
use super::verdict::Verdict;
use crate::chunks::Chunks;
use crate::id::{Digest, RoundNo};
use crate::job::{SealedSum, Words};
use crate::message::Check;
use crate::session::Rules;
use crate::sharing::{Block, Sharing};
use crate::wire;

/// One block and one chunk.
type Pair = (u16, u32);

/// A Check that was sent.
#[derive(Debug)]
struct Sent {
    seat: u8,
    check: Check,
    came: Option<Incoming>,
    /// The answer is being opened, or was.
    opened: bool,
}

/// The holders of this block do not agree.
#[derive(Debug)]
pub(super) struct Dispute {
    pub(super) block: u16,
    /// Who answered.
    pub(super) holders: Vec<u8>,
}

/// The comparison of mask sums in one round.
#[derive(Debug)]
pub(super) struct Vouch {
    sharing: Sharing,
    blocks: Arc<[Block]>,
    chunks: Chunks,
    round: RoundNo,
    verdicts: BTreeMap<Pair, Verdict>,
    sent: BTreeMap<Digest, Sent>,
    /// Blocks whose whole sum is taken from what t+1 agree on.
    whole: BTreeSet<u16>,
    /// Who said otherwise than t+1 others: they are asked no more.
    liars: BTreeSet<u8>,
}

impl Vouch {
    /// Of nothing yet.
    pub(super) fn new(rules: &Rules, chunks: Chunks, round: RoundNo) -> Self {
        let (sharing, blocks) = (rules.announce.sharing, rules.blocks.clone());
        let (verdicts, sent) = (BTreeMap::new(), BTreeMap::new());
        let (whole, liars) = (BTreeSet::new(), BTreeSet::new());
        Self { sharing, blocks, chunks, round, verdicts, sent, whole, liars }
    }

    /// Compares all blocks over these chunks.
    pub(super) fn draw(&mut self, drawn: &[u32]) {
        for block in 0..self.blocks.len() as u16 {
            self.compare(block, drawn.iter().copied());
        }
    }

    /// t+1.
    fn enough(&self) -> usize {
        usize::from(self.sharing.threshold()) + 1
    }

    /// Takes the whole sum of these blocks from their holders.
    pub(super) fn take_whole(&mut self, blocks: &[u16]) {
        for block in blocks {
            if self.whole.insert(*block) {
                self.compare(*block, 0..self.chunks.count());
            }
        }
    }

    fn compare(&mut self, block: u16, chunks: impl Iterator<Item = u32>) {
        for chunk in chunks {
            self.verdicts.entry((block, chunk)).or_default();
        }
    }

    /// The blocks whose whole sum is taken from their holders.
    pub(super) fn whole(&self) -> &BTreeSet<u16> {
        &self.whole
    }

    /// Asks everybody for what is not settled: who was asked takes long.
    pub(super) fn ask_all(&mut self) {
        self.verdicts.values_mut().for_each(Verdict::ask_all);
    }

    /// Whom to ask for what, among those that `confirmed`: each sum of each holder once.
    pub(super) fn wanted(&mut self, confirmed: &[u8]) -> Vec<(u8, Check)> {
        let (c, enough) = (self.sharing.committee(), self.enough());
        let first = (self.round.0 % u32::from(c)) as u8;
        let may = |seat: &u8| confirmed.contains(seat) && !self.liars.contains(seat);
        let turns: Vec<u8> = (first..c).chain(0..first).filter(may).collect();
        let mut wanted: BTreeMap<(u8, u16), Vec<u32>> = BTreeMap::new();
        for ((block, chunk), verdict) in self.verdicts.iter_mut().filter(|(_, verdict)| !verdict.is_settled()) {
            let holders = turns.iter().filter(|seat| !self.blocks[usize::from(*block)].contains(**seat));
            for seat in holders.take(verdict.most(enough)) {
                if verdict.ask(*seat) {
                    wanted.entry((*seat, *block)).or_default().push(*chunk);
                }
            }
        }
        group(wanted)
    }

    /// A Check was sent, maybe before a restart.
    pub(super) fn sent(&mut self, digest: Digest, seat: u8, check: Check) {
        for pair in check.pairs() {
            self.verdicts.entry(pair).or_default().ask(seat);
        }
        self.sent.insert(digest, Sent { seat, check, came: None, opened: false });
    }

    /// How many pieces the answers of `seat` have, all together.
    pub(super) fn asked_of(&self, seat: u8) -> usize {
        self.sent.values().filter(|sent| sent.seat == seat).map(|sent| sent.check.pairs().count() + 1).sum()
    }

    /// An answer came, its pieces may be on their way; false where it was not asked for, is known or has another shape.
    pub(super) fn arrived(&mut self, check: Digest, seat: u8, sum: Incoming) -> bool {
        let Some(sent) = self.sent.get_mut(&check).filter(|sent| sent.seat == seat && sent.came.is_none()) else {
            return false;
        };
        let fits = sum.digests().len() == sent.check.pairs().count() + 1;
        sent.came = fits.then_some(sum);
        fits
    }

    /// Takes a piece for every answer that names it.
    pub(super) fn take(&mut self, digest: Digest, bytes: &bytes::Bytes) -> bool {
        let came = self.sent.values_mut().filter_map(|sent| sent.came.as_mut());
        came.fold(false, |named, sum| sum.take(digest, bytes) | named)
    }

    /// The answers that are whole now and were not opened yet: the Check, and what to open; `info` says what it is bound to.
    pub(super) fn take_answers(&mut self, info: impl Fn(u8, Digest) -> Vec<u8>) -> Vec<(Digest, SealedSum)> {
        let mut open = Vec::new();
        for (digest, sent) in self.sent.iter_mut().filter(|(_, sent)| !sent.opened) {
            if let Some(sum) = sent.came.as_ref().filter(|sum| sum.is_whole()) {
                sent.opened = true;
                open.push((*digest, sum.sealed_as(sent.seat, info(sent.seat, *digest), wire::encode(&sent.check))));
            }
        }
        open
    }

    /// An answer was opened; `None` where it does not open, or is not what was asked for. Who is found to have lied.
    pub(super) fn opened(&mut self, check: Digest, sums: Option<Vec<(Digest, Words)>>) -> BTreeSet<u8> {
        let Some(sent) = self.sent.get_mut(&check) else { return BTreeSet::new() };
        // The sealed bytes are not needed any more.
        sent.came = None;
        let seat = sent.seat;
        let pairs: Vec<Pair> = sent.check.pairs().collect();
        let fits = |sums: &Vec<(Digest, Words)>| {
            let length = |((_, chunk), (_, words)): (&Pair, &(Digest, Words))| {
                words.as_bytes().len() == self.chunks.bytes(*chunk)
            };
            sums.len() == pairs.len() && pairs.iter().zip(sums).all(length)
        };
        let mut liars = BTreeSet::new();
        let sums = sums.filter(fits);
        if sums.is_none() {
            liars.insert(seat);
        }
        let mut sums = sums.map(Vec::into_iter);
        for pair in pairs {
            let said = sums.as_mut().and_then(Iterator::next);
            liars.extend(self.say(pair, seat, said));
        }
        self.liars.extend(&liars);
        liars
    }

    /// Notes what `seat` says of one sum; who said otherwise than t+1 others. Where anybody did, nothing that they say of
    /// the block is used: it is taken whole from others.
    fn say(&mut self, pair: Pair, seat: u8, said: Option<(Digest, Words)>) -> BTreeSet<u8> {
        let enough = self.enough();
        let Some(verdict) = self.verdicts.get_mut(&pair) else { return BTreeSet::new() };
        verdict.hear(seat, said, enough);
        let liars = verdict.liars();
        if !liars.is_empty() {
            self.take_whole(&[pair.0]);
        }
        liars
    }

    /// Whether every sum is settled.
    pub(super) fn is_settled(&self) -> bool {
        self.verdicts.values().all(Verdict::is_settled)
    }

    /// A block on which holders do not agree: all have answered or, with `late`, enough that t+1 could have agreed.
    pub(super) fn dispute(&self, late: bool) -> Option<Dispute> {
        let over = |((block, _), verdict): &(&Pair, &Verdict)| {
            let holders = self.blocks[usize::from(*block)].holders(self.sharing);
            let all = holders.filter(|seat| !self.liars.contains(seat)).all(|seat| verdict.has_answered(seat));
            !verdict.is_settled() && (all || (late && verdict.answered().len() >= self.enough()))
        };
        let ((block, _), verdict) = self.verdicts.iter().find(over)?;
        Some(Dispute { block: *block, holders: verdict.answered().collect() })
    }

    /// Who was asked for what is not settled, and did not answer.
    pub(super) fn silent(&self) -> BTreeSet<u8> {
        self.verdicts.values().filter(|verdict| !verdict.is_settled()).flat_map(Verdict::silent).collect()
    }

    /// What t+1 agree on, of each block and chunk that was compared.
    pub(super) fn agreed(&self) -> BTreeMap<Pair, Words> {
        self.verdicts.iter().filter_map(|(pair, verdict)| Some((*pair, verdict.words()?))).collect()
    }
}

/// Checks that ask each seat for what it is wanted for: blocks of which the same chunks are wanted stand in one, as far as
/// it has room.
fn group(wanted: BTreeMap<(u8, u16), Vec<u32>>) -> Vec<(u8, Check)> {
    let mut alike: BTreeMap<(u8, Vec<u32>), Vec<u16>> = BTreeMap::new();
    for ((seat, block), chunks) in wanted {
        alike.entry((seat, chunks)).or_default().push(block);
    }
    let mut checks = Vec::new();
    for ((seat, chunks), blocks) in alike {
        for some in chunks.chunks((Check::MOST / blocks.len()).max(1)) {
            checks.push((seat, Check { blocks: blocks.clone(), chunks: some.to_vec() }));
        }
    }
    checks
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use super::*;
    use crate::kdf::chunk_digest;
    use vectors::Ring;

    /// Over several chunks of which the second is drawn.
    fn vouch(committee: u8, threshold: u8) -> Vouch {
        let sharing = Sharing::new(committee, threshold).unwrap();
        let chunks = Chunks::new(Ring::new(64).unwrap(), 65_537).unwrap();
        let (verdicts, sent) = (BTreeMap::new(), BTreeMap::new());
        let (blocks, whole, liars) = (sharing.blocks().into(), BTreeSet::new(), BTreeSet::new());
        let mut vouch = Vouch { sharing, blocks, chunks, round: RoundNo(1), verdicts, sent, whole, liars };
        (0..vouch.blocks.len() as u16).for_each(|block| vouch.compare(block, [1].into_iter()));
        vouch
    }

    /// Has everybody that is asked answer, `says` what; who is found to have lied, and how many were asked.
    fn answer(vouch: &mut Vouch, confirmed: &[u8], says: impl Fn(u8, u16) -> Option<u8>) -> (BTreeSet<u8>, usize) {
        let asked = vouch.wanted(confirmed);
        let mut liars = BTreeSet::new();
        for (seat, check) in &asked {
            let digest = Digest([vouch.sent.len() as u8; 32]);
            let chunks = vouch.chunks;
            let sums = check.pairs().map(|(block, chunk)| {
                let words = vec![says(*seat, block)?; chunks.bytes(chunk)];
                Some((chunk_digest(&words), Words(Arc::new(words.into()))))
            });
            let sums = sums.collect();
            vouch.sent(digest, *seat, check.clone());
            liars.extend(vouch.opened(digest, sums));
        }
        (liars, asked.len())
    }

    #[test]
    fn each_block_is_asked_of_enough_holders_and_each_holder_once() {
        for (c, t) in [(3, 1), (4, 1), (7, 2), (10, 3)] {
            let mut vouch = vouch(c, t);
            let everybody: Vec<u8> = (0..c).collect();
            assert!(answer(&mut vouch, &everybody, |_, block| Some(block as u8)).0.is_empty());
            assert!(vouch.is_settled() && vouch.whole().is_empty() && vouch.dispute(true).is_none());
            assert!(vouch.verdicts.values().all(|verdict| verdict.answered().len() == usize::from(t) + 1));
            assert_eq!(vouch.agreed().len(), vouch.blocks.len());
            assert!(vouch.wanted(&everybody).is_empty());
        }
    }

    #[test]
    fn a_liar_is_outvoted_and_its_blocks_are_taken_whole_from_others() {
        for lie in [Some(99), None] {
            let mut vouch = vouch(4, 1);
            let says = |seat: u8, block: u16| if seat == 1 { lie } else { Some(block as u8) };
            let mut liars = BTreeSet::new();
            while !vouch.is_settled() {
                let (found, asked) = answer(&mut vouch, &[0, 1, 2, 3], says);
                liars.extend(found);
                assert!(asked > 0 && vouch.dispute(false).is_none());
            }
            assert_eq!(liars, BTreeSet::from([1]));
            let agreed = vouch.agreed();
            for block in [0, 2, 3] {
                assert_eq!(agreed[&(block, 0)].as_bytes()[0], block as u8, "the chunk that was not drawn too");
            }
        }
    }

    #[test]
    fn two_that_differ_are_a_dispute_once_nobody_else_can_be_asked() {
        let mut vouch = vouch(3, 1);
        let (liars, _) = answer(&mut vouch, &[0, 1, 2], |seat, block| Some(if seat == 1 { 99 } else { block as u8 }));
        assert_eq!((liars, vouch.is_settled()), (BTreeSet::new(), false));
        let Dispute { block, holders } = vouch.dispute(false).unwrap();
        assert_eq!((block, holders), (0, vec![1, 2]));
    }

    #[test]
    fn who_says_nothing_is_silent_and_others_are_asked() {
        let mut vouch = vouch(4, 1);
        let asked = vouch.wanted(&[0, 1, 2, 3]);
        assert_eq!(vouch.silent(), asked.iter().map(|(seat, _)| *seat).collect());
        assert!(vouch.wanted(&[0, 1, 2, 3]).is_empty());
        vouch.ask_all();
        assert!(!vouch.wanted(&[0, 1, 2, 3]).is_empty());
    }

    #[test]
    fn a_check_has_room_for_a_sum_of_each_block_that_a_member_holds() {
        let all = (2..=10).flat_map(|c| (1..c).filter_map(move |t| Sharing::new(c, t).ok()));
        for sharing in all.filter(|sharing| sharing.checkable()) {
            let blocks = sharing.blocks();
            let held = |seat: u8| blocks.iter().filter(|block| !block.contains(seat)).count();
            assert!((0..sharing.committee()).all(|seat| held(seat) <= Check::MOST), "{sharing:?}");
        }
    }

    #[test]
    fn a_check_asks_for_no_more_sums_than_a_member_makes_at_once() {
        let wanted = [((0, 1), (0..9_000).collect()), ((0, 2), (0..9_000).collect()), ((1, 2), vec![7])];
        let checks = group(wanted.into());
        assert_eq!(checks.iter().map(|(_, check)| check.pairs().count()).sum::<usize>(), 18_001);
        assert!(checks.iter().all(|(_, check)| check.pairs().count() <= Check::MOST));
    }
}

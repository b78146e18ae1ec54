//! What the hospital checks once all sums are in (PROTOCOL.md, *Checks*), and what it does where they are wrong.

use std::collections::BTreeSet;

use bytes::Bytes;

use super::open::Open;
use super::recount::{Lost, Recount};
use super::round::{Round, Stage};
use super::sums::{Incoming, Masked};
use super::vouch::{Dispute, Vouch};
use super::{HospitalDesk, Ticket, Work};
use crate::chunks::Chunks;
use crate::desk::{Pen, Stop};
use crate::error::{AbortReason, Fault, Wrong};
use crate::id::{Digest, Kind, Name, To};
use crate::job::{Job, Words};
use crate::kdf;
use crate::message::{Check, CheckSum, SumPieces};
use crate::plan::Audit;
use crate::session::{Asked, Lineup, Rules, sum_info};
use crate::step::Event;
use crate::wire::{self, Frame, Signed};

/// What became of the checks of one cohort.
#[derive(Debug)]
pub(super) struct Checks {
    /// The chunks that were drawn.
    drawn: Vec<u32>,
    /// The comparison of mask sums, where there are t+1 holders of each.
    pub(super) vouch: Option<Vouch>,
    /// Servers whose part of the masked sum is wrong.
    wrong: BTreeSet<usize>,
    /// Whose sums were wrong.
    pub(super) caught: Vec<Name>,
}

/// The chunks to check: the lowest by a digest that nobody but the hospital can foretell. Ascending.
fn draw(audit: Audit, chunks: &Chunks, fresh: &[u8; 32]) -> Vec<u32> {
    let rank = |chunk: &u32| kdf::derive("ward/1 audit draw", fresh, &[&chunk.to_le_bytes()]);
    let mut all: Vec<u32> = (0..chunks.count()).collect();
    if audit != Audit::Full {
        all.sort_by_cached_key(rank);
        all.truncate(audit.draws(chunks.count()) as usize);
        all.sort_unstable();
    }
    all
}

impl Checks {
    /// Before anything is drawn.
    pub(super) fn new(asked: &Asked, rules: &Rules) -> Self {
        let checkable = rules.announce.sharing.checkable();
        let vouch = checkable.then(|| Vouch::new(rules, asked.chunks, asked.round));
        Self { drawn: Vec::new(), vouch, wrong: BTreeSet::new(), caught: Vec::new() }
    }

    /// All sums are in: draws the chunks that are checked. Nobody knew before which they would be; drawn from fresh bytes,
    /// they are others after a restart, as others know by then which they were.
    pub(super) fn draw(&mut self, audit: Audit, chunks: &Chunks, fresh: &[u8; 32]) {
        self.drawn = draw(audit, chunks, fresh);
        if let Some(vouch) = &mut self.vouch {
            vouch.draw(&self.drawn);
        }
    }

    /// Notes a Check that was written before a restart: its holder answers it, and none that asks for the same again.
    fn asked_before(&mut self, signed: &Signed, lineup: &Lineup) -> Result<(), Stop> {
        let frame = signed.open()?;
        let check: Check = frame.envelope.body()?;
        let seat = match &frame.envelope.to {
            To::One(holder) => lineup.seat_of(holder),
            To::All => None,
        };
        if let (Some(vouch), Some(seat)) = (&mut self.vouch, seat) {
            vouch.sent(frame.digest, seat, check);
        }
        Ok(())
    }

    /// Of how many chunks the mask sums are vouched for.
    pub(super) fn vouched(&self) -> Option<u32> {
        self.vouch.as_ref().map(|_| self.drawn.len() as u32)
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

/// How many pieces the answer to a Check has.
pub(super) fn pieces_of(check: &Signed) -> Option<usize> {
    let check: Check = check.open().ok()?.envelope.body().ok()?;
    Some(check.pairs().count() + 1)
}

impl Round {
    /// The checks as they were before a restart, where holders had been asked.
    pub(super) fn checks_again(&self, rules: &Rules, lineup: &Lineup) -> Result<Option<Checks>, Stop> {
        if self.asked_holders.is_empty() {
            return Ok(None);
        }
        let mut checks = Checks::new(&self.asked, rules);
        self.asked_holders.iter().try_for_each(|signed| checks.asked_before(signed, lineup))?;
        Ok(Some(checks))
    }

    /// Asks holders for what of the mask sums is not settled; each for each sum once, also across a restart.
    pub(super) fn ask_holders(&mut self, lineup: &Lineup, rules: &Rules, desk: &mut HospitalDesk<'_>) {
        let before = self.asked_holders.len();
        let confirmed: Vec<u8> = self.confirms.keys().copied().collect();
        let pen = Pen { me: desk.me, session: rules.session, round: self.asked.round, secret: self.root.expose() };
        let (Stage::Opening(opening), Some(open)) = (&mut self.stage, self.opens.first().map(Signed::digest)) else {
            return;
        };
        let Some(vouch) = opening.vouch_mut() else { return };
        for (seat, check) in vouch.wanted(&confirmed) {
            let to = To::One(lineup.seats[usize::from(seat)].identity.name.clone());
            let signed = pen.sign(Kind::Check, to.clone(), open, &check);
            desk.out.send.push(pen.post(Kind::Check, &signed, to, &[]));
            vouch.sent(signed.digest(), seat, check);
            self.asked_holders.push(signed);
        }
        if self.asked_holders.len() > before {
            self.save(rules.session, desk);
        }
    }

    /// The comparison of mask sums, once it has begun.
    pub(super) fn vouch(&mut self) -> Option<&mut Vouch> {
        match &mut self.stage {
            Stage::Opening(opening) => opening.vouch_mut(),
            _ => None,
        }
    }

    /// Opens the answers that are whole.
    pub(super) fn open_answers(&mut self, lineup: &Lineup, rules: &Rules, desk: &mut HospitalDesk<'_>) {
        let (secret, round) = (self.secret.clone(), self.asked.round);
        let Some(vouch) = self.vouch() else { return };
        let name = |seat: u8| &lineup.seats[usize::from(seat)].identity.name;
        for (check, sealed) in vouch.take_answers(|seat, check| sum_info(rules.session, round, name(seat), check)) {
            let ticket = Ticket { session: rules.session, round, work: Work::Unseal { check } };
            desk.run(ticket, Job::Unseal { secret: secret.clone(), sealed });
        }
    }

    /// The mask sums to add up: those of `cover` whose blocks no holder questions. `None` while something is not settled.
    /// Of a sum with a block that is questioned every block is taken from what t+1 holders agree on.
    pub(super) fn settle(vouch: &mut Vouch, cover: &[(Digest, u8, &Incoming)]) -> Option<Vec<usize>> {
        let questioned = |sum: &Incoming, vouch: &Vouch| sum.blocks().iter().any(|block| vouch.whole().contains(block));
        for (_, _, sum) in cover {
            if questioned(sum, vouch) {
                vouch.take_whole(sum.blocks());
            }
        }
        let good = (0..cover.len()).filter(|at| !questioned(cover[*at].2, vouch)).collect();
        vouch.is_settled().then_some(good)
    }
}

impl Open {
    pub(super) fn on_check_sum(
        &mut self,
        frame: &Frame,
        rules: &Rules,
        desk: &mut HospitalDesk<'_>,
    ) -> Result<(), Stop> {
        let (round, lineup) = self.parts()?;
        let seat = lineup.seat_of(&frame.envelope.from).ok_or(Wrong::NotItsRole)?;
        frame.verify(&lineup.seats[usize::from(seat)].identity)?;
        if !matches!(round.stage, Stage::Opening(_)) {
            // The Check was written before a restart, and the Cohort is not here again.
            return Err(Stop::Early);
        }
        let CheckSum { encapsulation, pieces } = frame.envelope.body()?;
        let SumPieces(attached) = wire::decode(&frame.attachment, "mask sum pieces")?;
        let incoming = Incoming::of(encapsulation.into_vec(), pieces.clone());
        let Some(vouch) = round.vouch() else { return Err(Stop::Useless("nothing was asked to be vouched for")) };
        if !vouch.arrived(frame.envelope.after, seat, incoming) {
            return Err(Stop::Useless("a CheckSum that was not asked for, is known, or of another shape"));
        }
        round.named(&frame.envelope.from, &pieces, attached, rules, desk);
        round.open_answers(lineup, rules, desk);
        Ok(())
    }

    /// The answer to a Check was opened, or does not open.
    pub(super) fn unsealed(
        &mut self,
        check: Digest,
        sums: Option<Vec<(Digest, Words)>>,
        rules: &Rules,
        desk: &mut HospitalDesk<'_>,
    ) {
        let Ok((round, lineup)) = self.parts() else { return };
        let Stage::Opening(opening) = &mut round.stage else { return };
        let Some(checks) = &mut opening.checks else { return };
        let liars = checks.vouch.as_mut().map(|vouch| vouch.opened(check, sums)).unwrap_or_default();
        for seat in liars {
            let rule = "a sum of masks that does not open, or that t+1 holders give otherwise";
            checks.accuse(&lineup.seats[usize::from(seat)].identity.name, Kind::CheckSum, rule, desk);
        }
        self.add_up(rules, desk);
    }

    /// Mask sums are not what t+1 holders give, or do not open: their senders are named, and their blocks are taken from
    /// what holders vouch for. A sum that another holder sent now would be made by who knows what is checked.
    pub(super) fn wrong_sums(&mut self, seats: &[u8], rule: &'static str, rules: &Rules, desk: &mut HospitalDesk<'_>) {
        let Ok((round, lineup)) = self.parts() else { return };
        let Stage::Opening(opening) = &mut round.stage else { return };
        opening.adding = false;
        let Some(checks) = &mut opening.checks else { return };
        for seat in seats {
            checks.accuse(&lineup.seats[usize::from(*seat)].identity.name, Kind::MaskSum, rule, desk);
            if let Some(vouch) = &mut checks.vouch {
                vouch.take_whole(&opening.sums.blocks_of(*seat));
            }
        }
        self.add_up(rules, desk);
    }

    /// Who does not agree on which block.
    pub(super) fn dispute(&mut self, late: bool) -> Option<AbortReason> {
        let (round, lineup) = self.parts().ok()?;
        let Dispute { block, holders } = round.vouch()?.dispute(late)?;
        let name = |seat: u8| lineup.seats[usize::from(seat)].identity.name.clone();
        Some(AbortReason::MaskSumsDiffer { block, holders: holders.into_iter().map(name).collect() })
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use vectors::Ring;

    fn drawn(audit: Audit, d: u64, fresh: u8) -> Vec<u32> {
        let chunks = Chunks::new(Ring::new(64).unwrap(), d).unwrap();
        draw(audit, &chunks, &[fresh; 32])
    }

    #[test]
    fn an_eighth_is_drawn_rounded_up_and_differs_by_the_fresh_bytes() {
        let chunk = 65_536;
        assert_eq!(drawn(Audit::Sample, 1, 1), [0]);
        assert_eq!(drawn(Audit::Full, 8 * chunk, 1), [0, 1, 2, 3, 4, 5, 6, 7]);
        assert_eq!(drawn(Audit::Sample, 9 * chunk, 1).len(), 2);
        assert_eq!(drawn(Audit::None, 9 * chunk, 1), [0_u32; 0]);
        let sample = |fresh| drawn(Audit::Sample, 800 * chunk, fresh);
        assert_eq!(sample(1).len(), 100);
        assert_eq!(sample(1), sample(1));
        assert!(sample(1).is_sorted_by(|a, b| a < b));
        assert_ne!(sample(1), sample(2));
    }

    #[test]
    fn every_chunk_is_drawn_as_often_as_any_other() {
        let mut counts = [0; 16];
        for fresh in 0..=255 {
            drawn(Audit::Sample, 16 * 65_536, fresh).iter().for_each(|chunk| counts[*chunk as usize] += 1);
        }
        // 512 draws over 16 chunks: 32 each, with a standard deviation of 5.3.
        assert!(counts.iter().all(|count| (10..=54).contains(count)), "{counts:?}");
    }
}

//! Vouching for mask sums (PROTOCOL.md, *Checks*): a member sends the sums of single blocks over the one cohort that
//! it confirmed and that an Open with q Confirms allowed to release, so that the hospital can compare holders.

use serde_bytes::ByteBuf;
use vectors::Lanes;

use super::{Member, MemberDesk, Round, Stage, release};
use crate::desk::{Stop, rule};
use crate::id::{Address, Digest, Kind};
use crate::job::Job;
use crate::message::{Check, CheckSum};
use crate::session::{Rules, sum_info};
use crate::wire::{self, Frame};

/// What one message has room for beside its signed part.
const MOST_ATTACHED: usize = 500 * 1024;

impl Member {
    pub(super) fn on_check(&mut self, frame: &Frame, rules: &Rules, desk: &mut MemberDesk<'_>) -> Result<(), Stop> {
        let seat = self.seat;
        let round = self.current(frame)?;
        frame.verify(&rules.hospital)?;
        if !matches!(round.stage, Stage::Confirmed(_)) {
            return Err(Stop::Early);
        }
        if desk.now >= round.asked.ends() {
            return Err(Stop::Useless("the round is over"));
        }
        if round.vouching.knows(frame.digest) {
            return Err(Stop::Useless("the check is known"));
        }
        // Which cohort an Open is of was checked when it came; one that this member did not take allows nothing.
        if !round.vouching.opens.contains(&frame.envelope.after) {
            return Err(Stop::Early);
        }
        let check: Check = frame.envelope.body()?;
        if !rules.announce.sharing.checkable() {
            return Err(rule("a Check in a session whose mask sums cannot be checked"));
        }
        release::check_blocks(&check.blocks, seat, rules)?;
        let fits = |chunk: &u32| *chunk < round.asked.chunks.count();
        let sound =
            check.chunks.is_sorted_by(|a, b| a < b) && !check.chunks.is_empty() && check.chunks.iter().all(fits);
        if !sound || check.pairs().count() > Check::MOST {
            return Err(rule("a Check of chunks that the vector does not have, unsorted, or too many"));
        }
        if !round.vouching.take(frame.digest, check) {
            return Err(rule("a Check of sums that this member was asked for before"));
        }
        self.vouch_on(rules, desk);
        Ok(())
    }

    /// Begins the next answer, where none is under way.
    fn vouch_on(&mut self, rules: &Rules, desk: &mut MemberDesk<'_>) {
        let Some(Round { asked, holdings, vouching, stage: Stage::Confirmed(fixed), .. }) = &mut self.round else {
            return;
        };
        let Some((digest, check)) = vouching.begin() else { return };
        let chunks = asked.chunks;
        for (at, (block, chunk)) in check.pairs().enumerate() {
            let add = fixed.places().filter_map(|place| holdings.stream_key(place, block)).collect();
            let sum = Lanes::zero(chunks.ring(), chunks.len(chunk));
            let job = Job::Expand { chunk, chunks, sum, add, subtract: Vec::new() };
            release::run_check((digest, at), job, rules.session, asked.round, desk);
        }
    }

    /// A sum of a Check is made; all of them are sealed once they are.
    pub(super) fn vouched(&mut self, check: Digest, at: usize, sum: Lanes, rules: &Rules, desk: &mut MemberDesk<'_>) {
        let Some(Round { asked, root, vouching, stage: Stage::Confirmed(fixed), .. }) = &mut self.round else { return };
        let Some((asked_for, sums)) = vouching.made(check, at, sum) else { return };
        let job = Job::Seal {
            to: rules.announce.seal_key.clone(),
            info: sum_info(rules.session, asked.round, &desk.me.name, check),
            root: root.duplicate(),
            blocks: wire::encode(asked_for),
            sums,
            ring: asked.begin.ring,
        };
        let (cohort, number) = (fixed.digest, asked.round);
        self.mark_released(cohort, rules, desk);
        release::run_seal_check(check, job, rules.session, number, desk);
    }

    pub(super) fn sealed_check(
        &mut self,
        check: Digest,
        encapsulation: Vec<u8>,
        pieces: &[bytes::Bytes],
        rules: &Rules,
        desk: &mut MemberDesk<'_>,
    ) {
        let Some(round) = &mut self.round else { return };
        // As many as fit one message ride in it; the others follow as chunks.
        let sizes = pieces.iter().scan(0, |size, piece| {
            *size += piece.len();
            Some(*size)
        });
        let rides = sizes.take_while(|size| *size <= MOST_ATTACHED).count();
        let sum = |pieces| CheckSum { encapsulation: ByteBuf::from(encapsulation), pieces };
        let mut sends = round.sealed((Kind::CheckSum, check), sum, pieces, rides, rules, desk.me);
        // The outbox keeps no copy: where the board may have lost an answer, it is made again.
        desk.out.remade.extend(sends.iter().map(|outgoing| outgoing.address.clone()));
        if let Some(last) = sends.last_mut() {
            last.report = true;
            round.vouching.sending(check, last.address.clone());
        }
        desk.out.send.extend(sends);
    }

    /// The board has what was written at `address`: where an answer is there with it, the next begins.
    pub(crate) fn sent(&mut self, address: &Address, rules: &Rules, desk: &mut MemberDesk<'_>) {
        if self.round.as_mut().is_some_and(|round| round.vouching.sent(address)) {
            self.vouch_on(rules, desk);
        }
    }

    /// Makes the answers again that the board may have lost.
    pub(crate) fn again(&mut self, rules: &Rules, desk: &mut MemberDesk<'_>) {
        if let Some(round) = &mut self.round {
            round.vouching.again();
        }
        self.vouch_on(rules, desk);
    }
}

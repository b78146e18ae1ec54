//! Vouching for mask sums (PROTOCOL.md, *Checks*): a member sends the sums of single blocks over the one cohort that
//! it confirmed and that an Open with q Confirms allowed to release, so that the hospital can compare holders.

use std::collections::{BTreeMap, BTreeSet};

use serde_bytes::ByteBuf;
use vectors::Lanes;

use super::{Member, MemberDesk, Stage, release};
use crate::desk::{Stop, rule};
use crate::id::{Digest, Kind};
use crate::job::Job;
use crate::message::{Check, CheckSum};
use crate::session::{Rules, sum_info};
use crate::wire::{self, Frame};

/// What one message has room for beside its signed part.
const MOST_ATTACHED: usize = 500 * 1024;

/// The Checks of one round.
#[derive(Debug, Default)]
pub(super) struct Vouching {
    /// The Opens of the confirmed cohort, whomever they ask.
    pub(super) opens: BTreeSet<Digest>,
    /// By the digest of the Check.
    answers: BTreeMap<Digest, Answer>,
    /// What was answered: no sum is made twice in a round.
    answered: BTreeSet<(u16, u32)>,
}

/// The answer to one Check, as far as it is made: block by block, and of each the chunks.
#[derive(Debug)]
struct Answer {
    check: Check,
    /// None while a job has it.
    sums: Vec<Option<Lanes>>,
}

impl Member {
    pub(super) fn on_check(&mut self, frame: &Frame, rules: &Rules, desk: &mut MemberDesk<'_>) -> Result<(), Stop> {
        let seat = self.seat;
        let round = self.current(frame)?;
        frame.verify(&rules.hospital)?;
        let Stage::Confirmed(fixed) = &round.stage else { return Err(Stop::Early) };
        if desk.now >= round.asked.ends() {
            return Err(Stop::Useless("the round is over"));
        }
        if round.vouching.answers.contains_key(&frame.digest) {
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
        let pairs: Vec<(u16, u32)> = check.pairs().collect();
        if !sound || pairs.len() > Check::MOST {
            return Err(rule("a Check of chunks that the vector does not have, unsorted, or too many"));
        }
        if pairs.iter().any(|pair| round.vouching.answered.contains(pair)) {
            return Err(rule("a Check of sums that this member was asked for before"));
        }
        round.vouching.answered.extend(&pairs);
        let (places, chunks) = (fixed.cohort.places.clone(), round.asked.chunks);
        let sums = pairs.iter().map(|_| None).collect();
        round.vouching.answers.insert(frame.digest, Answer { check, sums });
        for (at, (block, chunk)) in pairs.into_iter().enumerate() {
            let add = places.iter().filter_map(|place| round.holdings.stream_key(place, block)).collect();
            let sum = Lanes::zero(chunks.ring(), chunks.len(chunk));
            let job = Job::Expand { chunk, chunks, sum, add, subtract: Vec::new() };
            release::run_check((frame.digest, at), job, rules.session, round.asked.round, desk);
        }
        Ok(())
    }

    /// A sum of a Check is made; all of them are sealed once they are.
    pub(super) fn vouched(&mut self, check: Digest, at: usize, sum: Lanes, rules: &Rules, desk: &mut MemberDesk<'_>) {
        let Some(round) = &mut self.round else { return };
        let Stage::Confirmed(fixed) = &round.stage else { return };
        let Some(answer) = round.vouching.answers.get_mut(&check) else { return };
        if let Some(slot) = answer.sums.get_mut(at) {
            *slot = Some(sum);
        }
        if answer.sums.iter().any(Option::is_none) {
            return;
        }
        let job = Job::Seal {
            to: rules.announce.seal_key.clone(),
            info: sum_info(rules.session, round.asked.round, &desk.me.name, check),
            root: round.root.duplicate(),
            blocks: wire::encode(&answer.check),
            sums: std::mem::take(&mut answer.sums).into_iter().flatten().collect(),
            ring: round.asked.begin.ring,
        };
        let (cohort, number) = (fixed.digest, round.asked.round);
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
        let Some(round) = &self.round else { return };
        // As many as fit one message ride in it; the others follow as chunks.
        let sizes = pieces.iter().scan(0, |size, piece| {
            *size += piece.len();
            Some(*size)
        });
        let rides = sizes.take_while(|size| *size <= MOST_ATTACHED).count();
        let sum = |pieces| CheckSum { encapsulation: ByteBuf::from(encapsulation), pieces };
        round.send_sealed((Kind::CheckSum, check), sum, pieces, rides, rules, desk);
    }
}

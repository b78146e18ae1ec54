//! The release: sums of masks over the one cohort that this member confirmed, sealed to the hospital.

use std::collections::BTreeMap;
use std::sync::Arc;

use serde_bytes::ByteBuf;

use super::{Member, MemberDesk, Round, Stage};
use crate::desk::{Stop, rule};
use crate::id::{Digest, Kind, RoundNo, To};
use crate::job::{Job, Outcome};
use crate::kdf;
use crate::message::{MaskSum, Open};
use crate::patient::Ticket as PatientTicket;
use crate::ring::Lanes;
use crate::secret::StreamKey;
use crate::session::{Rules, read_confirms, sum_info};
use crate::wire::{self, Frame};

/// What a job of a member's was for: the round and the Open that it answers.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Ticket {
    round: RoundNo,
    open: Digest,
}

/// What a member was asked to release in one round, by the digest of each Open.
#[derive(Debug, Default)]
pub(super) struct Releases(BTreeMap<Digest, Release>);

#[derive(Debug)]
struct Release {
    blocks: Vec<u16>,
    /// The chunks that are summed so far.
    sums: BTreeMap<u32, Lanes>,
}

impl Member {
    pub(super) fn on_open(&mut self, frame: &Frame, rules: &Rules, desk: &mut MemberDesk<'_>) -> Result<(), Stop> {
        let (seat, lineup) = (self.seat, self.lineup.clone());
        let round = self.current(frame)?;
        frame.verify(&rules.hospital)?;
        let Stage::Confirmed(fixed, releases) = &mut round.stage else { return Err(Stop::Early) };
        if frame.envelope.after != fixed.digest {
            // The hospital may be honest: the server may have shown it another Cohort.
            return Err(Stop::Useless("an Open of a cohort that this member did not confirm"));
        }
        if desk.now >= round.asked.ends() {
            return Err(Stop::Useless("the round is over"));
        }
        if releases.0.contains_key(&frame.digest) {
            return Err(Stop::Useless("the open is known"));
        }
        let open: Open = frame.envelope.body()?;
        let seats = read_confirms(&open.confirms, fixed.digest, rules.session, round.asked.round, &lineup)?;
        if seats.len() < usize::from(rules.announce.sharing.quorum()) {
            return Err(rule("an Open with fewer than q Confirms"));
        }
        let Some((_, blocks)) = open.senders.iter().find(|(sender, _)| *sender == seat) else { return Ok(()) };
        check_blocks(blocks, seat, rules)?;
        releases.0.insert(frame.digest, Release { blocks: blocks.clone(), sums: BTreeMap::new() });
        self.expand(frame.digest, rules, desk)
    }

    /// Has the masks of the cohort summed, chunk by chunk.
    fn expand(&mut self, open: Digest, rules: &Rules, desk: &mut MemberDesk<'_>) -> Result<(), Stop> {
        let Some(Round { asked, holdings, stage: Stage::Confirmed(fixed, releases), .. }) = &self.round else {
            return Err(Stop::Early);
        };
        let Some(release) = releases.0.get(&open) else { return Err(Stop::Early) };
        let mut keys: Vec<StreamKey> = Vec::new();
        for place in fixed.places() {
            for block in &release.blocks {
                keys.push(holdings.stream_key(place, *block).ok_or(rule("a block that this member does not hold"))?);
            }
        }
        let keys: Arc<[StreamKey]> = keys.into();
        let ticket = Ticket { round: asked.round, open };
        for chunk in 0..asked.chunks.count() {
            let job = Job::Expand { chunk, chunks: asked.chunks, keys: keys.clone() };
            desk.run(PatientTicket::Member(rules.session, ticket), job);
        }
        Ok(())
    }

    pub(crate) fn done(&mut self, ticket: Ticket, outcome: Outcome, rules: &Rules, desk: &mut MemberDesk<'_>) {
        if self.round.as_ref().is_none_or(|round| round.asked.round != ticket.round || desk.now >= round.asked.ends()) {
            return;
        }
        match outcome {
            Outcome::Expanded { chunk, sum } => self.expanded(ticket, chunk, sum, rules, desk),
            Outcome::Sealed { encapsulation, pieces } => self.sealed(ticket, encapsulation, &pieces, rules, desk),
            _ => {}
        }
    }

    fn expanded(&mut self, ticket: Ticket, chunk: u32, sum: Lanes, rules: &Rules, desk: &mut MemberDesk<'_>) {
        let Some(Round { asked, root, stage: Stage::Confirmed(fixed, releases), .. }) = &mut self.round else { return };
        let Some(release) = releases.0.get_mut(&ticket.open) else { return };
        release.sums.insert(chunk, sum);
        if release.sums.len() < asked.chunks.count() as usize {
            return;
        }
        let job = Job::Seal {
            to: rules.announce.seal_key.clone(),
            info: sum_info(rules.session, asked.round, &desk.me.name, ticket.open),
            root: root.duplicate(),
            blocks: wire::encode(&release.blocks),
            sums: std::mem::take(&mut release.sums).into_values().collect(),
            ring: asked.begin.ring,
        };
        let cohort = fixed.digest;
        self.mark_released(cohort, rules, desk);
        desk.run(PatientTicket::Member(rules.session, ticket), job);
    }

    fn mark_released(&mut self, cohort: Digest, rules: &Rules, desk: &mut MemberDesk<'_>) {
        if let Some(confirmed) = self.confirmed.iter_mut().find(|confirmed| confirmed.cohort == cohort) {
            confirmed.released = true;
        }
        self.save_confirmed(rules, desk);
    }

    fn sealed(
        &mut self,
        ticket: Ticket,
        encapsulation: Vec<u8>,
        pieces: &[bytes::Bytes],
        rules: &Rules,
        desk: &mut MemberDesk<'_>,
    ) {
        let Some(round) = &self.round else { return };
        let digests: Vec<Digest> = pieces.iter().map(|piece| kdf::chunk_digest(piece)).collect();
        let to = To::One(rules.hospital.name.clone());
        let pen = round.pen(rules, desk.me);
        let sum = MaskSum { encapsulation: ByteBuf::from(encapsulation), pieces: digests.clone() };
        let signed = pen.sign(Kind::MaskSum, to.clone(), ticket.open, &sum);
        // What fits one message rides in it; the pieces of a long sum follow as chunks.
        let attached = if pieces.len() == 2 { pieces } else { &pieces[..1] };
        let attachment = wire::encode(&attached.iter().map(|piece| serde_bytes::Bytes::new(piece)).collect::<Vec<_>>());
        desk.out.send.push(pen.post(Kind::MaskSum, &signed, to.clone(), &attachment));
        for (digest, piece) in digests.iter().zip(pieces).skip(attached.len()) {
            desk.out.send.push(pen.chunk(to.clone(), *digest, piece.clone()));
        }
    }
}

/// Whether these are different blocks that `seat` holds.
fn check_blocks(blocks: &[u16], seat: u8, rules: &Rules) -> Result<(), Stop> {
    let held = |block: &u16| rules.blocks.get(usize::from(*block)).is_some_and(|block| !block.contains(seat));
    if blocks.is_sorted_by(|a, b| a < b) && !blocks.is_empty() && blocks.iter().all(held) {
        Ok(())
    } else {
        Err(rule("an Open that asks for blocks twice, unsorted, or that this member does not hold"))
    }
}

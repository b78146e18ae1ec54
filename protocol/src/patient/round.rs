//! One round of a patient: decline by rule, or mask and share.

use std::sync::Arc;

use bytes::Bytes;
use serde::{Deserialize, Serialize};
use serde_bytes::ByteBuf;

use super::Ticket;
use super::session::Enrolled;
use super::vault::Vault;
use crate::desk::{Desk, Pen};
use crate::id::{Address, Digest, Kind, RoundNo, SessionId, To};
use crate::job::{Job, Outcome};
use crate::kdf;
use crate::message::{Decline, PayloadHeader, Share, ShareCore};
use crate::records::session_key;
use crate::reopen::OpenRound;
use crate::seal::{self, BoxContext};
use crate::secret::{Root, SecretBytes, Seed};
use crate::session::{Asked, Lineup, Rules};
use crate::shards::Shard;
use crate::step::{Event, Outgoing};
use crate::task::{Policy, Record};
use crate::wire;

/// One round of a patient, from its Begin to its end.
#[derive(Debug)]
pub(crate) struct Round {
    pub(super) asked: Asked,
    root: Root,
    stage: Stage,
    /// What is answered from, and its digest: chunks may have to be masked again.
    record: Option<(Arc<Record>, Digest)>,
}

#[derive(Debug)]
enum Stage {
    /// It does not answer.
    Declined,
    /// It was sharing when it was stopped: what it wrote is made again, byte for byte.
    Stopped,
    /// The vector is being masked; again, where the board may have lost chunks of it.
    Masking { again: bool },
    /// The Share is on its way to the servers; a server's chunks of a long vector follow once the Share is there. Given
    /// away to be sent, they are kept no longer.
    Sharing { parts: Vec<Part>, given: bool },
    /// It is too late to share.
    Missed,
}

/// What one server gets of a long vector, once the Share that stands at this address is on the board.
#[derive(Debug)]
struct Part {
    share: Address,
    chunks: Vec<(Digest, Bytes)>,
}

/// What the store keeps of an open round.
#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Stored {
    open: OpenRound,
    /// Who declined does not share later in the same round.
    declined: bool,
}

impl Round {
    /// Answers `asked`: every ground to decline is a rule that does not depend on a value.
    pub(super) fn answer(
        asked: Asked,
        root: Root,
        rules: &Rules,
        enrolled: &Enrolled,
        policy: &Policy,
        vault: &mut Vault,
        desk: &mut Desk<'_, Ticket>,
    ) -> Self {
        let mut round = Self { asked, root, stage: Stage::Masking { again: false }, record: None };
        match round.objection(rules.session, enrolled, policy, vault) {
            Some((decline, why)) => round.decline(decline, why, rules, desk),
            None => {
                vault.bind(&round.asked.begin.snapshot, rules.session, enrolled.lineup.digest, desk);
                round.mask(rules, vault, desk);
            }
        }
        let stored = Stored {
            open: OpenRound::new(&round.asked, &round.root),
            declined: matches!(round.stage, Stage::Declined),
        };
        desk.out.put(session_key(rules.session, "round"), wire::encode(&stored));
        round
    }

    /// The round as the store has it.
    pub(super) fn restore(stored: &[u8], last: RoundNo, rules: &Rules, lineup: &Lineup) -> Option<Self> {
        let Stored { open, declined } = wire::decode(stored, "round").ok()?;
        let (asked, root) = open.reopen(last, rules, lineup)?;
        let stage = if declined { Stage::Declined } else { Stage::Stopped };
        Some(Self { asked, root, stage, record: None })
    }

    /// What the member of this patient derives all from that it writes in this round.
    pub(super) fn member_root(root: &Root, begin: Digest) -> Root {
        Root::new(kdf::derive("ward/1 member root", root.expose(), &[&begin.0]))
    }

    pub(super) fn root(&self) -> &Root {
        &self.root
    }

    /// Goes on after a restart: the same vector under the same root gives the same bytes. Other values than were bound
    /// are not answered from.
    pub(super) fn resume(&mut self, rules: &Rules, roster: Digest, vault: &Vault, desk: &mut Desk<'_, Ticket>) {
        if !matches!(self.stage, Stage::Stopped) {
            return;
        }
        let bound = vault.is_bound(&self.asked.begin.snapshot, rules.session, roster);
        self.stage = if bound { Stage::Masking { again: false } } else { Stage::Missed };
        if bound {
            self.mask(rules, vault, desk);
        }
    }

    /// Masks once more what was given away and the board may have lost: the same bytes.
    pub(super) fn again(&mut self, rules: &Rules, desk: &mut Desk<'_, Ticket>) {
        if let Stage::Sharing { given: true, .. } = self.stage {
            self.stage = Stage::Masking { again: true };
            self.begin_masking(rules, desk);
        }
    }

    fn objection(
        &self,
        session: SessionId,
        enrolled: &Enrolled,
        policy: &Policy,
        vault: &Vault,
    ) -> Option<(Decline, String)> {
        let begin = &self.asked.begin;
        let refuse = |why: String| Some((Decline::Policy, why));
        let schema = vault.schema();
        for column in begin.question.columns() {
            if !schema.columns.contains(column) {
                return refuse(format!("column `{}` of width {} is not in the schema", column.name, column.width));
            }
            if !policy.columns.accepts(&column.name) {
                return refuse(format!("column `{}` is not among those the policy lets be asked for", column.name));
            }
        }
        if begin.scale != schema.scale || begin.scaled_bound < schema.scaled_bound {
            return refuse("its scale is not the schema's, or its bound is smaller".into());
        }
        if !payload_fits(begin.payload.as_ref(), enrolled.payload_key.as_deref(), self.asked.round.0) {
            return refuse("the payload key it was given does not fit the commitment in Begin".into());
        }
        if let Some(other) = vault.belongs_elsewhere(&begin.snapshot, session, enrolled.lineup.digest) {
            let why = format!("snapshot `{}` belongs to session {}", begin.snapshot, other.short());
            return Some((Decline::Once(other), why));
        }
        match vault.record(&begin.snapshot) {
            Some(_) => None,
            None => refuse(format!("no data were given under snapshot `{}`", begin.snapshot)),
        }
    }

    fn decline(&mut self, decline: Decline, why: String, rules: &Rules, desk: &mut Desk<'_, Ticket>) {
        self.stage = Stage::Declined;
        let pen = self.pen(rules.session, desk);
        let signed = pen.sign(Kind::Decline, To::All, self.asked.digest, &decline);
        let servers = rules.announce.servers.iter();
        let sends = servers.map(|server| pen.post(Kind::Decline, &signed, To::One(server.clone()), &[]));
        let sends: Vec<_> = sends.collect();
        desk.out.send.extend(sends);
        desk.out.event(Event::Declined { session: rules.session, round: self.asked.round, decline, why });
    }

    /// Has the data under the snapshot masked.
    fn mask(&mut self, rules: &Rules, vault: &Vault, desk: &mut Desk<'_, Ticket>) {
        self.record = vault.record(&self.asked.begin.snapshot);
        self.begin_masking(rules, desk);
    }

    fn begin_masking(&self, rules: &Rules, desk: &mut Desk<'_, Ticket>) {
        let begin = &self.asked.begin;
        let Some((record, input)) = self.record.clone() else { return };
        let job = Job::Mask {
            question: begin.question.clone(),
            record,
            input,
            chunks: self.asked.chunks,
            root: self.root.duplicate(),
            begin: self.asked.digest,
            blocks: rules.blocks.len() as u16,
        };
        desk.run(Ticket::Mask(rules.session, self.asked.round), job);
    }

    /// The masked vector is there: write the Share to the servers, then with its box to each member.
    pub(super) fn masked(&mut self, outcome: Outcome, rules: &Rules, enrolled: &Enrolled, desk: &mut Desk<'_, Ticket>) {
        let (Stage::Masking { again }, Outcome::Masked { chunks, digests, seeds }) = (&self.stage, outcome) else {
            return;
        };
        let again = *again;
        // Who had shared in time may still be asked for: the hospital reads chunks to the round's end.
        if !again && desk.now >= self.asked.shares_close() {
            self.stage = Stage::Missed;
            return;
        }
        let Some((share, boxes)) = self.share(&digests, &seeds, rules, enrolled, desk) else { return };
        let pen = self.pen(rules.session, desk);
        let signed = pen.sign(Kind::Share, To::All, self.asked.digest, &share);
        let mut sends = Vec::new();
        let mut parts = Vec::new();
        for (server, shard) in rules.announce.servers.iter().zip(Shard::all(rules.announce.servers.len())) {
            let rides = shard.rides(&self.asked.chunks);
            let mut part: Vec<_> = shard.chunks(&self.asked.chunks).map(|j| chunk_of(j, &digests, &chunks)).collect();
            let attached = if rides { part.pop().map(|(_, bytes)| bytes) } else { None }.unwrap_or_default();
            let post = pen.post(Kind::Share, &signed, To::One(server.clone()), &attached);
            let report = !part.is_empty();
            if report {
                parts.push(Part { share: post.address.clone(), chunks: part });
            }
            sends.push(Outgoing { report, ..post });
        }
        for (seat, sealed) in enrolled.lineup.seats.iter().zip(&boxes) {
            sends.push(pen.post(Kind::Share, &signed, To::One(seat.identity.name.clone()), sealed));
        }
        desk.out.send.extend(sends);
        self.stage = Stage::Sharing { parts, given: false };
        if !again {
            let (session, snapshot) = (rules.session, self.asked.begin.snapshot.clone());
            desk.out.event(Event::Shared { session, round: self.asked.round, snapshot });
        }
    }

    /// The Share and the box of each seat.
    fn share(
        &self,
        digests: &[Digest],
        seeds: &[Seed],
        rules: &Rules,
        enrolled: &Enrolled,
        desk: &Desk<'_, Ticket>,
    ) -> Option<(Share, Vec<Vec<u8>>)> {
        let begin = self.asked.digest;
        let commit = |(block, seed): (u16, &Seed)| seed.commitment(&desk.me.name, block, begin);
        let commitments = (0u16..).zip(seeds).map(commit).collect();
        let core = ShareCore { place: enrolled.place, chunks: digests.to_vec(), commitments };
        let mut share = Share { core: ByteBuf::from(wire::encode(&core)), boxes: Vec::new() };
        let core = share.core_digest();
        let mut boxes = Vec::new();
        for (seat, chain) in (0u8..).zip(&enrolled.chains) {
            let receiver = &enrolled.lineup.seats[usize::from(seat)].identity.name;
            let text = box_text(seeds, rules, seat);
            let salt = kdf::derive("ward/1 box salt", self.root.expose(), &[&core.0, receiver.as_str().as_bytes()]);
            let context = BoxContext { begin, core, sender: &desk.me.name, receiver };
            boxes.push(seal::seal_box(&chain.key(self.asked.round)?, salt, &context, &text).ok()?);
        }
        share.boxes = boxes.iter().map(|sealed| wire::attachment_digest(sealed)).collect();
        Some((share, boxes))
    }

    /// A server has the Share: its chunks of a long vector may follow.
    pub(super) fn sent(&mut self, address: &Address, desk: &mut Desk<'_, Ticket>) {
        let Stage::Sharing { parts, given } = &mut self.stage else { return };
        let Some(at) = parts.iter().position(|part| part.share == *address) else { return };
        let Part { share, chunks } = parts.swap_remove(at);
        *given = true;
        for (digest, bytes) in chunks {
            let name = wire::message_name(self.root.expose(), digest, Digest::default(), &share.to);
            let address = Address { kind: Kind::Chunk, name, ..share.clone() };
            desk.out.remade.insert(address.clone());
            desk.out.send.push(Outgoing { address, payload: bytes, report: false });
        }
    }

    fn pen<'a>(&'a self, session: SessionId, desk: &Desk<'a, Ticket>) -> Pen<'a> {
        Pen { me: desk.me, session, round: self.asked.round, secret: self.root.expose() }
    }
}

/// Chunk `j` and its digest.
fn chunk_of(j: u32, digests: &[Digest], chunks: &[Bytes]) -> (Digest, Bytes) {
    (digests[j as usize], chunks[j as usize].clone())
}

/// The seeds of the blocks that `seat` holds, in the order of the blocks.
fn box_text(seeds: &[Seed], rules: &Rules, seat: u8) -> SecretBytes {
    let mut text = Vec::with_capacity(32 * seeds.len());
    for (seed, block) in seeds.iter().zip(rules.blocks.iter()) {
        if !block.contains(seat) {
            text.extend_from_slice(seed.expose());
        }
    }
    text.into()
}

/// Whether the key that this patient was given is the one that Begin commits to.
fn payload_fits(header: Option<&PayloadHeader>, key: Option<&[u8; 32]>, round: u32) -> bool {
    match (header, key) {
        (None, _) => true,
        (Some(header), Some(key)) => payload_commitment(key, round) == header.key,
        (Some(_), None) => false,
    }
}

/// The commitment to a round's payload key.
pub(crate) fn payload_commitment(key: &[u8; 32], round: u32) -> Digest {
    let round_key = kdf::derive("ward/1 payload round key", key, &[&round.to_le_bytes()]);
    kdf::digest("ward/1 payload key commitment", &[&round_key])
}

//! A forger, who has every party's keys and signs what no honest party would.

use std::collections::BTreeMap;

use bytes::Bytes;
use protocol::memory::Delivery;
use protocol::message::{Begin, Cohort, Confirm, Refuse, Share, ShareCore};
use protocol::*;
use serde::Serialize;
use serde_bytes::ByteBuf;

use super::{Study, name, p, snapshot, value};

impl Study {
    /// Signs `body` as `by`.
    pub fn sign<B: Serialize>(&self, by: &Name, kind: Kind, to: To, after: Digest, body: &B) -> Signed {
        let round = if self.net.count(Kind::Begin) == 0 || is_setup(kind) { RoundNo::SETUP } else { self.round() };
        self.sign_for(round, by, kind, to, after, body)
    }

    pub fn sign_for<B: Serialize>(
        &self,
        round: RoundNo,
        by: &Name,
        kind: Kind,
        to: To,
        after: Digest,
        body: &B,
    ) -> Signed {
        let envelope = Envelope {
            version: VERSION,
            session: if kind == Kind::Announce { Digest::default() } else { self.session },
            round,
            from: by.clone(),
            to,
            kind,
            after,
            body: ByteBuf::from(encode(body)),
        };
        Signed::new(&envelope, &self.net.me(by).unwrap().signing)
    }

    /// Puts a signed message on its way to `receiver`, under the subject that it says itself.
    pub fn deliver(&mut self, signed: &Signed, receiver: &Name, attachment: &[u8]) {
        let (address, payload) = stand(signed, receiver, attachment);
        self.net.inject(Delivery { receiver: receiver.clone(), address, payload, delay: 0 });
    }

    /// The same to several.
    pub fn deliver_all<'a>(&mut self, signed: &Signed, receivers: impl IntoIterator<Item = &'a Name>) {
        receivers.into_iter().for_each(|receiver| self.deliver(signed, receiver, &[]));
    }

    /// A Confirm of `cohort` by `member`.
    pub fn confirm(&self, member: &Name, cohort: Digest) -> Signed {
        self.sign(member, Kind::Confirm, To::One(name("hospital")), cohort, &Confirm())
    }

    /// The Cohort of these places in one round, as the server would sign it.
    pub fn forge_cohort(&self, round: u32, begin: Digest, places: impl IntoIterator<Item = usize>) -> Signed {
        let shares = self.shares(round);
        let chosen = places.into_iter().map(|place| (place, shares[&place])).collect();
        let cohort = cohort_of(self.build.patients as u32, &chosen);
        self.sign_for(RoundNo(round), &name("server"), Kind::Cohort, To::All, begin, &cohort)
    }

    /// A Begin of the hospital's that asks as the newest one does, changed.
    pub fn forge_begin(&self, round: u32, change: impl FnOnce(&mut Begin)) -> Signed {
        let mut begin: Begin = self.begin().envelope.body().unwrap();
        change(&mut begin);
        self.sign_for(RoundNo(round), &name("hospital"), Kind::Begin, To::All, self.roster().digest, &begin)
    }

    /// A round that hospital and server forge between them: a Begin to all patients and then, to `members`, a Cohort of
    /// `places`. Who of them confirmed; the others' refusals.
    pub fn forge_round(
        &mut self,
        round: u32,
        places: impl IntoIterator<Item = usize>,
        members: &[usize],
    ) -> (Vec<usize>, Vec<Refuse>) {
        let begin: Begin = self.begin().envelope.body().unwrap();
        self.forge_round_over(round, begin.snapshot.as_str(), places, members)
    }

    /// As [`Study::forge_round`], over this snapshot.
    pub fn forge_round_over(
        &mut self,
        round: u32,
        label: &str,
        places: impl IntoIterator<Item = usize>,
        members: &[usize],
    ) -> (Vec<usize>, Vec<Refuse>) {
        let begin = self.forge_begin(round, |begin| {
            begin.same_as = None;
            begin.snapshot = snapshot(label);
        });
        let patients: Vec<Name> = self.all().map(p).collect();
        self.deliver_all(&begin, &patients);
        self.net.sleep(1_000);
        let cohort = self.forge_cohort(round, begin.digest(), places);
        members.iter().for_each(|member| self.deliver(&cohort, &p(*member), &[]));
        self.net.sleep(1_000);
        let of_cohort = |kind| {
            let frames = self.frames(kind).into_iter().map(|(_, frame)| frame);
            frames.filter(|frame| frame.envelope.after == cohort.digest()).collect::<Vec<_>>()
        };
        let place = |frame: &Frame| self.all().find(|i| p(*i) == frame.envelope.from).unwrap();
        let refusals = of_cohort(Kind::Refuse).iter().map(|frame| frame.envelope.body().unwrap()).collect();
        (of_cohort(Kind::Confirm).iter().map(place).collect(), refusals)
    }

    /// A Share that patient `who` makes by hand, from its keys as its store has them, and what goes with it.
    pub fn forge_share(&self, who: usize, change: impl FnOnce(&mut Forged)) -> Forged {
        let begin = self.begin();
        let asked: Begin = begin.envelope.body().unwrap();
        let sharing = Sharing::new(self.build.committee, self.build.threshold).unwrap();
        let blocks = sharing.blocks();
        let chunks = Chunks::new(asked.ring, asked.question.dimension()).unwrap();
        let seeds: Vec<[u8; 32]> = (0..blocks.len()).map(|at| [at as u8 + 1; 32]).collect();
        let columns = self.build.columns.iter().flat_map(|column| 0..column.width);
        let values: Vec<i64> = columns.map(|j| value(who, j)).collect();
        let mut pieces = Vec::new();
        for chunk in 0..chunks.count() {
            let start = chunks.start(chunk) as usize;
            let mut lanes = Lanes::from_i64(asked.ring, &values[start..start + chunks.len(chunk)]).unwrap();
            for seed in &seeds {
                sub_mask(&Seed::new(*seed).stream_key(), asked.ring, start as u64, &mut lanes);
            }
            pieces.push(lanes.pack(asked.ring));
        }
        let commit = |(block, seed): (u16, &[u8; 32])| Seed::new(*seed).commitment(&p(who), block, begin.digest);
        let core = ShareCore {
            place: Place(who as u32),
            chunks: pieces.iter().map(|piece| chunk_digest(piece)).collect(),
            commitments: (0..).zip(&seeds).map(commit).collect(),
        };
        let held = |seat: u8| sharing.held_by(seat).into_iter().map(|block| seeds[block]).collect();
        let boxes = (0..sharing.committee()).map(held).collect();
        let mut forged = Forged { who, core, pieces, boxes, text: None, sealed: None };
        change(&mut forged);
        forged
    }

    /// Seals, signs and sends what was forged: to the server, then to each member.
    pub fn send_share(&mut self, forged: &Forged) -> Signed {
        let begin = self.begin().digest;
        let mut share = Share { core: ByteBuf::from(encode(&forged.core)), boxes: Vec::new() };
        let core = share.core_digest();
        let committee = self.committee();
        let chains = self.chains(&p(forged.who), self.round().0);
        let mut sealed = Vec::new();
        for (seat, texts) in forged.boxes.iter().enumerate() {
            let sender = p(forged.who);
            let context = BoxContext { begin, core, sender: &sender, receiver: &committee[seat] };
            let text = match &forged.text {
                Some((other, text)) if *other == seat => text.clone(),
                _ => texts.concat(),
            };
            sealed.push(seal_box(&chains[seat], [7; 32], &context, &text).unwrap());
        }
        let sealed = forged.sealed.clone().unwrap_or(sealed);
        share.boxes = sealed.iter().map(|one| attachment_digest(one)).collect();
        let signed = self.sign(&p(forged.who), Kind::Share, To::All, begin, &share);
        let single: &[u8] = if forged.pieces.len() == 1 { &forged.pieces[0] } else { &[] };
        let mut attachments: Vec<(Name, Vec<u8>)> = committee.into_iter().zip(sealed).collect();
        attachments.push((name("server"), single.to_vec()));
        for (receiver, attachment) in attachments {
            let (address, payload) = stand(&signed, &receiver, &attachment);
            self.net.post(address, payload);
        }
        signed
    }
}

/// A Share made by hand: what it says, its vector, and for each seat the seeds of its box.
pub struct Forged {
    pub who: usize,
    pub core: ShareCore,
    pub pieces: Vec<Vec<u8>>,
    pub boxes: Vec<Vec<[u8; 32]>>,
    /// What is sealed for one seat in place of its seeds.
    pub text: Option<(usize, Vec<u8>)>,
    /// Boxes to send in place of those that would be sealed.
    pub sealed: Option<Vec<Vec<u8>>>,
}

fn is_setup(kind: Kind) -> bool {
    matches!(kind, Kind::Announce | Kind::Join | Kind::Roster | Kind::List | Kind::Place | Kind::Key | Kind::PayloadKey)
}

pub fn encode<T: Serialize>(value: &T) -> Vec<u8> {
    rmp_serde::to_vec(value).unwrap()
}

/// Where and how a signed message stands for `receiver`.
pub fn stand(signed: &Signed, receiver: &Name, attachment: &[u8]) -> (Address, Bytes) {
    let frame = signed.open().unwrap();
    let envelope = frame.envelope;
    let session = if envelope.kind == Kind::Announce { frame.digest } else { envelope.session };
    let to = if envelope.to == To::All { To::One(receiver.clone()) } else { envelope.to };
    let Envelope { round, from, kind, .. } = envelope;
    let mut unique = [0; 16];
    unique.copy_from_slice(&digest("ward/1 test name", &[&frame.digest.0, attachment]).0[..16]);
    let address = Address { session: session.into(), round, from, to, kind, name: MessageName(unique) };
    (address, signed.frame(attachment))
}

/// A digest as the protocol makes them, written here once more: BLAKE3 with a context, each part after its length.
pub fn digest(context: &str, parts: &[&[u8]]) -> Digest {
    let mut hasher = blake3::Hasher::new_derive_key(context);
    for part in parts {
        hasher.update(&(part.len() as u64).to_le_bytes());
        hasher.update(part);
    }
    Digest(*hasher.finalize().as_bytes())
}

pub fn attachment_digest(bytes: &[u8]) -> Digest {
    digest("ward/1 attachment", &[bytes])
}

/// The Cohort of these places and Shares.
pub fn cohort_of(count: u32, shares: &BTreeMap<usize, Digest>) -> Cohort {
    let leaf =
        |(place, share): (&usize, &Digest)| digest("ward/1 cohort leaf", &[&(*place as u32).to_le_bytes(), &share.0]);
    let leaves: Vec<Digest> = shares.iter().map(leaf).collect();
    let places = Places::of(count, shares.keys().map(|place| Place(*place as u32)));
    Cohort { places, root: merkle::root(&leaves) }
}

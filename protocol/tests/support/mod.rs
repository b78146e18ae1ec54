//! What all tests of the protocol share: a study in memory with known values, and a forger that signs what it likes.
//!
//! Patient `i` is called `p00`, `p01`, .. and has `±2^i` in every coordinate, so a sum tells exactly who is in it.

#![allow(dead_code, missing_docs, unreachable_pub, clippy::unwrap_used, clippy::expect_used, clippy::panic)]

use std::collections::BTreeMap;

use bytes::Bytes;
use protocol::memory::{Delivery, Network};
use protocol::message::{Begin, Cohort, Confirm, Open, Refuse, Roster, Share, ShareCore};
use protocol::*;
use serde::Serialize;
use serde::de::DeserializeOwned;
use serde_bytes::ByteBuf;

pub fn name(text: &str) -> Name {
    text.parse().unwrap()
}

/// The name of patient `i`.
pub fn p(i: usize) -> Name {
    name(&format!("p{i:02}"))
}

pub fn snapshot(label: &str) -> Snapshot {
    label.parse().unwrap()
}

/// What a study is built from.
#[derive(Clone)]
pub struct Build {
    pub seed: u64,
    pub patients: usize,
    /// How many of them, counted from the first, are marked: by default all.
    pub marked: usize,
    pub committee: u8,
    pub threshold: u8,
    pub min_cohort: u32,
    pub columns: Vec<Column>,
    pub bound: u64,
    pub scale: Scale,
    pub payloads: bool,
    /// How many the hospital expects; by default all.
    pub expect: Option<u32>,
    pub candidates: Vec<Name>,
    pub lifetime_seconds: u32,
    pub policy: Policy,
}

pub fn policy() -> Policy {
    Policy {
        study: "ward".into(),
        min_cohort: 2,
        min_committee: 2,
        min_threshold: 1,
        hospitals: Accepted::Anyone,
        members: Accepted::Anyone,
        columns: AcceptedColumns::All,
    }
}

impl Build {
    /// `patients` of whom the first c are marked, so the committee is known: p00, p01, ..
    pub fn new(patients: usize, committee: u8, threshold: u8) -> Self {
        Self {
            seed: 1,
            patients,
            marked: committee.into(),
            committee,
            threshold,
            min_cohort: 2,
            columns: vec![Column::scalar("value")],
            bound: 1 << 20,
            scale: Scale::new(1).unwrap(),
            payloads: false,
            expect: None,
            candidates: Vec::new(),
            lifetime_seconds: 90 * 86_400,
            policy: policy(),
        }
    }

    pub fn schema(&self) -> Schema {
        Schema { columns: self.columns.clone(), scaled_bound: self.bound, scale: self.scale }
    }

    /// One column of `d` coordinates.
    pub fn wide(mut self, d: u32) -> Self {
        self.columns = vec![Column { name: "value".into(), width: d }];
        self
    }

    pub fn plan(&self, now: Time) -> Plan {
        Plan::new(Settings {
            study: "ward".into(),
            expect: self.expect.unwrap_or(self.patients as u32),
            committee: Some(self.committee),
            threshold: Some(self.threshold),
            min_cohort: Some(self.min_cohort),
            candidates: self.candidates.clone(),
            server: name("server"),
            payloads: self.payloads,
            join_seconds: 30,
            not_after: now.plus_seconds(self.lifetime_seconds),
        })
        .unwrap()
    }

    pub fn record(&self, i: usize) -> Record {
        let columns = self.columns.iter();
        let columns = columns.map(|column| (column.name.clone(), (0..column.width).map(|j| value(i, j)).collect()));
        Record::new(columns.collect(), &self.schema()).unwrap()
    }

    /// All parties, with values under snapshot `1`, and no session.
    pub fn parties(self) -> Study {
        let mut net = Network::new(self.seed);
        net.add_hospital(&name("hospital"));
        net.add_server(&name("server"));
        for i in 0..self.patients {
            let role = if i < self.marked { Role::Member } else { Role::Patient };
            net.add_patient(&p(i), role, self.policy.clone(), self.schema());
            net.offer(&p(i), &snapshot("1"), self.record(i)).unwrap();
        }
        Study { net, build: self, session: Digest::default() }
    }

    /// All parties in an open session: Roster, list and Keys are where they belong.
    pub fn start(self) -> Study {
        let mut study = self.parties();
        study.announce();
        study.net.run();
        study
    }
}

/// The value of patient `i` at coordinate `j`.
pub fn value(i: usize, j: u32) -> i64 {
    if (i as u32 + j).is_multiple_of(2) { 1 << i } else { -(1 << i) }
}

/// How a round ended, as the hospital says.
#[derive(Debug, PartialEq)]
pub enum End {
    Opened(Vec<i64>),
    Aborted(AbortReason),
}

/// A study that runs.
pub struct Study {
    pub net: Network,
    pub build: Build,
    pub session: SessionId,
}

impl Study {
    pub fn announce(&mut self) -> SessionId {
        let plan = self.build.plan(self.net.now());
        self.session = self.net.announce(&plan).unwrap();
        self.session
    }

    pub fn question(&self) -> Ask {
        Ask {
            question: Question::Sum(self.build.columns.clone()),
            snapshot: snapshot("1"),
            ring: None,
            scale: self.build.scale,
            scaled_bound: self.build.bound,
            enough: None,
            round_seconds: 60,
            last: false,
        }
    }

    /// Puts a question and lets everything happen that follows.
    pub fn ask_with(&mut self, change: impl FnOnce(&mut Ask)) -> End {
        self.put(change);
        self.net.run();
        self.end()
    }

    pub fn ask(&mut self) -> End {
        self.ask_with(|_| {})
    }

    /// Puts a question; nothing is delivered yet.
    pub fn put(&mut self, change: impl FnOnce(&mut Ask)) {
        let mut ask = self.question();
        change(&mut ask);
        self.net.ask(self.session, ask).unwrap();
    }

    /// How the newest round ended.
    pub fn end(&self) -> End {
        self.ends().pop().expect("the hospital has the end of a round")
    }

    /// How all rounds ended.
    pub fn ends(&self) -> Vec<End> {
        let of_hospital = self.net.events().iter().filter(|(who, _)| *who == name("hospital"));
        of_hospital
            .filter_map(|(_, event)| match event {
                Event::Opened(answer) => Some(End::Opened(answer.sum.clone())),
                Event::Aborted { reason, .. } => Some(End::Aborted(reason.clone())),
                _ => None,
            })
            .collect()
    }

    /// What the hospital advised with its newest Abort.
    pub fn advice(&self) -> String {
        let advice = self.net.events().iter().rev().find_map(|(who, event)| match event {
            Event::Aborted { advice, .. } if *who == name("hospital") => Some(advice.clone()),
            _ => None,
        });
        advice.unwrap_or_default()
    }

    /// The sum over these patients.
    pub fn sum(&self, of: impl IntoIterator<Item = usize> + Clone) -> End {
        let coordinates = self.build.columns.iter().flat_map(|column| 0..column.width);
        End::Opened(coordinates.map(|j| of.clone().into_iter().map(|i| value(i, j)).sum()).collect())
    }

    /// The sum over these patients where `columns` scalar columns are asked.
    pub fn sum_of(&self, of: impl IntoIterator<Item = usize>, columns: usize) -> End {
        End::Opened(vec![of.into_iter().map(|i| value(i, 0)).sum(); columns])
    }

    pub fn all(&self) -> std::ops::Range<usize> {
        0..self.build.patients
    }

    /// Every fault that anybody found: who found it, and what.
    pub fn faults(&self) -> Vec<(Name, Fault)> {
        let faults = self.net.events().iter().filter_map(|(who, event)| match event {
            Event::Fault(fault) => Some((who.clone(), fault.clone())),
            _ => None,
        });
        faults.collect()
    }

    /// Who is named in faults, each once.
    pub fn accused(&self) -> Vec<Name> {
        let mut names: Vec<Name> = self.faults().into_iter().map(|(_, fault)| fault.from).collect();
        names.sort();
        names.dedup();
        names
    }

    /// What was dropped without a fault at `who`, by kind and reason.
    pub fn dropped(&self, who: &Name) -> Vec<(Kind, &'static str)> {
        let dropped = self.net.events().iter().filter(|(party, _)| party == who).filter_map(|(_, event)| match event {
            Event::Dropped { kind, why, .. } => Some((*kind, *why)),
            _ => None,
        });
        dropped.collect()
    }

    /// The messages of one kind that stand on the board for this session, oldest round first.
    pub fn frames(&self, kind: Kind) -> Vec<(Address, Frame)> {
        let tag = self.session.into();
        let of_kind = self.net.board().iter().filter(|(address, _)| address.kind == kind && address.session == tag);
        let mut frames: Vec<_> =
            of_kind.map(|(address, bytes)| (address.clone(), Frame::decode(bytes).unwrap())).collect();
        frames.sort_by_key(|(address, _)| (address.round, address.from.clone(), address.to.clone()));
        frames
    }

    /// The newest message of one kind from `from`.
    pub fn newest(&self, kind: Kind, from: &Name) -> Frame {
        let frames = self.frames(kind).into_iter().rev();
        frames.map(|(_, frame)| frame).find(|frame| frame.envelope.from == *from).expect("such a message was written")
    }

    pub fn roster(&self) -> Frame {
        self.newest(Kind::Roster, &name("server"))
    }

    pub fn begin(&self) -> Frame {
        self.newest(Kind::Begin, &name("hospital"))
    }

    pub fn cohort(&self) -> Frame {
        self.newest(Kind::Cohort, &name("server"))
    }

    /// Who is in the newest Cohort.
    pub fn cohort_places(&self) -> Vec<usize> {
        let cohort: Cohort = self.cohort().envelope.body().unwrap();
        cohort.places.iter().map(|place| place.0 as usize).collect()
    }

    /// The committee, by seat.
    pub fn committee(&self) -> Vec<Name> {
        let roster: Roster = self.roster().envelope.body().unwrap();
        roster.committee.iter().map(|join| join.open().unwrap().envelope.from).collect()
    }

    pub fn round(&self) -> RoundNo {
        self.begin().envelope.round
    }

    /// Runs until `done`, step by step.
    pub fn until(&mut self, done: impl Fn(&Network) -> bool) {
        let until = self.net.now().plus_seconds(86_400);
        while !done(&self.net) {
            assert!(self.net.advance(until), "nothing more happens");
        }
    }

    /// Runs until nothing is on its way; the clock stands still.
    pub fn settle(&mut self) {
        while self.net.step() {}
    }

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

    /// The Open that the hospital last wrote.
    pub fn open(&self) -> (Frame, Open) {
        let frame = self.newest(Kind::Open, &name("hospital"));
        let open = frame.envelope.body().unwrap();
        (frame, open)
    }

    /// The digests of the Shares of one round, by place.
    pub fn shares(&self, round: u32) -> BTreeMap<usize, Digest> {
        let shares = self.frames(Kind::Share).into_iter().filter(|(address, _)| address.round.0 == round);
        let place = |frame: &Frame| {
            let share: Share = frame.envelope.body().unwrap();
            share.open_core().unwrap().place.0 as usize
        };
        shares.map(|(_, frame)| (place(&frame), frame.digest)).collect()
    }

    /// The Cohort of these places in one round, as the server would sign it.
    pub fn forge_cohort(&self, round: u32, begin: Digest, places: impl IntoIterator<Item = usize>) -> Signed {
        let shares = self.shares(round);
        let chosen = places.into_iter().map(|place| (place, shares[&place])).collect();
        let cohort = cohort_of(self.build.patients as u32, &chosen);
        self.sign_for(RoundNo(round), &name("server"), Kind::Cohort, To::All, begin, &cohort)
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
        let mut forged = Forged { who, core, pieces, boxes, sealed: None };
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
            sealed.push(seal_box(&chains[seat], [7; 32], &context, &texts.concat()).unwrap());
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

    /// A Begin of the hospital's that asks as the newest one does, changed.
    pub fn forge_begin(&self, round: u32, change: impl FnOnce(&mut Begin)) -> Signed {
        let mut begin: Begin = self.begin().envelope.body().unwrap();
        change(&mut begin);
        self.sign_for(RoundNo(round), &name("hospital"), Kind::Begin, To::All, self.roster().digest, &begin)
    }

    /// A record of a party's store for this session, decoded.
    pub fn stored<T: DeserializeOwned>(&self, who: &Name, what: &str) -> Option<T> {
        let bytes = self.stored_bytes(who, what)?;
        Some(rmp_serde::from_slice(&bytes).unwrap())
    }

    pub fn stored_bytes(&self, who: &Name, what: &str) -> Option<Vec<u8>> {
        self.net.store(who).unwrap().get(&format!("session/{}/{what}", self.session)).map(|value| value.to_vec())
    }

    /// The chain keys that patient `who` shares with each seat, as its store has them, moved on to `round`.
    pub fn chains(&self, who: &Name, round: u32) -> Vec<ChainKey> {
        let stored: Vec<(u32, ByteBuf)> = self.stored(who, "chains").unwrap();
        let key = |(at, key): (u32, ByteBuf)| {
            ChainKey::new(key.as_slice().try_into().unwrap()).advance(round.checked_sub(at).unwrap())
        };
        stored.into_iter().map(key).collect()
    }
}

/// A Share made by hand: what it says, its vector, and for each seat the seeds of its box.
pub struct Forged {
    pub who: usize,
    pub core: ShareCore,
    pub pieces: Vec<Vec<u8>>,
    pub boxes: Vec<Vec<[u8; 32]>>,
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

/// Which rule a fault broke, if it is one.
pub fn rule_of(fault: &Fault) -> &'static str {
    match &fault.wrong {
        Wrong::Rule(rule) => rule,
        _ => "",
    }
}

/// A small source of choices for tests that try many orders: the same seed, the same choices.
pub struct Dice(u64);

impl Dice {
    pub fn new(seed: u64) -> Self {
        Self(seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1)
    }

    /// A number below `most`.
    pub fn below(&mut self, most: u64) -> u64 {
        // xorshift64*
        self.0 ^= self.0 >> 12;
        self.0 ^= self.0 << 25;
        self.0 ^= self.0 >> 27;
        (self.0.wrapping_mul(0x2545_f491_4f6c_dd1d) >> 33) % most
    }

    pub fn chance(&mut self, percent: u64) -> bool {
        self.below(100) < percent
    }
}

/// Every 32-byte secret that stands in the stores of this session now: chains, seal keys, roots, session randomness.
pub fn secrets(study: &Study) -> Vec<[u8; 32]> {
    let mut found = Vec::new();
    let everybody = (0..study.build.patients).map(p).chain([name("server"), name("hospital")]);
    for who in everybody {
        for (key, value) in study.net.store(&who).unwrap() {
            let secret = ["/chains", "/holdings", "/holding/", "/randomness", "/seal", "/payload"];
            let own_state = key.ends_with("/state") && (who == name("server") || who == name("hospital"));
            if own_state || key.ends_with("/round") {
                // The randomness, or the root, is the last field.
                found.push(value[value.len() - 32..].try_into().unwrap());
            } else if secret.iter().any(|what| key.contains(what)) && !key.ends_with("/rounds") {
                // MessagePack writes 32 bytes as c4 20 and the bytes; a bare record is the secret itself.
                found.extend(<[u8; 32]>::try_from(value.as_slice()).ok());
                let after_mark = value.windows(34).filter(|window| window[..2] == [0xc4, 0x20]);
                found.extend(after_mark.map(|window| <[u8; 32]>::try_from(&window[2..]).unwrap()));
            }
        }
    }
    found.sort_unstable();
    found.dedup();
    found
}

pub fn holds(store: &Records, secret: &[u8; 32]) -> bool {
    store.values().any(|value| value.windows(32).any(|window| window == secret))
}

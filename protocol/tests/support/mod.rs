//! What all tests of the protocol share: a study in memory with known values, and a forger that signs what it likes.
//!
//! Patient `i` is called `p00`, `p01`, .. and has `±2^i` in every coordinate, so a sum tells exactly who is in it.

#![allow(dead_code, missing_docs, unreachable_pub, clippy::unwrap_used, clippy::expect_used, clippy::panic)]

use std::collections::BTreeMap;

use bytes::Bytes;
use protocol::memory::{Delivery, Network};
use protocol::message::{Begin, Cohort, Confirm, Open, Roster};
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
        let d: u32 = self.build.columns.iter().map(|column| column.width).sum();
        End::Opened((0..d).map(|j| of.clone().into_iter().map(|i| value(i, j)).sum()).collect())
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
        self.net.store(who).unwrap().get(&format!("session/{}/{what}", self.session)).cloned()
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

fn is_setup(kind: Kind) -> bool {
    matches!(
        kind,
        Kind::Announce | Kind::Join | Kind::Roster | Kind::List | Kind::Place | Kind::Key | Kind::PayloadKey
    )
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
    let leaf = |(place, share): (&usize, &Digest)| {
        digest("ward/1 cohort leaf", &[&(*place as u32).to_le_bytes(), &share.0])
    };
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

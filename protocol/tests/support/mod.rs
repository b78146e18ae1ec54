//! What all tests of the protocol share: a study in memory with known values, and a forger that signs what it likes.
//!
//! Patient `i` is called `p00`, `p01`, .. and has `±2^i` in every coordinate, so a sum tells exactly who is in it.

// Each test file uses a part of it.
#![allow(dead_code, unused_imports)]
#![allow(missing_docs, unreachable_pub, clippy::unwrap_used, clippy::expect_used, clippy::panic)]

pub mod corpus;
mod dice;
mod expired;
mod forge;
pub mod samples;
mod secrets;
mod study;

pub use dice::Dice;
pub use expired::Expired;
pub use forge::{Forged, attachment_digest, cohort_of, digest, encode, stand};
use protocol::memory::Network;
use protocol::*;
pub use secrets::{holds, secrets};
pub use study::{Cut, End, Study, among, rule_of};

pub fn name(text: &str) -> Name {
    text.parse().unwrap()
}

/// The name of patient `i`.
pub fn p(i: usize) -> Name {
    name(&format!("p{i:02}"))
}

/// The name of server `i`.
pub fn server(i: usize) -> Name {
    if i == 0 { name("server") } else { name(&format!("server-{i}")) }
}

pub fn snapshot(label: &str) -> Snapshot {
    label.parse().unwrap()
}

/// What a study is built from.
#[derive(Clone)]
pub struct Build {
    pub seed: u64,
    pub patients: usize,
    pub servers: usize,
    /// How many patients, counted from the first, are marked: by default all.
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
    Policy::open("ward", 2)
}

impl Build {
    /// `patients` of whom the first c are marked, so the committee is known: p00, p01, ..
    pub fn new(patients: usize, committee: u8, threshold: u8) -> Self {
        Self {
            seed: 1,
            patients,
            servers: 1,
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
            servers: (0..self.servers).map(server).collect(),
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
        (0..self.servers).for_each(|i| net.add_server(&server(i)));
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

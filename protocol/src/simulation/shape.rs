//! What is played: the size of a study, its rules and what its hospital does.

use serde::{Deserialize, Serialize};

use super::dice::Dice;
use crate::decimal::Scale;
use crate::error::PlanError;
use crate::id::{Name, NameError, Snapshot, Time};
use crate::plan::{Ask, Audit, Plan, Settings};
use crate::task::{Column, Policy, Question, Record, Schema};

/// How long joins stay open, in seconds.
pub(super) const JOIN_SECONDS: u32 = 30;

/// How long a round may take, in seconds.
pub(super) const ROUND_SECONDS: u32 = 60;

/// How long a session may live, in seconds.
pub(super) const SESSION_SECONDS: u32 = 90 * 86_400;

/// The largest absolute value: the sixth patient's.
const BOUND: u64 = 1 << (DIGIT_BITS * 5);

/// Patient `i` holds 16^i, so each hexadecimal digit of a sum counts one patient.
pub(super) const DIGIT_BITS: u32 = 4;

/// What the hospital does next.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Act {
    /// It opens a session.
    Open,
    /// It asks for the sum over the snapshot with this number in its newest session.
    Ask(u8),
}

/// A study: how many take part, under which rules, and what the hospital does.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Shape {
    /// How many patients there are.
    pub patients: u8,
    /// How many of them, counted from the first, are marked.
    pub marked: u8,
    /// How many servers there are.
    pub servers: u8,
    /// c.
    pub committee: u8,
    /// t.
    pub threshold: u8,
    /// k.
    pub min_cohort: u8,
    /// How many coordinates a vector has.
    pub dimension: u32,
    /// What the hospital does while there are faults.
    pub acts: Vec<Act>,
    /// Patients who join and never answer.
    pub silent: Vec<u8>,
    /// Whether questions carry a payload.
    #[serde(default)]
    pub payloads: bool,
}

impl Shape {
    /// The shape of a seed.
    pub(super) fn draw(dice: &mut Dice) -> Self {
        let patients = dice.within(3, 6) as u8;
        let committee = dice.within(2, patients.min(5).into()) as u8;
        let most = if dice.percent(75) { (committee - 1).div_ceil(3) } else { committee - 1 };
        let threshold = dice.within(1, most.max(1).into()) as u8;
        let marked = if dice.percent(50) { committee } else { patients };
        let min_cohort = dice.within(2, u64::from(patients) - 1) as u8;
        let (servers, dimension) =
            if dice.per_mille(20) { (dice.within(1, 2), 140_000) } else { (1, dice.within(1, 4)) };
        let mut shape = Self {
            patients,
            marked,
            servers: servers as u8,
            committee,
            threshold,
            min_cohort,
            dimension: dimension as u32,
            acts: acts(dice),
            silent: Vec::new(),
            payloads: false,
        };
        shape.silent = shape.draw_silent(dice);
        shape.payloads = dice.percent(15);
        shape
    }

    /// How many Confirms open a cohort: reckoned here once more, as whoever judges must not take it from who is judged.
    pub(super) fn quorum(&self) -> u8 {
        (self.committee + self.threshold) / 2 + 1
    }

    /// As many as may be missing: no more than may drop of the committee, and k others must be left.
    fn draw_silent(&self, dice: &mut Dice) -> Vec<u8> {
        let may_drop = self.committee.saturating_sub(self.quorum());
        let spare = self.patients - self.min_cohort;
        if !dice.percent(25) || spare == 0 {
            return Vec::new();
        }
        // Where all are marked, anybody may sit on the committee.
        let first = if may_drop > 0 || self.marked == self.patients { 0 } else { self.marked };
        let most = if first == 0 { spare.min(may_drop) } else { spare.min(self.patients - first) };
        let count = dice.within(0, most.into()) as u8;
        let mut left: Vec<u8> = (first..self.patients).collect();
        (0..count).map(|_| left.remove(dice.below(left.len() as u64) as usize)).collect()
    }

    /// Everybody's names.
    pub(super) fn cast(&self) -> Result<Cast, NameError> {
        let all = |of: u8, stem: &str| (0..of).map(|i| format!("{stem}{i}").parse()).collect::<Result<Vec<Name>, _>>();
        Ok(Cast {
            hospital: "hospital".parse()?,
            servers: all(self.servers, "server-")?,
            patients: all(self.patients, "p")?,
        })
    }

    /// The rules of a session that is opened now.
    pub(super) fn plan(&self, cast: &Cast, now: Time) -> Result<Plan, PlanError> {
        Plan::new(Settings {
            study: "ward".into(),
            expect: self.patients.into(),
            committee: Some(self.committee),
            threshold: Some(self.threshold),
            min_cohort: Some(self.min_cohort.into()),
            candidates: Vec::new(),
            servers: cast.servers.clone(),
            payloads: self.payloads,
            join_seconds: JOIN_SECONDS,
            not_after: now.plus_seconds(SESSION_SECONDS),
        })
    }

    /// The question for the sum over `snapshot`.
    pub(super) fn ask(&self, snapshot: Snapshot) -> Ask {
        let schema = self.schema();
        Ask {
            question: Question::Sum(schema.columns),
            snapshot,
            ring: None,
            scale: schema.scale,
            scaled_bound: schema.scaled_bound,
            enough: None,
            round_seconds: ROUND_SECONDS,
            audit: Audit::default(),
            last: false,
        }
    }

    /// One column as wide as the vectors.
    pub(super) fn schema(&self) -> Schema {
        let columns = vec![Column { name: "value".into(), width: self.dimension * 2 }];
        Schema { columns, scaled_bound: BOUND, scale: Scale::default() }
    }

    /// What every patient allows.
    pub(super) fn policy(&self) -> Policy {
        Policy::open("ward", 2)
    }

    /// Coordinate `j` of what patient `i` holds in one version of its values: 16^i in every second one, 0 in the others.
    pub(super) fn value(&self, i: u8, version: u8, j: u32) -> i64 {
        if j % 2 == u32::from(version) { 1 << (DIGIT_BITS * u32::from(i)) } else { 0 }
    }

    /// What patient `i` holds in one version of its values.
    pub(super) fn record(&self, i: u8, version: u8) -> Option<Record> {
        let values = (0..self.dimension * 2).map(|j| self.value(i, version, j)).collect();
        Record::new([("value".to_string(), values)].into(), &self.schema()).ok()
    }
}

/// A session or two, each with a few questions.
fn acts(dice: &mut Dice) -> Vec<Act> {
    let mut acts = Vec::new();
    for _ in 0..dice.within(1, 2) {
        acts.push(Act::Open);
        acts.extend((0..dice.within(1, 3)).map(|_| Act::Ask(dice.within(1, 2) as u8)));
    }
    acts
}

/// The parties of a study.
#[derive(Clone, Debug)]
pub(super) struct Cast {
    pub(super) hospital: Name,
    pub(super) servers: Vec<Name>,
    /// By number.
    pub(super) patients: Vec<Name>,
}

impl Cast {
    /// Everybody.
    pub(super) fn everybody(&self) -> impl Iterator<Item = &Name> {
        std::iter::once(&self.hospital).chain(&self.servers).chain(&self.patients)
    }

    /// The server that makes the Roster and fixes the cohort.
    pub(super) fn first_server(&self) -> &Name {
        // A study without servers is none: what is said of its first is said of nobody.
        self.servers.first().unwrap_or(&self.hospital)
    }

    /// The number of the patient with this name.
    pub(super) fn number(&self, name: &Name) -> Option<u8> {
        self.patients.iter().position(|patient| patient == name).map(|i| i as u8)
    }
}

/// The label of a snapshot.
pub(super) fn label(number: u8) -> Option<Snapshot> {
    number.to_string().parse().ok()
}

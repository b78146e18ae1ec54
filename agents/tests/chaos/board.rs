//! What is known of a study from outside: what passes on its board, and what its parties say.

use std::collections::BTreeMap;

use protocol::Kind;

use super::scenario::{Moment, Scenario};
use super::steps::Step;

/// What has been seen and heard so far.
#[derive(Debug, Default)]
pub struct Board {
    /// How many messages there were.
    pub seen: u32,
    /// How many times a party said that it is ready.
    pub ready: u32,
    kinds: BTreeMap<Kind, u32>,
    committee: Vec<String>,
}

impl Board {
    /// Takes a line of `ward watch`: time, session, round, kind, from, to, bytes.
    pub fn see(&mut self, line: &str) {
        if let Some(kind) = line.split_whitespace().nth(3).and_then(|kind| kind.parse().ok()) {
            self.seen += 1;
            *self.kinds.entry(kind).or_default() += 1;
        }
    }

    /// Takes a line of anybody's log.
    pub fn hear(&mut self, line: &str) {
        if let Some((_, names)) = line.split_once("joined; committee: ") {
            self.committee = names.replace(" and ", ", ").split(", ").map(Into::into).collect();
        }
    }

    /// Whether this has happened so often.
    pub fn has_reached(&self, moment: Moment) -> bool {
        let times = match moment.step {
            Step::Ready => self.ready,
            Step::Written(kind) => self.kinds.get(&kind).copied().unwrap_or(0),
        };
        times >= moment.nth
    }

    /// Whether it is known who is on the committee.
    pub fn has_committee(&self) -> bool {
        !self.committee.is_empty()
    }

    /// Whether it is known that this patient is on the committee.
    pub fn is_member(&self, name: &str) -> bool {
        self.committee.iter().any(|member| member == name)
    }

    /// One of the patients that are on the committee, or of the others; any until it is known who that is.
    pub fn patient(&self, scenario: &Scenario, number: u8, member: bool) -> Option<String> {
        let fits = |name: &String| self.committee.is_empty() || self.committee.contains(name) == member;
        let mut fitting: Vec<String> = scenario.patient_names().filter(fits).collect();
        if fitting.is_empty() {
            fitting = scenario.patient_names().collect();
        }
        fitting.into_iter().cycle().nth(number.into())
    }
}

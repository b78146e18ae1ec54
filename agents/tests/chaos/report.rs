//! What came of many scenarios.

use std::collections::BTreeMap;
use std::time::Duration;

use serde_json::{Value, json};

use super::scenario::{Blow, Whom};
use super::steps::{self, Step};

/// In so many scenarios everything has its turn several times.
pub const COMPLETE: u64 = 200;

/// A fault that happened.
#[derive(Clone, Copy, Debug)]
pub struct Happened {
    /// What.
    pub blow: Blow,
    /// With whom: one word.
    pub role: &'static str,
    /// When.
    pub step: Step,
}

/// What came of one scenario.
#[derive(Debug, Default)]
pub struct Outcome {
    /// What happened that must not, with all that is needed to look into it.
    pub failure: Option<String>,
    /// What went wrong.
    pub happened: Vec<Happened>,
    /// How many answers there were.
    pub answers: u64,
    /// How often there was none.
    pub aborts: u64,
}

/// What came of all.
#[derive(Debug, Default)]
pub struct Report {
    draws_all: bool,
    scenarios: u64,
    /// How many of them broke a rule.
    pub violations: u64,
    opened: u64,
    aborted: u64,
    /// How often each kind of fault happened.
    faults: BTreeMap<String, u64>,
    /// How often who was killed at which step.
    kills: BTreeMap<String, u64>,
}

impl Report {
    /// An empty one, of scenarios that draw from all that can go wrong or not.
    pub fn new(draws_all: bool) -> Self {
        Self { draws_all, ..Self::default() }
    }

    /// Adds one.
    pub fn add(&mut self, outcome: Outcome) {
        self.scenarios += 1;
        self.violations += u64::from(outcome.failure.is_some());
        self.opened += outcome.answers;
        self.aborted += outcome.aborts;
        for Happened { blow, role, step } in outcome.happened {
            *self.faults.entry(fault(blow, role)).or_default() += 1;
            if blow == Blow::Kill {
                *self.kills.entry(kill(role, step)).or_default() += 1;
            }
        }
    }

    /// What never happened although all must in [`COMPLETE`] scenarios; nothing where they are fewer, or do not draw from all.
    pub fn missing(&self) -> Vec<String> {
        if self.scenarios < COMPLETE || !self.draws_all {
            return Vec::new();
        }
        let faults = Blow::ALL
            .into_iter()
            .flat_map(|blow| Whom::all(blow, 0, 1).into_iter().map(move |whom| fault(blow, whom.name())));
        let kills = steps::pairs().into_iter().map(|(whom, step)| kill(whom.name(), step));
        let faults = faults.filter(|name| !self.faults.contains_key(name));
        faults.chain(kills.filter(|name| !self.kills.contains_key(name))).collect()
    }

    /// One object for programs.
    pub fn json(&self, seed: u64, elapsed: Duration) -> Value {
        let Self { scenarios, violations, opened, aborted, faults, kills, .. } = self;
        json!({
            "scenarios": scenarios, "seed": seed, "violations": violations, "opened": opened, "aborted": aborted,
            "faults": faults, "kills": kills, "missing": self.missing(), "seconds": elapsed.as_secs_f64(),
        })
    }

    /// A few lines and two tables for people.
    pub fn text(&self, elapsed: Duration) -> String {
        let Self { scenarios, violations, opened, aborted, faults, .. } = self;
        let rows: String = faults.iter().map(|(name, count)| format!("{name:<20} {count:>6}\n")).collect();
        let kills = self.kills();
        format!(
            "\n{scenarios} scenarios in {:.0} s, {violations} of them broke a rule: {opened} answers, all exact, and {aborted} \
             typed aborts\n\nfault                 times\n{rows}\n{kills}",
            elapsed.as_secs_f64()
        )
    }

    /// Who was killed at which step how often: a row for each step, a column for each role.
    fn kills(&self) -> String {
        let roles: Vec<&str> = Whom::all(Blow::Kill, 0, 1).into_iter().map(Whom::name).collect();
        let row = |step: Step| {
            let count = |role: &&str| self.kills.get(&kill(role, step)).copied().unwrap_or(0);
            let counts: String = roles.iter().map(|role| format!(" {:>11}", count(role))).collect();
            format!("{:<10}{counts}\n", step.name())
        };
        let heading: String = roles.iter().map(|role| format!(" {role:>11}")).collect();
        format!("{:<10}{heading}\n{}", "killed at", Step::all().map(row).collect::<String>())
    }
}

fn fault(blow: Blow, role: &str) -> String {
    format!("{}_{role}", blow.name())
}

fn kill(role: &str, step: Step) -> String {
    format!("{}_at_{}", fault(Blow::Kill, role), step.name())
}

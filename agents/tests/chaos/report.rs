//! What came of many scenarios.

use std::collections::BTreeMap;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::time::{Duration, Instant};

use serde_json::{Value, json};

use super::play::Play;
use super::scenario::Scenario;

/// How many lines of each party's log are printed of a scenario that fails.
const LAST_LINES: usize = 25;

/// What came of one scenario.
#[derive(Debug)]
pub struct Outcome {
    /// What happened that must not, with all that is needed to look into it.
    pub failure: Option<String>,
    happened: Vec<String>,
    answers: u64,
    aborts: u64,
}

impl Outcome {
    /// Plays a scenario. Of one that fails the folder is kept.
    pub fn of(scenario: &Scenario) -> Self {
        let mut play = Play::new(scenario);
        let begun = Instant::now();
        let ran = catch_unwind(AssertUnwindSafe(|| play.run())).unwrap_or_else(|_| Err("it panicked".into()));
        let failure = ran.err().map(|why| {
            let words = play.stage.last_words(LAST_LINES);
            let kept = play.stage.keep();
            let seconds = begun.elapsed().as_secs();
            let again = format!("--scenarios 1 --seed {} --fault {}", scenario.seed, scenario.first.name());
            format!("{why}, after {seconds} s\n{scenario}\n{words}kept: {}\nagain: just chaos {again}", kept.display())
        });
        Self { failure, happened: play.happened, answers: play.judge.answers, aborts: play.judge.aborts }
    }
}

/// What came of all.
#[derive(Debug, Default)]
pub struct Report {
    scenarios: u64,
    pub violations: u64,
    opened: u64,
    aborted: u64,
    faults: BTreeMap<String, u64>,
}

impl Report {
    /// Adds one.
    pub fn add(&mut self, outcome: Outcome) {
        self.scenarios += 1;
        self.violations += u64::from(outcome.failure.is_some());
        self.opened += outcome.answers;
        self.aborted += outcome.aborts;
        for fault in outcome.happened {
            *self.faults.entry(fault).or_default() += 1;
        }
    }

    /// One object for programs.
    pub fn json(&self, seed: u64, elapsed: Duration) -> Value {
        let Self { scenarios, violations, opened, aborted, faults } = self;
        json!({
            "scenarios": scenarios, "seed": seed, "violations": violations, "opened": opened, "aborted": aborted,
            "faults": faults, "seconds": elapsed.as_secs_f64(),
        })
    }

    /// A few lines and a table for people.
    pub fn text(&self, elapsed: Duration) -> String {
        let Self { scenarios, violations, opened, aborted, faults } = self;
        let rows: String = faults.iter().map(|(name, count)| format!("{name:<20} {count:>6}\n")).collect();
        format!(
            "\n{scenarios} scenarios in {:.0} s, {violations} of them broke a rule: {opened} answers, all exact, and {aborted} \
             typed aborts\n\nfault                 times\n{rows}",
            elapsed.as_secs_f64()
        )
    }
}

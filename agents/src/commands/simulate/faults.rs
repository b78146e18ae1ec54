//! `ward simulate --faults`: whole studies in which everything goes wrong, each from one seed.

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use anyhow::Context as _;
use protocol::simulation::{Case, Counts, Failure, Outcome};
use serde_json::{Value, json};

use crate::cli::SimulateArgs;
use crate::report::{note, print};

/// Every so many runs one is played a second time, and must be the same.
const TWICE: u64 = 16;

/// With fewer runs nothing is said about how often each kind of fault happened.
const ENOUGH_RUNS: u64 = 1_000;

/// How many failures are looked for before the rest is left.
const MOST_FAILURES: usize = 3;

/// How often a line of progress is written.
const PROGRESS: Duration = Duration::from_secs(10);

/// Plays the runs that `args` ask for.
///
/// # Errors
/// If a rule does not hold in one of them, or a kind of fault happened too seldom.
pub fn run(args: &SimulateArgs, json: bool) -> anyhow::Result<()> {
    if let Some(file) = &args.replay {
        return replay(file, json);
    }
    let begun = Instant::now();
    let tally = play_all(args.seed, args.seeds);
    let report = Report { first: args.seed, tally, elapsed: begun.elapsed() };
    if json {
        print(report.json())?;
    } else {
        print(report.text().trim_end())?;
    }
    report.judge()
}

/// Plays a case that was kept.
fn replay(file: &Path, json: bool) -> anyhow::Result<()> {
    let text = std::fs::read_to_string(file).with_context(|| format!("{} cannot be read", file.display()))?;
    let case: Case = serde_json::from_str(&text).with_context(|| format!("{} is no kept case", file.display()))?;
    let outcome = case.play();
    let failure = outcome.failure.as_ref().map(|failure| format!("{}: {}", failure.rule, failure.what));
    if json {
        print(json!({ "trace": outcome.trace.to_string(), "steps": outcome.steps, "failure": failure }))?;
    } else {
        print(format_args!("{} steps, trace {}", outcome.steps, outcome.trace))?;
    }
    match failure {
        Some(failure) => anyhow::bail!("a rule does not hold: {failure}"),
        None => Ok(()),
    }
}

/// What came of all runs.
#[derive(Default)]
struct Tally {
    runs: u64,
    steps: u64,
    answers: u64,
    aborts: BTreeMap<&'static str, u64>,
    counts: Counts,
    most_stored: usize,
    /// The traces of all runs, in any order.
    trace: [u8; 32],
    failures: Vec<(Case, Failure)>,
}

/// Plays so many seeds on all cores; each run stays on one thread.
fn play_all(first: u64, seeds: u64) -> Tally {
    let next = AtomicU64::new(0);
    let tally = Mutex::new(Tally::default());
    let said = Mutex::new(Instant::now());
    let cores = std::thread::available_parallelism().map_or(1, usize::from);
    std::thread::scope(|scope| {
        for _ in 0..cores {
            scope.spawn(|| {
                loop {
                    let number = next.fetch_add(1, Ordering::Relaxed);
                    if number >= seeds || locked(&tally).failures.len() >= MOST_FAILURES {
                        return;
                    }
                    let (case, outcome) = play(first.wrapping_add(number), number.is_multiple_of(TWICE));
                    locked(&tally).add(case, &outcome);
                    progress(&mut locked(&said), number + 1, seeds);
                }
            });
        }
    });
    tally.into_inner().unwrap_or_else(PoisonError::into_inner)
}

fn locked<T>(mutex: &Mutex<T>) -> std::sync::MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

fn progress(said: &mut Instant, runs: u64, of: u64) {
    if said.elapsed() >= PROGRESS {
        *said = Instant::now();
        note!("{runs} of {of} seeds");
    }
}

/// Plays one seed, and where a rule fails looks for few faults that make it fail.
fn play(seed: u64, twice: bool) -> (Case, Outcome) {
    let case = Case::draw(seed);
    let mut outcome = case.play();
    if twice && outcome.failure.is_none() && case.play().trace != outcome.trace {
        outcome.failure = Some(Failure { rule: "same run", what: "the same seed gave another trace".into() });
        return (case, outcome);
    }
    if outcome.failure.is_none() {
        return (case, outcome);
    }
    note!("seed {seed} breaks a rule: looking for few faults that do");
    (case.shrink(&outcome), outcome)
}

impl Tally {
    fn add(&mut self, case: Case, outcome: &Outcome) {
        self.runs += 1;
        self.steps += outcome.steps;
        self.answers += outcome.answers;
        self.most_stored = self.most_stored.max(outcome.most_stored);
        outcome.aborts.iter().for_each(|(reason, count)| *self.aborts.entry(reason).or_default() += count);
        self.counts.merge(&outcome.counts);
        self.trace.iter_mut().zip(outcome.trace.0).for_each(|(all, byte)| *all ^= byte);
        self.failures.extend(outcome.failure.clone().map(|failure| (case, failure)));
    }
}

/// What is printed.
struct Report {
    first: u64,
    tally: Tally,
    elapsed: Duration,
}

impl Report {
    /// One object.
    fn json(&self) -> Value {
        let Tally { runs, steps, answers, aborts, counts, most_stored, trace, failures } = &self.tally;
        let failures: Vec<Value> = failures
            .iter()
            .map(|(case, failure)| json!({ "rule": failure.rule, "what": failure.what, "case": case }))
            .collect();
        json!({
            "first_seed": self.first,
            "seeds": runs,
            "steps": steps,
            "opened": answers,
            "aborted": aborts.values().sum::<u64>(),
            "aborts": aborts,
            "faults": counts.0,
            "largest_store_bytes": most_stored,
            "trace": hex::encode(trace),
            "seconds": self.elapsed.as_secs_f64(),
            "violations": failures.len(),
            "failures": failures,
        })
    }

    /// A few lines and a table for people.
    fn text(&self) -> String {
        let tally = &self.tally;
        let mut text = format!(
            "{} seeds from {}: {} steps in {:.1} s, {:.0} seeds a second\n{} answers, all exact; {} rounds ended without \
             one\ntrace {}\n\nfault                     times\n",
            tally.runs,
            self.first,
            tally.steps,
            self.elapsed.as_secs_f64(),
            tally.runs as f64 / self.elapsed.as_secs_f64(),
            tally.answers,
            tally.aborts.values().sum::<u64>(),
            hex::encode(tally.trace),
        );
        for (kind, count) in &tally.counts.0 {
            text += &format!("{kind:<24} {count:>6}\n");
        }
        for (case, failure) in &tally.failures {
            text += &format!("\nseed {} breaks a rule, {}: {}\n", case.seed, failure.rule, failure.what);
            text += "keep this in a file, for --replay:\n";
            text += &serde_json::to_string(case).unwrap_or_default();
            text.push('\n');
        }
        text
    }

    fn judge(&self) -> anyhow::Result<()> {
        if let Some((case, failure)) = self.tally.failures.first() {
            anyhow::bail!("seed {} breaks a rule, {}: {}", case.seed, failure.rule, failure.what);
        }
        let seldom = self.tally.counts.too_seldom(self.tally.runs);
        if let Some((kind, count, least)) = seldom.first().filter(|_| self.tally.runs >= ENOUGH_RUNS) {
            anyhow::bail!("`{kind}` happened {count} times, and {least} would say something: the ranges must change");
        }
        Ok(())
    }
}

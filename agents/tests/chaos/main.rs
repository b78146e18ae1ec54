//! The real thing under fire: real processes and the real broker, which are killed, stopped, cut off, slowed down, left
//! without a disk and given a wrong clock, at events that follow from a seed.
//!
//! As a test it plays a scenario for each kind of fault; `just chaos` plays 200.
// No other crate sees any of it.
#![allow(unreachable_pub)]
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

mod board;
mod clock;
mod judge;
mod left;
mod network;
mod play;
mod process;
mod report;
mod scenario;
mod stage;
mod steps;
#[path = "../support/mod.rs"]
mod support;
mod trouble;

use std::process::ExitCode;
use std::sync::Mutex;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Instant;

use clap::Parser as _;
use report::Report;
use scenario::{Blow, Scenario};

/// Plays studies of real processes in which things go wrong.
#[derive(clap::Parser)]
struct Args {
    /// How many scenarios [default: one for each kind of fault, as tests].
    #[arg(long, value_name = "N", overrides_with = "scenarios")]
    scenarios: Option<u64>,
    /// The first seed.
    #[arg(long, value_name = "S", default_value_t = 1)]
    seed: u64,
    /// What goes wrong beside the kill whose turn it is, whatever the seed says.
    #[arg(long, value_name = "KIND", value_parser = kind)]
    fault: Option<Blow>,
    /// End with one JSON object on the last line of stdout.
    #[arg(long)]
    json: bool,
    /// How many at a time.
    #[arg(long, value_name = "N", default_value_t = 2)]
    test_threads: usize,
    /// Which tests: parts of their names.
    filters: Vec<String>,
    /// The names are whole.
    #[arg(long)]
    exact: bool,
    /// Not these tests.
    #[arg(long, value_name = "FILTER")]
    skip: Vec<String>,
    /// List the tests.
    #[arg(long)]
    list: bool,
    /// Only tests that are ignored: there are none.
    #[arg(long)]
    ignored: bool,
    #[command(flatten)]
    _libtest: Libtest,
}

/// What cargo and its friends say to any test, and means nothing here.
#[derive(clap::Args)]
#[command(next_help_heading = "Ignored")]
struct Libtest {
    #[arg(long, hide = true)]
    include_ignored: bool,
    #[arg(long, hide = true)]
    nocapture: bool,
    #[arg(long, hide = true)]
    no_capture: bool,
    #[arg(long, hide = true)]
    show_output: bool,
    #[arg(short, long, hide = true)]
    quiet: bool,
    #[arg(long, hide = true)]
    color: Option<String>,
    #[arg(long, hide = true)]
    format: Option<String>,
}

fn kind(name: &str) -> Result<Blow, String> {
    let names = Blow::ALL.map(Blow::name).join(", ");
    Blow::ALL.into_iter().find(|blow| blow.name() == name).ok_or_else(|| format!("say one of {names}"))
}

/// A scenario and the name of the test that it is.
struct Case {
    name: String,
    scenario: Scenario,
}

impl Args {
    fn cases(&self) -> Vec<Case> {
        let case = |seed: u64| {
            let first = self.fault.unwrap_or_else(|| Blow::of(seed));
            let name = format!("promises_hold_under_{}_seed_{seed}", first.name());
            Case { name, scenario: Scenario::draw(seed, first) }
        };
        let count = self.scenarios.unwrap_or(Blow::ALL.len() as u64);
        (self.seed..).take(count as usize).map(case).filter(|case| self.wants(&case.name)).collect()
    }

    fn wants(&self, name: &str) -> bool {
        let fits = |filter: &String| if self.exact { name == filter } else { name.contains(filter.as_str()) };
        let asked = self.filters.is_empty() || self.filters.iter().any(fits);
        asked && !self.skip.iter().any(fits) && !self.ignored
    }
}

fn main() -> ExitCode {
    let args = Args::parse();
    let cases = args.cases();
    if args.list {
        cases.iter().for_each(|case| println!("{}: test", case.name));
        return ExitCode::SUCCESS;
    }
    let begun = Instant::now();
    // Who says what is to go wrong does not ask for everything else.
    let report = play_all(&cases, args.test_threads.max(1), Report::new(args.fault.is_none()));
    print!("{}", report.text(begun.elapsed()));
    if args.json {
        println!("{}", report.json(args.seed, begun.elapsed()));
    }
    let missing = report.missing();
    if !missing.is_empty() {
        eprintln!("error: in {} scenarios these never happened: {}", cases.len(), missing.join(", "));
    }
    if report.violations == 0 && missing.is_empty() { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}

/// Plays all, so many at a time.
fn play_all(cases: &[Case], at_a_time: usize, report: Report) -> Report {
    println!("playing {} scenarios", cases.len());
    let (next, report) = (AtomicUsize::new(0), Mutex::new(report));
    std::thread::scope(|scope| {
        for _ in 0..at_a_time {
            scope.spawn(|| {
                while let Some(case) = cases.get(next.fetch_add(1, Ordering::Relaxed)) {
                    let outcome = play::play(&case.scenario);
                    match &outcome.failure {
                        None => println!("test {} ... ok", case.name),
                        Some(failure) => println!("test {} ... FAILED\n{failure}\n", case.name),
                    }
                    report.lock().unwrap().add(outcome);
                }
            });
        }
    });
    report.into_inner().unwrap()
}

//! Whole studies under faults, each from its seed (`ward simulate --faults` plays more of them).
#![allow(missing_docs, clippy::unwrap_used, clippy::expect_used, clippy::panic)]

use std::ops::Range;
use std::sync::Mutex;
use std::sync::atomic::{AtomicU64, Ordering};

use protocol::simulation::{Case, Counts, Outcome};

/// Which seeds are played: optimized, what a few minutes allow; with stand-ins for slow cryptography (`just simulate-stub`)
/// many more, and none of those that are played with the real one.
const SEEDS: Range<u64> = if cfg!(ward_stub_crypto) {
    1_000_000..1_020_000
} else if cfg!(debug_assertions) {
    0..100
} else {
    0..2_000
};

/// How many seeds that break a rule are looked for before the rest is left.
const MOST_FAILURES: usize = 3;

/// What came of all runs so far.
#[derive(Default)]
struct Tally {
    counts: Counts,
    answers: u64,
    /// What each failing seed says.
    failures: Vec<String>,
}

impl Tally {
    fn add(&mut self, outcome: &Outcome, failure: Option<String>) {
        self.counts.merge(&outcome.counts);
        self.answers += outcome.answers;
        self.failures.extend(failure);
    }
}

/// What a run says that breaks a rule: its seed, the rule, and few faults that break it too.
fn say(case: &Case, outcome: &Outcome) -> Option<String> {
    let failure = outcome.failure.as_ref()?;
    Some(format!("seed {}: {failure:?}\nfew faults that break it: {:?}", case.seed, case.shrink(outcome)))
}

/// Plays seeds on all cores; each run stays on one thread.
fn play_all(seeds: &Range<u64>) -> Tally {
    let next = AtomicU64::new(seeds.start);
    let tally = Mutex::new(Tally::default());
    let cores = std::thread::available_parallelism().map_or(1, usize::from);
    std::thread::scope(|scope| {
        for _ in 0..cores {
            scope.spawn(|| {
                while tally.lock().unwrap().failures.len() < MOST_FAILURES {
                    let seed = next.fetch_add(1, Ordering::Relaxed);
                    if seed >= seeds.end {
                        return;
                    }
                    let case = Case::draw(seed);
                    let outcome = case.play();
                    let failure = say(&case, &outcome);
                    tally.lock().unwrap().add(&outcome, failure);
                }
            });
        }
    });
    tally.into_inner().unwrap()
}

/// Promises 1 (same or apart, once), 2 (one opening) and 4 (never a wrong number, and an answer once faults stop), over
/// crashes at any step, lost, late and repeated messages, old disks, other clocks and a broker that forgets.
#[test]
fn whatever_goes_wrong_every_promise_holds() {
    let tally = play_all(&SEEDS);
    assert!(tally.failures.is_empty(), "{}", tally.failures.join("\n\n"));
    let count = SEEDS.end - SEEDS.start;
    assert_eq!(tally.counts.too_seldom(count), [], "these say nothing: the ranges must change");
    assert!(tally.answers > count, "{} answers: most runs have one under faults and one after them", tally.answers);
}

/// A run follows from its seed, and from the list of its faults alone.
#[test]
fn the_same_seed_and_the_same_faults_are_the_same_run() {
    for seed in 0..10 {
        let case = Case::draw(seed);
        let outcome = case.play();
        assert_eq!(case.play(), outcome, "seed {seed}");
        let listed = Case { faults: outcome.faults.clone(), drawn: false, ..case };
        assert_eq!(listed.play().trace, outcome.trace, "seed {seed}");
    }
}

/// What has no part in a failure is left out of what is kept of it.
#[test]
fn a_failing_run_shrinks_to_the_faults_that_break_it() {
    let mut case = Case::draw(1);
    case.shape.committee = case.shape.patients + 1;
    let outcome = case.play();
    assert_eq!(outcome.failure.as_ref().unwrap().rule, "set-up");
    assert_eq!(case.shrink(&outcome).faults, []);
}

//! Whole studies under faults, each from its seed (`ward simulate --faults` plays more of them).
#![allow(missing_docs, clippy::unwrap_used, clippy::expect_used, clippy::panic)]

use protocol::simulation::{Case, Counts};

/// How many seeds are played: optimized, what a minute allows.
const SEEDS: u64 = if cfg!(debug_assertions) { 100 } else { 400 };

/// Promises 1 (same or apart, once), 2 (one opening) and 4 (never a wrong number, and an answer once faults stop), over
/// crashes at any step, lost, late and repeated messages, old disks, other clocks and a broker that forgets.
#[test]
fn whatever_goes_wrong_every_promise_holds() {
    let mut counts = Counts::default();
    let mut answers = 0;
    for seed in 0..SEEDS {
        let case = Case::draw(seed);
        let outcome = case.play();
        if let Some(failure) = &outcome.failure {
            panic!("seed {seed}: {failure:?}\nfew faults that break it: {:?}", case.shrink(&outcome));
        }
        counts.merge(&outcome.counts);
        answers += outcome.answers;
    }
    assert_eq!(counts.too_seldom(SEEDS), [], "these say nothing: the ranges must change");
    assert!(answers > SEEDS, "{answers} answers: most runs have one under faults and one after them");
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

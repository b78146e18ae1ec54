//! Runs that are kept, each in a file of `cases/` as the simulator writes it: what a study does under these few faults.
//! Who sits where follows from signatures, so that they are others with stand-ins for cryptography.
#![cfg(not(ward_stub_crypto))]
#![allow(missing_docs, clippy::unwrap_used)]

use protocol::simulation::{Blow, Case, Fault};

fn case(text: &str) -> Case {
    serde_json::from_str(text).unwrap()
}

fn older_stores() -> Case {
    case(include_str!("cases/all_members_come_back_with_older_stores.json"))
}

/// What no rule can stop: more members than t confirm a cohort, and come back without knowing it. It is noticed, and it takes
/// each of them.
#[test]
fn more_than_t_older_stores_open_two_cohorts() {
    let case = older_stores();
    assert_eq!(case.play().failure.unwrap().rule, "one opening");
    for at in 0..case.faults.len() {
        let mut fewer = case.clone();
        if let Fault::Blow(_, Blow::Older { .. }) = fewer.faults.remove(at) {
            assert_eq!(fewer.play().failure, None, "with t of them: {fewer:?}");
        }
    }
}

/// A hospital asks again over a snapshot as if for the first time, and a server that knows of no earlier cohort fixes one
/// that overlaps: members that remember what they confirmed refuse. (What `just mutants` shrank to, where they do not look.)
#[test]
fn members_alone_keep_cohorts_same_or_apart() {
    let outcome = case(include_str!("cases/the_server_forgets_and_the_hospital_asks_anew.json")).play();
    assert_eq!(outcome.failure, None);
    assert!(
        ["forgotten cohorts", "another begin"].iter().all(|kind| outcome.counts.0.contains_key(kind)),
        "{outcome:?}"
    );
}

/// What has a part in a failure is kept, and nothing else is.
#[test]
fn a_failing_run_shrinks_to_what_it_takes() {
    let mut case = older_stores();
    let needed = case.faults.clone();
    let who = "p2".parse().unwrap();
    case.faults.insert(0, Fault::Blow(70, Blow::SlowJobs { who, millis: 5 }));
    let outcome = case.play();
    assert!(outcome.faults.len() > needed.len(), "{:?}", outcome.faults);
    let few = case.shrink(&outcome).faults;
    assert!(few.iter().all(|fault| needed.contains(fault)), "{few:?}");
    assert_eq!(few.len(), needed.len());
}

//! Whole studies under faults, from their seeds.
#![allow(missing_docs, clippy::unwrap_used, clippy::expect_used, clippy::panic)]

use protocol::simulation::{Case, Counts};

/// `WARD_SEEDS=from..to` plays others than CI does.
fn seeds() -> std::ops::Range<u64> {
    let asked = std::env::var("WARD_SEEDS").ok();
    let asked = asked.as_deref().and_then(|text| text.split_once(".."));
    asked.map_or(0..300, |(from, to)| from.parse().unwrap()..to.parse().unwrap())
}

#[test]
fn whatever_goes_wrong_every_promise_holds() {
    let mut counts = Counts::default();
    let (mut answers, mut aborts, mut steps, mut stored) = (0, 0, 0, 0);
    let mut bad = 0;
    for seed in seeds() {
        let case = Case::draw(seed);
        let outcome = case.play();
        if let Some(failure) = &outcome.failure {
            bad += 1;
            eprintln!("seed {seed}: {failure:?}");
            if bad < 4 { eprintln!("   {:?}", case.shrink(&outcome)); }
        }
        counts.merge(&outcome.counts);
        answers += outcome.answers;
        aborts += outcome.aborts;
        steps += outcome.steps;
        stored = stored.max(outcome.most_stored);
    }
    eprintln!("answers {answers} aborts {aborts} steps {steps} stored {stored} {counts:?}");
    assert_eq!(bad, 0);
}

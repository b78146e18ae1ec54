//! Who judges `just chaos` sees what is wrong.
#![allow(dead_code, unreachable_pub)]
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

#[path = "chaos/judge.rs"]
mod judge;
#[path = "chaos/scenario.rs"]
mod scenario;

use judge::Judge;
use scenario::{Blow, Scenario};

/// A judge of a study of five patients, k = 3.
fn judge() -> Judge {
    Judge::new(&Scenario { patients: 5, min_cohort: 3, ..Scenario::draw(1, Blow::Kill) })
}

/// What a hospital prints of a sum over so many patients.
fn answer(session: &str, round: u32, sum: u64, cohort: u32) -> String {
    let caught: [&str; 0] = [];
    serde_json::json!({
        "outcome": "opened", "session": session, "round": round, "sum": [sum], "cohort": cohort,
        "checked": { "caught": caught },
    })
    .to_string()
}

/// What is wrong with the last of these answers, after the others were right.
fn wrong(right: &[String], last: &str) -> String {
    let mut judge = judge();
    right.iter().for_each(|line| judge.printed(line).unwrap());
    judge.printed(last).unwrap_err()
}

#[test]
fn right_sums_are_right() {
    let mut judge = judge();
    for line in [answer("a", 1, 0x111, 3), answer("a", 1, 0x111, 3), answer("a", 2, 0x111, 3)] {
        judge.printed(&line).unwrap();
    }
    judge.said(0, "session a, round 2: opened over 3 patients, with p0");
    judge.said(4, "session a, round 2: opened over 3 patients, without p4");
    judge.said(4, "session b, round 1: opened over 2 patients, with p4");
    assert_eq!((judge.answers, judge.receipts_hold()), (3, Ok(())));
}

#[test]
fn a_sum_that_no_cohort_of_its_size_has_is_wrong() {
    for (sum, cohort) in [(0x112, 3), (0x121, 3), (0x111, 4), (0x1111, 3), (0x10_0111, 4), (0, 3)] {
        assert!(wrong(&[], &answer("a", 1, sum, cohort)).contains("no patients add up"), "{sum:x}");
    }
    assert!(wrong(&[], &answer("a", 1, 0x11, 2)).contains("fewer than 3"));
}

#[test]
fn a_second_opening_is_wrong() {
    let first = [answer("a", 1, 0x111, 3)];
    for (session, round, sum, cohort) in
        [("a", 1, 0x1_1111, 5), ("a", 2, 0x1111, 4), ("b", 1, 0x111, 3), ("b", 1, 0x1_1100, 3)]
    {
        assert!(
            wrong(&first, &answer(session, round, sum, cohort)).contains("opened 111"),
            "{session} {round} {sum:x}"
        );
    }
}

#[test]
fn who_is_honest_is_accused_of_nothing() {
    let accused = answer("a", 1, 0x111, 3).replace("[]", r#"["server"]"#);
    assert!(wrong(&[], &accused).contains("accused"));
}

#[test]
fn a_receipt_of_another_sum_is_wrong() {
    for line in ["over 4 patients, with p0", "over 3 patients, without p0"] {
        let mut judge = judge();
        judge.printed(&answer("a", 1, 0x111, 3)).unwrap();
        judge.said(0, &format!("session a, round 1: opened {line}"));
        assert!(judge.receipts_hold().is_err(), "{line}");
    }
}

#[test]
fn a_hospital_ends_with_an_answer_or_a_typed_abort() {
    let aborted = r#"{"outcome":"aborted","reason":"no_cohort"}"#;
    let opened = answer("a", 1, 0x111, 3);
    let ended = |code, last: &str| judge().ended(code, Some(last));
    assert_eq!((ended(Some(0), &opened), ended(Some(3), aborted)), (Ok(true), Ok(false)));
    for (code, last) in [(Some(0), aborted), (Some(3), &opened), (Some(1), aborted), (Some(2), ""), (None, aborted)] {
        assert!(ended(code, last).is_err(), "{code:?} {last}");
    }
}

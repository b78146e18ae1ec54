//! Hospital and server that lie together: rounds forged between them, over cohorts whose sums would differ by one patient.
//!
//! A test is called after its attack and says what stops it: the right sum over who is left, or a typed abort, and who is
//! accused, which is never somebody honest.

#![allow(missing_docs, clippy::unwrap_used, clippy::expect_used, clippy::panic)]

mod support;

use protocol::message::*;
use protocol::*;
use support::*;

/// *once* is kept in session by *same or apart*: a round over one patient less is refused by every member that
/// confirmed the larger one, and so is one patient more: the difference would be that patient's value.
#[test]
fn a_cohort_with_one_patient_less_in_a_later_round_is_refused() {
    let mut study = Build { min_cohort: 3, ..Build::new(8, 4, 1) }.start();
    assert_eq!(study.ask_with(|ask| ask.enough = None), study.sum(0..8));
    study.net.kill(&name("hospital"));
    let overlap = Refuse::Overlap { round: RoundNo(1) };
    assert_eq!(study.forge_round(2, 0..7, &[0, 1, 2, 3]), (vec![], vec![overlap.clone(); 4]));
    assert_eq!(study.forge_round(3, [1, 2, 3], &[0, 1, 2, 3]), (vec![], vec![overlap; 4]));
    // The same people are no difference; too few are refused whatever was before.
    assert_eq!(study.forge_round(4, 0..8, &[0, 1, 2, 3]).0, [0, 1, 2, 3]);
    assert_eq!(study.forge_round(5, 0..2, &[0, 1, 2, 3]), (vec![], vec![Refuse::BelowMinimum; 4]));
    assert_eq!(study.accused(), []);
}

/// The same with somebody new: round 1 without dave, round 2 with him.
#[test]
fn a_cohort_with_one_patient_more_in_a_later_round_is_refused() {
    let mut study = Build::new(5, 4, 1).start();
    study.net.kill(&p(4));
    assert_eq!(study.ask(), study.sum(0..4));
    study.net.revive(&p(4));
    study.net.kill(&name("hospital"));
    let overlap = Refuse::Overlap { round: RoundNo(1) };
    assert_eq!(study.forge_round(2, 0..5, &[0, 1, 2, 3]), (vec![], vec![overlap; 4]));
}

/// *same or apart, on pairs*: {1-4}, {5-8}, {1-9} would isolate patient 9. Quorums of four of five members rotate
/// so that each member's own record is as clean as can be: still no quorum confirms the third.
#[test]
fn rotating_quorums_do_not_isolate_the_ninth_patient() {
    let mut study = Build::new(9, 5, 1).start();
    study.put(|ask| ask.snapshot = snapshot("unknown"));
    study.net.run();
    study.net.kill(&name("hospital"));
    assert_eq!(study.forge_round_over(2, "1", 0..4, &[0, 1, 2, 3]).0, [0, 1, 2, 3]);
    assert_eq!(study.forge_round_over(3, "1", 4..8, &[1, 2, 3, 4]).0, [1, 2, 3, 4]);
    let (confirmed, refused) = study.forge_round_over(4, "1", 0..9, &[0, 1, 2, 3, 4]);
    assert_eq!((confirmed.len(), refused.len()), (0, 5));
}

/// With c=5, t=1: {1-4}, {5-8}, {9-12}, {1-13}, the server leaving out another honest member each round. A rule over
/// Venn cells, kept by each member alone, lets this pass; the rule on pairs does not.
#[test]
fn rotating_quorums_do_not_isolate_the_thirteenth_patient() {
    let mut study = Build::new(13, 5, 1).start();
    study.put(|ask| ask.snapshot = snapshot("unknown"));
    study.net.run();
    study.net.kill(&name("hospital"));
    for (round, first, left_out) in [(2, 0, 4), (3, 4, 3), (4, 8, 2)] {
        let members: Vec<usize> = (0..5).filter(|member| *member != left_out).collect();
        assert_eq!(study.forge_round_over(round, "1", first..first + 4, &members).0, members);
    }
    let (confirmed, refused) = study.forge_round_over(5, "1", 0..13, &[0, 1, 2, 3, 4]);
    assert_eq!((confirmed.len(), refused.len()), (0, 5));
    // Each Cohort alone was one that a server may show: no member can prove who lies.
    assert_eq!(study.accused(), []);
}

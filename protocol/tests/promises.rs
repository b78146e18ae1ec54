//! What a patient is promised over time: once, frozen values, its own policy, and keys that are gone when they should be.

#![allow(missing_docs, clippy::unwrap_used, clippy::expect_used, clippy::panic)]

mod support;

use std::collections::BTreeMap;

use protocol::message::{Decline, Receipt};
use protocol::*;
use support::*;

fn other(study: &Study, values: i64) -> Record {
    Record::new(BTreeMap::from([("value".into(), vec![values])]), &study.build.schema()).unwrap()
}

/// *values under a label are frozen*: the patient itself refuses a changed value under an old label, also after a
/// restart; unchanged values are taken again, and before they are first shared values may change.
#[test]
fn a_changed_value_under_a_shared_label_is_refused_by_the_patient() {
    let mut study = Build::new(5, 3, 1).start();
    study.net.offer(&p(0), &snapshot("1"), other(&study, 77)).unwrap();
    study.net.offer(&p(0), &snapshot("1"), study.build.record(0)).unwrap();
    assert_eq!(study.ask(), study.sum(0..5));
    let frozen = OfferError::Frozen { snapshot: snapshot("1"), session: study.session };
    assert_eq!(study.net.offer(&p(0), &snapshot("1"), other(&study, 2)), Err(frozen.clone()));
    study.net.kill(&p(0));
    study.net.revive(&p(0));
    assert_eq!(study.net.offer(&p(0), &snapshot("1"), other(&study, 2)), Err(frozen.clone()));
    study.net.offer(&p(0), &snapshot("1"), study.build.record(0)).unwrap();
    study.net.offer(&p(0), &snapshot("2"), other(&study, 2)).unwrap();
    assert_eq!(study.ask(), study.sum(0..5));
    let short = study.session.short();
    assert_eq!(
        frozen.to_string(),
        format!(
            "snapshot `1` was shared with other values in session {short}: values under a label never change; offer the \
             new ones under the next label (--snapshot)"
        )
    );
}

/// *once*: a snapshot goes into one session without exception: not under another committee, not when the first
/// session is over, not after a restart, not for another question.
#[test]
fn a_snapshot_goes_into_one_session_without_exception() {
    let columns = vec![Column::scalar("age"), Column::scalar("weight")];
    let mut study = Build { columns: columns.clone(), marked: 6, ..Build::new(6, 3, 1) }.start();
    let first = study.session;
    assert_eq!(study.ask_with(|ask| ask.question = Question::Sum(columns[..1].to_vec())), study.sum_of(0..6, 1));
    let refused = |study: &mut Study| {
        let end = study.ask_with(|ask| ask.question = Question::Sum(columns[1..].to_vec()));
        assert_eq!(end, End::Aborted(AbortReason::TooFewShared { shared: 0, needed: 2 }));
        let declines = study.frames(Kind::Decline);
        assert_eq!(declines.len(), 6);
        assert!(declines.iter().all(|(_, frame)| frame.envelope.body() == Ok(Decline::Once(first))));
        let names = "p00, p01, p02, p03, p04 and p05";
        assert!(study.advice().starts_with(&format!("snapshot `1` of {names} belongs to session {}", first.short())));
    };
    study.announce();
    study.net.run();
    refused(&mut study);
    // The first session ends; the snapshot still belongs to it.
    let second = std::mem::replace(&mut study.session, first);
    study.net.stop(first, true);
    study.net.run();
    for i in 0..6 {
        study.net.kill(&p(i));
        study.net.revive(&p(i));
        study.net.offer(&p(i), &snapshot("1"), study.build.record(i)).unwrap();
    }
    study.session = second;
    study.announce();
    study.net.run();
    refused(&mut study);
    assert_eq!(study.net.answers().count(), 1);
}

/// PROTOCOL.md, *Roster*: a patient without a Place answers no Begin and binds no snapshot: its data stay free for a
/// session that counts them.
#[test]
fn a_latecomer_gets_no_place_and_binds_nothing() {
    let mut study = Build { expect: Some(5), ..Build::new(6, 3, 1) }.parties();
    study.announce();
    study.net.kill(&p(5));
    study.net.run();
    study.net.revive(&p(5));
    let announce = study.newest(Kind::Announce, &name("hospital")).signed();
    let roster = study.roster().signed();
    study.deliver_all(&announce, &[p(5)]);
    study.net.run();
    study.deliver_all(&roster, &[p(5)]);
    assert_eq!(study.ask(), study.sum(0..5));
    assert_eq!(study.ask(), study.sum(0..5));
    assert!(study.dropped(&name("server")).contains(&(Kind::Join, "joins are closed")));
    assert!(!study.net.store(&p(5)).unwrap().contains_key("snapshot/1"));
    assert!(study.net.store(&p(0)).unwrap().contains_key("snapshot/1"));
    // In a session that has a place for it, it alone may still share that snapshot.
    study.build.expect = None;
    study.announce();
    study.net.run();
    assert_eq!(study.ask(), End::Aborted(AbortReason::TooFewShared { shared: 1, needed: 2 }));
    assert!(study.net.store(&p(5)).unwrap().contains_key("snapshot/1"));
    assert_eq!(study.faults(), []);
}

/// PROTOCOL.md, *Announce, Join*: a patient joins only what its own policy allows, and its owner is told why not.
#[test]
fn a_patient_joins_only_what_its_policy_allows() {
    let strict = |change: &dyn Fn(&mut Policy)| {
        let mut policy = policy();
        change(&mut policy);
        let study = Build { policy, ..Build::new(4, 3, 1) }.start();
        let why = study.net.events().iter().find_map(|(_, event)| match event {
            Event::NotJoined { why, .. } => Some(why.clone()),
            _ => None,
        });
        (study.net.count(Kind::Join), study.net.count(Kind::Key), why.unwrap_or_default())
    };
    assert_eq!(strict(&|_| {}), (4, 12, String::new()));
    assert_eq!(strict(&|policy| policy.study = "x".into()).2, "it is of the study `ward`, this patient of `x`");
    assert_eq!(strict(&|policy| policy.min_cohort = 3), (0, 0, "its smallest cohort is 2, this patient's is 3".into()));
    let committee = "its committee is 3 with threshold 1, this patient's at least 4 and 1";
    assert_eq!(strict(&|policy| policy.min_committee = 4), (0, 0, committee.into()));
    assert_eq!(strict(&|policy| policy.min_threshold = 2).0, 0);
    let hospital = "hospital hospital is not among those this patient answers";
    assert_eq!(strict(&|policy| policy.hospitals = Accepted::Only(vec![name("h2")])), (0, 0, hospital.into()));
    // The committee is known only from the Roster: it sends its Join, and neither Key nor Share to who is not accepted.
    let member = "member p01 is not among those this patient accepts";
    assert_eq!(strict(&|policy| policy.members = Accepted::Only(vec![p(0), p(2)])), (4, 0, member.into()));
}

/// PROTOCOL.md, *Sharing*: columns belong to the patient's own schema and policy.
#[test]
fn a_question_over_foreign_columns_or_scale_is_declined() {
    let columns = vec![Column::scalar("age"), Column::scalar("name")];
    let only = AcceptedColumns::Only(vec!["age".into()]);
    let build = Build { columns, policy: Policy { columns: only, ..policy() }, ..Build::new(4, 3, 1) };
    let mut study = build.start();
    let refused = End::Aborted(AbortReason::TooFewShared { shared: 0, needed: 2 });
    let sum = |column: Column| Question::Sum(vec![column]);
    assert_eq!(study.ask_with(|ask| ask.question = sum(Column::scalar("name"))), refused);
    assert_eq!(study.ask_with(|ask| ask.question = sum(Column::scalar("height"))), refused);
    assert_eq!(study.ask_with(|ask| ask.question = sum(Column { name: "age".into(), width: 2 })), refused);
    assert_eq!(
        study.ask_with(|ask| (ask.question, ask.scale) = (sum(Column::scalar("age")), Scale::default())),
        refused
    );
    assert_eq!(
        study.ask_with(|ask| (ask.question, ask.snapshot) = (sum(Column::scalar("age")), snapshot("9"))),
        refused
    );
    let fits = study.ask_with(|ask| ask.question = sum(Column::scalar("age")));
    assert_eq!(fits, study.sum_of(0..4, 1));
    assert_eq!(study.faults(), []);
}

/// The receipt: every patient learns count, root and whether it is in, from a Cohort that q members confirmed.
#[test]
fn everybody_gets_a_receipt_that_says_whether_it_is_in() {
    let mut study = Build::new(6, 4, 1).start();
    study.cut(|d| d.address.kind == Kind::Share && d.address.from == p(5));
    assert_eq!(study.ask(), study.sum(0..5));
    let receipts: Vec<(Name, u32, bool)> = study
        .net
        .events()
        .iter()
        .filter_map(|(who, event)| match event {
            Event::Receipt { count, included, .. } => Some((who.clone(), *count, *included)),
            _ => None,
        })
        .collect();
    assert_eq!(receipts, (0..6).map(|i| (p(i), 5, i < 5)).collect::<Vec<_>>());
    let receipt: Receipt = study.newest(Kind::Result, &name("hospital")).envelope.body().unwrap();
    assert_eq!((receipt.count, receipt.confirms.len(), receipt.last), (5, 3, false));
    assert_eq!(receipt.cohort.digest(), study.cohort().digest);
}

/// All stores hold nothing of the session's secrets, nor any record of it but receipts and which snapshot went where.
fn assert_wiped(study: &Study, secrets: &[[u8; 32]]) {
    for who in (0..study.build.patients).map(p).chain([name("server"), name("hospital")]) {
        let store = study.net.store(&who).unwrap();
        let left: Vec<&String> = store.keys().filter(|key| key.starts_with("session/")).collect();
        assert!(left.is_empty(), "{who} still has {left:?}");
        assert!(!secrets.iter().any(|secret| holds(store, secret)), "{who} still holds a key");
        assert!(!store.keys().any(|key| key.starts_with("values/1")), "{who} still holds the values");
    }
}

/// PROTOCOL.md, *Time*: with the answer that says `last` the session ends for everybody, and all its keys are wiped.
#[test]
fn after_the_last_answer_no_store_holds_key_material() {
    let mut study = Build::new(5, 3, 1).parties();
    study.announce();
    study.settle();
    let mut known = secrets(&study);
    assert_eq!(study.ask(), study.sum(0..5));
    known.extend(secrets(&study));
    study.put(|ask| ask.last = true);
    study.until(|net| net.count(Kind::Open) == 6);
    known.extend(secrets(&study));
    // Four rounds' worth of chains of 15 pairs at both ends, roots, randomness and seal keys.
    assert!(known.len() > 60, "{}", known.len());
    study.net.run();
    assert_eq!(study.end(), study.sum(0..5));
    assert_wiped(&study, &known);
    assert!(study.net.ask(study.session, study.question()).is_err());
    let ended = study.net.events().iter().filter(|(_, event)| *event == Event::Ended(study.session)).count();
    assert_eq!(ended, 7);
}

/// A last round that is refused ends the session just the same, at the hospital too.
#[test]
fn a_last_round_that_is_refused_ends_the_session_too() {
    let mut study = Build::new(5, 3, 1).start();
    let known = secrets(&study);
    for i in 0..5 {
        study.net.offer(&p(i), &snapshot("2"), study.build.record(i)).unwrap();
    }
    let end = study.ask_with(|ask| (ask.last, ask.snapshot) = (true, snapshot("9")));
    assert_eq!(end, End::Aborted(AbortReason::TooFewShared { shared: 0, needed: 2 }));
    for who in (0..5).map(p).chain([name("server"), name("hospital")]) {
        let store = study.net.store(&who).unwrap();
        assert!(!store.keys().any(|key| key.starts_with("session/")), "{who}");
        assert!(!known.iter().any(|secret| holds(store, secret)), "{who}");
    }
    assert!(study.net.ask(study.session, study.question()).is_err());
}

/// PROTOCOL.md, *Time*: not_after ends a session that nobody ends, and wipes its keys though no message comes; also
/// where the party was not running at that moment.
#[test]
fn not_after_ends_a_session_and_wipes_its_keys() {
    let mut study = Build { lifetime_seconds: 5 * 86_400, ..Build::new(5, 3, 1) }.start();
    assert_eq!(study.ask(), study.sum(0..5));
    let known = secrets(&study);
    let down = [p(0), p(4), name("server"), name("hospital")];
    down.iter().for_each(|who| study.net.kill(who));
    study.net.sleep(5 * 86_400_000);
    assert!(study.net.store(&p(1)).unwrap().keys().all(|key| !key.starts_with("session/")));
    assert!(study.net.store(&p(0)).unwrap().keys().any(|key| key.starts_with("session/")));
    down.iter().for_each(|who| study.net.revive(who));
    assert_wiped(&study, &known);
    assert!(study.net.ask(study.session, study.question()).is_err());
}

/// A session whose Joins never closed leaves nothing behind either.
#[test]
fn too_few_joins_end_the_session_with_a_typed_abort() {
    let mut study = Build { expect: Some(9), min_cohort: 6, ..Build::new(5, 3, 1) }.parties();
    study.announce();
    study.put(|_| {});
    study.net.run();
    let aborted = AbortReason::TooFewJoined { joined: 5, marked: 3, needed: 6, committee: 3 };
    assert_eq!(study.end(), End::Aborted(aborted));
    assert_eq!(study.faults(), []);
    for who in (0..5).map(p).chain([name("server"), name("hospital")]) {
        assert!(!study.net.store(&who).unwrap().keys().any(|key| key.starts_with("session/")), "{who}");
    }
}

/// PROTOCOL.md, *Key*: the private half of a member's seal key goes when it stores its first Confirm: what is in its
/// store afterwards opens no Key of the set-up, and no box of a round that is past.
#[test]
fn past_rounds_stay_closed_to_a_later_break_in() {
    let mut study = Build::new(5, 3, 1).start();
    let seal = study.stored_bytes(&p(0), "seal").unwrap();
    let chain_of_round_1 = study.chains(&p(4), 1).remove(0);
    assert_eq!(study.ask(), study.sum(0..5));
    assert_eq!(study.stored_bytes(&p(0), "seal"), None);
    let seal: [u8; 32] = seal.try_into().unwrap();
    for who in [p(0), p(4)] {
        let store = study.net.store(&who).unwrap();
        assert!(!holds(store, &seal) && !holds(store, chain_of_round_1.expose()), "{who}");
        assert_eq!(study.stored_bytes(&who, "randomness"), None);
        assert_eq!(study.stored_bytes(&who, "round"), None);
    }
    // Both ends have moved on to the key of round 2: its parent is gone, its child is not there yet.
    let next = chain_of_round_1.next();
    assert!(holds(study.net.store(&p(4)).unwrap(), next.expose()));
    assert!(holds(study.net.store(&p(0)).unwrap(), next.expose()));
}

/// As above where questions carry payloads: once a patient has the key of those, nothing is derived from its randomness any
/// more, from which the seal key could be made again.
#[test]
fn past_rounds_stay_closed_where_there_are_payloads_too() {
    let mut study = Build { payloads: true, ..Build::new(5, 3, 1) }.start();
    for _ in 0..2 {
        assert_eq!(study.ask(), study.sum(0..5));
        (0..5).for_each(|i| assert_eq!(study.stored_bytes(&p(i), "randomness"), None, "p{i}"));
    }
}

/// As above for a member that confirmed nothing in the round that had a Cohort: with the Result its seal key goes too.
#[test]
fn a_member_that_missed_the_cohort_wipes_its_seal_key_with_the_result() {
    let mut study = Build::new(5, 4, 1).start();
    study.cut(|d| among(d, Kind::Cohort, &[0]));
    assert_eq!(study.ask(), study.sum(0..5));
    assert_eq!(study.stored_bytes(&p(0), "seal"), None);
}

/// The hospital's owner stops a round, or the session: everybody hears it, and a stopped round's people may be asked again.
#[test]
fn a_stopped_round_may_be_asked_again() {
    let mut study = Build::new(5, 3, 1).start();
    study.put(|_| {});
    study.until(|net| net.count(Kind::Confirm) == 3);
    study.net.stop(study.session, false);
    study.net.run();
    assert_eq!(study.ends(), [End::Aborted(AbortReason::Stopped)]);
    assert_eq!(study.ask(), study.sum(0..5));
    study.net.stop(study.session, true);
    study.net.run();
    assert_eq!(study.ends().pop(), Some(End::Aborted(AbortReason::Stopped)));
    assert_wiped(&study, &[]);
    assert_eq!(study.faults(), []);
}

/// What a patient declined it has declined for good: under a policy that would allow it, too, after a restart.
#[test]
fn a_declined_session_stays_declined_after_a_restart() {
    let strict = Policy { min_cohort: 6, ..policy() };
    let study = Build { policy: strict, ..Build::new(5, 3, 1) }.start();
    assert_eq!(study.net.count(Kind::Join), 0);
    let mut board = study.net.board().iter();
    let (address, payload) = board.find(|(address, _)| address.kind == Kind::Announce).unwrap();
    let (me, store) = (study.net.me(&p(0)).unwrap().clone(), study.net.store(&p(0)).unwrap());
    let mut patient = Patient::restore(me, policy(), study.build.schema(), store).unwrap();
    let announce = Input::Message { address: address.clone(), payload: payload.clone() };
    let effects = patient.handle(&Moment::new(study.net.now(), [1; 32]), announce);
    assert!(effects.send.is_empty());
}

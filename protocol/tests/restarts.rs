//! What a restart must not forget: ended sessions, where a snapshot went, and in which units values were checked.
#![allow(missing_docs, clippy::unwrap_used, clippy::expect_used, clippy::panic)]

mod support;

use protocol::*;
use support::*;

/// Two patients of whom one is a copy of the other's machine, with its random generator, both take part: to others they
/// would else have one key between them.
#[test]
fn parties_that_draw_the_same_bytes_have_keys_of_their_own() {
    let mut study = Build::new(3, 3, 1).parties();
    study.net.repeat_draws(&p(1));
    study.net.repeat_draws(&p(2));
    study.announce();
    study.net.run();
    assert_eq!(study.ask(), study.sum(0..3));
}

/// Where an old Announce is written again: under a name of the hospital's choice.
fn again(announce: &Frame) -> Address {
    Address {
        session: announce.digest.into(),
        round: RoundNo::SETUP,
        from: name("hospital"),
        to: To::All,
        kind: Kind::Announce,
        name: MessageName([9; 16]),
    }
}

/// A hospital that writes the Announce of an ended session again, after everybody was restarted, opens nothing: members
/// that remember no cohort would confirm one that overlaps with what was opened.
#[test]
fn an_ended_session_is_not_joined_again_after_a_restart() {
    let mut study = Build { marked: 6, ..Build::new(6, 3, 1) }.start();
    assert_eq!(study.ask_with(|ask| ask.last = true), study.sum(0..6));
    let announce = study.newest(Kind::Announce, &name("hospital"));
    let joins = study.net.count(Kind::Join);
    for who in (0..6).map(p).chain([name("server")]) {
        study.net.kill(&who);
        study.net.revive(&who);
    }
    for i in 0..6 {
        study.net.offer(&p(i), &snapshot("1"), study.build.record(i)).unwrap();
    }
    study.net.post(again(&announce), announce.signed().frame(&[]));
    study.net.sleep(40_000);
    assert_eq!((study.net.count(Kind::Join), study.net.count(Kind::Roster)), (joins, 1));
}

/// A session that a store cannot give back, say because a certificate in its Roster expired, is over for that party: it
/// does not join anew with an empty memory.
#[test]
fn a_session_that_cannot_be_read_is_not_joined_anew_and_leaves_no_keys() {
    let mut study = Build { marked: 6, ..Build::new(6, 3, 1) }.start();
    assert_eq!(study.ask(), study.sum(0..6));
    let announce = study.newest(Kind::Announce, &name("hospital"));
    let joins = study.net.count(Kind::Join);
    for i in 0..6 {
        study.net.kill(&p(i));
        let mut store = study.net.store(&p(i)).unwrap().clone();
        store.insert(format!("session/{}/state", study.session), vec![0].into());
        study.net.restore_store(&p(i), store);
        study.net.revive(&p(i));
        // Nor after the next restart, when nothing is left of it that could not be read.
        study.net.kill(&p(i));
        study.net.revive(&p(i));
    }
    study.net.post(again(&announce), announce.signed().frame(&[]));
    study.net.sleep(1_000);
    assert_eq!(study.net.count(Kind::Join), joins);
    for i in 0..6 {
        let store = study.net.store(&p(i)).unwrap();
        let left: Vec<_> = store.keys().filter(|key| key.starts_with("session/")).collect();
        assert!(left.is_empty(), "{left:?}");
    }
}

/// Values that were checked under one scale and bound are not answered under another.
#[test]
fn values_are_not_answered_in_other_units_after_a_restart() {
    let study = Build { bound: 1 << 20, ..Build::new(5, 3, 1) }.start();
    let store = study.net.store(&p(4)).unwrap();
    let restore = |scaled_bound, scale| {
        let schema = Schema { columns: study.build.columns.clone(), scaled_bound, scale };
        Patient::restore(study.net.me(&p(4)).unwrap().clone(), policy(), schema, store).unwrap()
    };
    assert_eq!(restore(1 << 20, Scale::new(1).unwrap()).snapshots().count(), 1);
    assert_eq!(restore(1 << 20, Scale::new(1000).unwrap()).snapshots().count(), 0);
    assert_eq!(restore(0, Scale::new(1).unwrap()).snapshots().count(), 0);
}

/// Values in a store that are not those that were shared under their label are not answered from, in no later round either.
#[test]
fn other_values_in_a_store_than_were_shared_are_not_answered_from() {
    let mut study = Build::new(6, 4, 1).start();
    assert_eq!(study.ask(), study.sum(0..6));
    study.net.kill(&p(5));
    let mut store = study.net.store(&p(5)).unwrap().clone();
    let (secret, _): (serde_bytes::ByteBuf, Record) = rmp_serde::from_slice(&store["values/1"]).unwrap();
    store.insert("values/1".into(), encode(&(secret, study.build.record(0))).into());
    study.net.restore_store(&p(5), store);
    study.net.revive(&p(5));
    assert!(
        matches!(study.ask(), End::Aborted(AbortReason::TooFewShared { shared: 5, needed: 6 })),
        "{:?}",
        study.end()
    );
    study.net.offer(&p(5), &snapshot("1"), study.build.record(5)).unwrap();
    assert_eq!(study.ask(), study.sum(0..6));
}

/// A patient that cannot read where a snapshot went does not start: it would share it a second time.
#[test]
fn a_record_of_once_that_cannot_be_read_is_no_fresh_start() {
    let mut study = Build::new(5, 3, 1).start();
    assert_eq!(study.ask(), study.sum(0..5));
    let mut store = study.net.store(&p(4)).unwrap().clone();
    store.insert("snapshot/1".into(), vec![0].into());
    let schema = Schema { columns: study.build.columns.clone(), scaled_bound: 1, scale: Scale::new(1).unwrap() };
    let me = study.net.me(&p(4)).unwrap().clone();
    let refused = Patient::restore(me, policy(), schema, &store).unwrap_err();
    assert!(refused.to_string().contains("snapshot/1"), "{refused}");
}

/// A session outlives the certificates that it began with: one that expired in its Roster ends it for nobody.
#[test]
fn a_certificate_that_expired_ends_no_session_that_it_began() {
    let mut study = Build { marked: 6, ..Build::new(6, 3, 1) }.start();
    assert_eq!(study.ask(), study.sum(0..6));
    let later = |who: &Name| {
        let me = study.net.me(who).unwrap().clone();
        let authority = std::sync::Arc::new(Expired(me.authority.clone()));
        (Me { authority, ..me }, study.net.store(who).unwrap())
    };
    let (me, store) = later(&name("hospital"));
    assert_eq!(Hospital::restore(me, store).sessions().len(), 1);
    let (me, store) = later(&name("server"));
    assert!(format!("{:?}", Server::restore(me, store, study.net.now())).contains("Running"));
    let (me, store) = later(&p(0));
    let patient = Patient::restore(me, policy(), study.build.schema(), store).unwrap();
    assert!(format!("{patient:?}").contains("Enrolled"));
}

/// Values under a label whose session is over can be asked for by nobody: they are not stored again.
#[test]
fn values_of_an_ended_session_are_not_kept_when_they_are_offered_again() {
    let mut study = Build { marked: 6, ..Build::new(6, 3, 1) }.start();
    assert_eq!(study.ask_with(|ask| ask.last = true), study.sum(0..6));
    study.net.kill(&p(0));
    study.net.revive(&p(0));
    study.net.offer(&p(0), &snapshot("1"), study.build.record(0)).unwrap();
    assert!(!study.net.store(&p(0)).unwrap().keys().any(|key| key.starts_with("values/")));
}

/// What was written in a session that a store cannot give back is not written again at every start, and what is no record
/// of a message is none: it goes, and nothing is stopped by it.
#[test]
fn the_mail_of_a_session_that_cannot_be_read_goes_with_it() {
    let mut study = Build { marked: 6, ..Build::new(6, 3, 1) }.start();
    study.put(|_| {});
    study.until(|net| net.count(Kind::Confirm) == 3);
    let (member, state) = (study.committee()[0].clone(), format!("session/{}/state", study.session));
    let mail = |study: &Study, who: &Name| {
        let store = study.net.store(who).unwrap();
        store.keys().filter(|key| key.starts_with("outbox/") || key.starts_with("early/")).count()
    };
    assert!(mail(&study, &member) > 0);
    for who in [member, name("server")] {
        study.net.kill(&who);
        let mut store = study.net.store(&who).unwrap().clone();
        for key in [&state, "outbox/ffffffffffffffff", "outbox/5", "early/ffffffffffffffff", "early/x"] {
            store.insert(key.to_string(), vec![0].into());
        }
        study.net.restore_store(&who, store);
        study.net.revive(&who);
        assert_eq!(mail(&study, &who), 0, "{who}");
    }
}

/// A certificate that is renewed in set-up changes neither the Join nor the Keys of its patient: whatever was lost until
/// then, everybody has their place, and what is said again is what was said before.
#[test]
fn a_certificate_that_is_renewed_in_set_up_costs_nobody_the_place() {
    for lost in [Kind::Roster, Kind::Place, Kind::Key] {
        let mut study = Build { marked: 6, ..Build::new(6, 3, 1) }.parties();
        let cut = study.cut(move |d| among(d, lost, &[0, 1, 2, 3, 4, 5]));
        study.announce();
        study.settle();
        cut.mend();
        for i in 0..6 {
            study.net.kill(&p(i));
            study.net.renew(&p(i));
            study.net.revive(&p(i));
        }
        study.all().for_each(|i| study.net.redeliver(&p(i)));
        study.settle();
        assert_eq!((study.net.count(Kind::Join), study.net.count(Kind::Key)), (6, 18), "{lost:?}");
        assert_eq!(study.ask(), study.sum(0..6), "{lost:?}");
        assert_eq!(study.faults(), []);
    }
}

/// A member that starts again after a round, and before the list of who joined reached it, is a member all the same.
#[test]
fn a_member_that_the_list_reaches_after_a_round_and_a_restart_holds() {
    let mut study = Build::new(4, 2, 1).parties();
    let cut = study.cut(|d| among(d, Kind::List, &[1]));
    study.announce();
    study.settle();
    assert!(matches!(study.ask(), End::Aborted(AbortReason::TooFewShared { .. })));
    study.net.kill(&p(1));
    study.net.revive(&p(1));
    cut.mend();
    study.net.redeliver(&p(1));
    study.settle();
    assert_eq!(study.ask(), study.sum(0..4));
    assert_eq!(study.faults(), []);
}

/// The list of who joined may come in pieces. What a member had of them when it was stopped is not delivered again: it
/// would know nobody, and so be missing for as long as the session lives.
#[test]
fn a_member_that_is_stopped_between_two_pieces_of_the_list_knows_everybody() {
    const PATIENTS: usize = 400;
    // Joins of marked patients carry a seal key: so many take two pieces.
    let mut study = Build { bound: 1, ..Build::new(0, 3, 1) }.parties();
    study.build.patients = PATIENTS;
    let schema = study.build.schema();
    for i in 0..PATIENTS {
        study.net.add_patient(&p(i), Role::Member, policy(), schema.clone());
        let record = Record::new([("value".into(), vec![1])].into(), &schema).unwrap();
        study.net.offer(&p(i), &snapshot("1"), record).unwrap();
    }
    study.announce();
    study.until(|net| net.count(Kind::Roster) == 1);
    let member = study.committee()[0].clone();
    let piece = format!("session/{}/piece/", study.session);
    let has_piece = |store: &Records| store.keys().any(|key| key.starts_with(&piece));
    study.until(|net| net.store(&member).is_some_and(has_piece));
    study.net.kill(&member);
    study.net.revive(&member);
    study.net.run();
    assert!(!has_piece(study.net.store(&member).unwrap()));
    assert_eq!(study.ask(), End::Opened(vec![PATIENTS as i64]));
}

/// A hospital goes on with the session that it opened last, also where its clock went back since the one before.
#[test]
fn the_newest_session_is_the_last_one_whatever_the_clock_says() {
    let mut study = Build::new(4, 3, 1).start();
    let hospital = name("hospital");
    let mut opened = vec![study.session];
    for _ in 0..4 {
        study.net.skew(&hospital, -1_800_000);
        opened.push(study.announce());
        study.net.run();
    }
    let me = study.net.me(&hospital).unwrap().clone();
    let restored = Hospital::restore(me, study.net.store(&hospital).unwrap());
    let sessions: Vec<SessionId> = restored.sessions().into_iter().map(|info| info.session).collect();
    assert_eq!(sessions, opened);
}

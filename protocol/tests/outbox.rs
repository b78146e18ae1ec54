//! What was stored is said, whatever happens between storing and sending, and a board that lost it gets it again
//! (PROTOCOL.md, *The board*).
#![allow(missing_docs, clippy::unwrap_used, clippy::expect_used, clippy::panic)]

mod support;

use std::cell::{Cell, RefCell};
use std::rc::Rc;

use protocol::*;
use support::*;

/// A study of six with a committee of three of them, before its Announce.
fn six() -> Study {
    Build { marked: 6, ..Build::new(6, 3, 1) }.parties()
}

/// Starts `who` again, where it died, and lets what it says again take effect.
fn revive(study: &mut Study, who: &Name) {
    assert!(study.net.me(who).is_some() && study.net.describe(who).is_empty(), "{who} did not die");
    study.net.revive(who);
    study.net.redeliver(who);
    study.settle();
}

/// The set-up goes on as if nobody had died: nobody is out, for want of a message that was never sent.
#[test]
fn a_death_between_storing_and_sending_in_set_up_costs_nobody() {
    let server = name("server");
    for (who, kind) in [(&server, Kind::Roster), (&server, Kind::Place), (&p(0), Kind::Join), (&p(0), Kind::Key)] {
        let mut study = six();
        study.net.kill_before_sending(who, kind);
        study.announce();
        study.settle();
        revive(&mut study, who);
        assert_eq!(study.ask(), study.sum(0..6), "{who} died before its {kind:?}");
    }
}

/// An Announce that was stored is announced; a hospital that dies before it is no exception.
#[test]
fn a_hospital_that_dies_before_its_announce_opens_the_session_when_it_is_back() {
    let mut study = six();
    study.net.kill_before_sending(&name("hospital"), Kind::Announce);
    study.announce();
    assert_eq!(study.net.count(Kind::Announce), 0);
    revive(&mut study, &name("hospital"));
    assert_eq!(study.ask(), study.sum(0..6));
}

/// The server stored that this cohort was fixed, and told nobody: the hospital must learn of it, or nobody of the cohort
/// could ever be asked again over this snapshot.
#[test]
fn a_cohort_that_was_fixed_and_never_sent_is_asked_again() {
    let mut study = six();
    study.announce();
    study.settle();
    study.net.kill_before_sending(&name("server"), Kind::Cohort);
    assert!(matches!(study.ask(), End::Aborted(AbortReason::NoCohort)));
    assert_eq!(study.net.count(Kind::Cohort), 0);
    revive(&mut study, &name("server"));
    assert_eq!(study.ask(), study.sum(0..6));
    assert_eq!(study.begin().envelope.body::<message::Begin>().unwrap().same_as, Some(RoundNo(1)));
}

/// A Confirm that was stored is sent: without it this member would keep its round from opening.
#[test]
fn a_confirm_that_was_stored_is_sent() {
    let mut study = six();
    study.announce();
    study.settle();
    let member = study.committee()[0].clone();
    study.net.kill_before_sending(&member, Kind::Confirm);
    study.put(|_| {});
    let died = member.clone();
    study.until(move |net| net.describe(&died).is_empty());
    revive(&mut study, &member);
    let confirms = study.frames(Kind::Confirm);
    assert!(confirms.iter().any(|(address, _)| address.from == member), "no Confirm of {member}");
}

/// A patient that declined says so, though it died on the way.
#[test]
fn a_decline_that_was_stored_is_sent() {
    let mut study = six();
    study.announce();
    study.settle();
    study.net.kill_before_sending(&p(5), Kind::Decline);
    study.put(|ask| ask.snapshot = snapshot("unknown"));
    let died = p(5);
    study.until(move |net| net.describe(&died).is_empty());
    revive(&mut study, &p(5));
    assert_eq!(study.frames(Kind::Decline).iter().filter(|(address, _)| address.from == p(5)).count(), 1);
}

/// The hospital has its answer and dies before the receipts are out: they go out when it is back.
#[test]
fn receipts_are_sent_by_a_hospital_that_died_before_them() {
    let mut study = six();
    study.announce();
    study.settle();
    study.net.kill_before_sending(&name("hospital"), Kind::Result);
    study.put(|_| {});
    study.until(|net| net.describe(&name("hospital")).is_empty());
    revive(&mut study, &name("hospital"));
    let receipts =
        study.net.events().iter().filter(|(_, event)| matches!(event, Event::Receipt { included: true, .. }));
    assert_eq!(receipts.count(), 6);
}

/// Every party of a study.
fn everybody() -> Vec<Name> {
    [name("hospital"), name("server")].into_iter().chain((0..6).map(p)).collect()
}

/// A broker that lost all that it had acknowledged: once its parties are back, the board has it again under the same
/// names, and whoever lost his messages gets them.
#[test]
fn a_board_that_lost_everything_gets_it_again() {
    for kind in [Kind::Join, Kind::Roster, Kind::Key, Kind::Begin, Kind::Share, Kind::Held, Kind::Cohort, Kind::MaskSum]
    {
        let mut study = six();
        study.announce();
        study.put(|_| {});
        study.until(|net| net.count(kind) > 0);
        let before = study.net.board().clone();
        study.net.lose_everything();
        everybody().iter().for_each(|who| study.net.reconnect(who));
        // What was read by all, in a part that is over, need not come again; what is written again is the same.
        assert!(study.net.count(Kind::Announce) == 1 && study.net.count(kind) > 0, "{kind:?} is lost");
        let mut again = study.net.board().iter().filter(|(address, _)| before.contains_key(address));
        assert!(again.all(|(address, payload)| before[address] == *payload));
        study.net.run();
        assert_eq!(study.end(), study.sum(0..6), "lost at {kind:?}");
    }
}

/// A Key that the board lost before its member had it, and after a round without an answer, when what it was made of is
/// wiped, is written again: else its patient is out for good.
#[test]
fn a_key_that_the_board_lost_after_the_first_round_is_written_again() {
    let mut study = Build { marked: 6, min_cohort: 6, ..Build::new(6, 3, 1) }.parties();
    let cut = study.cut(|delivery| delivery.address.kind == Kind::Key && delivery.address.from == p(1));
    study.announce();
    study.settle();
    assert!(matches!(study.ask(), End::Aborted(AbortReason::TooFewShared { .. })));
    assert!(study.stored_bytes(&p(1), "randomness").is_none());
    let keys: Vec<Address> =
        study.frames(Kind::Key).into_iter().map(|(address, _)| address).filter(|key| key.from == p(1)).collect();
    keys.iter().for_each(|key| study.net.lose(key));
    cut.mend();
    study.net.reconnect(&p(1));
    assert_eq!(study.ask(), study.sum(0..6));
    assert_eq!(records(&study, &p(1), "outbox/"), 0, "each member has shown that it has its Key");
}

/// What is over is not written again: an outbox does not grow with the rounds.
#[test]
fn an_outbox_is_empty_after_each_round_but_for_the_last_word() {
    let mut study = six();
    study.announce();
    study.settle();
    for _ in 0..3 {
        assert_eq!(study.ask(), study.sum(0..6));
        for who in everybody() {
            let store = study.net.store(&who).unwrap();
            let kept = store.keys().filter(|key| key.starts_with("outbox/")).count();
            assert_eq!(kept, usize::from(who == name("hospital")), "of {who}");
        }
    }
}

/// What came before what it continues was acknowledged to the board, and will not come again: it is stored.
#[test]
fn a_message_that_came_early_outlives_its_receiver() {
    let mut study = six();
    study.net.tamper(|delivery| if delivery.address.kind == Kind::List { vec![] } else { vec![delivery] });
    study.announce();
    study.settle();
    let member = study.committee()[0].clone();
    study.net.kill(&member);
    study.net.revive(&member);
    study.net.tamper(|delivery| vec![delivery]);
    for (address, payload) in study.net.board().clone() {
        if address.kind == Kind::List {
            let To::One(receiver) = address.to.clone() else { panic!("a List to all") };
            study.net.inject(memory::Delivery { receiver, address, payload, delay: 0 });
        }
    }
    study.settle();
    assert_eq!(study.ask(), study.sum(0..6));
    let held: message::Held = study.newest(Kind::Held, &member).envelope.body().unwrap();
    assert!(!held.held.is_empty());
    let store = study.net.store(&member).unwrap();
    assert!(!store.keys().any(|key| key.starts_with("early/")), "what was taken is forgotten");
}

/// The records of `who` that start with `prefix`.
fn records(study: &Study, who: &Name, prefix: &str) -> usize {
    study.net.store(who).unwrap().keys().filter(|key| key.starts_with(prefix)).count()
}

/// Too few joined, and the server died before it said so: it says the same when it is back, and opens no Joins again.
#[test]
fn a_refusal_of_too_few_joins_that_was_stored_is_sent() {
    let mut study = Build { expect: Some(9), min_cohort: 6, ..Build::new(5, 3, 1) }.parties();
    study.net.kill_before_sending(&name("server"), Kind::Refuse);
    study.announce();
    study.net.run();
    assert_eq!(study.net.count(Kind::Refuse), 0);
    revive(&mut study, &name("server"));
    let aborted = AbortReason::TooFewJoined { joined: 5, marked: 3, needed: 6, committee: 3 };
    assert_eq!(study.end(), End::Aborted(aborted));
    assert_eq!(records(&study, &name("server"), "session/"), 0);
}

/// Of rounds that end without an answer the server keeps the newest Cohort for the hospital, which must ask it again, and
/// for nobody else: who has seen an Abort writes nothing more to members.
#[test]
fn an_outbox_does_not_grow_with_rounds_that_end_without_an_answer() {
    let mut study = six();
    study.announce();
    study.settle();
    let cut = study.cut(|delivery| delivery.address.kind == Kind::Confirm);
    for _ in 0..3 {
        assert!(matches!(study.ask(), End::Aborted(AbortReason::TooFewConfirmed { .. })));
        assert_eq!(records(&study, &name("server"), "outbox/"), 1);
    }
    study.net.lose_everything();
    study.net.reconnect(&name("server"));
    let receivers: Vec<To> = study.frames(Kind::Cohort).into_iter().map(|(address, _)| address.to).collect();
    assert_eq!(receivers, [To::One(name("hospital"))]);
    cut.mend();
    assert_eq!(study.ask(), study.sum(0..6));
    assert_eq!(records(&study, &name("server"), "outbox/"), 0);
}

/// The last word of a session that lives is written again although another session has ended meanwhile.
#[test]
fn the_end_of_another_session_takes_no_last_word_from_one_that_lives() {
    let mut study = six();
    let first = study.announce();
    study.settle();
    assert_eq!(study.ask(), study.sum(0..6));
    let second = study.announce();
    study.net.run();
    study.net.stop(second, true);
    study.net.run();
    study.net.lose_everything();
    study.net.reconnect(&name("hospital"));
    study.session = first;
    assert_eq!(study.frames(Kind::Result).len(), 1);
}

/// A chunk that comes after its session's end is not kept for ever as one that came early.
#[test]
fn a_chunk_that_comes_after_its_sessions_end_is_not_kept() {
    let mut study = Build::new(5, 3, 1).wide(300_000).start();
    let chunks = std::rc::Rc::new(std::cell::RefCell::new(Vec::new()));
    let late = chunks.clone();
    study.net.tamper(move |delivery| {
        let of_patient = delivery.address.kind == Kind::Chunk && delivery.receiver == name("server");
        late.borrow_mut().extend(of_patient.then(|| delivery.clone()));
        vec![delivery]
    });
    assert_eq!(study.ask_with(|ask| ask.last = true), study.sum(0..5));
    study.net.tamper(|delivery| vec![delivery]);
    let chunks = chunks.take();
    assert_eq!(chunks.len(), 5 * 8);
    chunks.into_iter().for_each(|chunk| study.net.inject(chunk));
    study.settle();
    assert_eq!(records(&study, &name("server"), "early/"), 0);
}

/// What comes again of a round that is over is not kept as if that round were still to come.
#[test]
fn what_a_member_gets_again_of_a_round_that_it_confirmed_is_not_kept() {
    let mut study = six();
    study.announce();
    study.settle();
    assert_eq!(study.ask(), study.sum(0..6));
    let member = study.committee()[0].clone();
    study.net.kill(&member);
    study.net.revive(&member);
    study.net.redeliver(&member);
    study.settle();
    assert_eq!(records(&study, &member, "early/"), 0);
}

/// A patient keeps no chunk that it has given away: where the board may have lost it, it is masked again, byte for byte.
#[test]
fn chunks_that_the_board_lost_are_masked_again() {
    let mut study = Build::new(4, 3, 1).wide(300_000).start();
    study.put(|_| {});
    study.until(|net| net.count(Kind::Chunk) == 4 * 8);
    let before = study.net.board().clone();
    study.net.lose_everything();
    let (sent, jobs) = (Rc::new(RefCell::new(Vec::new())), Rc::new(Cell::new(0)));
    let (all, masks) = (sent.clone(), jobs.clone());
    study.net.watch(move |who, step| {
        if let memory::Step::Effects(effects) = step
            && *who == p(3)
        {
            all.borrow_mut().extend(effects.send.iter().map(|outgoing| outgoing.address.kind));
            masks.set(masks.get() + effects.jobs.iter().filter(|(_, job)| matches!(job, Job::Mask { .. })).count());
        }
    });
    study.net.reconnect(&p(3));
    assert_eq!(jobs.get(), 1);
    assert!(sent.borrow().contains(&Kind::Share) && !sent.borrow().contains(&Kind::Chunk), "{:?}", sent.borrow());
    // Once more while it is at it changes nothing.
    study.net.reconnect(&p(3));
    assert_eq!(jobs.get(), 1);
    let others = [name("hospital"), name("server"), p(0), p(1), p(2)];
    others.iter().for_each(|who| study.net.reconnect(who));
    study.net.run();
    assert_eq!(study.end(), study.sum(0..4));
    let of_patients = |address: &Address| address.kind == Kind::Chunk && address.to == To::One(name("server"));
    let chunks: Vec<_> = before.iter().filter(|(address, _)| of_patients(address)).collect();
    assert_eq!(chunks.len(), 4 * 8);
    assert!(chunks.into_iter().all(|(address, payload)| study.net.board()[address] == *payload));
}

//! Weather: messages that are lost, repeated, late or early, and parties that die, restart or come back with an old disk.
//!
//! Whatever happens the end is the right sum over exactly the fixed cohort, or a typed abort; and nobody is accused.

#![allow(missing_docs, clippy::unwrap_used, clippy::expect_used, clippy::panic)]

mod support;

use std::cell::RefCell;
use std::collections::BTreeMap;
use std::rc::Rc;

use protocol::memory::Delivery;
use protocol::message::Open;
use protocol::*;
use support::*;

/// What a kind of weather does to messages, in percent.
#[derive(Clone, Copy, Debug)]
struct Weather {
    drop: u64,
    repeat: u64,
    delay: u64,
    most_delay: u64,
}

/// Three rounds in this weather, set-up included: how many opened. A sum that is not that of the cohort fails.
fn storm(seed: u64, weather: Weather) -> (usize, usize) {
    let mut study = Build { seed, ..Build::new(7, 4, 1) }.parties();
    for i in 0..7 {
        study.net.offer(&p(i), &snapshot("2"), study.build.record(i)).unwrap();
    }
    let mut dice = Dice::new(seed);
    study.net.tamper(move |delivery| {
        if dice.chance(weather.drop) {
            return vec![];
        }
        let copies = 1 + dice.chance(weather.repeat) as usize;
        let delay = |dice: &mut Dice| if dice.chance(weather.delay) { 1 + dice.below(weather.most_delay) } else { 0 };
        (0..copies).map(|_| Delivery { delay: delay(&mut dice), ..delivery.clone() }).collect()
    });
    study.announce();
    study.net.run();
    let mut rounds = 0;
    for label in ["1", "1", "2"] {
        let mut ask = study.question();
        ask.snapshot = snapshot(label);
        if study.net.ask(study.session, ask).is_err() {
            break;
        }
        study.net.run();
        let ends = study.ends();
        // Where the Roster never reached the hospital the question still waits.
        if ends.len() == rounds {
            break;
        }
        rounds = ends.len();
        if let Some(End::Opened(_)) = ends.last() {
            let cohort = study.cohort_places();
            assert!(cohort.len() >= 2);
            assert_eq!(*ends.last().unwrap(), study.sum(cohort), "seed {seed} {weather:?}");
        }
    }
    assert_eq!(study.faults(), [], "seed {seed} {weather:?}");
    let opened = study.ends().iter().filter(|end| matches!(end, End::Opened(_))).count();
    (opened, rounds)
}

/// Promise 4: when all follow the protocol and messages only come late, early, twice or out of order, every round opens.
#[test]
fn repeats_and_any_order_cost_nothing() {
    for seed in 0..40 {
        let weather = Weather { drop: 0, repeat: 30, delay: 50, most_delay: 2_500 };
        assert_eq!(storm(seed, weather), (3, 3), "seed {seed}");
    }
}

/// Promise 4: with messages that never come, or come after the deadlines, there is never a wrong number.
#[test]
fn losses_and_late_messages_give_the_right_sum_or_an_abort() {
    let (mut opened, mut rounds) = (0, 0);
    for seed in 0..80 {
        let lossy = Weather { drop: 1 + seed % 4, repeat: 10, delay: 20, most_delay: 2_000 };
        let late = Weather { drop: 0, repeat: 10, delay: 5, most_delay: 70_000 };
        let ends = storm(seed, if seed % 2 == 0 { lossy } else { late });
        (opened, rounds) = (opened + ends.0, rounds + ends.1);
    }
    assert!(
        opened > 20 && rounds - opened > 20,
        "{opened} of {rounds} opened: both must happen for this to test anything"
    );
}

/// A Share that comes once the cohort is fixed is in no sum, and nothing that it came with is opened: members answer Opens of
/// the cohort that they confirmed, and of no larger one.
#[test]
fn a_share_that_comes_after_the_cohort_is_fixed_is_in_no_sum() {
    let mut study = Build::new(8, 4, 1).start();
    let late = Rc::new(RefCell::new(Vec::new()));
    let held = late.clone();
    study.net.tamper(move |delivery| {
        if delivery.address.kind != Kind::Share || delivery.address.from != p(6) {
            return vec![delivery];
        }
        held.borrow_mut().push(delivery);
        vec![]
    });
    study.put(|_| {});
    study.until(|net| net.count(Kind::Open) > 0);
    study.net.tamper(|delivery| vec![delivery]);
    assert_eq!(late.borrow().len(), 5, "to four members and the server");
    late.take().into_iter().for_each(|delivery| study.net.inject(delivery));
    // Hospital and server put their heads together: the larger cohort now, with the Confirms that there are.
    let larger = study.forge_cohort(1, study.begin().digest, 0..8);
    let confirms: Vec<Signed> = study.frames(Kind::Confirm).iter().map(|(_, confirm)| confirm.signed()).collect();
    assert!(confirms.len() >= 3);
    let open = Open { confirms, senders: (0..4).map(|seat| (seat, vec![u16::from(seat == 0)])).collect() };
    let open = study.sign(&name("hospital"), Kind::Open, To::All, larger.digest(), &open);
    let members: Vec<Name> = (0..4).map(p).collect();
    study.deliver_all(&larger, &members);
    study.deliver_all(&open, &members);
    study.net.run();
    let without = study.sum([0, 1, 2, 3, 4, 5, 7]);
    assert_eq!(study.end(), without);
    let sums = study.frames(Kind::MaskSum);
    assert!(!sums.is_empty() && sums.iter().all(|(_, sum)| sum.envelope.after != open.digest()));
    let why = "an Open of a cohort that this member did not confirm";
    assert!(members.iter().all(|member| study.dropped(member).contains(&(Kind::Open, why))));
    assert_eq!(study.accused(), [name("server")], "of two Cohorts");
    assert_eq!(study.ask(), without, "the same people, though all are here");
}

/// A patient that is no member costs nothing but its own value, before it shares ..
#[test]
fn a_patient_that_dies_before_sharing_costs_its_own_value() {
    let mut study = Build::new(8, 4, 1).start();
    study.net.kill(&p(6));
    assert_eq!(study.ask(), study.sum([0, 1, 2, 3, 4, 5, 7]));
    assert_eq!(study.faults(), []);
}

/// .. and not even that after it.
#[test]
fn a_patient_that_dies_after_sharing_costs_nothing() {
    let mut study = Build::new(8, 4, 1).start();
    study.put(|_| {});
    study.until(|net| net.count(Kind::Share) == 8 * 5);
    study.net.kill(&p(6));
    study.net.run();
    assert_eq!(study.end(), study.sum(0..8));
}

/// A vector of several chunks, so that one can be cut off in the middle.
fn long() -> Build {
    let full = Chunks::new(Ring::new(64).unwrap(), 1).unwrap().full() as u32;
    Build { bound: 1 << 59, ..Build::new(6, 3, 1).wide(2 * full + 5) }
}

/// Runs until the cohort is about to be fixed without p05, of whose vector one chunk never came.
fn cut_off(study: &mut Study) {
    let mut chunks = 0;
    study.net.tamper(move |delivery| {
        let cut = delivery.address.kind == Kind::Chunk && delivery.address.from == p(5);
        chunks += usize::from(cut);
        if cut && chunks == 3 { vec![] } else { vec![delivery] }
    });
    study.put(|_| {});
    study.settle();
    study.net.sleep(100);
    assert_eq!(study.net.count(Kind::Cohort), 0);
    study.net.kill(&p(5));
}

/// PROTOCOL.md, *Folding*: a patient that dies in the middle of its upload is taken out of the sum again.
#[test]
fn a_vector_that_is_cut_off_is_taken_out_again() {
    let mut study = long().start();
    cut_off(&mut study);
    study.net.run();
    assert!(study.end() == study.sum(0..5));
    assert_eq!(study.faults(), []);
}

/// PROTOCOL.md, *Folding*: what must come out and is lost, or is not what was added, is an Abort and a new round.
#[test]
fn a_board_that_loses_or_alters_such_a_chunk_aborts_the_round() {
    for alters in [false, true] {
        let mut study = long().start();
        cut_off(&mut study);
        let of_p5 = |address: &&Address| address.kind == Kind::Chunk && address.from == p(5);
        let address = study.net.board().keys().find(of_p5).unwrap().clone();
        let of_p5: Vec<Address> = study.net.board().keys().filter(of_p5).cloned().collect();
        for address in &of_p5 {
            if alters {
                study.net.alter(address, bytes::Bytes::from_static(b"other bytes"));
            } else {
                study.net.lose(address);
            }
        }
        study.net.run();
        assert_eq!(study.end(), End::Aborted(AbortReason::BoardLost), "{address:?}");
        assert_eq!(study.faults(), []);
        study.net.tamper(|delivery| vec![delivery]);
        assert!(study.ask() == study.sum(0..5));
    }
}

/// Promise 4: up to c - q members may drop, at any step: before sharing ..
#[test]
fn a_member_that_dies_before_sharing_within_tolerance() {
    let mut study = Build::new(8, 4, 1).start();
    study.net.kill(&p(2));
    assert_eq!(study.ask(), study.sum([0, 1, 3, 4, 5, 6, 7]));
    assert_eq!(study.faults(), []);
}

/// .. after it has said whom it holds ..
#[test]
fn a_member_that_dies_after_sharing_within_tolerance() {
    for c_t in [(4, 1), (5, 1), (6, 1), (8, 2)] {
        let (c, t) = c_t;
        let mut study = Build::new(9, c, t).start();
        study.put(|_| {});
        study.until(|net| net.count(Kind::Held) == usize::from(c));
        study.net.kill(&p(2));
        study.net.run();
        assert_eq!(study.end(), study.sum(0..9));
        assert_eq!(study.faults(), []);
    }
}

/// .. and after it was asked for its sum: a further Open names other holders.
#[test]
fn a_sender_that_dies_is_replaced_by_a_further_open() {
    let mut study = Build::new(7, 5, 1).start();
    study.put(|_| {});
    study.until(|net| net.count(Kind::Open) == 5);
    let senders: Vec<u8> = study.open().1.senders.iter().map(|(seat, _)| *seat).collect();
    study.net.kill(&p(senders[0].into()));
    study.net.run();
    assert_eq!(study.end(), study.sum(0..7));
    assert_eq!(study.net.count(Kind::Open), 10);
    assert_eq!(study.faults(), []);
}

/// PROTOCOL.md, *Open*: a slow sum that arrives after others were asked counts no block twice.
#[test]
fn a_slow_sum_counts_no_block_twice() {
    for delay in [5_900, 6_000, 6_100, 11_900, 12_000] {
        let mut study = Build::new(7, 5, 1).start();
        study.net.tamper(move |delivery| {
            let slow = delivery.address.kind == Kind::MaskSum && delivery.address.from == p(1);
            vec![Delivery { delay: if slow { delay } else { 0 }, ..delivery }]
        });
        assert_eq!(study.ask(), study.sum(0..7), "delay {delay}");
        assert_eq!(study.net.count(Kind::MaskSum) > 2, delay >= 6_000, "delay {delay}");
        assert_eq!(study.faults(), []);
    }
}

/// Beyond the tolerance the round ends with a typed abort that names who is missing; the next one opens again.
#[test]
fn members_beyond_the_tolerance_cost_the_round_and_are_named() {
    let mut study = Build::new(8, 4, 1).start();
    study.put(|_| {});
    study.until(|net| net.count(Kind::Held) == 4);
    study.net.kill(&p(1));
    study.net.kill(&p(3));
    study.net.run();
    let missing = vec![p(1), p(3)];
    let aborted = AbortReason::TooFewConfirmed { confirmed: 2, committee: 4, quorum: 3, missing };
    assert_eq!(study.end(), End::Aborted(aborted));
    study.net.revive(&p(1));
    study.net.revive(&p(3));
    assert_eq!(study.ask(), study.sum(0..8));
    assert_eq!(study.faults(), []);
}

/// With t = c - 1 every seed has one holder: a member that dies after its Confirm costs the round and is named. With
/// c=3, t=1 another one has what it did not send; but nobody can vouch for that, so only a round without checks goes on.
#[test]
fn a_member_that_dies_after_its_confirm_is_replaced_or_named() {
    for (t, audit) in [(1, Audit::None), (1, Audit::Sample), (2, Audit::Sample)] {
        let mut study = Build::new(5, 3, t).start();
        study.put(|ask| ask.audit = audit);
        study.until(|net| net.count(Kind::Open) == 3);
        let sender = p(study.open().1.senders[0].0.into());
        study.net.kill(&sender);
        study.net.run();
        let missing = vec![sender.clone()];
        match (t, audit) {
            (1, Audit::None) => assert_eq!(study.end(), study.sum(0..5)),
            (1, _) => assert_eq!(study.end(), End::Aborted(AbortReason::Unchecked { missing })),
            _ => assert_eq!(study.end(), End::Aborted(AbortReason::SumsMissing { missing })),
        }
        study.net.revive(&sender);
        assert_eq!(study.ask(), study.sum(0..5));
        assert_eq!(study.faults(), []);
    }
}

/// A Cohort that reaches the hospital after it gave up may have been confirmed: it is what is asked again.
#[test]
fn a_cohort_that_comes_after_the_abort_is_asked_again() {
    let mut study = Build::new(5, 3, 1).start();
    study.net.tamper(|delivery| {
        let late = delivery.address.kind == Kind::Cohort && delivery.receiver == name("hospital");
        vec![Delivery { delay: if late { 50_000 } else { 0 }, ..delivery }]
    });
    assert_eq!(study.ask(), End::Aborted(AbortReason::NoCohort));
    study.net.tamper(|delivery| vec![delivery]);
    assert_eq!(study.ask(), study.sum(0..5));
    assert_eq!(study.faults(), []);
}

/// A server that dies at any step costs the round; from its store it goes on with the next, over the same people.
#[test]
fn a_server_that_dies_costs_the_round_and_goes_on_with_the_next() {
    for (kind, count) in [(Kind::Begin, 1), (Kind::Held, 3), (Kind::Confirm, 3)] {
        let mut study = Build::new(5, 3, 1).start();
        study.net.tamper(|delivery| {
            vec![Delivery { delay: u64::from(delivery.address.kind == Kind::MaskedSum), ..delivery }]
        });
        study.put(|_| {});
        study.until(|net| net.count(kind) == count);
        let had_sum = study.net.count(Kind::MaskedSum) > 0;
        study.net.kill(&name("server"));
        study.net.run();
        match (kind, had_sum) {
            (Kind::Confirm, true) => assert_eq!(study.end(), study.sum(0..5)),
            (Kind::Confirm, false) => {
                assert_eq!(study.end(), End::Aborted(AbortReason::SumsMissing { missing: vec![name("server")] }));
            }
            _ => assert_eq!(study.end(), End::Aborted(AbortReason::NoCohort)),
        }
        study.net.revive(&name("server"));
        study.settle();
        assert_eq!(study.ask(), study.sum(0..5));
        assert_eq!(study.faults(), []);
    }
}

/// A hospital that stops a round in the middle asks again from its store: the same people where their Cohort was sent.
#[test]
fn a_hospital_that_stops_asks_the_same_people_again() {
    for (kind, count) in [(Kind::Begin, 1), (Kind::Cohort, 4), (Kind::Confirm, 3), (Kind::Open, 3)] {
        let mut study = Build::new(5, 3, 1).start();
        study.put(|_| {});
        study.until(|net| net.count(kind) == count);
        study.net.kill(&name("hospital"));
        study.net.sleep(100);
        study.net.revive(&name("hospital"));
        // What it had not stored comes again: the Cohort that it has not seen is among it.
        study.net.redeliver(&name("hospital"));
        let session = study.session;
        study.net.stop(session, false);
        study.settle();
        assert_eq!(study.end(), End::Aborted(AbortReason::Stopped), "{kind}");
        assert_eq!(study.ask(), study.sum(0..5), "{kind}");
        assert_eq!(study.faults(), []);
    }
}

/// Everybody restarts between set-up and the first round, and between rounds: nothing is lost.
#[test]
fn everybody_restarts_between_rounds_and_goes_on() {
    let mut study = Build::new(6, 4, 1).start();
    let restart = |study: &mut Study| {
        for who in (0..6).map(p).chain([name("server"), name("hospital")]) {
            study.net.kill(&who);
            study.net.revive(&who);
        }
    };
    for _ in 0..3 {
        restart(&mut study);
        assert_eq!(study.ask(), study.sum(0..6));
        assert_eq!(study.cohort_places(), [0, 1, 2, 3, 4, 5]);
    }
    assert_eq!(study.faults(), []);
}

/// A member that stops between Roster and list has confirmed nothing yet: the list still makes it a member.
#[test]
fn a_member_that_restarts_between_roster_and_list_is_a_member() {
    let mut study = Build::new(5, 3, 1).parties();
    study.announce();
    study.net.tamper(|delivery| {
        let late = matches!(delivery.address.kind, Kind::List | Kind::Key) && delivery.receiver == p(1);
        vec![Delivery { delay: if late { 5_000 } else { 0 }, ..delivery }]
    });
    study.settle();
    study.net.kill(&p(1));
    study.net.revive(&p(1));
    // What it had not stored comes again.
    study.net.redeliver(&p(1));
    study.net.run();
    assert_eq!(study.ask(), study.sum(0..5));
    assert_eq!(study.faults(), []);
}

/// *forward-only record*: a member restarted from its store still knows which cohorts it confirmed.
#[test]
fn a_restarted_member_keeps_its_rules() {
    let mut study = Build::new(6, 4, 1).start();
    assert_eq!(study.ask(), study.sum(0..6));
    for i in 0..4 {
        study.net.kill(&p(i));
        study.net.revive(&p(i));
    }
    study.net.kill(&name("hospital"));
    let overlap = message::Refuse::Overlap { round: RoundNo(1) };
    assert_eq!(study.forge_round(2, 0..5, &[0, 1, 2, 3]), (vec![], vec![overlap; 4]));
}

/// Section 2 *restored*: a member that runs on from an older copy of its disk has forgotten what it confirmed, and counts
/// as one of the t: alone it opens nothing a second time.
#[test]
fn a_member_restored_from_an_older_disk_opens_nothing_twice() {
    let mut study = Build::new(6, 4, 1).start();
    study.put(|_| {});
    study.until(|net| net.count(Kind::Share) >= 5);
    let older = study.net.store(&p(0)).unwrap().clone();
    study.net.run();
    assert_eq!(study.end(), study.sum(0..6));
    study.net.kill(&p(0));
    study.net.restore_store(&p(0), older);
    study.net.revive(&p(0));
    study.net.kill(&name("hospital"));
    let overlap = message::Refuse::Overlap { round: RoundNo(1) };
    let (confirmed, refused) = study.forge_round(2, 0..5, &[0, 1, 2, 3]);
    let quorum = usize::from(Sharing::new(4, 1).unwrap().quorum());
    assert!(confirmed.len() < quorum);
    assert_eq!((confirmed, refused), (vec![0], vec![overlap; 3]), "it did forget, and three did not");
}

/// PROTOCOL.md, *Restarts*: a member with an empty store is a drop, never a fresh start: it holds nothing and confirms nothing.
#[test]
fn a_member_with_an_empty_store_is_a_drop() {
    let mut study = Build::new(6, 4, 1).start();
    assert_eq!(study.ask(), study.sum(0..6));
    study.net.kill(&p(0));
    study.net.restore_store(&p(0), BTreeMap::new());
    study.net.revive(&p(0));
    study.net.offer(&p(0), &snapshot("2"), study.build.record(0)).unwrap();
    for i in 1..6 {
        study.net.offer(&p(i), &snapshot("2"), study.build.record(i)).unwrap();
    }
    let before = study.frames(Kind::Confirm).len();
    assert_eq!(study.ask_with(|ask| ask.snapshot = snapshot("2")), study.sum(1..6));
    let confirms = study.frames(Kind::Confirm);
    assert!(confirms[before..].iter().all(|(address, _)| address.from != p(0)));
    // The set-up again, from the first message: its seat is under a key that it does not hold any more.
    study.net.redeliver(&p(0));
    study.net.run();
    assert_eq!(study.ask_with(|ask| ask.snapshot = snapshot("2")), study.sum(1..6));
}

/// q Confirms are enough, also where the last of them comes just before Confirms close, and a default holder's never.
#[test]
fn the_last_of_q_confirms_may_come_at_the_last_moment() {
    let mut study = Build::new(6, 4, 1).start();
    study.net.tamper(|delivery| match delivery.address.kind {
        Kind::Confirm if delivery.address.from == p(1) => vec![],
        Kind::Confirm if delivery.address.from == p(3) => vec![memory::Delivery { delay: 44_985, ..delivery }],
        _ => vec![delivery],
    });
    assert_eq!(study.ask(), study.sum(0..6));
}

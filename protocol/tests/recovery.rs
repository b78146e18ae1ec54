//! Every party goes on within the round after it was killed, at any step of it, from its store and what the board brings
//! again (PROTOCOL.md, *Restarts*).
#![allow(missing_docs, clippy::unwrap_used, clippy::expect_used, clippy::panic)]

mod support;

use std::collections::BTreeSet;

use protocol::*;
use support::*;

/// A study with a question put.
fn asked(build: Build) -> Study {
    let mut study = build.start();
    study.put(|_| {});
    study
}

/// The Cohorts that were written.
fn cohorts(study: &Study) -> BTreeSet<Digest> {
    study.frames(Kind::Cohort).into_iter().map(|(_, frame)| frame.digest).collect()
}

/// The Shares that one patient wrote, by digest: two would be two masked vectors.
fn shares(study: &Study, who: &Name) -> BTreeSet<Digest> {
    let of = study.frames(Kind::Share).into_iter().filter(|(address, _)| address.from == *who);
    of.map(|(_, frame)| frame.digest).collect()
}

/// Who said that its store was lost, each time that it did.
fn lost(study: &Study) -> Vec<Name> {
    let is_loss = |event: &Event| matches!(event, Event::StoreLost { .. });
    study.net.events().iter().filter(|(_, event)| is_loss(event)).map(|(who, _)| who.clone()).collect()
}

/// Kills `who` after every so many steps of a round, in a run for each, and starts it again at once.
fn killed_at_every_step(build: &Build, who: &Name, stride: usize) {
    for steps in (0..).step_by(stride) {
        let mut study = asked(build.clone());
        let until = study.net.now().plus_seconds(60);
        let alive = (0..steps).all(|_| study.net.advance(until));
        if !alive || !study.ends().is_empty() {
            assert!(steps > 20, "{who}: the round has more steps than {steps}");
            return;
        }
        study.net.kill(who);
        study.net.revive(who);
        study.net.run();
        assert_eq!(study.end(), study.sum(study.all()), "{who} was killed after {steps} steps");
        assert_eq!(study.round(), RoundNo(1), "{who} was killed after {steps} steps");
        assert_eq!(study.faults(), [], "{who} was killed after {steps} steps");
        assert_eq!(lost(&study), [], "{who} was killed after {steps} steps");
        assert_eq!(cohorts(&study).len(), 1, "{who} was killed after {steps} steps");
        (0..build.patients).for_each(|i| assert_eq!(shares(&study, &p(i)).len(), 1, "{i} after {steps} steps"));
    }
}

fn four() -> Build {
    Build::new(4, 3, 1)
}

fn six() -> Build {
    Build::new(6, 3, 1)
}

/// A vector of several chunks, which follow their Share.
fn long() -> Build {
    Build::new(4, 3, 1).wide(200_000)
}

#[test]
fn a_patient_that_is_killed_at_any_step_is_in_the_sum() {
    killed_at_every_step(&four(), &p(3), 1);
    killed_at_every_step(&long(), &p(3), 5);
}

#[test]
fn a_member_that_is_killed_at_any_step_costs_nothing() {
    killed_at_every_step(&four(), &p(0), 1);
    killed_at_every_step(&long(), &p(1), 5);
}

#[test]
fn a_server_that_is_killed_at_any_step_adds_again() {
    killed_at_every_step(&four(), &name("server"), 1);
    killed_at_every_step(&long(), &name("server"), 4);
}

#[test]
fn each_of_two_servers_that_is_killed_at_any_step_adds_again() {
    let build = Build { servers: 2, ..long() };
    killed_at_every_step(&build, &server(0), 5);
    killed_at_every_step(&build, &server(1), 5);
}

#[test]
fn a_hospital_that_is_killed_at_any_step_has_its_answer() {
    killed_at_every_step(&four(), &name("hospital"), 1);
    killed_at_every_step(&long(), &name("hospital"), 5);
}

/// The moment between storing and sending, for each message of a round and who writes it.
#[test]
fn a_death_between_storing_and_sending_in_a_round_costs_nobody() {
    let (hospital, server) = (name("hospital"), name("server"));
    let deaths = [
        (&p(5), Kind::Share),
        (&p(0), Kind::Share),
        (&p(0), Kind::Held),
        (&p(0), Kind::Confirm),
        (&p(1), Kind::MaskSum),
        (&server, Kind::Cohort),
        (&server, Kind::MaskedSum),
        (&hospital, Kind::Open),
    ];
    for (who, kind) in deaths {
        let mut study = six().start();
        study.net.kill_before_sending(who, kind);
        study.put(|_| {});
        let died = who.clone();
        study.until(move |net| net.describe(&died).is_empty());
        study.net.revive(who);
        study.net.run();
        assert_eq!(study.end(), study.sum(0..6), "{who} died before its {kind:?}");
        assert_eq!(study.faults(), [], "{who} died before its {kind:?}");
        assert_eq!(cohorts(&study).len(), 1);
    }
}

/// All at once, as when a machine loses power.
#[test]
fn everybody_is_killed_at_any_step_and_the_round_has_its_answer() {
    let everybody: Vec<Name> = (0..6).map(p).chain([name("server"), name("hospital")]).collect();
    for steps in (0..).step_by(4) {
        let mut study = asked(six());
        let until = study.net.now().plus_seconds(60);
        if !(0..steps).all(|_| study.net.advance(until)) || !study.ends().is_empty() {
            return;
        }
        everybody.iter().for_each(|who| study.net.kill(who));
        everybody.iter().for_each(|who| study.net.revive(who));
        study.net.run();
        assert_eq!(study.end(), study.sum(0..6), "after {steps} steps");
        assert_eq!(study.faults(), [], "after {steps} steps");
    }
}

/// Who is started again gets what it missed in some order or other: what answers a hospital's Checks may come before what
/// it checks, and pieces before what names them.
#[test]
fn whoever_is_killed_goes_on_in_whatever_order_it_gets_what_it_missed() {
    for seed in 0..150 {
        let mut dice = Dice::new(seed);
        let (servers, committee) = (1 + dice.below(2) as usize, 3 + dice.below(2) as u8);
        let build = Build { seed, servers, ..Build::new(5, committee, 1) };
        let mut study = if seed % 10 == 0 { build.wide(200_000) } else { build }.start();
        // Half of them are hospitals: nobody waits for more.
        let who =
            [name("hospital"), name("hospital"), server(0), p(dice.below(5) as usize)][dice.below(4) as usize].clone();
        study.put(|ask| ask.audit = if dice.chance(50) { Audit::Full } else { Audit::Sample });
        let (steps, most) = (dice.below(300), [2, 20, 300][dice.below(3) as usize]);
        study.net.tamper(move |delivery| vec![memory::Delivery { delay: dice.below(most), ..delivery }]);
        let until = study.net.now().plus_seconds(60);
        if !(0..steps).all(|_| study.net.advance(until)) || !study.ends().is_empty() {
            continue;
        }
        study.net.kill(&who);
        study.net.revive(&who);
        study.net.run();
        // A vector is not printed.
        let is_right = study.ends() == [study.sum(0..5)];
        assert!(is_right && study.faults().is_empty(), "seed {seed}: {who} was killed after {steps} steps");
    }
}

/// The Checks that a hospital wrote are asked again by nobody: their answers count, also where they come before the sums.
#[test]
fn a_hospital_that_is_killed_takes_the_answers_to_its_checks() {
    for committee in [3, 4] {
        let mut study = asked(Build::new(6, committee, 1));
        study.until(|net| net.count(Kind::CheckSum) > 0);
        study.net.kill(&name("hospital"));
        let checks = study.net.count(Kind::Check);
        study.net.tamper(|delivery| {
            let late = delivery.address.kind == Kind::MaskSum;
            vec![memory::Delivery { delay: if late { 500 } else { 0 }, ..delivery }]
        });
        study.net.revive(&name("hospital"));
        study.net.run();
        assert_eq!(study.end(), study.sum(0..6));
        assert_eq!((study.net.count(Kind::Check), study.faults()), (checks, vec![]));
    }
}

/// A vector outside the cohort stays outside, whenever the server starts again: it is taken out, or not added again.
#[test]
fn a_server_that_is_killed_adds_nobody_from_outside_the_cohort() {
    for steps in (0..).step_by(7) {
        let mut study = six().start();
        // No member holds the last one: its vector is added, and comes out when Shares close.
        study.net.tamper(|delivery| {
            let lost = delivery.address.kind == Kind::Share && delivery.address.from == p(5);
            if lost && delivery.receiver != name("server") { vec![] } else { vec![delivery] }
        });
        study.put(|_| {});
        let until = study.net.now().plus_seconds(60);
        if !(0..steps).all(|_| study.net.advance(until)) || !study.ends().is_empty() {
            assert!(steps > 20);
            return;
        }
        study.net.kill(&name("server"));
        study.net.revive(&name("server"));
        study.net.run();
        assert_eq!(study.end(), study.sum(0..5), "after {steps} steps");
        assert_eq!(cohorts(&study).len(), 1);
    }
}

/// A round's time does not begin anew with a restart: who was away too long has missed it.
#[test]
fn a_round_that_ended_while_a_party_was_away_is_over_for_it() {
    for who in [p(5), name("server"), name("hospital")] {
        let mut study = asked(six());
        let cut = study.cut(|delivery| delivery.address.kind == Kind::Confirm);
        study.settle();
        study.net.kill(&who);
        study.net.sleep(61_000);
        study.net.revive(&who);
        study.net.run();
        assert!(matches!(study.end(), End::Aborted(_)), "{who}");
        assert_eq!(study.stored_bytes(&who, "round"), None, "{who} keeps no root of a round that is over");
        cut.mend();
        assert_eq!(study.ask(), study.sum(0..6), "{who}");
    }
}

/// *One opening*, across a crash within the round: a member that confirmed and was killed confirms no other cohort of that
/// round, though it has forgotten the one it was shown.
#[test]
fn a_member_that_was_killed_confirms_no_other_cohort_of_its_round() {
    let mut study = asked(six());
    study.until(|net| net.count(Kind::Confirm) == 3);
    study.net.kill(&name("hospital"));
    study.net.kill(&p(0));
    let cut = study.cut(|delivery| delivery.address.kind == Kind::Cohort && delivery.receiver == p(0));
    study.net.revive(&p(0));
    study.settle();
    cut.mend();
    let before = study.frames(Kind::Confirm).len();
    let other = study.forge_cohort(1, study.begin().digest, 0..5);
    study.deliver(&other, &p(0), &[]);
    study.settle();
    assert_eq!(study.frames(Kind::Confirm).len(), before);
    assert!(study.faults().iter().any(|(who, fault)| *who == p(0) && matches!(fault.wrong, Wrong::Equivocation)));
}

/// A patient whose store holds other values than it bound does not mask them: it is missing from the round.
#[test]
fn a_patient_that_is_killed_answers_from_no_other_values() {
    let mut study = asked(six());
    study.until(|net| net.count(Kind::Share) > 0);
    let sharer = study.frames(Kind::Share)[0].0.from.clone();
    study.net.kill(&sharer);
    let mut store = study.net.store(&sharer).unwrap().clone();
    let (secret, _): (serde_bytes::ByteBuf, Record) = rmp_serde::from_slice(&store["values/1"]).unwrap();
    let other = (0..6).find(|i| p(*i) != sharer).unwrap();
    store.insert("values/1".into(), encode(&(secret, study.build.record(other))).into());
    study.net.restore_store(&sharer, store);
    study.net.revive(&sharer);
    study.net.run();
    assert_eq!(shares(&study, &sharer).len(), 1, "what it had written, and nothing else");
}

/// A study with data under two snapshots that was asked once, in which `who` has lost these records, or all.
fn without_store(who: &Name, is_lost: impl Fn(&str) -> bool) -> Study {
    let mut study = Build::new(8, 5, 1).start();
    assert_eq!(study.ask(), study.sum(0..8));
    for i in 0..8 {
        study.net.offer(&p(i), &snapshot("2"), study.build.record(i)).unwrap();
    }
    study.net.kill(who);
    let mut store = study.net.store(who).unwrap().clone();
    store.retain(|key, _| !is_lost(key));
    study.net.restore_store(who, store);
    study.net.revive(who);
    study
}

/// A member that lost its store drops out and says so, once: the round ends with the sum over the others.
#[test]
fn a_member_that_lost_its_store_drops_out_and_says_so() {
    // Its messages are of a session that it does not know.
    let mut study = without_store(&p(0), |_| true);
    for _ in 0..2 {
        assert_eq!(study.ask_with(|ask| ask.snapshot = snapshot("2")), study.sum(1..8));
        assert_eq!((lost(&study), study.faults()), (vec![p(0)], vec![]));
    }
    // It gets the set-up again: its seat is under a key that it does not have.
    let mut study = without_store(&p(0), |_| true);
    study.net.redeliver(&p(0));
    study.settle();
    assert_eq!(lost(&study), [p(0)]);
    assert_eq!(study.ask_with(|ask| ask.snapshot = snapshot("2")), study.sum(1..8));
    assert_eq!(lost(&study), [p(0)]);
    // It has its part as a patient, and not as a member.
    let mut study = without_store(&p(0), |key| key.ends_with("/list"));
    study.net.offer(&p(0), &snapshot("2"), study.build.record(0)).unwrap();
    assert_eq!(study.ask_with(|ask| ask.snapshot = snapshot("2")), study.sum(0..8));
    assert_eq!((lost(&study), study.faults()), (vec![p(0)], vec![]));
    // Who is no member has nothing to say.
    let mut study = without_store(&p(7), |_| true);
    assert_eq!(study.ask_with(|ask| ask.snapshot = snapshot("2")), study.sum(0..7));
    assert_eq!(lost(&study), []);
}

/// Whoever writes to a party of sessions that never were has it say little.
#[test]
fn sessions_that_never_were_fill_no_log() {
    let mut study = six().start();
    for number in 0..100_u8 {
        study.session = Digest([number; 32]);
        let cohort = study.sign(&p(5), Kind::Cohort, To::One(p(0)), Digest::default(), &0);
        study.deliver(&cohort, &p(0), &[]);
    }
    study.settle();
    assert_eq!(lost(&study), vec![p(0); 16]);
}

#[test]
fn a_question_is_gone_on_with_as_it_was_asked() {
    let mut study = asked(four());
    let open = |study: &Study, change: fn(&mut Ask)| {
        let (name, mut ask) = (name("hospital"), study.question());
        change(&mut ask);
        let hospital = Hospital::restore(study.net.me(&name).unwrap().clone(), study.net.store(&name).unwrap());
        hospital.asking(&ask)
    };
    assert_eq!(open(&study, |_| {}), [(study.session, true)]);
    assert_eq!(open(&study, |ask| ask.snapshot = snapshot("2")), []);
    // A sum that is to be checked in full is not one that is not.
    assert_eq!(open(&study, |ask| ask.audit = Audit::Full), []);
    study.net.run();
    assert_eq!(open(&study, |_| {}), []);
    let other = |ask: &mut Ask| ask.snapshot = snapshot("2");
    study.put(other);
    assert_eq!(open(&study, other), [(study.session, false)], "it was asked something else before");
}

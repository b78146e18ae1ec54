//! Every kind of message to every machine at every moment of a session: no panic, no wrong accusation, and no effect on
//! the round that follows.

#![allow(missing_docs, clippy::unwrap_used, clippy::expect_used, clippy::panic)]

mod support;

use std::cell::RefCell;
use std::collections::BTreeMap;
use std::rc::Rc;

use bytes::Bytes;
use proptest::prelude::*;
use protocol::memory::Delivery;
use protocol::message::*;
use protocol::*;
use serde_bytes::ByteBuf;
use support::*;

/// Who may send a kind.
fn sender_of(kind: Kind) -> Name {
    match kind {
        Kind::Announce | Kind::PayloadKey | Kind::Begin | Kind::Open | Kind::Check | Kind::Result | Kind::Abort => {
            name("hospital")
        }
        Kind::Roster | Kind::List | Kind::Place | Kind::Cohort | Kind::MaskedSum => name("server"),
        Kind::Held | Kind::Confirm | Kind::Refuse | Kind::MaskSum | Kind::CheckSum => p(1),
        Kind::Join | Kind::Key | Kind::Share | Kind::Chunk | Kind::Decline => p(4),
    }
}

/// One message of each kind as `study` has it on its board, or made up where it has none.
fn bodies(study: &Study) -> BTreeMap<Kind, (Digest, Vec<u8>)> {
    let on_board = Kind::ALL.into_iter().filter(|kind| *kind != Kind::Chunk).filter_map(|kind| {
        let (_, frame) = study.frames(kind).into_iter().next()?;
        Some((kind, (frame.envelope.after, frame.envelope.body.into_vec())))
    });
    let mut bodies: BTreeMap<Kind, (Digest, Vec<u8>)> = on_board.collect();
    let (begin, cohort, roster) = (study.begin().digest, study.cohort().digest, study.roster().digest);
    bodies.insert(Kind::Decline, (begin, encode(&Decline::Policy)));
    bodies.insert(Kind::Refuse, (cohort, encode(&Refuse::NotHeld)));
    bodies.insert(Kind::Abort, (begin, encode(&Abort { reason: AbortReason::Stopped, last: true })));
    let key = PayloadKey { encapsulation: ByteBuf::from(vec![1; 1120]), sealed: ByteBuf::from(vec![2; 48]) };
    bodies.insert(Kind::PayloadKey, (roster, encode(&key)));
    bodies
}

fn sign(study: &Study, kind: Kind, from: &Name, by: &Name, round: u32, after: Digest, body: &[u8]) -> Signed {
    let envelope = Envelope {
        version: VERSION,
        session: if kind == Kind::Announce { Digest::default() } else { study.session },
        round: RoundNo(round),
        from: from.clone(),
        to: To::All,
        kind,
        after,
        body: ByteBuf::from(body.to_vec()),
    };
    Signed::new(&envelope, &study.net.me(by).unwrap().signing)
}

/// All that somebody can try: `mallory`, who has a certificate and no place, in her own name; the same junk-signed in the
/// name of whom it would be from; and what the right sender signs, continuing what nobody said.
fn bombs(study: &Study, reference: &Study) -> Vec<Delivery> {
    let mut bombs = Vec::new();
    let mallory = name("mallory");
    for (kind, (after, body)) in bodies(reference) {
        let sender = sender_of(kind);
        let setup = !matches!(
            kind,
            Kind::Begin
                | Kind::Share
                | Kind::Decline
                | Kind::Held
                | Kind::Cohort
                | Kind::Confirm
                | Kind::Refuse
                | Kind::Open
                | Kind::MaskedSum
                | Kind::MaskSum
                | Kind::Check
                | Kind::CheckSum
                | Kind::Result
                | Kind::Abort
        );
        for round in if setup { 0..1 } else { 1..3 } {
            let mut signed = vec![
                sign(study, kind, &mallory, &mallory, round, after, &body),
                sign(study, kind, &sender, &mallory, round, after, &body),
                sign(study, kind, &sender, &mallory, round, after, &[]),
                sign(study, kind, &mallory, &mallory, round, after, b"junk"),
            ];
            // The hospital may end its own session; whoever joins, joins; and a Begin is a Begin.
            if !matches!(kind, Kind::Announce | Kind::Abort | Kind::Join) {
                signed.push(sign(study, kind, &sender, &sender, round, Digest([9; 32]), &body));
            }
            for one in &signed {
                for receiver in [name("hospital"), name("server"), p(0), p(3)] {
                    let (address, payload) = stand(one, &receiver, b"attached");
                    bombs.push(Delivery { receiver, address, payload, delay: 0 });
                }
            }
        }
    }
    let chunk = Address { kind: Kind::Chunk, ..bombs[0].address.clone() };
    for receiver in [name("hospital"), name("server"), p(0), p(3)] {
        for round in 0..3 {
            let mut address = Address { round: RoundNo(round), session: study.session.into(), ..chunk.clone() };
            address.to = To::One(receiver.clone());
            for from in [mallory.clone(), p(4), name("server")] {
                let address = Address { from, ..address.clone() };
                let (receiver, payload) = (receiver.clone(), Bytes::from_static(b"junk"));
                bombs.push(Delivery { receiver, address, payload, delay: 0 });
            }
        }
    }
    bombs
}

/// Announced, and a question waits.
fn study() -> Study {
    let mut study = Build::new(5, 3, 1).parties();
    study.net.add_patient(
        &name("mallory"),
        Role::Patient,
        Policy { study: "other".into(), ..policy() },
        study.build.schema(),
    );
    study.announce();
    study.put(|_| {});
    study
}

/// Promise 3, as a table: 19 kinds and bare bytes, signed rightly by the wrong party, junk-signed in the right party's
/// name, and by the right party out of place, to hospital, server, member and patient, before every step of a session.
#[test]
fn no_message_out_of_place_has_an_effect_at_any_moment() {
    let mut reference = study();
    let steps = Rc::new(RefCell::new(0));
    let count = steps.clone();
    reference.net.tamper(move |delivery| {
        *count.borrow_mut() += 1;
        vec![delivery]
    });
    reference.net.run();
    let steps = *steps.borrow();
    assert_eq!(reference.end(), reference.sum(0..5));
    assert!(steps > 90, "{steps}");
    for at in (0..steps).step_by(2) {
        let mut study = study();
        assert_eq!(study.session, reference.session);
        let mut thrown = Some(bombs(&study, &reference));
        assert!(thrown.as_ref().unwrap().len() > 500);
        let mut seen = 0;
        study.net.tamper(move |delivery| {
            seen += 1;
            let mut all = if seen > at { thrown.take().unwrap_or_default() } else { vec![] };
            all.push(delivery);
            all
        });
        study.net.run();
        assert_eq!(study.end(), study.sum(0..5), "thrown before delivery {at}");
        study.net.tamper(|delivery| vec![delivery]);
        assert_eq!(study.ask(), study.sum(0..5), "thrown before delivery {at}");
    }
}

/// The same for what is no message at all, under every kind's name, and for true messages with an altered byte.
fn pelt(seed: u64, junk: &[Vec<u8>]) {
    let mut study = study();
    let mut dice = Dice::new(seed);
    let junk = junk.to_vec();
    study.net.tamper(move |delivery| {
        let mut all = Vec::new();
        if dice.chance(20) && !junk.is_empty() {
            let payload = Bytes::from(junk[dice.below(junk.len() as u64) as usize].clone());
            let kind = Kind::ALL[dice.below(20) as usize];
            let address = Address { kind, ..delivery.address.clone() };
            all.push(Delivery { address, payload, ..delivery.clone() });
        }
        if dice.chance(20) && delivery.address.kind != Kind::Chunk {
            // In what is signed: an attachment that is altered on its way costs what it costs to lose it.
            let signed = Frame::decode(&delivery.payload).unwrap().signed().frame(&[]).len() - 80;
            let mut altered = delivery.payload.to_vec();
            let at = dice.below(signed as u64) as usize;
            altered[at] ^= 1 << dice.below(8);
            all.push(Delivery { payload: Bytes::from(altered), ..delivery.clone() });
        }
        all.push(delivery);
        all
    });
    study.net.run();
    assert_eq!(study.end(), study.sum(0..5), "seed {seed}");
    assert_eq!(study.ask(), study.sum(0..5), "seed {seed}");
    assert!(study.faults().iter().all(|(_, fault)| !matches!(fault.wrong, Wrong::Equivocation)));
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(24))]

    /// Malformed messages never panic a machine and change nothing.
    #[test]
    fn junk_changes_nothing(
        seed in any::<u64>(),
        junk in proptest::collection::vec(proptest::collection::vec(any::<u8>(), 0..200), 0..20),
    ) {
        pelt(seed, &junk);
    }
}

/// Jobs and reads that were never asked for are nobody's.
#[test]
fn what_was_not_asked_for_is_ignored() {
    let study = study();
    let me = study.net.me(&name("server")).unwrap().clone();
    let mut server = Server::new(me);
    let moment = || Moment::new(Time(1), [0; 32]);
    let (address, payload) = {
        let signed = sign(&study, Kind::Share, &p(0), &p(0), 1, Digest::default(), &[]);
        stand(&signed, &name("server"), &[])
    };
    let inputs = [
        Input::Tick,
        Input::Sent(address.clone()),
        Input::Read { address: address.clone(), payload: None },
        Input::Read { address, payload: Some(payload) },
        Input::Done(JobId(7), Outcome::Unfit),
    ];
    for input in inputs {
        let effects = server.handle(&moment(), input);
        assert!(effects.store.is_empty() && effects.send.is_empty() && effects.jobs.is_empty());
        assert!(effects.events.is_empty() && effects.read.is_empty() && effects.wake.is_none());
    }
}

//! A relay that lies: the broker, or whoever sits on the way, delivers again, elsewhere, or under other subjects.
//!
//! A test is called after its attack and says what stops it: the right sum over who is left, or a typed abort, and who is
//! accused, which is never somebody honest.

#![allow(missing_docs, clippy::unwrap_used, clippy::expect_used, clippy::panic)]

mod support;

use std::collections::{BTreeMap, BTreeSet};

use protocol::memory::Delivery;
use protocol::*;
use support::*;

/// Promise 3: what was said in round 1 counts in no other: every message of a whole round again in the next.
#[test]
fn a_replayed_round_changes_nothing() {
    let mut study = Build::new(6, 4, 1).start();
    assert_eq!(study.ask(), study.sum(0..6));
    let first: Vec<(Address, bytes::Bytes)> =
        study.net.board().iter().map(|(address, bytes)| (address.clone(), bytes.clone())).collect();
    let everybody: Vec<Name> = (0..6).map(p).chain([name("server"), name("hospital")]).collect();
    let replay = move |delivery: Delivery| {
        let mut all = vec![delivery];
        let due = all[0].address.kind == Kind::Share;
        for (address, payload) in first.iter().filter(|_| due) {
            for receiver in everybody.iter().filter(|who| address.to.includes(who)) {
                let (receiver, address, payload) = (receiver.clone(), address.clone(), payload.clone());
                all.push(Delivery { receiver, address, payload, delay: 0 });
            }
        }
        all
    };
    study.net.tamper(replay);
    assert_eq!(study.ask(), study.sum(0..6));
    assert_eq!(study.faults(), []);
    assert_eq!(study.net.answers().count(), 2);
}

/// Promise 3: what was said in one session counts in no other: under the other session's subjects it is re-addressed.
#[test]
fn a_replayed_session_changes_nothing() {
    let mut study = Build { expect: Some(6), ..Build::new(6, 4, 1) }.start();
    assert_eq!(study.ask(), study.sum(0..6));
    let old = study.session;
    for i in 0..6 {
        study.net.offer(&p(i), &snapshot("2"), study.build.record(i)).unwrap();
    }
    let first: Vec<(Address, bytes::Bytes)> = study.net.board().clone().into_iter().collect();
    study.announce();
    study.net.run();
    let tag: SessionTag = study.session.into();
    assert_ne!(tag, old.into());
    study.put(|ask| ask.snapshot = snapshot("2"));
    for (mut address, payload) in first {
        address.session = tag;
        for receiver in (0..6).map(p).chain([name("server"), name("hospital")]) {
            if address.to.includes(&receiver) {
                let (address, payload) = (address.clone(), payload.clone());
                study.net.inject(Delivery { receiver, address, payload, delay: 0 });
            }
        }
    }
    study.net.run();
    assert_eq!(study.end(), study.sum(0..6));
    assert!(study.faults().len() > 50);
    assert!(study.faults().iter().all(|(_, fault)| fault.wrong == Wrong::Readdressed));
}

/// Promise 3: under a subject of another sender, receiver, round or kind a true message is refused.
#[test]
fn a_readdressed_message_is_refused() {
    let mut study = Build::new(6, 4, 1).start();
    study.put(|_| {});
    study.net.tamper(|delivery| {
        let Delivery { receiver, address, payload, .. } = delivery.clone();
        let with = |change: &dyn Fn(&mut Address)| {
            let mut address = address.clone();
            change(&mut address);
            Delivery { receiver: receiver.clone(), address, payload: payload.clone(), delay: 0 }
        };
        if address.kind == Kind::Chunk || address.round.0 == 0 {
            return vec![delivery];
        }
        let other = if receiver == p(1) { p(2) } else { p(1) };
        vec![
            with(&|address| address.from = name("mallory")),
            with(&|address| address.to = To::One(other.clone())),
            with(&|address| address.round = RoundNo(7)),
            with(&|address| address.kind = if address.kind == Kind::Share { Kind::Held } else { Kind::Share }),
            with(&|address| address.session = SessionTag([0; 16])),
            delivery,
        ]
    });
    study.net.run();
    assert_eq!(study.end(), study.sum(0..6));
    let faults = study.faults();
    assert_eq!(faults.len() % 5, 0);
    assert!(faults.len() >= 5 * 40 && faults.iter().all(|(_, fault)| fault.wrong == Wrong::Readdressed));
}

/// A message for one patient under the subject of another: the signed part says whose it is.
#[test]
fn a_place_or_key_of_another_patient_is_refused() {
    let mut study = Build::new(5, 3, 1).parties();
    study.announce();
    study.net.tamper(|delivery| {
        let mut all = vec![delivery.clone()];
        if matches!(delivery.address.kind, Kind::Place | Kind::Key) {
            let receiver = if delivery.receiver == p(0) { p(1) } else { p(0) };
            let mut address = delivery.address.clone();
            address.to = To::One(receiver.clone());
            all.insert(0, Delivery { receiver, address, ..delivery });
        }
        all
    });
    study.net.run();
    let (places, keys) = (5, 15);
    assert_eq!(study.faults().len(), places + keys);
    assert!(study.faults().iter().all(|(_, fault)| fault.wrong == Wrong::Readdressed));
    assert_eq!(study.ask(), study.sum(0..5));
}

/// Promise 3: nobody takes a name on the board before its time. It is derived from what its sender alone has: no 32 bytes of
/// any message, or of anybody else's store, give one of a patient's, not even to who knows what the message will say.
#[test]
fn a_name_is_foretold_by_nobody_but_its_sender() {
    let mut study = Build { payloads: true, ..Build::new(5, 4, 1) }.wide(200_000).parties();
    study.announce();
    study.put(|_| {});
    study.until(|net| net.count(Kind::Confirm) == 4);
    // One message of each kind that a patient writes who is a member.
    let of_patient = study.net.board().iter().filter(|(address, _)| address.from == p(0));
    let seen: BTreeMap<Kind, _> = of_patient.map(|seen| (seen.0.kind, seen)).collect();
    let written = [Kind::Join, Kind::Key, Kind::Share, Kind::Chunk, Kind::Held, Kind::Confirm];
    assert_eq!(seen.keys().copied().collect::<BTreeSet<_>>(), written.into());
    let foretold = |keys: &BTreeSet<[u8; 32]>| {
        let hit = |kind: &Kind| {
            let (address, payload) = seen[kind];
            let name = namer(address, payload);
            keys.iter().any(|key| name(key) == address.name) || name(&[]) == address.name
        };
        written.into_iter().filter(hit).collect::<Vec<_>>()
    };
    let windows = |bytes: &[u8]| -> Vec<[u8; 32]> { bytes.windows(32).map(|key| key.try_into().unwrap()).collect() };
    let stored =
        |who: &Name| study.net.store(who).unwrap().values().flat_map(|value| windows(value)).collect::<Vec<_>>();

    let mut own: BTreeSet<[u8; 32]> = stored(&p(0)).into_iter().collect();
    let begin = study.begin().digest;
    own.extend(own.clone().iter().map(|root| digest("ward/1 member root", &[root, &begin.0]).0));
    assert_eq!(foretold(&own), written, "its own secrets give all of its names");

    let frames = study.net.board().iter().filter(|(address, _)| address.kind != Kind::Chunk).map(|(_, frame)| frame);
    let mut known: BTreeSet<[u8; 32]> = frames.clone().flat_map(|payload| windows(payload)).collect();
    known.extend(frames.map(|payload| Frame::decode(payload).unwrap().digest.0));
    (1..5).map(p).chain([name("server"), name("hospital")]).for_each(|other| known.extend(stored(&other)));
    known.insert([0; 32]);
    assert!(known.contains(&study.session.0) && known.len() > 50_000, "{}", known.len());
    assert_eq!(foretold(&known), []);
}

/// The name that a message would have, by its sender's secret (PROTOCOL.md, *The board*).
fn namer(address: &Address, payload: &bytes::Bytes) -> impl Fn(&[u8]) -> MessageName {
    let (content, attachment) = match address.kind {
        Kind::Chunk => (chunk_digest(payload), Digest::default()),
        _ => {
            let frame = Frame::decode(payload).unwrap();
            (frame.digest, attachment_digest(&frame.attachment))
        }
    };
    let to = address.to.to_string();
    move |secret| {
        let name = digest("ward/1 name", &[secret, &content.0, &attachment.0, to.as_bytes()]);
        MessageName(name.0[..16].try_into().unwrap())
    }
}

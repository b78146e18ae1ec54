//! What the broker's operator may take off the board, and whose word it takes for it.

#![allow(missing_docs, clippy::unwrap_used, clippy::expect_used, clippy::panic)]

mod support;

use std::sync::Arc;

use protocol::*;
use support::*;

/// What `caretaker` makes of all that stands on the board, round by round.
fn purges(study: &Study, mut caretaker: Caretaker) -> Vec<Purge> {
    let taken = study.net.board().iter().filter_map(|(address, payload)| caretaker.take(address, payload).unwrap());
    let mut purges: Vec<Purge> = taken.collect();
    // An end is written to each of its receivers.
    purges.dedup();
    purges
}

/// A caretaker that starts after the hospital's certificate expired reads the same board: what is over is purged still.
#[test]
fn what_is_over_is_purged_whatever_the_dates_of_the_hospital() {
    let mut study = Build::new(5, 3, 1).start();
    assert_eq!(study.ask(), study.sum(0..5));
    assert_eq!(study.ask_with(|ask| ask.last = true), study.sum(0..5));
    let tag = SessionTag::from(study.session);
    let authority = study.net.me(&name("hospital")).unwrap().authority.clone();
    let expected = vec![Purge::Round(tag, RoundNo(1)), Purge::Session(tag)];
    assert_eq!(purges(&study, Caretaker::new(authority.clone())), expected);
    assert_eq!(purges(&study, Caretaker::new(Arc::new(Expired(authority)))), expected);
}

/// An Abort that a patient signs, under the hospital's name, ends nothing for the caretaker.
#[test]
fn a_forged_end_purges_nothing() {
    let mut study = Build::new(5, 3, 1).start();
    assert_eq!(study.ask(), study.sum(0..5));
    let mut caretaker = Caretaker::new(study.net.me(&name("hospital")).unwrap().authority.clone());
    for (address, payload) in study.net.board() {
        caretaker.take(address, payload).unwrap();
    }
    let abort = message::Abort { reason: AbortReason::Stopped, last: true };
    let forged = study.sign(&p(1), Kind::Abort, To::All, Digest::default(), &abort);
    let (mut address, payload) = stand(&forged, &p(0), &[]);
    address.from = name("hospital");
    assert!(caretaker.take(&address, &payload).is_err());
}

//! A hospital that lies: two questions under one round, questions that nobody may ask, Opens that nobody confirmed.
//!
//! A test is called after its attack and says what stops it: the right sum over who is left, or a typed abort, and who is
//! accused, which is never somebody honest.

#![allow(missing_docs, clippy::unwrap_used, clippy::expect_used, clippy::panic)]

mod support;

use protocol::message::*;
use protocol::*;
use serde_bytes::ByteBuf;
use support::*;

/// *one Begin per round*: a patient that is shown another Begin answers that one, which is counted nowhere; shown
/// both, it names the hospital and answers the first only. The same for a member.
#[test]
fn two_begins_for_one_round_are_never_added_up() {
    let mut study = Build::new(8, 4, 1).start();
    let cut = study.cut(|d| among(d, Kind::Begin, &[3, 6]));
    study.put(|_| {});
    study.settle();
    let other = study.forge_begin(1, |begin| begin.round_seconds = 61);
    cut.mend();
    study.deliver_all(&other, &[p(3), p(6)]);
    study.net.run();
    assert_eq!(study.end(), study.sum([0, 1, 2, 4, 5, 7]));
    // Which Begin is the lie cannot be told by those who saw one; but whoever then sees a Result after another has proof.
    let fault = Fault { from: name("hospital"), kind: Kind::Result, wrong: Wrong::Equivocation };
    assert_eq!(study.faults(), [(p(3), fault.clone()), (p(6), fault)]);
    assert!(study.dropped(&name("server")).contains(&(Kind::Share, "it continues another Begin than this server has")));

    let mut study = Build::new(8, 4, 1).start();
    study.put(|_| {});
    study.until(|net| net.count(Kind::Begin) == 1);
    let other = study.forge_begin(1, |begin| begin.round_seconds = 61);
    let everybody: Vec<Name> = (0..8).map(p).chain([name("server")]).collect();
    study.deliver_all(&other, &everybody);
    study.net.run();
    assert_eq!(study.end(), study.sum(0..8));
    let fault = Fault { from: name("hospital"), kind: Kind::Begin, wrong: Wrong::Equivocation };
    assert_eq!(study.faults().len(), 9);
    assert!(study.faults().iter().all(|(_, found)| *found == fault));
}

/// *one Begin per round*: a server that is shown another Begin refuses that one for want of Shares. The hospital may have
/// forgotten that it asked so, and accuses nobody.
#[test]
fn a_refuse_after_another_begin_accuses_nobody() {
    let mut study = Build::new(6, 4, 1).start();
    let cut = study.cut(|d| d.address.kind == Kind::Begin && d.receiver == name("server"));
    study.put(|_| {});
    study.settle();
    let other = study.forge_begin(1, |begin| begin.round_seconds = 30);
    cut.mend();
    study.deliver_all(&other, &[name("server")]);
    study.net.run();
    assert_eq!(study.end(), End::Aborted(AbortReason::NoCohort));
    let why = "a server's Refuse after another Begin than this hospital has";
    assert!(study.dropped(&name("hospital")).contains(&(Kind::Refuse, why)));
    assert_eq!(study.accused(), []);
}

/// *payload key committed in Begin*: a payload under two keys: whoever is given a key that does not fit the
/// commitment declines, and whoever is given two names the hospital.
#[test]
fn a_payload_key_that_does_not_fit_the_commitment_is_declined() {
    let mut study = Build { payloads: true, ..Build::new(6, 4, 1) }.parties();
    study.announce();
    let cut = study.cut(|d| among(d, Kind::PayloadKey, &[5]));
    study.net.run();
    cut.mend();
    let forge = |study: &Study, to: usize| {
        let join: Join = study.newest(Kind::Join, &p(to)).envelope.body().unwrap();
        let info = digest("ward/1 payload key info", &[&study.session.0, p(to).as_str().as_bytes()]).0;
        let (sealer, encapsulation) = SumSealer::new(&join.seal_key.unwrap(), &info, [3; 32]).unwrap();
        let sealed = ByteBuf::from(sealer.seal(0, &[5; 32]).unwrap());
        let key = PayloadKey { encapsulation: ByteBuf::from(encapsulation), sealed };
        study.sign(&name("hospital"), Kind::PayloadKey, To::One(p(to)), study.roster().digest, &key)
    };
    let (for_five, for_four) = (forge(&study, 5), forge(&study, 4));
    study.deliver(&for_five, &p(5), &[]);
    study.deliver(&for_four, &p(4), &[]);
    assert_eq!(study.ask(), study.sum(0..5));
    let fault = Fault { from: name("hospital"), kind: Kind::PayloadKey, wrong: Wrong::Equivocation };
    assert_eq!(study.faults(), [(p(4), fault)]);
    let declined = study.net.events().iter().find_map(|(who, event)| match event {
        Event::Declined { decline, why, .. } => Some((who.clone(), *decline, why.clone())),
        _ => None,
    });
    let why = "the payload key it was given does not fit the commitment in Begin";
    assert_eq!(declined, Some((p(5), Decline::Policy, why.into())));
}

/// PROTOCOL.md, *Sharing*: participation never depends on the value. Falling bounds are declined by rule, by everybody and in
/// the same words, whether the value would fit or not; no snapshot is bound by it.
#[test]
fn falling_bounds_are_declined_by_rule_whatever_the_value() {
    let mut study = Build::new(6, 4, 1).start();
    for step in 1..=5 {
        let bound = study.build.bound >> step;
        let end = study.ask_with(|ask| ask.scaled_bound = bound);
        assert_eq!(end, End::Aborted(AbortReason::TooFewShared { shared: 0, needed: 2 }));
    }
    let declines = study.frames(Kind::Decline);
    assert_eq!(declines.len(), 30);
    assert!(declines.iter().all(|(_, frame)| frame.envelope.body() == Ok(Decline::Policy)));
    assert_eq!(study.net.count(Kind::Share), 0);
    assert!(!study.net.store(&p(0)).unwrap().contains_key("snapshot/1"));
    assert!(study.advice().contains("p00, p01, p02, p03, p04 and p05 declined by their own policy"));
    assert_eq!(study.faults(), []);
    // A larger bound is no ground to decline.
    let bound = study.build.bound * 2;
    assert_eq!(study.ask_with(|ask| ask.scaled_bound = bound), study.sum(0..6));
}

/// PROTOCOL.md, *Sharing*: every party checks in 128-bit arithmetic that the ring holds the sum of all who joined.
#[test]
fn a_begin_whose_ring_is_too_narrow_is_refused_by_everybody() {
    let mut study = Build::new(6, 4, 1).start();
    study.put(|_| {});
    study.until(|net| net.count(Kind::Begin) == 1);
    let narrow = study.forge_begin(1, |begin| begin.ring = Ring::new(16).unwrap());
    let unsound = study.forge_begin(1, |begin| begin.question = Question::Sum(vec![]));
    let endless = study.forge_begin(1, |begin| begin.round_seconds = 0);
    let same = study.forge_begin(1, |begin| begin.same_as = Some(RoundNo(1)));
    let huge = Column { name: "value".into(), width: u32::MAX };
    let long = study.forge_begin(1, |begin| begin.question = Question::Sum(vec![huge]));
    let setup = study.forge_begin(0, |_| {});
    // The same build makes the same keys and the same session: there the forged ones come first.
    let mut study = study.build.start();
    let everybody: Vec<Name> = (0..6).map(p).chain([name("server")]).collect();
    let rules = [
        (narrow, "the ring cannot hold the sum of all who joined"),
        (unsound, "a Begin needs a round from 1, a sound question and a time from 1 to 86400 s"),
        (endless, "a Begin needs a round from 1, a sound question and a time from 1 to 86400 s"),
        (same, "same_as names a round that is not earlier"),
        (long, "the vector is too long"),
        (setup, "a Begin needs a round from 1, a sound question and a time from 1 to 86400 s"),
    ];
    for (at, (begin, rule)) in rules.iter().enumerate() {
        study.deliver_all(begin, &everybody);
        study.net.run();
        let faults = study.faults();
        assert_eq!(faults.len(), 7 * (at + 1), "{rule}");
        assert!(faults[7 * at..].iter().all(|(_, fault)| fault.from == name("hospital") && rule_of(fault) == *rule));
    }
    assert_eq!(study.net.count(Kind::Share), 0);
    assert_eq!(study.ask(), study.sum(0..6));
}

/// PROTOCOL.md, *Key*: chains are hashed once a round; a Begin or an Abort far ahead would keep a patient hashing for
/// minutes. It is refused, and the next honest round is answered.
#[test]
fn a_begin_or_an_abort_far_ahead_is_refused() {
    let mut study = Build::new(6, 4, 1).start();
    assert_eq!(study.ask(), study.sum(0..6));
    let far = study.forge_begin(10_002, |_| {});
    let farther = study.forge_begin(u32::MAX, |_| {});
    let abort = Abort { reason: AbortReason::Stopped, last: false };
    let begin = study.begin().digest;
    let abort = study.sign_for(RoundNo(u32::MAX), &name("hospital"), Kind::Abort, To::All, begin, &abort);
    for message in [&far, &farther, &abort] {
        study.deliver_all(message, &[p(0), p(5)]);
    }
    study.net.run();
    let rules: Vec<&str> = study.faults().iter().map(|(_, fault)| rule_of(fault)).collect();
    let (begin, abort) =
        ("a Begin that is more than 10000 rounds ahead", "an Abort that is more than 10000 rounds ahead");
    assert_eq!(rules, [begin, begin, begin, begin, abort, abort]);
    assert_eq!(study.ask(), study.sum(0..6));
    // As far as is allowed, and a round that others never saw: the party hashes on and goes on with the next.
    let ahead = study.forge_begin(900, |begin| begin.same_as = None);
    study.deliver_all(&ahead, &[p(5)]);
    study.net.run();
    assert_eq!(study.shares(900).len(), 1);
}

/// A study in which all four members confirmed a cohort and the hospital is gone: Opens are ours to forge.
fn confirmed() -> (Study, Digest, Vec<Signed>) {
    let mut study = Build::new(6, 4, 1).start();
    study.put(|_| {});
    study.until(|net| net.count(Kind::Confirm) == 4);
    study.net.kill(&name("hospital"));
    let cohort = study.cohort().digest;
    let confirms = study.frames(Kind::Confirm).into_iter().map(|(_, frame)| frame.signed()).collect();
    (study, cohort, confirms)
}

fn send_open(study: &mut Study, cohort: Digest, confirms: &[Signed], senders: Vec<(u8, Vec<u16>)>) {
    let open = Open { confirms: confirms.to_vec(), senders };
    let open = study.sign(&name("hospital"), Kind::Open, To::All, cohort, &open);
    study.deliver_all(&open, &[p(0)]);
    study.net.sleep(100);
}

/// PROTOCOL.md, *Open*: an Open with fewer than q Confirms, with one Confirm twice, with Confirms of another cohort,
/// round or member, or for blocks that the member does not hold, releases nothing and names the hospital.
#[test]
fn an_open_without_q_confirms_of_its_own_cohort_releases_nothing() {
    let (mut study, cohort, confirms) = confirmed();
    let other = study.forge_cohort(1, study.begin().digest, 0..5).digest();
    let of_other: Vec<Signed> = (0..4).map(|i| study.confirm(&p(i), other)).collect();
    let of_round = study.sign_for(RoundNo(2), &p(2), Kind::Confirm, To::One(name("hospital")), cohort, &Confirm());
    let of_stranger = study.confirm(&p(5), cohort);
    let mut by_another = study.confirm(&p(2), cohort).open().unwrap().envelope;
    by_another.from = p(3);
    let by_another = Signed::new(&by_another, &study.net.me(&p(2)).unwrap().signing);
    let refusal = study.sign(&p(2), Kind::Refuse, To::One(name("hospital")), cohort, &Refuse::NotHeld);
    let two = confirms[..2].to_vec();
    let with = |one: &Signed| [two.clone(), vec![one.clone()]].concat();
    let good = vec![(0, vec![1_u16])];
    let fault = |wrong| Fault { from: name("hospital"), kind: Kind::Open, wrong };
    let another = Wrong::Rule("what stands for a Confirm is another message");
    let blocks =
        Wrong::Rule("an Open or Check of blocks that stand twice, unsorted, or that this member does not hold");
    let cases = [
        (two.clone(), good.clone(), Wrong::Rule("an Open with fewer than q Confirms")),
        (vec![], good.clone(), Wrong::Rule("an Open with fewer than q Confirms")),
        (with(&two[0]), good.clone(), Wrong::Rule("a member's Confirm is counted twice")),
        (of_other[..3].to_vec(), good.clone(), Wrong::Rule("a Confirm of another cohort")),
        (with(&of_other[3]), good.clone(), Wrong::Rule("a Confirm of another cohort")),
        (with(&of_round), good.clone(), another.clone()),
        (with(&refusal), good.clone(), another),
        (with(&of_stranger), good.clone(), Wrong::NotItsRole),
        (with(&by_another), good.clone(), Wrong::Wire(WireError::Signature(p(3)))),
        (confirms.clone(), vec![(0, vec![])], blocks.clone()),
        (confirms.clone(), vec![(0, vec![0])], blocks.clone()),
        (confirms.clone(), vec![(0, vec![1, 1])], blocks.clone()),
        (confirms.clone(), vec![(0, vec![2, 1])], blocks.clone()),
        (confirms.clone(), vec![(0, vec![99])], blocks),
    ];
    for (confirms, senders, wrong) in cases {
        send_open(&mut study, cohort, &confirms, senders);
        assert_eq!(study.faults().pop(), Some((p(0), fault(wrong))));
    }
    // An Open of a cohort that q members did confirm, but this one did not.
    send_open(&mut study, other, &of_other, good.clone());
    let why = "an Open of a cohort that this member did not confirm";
    assert_eq!(study.dropped(&p(0)).pop(), Some((Kind::Open, why)));
    assert_eq!(study.net.count(Kind::MaskSum), 0);
    send_open(&mut study, cohort, &confirms[1..], good);
    assert_eq!(study.net.count(Kind::MaskSum), 1, "and a good one is answered");
}

/// PROTOCOL.md, *Open*: the same Open twice is answered once, byte by byte; a further one for the same cohort is
/// answered for its blocks.
#[test]
fn an_open_twice_is_answered_once() {
    let (mut study, cohort, confirms) = confirmed();
    for _ in 0..3 {
        send_open(&mut study, cohort, &confirms, vec![(0, vec![1])]);
    }
    assert_eq!(study.net.count(Kind::MaskSum), 1);
    send_open(&mut study, cohort, &confirms, vec![(0, vec![2])]);
    send_open(&mut study, cohort, &confirms, vec![(1, vec![0])]);
    assert_eq!(study.net.count(Kind::MaskSum), 2, "an Open that names others is not for this member");
    assert_eq!(study.faults(), []);
}

/// PROTOCOL.md, *Open*: two Opens that ask a member for the same blocks before their sum is made are both answered.
#[test]
fn two_opens_for_the_same_blocks_are_both_answered() {
    let (mut study, cohort, confirms) = confirmed();
    let mut first = None;
    study.net.tamper(move |d| match d.address.kind {
        Kind::Open if first.is_none() => {
            first = Some(d);
            vec![]
        }
        Kind::Open => vec![first.take().unwrap(), d],
        _ => vec![d],
    });
    send_open(&mut study, cohort, &confirms[..3], vec![(0, vec![1])]);
    send_open(&mut study, cohort, &confirms[1..], vec![(0, vec![1])]);
    assert_eq!(study.net.count(Kind::MaskSum), 2);
    assert_eq!(study.faults(), []);
}

/// *exhaust a member's memory by Opens*: each answer is as long as the vector, and a member gives ten in a round. An honest
/// hospital asks no more often: once in a tenth of it.
#[test]
fn a_member_answers_ten_opens_in_a_round() {
    let (mut study, cohort, confirms) = confirmed();
    let blocks: [&[u16]; 7] = [&[1], &[2], &[3], &[1, 2], &[1, 3], &[2, 3], &[1, 2, 3]];
    for blocks in blocks {
        send_open(&mut study, cohort, &confirms, vec![(0, blocks.to_vec())]);
    }
    for fewer in [&confirms[..3], &confirms[1..]] {
        send_open(&mut study, cohort, fewer, vec![(0, vec![1])]);
    }
    send_open(&mut study, cohort, &confirms[1..], vec![(0, vec![2])]);
    assert_eq!((study.net.count(Kind::MaskSum), study.faults()), (10, vec![]));
    send_open(&mut study, cohort, &confirms[1..], vec![(0, vec![3])]);
    let rule = "more Opens of one member than an honest hospital sends in a round";
    assert_eq!(rule_of(&study.faults().pop().unwrap().1), rule);
    assert_eq!(study.net.count(Kind::MaskSum), 10);
}

/// *collect q Confirms, wait, open after a later break-in*: after the round's end nobody releases.
#[test]
fn an_open_after_the_rounds_end_releases_nothing() {
    let (mut study, cohort, confirms) = confirmed();
    study.net.sleep(60_000);
    send_open(&mut study, cohort, &confirms, vec![(0, vec![1])]);
    assert_eq!(study.net.count(Kind::MaskSum), 0);
    assert_eq!(study.dropped(&p(0)).pop(), Some((Kind::Open, "a message of an old round")));
}

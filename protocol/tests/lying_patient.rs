//! A patient that lies: Shares, Joins and vectors that no honest one sends, and what only hospital or server may say.
//!
//! A test is called after its attack and says what stops it: the right sum over who is left, or a typed abort, and who is
//! accused, which is never somebody honest.

#![allow(missing_docs, clippy::unwrap_used, clippy::expect_used, clippy::panic)]

mod support;

use protocol::message::*;
use protocol::*;
use serde_bytes::ByteBuf;
use support::*;

/// *commitments checked in Held*: a patient that gives one holder another seed is at fault, and no honest holder
/// looks like a liar. Held by the other three it stays in, and the sum is right.
#[test]
fn seeds_that_differ_for_one_holder_are_the_patients_fault_and_the_sum_is_right() {
    let mut study = Build::new(6, 4, 1).start();
    study.net.kill(&p(5));
    study.put(|_| {});
    study.until(|net| net.count(Kind::Begin) == 1);
    let forged = study.forge_share(5, |forged| forged.boxes[0][1] = [99; 32]);
    study.send_share(&forged);
    study.net.run();
    assert_eq!(study.end(), study.sum(0..6));
    let wrong = Wrong::Rule("a seed that does not fit its commitment");
    assert_eq!(study.faults(), [(p(0), Fault { from: p(5), kind: Kind::Share, wrong })]);
}

/// The same for two holders of four: fewer than q hold it, so it is out, and the others' sum is right.
#[test]
fn seeds_that_differ_for_two_holders_leave_the_patient_out() {
    let mut study = Build::new(6, 4, 1).start();
    study.net.kill(&p(5));
    study.put(|_| {});
    study.until(|net| net.count(Kind::Begin) == 1);
    let forged = study.forge_share(5, |forged| {
        forged.boxes[0][1] = [99; 32];
        forged.boxes[3].pop();
    });
    study.send_share(&forged);
    study.net.run();
    assert_eq!(study.end(), study.sum(0..5));
    assert_eq!(study.accused(), [p(5)]);
    let rules: Vec<_> = study.faults().iter().map(|(who, fault)| (who.clone(), rule_of(fault))).collect();
    let expected = [(p(0), "a seed that does not fit its commitment"), (p(3), "a box with another number of seeds")];
    assert_eq!(rules, expected);
}

/// Runs a round in which p05 sends this Share instead of its own: it is left out and the others' sum is right. Which
/// rules it broke.
fn left_out(build: Build, change: impl FnOnce(&mut Study, &mut Forged)) -> Vec<&'static str> {
    let mut study = build.start();
    study.net.kill(&p(5));
    study.put(|_| {});
    study.settle();
    let mut forged = study.forge_share(5, |_| {});
    change(&mut study, &mut forged);
    study.send_share(&forged);
    study.net.run();
    assert_eq!(study.end(), study.sum(0..5));
    assert_eq!(study.accused(), [p(5)]);
    study.faults().iter().map(|(_, fault)| rule_of(fault)).collect()
}

/// PROTOCOL.md, *Share*: chunk digests must be all different: one chunk would count twice.
#[test]
fn a_share_with_the_same_chunk_digest_twice_is_refused() {
    let full = Chunks::new(Ring::new(64).unwrap(), 1).unwrap().full() as u32;
    let build = Build { bound: 1 << 59, ..Build::new(6, 4, 1).wide(full + 1) };
    let rules = left_out(build, |_, forged| forged.core.chunks[1] = forged.core.chunks[0]);
    assert_eq!(rules, ["a Share core that is malformed or names a chunk twice"; 5]);
}

/// *no circle*: boxes, vectors and commitments of another patient are useless to who copies them.
#[test]
fn copied_boxes_vectors_and_commitments_are_refused() {
    let copied = |study: &Study| {
        let shares = study.frames(Kind::Share).into_iter().filter(|(address, _)| address.from == p(4));
        let shares: Vec<Frame> = shares.map(|(_, frame)| frame).collect();
        let share: Share = shares[0].envelope.body().unwrap();
        let to_members = shares.iter().take(4).map(|frame| frame.attachment.to_vec());
        (share.open_core().unwrap(), to_members.collect::<Vec<_>>())
    };
    // The whole core, place and all.
    let rules = left_out(Build::new(6, 4, 1), |study, forged| forged.core = copied(study).0);
    assert_eq!(rules, ["a Share of another place or shape"; 5]);
    // Its vector and commitments under the copier's own place: commitments bind their sender.
    let rules = left_out(Build::new(6, 4, 1), |study, forged| {
        forged.core.commitments = copied(study).0.commitments;
    });
    assert_eq!(rules, ["a seed that does not fit its commitment"; 4]);
    // Its boxes: they are sealed under other keys and bind their sender.
    let rules = left_out(Build::new(6, 4, 1), |study, forged| forged.sealed = Some(copied(study).1));
    assert_eq!(rules, ["a box that does not open"; 4]);
}

/// PROTOCOL.md, *Sharing*: a patient may add any ring element; a sum beyond |U| * bound is refused, and nobody is accused.
#[test]
fn a_vector_out_of_bound_makes_a_sum_out_of_range() {
    let mut study = Build::new(6, 4, 1).start();
    study.net.kill(&p(5));
    study.put(|_| {});
    study.until(|net| net.count(Kind::Begin) == 1);
    let forged = study.forge_share(5, |forged| {
        forged.pieces[0][2] ^= 0x80;
        forged.core.chunks[0] = chunk_digest(&forged.pieces[0]);
    });
    study.send_share(&forged);
    study.net.run();
    assert_eq!(study.end(), End::Aborted(AbortReason::SumOutOfRange));
    assert_eq!(study.accused(), []);
}

/// PROTOCOL.md, *Roster*: who has no mark does not join as a member, nobody joins under another's name, and a copied
/// seal key gives no second seat. The session goes on without them.
#[test]
fn forged_joins_give_no_place() {
    let mut study = Build { expect: Some(6), ..Build::new(6, 4, 1) }.parties();
    study.announce();
    let cut = study.cut(|d| d.address.kind == Kind::Join && (d.address.from == p(5) || d.address.from == p(3)));
    study.until(|net| net.count(Kind::Join) == 6);
    while study.net.step() {}
    cut.mend();
    let chain = |who: usize| study.net.me(&p(who)).unwrap().chain.clone();
    let key = SealSecret::new([8; 32]).public();
    let first: Join = study.newest(Kind::Join, &p(0)).envelope.body().unwrap();
    let sign = |by: usize, join: &Join| study.sign(&p(by), Kind::Join, To::All, study.session, join);
    let unmarked = sign(5, &Join { chain: chain(5), seal_key: Some(key.clone()) });
    let keyless = sign(3, &Join { chain: chain(3), seal_key: None });
    let borrowed = sign(5, &Join { chain: chain(3), seal_key: Some(key.clone()) });
    let mut envelope = sign(3, &Join { chain: chain(3), seal_key: Some(key) }).open().unwrap().envelope;
    let forged = Signed::new(&envelope, &study.net.me(&p(5)).unwrap().signing);
    envelope.body = ByteBuf::from(encode(&Join { chain: chain(3), seal_key: first.seal_key }));
    let copied = Signed::new(&envelope, &study.net.me(&p(3)).unwrap().signing);
    for join in [&unmarked, &keyless, &borrowed, &forged, &copied] {
        study.deliver_all(join, &[name("server")]);
    }
    study.net.sleep(1_000);
    let found: Vec<(Name, Wrong)> = study.faults().into_iter().map(|(_, fault)| (fault.from, fault.wrong)).collect();
    let rule = Wrong::Rule("marked patients, and all where there are payloads, join with a seal key");
    let signature = Wrong::Wire(WireError::Signature(p(3)));
    assert_eq!(found, [(p(5), rule.clone()), (p(3), rule), (p(5), signature.clone()), (p(3), signature)]);
    assert_eq!(study.dropped(&name("server")).pop(), Some((Kind::Join, "a join with the seal key of another")));
    // Their true Joins still count.
    let real: Vec<Signed> = [3, 5].map(|i| study.newest(Kind::Join, &p(i)).signed()).into();
    real.iter().for_each(|join| study.deliver_all(join, &[name("server")]));
    study.net.run();
    assert_eq!(study.ask(), study.sum(0..6));
}

/// Two Joins of one patient: the first stands, and the second is that patient's contradiction.
#[test]
fn a_second_join_is_an_equivocation() {
    let mut study = Build { expect: Some(6), ..Build::new(5, 3, 1) }.parties();
    study.announce();
    while study.net.step() {}
    let chain = study.net.me(&p(0)).unwrap().chain.clone();
    let join = Join { chain, seal_key: Some(SealSecret::new([8; 32]).public()) };
    let second = study.sign(&p(0), Kind::Join, To::All, study.session, &join);
    study.deliver_all(&second, &[name("server")]);
    study.net.run();
    let fault = Fault { from: p(0), kind: Kind::Join, wrong: Wrong::Equivocation };
    assert_eq!(study.faults(), [(name("server"), fault)]);
    assert_eq!(study.ask(), study.sum(0..5));
}

/// Promise 3: who is no hospital announces nothing; who is none of its servers opens no session under its name.
#[test]
fn a_hospital_that_is_none_announces_nothing() {
    let mut study = Build::new(4, 3, 1).parties();
    study.announce();
    study.net.run();
    let real = study.newest(Kind::Announce, &name("hospital"));
    let mut announce: Announce = real.envelope.body().unwrap();
    announce.nonce = [1; 32];
    announce.chain = study.net.me(&p(3)).unwrap().chain.clone();
    let own = study.sign(&p(3), Kind::Announce, To::All, Digest::default(), &announce);
    announce.chain = study.net.me(&name("hospital")).unwrap().chain.clone();
    let borrowed = study.sign(&p(3), Kind::Announce, To::All, Digest::default(), &announce);
    let before = study.net.count(Kind::Join);
    for message in [&own, &borrowed] {
        study.deliver_all(message, &[p(0), name("server")]);
    }
    study.net.run();
    let wrongs: Vec<Wrong> = study.faults().into_iter().map(|(_, fault)| fault.wrong).collect();
    let signature = Wrong::Wire(WireError::Signature(name("hospital")));
    assert_eq!(wrongs, [Wrong::NotItsRole, Wrong::NotItsRole, signature.clone(), signature]);
    assert_eq!(study.accused(), [p(3)]);
    assert_eq!(study.net.count(Kind::Join), before);
}

/// A Refuse that the server did not sign ends no session: its chain comes along and its signature must hold.
#[test]
fn a_forged_refusal_of_joins_ends_nothing() {
    let mut study = Build { expect: Some(6), ..Build::new(5, 3, 1) }.parties();
    study.announce();
    while study.net.step() {}
    let refuse = Refuse::TooFewJoined { joined: 0, marked: 0 };
    let to = To::One(name("hospital"));
    let chain = |who: &Name| encode(&study.net.me(who).unwrap().chain);
    let (server, own) = (chain(&name("server")), chain(&p(4)));
    let by_patient = study.sign(&p(4), Kind::Refuse, to.clone(), study.session, &refuse);
    let real = study.sign(&name("server"), Kind::Refuse, to, study.session, &refuse);
    let forged = Signed::new(&real.open().unwrap().envelope, &study.net.me(&p(4)).unwrap().signing);
    study.deliver(&by_patient, &name("hospital"), &own);
    study.deliver(&by_patient, &name("hospital"), &server);
    study.deliver(&forged, &name("hospital"), &server);
    study.deliver(&forged, &name("hospital"), &own);
    study.deliver(&real, &name("hospital"), &[]);
    study.net.run();
    assert_eq!(study.faults().len(), 5);
    assert_eq!(study.ends(), []);
    assert_eq!(study.ask(), study.sum(0..5));
}

//! A member of the committee that lies: about whom it holds, and about the sums of their masks.
//!
//! A test is called after its attack and says what stops it: the right sum over who is left, or a typed abort, and who is
//! accused, which is never somebody honest.

#![allow(missing_docs, clippy::unwrap_used, clippy::expect_used, clippy::panic)]

mod support;

use protocol::message::*;
use protocol::*;
use serde_bytes::ByteBuf;
use support::*;

/// A member's lie about whom it holds: with c=4, t=1 one liar leaves nobody out, whether it denies or accuses.
#[test]
fn one_lying_member_leaves_nobody_out() {
    for accuses in [false, true] {
        let mut study = Build::new(6, 4, 1).start();
        let cut = study.cut(|d| d.address.kind == Kind::Held && d.address.from == p(0));
        study.put(|_| {});
        study.settle();
        cut.mend();
        let held = (1..6).map(|place| (Place(place as u32), study.shares(1)[&place])).collect();
        let held = Held { held, faults: if accuses { vec![Place(0)] } else { vec![] } };
        let to = To::One(name("server"));
        let held = study.sign(&p(0), Kind::Held, to, study.begin().digest, &held);
        study.deliver_all(&held, &[name("server")]);
        study.net.run();
        assert_eq!(study.end(), study.sum(0..6));
        assert_eq!(study.accused(), []);
    }
}

/// Signs a MaskSum of `member`'s in answer to the newest Open.
fn mask_sum(study: &Study, member: &Name, encapsulation: Vec<u8>, pieces: &[Vec<u8>]) -> Signed {
    let digests = pieces.iter().map(|piece| chunk_digest(piece)).collect();
    let sum = MaskSum { encapsulation: ByteBuf::from(encapsulation), pieces: digests };
    study.sign(member, Kind::MaskSum, To::One(name("hospital")), study.open().0.digest, &sum)
}

/// PROTOCOL.md, *Checks*: a mask sum that does not open names its sender, and its blocks are taken from what holders vouch
/// for; each block counts once.
#[test]
fn a_bad_mask_sum_names_its_sender_and_another_holder_supplies_it() {
    let mut study = Build::new(7, 5, 1).start();
    let cut = study.cut(|d| d.address.kind == Kind::MaskSum);
    study.put(|_| {});
    study.settle();
    let senders = study.open().1.senders;
    let (liar, honest) = (senders[0].0, senders[1].0);
    cut.mend();
    let true_sum = study.newest(Kind::MaskSum, &p(honest.into()));
    study.deliver(&true_sum.signed(), &name("hospital"), &true_sum.attachment);
    let pieces = vec![vec![1; 40], vec![2; 20]];
    let sum = mask_sum(&study, &p(liar.into()), vec![0; 1120], &pieces);
    let attached: Vec<ByteBuf> = pieces.into_iter().map(ByteBuf::from).collect();
    study.deliver(&sum, &name("hospital"), &encode(&attached));
    study.net.run();
    assert_eq!(study.end(), study.sum(0..7));
    let wrong = Wrong::Rule("a mask sum that does not open, or is of other blocks");
    let fault = Fault { from: p(liar.into()), kind: Kind::MaskSum, wrong };
    assert_eq!(study.faults(), [(name("hospital"), fault)]);
    assert_eq!(study.net.count(Kind::Open), 5, "no further Open: who sent a sum now would know what is checked");
    assert_eq!(study.net.answers().last().unwrap().checked.caught, [p(liar.into())]);
}

/// Whoever names an honest member's sealed pieces in a MaskSum of its own does not keep them from the hospital: the copier
/// alone is named.
#[test]
fn copied_pieces_of_a_mask_sum_harm_only_the_copier() {
    let mut study = Build::new(7, 5, 1).start();
    let cut = study.cut(|d| d.address.kind == Kind::MaskSum);
    study.put(|_| {});
    study.settle();
    cut.mend();
    let (copier, honest) = (study.open().1.senders[0].0, study.open().1.senders[1].0);
    let frame = study.newest(Kind::MaskSum, &p(honest.into()));
    let sum: MaskSum = frame.envelope.body().unwrap();
    let copy = study.sign(&p(copier.into()), Kind::MaskSum, To::One(name("hospital")), study.open().0.digest, &sum);
    study.deliver(&copy, &name("hospital"), &encode(&Vec::<ByteBuf>::new()));
    study.deliver(&frame.signed(), &name("hospital"), &frame.attachment);
    study.net.run();
    assert_eq!(study.end(), study.sum(0..7));
    assert_eq!(study.accused(), [p(copier.into())]);
}

/// Pieces that are kept until they are named are bounded by sender: a member that sends junk ahead of everybody leaves
/// the others their room.
#[test]
fn a_flood_of_pieces_takes_no_room_from_others() {
    let mut study = Build::new(7, 5, 1).wide(300_000).start();
    let sums = [Kind::Chunk, Kind::MaskedSum, Kind::MaskSum];
    let cut = study.cut(move |d| d.receiver == name("hospital") && sums.contains(&d.address.kind));
    study.put(|_| {});
    study.settle();
    cut.mend();
    let senders = study.open().1.senders;
    let flooder = (0..5).find(|seat| senders.iter().all(|(sender, _)| sender != seat)).unwrap();
    let hand = |study: &mut Study, address: Address, payload| {
        let receiver = name("hospital");
        study.net.inject(memory::Delivery { receiver, address, payload, delay: 0 });
    };
    let to_hospital = |kind, study: &Study| {
        let board = study.net.board().iter();
        let sums = board.filter(|(address, _)| address.kind == kind && address.to.includes(&name("hospital")));
        sums.map(|(address, payload)| (address.clone(), payload.clone())).collect::<Vec<_>>()
    };
    let chunks = to_hospital(Kind::Chunk, &study);
    assert!(chunks.len() > 2, "a masked sum of several chunks, and two mask sums");
    for junk in 0..100 {
        let address = Address { from: p(flooder.into()), name: MessageName([junk; 16]), ..chunks[0].0.clone() };
        hand(&mut study, address, vec![junk; 100].into());
    }
    // The pieces come before the messages that name them.
    chunks.into_iter().for_each(|(address, payload)| hand(&mut study, address, payload));
    for kind in [Kind::MaskedSum, Kind::MaskSum] {
        to_hospital(kind, &study).into_iter().for_each(|(address, payload)| hand(&mut study, address, payload));
    }
    study.net.run();
    assert_eq!(study.end(), study.sum(0..7));
    assert_eq!(study.net.count(Kind::Open), 5, "nobody else was asked");
}

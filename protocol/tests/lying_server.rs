//! A server that lies: it shows two Rosters, cohorts or sums, leaves people out of lists, or swaps what they said.
//!
//! A test is called after its attack and says what stops it: the right sum over who is left, or a typed abort, and who is
//! accused, which is never somebody honest.

#![allow(missing_docs, clippy::unwrap_used, clippy::expect_used, clippy::panic)]

mod support;

use protocol::message::*;
use protocol::*;
use serde_bytes::ByteBuf;
use support::*;

/// *quorum*: a server that shows two cohorts gets neither opened, for no q members name the same one. Nobody
/// honest is accused of it.
#[test]
fn an_equivocating_server_that_shows_two_cohorts_opens_none() {
    let mut study = Build::new(8, 4, 1).start();
    let cut = study.cut(|d| among(d, Kind::Cohort, &[2, 3]));
    study.put(|_| {});
    study.settle();
    let other = study.forge_cohort(1, study.begin().digest, 0..7);
    cut.mend();
    study.deliver_all(&other, &[p(2), p(3)]);
    study.net.run();
    let aborted = AbortReason::TooFewConfirmed { confirmed: 2, committee: 4, quorum: 3, missing: vec![p(2), p(3)] };
    assert_eq!(study.end(), End::Aborted(aborted));
    assert_eq!(study.net.count(Kind::Open), 0);
    assert_eq!(study.net.count(Kind::Confirm), 4);
    assert_eq!(study.accused(), []);
}

/// A server that goes by the Cohort that the first one showed it, which nobody else has, is not accused of that.
#[test]
fn a_server_that_was_shown_another_cohort_is_not_accused() {
    let mut study = Build { servers: 2, ..Build::new(8, 4, 1) }.wide(200_000).start();
    let cut = study.cut(|d| d.address.kind == Kind::Cohort && d.receiver == server(1));
    study.put(|_| {});
    study.settle();
    let other = study.forge_cohort(1, study.begin().digest, 0..7);
    cut.mend();
    study.deliver_all(&other, &[server(1)]);
    study.net.run();
    assert!(matches!(study.end(), End::Aborted(AbortReason::SumsMissing { .. })), "{:?}", study.end());
    assert!(study.dropped(&name("hospital")).contains(&(Kind::MaskedSum, "a MaskedSum of another cohort")));
    assert_eq!(study.accused(), []);
}

/// PROTOCOL.md, *Confirm*: a member never confirms a second cohort of a round, and names the server that shows one.
#[test]
fn a_member_that_is_shown_two_cohorts_confirms_the_first_only() {
    let mut study = Build::new(8, 4, 1).start();
    study.put(|_| {});
    study.until(|net| net.count(Kind::Confirm) == 4);
    let other = study.forge_cohort(1, study.begin().digest, 0..7);
    study.deliver_all(&other, &[p(0)]);
    study.net.run();
    assert_eq!(study.end(), study.sum(0..8));
    assert_eq!(study.net.count(Kind::Confirm), 4);
    let fault = Fault { from: name("server"), kind: Kind::Cohort, wrong: Wrong::Equivocation };
    assert_eq!(study.faults(), [(p(0), fault)]);
}

/// Signs a Roster over `joins` with these committee seats, its list and places, as the server.
fn forge_roster(study: &Study, joins: &[Signed], committee: &[Signed]) -> (Signed, Signed, Vec<u8>, Vec<Signed>) {
    let server = name("server");
    let leaves: Vec<Digest> = joins.iter().map(Signed::digest).collect();
    let roster = Roster {
        root: merkle::root(&leaves),
        count: joins.len() as u32,
        committee: committee.to_vec(),
        servers: vec![study.net.me(&server).unwrap().chain.clone()],
    };
    let roster = study.sign(&server, Kind::Roster, To::All, study.session, &roster);
    let attachment = encode(&joins);
    let list = List { roster: roster.digest(), piece: 0, pieces: 1, joins: attachment_digest(&attachment) };
    let list = study.sign(&server, Kind::List, To::All, study.session, &list);
    let place = |at: u32| {
        let proof = PlaceProof { place: Place(at), path: merkle::path(&leaves, at).unwrap() };
        let to = To::One(joins[at as usize].open().unwrap().envelope.from);
        study.sign(&server, Kind::Place, to, roster.digest(), &proof)
    };
    let places = (0..joins.len() as u32).map(place).collect();
    (roster, list, attachment, places)
}

/// The Joins that stand on the board, sorted by name.
fn joins(study: &Study) -> Vec<Signed> {
    study.frames(Kind::Join).into_iter().map(|(_, frame)| frame.signed()).collect()
}

/// *one Roster per session*: a patient that is shown another Roster goes on with that one only: it costs its own
/// value, and the sum over the others is right. Shown both, it names the server.
#[test]
fn two_rosters_part_the_patients_and_open_nothing_twice() {
    let mut study = Build::new(7, 4, 1).parties();
    study.announce();
    let cut = study.cut(|d| among(d, Kind::Roster, &[5]) || among(d, Kind::Place, &[5]));
    study.net.run();
    cut.mend();
    let mut fewer = joins(&study);
    fewer.remove(6);
    let committee = fewer[..4].to_vec();
    let (roster, _, _, places) = forge_roster(&study, &fewer, &committee);
    study.deliver(&roster, &p(5), &[]);
    study.deliver(&places[5], &p(5), &[]);
    let expected = study.sum([0, 1, 2, 3, 4, 6]);
    assert_eq!(study.ask(), expected);
    assert_eq!(study.accused(), []);
    // Its Keys went out, after the other Roster: no member took them.
    assert!(study.dropped(&p(0)).contains(&(Kind::Key, "a Key after another Roster than this member has")));
    let real = study.roster().signed();
    study.deliver(&real, &p(5), &[]);
    study.net.run();
    let fault = Fault { from: name("server"), kind: Kind::Roster, wrong: Wrong::Equivocation };
    assert_eq!(study.faults(), [(p(5), fault)]);
}

/// *one Roster per session*: whoever has another Roster, with its own places, takes the receipt of a round that it never saw
/// for no proof that it is in the sum, though the cohort has its place.
#[test]
fn a_receipt_of_a_round_that_a_patient_has_not_seen_says_not_that_it_is_in() {
    let mut study = Build::new(7, 4, 1).parties();
    study.announce();
    let cut = study.cut(|d| among(d, Kind::Roster, &[5]) || among(d, Kind::Place, &[5]));
    study.net.run();
    cut.mend();
    // Whether a list is sorted is what members check: this patient sees its own place only.
    let mut moved = joins(&study);
    let committee = moved[..4].to_vec();
    moved.swap(5, 6);
    let (roster, _, _, places) = forge_roster(&study, &moved, &committee);
    study.deliver(&roster, &p(5), &[]);
    study.deliver(&places[6], &p(5), &[]);
    let expected = study.sum([0, 1, 2, 3, 4, 6]);
    assert_eq!(study.ask(), expected);
    let said = study.net.events().iter().filter_map(|(who, event)| match event {
        Event::Receipt { count, included, .. } => Some((who.clone(), *count, *included)),
        _ => None,
    });
    assert_eq!(said.collect::<Vec<_>>(), (0..7).map(|i| (p(i), 6, i != 5)).collect::<Vec<_>>());
    assert_eq!(study.accused(), []);
}

/// Promise 3: a relay, or the server, cannot swap a member's seal key: the Join that carries it is signed by the member.
#[test]
fn a_swapped_seal_key_in_a_roster_is_refused_by_everybody() {
    let mut study = Build::new(5, 3, 1).parties();
    study.announce();
    let cut = study.cut(|d| d.address.kind == Kind::Roster);
    study.net.run();
    cut.mend();
    let mut swapped = joins(&study);
    let mut join: Join = swapped[1].open().unwrap().envelope.body().unwrap();
    join.seal_key = Some(SealSecret::new([9; 32]).public());
    let mut envelope = swapped[1].open().unwrap().envelope;
    envelope.body = ByteBuf::from(encode(&join));
    swapped[1] = Signed::new(&envelope, &study.net.me(&name("server")).unwrap().signing);
    let (roster, ..) = forge_roster(&study, &swapped, &swapped[..3]);
    let everybody: Vec<Name> = (0..5).map(p).chain([name("hospital")]).collect();
    study.deliver_all(&roster, &everybody);
    study.net.run();
    let wrong = Wrong::Wire(WireError::Signature(p(1)));
    let fault = Fault { from: name("server"), kind: Kind::Roster, wrong };
    let faults = study.faults();
    assert_eq!(faults.len(), 6);
    assert!(faults.iter().all(|(_, found)| *found == fault));
    assert_eq!(study.net.count(Kind::Key), 0);
    // The true one still counts.
    let real = study.roster().signed();
    study.deliver_all(&real, &everybody);
    study.net.run();
    assert_eq!(study.ask(), study.sum(0..5));
}

/// PROTOCOL.md, *Roster*: a committee that is not the draw is refused by members and hospital; patients refuse a
/// seat without the mark, or with a key that another seat has, themselves.
#[test]
fn a_committee_that_is_not_the_draw_holds_nothing() {
    let mut study = Build { marked: 6, ..Build::new(7, 4, 1) }.parties();
    study.announce();
    let cut = study.cut(|d| matches!(d.address.kind, Kind::Roster | Kind::List | Kind::Place));
    study.net.run();
    let drawn = study.committee();
    let joins = joins(&study);
    let other: Vec<usize> = (0..6).filter(|i| *i != (0..6).find(|i| p(*i) == drawn[0]).unwrap()).take(4).collect();
    let chosen: Vec<Signed> = other.iter().map(|i| joins[*i].clone()).collect();
    let (roster, list, attachment, places) = forge_roster(&study, &joins, &chosen);
    study.net.kill(&name("server"));
    cut.mend();
    let everybody: Vec<Name> = (0..7).map(p).chain([name("hospital")]).collect();
    study.deliver_all(&roster, &everybody);
    for (i, place) in places.iter().enumerate() {
        study.deliver(place, &p(i), &[]);
    }
    other.iter().map(|i| p(*i)).chain([name("hospital")]).for_each(|to| study.deliver(&list, &to, &attachment));
    study.put(|_| {});
    study.net.run();
    let wrong = Wrong::Rule("the committee is not the one that the draw gives");
    let fault = Fault { from: name("server"), kind: Kind::List, wrong };
    let mut finders: Vec<Name> =
        study.faults().into_iter().map(|(who, found)| (assert_eq!(found, fault), who).1).collect();
    finders.sort();
    let mut expected: Vec<Name> = other.iter().map(|i| p(*i)).chain([name("hospital")]).collect();
    expected.sort();
    assert_eq!(finders, expected);
    // The hospital asks nothing under such a Roster; a Begin that it signs all the same finds no member that holds.
    assert_eq!(study.net.count(Kind::Begin), 0);
    assert_eq!(study.net.count(Kind::Held), 0);
}

/// As above: a seat for a patient without the mark, two seats under one key, more patients than were expected.
#[test]
fn a_roster_with_a_seat_that_nobody_may_have_is_refused_by_every_patient() {
    let mut study = Build::new(6, 4, 1).parties();
    study.announce();
    let cut = study.cut(|d| d.address.kind == Kind::Roster);
    study.net.run();
    cut.mend();
    let joins = joins(&study);
    let mut unmarked = joins[..4].to_vec();
    unmarked[3] = joins[5].clone();
    let twice = [&joins[..3], &joins[2..3]].concat();
    let few = joins[..3].to_vec();
    let swapped = vec![joins[1].clone(), joins[0].clone(), joins[2].clone(), joins[3].clone()];
    let not_c = "the committee is not c different patients with different seal keys, sorted by name";
    let no_mark = "a seat belongs to a patient without the mark, or one that is no candidate";
    for (committee, rule) in [(unmarked, no_mark), (twice, not_c), (few, not_c), (swapped, not_c)] {
        let before = study.faults().len();
        let (roster, ..) = forge_roster(&study, &joins, &committee);
        study.deliver_all(&roster, &[p(5)]);
        study.net.run();
        let faults = study.faults();
        assert_eq!(faults.len(), before + 1);
        assert_eq!((faults[before].1.from.clone(), rule_of(&faults[before].1)), (name("server"), rule));
    }
    let crowd: Vec<Signed> = joins.iter().chain(&joins[5..]).cloned().collect();
    let (roster, ..) = forge_roster(&study, &crowd, &joins[..4]);
    study.deliver_all(&roster, &[p(5)]);
    study.net.run();
    assert_eq!(rule_of(&study.faults().last().unwrap().1), "more joined than the Announce expects");
    assert_eq!(study.net.count(Kind::Key), 0);
}

/// PROTOCOL.md, *Roster*: a list that omits one, repeats one or lists a stranger is not the Roster's.
#[test]
fn a_list_that_omits_one_is_refused_by_members_and_hospital() {
    let mut study = Build::new(6, 4, 1).parties();
    study.announce();
    let cut = study.cut(|d| d.address.kind == Kind::List);
    study.net.run();
    cut.mend();
    let real = study.newest(Kind::List, &name("server")).signed();
    let joins = joins(&study);
    let omitted = joins[..5].to_vec();
    let repeated = [&joins[..5], &joins[4..5]].concat();
    let unsorted = [&joins[1..2], &joins[..1], &joins[2..]].concat();
    let roster = study.roster().digest;
    for listed in [omitted, repeated, unsorted] {
        let attachment = encode(&listed);
        let list = List { roster, piece: 0, pieces: 1, joins: attachment_digest(&attachment) };
        let list = study.sign(&name("server"), Kind::List, To::All, study.session, &list);
        for to in [p(0), name("hospital")] {
            study.deliver(&list, &to, &attachment);
        }
    }
    study.net.run();
    let faults = study.faults();
    let rule = "the list is not as long as the Roster says, or not sorted by name";
    assert_eq!(faults.len(), 6);
    assert!(faults.iter().all(|(_, fault)| fault.from == name("server") && rule_of(fault) == rule));
    let attachment = encode(&joins);
    (0..4).map(p).chain([name("hospital")]).for_each(|to| study.deliver(&real, &to, &attachment));
    assert_eq!(study.ask(), study.sum(0..6));
}

/// Pieces of a list are stored as they come: a server cannot fill a store with more Joins than its Roster counts.
#[test]
fn a_list_of_more_joins_than_the_roster_counts_is_refused() {
    let mut study = Build::new(6, 4, 1).parties();
    study.announce();
    let cut = study.cut(|d| d.address.kind == Kind::List);
    study.net.run();
    cut.mend();
    let attachment = encode(&joins(&study)[..4].to_vec());
    let roster = study.roster().digest;
    for piece in 0..3 {
        let list = List { roster, piece, pieces: 6, joins: attachment_digest(&attachment) };
        let list = study.sign(&name("server"), Kind::List, To::All, study.session, &list);
        study.deliver(&list, &p(0), &attachment);
    }
    study.settle();
    let rules: Vec<_> = study.faults().iter().map(|(_, fault)| rule_of(fault)).collect();
    assert_eq!(rules, ["a List of more Joins than the Roster counts"; 2]);
    let kept = study.net.store(&p(0)).unwrap().keys().filter(|key| key.contains("/piece/")).count();
    assert_eq!(kept, 1);
}

/// Promise 3: a server that is not the one announced makes no Roster; its name is the one that stands in the fault.
#[test]
fn a_server_that_was_not_announced_makes_no_roster() {
    let mut study = Build::new(4, 3, 1).parties();
    study.net.add_server(&name("other"));
    study.announce();
    let cut = study.cut(|d| d.address.kind == Kind::Roster);
    study.net.run();
    cut.mend();
    let joins = joins(&study);
    let (roster, ..) = forge_roster(&study, &joins, &joins[..3]);
    let mut body: Roster = roster.open().unwrap().envelope.body().unwrap();
    body.servers = vec![study.net.me(&name("other")).unwrap().chain.clone()];
    let roster = study.sign(&name("other"), Kind::Roster, To::All, study.session, &body);
    // Under the announced server's chain its signature does not hold either.
    let as_server = forge_roster(&study, &joins, &joins[..3]).0.open().unwrap().envelope;
    let forged = Signed::new(&as_server, &study.net.me(&name("other")).unwrap().signing);
    for to in [p(0), name("hospital")] {
        study.deliver(&roster, &to, &[]);
        study.deliver(&forged, &to, &[]);
    }
    study.net.run();
    let found: Vec<(Name, Wrong)> = study.faults().into_iter().map(|(_, fault)| (fault.from, fault.wrong)).collect();
    let stranger = (name("other"), Wrong::Rule("the Roster's servers are not those of the Announce"));
    let forger = (name("server"), Wrong::Wire(WireError::Signature(name("server"))));
    assert_eq!(found, [stranger.clone(), forger.clone(), stranger, forger]);
    assert_eq!(study.net.count(Kind::Key), 0);
}

/// PROTOCOL.md, *Roster*: a patient whose Place does not fit the root answers no Begin and binds no snapshot.
#[test]
fn a_place_that_does_not_fit_the_root_is_none() {
    let mut study = Build::new(6, 4, 1).parties();
    study.announce();
    let cut = study.cut(|d| among(d, Kind::Place, &[5]));
    study.net.run();
    cut.mend();
    let (server, roster) = (name("server"), study.roster().digest);
    let leaves: Vec<Digest> = joins(&study).iter().map(Signed::digest).collect();
    let path = merkle::path(&leaves, 5).unwrap();
    let of_another = PlaceProof { place: Place(4), path: merkle::path(&leaves, 4).unwrap() };
    let shifted = PlaceProof { place: Place(4), path: path.clone() };
    let mut altered = PlaceProof { place: Place(5), path };
    altered.path[0].0[0] ^= 1;
    for proof in [of_another, shifted, altered] {
        let place = study.sign(&server, Kind::Place, To::One(p(5)), roster, &proof);
        study.deliver(&place, &p(5), &[]);
    }
    assert_eq!(study.ask(), study.sum(0..5));
    let wrong = Wrong::Rule("the place does not fit the Roster's root");
    let fault = Fault { from: server, kind: Kind::Place, wrong };
    assert_eq!(study.faults(), [(p(5), fault.clone()), (p(5), fault.clone()), (p(5), fault)]);
    assert!(!study.net.store(&p(5)).unwrap().contains_key("snapshot/1"));
}

/// Promise 3: a masked sum of another length would make honest members' sums look wrong: the server is named instead,
/// and without checks there is no answer.
#[test]
fn a_masked_sum_of_another_length_names_the_server() {
    for audit in [Audit::Sample, Audit::None] {
        let mut study = Build::new(5, 3, 1).wide(4).start();
        let cut = study.cut(|d| d.address.kind == Kind::MaskedSum);
        study.put(|ask| ask.audit = audit);
        study.settle();
        cut.mend();
        let short = vec![0; 3 * 3];
        let sum = MaskedSum { chunks: vec![chunk_digest(&short)] };
        let cohort = study.cohort().digest;
        let signed = study.sign(&name("server"), Kind::MaskedSum, To::One(name("hospital")), cohort, &sum);
        study.deliver(&signed, &name("hospital"), &short);
        study.net.run();
        let missing = End::Aborted(AbortReason::SumsMissing { missing: vec![name("server")] });
        assert_eq!(study.end(), if audit == Audit::None { missing } else { study.sum(0..5) });
        assert_eq!(study.accused(), [name("server")]);
    }
}

/// PROTOCOL.md: one MaskedSum per round; a second, other one is the server's lie and does not count.
#[test]
fn a_second_masked_sum_names_the_server_and_changes_nothing() {
    let mut study = Build::new(5, 3, 1).start();
    let cut = study.cut(|d| d.address.kind == Kind::MaskSum);
    study.put(|_| {});
    study.settle();
    cut.mend();
    let other = vec![1; 4];
    let sum = MaskedSum { chunks: vec![chunk_digest(&other)] };
    let cohort = study.cohort().digest;
    let signed = study.sign(&name("server"), Kind::MaskedSum, To::One(name("hospital")), cohort, &sum);
    study.deliver(&signed, &name("hospital"), &other);
    for (_, frame) in study.frames(Kind::MaskSum) {
        study.deliver(&frame.signed(), &name("hospital"), &frame.attachment);
    }
    study.net.run();
    assert_eq!(study.end(), study.sum(0..5));
    let fault = Fault { from: name("server"), kind: Kind::MaskedSum, wrong: Wrong::Equivocation };
    assert_eq!(study.faults(), [(name("hospital"), fault)]);
}

/// Promise 3: of several servers the one is named whose part has another length, and no other.
#[test]
fn a_part_of_another_length_names_its_own_server() {
    let (hospital, liar) = (name("hospital"), server(1));
    let mut study = Build { servers: 2, ..Build::new(5, 3, 1) }.wide(300_000).start();
    let by = liar.clone();
    let cut = study.cut(move |d| d.address.from == by && d.receiver == name("hospital"));
    study.put(|_| {});
    study.net.sleep(1_000);
    cut.mend();
    let (_, told) = study.frames(Kind::MaskedSum).into_iter().find(|(address, _)| address.from == liar).unwrap();
    let mut sum: MaskedSum = told.envelope.body().unwrap();
    let mut chunks = study.net.board().clone();
    chunks.retain(|address, _| address.kind == Kind::Chunk && address.from == liar);
    // Its first chunk is shorter, the others are as they should be.
    let first = chunks.values_mut().find(|payload| chunk_digest(payload) == sum.chunks[0]).unwrap();
    *first = vec![0; 3 * 3].into();
    sum.chunks[0] = chunk_digest(first);
    let signed = study.sign(&liar, Kind::MaskedSum, To::One(hospital.clone()), told.envelope.after, &sum);
    study.deliver(&signed, &hospital, &told.attachment);
    for (address, payload) in chunks {
        study.net.inject(memory::Delivery { receiver: hospital.clone(), address, payload, delay: 0 });
    }
    study.net.run();
    assert_eq!(study.end(), study.sum(0..5));
    assert_eq!(study.accused(), [liar]);
}

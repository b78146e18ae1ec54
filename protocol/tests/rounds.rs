//! Rounds in which everybody does what the protocol says: the sum is right for every committee, ring and length.

#![allow(missing_docs, clippy::unwrap_used, clippy::expect_used, clippy::panic)]

mod support;

use std::cell::Cell;
use std::collections::{BTreeMap, BTreeSet};
use std::rc::Rc;

use proptest::prelude::*;
use protocol::memory::Network;
use protocol::message::Begin;
use protocol::*;
use support::*;

/// PROTOCOL.md, *Sharing*: every committee and threshold, t = c - 1 included, opens the right sum, and all its blocks count.
#[test]
fn every_committee_and_threshold_opens_the_right_sum() {
    for c in 2..=10_u8 {
        for t in 1..c {
            let n = usize::from(c) + 1;
            let mut study = Build { seed: u64::from(c * 16 + t), ..Build::new(n, c, t) }.start();
            let expected = study.sum(study.all());
            assert_eq!(study.ask(), expected, "c={c} t={t}");
            let answer = study.net.answers().next().unwrap();
            let quorum = u32::from(Sharing::new(c, t).unwrap().quorum());
            assert_eq!((answer.cohort, answer.invited), (n as u32, n as u32));
            // More than q where a default holder's Confirm was waited for.
            assert!((quorum..=c.into()).contains(&answer.confirmations), "c={c} t={t}");
            assert_eq!(study.faults(), [], "c={c} t={t}");
        }
    }
}

/// PROTOCOL.md, *Sharing*: every ring of 16 to 64 bits, with values of both signs at the very bound that the ring can hold.
#[test]
fn every_ring_width_holds_the_largest_sum_that_may_come() {
    for ring in Ring::all() {
        let n = 4;
        let bound = ((1_u64 << (ring.bits() - 1)) - 1) / n as u64;
        for sign in [1, -1] {
            let mut study = Build { bound, ..Build::new(n, 3, 1) }.start();
            let extreme = sign * bound as i64;
            for i in 0..n {
                let record = Record::new(BTreeMap::from([("value".into(), vec![extreme])]), &study.build.schema());
                study.net.offer(&p(i), &snapshot("2"), record.unwrap()).unwrap();
            }
            assert_eq!(study.ask_with(|ask| ask.snapshot = snapshot("2")), End::Opened(vec![4 * extreme]));
            let begin: Begin = study.begin().envelope.body().unwrap();
            assert_eq!(begin.ring, ring, "the narrowest ring that holds it");
            assert_eq!(study.faults(), []);
        }
    }
}

/// PROTOCOL.md, *Sharing*: a vector of any length, in chunks: one coordinate, a row of a table, one full chunk, one more,
/// several shorter ones, and several full ones with a short last one; over a ring whose words are no lane (24 bits) and the widest.
#[test]
fn every_length_in_chunks() {
    for (bits, length) in [(24, None), (64, None), (24, Some(1)), (24, Some(30))] {
        let ring = Ring::new(bits).unwrap();
        let full = Chunks::new(ring, 1).unwrap().full() as u32;
        let lengths = length.map_or(vec![full, full + 1, 2 * full + 5, 8 * full + 1], |length| vec![length]);
        for d in lengths {
            let mut study = Build { bound: 16, ..Build::new(4, 3, 1).wide(d) }.start();
            let expected = study.sum(study.all());
            assert!(study.ask_with(|ask| ask.ring = Some(ring)) == expected, "d={d} w={bits}");
            let chunks = Chunks::new(ring, d.into()).unwrap().count();
            // Each patient's vector travels as chunks once there are several.
            let to_server = |a: &Address| a.kind == Kind::Chunk && a.to == To::One(name("server"));
            assert_eq!(study.net.board().keys().any(to_server), chunks > 1, "d={d}");
            assert_eq!(study.faults(), []);
        }
    }
}

/// A session has many rounds, each with its own question, over its own snapshot or the same again.
#[test]
fn a_session_has_many_rounds_each_with_its_own_question() {
    let columns = vec![Column::scalar("pulse"), Column { name: "lab".into(), width: 3 }];
    let mut study = Build { columns: columns.clone(), ..Build::new(6, 5, 1) }.start();
    let all = study.sum(study.all());
    for round in 1..=8_u32 {
        let label = snapshot(&round.div_ceil(2).to_string());
        for i in study.all() {
            study.net.offer(&p(i), &label, study.build.record(i)).unwrap();
        }
        let both = round % 2 == 1;
        let end = study.ask_with(|ask| {
            ask.snapshot = label;
            ask.question = Question::Sum(if both { columns.clone() } else { vec![columns[0].clone()] });
        });
        let End::Opened(expected) = &all else { panic!() };
        assert_eq!(end, End::Opened(if both { expected.clone() } else { expected[..1].to_vec() }));
        let begin: Begin = study.begin().envelope.body().unwrap();
        // Over a snapshot that was asked before, the same people: the round before this one.
        assert_eq!(begin.same_as, (!both).then_some(RoundNo(round - 1)));
    }
    assert_eq!(study.faults(), []);
}

/// PROTOCOL.md (`same_as`): the same snapshot asked again gives the same sum over the same people, also when
/// somebody who was left out the first time is back.
#[test]
fn the_same_snapshot_asked_again_is_the_same_sum_over_the_same_people() {
    let mut study = Build::new(6, 4, 1).start();
    study.net.kill(&p(5));
    let expected = study.sum(0..5);
    assert_eq!(study.ask(), expected);
    study.net.revive(&p(5));
    assert_eq!(study.ask(), expected);
    assert_eq!(study.cohort_places(), [0, 1, 2, 3, 4]);
    // One of that cohort is away: no smaller cohort in its place, and once it is back, the same sum.
    study.net.kill(&p(4));
    assert_eq!(study.ask(), End::Aborted(AbortReason::TooFewShared { shared: 4, needed: 5 }));
    study.net.revive(&p(4));
    assert_eq!(study.ask(), expected);
    assert_eq!(study.faults(), []);
}

/// PROTOCOL.md, *The board*: what goes to several is one m. With a digest for each receiver, `q` Confirms would never name the
/// same Cohort, and a Share would stand under another digest with each member.
#[test]
fn what_goes_to_several_is_one_message() {
    let mut study = Build { servers: 2, ..Build::new(7, 4, 1) }.start();
    assert_eq!(study.ask(), study.sum(0..7));
    // To members, the other server and the hospital; to members and servers.
    for (kind, senders, receivers) in [(Kind::Cohort, 1, 4 + 1 + 1), (Kind::Share, 7, 4 + 2)] {
        let mut written: BTreeMap<Name, Vec<(To, Digest)>> = BTreeMap::new();
        for (address, frame) in study.frames(kind) {
            assert_eq!(frame.envelope.to, To::All, "{kind}");
            written.entry(address.from).or_default().push((address.to, frame.digest));
        }
        assert_eq!(written.len(), senders, "{kind}");
        for (sender, written) in written {
            let apart: BTreeSet<_> = written.iter().map(|(to, _)| to.to_string()).collect();
            assert_eq!((written.len(), apart.len()), (receivers, receivers), "{kind} of {sender}");
            assert!(written.iter().all(|(_, digest)| *digest == written[0].1), "{kind} of {sender}");
        }
    }
}

/// The story that must work. 600, again 600; dave enrols and `--new` is refused with words that say whose
/// snapshot belongs where and what would pass; a month later snapshot 2 of all four opens.
#[test]
fn the_story_of_alice_bob_charlie_and_dave() {
    let mut net = Network::new(7);
    net.add_hospital(&name("hospital"));
    net.add_server(&name("server"));
    let schema =
        Schema { columns: vec![Column::scalar("value")], scaled_bound: 1_000_000_000_000_000, scale: Scale::default() };
    let offer = |net: &mut Network, who: &str, label: &str, units: i64| {
        let record = Record::new(BTreeMap::from([("value".into(), vec![units * 1_000_000])]), &schema).unwrap();
        net.offer(&name(who), &snapshot(label), record).unwrap();
    };
    let enrol = |net: &mut Network, who: &str| net.add_patient(&name(who), Role::Member, policy(), schema.clone());
    for (who, units) in [("alice", 100), ("bob", 200), ("charlie", 300)] {
        enrol(&mut net, who);
        offer(&mut net, who, "1", units);
    }
    let plan = |net: &Network, expect| {
        let not_after = net.now().plus_seconds(90 * 86_400);
        Plan::new(Settings {
            study: "ward".into(),
            expect,
            committee: None,
            threshold: None,
            min_cohort: None,
            candidates: vec![],
            servers: vec![name("server")],
            payloads: false,
            join_seconds: 30,
            not_after,
        })
        .unwrap()
    };
    let ask = |label: &str| Ask {
        question: Question::Sum(vec![Column::scalar("value")]),
        snapshot: snapshot(label),
        ring: None,
        scale: Scale::default(),
        scaled_bound: 1_000_000_000_000_000,
        enough: None,
        round_seconds: 60,
        audit: Audit::Sample,
        last: false,
    };
    let first = net.announce(&plan(&net, 3)).unwrap();
    for _ in 0..2 {
        net.ask(first, ask("1")).unwrap();
        net.run();
    }
    let sums = |net: &Network| net.answers().map(|answer| answer.sum[0] / 1_000_000).collect::<Vec<_>>();
    assert_eq!(sums(&net), [600, 600]);

    enrol(&mut net, "dave");
    offer(&mut net, "dave", "1", 5);
    let second = net.announce(&plan(&net, 4)).unwrap();
    net.ask(second, ask("1")).unwrap();
    net.run();
    let advice = net.events().iter().rev().find_map(|(who, event)| match event {
        Event::Aborted { reason, advice, .. } if *who == name("hospital") => Some((reason.clone(), advice.clone())),
        _ => None,
    });
    let short = first.short();
    assert_eq!(
        advice.unwrap(),
        (
            AbortReason::TooFewShared { shared: 1, needed: 3 },
            format!(
                "snapshot `1` of alice, bob and charlie belongs to session {short}: a snapshot goes into one session \
                 only. Ask there again (--session {short}), or ask for the next snapshot once they offer one \
                 (--snapshot)"
            )
        )
    );
    assert_eq!(sums(&net), [600, 600], "605 - 600 would be dave's value");

    for (who, units) in [("alice", 110), ("bob", 190), ("charlie", 320), ("dave", 7)] {
        offer(&mut net, who, "2", units);
    }
    net.ask(second, ask("2")).unwrap();
    net.run();
    assert_eq!(sums(&net), [600, 600, 627]);
    assert!(!net.events().iter().any(|(_, event)| matches!(event, Event::Fault(_))));
}

/// PROTOCOL.md, *Sharing*: decimals of six places add up exactly; as floats these would not.
#[test]
fn decimals_add_up_exactly() {
    let scale = Scale::default();
    let texts = ["0.1", "0.2", "999999999.999999", "-999999999.999998", "0.000001"];
    assert_ne!(0.1 + 0.2, 0.3);
    let mut study = Build { bound: 1_000_000_000_000_000, scale, ..Build::new(5, 3, 1) }.start();
    for (i, text) in texts.iter().enumerate() {
        let values = vec![decimal::parse(text, scale).unwrap()];
        let record = Record::new(BTreeMap::from([("value".into(), values)]), &study.build.schema()).unwrap();
        study.net.offer(&p(i), &snapshot("2"), record).unwrap();
    }
    let End::Opened(sum) = study.ask_with(|ask| ask.snapshot = snapshot("2")) else { panic!() };
    assert_eq!(decimal::format(sum[0].into(), scale), "0.300002");
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(16))]

    /// PROTOCOL.md, *Sharing*: whatever the values are, negative and at the bound too, their sum is what plain addition gives.
    #[test]
    fn any_values_give_the_sum_of_plain_addition(
        rows in proptest::collection::vec(
            proptest::collection::vec(
                prop_oneof![Just(-1_000_000_000_000_000_i64), Just(1_000_000_000_000_000), Just(0),
                    -1_000_000_000_000_000_i64..=1_000_000_000_000_000],
                3,
            ),
            4,
        ),
        seed in any::<u64>(),
    ) {
        let columns = vec![Column { name: "value".into(), width: 3 }];
        let bound = 1_000_000_000_000_000;
        let mut study = Build { seed, columns, bound, ..Build::new(4, 3, 1) }.start();
        for (i, row) in rows.iter().enumerate() {
            let record = Record::new(BTreeMap::from([("value".into(), row.clone())]), &study.build.schema()).unwrap();
            study.net.offer(&p(i), &snapshot("2"), record).unwrap();
        }
        let expected = (0..3).map(|j| rows.iter().map(|row| row[j]).sum()).collect();
        prop_assert_eq!(study.ask_with(|ask| ask.snapshot = snapshot("2")), End::Opened(expected));
    }
}

/// Any number of servers gives the same answer, over vectors of one chunk and of many, and whoever drops.
#[test]
fn the_sum_is_the_same_for_any_number_of_servers() {
    for (d, servers) in [(1, 1), (1, 3), (300_000, 1), (300_000, 2), (300_000, 3), (300_000, 9)] {
        let mut study = Build { servers, min_cohort: 4, ..Build::new(8, 5, 1) }.wide(d).start();
        assert_eq!(study.ask(), study.sum(0..8), "{servers} servers, {d} coordinates");
        study.net.kill(&p(7));
        study.ask_with(|ask| ask.enough = Some(7));
        assert!(matches!(study.end(), End::Aborted(AbortReason::TooFewShared { .. })), "the same people or nobody");
        study.net.offer(&p(0), &snapshot("2"), study.build.record(0)).unwrap();
        for i in 1..7 {
            study.net.offer(&p(i), &snapshot("2"), study.build.record(i)).unwrap();
        }
        assert_eq!(study.ask_with(|ask| ask.snapshot = snapshot("2")), study.sum(0..7));
    }
}

/// A vector of which one server lacks a chunk is in nobody's sum, also where the others have added theirs already.
#[test]
fn a_vector_that_one_server_lacks_is_taken_out_at_all() {
    let mut study = Build { servers: 3, min_cohort: 4, ..Build::new(8, 5, 1) }.wide(300_000).start();
    study.net.tamper(|delivery| {
        let lost =
            delivery.address.kind == Kind::Chunk && delivery.address.from == p(7) && delivery.receiver == server(1);
        if lost { vec![] } else { vec![delivery] }
    });
    assert_eq!(study.ask(), study.sum(0..7));
    assert_eq!(study.faults(), []);
}

/// Every server may die between storing and sending what it says in set-up; another one than the first, too.
#[test]
fn another_server_that_dies_in_set_up_comes_back() {
    let mut study = Build { servers: 2, ..Build::new(5, 5, 1) }.wide(300_000).parties();
    study.net.kill_before_sending(&server(1), Kind::Join);
    study.announce();
    study.settle();
    assert_eq!(study.net.count(Kind::Roster), 0, "the Roster waits for all servers");
    study.net.revive(&server(1));
    study.settle();
    study.net.kill(&server(1));
    study.net.revive(&server(1));
    assert_eq!(study.ask(), study.sum(0..5));
}

/// Those who are asked for mask sums by default make them while others still upload: after the Open nothing is left to
/// expand, whoever dropped meanwhile.
#[test]
fn default_holders_have_expanded_before_they_are_asked() {
    for dropped in [false, true] {
        let mut study = Build { min_cohort: 4, ..Build::new(8, 5, 1) }.wide(300_000).start();
        let (ahead, asked) = (Rc::new(Cell::new(0)), Rc::new(Cell::new(None)));
        let (before, after) = (ahead.clone(), asked.clone());
        study.net.watch(move |_, step| {
            let memory::Step::Effects(effects) = step else { return };
            let expand = effects.jobs.iter().filter(|(_, job)| matches!(job, Job::Expand { .. })).count();
            match after.get() {
                Some(later) => after.set(Some(later + expand)),
                None => before.set(before.get() + expand),
            }
            if effects.send.iter().any(|sent| sent.address.kind == Kind::Open) {
                after.set(after.get().or(Some(0)));
            }
        });
        study.net.tamper(move |delivery| {
            let lost = dropped && delivery.address.kind == Kind::Chunk && delivery.address.from == p(7);
            if lost { vec![] } else { vec![delivery] }
        });
        // Checks are expanded when they are asked for: nobody knows before which chunks they are of.
        let end = study.ask_with(|ask| ask.audit = Audit::None);
        assert_eq!(end, study.sum(if dropped { 0..7 } else { 0..8 }));
        assert!(ahead.get() > 0);
        assert_eq!(asked.get(), Some(0));
    }
}

/// While another server is not here yet, no more patients are taken than are expected: a Roster of more would be none.
#[test]
fn more_patients_than_expected_join_while_another_server_is_awaited() {
    let mut study = Build { servers: 2, expect: Some(5), ..Build::new(6, 5, 1) }.wide(300_000).parties();
    study.net.kill_before_sending(&server(1), Kind::Join);
    study.announce();
    study.settle();
    study.net.revive(&server(1));
    study.settle();
    assert_eq!(study.net.count(Kind::Refuse), 0);
    assert_eq!(study.ask(), study.sum(0..5));
}

/// A session does not wait for ever for a server that never joins: when joins close it ends, and says which it was.
#[test]
fn a_server_that_never_joins_is_named_when_joins_close() {
    let mut study = Build { servers: 3, ..Build::new(5, 3, 1) }.parties();
    study.net.kill(&server(2));
    study.announce();
    study.put(|_| {});
    study.net.sleep(29_000);
    assert_eq!(study.ends(), []);
    study.net.sleep(2_000);
    let missing = vec![server(2)];
    assert_eq!(study.ends(), [End::Aborted(AbortReason::ServersMissing { missing })]);
    study.net.revive(&server(2));
    study.settle();
    assert_eq!(study.faults(), []);
    for who in (0..5).map(p).chain([server(0), server(1), server(2), name("hospital")]) {
        assert!(!study.net.store(&who).unwrap().keys().any(|key| key.starts_with("session/")), "{who}");
    }
}

/// A server that has no part of so short a vector says so in its MaskedSum, which may be the last thing that is missing;
/// also where nothing is checked.
#[test]
fn a_server_without_a_part_may_be_the_last_to_say_so() {
    for audit in [Audit::None, Audit::Sample] {
        let mut study = Build { servers: 3, ..Build::new(6, 4, 1) }.start();
        study.net.tamper(|delivery| {
            let late = delivery.address.kind == Kind::MaskedSum && delivery.address.from == server(2);
            vec![memory::Delivery { delay: if late { 500 } else { 0 }, ..delivery }]
        });
        assert_eq!(study.ask_with(|ask| ask.audit = audit), study.sum(0..6), "{audit:?}");
    }
}

/// A question that no message holds, or that names a column twice or none, is refused when it is asked, not when the list
/// of who joined is here and nobody looks.
#[test]
fn columns_that_cannot_be_asked_for_are_refused_at_once() {
    let mut study = Build::new(5, 3, 1).parties();
    study.announce();
    let named = |count: usize| (0..count).map(|i| Column::scalar(&format!("{i:0MAX_TEXT$}"))).collect::<Vec<_>>();
    let (long, together) = (vec![Column::scalar(&"x".repeat(MAX_TEXT + 1))], named(MAX_COLUMN_NAMES / MAX_TEXT + 1));
    let twice = vec![Column::scalar("value"), Column::scalar("value")];
    let nothing = vec![Column { name: "value".into(), width: 0 }];
    for columns in [long, together, twice, nothing, vec![Column::scalar("")], vec![]] {
        let ask = Ask { question: Question::Sum(columns), ..study.question() };
        assert_eq!(study.net.ask(study.session, ask), Err(PlanError::Columns));
    }
    let ask = Ask { scaled_bound: 0, ..study.question() };
    assert_eq!(study.net.ask(study.session, ask), Err(PlanError::NoBound));
    let most = Ask { question: Question::Sum(named(MAX_COLUMN_NAMES / MAX_TEXT)), ..study.question() };
    study.net.ask(study.session, most).unwrap();
    study.net.run();
    assert_eq!(study.net.count(Kind::Begin), 1);
}

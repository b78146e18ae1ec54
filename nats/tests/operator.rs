//! What the operator does to the board, and what a monitor sees of it.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

mod support;

use std::time::Duration;

use futures::StreamExt;
use nats::{BoardError, Published, Watcher};
use protocol::{Kind, Role, RoundNo, SessionTag};
use support::{Home, PATIENCE, SPACE, address, name, next};
use tokio::time::Instant;

#[tokio::test(flavor = "multi_thread")]
async fn a_round_loses_its_bulk_and_a_session_all_but_how_it_ended() {
    let home = Home::new();
    let broker = home.start(None).await;
    let operator = home.operator(&broker).await;
    let alice = home.board(&broker, "alice").await;
    let server = home.board(&broker, "server").await;
    let session = SessionTag([5; 16]);
    let bulk = [Kind::Share, Kind::Chunk, Kind::MaskedSum, Kind::MaskSum, Kind::CheckSum];
    let kept = [address(1, "alice", "server", Kind::Cohort, 1), address(2, "alice", "server", Kind::Share, 1)];
    let ends = [address(1, "alice", "server", Kind::Result, 1), address(2, "alice", "server", Kind::Abort, 1)];

    let written: Vec<_> = bulk.iter().map(|&kind| address(1, "alice", "server", kind, 1)).collect();
    for at in written.iter().chain(&kept).chain(&ends) {
        alice.publish(at, "x".into()).await.unwrap();
    }
    assert_eq!(operator.purge_round_bulk(session, RoundNo(1)).await.unwrap(), 5);
    for at in &written {
        assert_eq!(server.read(at).await.unwrap(), None);
    }
    for at in &kept {
        assert_eq!(server.read(at).await.unwrap().unwrap(), "x");
    }
    // A name is free again once its message is gone: a party that was restored may publish again.
    assert_eq!(alice.publish(&written[0], "y".into()).await.unwrap(), Published::New);
    assert_eq!(operator.purge_session(SessionTag([6; 16])).await.unwrap(), 0);
    assert_eq!(operator.purge_session(session).await.unwrap(), 3);
    assert_eq!(server.read(&kept[0]).await.unwrap(), None);
    for at in &ends {
        assert_eq!(server.read(at).await.unwrap().unwrap(), "x");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn making_the_board_twice_changes_nothing() {
    let home = Home::new();
    let broker = home.start(None).await;
    let operator = home.operator(&broker).await;
    let alice = home.board(&broker, "alice").await;
    let mut inbox = home.board(&broker, "bob").await.follow().await.unwrap();
    alice.publish(&address(1, "alice", "bob", Kind::Key, 1), "1".into()).await.unwrap();
    assert_eq!(next(&mut inbox).await.payload, "1");
    operator.make_streams(SPACE).await.unwrap();
    operator.make_consumers(Role::Patient, &name("bob")).await.unwrap();
    alice.publish(&address(1, "alice", "bob", Kind::Key, 2), "2".into()).await.unwrap();
    assert_eq!(next(&mut inbox).await.payload, "2");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_full_board_says_so_and_takes_more_once_something_is_purged() {
    let home = Home::new();
    let broker = home.start(None).await;
    let operator = home.operator(&broker).await;
    let alice = home.board(&broker, "alice").await;
    operator.make_streams(2 << 20).await.unwrap();
    let chunk = |number| address(1, "alice", "server", Kind::Chunk, number);
    let body = bytes::Bytes::from(vec![7; 400 << 10]);
    for number in 1..=2 {
        alice.publish(&chunk(number), body.clone()).await.unwrap();
    }
    let soon = Instant::now() + Duration::from_millis(300);
    let full = alice.publish_until(&chunk(3), body.clone(), soon).await;
    assert!(matches!(&full, Err(BoardError::TimedOut { last }) if last.contains("--space")), "{full:?}");
    // What is there is safe, and known as such.
    assert_eq!(alice.publish(&chunk(1), body.clone()).await.unwrap(), Published::Already);
    assert_eq!(operator.purge_round_bulk(SessionTag([5; 16]), RoundNo(1)).await.unwrap(), 2);
    assert_eq!(alice.publish(&chunk(3), body.clone()).await.unwrap(), Published::New);
    // More space, on a later start.
    operator.make_streams(SPACE).await.unwrap();
    for number in 4..=8 {
        assert_eq!(alice.publish(&chunk(number), body.clone()).await.unwrap(), Published::New);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn the_operator_sees_how_sessions_and_rounds_begin_and_end() {
    let home = Home::new();
    let broker = home.start(None).await;
    let operator = home.operator(&broker).await;
    let hospital = home.board(&broker, "hospital").await;
    let expected = [Kind::Announce, Kind::Result, Kind::Abort];
    for (number, kind) in [Kind::Announce, Kind::Begin, Kind::Result, Kind::Abort].into_iter().enumerate() {
        let number = u8::try_from(number).unwrap();
        hospital.publish(&address(1, "hospital", "all", kind, number), kind.as_str().into()).await.unwrap();
    }
    // Begun twice, as after a restart: from the first message again.
    for _ in 0..2 {
        let mut outcomes = operator.follow_outcomes().await.unwrap();
        for kind in expected {
            let delivery = next(&mut outcomes).await;
            assert_eq!((delivery.address.kind, delivery.payload.as_ref()), (kind, kind.as_str().as_bytes()));
            delivery.ack().await;
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_monitor_sees_sizes_and_never_a_payload() {
    let home = Home::new();
    let broker = home.start(None).await;
    home.operator(&broker).await;
    let alice = home.board(&broker, "alice").await;
    let hospital = home.board(&broker, "hospital").await;
    let mut watcher = Watcher::new(&home.link(&broker, "monitor").await).await.unwrap();
    let (raw, _) = home.raw(&broker, "monitor").await;
    let mut bare = raw.subscribe(nats::subject::WATCH).await.unwrap();

    alice.publish(&address(3, "alice", "server", Kind::Share, 1), vec![7; 12_345].into()).await.unwrap();
    alice.link().ask("ward.no.session.alice.bob.junk.x", "junk".into()).await.unwrap();
    hospital.publish(&address(3, "hospital", "all", Kind::Result, 2), "".into()).await.unwrap();

    let seen = tokio::time::timeout(PATIENCE, watcher.next()).await.unwrap().unwrap();
    assert_eq!((seen.from, seen.to, seen.kind), (name("alice"), "server".parse().unwrap(), Kind::Share));
    assert_eq!((seen.session, seen.round, seen.size), (SessionTag([5; 16]), RoundNo(3), 12_345));
    assert!(seen.time.elapsed().unwrap() < PATIENCE);
    let seen = tokio::time::timeout(PATIENCE, watcher.next()).await.unwrap().unwrap();
    assert_eq!((seen.kind, seen.size), (Kind::Result, 0));

    // The second watcher may have come after the first message; what it gets has headers and no payload.
    let message = tokio::time::timeout(PATIENCE, bare.next()).await.unwrap().unwrap();
    assert!(message.payload.is_empty());
    let headers = message.headers.unwrap();
    assert!(headers.get("Nats-Msg-Size").is_some());
}

#[tokio::test(flavor = "multi_thread")]
async fn people_read_kind_and_round_in_the_headers() {
    let home = Home::new();
    let broker = home.start(None).await;
    home.operator(&broker).await;
    let (monitor, _) = home.raw(&broker, "monitor").await;
    let mut messages = monitor.subscribe(nats::subject::EVERYTHING).await.unwrap();
    let alice = home.board(&broker, "alice").await;
    // Until the subscription is in force, which nothing tells.
    let mut number = 0;
    let message = loop {
        alice.publish(&address(3, "alice", "server", Kind::Share, number), "sealed".into()).await.unwrap();
        number += 1;
        if let Ok(message) = tokio::time::timeout(std::time::Duration::from_millis(200), messages.next()).await {
            break message.unwrap();
        }
    };
    let headers = message.headers.unwrap();
    assert_eq!(headers.get("Ward-Kind").unwrap().as_str(), "share");
    assert_eq!(headers.get("Ward-Round").unwrap().as_str(), "3");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_board_has_room_for_a_thousand_parties() {
    let home = Home::new();
    let broker = home.start(None).await;
    let operator = home.operator(&broker).await;
    let parties: Vec<_> = (0..1000).map(|number| (Role::Patient, name(&format!("p{number}")))).collect();
    operator.remake_consumers(&parties).await.unwrap();
}

//! The board over a real broker: written once, read by name, followed through losses and restarts.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

mod support;

use std::sync::atomic::{AtomicU8, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use async_nats::HeaderMap;
use futures::StreamExt as _;
use nats::{Board, BoardError, CallError, Link, Operator, Published, subject};
use protocol::Kind;
use support::{Home, PATIENCE, address, next};
use tokio::net::TcpListener;
use tokio::time::Instant;

#[tokio::test(flavor = "multi_thread")]
async fn a_message_is_written_once_and_read_by_its_name() {
    let home = Home::new();
    let broker = home.start(None).await;
    home.operator(&broker).await;
    let alice = home.board(&broker, "alice").await;
    let server = home.board(&broker, "server").await;
    let at = address(1, "alice", "server", Kind::Share, 1);

    assert_eq!(server.read(&at).await.unwrap(), None);
    assert_eq!(alice.publish(&at, "first".into()).await.unwrap(), Published::New);
    assert_eq!(alice.publish(&at, "second".into()).await.unwrap(), Published::Already);
    assert_eq!(server.read(&at).await.unwrap().unwrap(), "first");
    assert!(alice.read(&at).await.unwrap_err().is_refused());

    let too_large = alice.publish(&address(1, "alice", "server", Kind::Chunk, 2), vec![0; 1 << 20].into()).await;
    assert!(matches!(too_large, Err(BoardError::Call(CallError::TooLarge { .. }))), "{too_large:?}");
    broker.stop().await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn what_was_not_acknowledged_comes_again_at_once_and_in_order() {
    let home = Home::new();
    let broker = home.start(None).await;
    home.operator(&broker).await;
    let alice = home.board(&broker, "alice").await;
    for number in 1..=5 {
        alice.publish(&address(1, "alice", "bob", Kind::Share, number), vec![number].into()).await.unwrap();
    }

    let bob = home.board(&broker, "bob").await;
    let mut inbox = bob.follow().await.unwrap();
    for number in 1..=5 {
        let delivery = next(&mut inbox).await;
        assert_eq!(delivery.payload, vec![number]);
        // Acknowledges 1 and 2 as well.
        if number == 3 {
            delivery.ack().await;
        }
    }
    // The answer to any request comes after the acknowledgement was read.
    bob.link().ask(&nats::Stream::Messages.consumer_info("bob"), "".into()).await.unwrap();
    drop((inbox, bob));

    let start = Instant::now();
    let mut inbox = home.board(&broker, "bob").await.follow().await.unwrap();
    for number in 4..=5 {
        let delivery = next(&mut inbox).await;
        assert_eq!(
            (delivery.payload.as_ref(), &delivery.address),
            ([number].as_slice(), &address(1, "alice", "bob", Kind::Share, number))
        );
        delivery.ack().await;
    }
    // By CONSUMER.RESET, not by the ack wait of minutes.
    assert!(start.elapsed() < Duration::from_secs(30));
    let hospital = home.board(&broker, "hospital").await;
    hospital.publish(&address(1, "hospital", "all", Kind::Result, 6), "6".into()).await.unwrap();
    assert_eq!(next(&mut inbox).await.payload, "6");
}

#[tokio::test(flavor = "multi_thread")]
async fn parties_wait_for_a_board_that_is_not_there_yet() {
    let home = Home::new();
    let broker = home.start(None).await;
    let alice = home.board(&broker, "alice").await;
    let bob = home.board(&broker, "bob").await;
    let at = address(1, "alice", "bob", Kind::Key, 1);

    let soon = Instant::now() + Duration::from_millis(300);
    let early = alice.publish_until(&at, "x".into(), soon).await;
    assert!(matches!(&early, Err(BoardError::TimedOut { last }) if last.contains("ward broker")), "{early:?}");

    let writing = tokio::spawn({
        let (alice, at) = (alice.clone(), at.clone());
        async move { alice.publish(&at, "x".into()).await }
    });
    let following = tokio::spawn(async move { next(&mut bob.follow().await.unwrap()).await.payload });
    home.operator(&broker).await;
    assert!(matches!(tokio::time::timeout(PATIENCE, writing).await.unwrap().unwrap(), Ok(Published::New)));
    assert_eq!(tokio::time::timeout(PATIENCE, following).await.unwrap().unwrap(), "x");
}

#[tokio::test(flavor = "multi_thread")]
async fn junk_is_skipped_and_does_not_acknowledge_what_is_open() {
    let home = Home::new();
    let broker = home.start(None).await;
    home.operator(&broker).await;
    let alice = home.board(&broker, "alice").await;
    let mut inbox = home.board(&broker, "bob").await.follow().await.unwrap();

    alice.publish(&address(1, "alice", "bob", Kind::Share, 1), "1".into()).await.unwrap();
    alice.link().ask("ward.no.session.alice.bob.junk.x", "junk".into()).await.unwrap();
    alice.publish(&address(1, "alice", "bob", Kind::Share, 2), "2".into()).await.unwrap();
    for expected in ["1", "2"] {
        assert_eq!(next(&mut inbox).await.payload, expected);
    }
    drop(inbox);
    let mut inbox = home.board(&broker, "bob").await.follow().await.unwrap();
    assert_eq!(next(&mut inbox).await.payload, "1");
}

#[tokio::test(flavor = "multi_thread")]
async fn many_chunks_at_once_all_arrive() {
    let home = Home::new();
    let broker = home.start(None).await;
    home.operator(&broker).await;
    let alice = home.board(&broker, "alice").await;
    let mut inbox = home.board(&broker, "server").await.follow().await.unwrap();
    let writers: Vec<_> = (0..80)
        .map(|number| {
            let alice = alice.clone();
            let at = address(1, "alice", "server", Kind::Chunk, number);
            tokio::spawn(async move { alice.publish(&at, vec![number; 512 << 10].into()).await.unwrap() })
        })
        .collect();
    let mut seen = std::collections::BTreeSet::new();
    while seen.len() < 80 {
        let delivery = next(&mut inbox).await;
        assert_eq!(delivery.payload.len(), 512 << 10);
        seen.insert(delivery.payload[0]);
        delivery.ack().await;
    }
    for writer in writers {
        writer.await.unwrap();
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_broker_killed_and_started_again_loses_nobody() {
    let home = Home::new();
    let mut broker = home.start(None).await;
    home.operator(&broker).await;
    let alice = home.board(&broker, "alice").await;
    let mut inbox = home.board(&broker, "bob").await.follow().await.unwrap();
    alice.publish(&address(1, "alice", "bob", Kind::Share, 1), "1".into()).await.unwrap();
    let before = next(&mut inbox).await;
    let mut losses = alice.losses();
    let count = *losses.borrow_and_update();

    let port = broker.endpoint().port;
    let pid = rustix::process::Pid::from_raw(broker.pid().unwrap().try_into().unwrap()).unwrap();
    rustix::process::kill_process(pid, rustix::process::Signal::KILL).unwrap();
    broker.failed().await;
    // Who wrote something learns that it may be gone.
    assert!(*losses.wait_for(|&now| now != count).await.unwrap() > count);
    let writing = tokio::spawn({
        let alice = alice.clone();
        async move { alice.publish(&address(1, "alice", "bob", Kind::Share, 2), "2".into()).await }
    });
    let broker = home.start(Some(port)).await;
    home.operator(&broker).await;

    // New, or Already where an answer was lost on the way and the attempt repeated.
    writing.await.unwrap().unwrap();
    // An acknowledgement from before the restart is void: the consumer counts anew.
    before.ack().await;
    let first = next(&mut inbox).await;
    assert_eq!(first.payload, "1");
    first.ack().await;
    let mut payload = next(&mut inbox).await.payload;
    // The consumer was made anew after the reconnection, or before it: then what was open comes once more.
    while payload != "2" {
        payload = next(&mut inbox).await.payload;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_broker_that_comes_back_elsewhere_is_found() {
    let home = Home::new();
    let mut broker = home.start(None).await;
    home.operator(&broker).await;
    let place = Arc::new(Mutex::new(Some(broker.endpoint().clone())));
    let looks = Arc::clone(&place);
    let credentials = home.credentials("bob");
    let link = Link::connect_following(broker.endpoint(), &credentials, move || looks.lock().unwrap().clone());
    let bob = Board::new(link.await.unwrap());
    let mut inbox = bob.follow().await.unwrap();
    let count = *bob.losses().borrow();

    let pid = rustix::process::Pid::from_raw(broker.pid().unwrap().try_into().unwrap()).unwrap();
    rustix::process::kill_process(pid, rustix::process::Signal::KILL).unwrap();
    broker.failed().await;
    *place.lock().unwrap() = None;
    // Somebody else takes the port, and hangs up on whoever calls.
    let stranger = TcpListener::bind(("127.0.0.1", broker.endpoint().port)).await.unwrap();
    tokio::spawn(async move { while stranger.accept().await.is_ok() {} });
    bob.losses().wait_for(|&now| now != count).await.unwrap();
    let broker = home.start(None).await;
    home.operator(&broker).await;
    let alice = home.board(&broker, "alice").await;
    alice.publish(&address(1, "alice", "bob", Kind::Share, 1), "1".into()).await.unwrap();
    *place.lock().unwrap() = Some(broker.endpoint().clone());

    assert_eq!(next(&mut inbox).await.payload, "1");
    bob.publish(&address(1, "bob", "server", Kind::Share, 1), "2".into()).await.unwrap();
    // Closed is closed: nothing takes its place.
    bob.link().close().await;
    assert!(tokio::time::timeout(PATIENCE, inbox.next()).await.unwrap().is_err());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_consumer_made_anew_begins_at_the_first_message() {
    let home = Home::new();
    let broker = home.start(None).await;
    let operator: Operator = home.operator(&broker).await;
    let alice = home.board(&broker, "alice").await;
    let mut inbox = home.board(&broker, "bob").await.follow().await.unwrap();
    alice.publish(&address(1, "alice", "bob", Kind::Share, 1), "1".into()).await.unwrap();
    next(&mut inbox).await.ack().await;
    operator.remake_consumers(&home.readers()).await.unwrap();
    assert_eq!(next(&mut inbox).await.payload, "1");
}

/// A chunk is of use only with the message that names it: a server that comes back gets all messages first, then chunks,
/// and what it acknowledges it acknowledges of both.
#[tokio::test(flavor = "multi_thread")]
async fn chunks_come_after_the_messages_that_were_there_before_them() {
    let home = Home::new();
    let broker = home.start(None).await;
    home.operator(&broker).await;
    let alice = home.board(&broker, "alice").await;
    for number in 1..=40 {
        for kind in [Kind::Share, Kind::Chunk] {
            alice.publish(&address(1, "alice", "server", kind, number), vec![number].into()).await.unwrap();
        }
    }
    let server = home.board(&broker, "server").await;
    assert_eq!(server.pending().await.unwrap(), 80);
    let mut inbox = server.follow().await.unwrap();
    for kind in [Kind::Share, Kind::Chunk] {
        for number in 1..=40 {
            let delivery = next(&mut inbox).await;
            assert_eq!((delivery.address.kind, delivery.payload.as_ref()), (kind, [number].as_slice()));
            if (kind, number) == (Kind::Chunk, 30) {
                delivery.ack().await;
            }
        }
    }
    server.link().ask(&nats::Stream::Messages.consumer_info("server"), "".into()).await.unwrap();
    drop((inbox, server));

    let mut inbox = home.board(&broker, "server").await.follow().await.unwrap();
    alice.publish(&address(2, "alice", "server", Kind::Share, 41), "new".into()).await.unwrap();
    let mut left = Vec::new();
    while left.len() < 11 {
        left.push(next(&mut inbox).await.payload);
    }
    assert!((31..=40).all(|number: u8| left.contains(&vec![number].into())) && left.contains(&"new".into()));
}

/// Patients follow no chunks: the broker would copy everybody's for each of them.
#[tokio::test(flavor = "multi_thread")]
async fn a_chunk_addressed_to_a_patient_reaches_nobody() {
    let home = Home::new();
    let broker = home.start(None).await;
    home.operator(&broker).await;
    let alice = home.board(&broker, "alice").await;
    let mut inbox = home.board(&broker, "bob").await.follow().await.unwrap();
    alice.publish(&address(1, "alice", "bob", Kind::Chunk, 1), "chunk".into()).await.unwrap();
    alice.publish(&address(1, "alice", "bob", Kind::Share, 2), "share".into()).await.unwrap();
    assert_eq!(next(&mut inbox).await.payload, "share");
}

/// nats-server drops a message whose id came a moment before, on whatever subject: bob may write as himself, so he could take
/// the id of alice's next message. No message of Ward's has one.
#[tokio::test(flavor = "multi_thread")]
async fn a_message_id_that_somebody_squats_on_costs_nobody_a_message() {
    let home = Home::new();
    let broker = home.start(None).await;
    home.operator(&broker).await;
    let alice = home.board(&broker, "alice").await;
    let server = home.board(&broker, "server").await;
    let (monitor, _) = home.raw(&broker, "monitor").await;
    let mut seen = monitor.subscribe(subject::EVERYTHING).await.unwrap();
    monitor.flush().await.unwrap();
    let (bob, _) = home.raw(&broker, "bob").await;
    let numbers = AtomicU8::new(0);
    // Whether the broker says that it had this id before.
    let squat = async |id: &str, kind: Kind| {
        let number = numbers.fetch_add(1, Ordering::Relaxed);
        let own = subject::subject(&address(1, "bob", "server", kind, number));
        let headers = HeaderMap::from_iter([("Nats-Msg-Id".parse().unwrap(), id.parse().unwrap())]);
        let answer = bob.request_with_headers(own, headers, "junk".into()).await.unwrap();
        serde_json::from_slice::<serde_json::Value>(&answer.payload).unwrap()["duplicate"] == true
    };
    // The hole is there: it closes within a tenth of a second, so that it may take a busy machine some tries.
    let hole = async {
        for id in 0..60 {
            let id = format!("control-{id}");
            squat(&id, Kind::Share).await;
            if squat(&id, Kind::Share).await {
                return;
            }
        }
        panic!("no second message was dropped");
    };
    tokio::time::timeout(PATIENCE, hole).await.unwrap();

    for (number, kind) in [Kind::Share, Kind::Chunk].into_iter().cycle().take(8).enumerate() {
        let at = address(2, "alice", "server", kind, number as u8);
        let subject = subject::subject(&at);
        for id in [at.name.to_string(), at.name.to_string().to_uppercase(), subject, format!("{}.{}", at.from, at.name)]
        {
            squat(&id, kind).await;
        }
        assert_eq!(alice.publish(&at, "hers".into()).await.unwrap(), Published::New);
        assert_eq!(server.read(&at).await.unwrap().unwrap(), "hers");
        let hers = async { seen.by_ref().filter(|message| std::future::ready(message.payload == "hers")).next().await };
        let headers = tokio::time::timeout(PATIENCE, hers).await.unwrap().unwrap().headers.unwrap();
        assert!(headers.get("Nats-Msg-Id").is_none() && headers.get("Ward-Kind").is_some(), "{headers:?}");
    }
}

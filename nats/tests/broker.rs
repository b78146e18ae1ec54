//! nats-server as a child: started, reloaded, stopped, and never left behind.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

mod support;

use std::io::{BufRead, BufReader, Read};
use std::os::unix::fs::PermissionsExt;
use std::process::{Child, Command, Stdio};

use nats::{BoardError, BrokerError, CallError, LinkError};
use protocol::{Kind, Role};
use rustix::process::{Pid, Resource, Rlimit, getrlimit, prlimit};
use support::{Home, PATIENCE, address, next};

#[tokio::test(flavor = "multi_thread")]
async fn a_new_party_is_admitted_and_nobody_is_dropped() {
    let mut home = Home::new();
    let mut broker = home.start(None).await;
    let operator = home.operator(&broker).await;
    let alice = home.board(&broker, "alice").await;
    let mut inbox = home.board(&broker, "bob").await.follow().await.unwrap();
    let (bystander, _) = home.raw(&broker, "alice").await;
    let endpoint = broker.endpoint().clone();

    home.issue(Role::Patient, "dave");
    let dave = home.credentials("dave");
    let error = nats::Link::connect(&endpoint, &dave).await.unwrap_err();
    assert!(matches!(error, LinkError::NotListed { .. }), "{error:?}");

    home.parties.push((Role::Patient, support::name("dave")));
    broker.reload(&home.parties).await.unwrap();
    assert_eq!(broker.endpoint(), &endpoint);
    operator.make_consumers(Role::Patient, &support::name("dave")).await.unwrap();
    let dave = nats::Board::new(nats::Link::connect(&endpoint, &dave).await.unwrap());
    let mut daves = dave.follow().await.unwrap();
    dave.publish(&address(1, "dave", "bob", Kind::Share, 1), "dave".into()).await.unwrap();
    alice.publish(&address(1, "alice", "dave", Kind::Share, 1), "alice".into()).await.unwrap();
    assert_eq!(next(&mut inbox).await.payload, "dave");
    assert_eq!(next(&mut daves).await.payload, "alice");
    assert_eq!(bystander.statistics().connects.load(std::sync::atomic::Ordering::Relaxed), 1);

    // And back: who is listed no longer is out.
    home.parties.pop();
    broker.reload(&home.parties).await.unwrap();
    let error = nats::Link::connect(&endpoint, &home.credentials("dave")).await.unwrap_err();
    assert!(matches!(error, LinkError::NotListed { .. }), "{error:?}");
    broker.stop().await.unwrap();
}

/// Also the connections that it has: it hears so, and does not knock for ever.
#[tokio::test(flavor = "multi_thread")]
async fn who_is_listed_no_longer_is_cut_off_and_told_so() {
    let mut home = Home::new();
    let mut broker = home.start(None).await;
    home.operator(&broker).await;
    let alice = home.board(&broker, "alice").await;
    let mut alices = alice.follow().await.unwrap();
    let bob = home.board(&broker, "bob").await;
    let mut bobs = bob.follow().await.unwrap();
    let (bystander, _) = home.raw(&broker, "bob").await;
    alice.publish(&address(1, "alice", "bob", Kind::Share, 1), "before".into()).await.unwrap();

    home.parties.retain(|(_, name)| name.as_str() != "alice");
    broker.reload(&home.parties).await.unwrap();
    let cut_off = |error: &BoardError| {
        assert!(
            matches!(error, BoardError::Call(CallError::CutOff { name, .. }) if name.as_str() == "alice"),
            "{error:?}"
        );
        assert!(error.to_string().contains("certificate was revoked"), "{error}");
    };
    cut_off(&tokio::time::timeout(PATIENCE, alices.next()).await.unwrap().unwrap_err());
    let after = address(1, "alice", "bob", Kind::Share, 2);
    cut_off(&tokio::time::timeout(PATIENCE, alice.publish(&after, "after".into())).await.unwrap().unwrap_err());
    let refused = nats::Link::connect(broker.endpoint(), &home.credentials("alice")).await.unwrap_err();
    assert!(matches!(refused, LinkError::NotListed { .. }), "{refused:?}");

    // What it wrote stands, and the others notice nothing.
    bob.publish(&address(1, "bob", "bob", Kind::Share, 1), "bob".into()).await.unwrap();
    for text in ["before", "bob"] {
        assert_eq!(next(&mut bobs).await.payload, text);
    }
    assert_eq!(bystander.statistics().connects.load(std::sync::atomic::Ordering::Relaxed), 1);
    assert_eq!(*bob.losses().borrow(), 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_port_in_use_is_named() {
    let home = Home::new();
    let taken = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let port = taken.local_addr().unwrap().port();
    let error = home.try_start(Some(port)).await.unwrap_err();
    assert!(matches!(error, BrokerError::PortInUse { port: named, .. } if named == port), "{error:?}");
    drop(taken);
    let broker = home.start(Some(port)).await;
    assert_eq!(broker.endpoint().port, port);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_broker_left_behind_is_ended_and_a_stranger_is_not() {
    let home = Home::new();
    let mut left = home.start(None).await;
    let port = left.endpoint().port;
    let next = home.start(Some(port)).await;
    tokio::time::timeout(PATIENCE, left.failed()).await.unwrap();
    next.stop().await.unwrap();

    // A process that got the number since.
    let pid = home.of("broker").join("nats-server.pid");
    assert!(!pid.exists());
    std::fs::write(&pid, std::process::id().to_string()).unwrap();
    home.start(None).await.stop().await.unwrap();
}

/// A stream that nats-server could not write once it writes no more until it is started again.
#[tokio::test(flavor = "multi_thread")]
async fn a_broker_whose_disk_is_full_says_so_and_keeps_what_it_acknowledged() {
    let home = Home::new();
    let mut broker = home.start(None).await;
    home.operator(&broker).await;
    let alice = home.board(&broker, "alice").await;
    alice.publish(&address(1, "alice", "bob", Kind::Share, 1), "1".into()).await.unwrap();
    let pid = Pid::from_raw(broker.pid().unwrap().try_into().unwrap());
    prlimit(pid, Resource::Fsize, Rlimit { current: Some(0), maximum: getrlimit(Resource::Fsize).maximum }).unwrap();
    let writing = tokio::spawn({
        let alice = alice.clone();
        async move { alice.publish(&address(1, "alice", "bob", Kind::Share, 2), "2".into()).await }
    });
    let failed = tokio::time::timeout(PATIENCE, broker.failed()).await.unwrap();
    assert!(matches!(failed, BrokerError::CannotStore { .. }), "{failed:?}");
    assert!(failed.to_string().contains("Make room on its disk"), "{failed}");
    let port = broker.endpoint().port;
    broker.stop().await.unwrap();

    let broker = home.start(Some(port)).await;
    home.operator(&broker).await;
    writing.await.unwrap().unwrap();
    let mut inbox = home.board(&broker, "bob").await.follow().await.unwrap();
    for text in ["1", "2"] {
        let delivery = next(&mut inbox).await;
        assert_eq!(delivery.payload, text);
        delivery.ack().await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn its_files_are_private_and_its_log_is_quiet_about_certificates() {
    let home = Home::new();
    let mut broker = home.start(None).await;
    home.link(&broker, "alice").await;
    broker.reload(&home.parties).await.unwrap();
    for file in ["nats-server.conf", "nats-server.log", "nats-server.pid"] {
        let mode = std::fs::metadata(home.of("broker").join(file)).unwrap().permissions().mode();
        assert_eq!(mode & 0o777, 0o600, "{file}");
    }
    let log = std::fs::read_to_string(broker.log()).unwrap();
    assert!(log.contains("Server is ready") && !log.contains("found in connect proto"), "{log}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_broker_that_cannot_start_says_why() {
    let home = Home::new();
    let mut settings = home.settings(None);
    settings.cert = home.of("nowhere");
    let error = home.start_with(&support::binary(), settings).await.unwrap_err();
    assert!(matches!(&error, BrokerError::Ended { reason, .. } if reason.contains("nowhere")), "{error:?}");

    let error = home.start_with(&home.of("no-program"), home.settings(None)).await.unwrap_err();
    assert!(matches!(error, BrokerError::NotStarted { .. }), "{error:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn each_message_is_flushed_where_the_owner_wants_it() {
    let home = Home::new();
    let settings = nats::BrokerSettings { sync_always: true, ..home.settings(None) };
    let broker = home.start_with(&support::binary(), settings).await.unwrap();
    home.operator(&broker).await;
    let at = address(1, "alice", "server", Kind::Share, 1);
    home.board(&broker, "alice").await.publish(&at, "x".into()).await.unwrap();
}

/// Chooses which of the three processes of the next test this one is.
const PART: &str = "WARD_TEST_PART";

/// A parent, killed without warning, takes its tied child along: the pipe that both hold open ends.
#[test]
fn what_is_tied_ends_with_its_parent() {
    match std::env::var(PART).as_deref() {
        Ok("parent") => {
            part("child", Stdio::inherit()).wait().unwrap();
        }
        Ok(_) => panic!("{}", nats::exec_tied("sh".as_ref(), ["-c".into(), "echo started; exec sleep 1000".into()])),
        Err(_) => {
            let mut parent = part("parent", Stdio::piped());
            let mut output = BufReader::new(parent.stdout.take().unwrap());
            let mut line = String::new();
            while !line.contains("started") {
                assert_ne!(output.read_line(&mut line).unwrap(), 0, "{line}");
            }
            parent.kill().unwrap();
            parent.wait().unwrap();
            output.read_to_string(&mut line).unwrap();
        }
    }
}

/// This very test in a process of its own.
fn part(part: &str, output: Stdio) -> Child {
    Command::new(std::env::current_exe().unwrap())
        .args(["--exact", "what_is_tied_ends_with_its_parent", "--nocapture"])
        .env(PART, part)
        // As `Broker::start` does it: the parent may be gone before the child ties itself.
        .env("WARD_TIED_TO", std::process::id().to_string())
        .stdout(output)
        .spawn()
        .unwrap()
}

//! Parties with real certificates that do what no honest one does, against a running study: rounds open all the same,
//! with the right sum, and what was tried is in the logs.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

mod support;

use std::collections::{BTreeMap, BTreeSet};
use std::net::TcpStream;
use std::sync::Arc;

use bytes::Bytes;
use certs::{Credentials, client_config};
use futures::{StreamExt as _, TryStreamExt as _};
use nats::{Board, CallError, Link, LinkError, Published, Stream, subject};
use protocol::message::{Abort, Receipt};
use protocol::{AbortReason, Address, Digest, Envelope, Frame, Kind, RoundNo, SessionTag, Signed, To, VERSION};
use rustls::crypto::{CryptoProvider, aws_lc_rs::kx_group};
use rustls::{ClientConfig, ClientConnection, NamedGroup, ProtocolVersion, RootCertStore};
use rustls_pki_types::CertificateDer;
use rustls_pki_types::pem::PemObject as _;
use serde::Serialize;
use support::{Capture, Played, Study, address, expired_certificate, name};

const HONEST: [(&str, &str); 3] = [("alice", "100"), ("bob", "200"), ("charlie", "300")];
/// Everybody's value and mallory's 27: the test plays mallory, and no round ends before it takes part.
const WITH_MALLORY: &str = "627";
const ASK: [&str; 4] = ["--patients", "4", "--committee", "4"];

/// Three honest patients, a mallory who sits on every committee, and an eve who takes no part.
async fn study_with_mallory() -> (Study, Played) {
    let mut study = Study::new(None);
    study.enrol("mallory", "member");
    study.enrol("eve", "patient");
    study.start_broker();
    study.start_server();
    for (name, value) in HONEST {
        study.start_patient(name, value);
    }
    study.is_ready();
    let mallory = Played::new(&study, "mallory", 27).await;
    (study, mallory)
}

/// A frame by the key of `credentials` with any body.
fn frame(credentials: &Credentials, kind: Kind, (session, round): (Digest, u32), after: Digest, body: &[u8]) -> Signed {
    let envelope = Envelope {
        version: VERSION,
        session: if kind == Kind::Announce { Digest::default() } else { session },
        round: RoundNo(round),
        from: credentials.identity().name.clone(),
        to: To::All,
        kind,
        after,
        body: serde_bytes::ByteBuf::from(body.to_vec()),
    };
    Signed::new(&envelope, &credentials.signing_key())
}

fn packed(body: &impl Serialize) -> Vec<u8> {
    rmp_serde::to_vec(body).unwrap()
}

/// Writes all of these to the board, many at a time; what became of each.
async fn write_all(board: &Board, messages: Vec<(Address, Bytes)>) -> Vec<Published> {
    let writing = messages.into_iter().map(async |(address, payload)| board.publish(&address, payload).await);
    futures::stream::iter(writing).buffer_unordered(128).try_collect().await.unwrap()
}

#[tokio::test(flavor = "multi_thread")]
async fn junk_under_anothers_name_is_logged_and_changes_nothing() {
    let (study, mut mallory) = study_with_mallory().await;
    let mut capture = study.capture().await;
    let eve = study.raw("eve").await;
    let next = Stream::Messages.consumer_next(&Board::new(study.link("eve").await).consumer().await.unwrap());
    let asking = study.begin(&ASK);
    let (announce, _) = mallory.until(Kind::Announce).await;
    let session = announce.session;
    let forged = [
        ("alice", "server", Kind::Join),
        ("alice", "server", Kind::Share),
        ("bob", "server", Kind::Held),
        ("alice", "bob", Kind::Share),
        ("alice", "bob", Kind::Key),
        ("bob", "hospital", Kind::Confirm),
        ("server", "hospital", Kind::Cohort),
        ("server", "all", Kind::Roster),
        ("hospital", "all", Kind::Begin),
        ("hospital", "all", Kind::Abort),
    ];
    for round in [0, 1] {
        for (from, to, kind) in forged {
            // The broker's acknowledgement goes where the reply subject says, and nobody checks it.
            let own = subject::subject(&address(session, round, "eve", "server", kind));
            let others = subject::subject(&address(session, round, from, to, kind));
            eve.publish_with_reply(own, others, "junk".into()).await.unwrap();
            // So does what eve's consumer delivers: the Announce first.
            let others = subject::subject(&address(session, round, from, to, kind));
            let batch = Bytes::from_static(br#"{"batch":1,"no_wait":true}"#);
            eve.publish_with_reply(next.clone(), others, batch).await.unwrap();
        }
    }
    // The holes are there: the broker itself wrote under alice's name, and the Announce passed once more.
    let in_alices_name = |capture: &Capture| {
        let shares = capture.of(Kind::Share).filter(|(address, _)| address.from.as_str() == "alice");
        shares.filter(|(_, message)| message.payload.starts_with(b"{\"stream\"")).count()
    };
    while in_alices_name(&capture) < 4 {
        let before = capture.of(Kind::Share).count();
        capture.until(Kind::Share, before + 1).await;
    }
    capture.until(Kind::Announce, 2).await;
    mallory.until(Kind::Result).await;
    let asked = asking.ended();
    asked.opened(WITH_MALLORY, 4);
    study.parties["server"].has_said("alice sent a share that does not hold", 1);
    study.parties["server"].has_said("alice sent a join that does not hold", 1);
    study.parties["bob"].has_said("alice sent a share that does not hold", 1);
    study.parties["charlie"].has_said("hospital sent a abort that does not hold", 1);
    study.parties["broker"].has_said("abort of hospital changes nothing", 1);
    assert!(asked.stderr.contains("bob sent a confirm that does not hold"), "{}", asked.stderr);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_flood_under_its_own_name_stops_no_round() {
    const EACH: usize = 3000;
    let (study, mut mallory) = study_with_mallory().await;
    let eve = Board::new(study.link("eve").await);
    let credentials = study.home.credentials("eve");
    let kinds = [Kind::Join, Kind::Share, Kind::Chunk, Kind::Key, Kind::Held, Kind::Cohort, Kind::Open, Kind::MaskSum];
    let flood = |session: Digest| {
        let credentials = &credentials;
        ["server", "alice", "bob", "charlie", "hospital"]
            .into_iter()
            .flat_map(move |to| {
                (0..EACH).map(move |number| {
                    let (kind, round) = (kinds[number % kinds.len()], (number % 3) as u32);
                    let body = packed(&number);
                    let bytes = match number % 4 {
                        0 => Bytes::from(vec![0xc4; 900]),
                        // Well-formed and signed, of a message that nobody has: it may be early.
                        _ => frame(credentials, kind, (session, round), Digest([number as u8; 32]), &body)
                            .frame(&[7; 200]),
                    };
                    (address(session.into(), round, "eve", to, kind), bytes)
                })
            })
            .collect::<Vec<_>>()
    };
    // Of a session that nobody knows, then of the one that is announced.
    write_all(&eve, flood(Digest([9; 32]))).await;
    let asking = study.begin(&ASK);
    let (_, announce) = mallory.until(Kind::Announce).await;
    let session = Frame::decode(&announce).unwrap().digest;
    write_all(&eve, flood(session)).await;
    mallory.until(Kind::Begin).await;
    write_all(&eve, flood(session)).await;
    mallory.until(Kind::Result).await;
    asking.ended().opened(WITH_MALLORY, 4);
}

#[tokio::test(flavor = "multi_thread")]
async fn replays_under_another_name_and_in_another_round_have_no_effect() {
    let (study, mut mallory) = study_with_mallory().await;
    let mut capture = study.capture().await;
    let asking = study.begin(&ASK);
    mallory.until(Kind::Result).await;
    asking.ended().opened(WITH_MALLORY, 4);
    capture.until(Kind::Result, 1).await;

    let asking = study.begin(&[]);
    mallory.until(Kind::Begin).await;
    let eve = Board::new(study.link("eve").await);
    for (board, from) in [(&eve, "eve"), (&mallory.board, "mallory")] {
        let mut replays = Vec::new();
        for message in &capture.seen {
            let Address { session, round, to, kind, .. } = support::address_of(message).unwrap();
            // Nobody but hospital and server writes to all.
            let to = if to == To::All { "alice".into() } else { to.to_string() };
            for round in [round.0, 2] {
                replays.push((address(session, round, from, &to, kind), message.payload.clone()));
            }
        }
        assert!(replays.len() > 100, "only {} messages in a round", replays.len() / 2);
        write_all(board, replays).await;
    }
    mallory.until(Kind::Result).await;
    let asked = asking.ended();
    asked.opened(WITH_MALLORY, 4);
    assert!(asked.stdout.contains("\"round\":2,"), "{}", asked.stdout);
    // And a third, with nobody's help.
    let asking = study.begin(&["--last"]);
    mallory.until(Kind::Begin).await;
    mallory.until(Kind::Result).await;
    asking.ended().opened(WITH_MALLORY, 4);
}

/// What a broker that remembers everything could do: the messages of a whole session once more in the next, under their own
/// subjects and under those that they would have there, by the connection of whom each is from.
#[tokio::test(flavor = "multi_thread")]
async fn a_session_that_is_replayed_in_the_next_changes_nothing() {
    let (study, mut mallory) = study_with_mallory().await;
    let mut capture = study.capture().await;
    let asking = study.begin(&[&ASK[..], &["--last"]].concat());
    mallory.until(Kind::Result).await;
    let first = asking.ended();
    first.opened(WITH_MALLORY, 4);
    capture.until(Kind::Result, 1).await;
    // It is over, and all names but that of its last word are free again.
    let operator = study.link("operator").await;
    until_says(&operator, "$JS.API.STREAM.INFO.WARD", |info| info["state"]["messages"] == 1).await;

    for (name, value) in [("alice", 110), ("bob", 220), ("charlie", 330)] {
        study.home.hand_over(&format!("{name} {value} --snapshot 2"));
    }
    mallory.offer("2", 47);
    let asking = study.begin(&[&ASK[..], &["--snapshot", "2"]].concat());
    let (begun, _) = mallory.until(Kind::Begin).await;
    let mut boards = BTreeMap::new();
    for name in ["hospital", "server", "alice", "bob", "charlie", "mallory"] {
        boards.insert(name, Board::new(study.link(name).await));
    }
    let mut replays: BTreeMap<String, Vec<(Address, Bytes)>> = BTreeMap::new();
    for message in &capture.seen {
        let own = support::address_of(message).unwrap();
        assert_ne!(own.session, begun.session);
        let moved = Address { session: begun.session, ..own.clone() };
        replays.entry(own.from.to_string()).or_default().extend([own, moved].map(|at| (at, message.payload.clone())));
    }
    let mut stored = 0;
    for (from, replays) in replays {
        let written = write_all(&boards[from.as_str()], replays).await;
        stored += written.iter().filter(|outcome| **outcome == Published::New).count();
    }
    assert_eq!(stored, 2 * capture.seen.len() - 1, "all of them but the Result, which stands there");

    mallory.until(Kind::Result).await;
    let second = asking.ended();
    second.opened("707", 4);
    assert_ne!(second.session(), first.session());
    for (who, what) in
        [("server", "alice sent a share"), ("alice", "server sent a roster"), ("bob", "alice sent a share")]
    {
        study.parties[who].has_said(&format!("{what} that stands under a subject of another"), 1);
    }
    // And a second round, with nobody's help.
    let asking = study.begin(&["--snapshot", "2"]);
    mallory.until(Kind::Begin).await;
    mallory.until(Kind::Result).await;
    let third = asking.ended();
    third.opened("707", 4);
    assert_eq!(third.session(), second.session());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_name_that_was_seen_can_be_written_by_nobody_again() {
    let (study, mut mallory) = study_with_mallory().await;
    let mut capture = study.capture().await;
    let asking = study.begin(&ASK);
    mallory.until(Kind::Begin).await;
    for (name, _) in HONEST {
        capture.until_from(Kind::Share, name).await;
    }
    // Even who has alice's key cannot put other bytes where hers are.
    for (name, _) in HONEST {
        let thief = Board::new(study.link(name).await);
        let hers = capture.seen.iter().filter_map(support::address_of).filter(|seen| seen.from.as_str() == name);
        let junk: Vec<_> = hers.map(|seen| (seen, Bytes::from_static(b"junk"))).collect();
        assert!(junk.iter().any(|(seen, _)| seen.kind == Kind::Share), "{name} has shared nothing");
        let written = write_all(&thief, junk).await;
        assert!(written.iter().all(|outcome| *outcome == Published::Already), "{name}: {written:?}");
    }
    mallory.until(Kind::Result).await;
    asking.ended().opened(WITH_MALLORY, 4);

    // What a party writes next has another name, whatever went before.
    let asking = study.begin(&[]);
    mallory.until(Kind::Result).await;
    asking.ended().opened(WITH_MALLORY, 4);
    capture.until(Kind::Result, 2).await;
    // The junk of above passed by and was not stored; and a hospital that starts again writes again what it wrote.
    let mut written: BTreeMap<_, BTreeSet<&Bytes>> = BTreeMap::new();
    for message in capture.seen.iter().filter(|message| message.payload != "junk") {
        let name = support::address_of(message).unwrap().name;
        written.entry(name).or_default().insert(&message.payload);
    }
    assert!(written.values().all(|payloads| payloads.len() == 1));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_member_that_sends_garbage_of_every_kind_spoils_nothing() {
    let (study, mut mallory) = study_with_mallory().await;
    let asking = study.begin(&ASK);
    let (_, announce) = mallory.until(Kind::Announce).await;
    let session = Frame::decode(&announce).unwrap().digest;
    write_all(&mallory.board, garbage(&mallory.credentials, session, &[session])).await;
    let (_, roster) = mallory.until(Kind::Roster).await;
    let roster = Frame::decode(&roster).unwrap().digest;
    let (_, begin) = mallory.until(Kind::Begin).await;
    let begin = Frame::decode(&begin).unwrap().digest;
    write_all(&mallory.board, garbage(&mallory.credentials, session, &[session, roster, begin])).await;
    mallory.until(Kind::Result).await;
    let asked = asking.ended();
    // What it signed counts against mallory itself: its own value is out, the others' are in.
    asked.opened("600", 3);
    assert!(asked.stderr.contains("mallory sent a"), "{}", asked.stderr);
    for party in ["server", "alice", "bob", "charlie"] {
        study.parties[party].has_said("mallory sent a", 1);
    }
}

/// Signed frames of every kind, to everybody, in set-up and two rounds, after each of `after`, with bodies that are none.
fn garbage(credentials: &Credentials, session: Digest, after: &[Digest]) -> Vec<(Address, Bytes)> {
    let bodies = [vec![], vec![0xc0], vec![0x90], vec![0xdf, 0xff, 0xff, 0xff, 0xff], vec![0x91; 5000]];
    let mut messages = Vec::new();
    for kind in Kind::ALL {
        for to in ["server", "hospital", "alice", "bob", "charlie"] {
            for round in [0, 1, 2] {
                for (number, after) in after.iter().enumerate() {
                    let body = &bodies[(messages.len() + number) % bodies.len()];
                    let signed = frame(credentials, kind, (session, round), *after, body);
                    let tag: SessionTag = if kind == Kind::Announce { signed.digest() } else { session }.into();
                    messages.push((address(tag, round, "mallory", to, kind), signed.frame(b"attached")));
                }
            }
        }
    }
    messages
}

#[tokio::test(flavor = "multi_thread")]
async fn a_forged_end_purges_nothing_and_ends_no_session() {
    let (study, mut mallory) = study_with_mallory().await;
    let mut capture = study.capture().await;
    let asking = study.begin(&ASK);
    let (announced, announce) = mallory.until(Kind::Announce).await;
    let session = Frame::decode(&announce).unwrap().digest;
    let (_, begin) = mallory.until(Kind::Begin).await;
    let begin = Frame::decode(&begin).unwrap().digest;
    for (name, _) in HONEST {
        capture.until_from(Kind::Share, name).await;
    }
    // In the middle of a round, by a member of the committee and by a patient that takes no part.
    let eve = Board::new(study.link("eve").await);
    let raw = study.raw("eve").await;
    for (board, credentials) in
        [(&eve, study.home.credentials("eve")), (&mallory.board, study.home.credentials("mallory"))]
    {
        let from = credentials.identity().name.to_string();
        let cohort = frame(&credentials, Kind::Cohort, (session, 1), begin, &packed(&()));
        let receipt = Receipt { count: 4, cohort, confirms: Vec::new(), last: true };
        let abort = Abort { reason: AbortReason::Stopped, last: true };
        let forged = [(Kind::Result, packed(&receipt), begin), (Kind::Abort, packed(&abort), session)];
        let forged = forged.iter().flat_map(|(kind, body, after)| {
            let signed = [0, 1].map(|round| (round, frame(&credentials, *kind, (session, round), *after, body)));
            signed.map(|(round, signed)| (address(session.into(), round, &from, "all", *kind), signed.frame(b"")))
        });
        for (address, payload) in forged {
            // To all it is refused, but for an acknowledgement that a reply subject leads there. Named parties get it.
            assert!(board.publish(&address, payload.clone()).await.unwrap_err().is_refused());
            let own = subject::subject(&self::address(announced.session, 1, "eve", "server", address.kind));
            raw.publish_with_reply(own, subject::subject(&address), "junk".into()).await.unwrap();
            for to in ["server", "hospital", "alice"] {
                let to = To::One(name(to));
                board.publish(&Address { to, ..address.clone() }, payload.clone()).await.unwrap();
            }
        }
        for kind in ["result", "abort"] {
            study.parties["broker"].has_said(&format!("{kind} of {from} changes nothing"), 2);
        }
    }
    // What is addressed to the server stands where it stood.
    let server = Board::new(study.link("server").await);
    let mut stood = 0;
    for (seen, message) in capture.of(Kind::Share).chain(capture.of(Kind::Join)) {
        if seen.to.includes(&name("server")) && seen.session == announced.session {
            assert_eq!(server.read(&seen).await.unwrap().unwrap(), message.payload);
            stood += 1;
        }
    }
    assert!(stood >= 5, "only {stood}");
    mallory.until(Kind::Result).await;
    let asked = asking.ended();
    asked.opened(WITH_MALLORY, 4);
    for party in ["server", "alice"] {
        study.parties[party].has_said("mallory sent a abort that does not hold", 1);
    }
    let asking = study.begin(&[]);
    mallory.until(Kind::Begin).await;
    mallory.until(Kind::Result).await;
    let asked = asking.ended();
    asked.opened(WITH_MALLORY, 4);
    assert!(asked.stdout.contains("\"round\":2,"), "the session did not go on: {}", asked.stdout);
}

#[tokio::test(flavor = "multi_thread")]
async fn the_running_broker_takes_the_hybrid_key_exchange_and_tls_1_3_alone() {
    let mut study = Study::new(None);
    study.enrol("alice", "member");
    study.start_broker();
    let (connection, outcome) = handshake(&study, client_config(&study.home.credentials("alice")).unwrap());
    outcome.unwrap();
    assert_eq!(connection.negotiated_key_exchange_group().unwrap().name(), NamedGroup::X25519MLKEM768);
    assert_eq!(connection.protocol_version(), Some(ProtocolVersion::TLSv1_3));

    let classical = CryptoProvider { kx_groups: vec![kx_group::X25519], ..certs::provider() };
    let mut roots = RootCertStore::empty();
    roots.add(CertificateDer::from_pem_file(study.home.path().join("ca/ca.pem")).unwrap()).unwrap();
    let bare = ClientConfig::builder_with_provider(Arc::new(classical))
        .with_protocol_versions(&[&rustls::version::TLS13])
        .unwrap()
        .with_root_certificates(roots)
        .with_no_client_auth();
    let (_, outcome) = handshake(&study, bare);
    assert!(outcome.unwrap_err().to_string().contains("HandshakeFailure"));
}

fn handshake(study: &Study, config: ClientConfig) -> (ClientConnection, std::io::Result<()>) {
    let endpoint = study.home.endpoint();
    let mut socket = TcpStream::connect((endpoint.host.as_str(), endpoint.port)).unwrap();
    let mut connection = ClientConnection::new(Arc::new(config), endpoint.host.try_into().unwrap()).unwrap();
    let outcome = connection.complete_io(&mut socket).map(drop);
    (connection, outcome)
}

#[tokio::test(flavor = "multi_thread")]
async fn wrong_certificates_get_no_further_than_the_door() {
    let (mut study, other) = (Study::new(None), Study::new(None));
    study.enrol("alice", "member");
    other.enrol("alice", "member");
    study.start_broker();
    // Of another home: her own agent sees first that the broker is another's.
    let error = study.refused(&other.home.credentials("alice")).await;
    assert!(matches!(error, LinkError::AnotherStudy { .. }), "{error:?}");
    // And one that does not care is refused by the broker.
    let stranger = other.home.party_dir("alice");
    let refused = async_nats::ConnectOptions::new()
        .require_tls(true)
        .tls_first()
        .add_root_certificates(study.home.path().join("ca/ca.pem"))
        .add_client_certificate(stranger.join("cert.pem"), stranger.join("key.pem"))
        .connect(format!("tls://{}", study.home.endpoint()))
        .await;
    assert!(refused.is_err());
    let error = study.refused(&expired(&study, "alice")).await;
    assert!(matches!(&error, LinkError::Expired { name } if name.as_str() == "alice"), "{error:?}");
    // The command says the same, and that it was wrong use.
    for credential in ["cert.pem", "key.pem", "ca.pem"] {
        std::fs::copy(stranger.join(credential), study.home.party_dir("alice").join(credential)).unwrap();
    }
    let ended = study.home.run(&format!("patient alice 5 --broker {}", study.home.endpoint()));
    assert_eq!(ended.code, Some(2), "{ended:#?}");
}

/// Credentials whose certificate ended a minute ago, as an agent loaded them before.
fn expired(study: &Study, party: &str) -> Credentials {
    let (own, dir) = (study.home.party_dir(party), study.home.file("expired"));
    std::fs::create_dir(&dir).unwrap();
    for file in ["ca.pem", "key.pem"] {
        std::fs::copy(own.join(file), dir.join(file)).unwrap();
    }
    std::fs::write(dir.join("cert.pem"), expired_certificate(&study.home, party)).unwrap();
    let while_valid: time::OffsetDateTime = time::OffsetDateTime::now_utc() - time::Duration::MINUTE * 10;
    let while_valid = u64::try_from(while_valid.unix_timestamp()).unwrap() * 1000;
    Credentials::load_at(&dir, protocol::Time(while_valid)).unwrap()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_role_gets_no_more_of_the_running_broker_than_its_task() {
    let mut study = Study::new(None);
    for name in ["alice", "bob"] {
        study.enrol(name, "member");
    }
    study.start_broker();
    let session = SessionTag([7; 16]);
    let of = |from: &str, to: &str, kind| subject::subject(&address(session, 1, from, to, kind));
    let tries = [
        ("monitor", of("monitor", "server", Kind::Share)),
        ("monitor", of("alice", "server", Kind::Share)),
        ("monitor", Stream::Messages.consumer_next("alice")),
        ("alice", of("bob", "server", Kind::Share)),
        ("alice", of("server", "all", Kind::Roster)),
        ("alice", of("hospital", "all", Kind::Result)),
        ("alice", of("alice", "all", Kind::Result)),
        ("server", of("server", "all", Kind::Result)),
        ("hospital", of("hospital", "all", Kind::Roster)),
        ("alice", Stream::Messages.direct_get(&of("bob", "server", Kind::Share))),
        ("alice", Stream::Messages.direct_get(&of("alice", "alice", Kind::Share))),
        ("alice", Stream::Messages.consumer_next("bob")),
        ("alice", Stream::Messages.purge()),
        ("hospital", Stream::Messages.direct_get(&of("bob", "alice", Kind::Share))),
        ("server", of("hospital", "all", Kind::Result)),
        ("hospital", Stream::Messages.purge()),
    ];
    for (who, what) in tries {
        let answer = study.link(who).await.ask(&what, "{}".into()).await;
        assert!(matches!(answer, Err(CallError::Refused { .. })), "{who} on {what}: {answer:?}");
    }
}

/// Asks the broker until its answer is so.
async fn until_says(operator: &Link, what: &str, is_so: impl Fn(&serde_json::Value) -> bool) {
    let asking = async {
        loop {
            let answer = operator.ask(what, Bytes::new()).await.unwrap();
            if is_so(&serde_json::from_slice(&answer).unwrap()) {
                return;
            }
        }
    };
    tokio::time::timeout(support::PATIENCE, asking).await.unwrap_or_else(|_| panic!("{what} never says so"));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_foreign_reply_subject_deletes_purges_and_moves_nothing() {
    let (study, mut mallory) = study_with_mallory().await;
    let eve = study.raw("eve").await;
    let board = Board::new(study.link("eve").await);
    let session = SessionTag([7; 16]);
    let apis = [
        "$JS.API.STREAM.DELETE.WARD",
        "$JS.API.STREAM.PURGE.WARD",
        "$JS.API.CONSUMER.DELETE.WARD.alice",
        "$JS.API.CONSUMER.DELETE.WARD.server",
        "$JS.API.CONSUMER.RESET.WARD.alice",
        "$JS.API.CONSUMER.RESET.WARD.server",
        "$JS.API.CONSUMER.RESET.WARD.operator",
        "$JS.API.CONSUMER.MSG.NEXT.WARD.bob",
        "$JS.API.CONSUMER.MSG.NEXT.WARD.server",
    ];
    let consumer = board.consumer().await.unwrap();
    let bodies = ["", "{}", "{\"seq\":100000}", "{\"batch\":1000}"];
    let tries = apis.iter().flat_map(|api| bodies.map(|body| (*api, body)));
    for (api, body) in tries {
        // Eve's own message, delivered by her own consumer to the API; and the acknowledgement of another.
        board.publish(&address(session, 1, "eve", "eve", Kind::Share), body.into()).await.unwrap();
        let batch = Bytes::from_static(br#"{"batch":1,"expires":60000000000}"#);
        eve.publish_with_reply(Stream::Messages.consumer_next(&consumer), api, batch).await.unwrap();
        let own = subject::subject(&address(session, 1, "eve", "server", Kind::Share));
        eve.publish_with_reply(own, api, body.into()).await.unwrap();
    }
    // What the broker says that it did: each was delivered, and each stands on the board.
    let operator = study.link("operator").await;
    let all = apis.len() * bodies.len();
    until_says(&operator, &Stream::Messages.consumer_info(&consumer), |info| info["delivered"]["consumer_seq"] == all)
        .await;
    until_says(&operator, "$JS.API.STREAM.INFO.WARD", |info| info["state"]["messages"] == 2 * all).await;
    let asking = study.begin(&ASK);
    mallory.until(Kind::Result).await;
    asking.ended().opened(WITH_MALLORY, 4);
}

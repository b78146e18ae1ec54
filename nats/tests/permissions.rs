//! The table of permissions, row by row and for every role: what is allowed works, and what is not is an error of the
//! call that tried it.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

mod support;

use nats::{Board, CallError, ConsumerNames, Link, Stream, Watcher, subject};
use protocol::Kind;
use support::{Home, PATIENCE, address};

const EVERYBODY: [&str; 6] = ["hospital", "server", "alice", "bob", "monitor", "operator"];
const PARTIES: [&str; 4] = ["hospital", "server", "alice", "bob"];
/// The operator may use the whole JetStream API, so also what the parties do with their own consumers.
const FOLLOWERS: [&str; 5] = ["hospital", "server", "alice", "bob", "operator"];

/// A pull that is answered with an error and delivers nothing: a message would come under its own subject, as no answer.
const NO_PULL: &str = "{";

/// A request on `subject(me)`, with this payload, and who may make it.
struct Row {
    what: &'static str,
    subject: fn(&str, &ConsumerNames) -> String,
    payload: &'static str,
    may: &'static [&'static str],
}

/// Somebody else than `me` who has a consumer.
fn other(me: &str) -> &'static str {
    if me == "bob" { "alice" } else { "bob" }
}

fn read(from: &str, to: &str, kind: Kind) -> String {
    Stream::of(kind).direct_get(&subject::subject(&address(1, from, to, kind, 9)))
}

fn to_all(me: &str, kind: Kind) -> String {
    subject::subject(&address(1, me, "all", kind, 8))
}

const ROWS: &[Row] = &[
    Row {
        what: "write as itself",
        subject: |me, _| subject::subject(&address(1, me, "server", Kind::Share, 1)),
        payload: "x",
        may: &PARTIES,
    },
    Row {
        what: "write to any party",
        subject: |me, _| subject::subject(&address(1, me, other(me), Kind::Result, 2)),
        payload: "x",
        may: &PARTIES,
    },
    Row {
        what: "write a chunk",
        subject: |me, _| subject::subject(&address(1, me, "server", Kind::Chunk, 4)),
        payload: "x",
        may: &PARTIES,
    },
    Row {
        what: "write a chunk as another",
        subject: |me, _| subject::subject(&address(1, other(me), "server", Kind::Chunk, 5)),
        payload: "x",
        may: &[],
    },
    Row { what: "announce to all", subject: |me, _| to_all(me, Kind::Announce), payload: "x", may: &["hospital"] },
    Row { what: "begin a round", subject: |me, _| to_all(me, Kind::Begin), payload: "x", may: &["hospital"] },
    Row { what: "end it", subject: |me, _| to_all(me, Kind::Result), payload: "x", may: &["hospital"] },
    Row { what: "abort it", subject: |me, _| to_all(me, Kind::Abort), payload: "x", may: &["hospital"] },
    Row { what: "write a Roster to all", subject: |me, _| to_all(me, Kind::Roster), payload: "x", may: &["server"] },
    Row { what: "share with all", subject: |me, _| to_all(me, Kind::Share), payload: "x", may: &[] },
    Row { what: "write a chunk to all", subject: |me, _| to_all(me, Kind::Chunk), payload: "x", may: &[] },
    Row {
        what: "write as another",
        subject: |me, _| subject::subject(&address(1, other(me), "server", Kind::Share, 3)),
        payload: "x",
        may: &[],
    },
    Row { what: "write as `all`", subject: |_, _| "ward.s.1.all.bob.share.n".into(), payload: "x", may: &[] },
    Row {
        what: "write with a token more",
        subject: |me, _| format!("ward.s.1.{me}.bob.share.n.x"),
        payload: "x",
        may: &[],
    },
    Row {
        what: "write with a token less",
        subject: |me, _| format!("ward.s.1.{me}.bob.share"),
        payload: "x",
        may: &[],
    },
    Row { what: "feed the watchers", subject: |_, _| subject::WATCH.into(), payload: "x", may: &[] },
    Row { what: "ask its signpost", subject: |me, _| Stream::Messages.consumer_info(me), payload: "", may: &FOLLOWERS },
    Row {
        what: "pull from its signpost",
        subject: |me, _| Stream::Messages.consumer_next(me),
        payload: NO_PULL,
        may: &["operator"],
    },
    Row {
        what: "ask about its consumer",
        subject: |me, names| Stream::Messages.consumer_info(&names.of(me)),
        payload: "",
        may: &FOLLOWERS,
    },
    Row {
        what: "pull from its consumer",
        subject: |me, names| Stream::Messages.consumer_next(&names.of(me)),
        payload: NO_PULL,
        may: &FOLLOWERS,
    },
    Row {
        what: "reset its consumer",
        subject: |me, names| Stream::Messages.consumer_reset(&names.of(me)),
        payload: "{}",
        may: &FOLLOWERS,
    },
    Row {
        what: "ask about its consumer of chunks",
        subject: |me, names| Stream::Chunks.consumer_info(&names.of(me)),
        payload: "",
        may: &["hospital", "server", "operator"],
    },
    Row {
        what: "pull from its consumer of chunks",
        subject: |me, names| Stream::Chunks.consumer_next(&names.of(me)),
        payload: NO_PULL,
        may: &["hospital", "server", "operator"],
    },
    Row {
        what: "reset its consumer of chunks",
        // The operator has none, and nobody answers for one that is not there.
        subject: |me, names| Stream::Chunks.consumer_reset(&names.of(if me == "operator" { "server" } else { me })),
        payload: "{}",
        may: &["hospital", "server", "operator"],
    },
    Row {
        what: "reset another's consumer of chunks",
        subject: |me, names| {
            Stream::Chunks.consumer_reset(&names.of(if me == "server" { "hospital" } else { "server" }))
        },
        payload: "{}",
        may: &["operator"],
    },
    Row {
        what: "ask another's signpost",
        subject: |me, _| Stream::Messages.consumer_info(other(me)),
        payload: "",
        may: &["operator"],
    },
    Row {
        what: "ask about another's consumer",
        subject: |me, names| Stream::Messages.consumer_info(&names.of(other(me))),
        payload: "",
        may: &["operator"],
    },
    Row {
        what: "pull from another's consumer",
        subject: |me, names| Stream::Messages.consumer_next(&names.of(other(me))),
        payload: NO_PULL,
        may: &["operator"],
    },
    Row {
        what: "reset another's consumer",
        subject: |me, names| Stream::Messages.consumer_reset(&names.of(other(me))),
        payload: "{}",
        may: &["operator"],
    },
    Row {
        what: "acknowledge for another",
        subject: |me, names| format!("$JS.ACK.WARD.{}.1.1.1.0.0", names.of(other(me))),
        payload: "+ACK",
        may: &[],
    },
    Row {
        what: "read what is addressed to it",
        subject: |me, _| read("alice", me, Kind::Cohort),
        payload: "",
        may: &["server", "operator"],
    },
    Row {
        what: "read a Share to the server",
        subject: |_, _| read("alice", "server", Kind::Share),
        payload: "",
        may: &["server", "hospital", "operator"],
    },
    Row {
        what: "read a chunk to the server",
        subject: |_, _| read("alice", "server", Kind::Chunk),
        payload: "",
        may: &["server", "hospital", "operator"],
    },
    Row {
        what: "read what else is addressed to the server",
        subject: |_, _| read("alice", "server", Kind::Held),
        payload: "",
        may: &["server", "operator"],
    },
    Row {
        what: "read a Share to a member",
        subject: |_, _| read("alice", "bob", Kind::Share),
        payload: "",
        may: &["operator"],
    },
    Row {
        what: "read by number",
        subject: |_, _| "$JS.API.DIRECT.GET.WARD".into(),
        payload: r#"{"seq":1}"#,
        may: &["operator"],
    },
    Row {
        what: "read by the old request",
        subject: |_, _| "$JS.API.STREAM.MSG.GET.WARD".into(),
        payload: r#"{"seq":1}"#,
        may: &["operator"],
    },
    Row {
        what: "ask about the stream",
        subject: |_, _| "$JS.API.STREAM.INFO.WARD".into(),
        payload: "",
        may: &["operator"],
    },
    Row {
        what: "purge",
        subject: |_, _| Stream::Messages.purge(),
        payload: r#"{"filter":"ward.none.*.*.*.*.*"}"#,
        may: &["operator"],
    },
    Row {
        what: "purge chunks",
        subject: |_, _| Stream::Chunks.purge(),
        payload: r#"{"filter":"ward.none.*.*.*.chunk.*.raw"}"#,
        may: &["operator"],
    },
    Row { what: "change the stream", subject: |_, _| Stream::Messages.update(), payload: "{}", may: &["operator"] },
    Row { what: "make a stream", subject: |_, _| "$JS.API.STREAM.CREATE.X".into(), payload: "{}", may: &["operator"] },
    Row { what: "delete a stream", subject: |_, _| "$JS.API.STREAM.DELETE.X".into(), payload: "", may: &["operator"] },
    Row {
        what: "make its consumer",
        subject: |me, _| Stream::Messages.consumer_create(me),
        payload: "{}",
        may: &["operator"],
    },
    Row {
        what: "make a consumer by the old request",
        subject: |me, _| format!("$JS.API.CONSUMER.DURABLE.CREATE.WARD.{me}"),
        payload: "{}",
        may: &["operator"],
    },
    Row {
        what: "delete a consumer",
        subject: |_, _| Stream::Messages.consumer_delete("X"),
        payload: "",
        may: &["operator"],
    },
    Row { what: "ask the system account", subject: |_, _| "$SYS.REQ.SERVER.PING".into(), payload: "", may: &[] },
];

#[tokio::test(flavor = "multi_thread")]
async fn every_role_may_do_its_task_and_nothing_else() {
    let home = Home::new();
    let broker = home.start(None).await;
    // The operator's own consumer too.
    home.operator(&broker).await.follow_outcomes().await.unwrap();
    let mut wrong = Vec::new();
    for me in EVERYBODY {
        let link = home.link(&broker, me).await;
        for row in ROWS {
            wrong.extend(problem(&link, row, me, broker.consumers()).await);
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

async fn problem(link: &Link, row: &Row, me: &str, names: &ConsumerNames) -> Option<String> {
    let may = row.may.contains(&me);
    let answer = link.ask(&(row.subject)(me, names), row.payload.into()).await;
    let as_it_should = match &answer {
        // An error of the API's is an answer too: the request got through.
        Ok(_) | Err(CallError::NoResponders) => may,
        Err(CallError::Refused { name, .. }) => !may && name.as_str() == me,
        Err(_) => false,
    };
    (!as_it_should)
        .then(|| format!("{me}: {} should be {}, got {answer:?}", row.what, if may { "allowed" } else { "refused" }))
}

#[tokio::test(flavor = "multi_thread")]
async fn every_role_may_listen_where_it_should_and_nowhere_else() {
    let home = Home::new();
    let broker = home.start(None).await;
    home.operator(&broker).await;
    for me in EVERYBODY {
        let (client, mut errors) = home.raw(&broker, me).await;
        let own_inbox = format!("_INBOX_{me}.x");
        let others_inbox = format!("_INBOX_{}.>", other(me));
        let rows = [
            (subject::EVERYTHING, me == "monitor"),
            (subject::WATCH, me == "monitor"),
            (own_inbox.as_str(), me != "monitor"),
            (others_inbox.as_str(), false),
            ("ward.*.*.*.alice.*.*", me == "monitor"),
            ("$JS.>", false),
            (">", false),
            // Refused to everybody: once its refusal has come, all those before it would have come.
            ("the.end", false),
        ];
        let mut kept = Vec::new();
        for (subject, _) in rows {
            kept.push(client.subscribe(subject.to_owned()).await.unwrap());
        }
        let mut refused = Vec::new();
        while !refused.iter().any(|line: &String| line.contains("the.end")) {
            refused.push(tokio::time::timeout(PATIENCE, errors.recv()).await.unwrap().unwrap());
        }
        for (subject, may) in rows {
            let line = format!("Subscription to \"{subject}\"").to_lowercase();
            let denied = refused.iter().any(|error| error.to_lowercase().contains(&line));
            assert_eq!(denied, !may, "{me} listening to {subject}: {refused:?}");
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_refusal_is_an_error_of_the_call_that_caused_it() {
    let home = Home::new();
    let broker = home.start(None).await;
    home.operator(&broker).await;
    let alice = home.board(&broker, "alice").await;

    // The good call beside it goes on, though it shares the connection and the moment.
    let (good, bad) = (address(1, "alice", "bob", Kind::Share, 1), address(1, "bob", "server", Kind::Share, 1));
    let (good, bad) = tokio::join!(alice.publish(&good, "x".into()), alice.publish(&bad, "x".into()));
    assert!(good.is_ok());
    let bad = bad.unwrap_err();
    assert!(bad.is_refused());
    assert!(bad.to_string().contains("alice") && bad.to_string().contains(".bob.server.share."), "{bad}");

    let link = home.link(&broker, "alice").await;
    let watching = tokio::time::timeout(PATIENCE, Watcher::new(&link).await.unwrap().next()).await.unwrap();
    assert!(matches!(watching, Err(CallError::Refused { .. })), "{watching:?}");
    let monitor = Board::new(home.link(&broker, "monitor").await);
    assert!(monitor.follow().await.unwrap_err().is_refused());
    let operator = nats::Operator::new(link, broker.consumers().clone());
    assert!(matches!(operator.make_streams(1 << 30).await, Err(CallError::Refused { .. })));
}

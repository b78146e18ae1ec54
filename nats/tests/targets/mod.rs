//! Texts that come from a broker or from people, as a function of bytes; tests run it over its corpus and over mutations,
//! libFuzzer for hours (`just fuzz address`). The first byte says as what the others are read.

// libFuzzer has corpora of its own.
#![allow(dead_code)]

use std::collections::BTreeMap;

use nats::{Endpoint, subject};

/// As what bytes are read: this is the first of them.
pub const USES: [&str; 2] = ["subject", "endpoint"];

/// Reads the bytes; whether they are accepted. What is accepted is the one spelling of what it says, or is read again from
/// what it prints as.
pub fn run(bytes: &[u8]) -> bool {
    let Some((which, bytes)) = bytes.split_first() else { return false };
    let Ok(text) = std::str::from_utf8(bytes) else { return false };
    match USES[usize::from(*which) % USES.len()] {
        "subject" => subject::parse(text).is_ok_and(|address| {
            assert_eq!(subject::subject(&address), text);
            true
        }),
        _ => text.parse::<Endpoint>().is_ok_and(|endpoint| {
            assert_eq!(endpoint.to_string().parse(), Ok(endpoint));
            true
        }),
    }
}

/// A subject of seven parts, and what is wrong with others.
fn subjects() -> Vec<(&'static str, String)> {
    let (session, name) = ("ab".repeat(16), "01".repeat(16));
    let good = format!("ward.{session}.7.alice.bob.confirm.{name}");
    let with = |from: &str, to: &str| good.replacen(from, to, 1);
    vec![
        ("whole", good.clone()),
        ("to-all-whole", with("bob", "all")),
        ("of-a-chunk-whole", format!("{}.raw", with("confirm", "chunk"))),
        ("of-round-0-whole", with(".7.", ".0.")),
        ("of-a-chunk-that-is-not-raw", with("confirm", "chunk")),
        ("that-is-raw-and-no-chunk", format!("{good}.raw")),
        ("nothing", String::new()),
        ("of-dots-alone", ".".repeat(6)),
        ("of-4000-dots", ".".repeat(4000)),
        ("of-seven-parts-and-4000-dots", format!("{good}{}", ".".repeat(4000))),
        ("of-six-parts", good.rsplit_once('.').map(|(most, _)| most.to_owned()).unwrap_or_default()),
        ("of-eight-parts", format!("{good}.x")),
        ("with-an-empty-part", with("alice", "")),
        ("of-another-word", with("ward", "Ward")),
        ("of-an-inbox", "_INBOX_alice.abc".to_owned()),
        ("of-the-api", "$JS.API.STREAM.PURGE.ward".to_owned()),
        ("for-everything", "ward.>".to_owned()),
        ("with-a-wildcard", with("alice", "*")),
        ("with-a-blank", with("alice", "al ice")),
        ("with-a-new-line", with("alice", "alice\n")),
        ("with-nul", with("alice", "al\0ice")),
        ("from-a-homoglyph", with("alice", "\u{430}lice")),
        ("from-all", with("alice", "all")),
        ("from-300-letters", with("alice", &"a".repeat(300))),
        ("of-4000-letters", "a".repeat(4000)),
        ("of-a-session-in-capitals", with("ab", "AB")),
        ("of-a-session-of-31-digits", with("ab", "a")),
        ("of-a-padded-round", with(".7.", ".07.")),
        ("of-a-signed-round", with(".7.", ".+7.")),
        ("of-a-negative-round", with(".7.", ".-7.")),
        ("of-a-round-beyond-32-bits", with(".7.", ".4294967296.")),
        ("of-a-round-in-another-script", with(".7.", ".\u{667}.")),
        ("of-an-unknown-kind", with("confirm", "deny")),
        ("of-a-kind-with-a-capital", with("confirm", "Confirm")),
        ("of-a-name-of-33-digits", format!("{good}0")),
        ("of-a-name-that-is-no-digits", with("0101", "zzzz")),
    ]
}

const ENDPOINTS: [(&str, &str); 26] = [
    ("whole", "localhost:4222"),
    ("of-an-address-whole", "127.0.0.1:1"),
    ("of-an-ipv6-address-whole", "[::1]:4222"),
    ("of-a-mapped-address-whole", "[::ffff:127.0.0.1]:65535"),
    ("nothing", ""),
    ("without-a-port", "localhost"),
    ("without-a-host", ":4222"),
    ("with-an-empty-port", "localhost:"),
    ("of-port-0", "localhost:0"),
    ("of-port-65536", "localhost:65536"),
    ("of-a-negative-port", "localhost:-1"),
    ("of-a-port-in-words", "localhost:http"),
    ("of-a-port-with-a-blank", "localhost: 4222"),
    ("of-two-ports", "localhost:1:2"),
    ("of-an-ipv6-address-without-brackets", "::1:4222"),
    ("of-empty-brackets", "[]:4222"),
    ("of-brackets-around-a-name", "[localhost]:4222"),
    ("of-brackets-never-closed", "[::1:4222"),
    ("of-brackets-twice", "[[::1]]:4222"),
    ("of-an-address-with-a-zone", "[fe80::1%eth0]:4222"),
    ("with-a-scheme", "tls://localhost:4222"),
    ("with-a-user", "alice@localhost:4222"),
    ("with-a-path", "localhost:4222/ward"),
    ("with-a-new-line", "localhost\n:4222"),
    ("with-nul", "local\0host:4222"),
    ("of-a-homoglyph", "loc\u{430}lhost:4222"),
];

pub fn corpus() -> BTreeMap<String, Vec<u8>> {
    let file = |which: u8, what: &str, text: &str| {
        (format!("{}-{what}", USES[usize::from(which)]), [&[which], text.as_bytes()].concat())
    };
    let subjects = subjects().into_iter().map(|(what, text)| file(0, what, &text));
    let mut corpus: BTreeMap<_, _> = subjects.collect();
    corpus.extend(ENDPOINTS.map(|(what, text)| file(1, what, text)));
    corpus.insert("subject-that-is-not-utf-8".into(), vec![0, 0xff, 0xfe]);
    corpus
}

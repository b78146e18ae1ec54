//! A whole message: [`Frame::decode`].

use bytes::Bytes;
use protocol::*;
use serde_bytes::ByteBuf;

use super::{Corpus, bad};
use crate::support::samples::{envelope, signed};
use crate::support::{encode, name};

/// Decodes twice; what is a frame is the same one when it is written again.
pub fn run(bytes: &[u8]) -> bool {
    let payload = Bytes::copy_from_slice(bytes);
    let (once, again) = (Frame::decode(&payload), Frame::decode(&payload));
    let frame = match (once, again) {
        (Ok(once), Ok(again)) => same(once, &again),
        (once, again) => {
            assert_eq!(once.map(drop), again.map(drop));
            return false;
        }
    };
    let written = frame.signed().frame(&frame.attachment);
    let frame = same(frame, &Frame::decode(&written).unwrap());
    let alone = frame.signed().open().unwrap();
    assert_eq!((alone.envelope, alone.digest), (frame.envelope, frame.digest));
    true
}

fn same(one: Frame, other: &Frame) -> Frame {
    assert_eq!((&one.envelope, one.digest, &one.attachment), (&other.envelope, other.digest, &other.attachment));
    assert_eq!(one.signed(), other.signed());
    one
}

pub fn corpus() -> Corpus {
    let mut corpus = Corpus::new();
    let mut add = |prefix: &str, variants: Vec<(String, Vec<u8>)>| {
        corpus.extend(variants.into_iter().map(|(what, bytes)| (format!("{prefix}-{what}"), bytes)));
    };
    add("frame", bad::variants(&signed(1).frame(b"attached")));
    let m = encode(&envelope(Kind::Confirm, vec![0x90]));
    add("envelope", bad::variants(&m).into_iter().map(|(what, m)| (what, framed(&m, &[1; 64], &[]))).collect());
    let signature = |length: usize| (format!("of-{length}-bytes"), framed(&m, &vec![1; length], &[]));
    add("signature", [0, 63, 65, 255].map(signature).into());
    let with = |what: &str, change: fn(&mut Envelope)| {
        let mut envelope = envelope(Kind::Confirm, vec![0x90]);
        change(&mut envelope);
        (what.to_owned(), framed(&encode(&envelope), &[1; 64], &[]))
    };
    let others = vec![
        with("of-version-0", |envelope| envelope.version = 0),
        with("of-version-255", |envelope| envelope.version = 255),
        with("of-the-last-round-whole", |envelope| envelope.round = RoundNo(u32::MAX)),
        with("to-everybody-whole", |envelope| envelope.to = To::All),
        with("of-no-body-whole", |envelope| envelope.body = ByteBuf::new()),
        with("to-itself-whole", |envelope| envelope.to = To::One(name("alice"))),
    ];
    add("envelope", others);
    add("envelope", texts(&m));
    corpus
}

/// Envelopes whose texts are none that may stand there.
fn texts(m: &[u8]) -> Vec<(String, Vec<u8>)> {
    let swap = |what: &str, old: &str, new: &str| {
        let written = |text: &str| [&[0xa0 | text.len() as u8], text.as_bytes()].concat();
        let (old, new) = (written(old), written(new));
        let at = m.windows(old.len()).position(|window| window == old).unwrap();
        (what.to_owned(), framed(&[&m[..at], &new, &m[at + old.len()..]].concat(), &[1; 64], &[]))
    };
    vec![
        swap("from-nobody", "alice", ""),
        swap("from-all", "alice", "all"),
        swap("from-a-capital", "alice", "Alice"),
        swap("from-a-subject-of-two-words", "alice", "alice.bob"),
        swap("from-a-wildcard", "alice", ">"),
        swap("from-a-folder-above", "alice", "../alice"),
        swap("from-a-name-with-nul", "alice", "ali\0ce"),
        swap("from-a-homoglyph", "alice", "\u{430}lice"),
        swap("to-nobody", "bob", ""),
        swap("to-a-name-of-two-lines", "bob", "bob\nbob"),
        swap("of-an-unknown-kind", "confirm", "deny"),
        swap("of-a-kind-with-a-capital", "confirm", "Confirm"),
        swap("of-no-kind", "confirm", ""),
    ]
}

fn framed(m: &[u8], signature: &[u8], attachment: &[u8]) -> Vec<u8> {
    let bytes = serde_bytes::Bytes::new;
    encode(&(bytes(m), bytes(signature), bytes(attachment)))
}

//! Texts: names, labels, digests, numbers. The first byte says which.

use std::fmt::Display;
use std::str::FromStr;

use protocol::*;

use super::Corpus;

type Read = fn(&str) -> bool;

const TEXTS: [(&str, Read); 10] = [
    ("name", again::<Name>),
    ("receiver", again::<To>),
    ("role", again::<Role>),
    ("kind", again::<Kind>),
    ("snapshot", again::<Snapshot>),
    ("digest", again::<Digest>),
    ("tag", again::<SessionTag>),
    ("message-name", again::<MessageName>),
    ("audit", again::<Audit>),
    ("decimal", number),
];

/// Reads; what is accepted is read again from what it prints as.
pub fn run(bytes: &[u8]) -> bool {
    let Some((which, bytes)) = bytes.split_first() else { return false };
    let Ok(text) = std::str::from_utf8(bytes) else { return false };
    TEXTS[usize::from(*which) % TEXTS.len()].1(text)
}

fn again<T: FromStr + Display + PartialEq>(text: &str) -> bool {
    let Ok(read) = text.parse::<T>() else { return false };
    assert!(read.to_string().parse::<T>().is_ok_and(|again| again == read), "{text:?}");
    true
}

fn number(text: &str) -> bool {
    let read = |places: u32| {
        let scale = Scale::new(10_u64.pow(places)).unwrap();
        let Ok(value) = decimal::parse(text, scale) else { return false };
        assert_eq!(decimal::parse(&decimal::format(value.into(), scale), scale), Ok(value), "{text:?}");
        true
    };
    [0, 6, 9].map(read).contains(&true)
}

pub fn corpus() -> Corpus {
    let long = "a".repeat(300);
    let digits = "9".repeat(400);
    let zeros = format!("0.{}1", "0".repeat(300));
    let bad: [(&str, &str); 40] = [
        ("nothing", ""),
        ("a-blank", " "),
        ("nul", "\0"),
        ("a-new-line", "alice\n"),
        ("a-capital", "Alice"),
        ("a-wildcard", "*"),
        ("a-wildcard-for-the-rest", ">"),
        ("two-words-of-a-subject", "alice.bob"),
        ("a-folder-above", "../../etc/passwd"),
        ("the-word-for-everybody", "all"),
        ("a-homoglyph", "\u{430}lice"),
        ("a-mark-of-direction", "\u{202e}ecila"),
        ("300-letters", &long),
        ("a-dash-first", "-alice"),
        ("a-formula", "=1+1"),
        ("a-comma", "1,5"),
        ("two-dots", "1.2.3"),
        ("a-dot-alone", "."),
        ("a-sign-alone", "-"),
        ("two-signs", "--1"),
        ("minus-zero", "-0"),
        ("not-a-number", "NaN"),
        ("infinity", "inf"),
        ("minus-infinity", "-Infinity"),
        ("hexadecimal", "0x10"),
        ("an-exponent-without-a-number", "1e"),
        ("a-large-exponent", "1e400"),
        ("an-exponent-of-ten-digits", "1e9999999999"),
        ("a-small-exponent", "1e-400"),
        ("an-exponent-that-overflows", "1e18446744073709551616"),
        ("zero-with-a-large-exponent", "0e999999999"),
        ("400-digits", &digits),
        ("300-decimals", &zeros),
        ("seven-decimals", "1.0000001"),
        ("the-largest-number", "9223372036854775807"),
        ("one-more-than-the-largest", "9223372036854775808"),
        ("the-smallest-number", "-9223372036854775808"),
        ("digits-of-another-script", "\u{661}\u{662}"),
        ("a-digest-of-63-digits", &"abcdef0123456789".repeat(4)[1..]),
        ("a-digest-in-capitals", &"ABCDEF0123456789".repeat(4)),
    ];
    let named = |(which, (kind, _)): (u8, (&str, Read))| {
        // Each text is read in two ways at least: as a number, and as one or two of the others.
        let of = bad.iter().enumerate().filter(move |(at, _)| which == 9 || at % 9 == usize::from(which) || which == 0);
        of.map(move |(_, (what, text))| (format!("{kind}-{what}"), [&[which], text.as_bytes()].concat()))
            .collect::<Vec<_>>()
    };
    let mut corpus: Corpus = (0..).zip(TEXTS).flat_map(named).collect();
    corpus.insert("name-that-is-not-utf-8".into(), vec![0, 0xff, 0xfe]);
    corpus
}

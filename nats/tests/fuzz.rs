//! Bad subjects and broker's addresses: a committed corpus, each file called after what is wrong with it, and mutations of
//! it from a fixed seed. The same function runs under libFuzzer (`just fuzz address`).
#![allow(missing_docs, unreachable_pub, clippy::unwrap_used, clippy::expect_used, clippy::panic)]

#[path = "../../protocol/tests/support/corpus.rs"]
mod corpus;
mod targets;

use std::path::Path;

/// Beside four times the text: an error in words.
const BESIDE: u64 = 1024;

#[test]
fn bad_subjects_and_endpoints_are_refused() {
    let made = targets::corpus();
    corpus::read(&Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/corpus/address"), &made);
    corpus::pelt(&made, 1, |name, bytes| {
        let taken = std::panic::catch_unwind(|| targets::run(bytes));
        let taken = taken.unwrap_or_else(|_| panic!("{name}: {:?}", String::from_utf8_lossy(bytes)));
        assert!(name.starts_with("mutation") || taken == name.ends_with("-whole"), "{name}");
    });
}

/// A broker can hand over subjects of any length.
#[test]
fn a_subject_takes_less_than_four_times_its_length() {
    let large = [".", "a.", "ward.", "a"].map(|of| of.repeat(1 << 20).into_bytes());
    for text in targets::corpus().into_values().map(|bytes| bytes[1..].to_vec()).chain(large) {
        let Ok(text) = String::from_utf8(text) else { continue };
        let took = allocation_counter::measure(|| drop(std::hint::black_box(nats::subject::parse(&text))));
        let begins: String = text.chars().take(40).collect();
        assert!(took.bytes_max <= 4 * text.len() as u64 + BESIDE, "{begins}: {} took {}", text.len(), took.bytes_max);
    }
}

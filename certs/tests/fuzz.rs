//! Bad certificates, requests and keys: a committed corpus, each file called after what is wrong with it, and mutations
//! of it from a fixed seed. The same function runs under libFuzzer (`just fuzz certificate`).
#![allow(missing_docs, unreachable_pub, clippy::unwrap_used, clippy::expect_used, clippy::panic)]

#[path = "../../protocol/tests/support/corpus.rs"]
mod corpus;
mod targets;

use std::path::Path;

/// Not refused, and no fault: what a root signs of itself proves nothing.
const ROOT: &str = "authority-with-a-bit-flipped-at-its-end";

#[test]
fn bad_certificates_requests_and_keys_are_refused() {
    let made = targets::corpus();
    corpus::read(&Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/corpus/certificate"), &made);
    let mut wrong = Vec::new();
    corpus::pelt(&made, 1, |name, bytes| {
        let taken = std::panic::catch_unwind(|| targets::run(bytes));
        let taken = taken.unwrap_or_else(|_| panic!("{name}: {:?}", String::from_utf8_lossy(bytes)));
        let expected = name.ends_with("-whole") || name == ROOT;
        if !name.starts_with("mutation") && taken != expected {
            wrong.push(name.to_owned());
        }
    });
    assert!(wrong.is_empty(), "accepted, or refused, and should not be: {wrong:#?}");
}

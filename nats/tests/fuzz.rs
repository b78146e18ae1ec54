//! Bad subjects and broker's addresses: a committed corpus, each file called after what is wrong with it, and mutations of
//! it from a fixed seed. The same function runs under libFuzzer (`just fuzz address`).
#![allow(missing_docs, unreachable_pub, clippy::unwrap_used, clippy::expect_used, clippy::panic)]

#[path = "../../protocol/tests/support/corpus.rs"]
mod corpus;
mod targets;

use std::path::Path;

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

//! Bad inputs: committed corpora, each file called after what it attacks, and mutations of them from a fixed seed. The same
//! functions run under libFuzzer (`just fuzz`).
#![allow(missing_docs, unreachable_pub, clippy::unwrap_used, clippy::expect_used, clippy::panic)]

mod support;
mod targets;

use std::path::Path;

use support::corpus;
use targets::{CARETAKER, FRAME, HANDLE, PART, RESTORE, SEALED, TEXT, Target, bad, caretaker, sealed};

fn workspace() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR")).parent().unwrap()
}

/// Hands a target its corpus, and mutations of it; `may` says of which files it may accept.
fn pelt(target: Target, slow: usize, may: impl Fn(&str) -> bool) {
    let made = (target.corpus)();
    corpus::read(&workspace().join("protocol/tests/corpus").join(target.name), &made);
    let mut accepted = 0;
    corpus::pelt(&made, slow, |name, bytes| {
        // What panics says where, and this says with what.
        let context = std::panic::catch_unwind(|| (target.run)(bytes));
        let taken = context.unwrap_or_else(|_| panic!("{}: {name}: {bytes:02x?}", target.name));
        accepted += usize::from(taken);
        assert!(!taken || name.starts_with("mutation") || may(name), "{}: {name} was accepted", target.name);
    });
    assert!(accepted > 0, "{}: nothing was accepted", target.name);
}

#[test]
fn bad_frames_are_refused() {
    pelt(FRAME, 1, bad::is_valid);
}

#[test]
fn bad_bodies_and_attachments_are_refused() {
    pelt(PART, 1, bad::is_valid);
}

#[test]
fn bad_texts_are_refused_and_good_ones_are_read_as_they_print() {
    pelt(TEXT, 1, |_| true);
}

#[test]
fn no_message_in_the_middle_of_a_round_panics_a_machine_or_opens_another_cohort() {
    pelt(HANDLE, 4, |_| true);
}

#[test]
fn no_damaged_store_panics_a_machine() {
    pelt(RESTORE, 4, |_| true);
}

#[test]
fn bad_texts_under_a_seal_are_refused() {
    pelt(SEALED, 4, sealed::may);
}

#[test]
fn nothing_but_the_word_of_its_hospital_takes_a_session_off_the_board() {
    pelt(CARETAKER, 1, caretaker::may);
}

#[test]
fn there_are_400_bad_inputs() {
    let count = |folder: &str| {
        let targets = std::fs::read_dir(workspace().join(folder).join("tests/corpus")).into_iter().flatten();
        targets.map(|target| std::fs::read_dir(target.unwrap().path()).unwrap().count()).sum::<usize>()
    };
    let counts = ["protocol", "certs", "nats", "agents"].map(count);
    assert!(counts.iter().sum::<usize>() >= 400, "{counts:?}");
}

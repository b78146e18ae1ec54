//! The simulator as the test of a change in the product's code (`just mutants`): which seed notices it.
#![allow(missing_docs, clippy::unwrap_used, clippy::expect_used, clippy::panic)]

use std::sync::Mutex;
use std::sync::atomic::{AtomicU64, Ordering};

use protocol::simulation::Case;

/// How many seeds are played: a rule that breaks in fewer runs than one in so many is not seen. With stand-ins for slow
/// cryptography, as `just mutants` has them, they take half a minute.
const SEEDS: u64 = if cfg!(ward_stub_crypto) { 1_000 } else { 100 };

/// Plays seeds on two threads up to the first that fails; nothing is shrunk, as only the seed is wanted.
#[test]
#[ignore = "`just mutants` runs it once for every change; `simulation` plays the same seeds and says more"]
fn a_seed_notices() {
    let next = AtomicU64::new(0);
    let noticed = Mutex::new(None);
    std::thread::scope(|scope| {
        for _ in 0..2 {
            scope.spawn(|| {
                while noticed.lock().unwrap().is_none() {
                    let seed = next.fetch_add(1, Ordering::Relaxed);
                    if seed >= SEEDS {
                        return;
                    }
                    if let Some(failure) = Case::draw(seed).play().failure {
                        noticed.lock().unwrap().get_or_insert((seed, failure));
                    }
                }
            });
        }
    });
    if let Some((seed, failure)) = noticed.into_inner().unwrap() {
        panic!("noticed by seed {seed}: {}: {}", failure.rule, failure.what);
    }
}

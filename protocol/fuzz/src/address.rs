//! The target of the carrier's tests.
#![no_main]

#[path = "../../../nats/tests/targets/mod.rs"]
mod targets;

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| {
    targets::run(bytes);
});

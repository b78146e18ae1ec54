//! The target of the certificates' tests.
#![no_main]

#[path = "../../../certs/tests/targets/mod.rs"]
mod targets;

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| {
    targets::run(bytes);
});

//! The target `caretaker` of the protocol's tests.
#![no_main]

#[path = "../../tests/support/mod.rs"]
mod support;
#[path = "../../tests/targets/mod.rs"]
mod targets;

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| {
    targets::caretaker::run(bytes);
});

//! What the protocol does with bytes from outside, as functions of bytes: tests run them over their corpora and over
//! mutations of these, libFuzzer for hours (`just fuzz`). None may panic, whatever it is handed.

#![allow(dead_code)]

pub mod bad;
pub mod caretaker;
pub mod frame;
pub mod handle;
pub mod part;
pub mod reads;
pub mod restore;
pub mod sealed;
pub mod text;

pub use crate::support::corpus::Corpus;

/// One target: its function says whether the bytes were accepted.
pub struct Target {
    pub name: &'static str,
    pub run: fn(&[u8]) -> bool,
    pub corpus: fn() -> Corpus,
}

pub const FRAME: Target = Target { name: "frame", run: frame::run, corpus: frame::corpus };
pub const PART: Target = Target { name: "part", run: part::run, corpus: part::corpus };
pub const HANDLE: Target = Target { name: "handle", run: handle::run, corpus: handle::corpus };
pub const RESTORE: Target = Target { name: "restore", run: restore::run, corpus: restore::corpus };
pub const TEXT: Target = Target { name: "text", run: text::run, corpus: text::corpus };
pub const SEALED: Target = Target { name: "sealed", run: sealed::run, corpus: sealed::corpus };
pub const CARETAKER: Target = Target { name: "caretaker", run: caretaker::run, corpus: caretaker::corpus };

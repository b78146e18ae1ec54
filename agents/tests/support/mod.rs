//! The real `ward`, in processes of their own, over a home that goes away with the test; and parties that a test plays
//! itself.
//!
//! Nothing here sleeps or looks again and again: one waits for a line, for an end or for a message, with [`PATIENCE`].
//! Whatever a test started is killed when its [`Party`] or its [`Home`] is dropped.

// Each test file uses a part of it.
#![allow(dead_code, unused_imports, unreachable_pub)]
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

mod capture;
mod ended;
mod files;
mod home;
mod party;
mod played;
mod processes;
mod stream;
mod study;

use std::path::{Path, PathBuf};
use std::sync::LazyLock;
use std::time::Duration;

pub use capture::{Capture, address_of};
pub use ended::Ended;
pub use files::{expired_certificate, files, records};
pub use home::Home;
pub use party::Party;
pub use played::{Played, address, name};
pub use rustix::process::Signal;
pub use study::Study;

/// Longer than anything here takes on a slow and busy machine; only a failure waits for it.
pub const PATIENCE: Duration = Duration::from_secs(120);

/// A nats-server that is new enough: found, or installed once for all tests as `ward` itself does it.
pub fn nats_server() -> &'static Path {
    static BINARY: LazyLock<PathBuf> = LazyLock::new(|| {
        let cache = Path::new(env!("CARGO_TARGET_TMPDIR")).join("nats-server");
        nats::find_or_install(&cache).unwrap().path
    });
    &BINARY
}

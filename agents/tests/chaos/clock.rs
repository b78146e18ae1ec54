//! A wall clock of its own for a process.

use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::LazyLock;

/// Gives `command` a clock that is so many seconds ahead.
pub fn move_by(command: &mut Command, seconds: i64) {
    command.env("LD_PRELOAD", library()).env("CHAOS_CLOCK", seconds.to_string());
}

/// Compiled once, by the C compiler without which Ward's TLS could not have been built either.
fn library() -> &'static Path {
    static LIBRARY: LazyLock<PathBuf> = LazyLock::new(|| {
        let source = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/chaos/clock.c");
        let library = Path::new(env!("CARGO_TARGET_TMPDIR")).join("chaos-clock.so");
        // Another run may have it loaded: it is replaced and not written over.
        let fresh = library.with_extension(std::process::id().to_string());
        let mut cc = Command::new(std::env::var_os("CC").unwrap_or_else(|| "cc".into()));
        let compiled = cc.args(["-shared", "-fPIC", "-O1", "-o"]).arg(&fresh).arg(source).status();
        assert!(compiled.is_ok_and(|status| status.success()), "the C compiler `cc` is needed to move a clock");
        std::fs::rename(fresh, &library).unwrap();
        library
    });
    &LIBRARY
}

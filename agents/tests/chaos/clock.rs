//! A wall clock of its own for the processes of a party.

use std::fs::File;
use std::os::unix::fs::FileExt as _;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::LazyLock;

/// A clock that is right until it is moved: its processes have the file mapped that says by how much it is wrong.
pub struct Clock {
    path: PathBuf,
    file: File,
}

impl Clock {
    /// One whose file is at `path`.
    pub fn new(path: PathBuf) -> Self {
        let clock = Self { file: File::create_new(&path).unwrap(), path };
        clock.move_to(0);
        clock
    }

    /// Makes it the clock of the process that `command` starts.
    pub fn give(&self, command: &mut Command) {
        command.env("LD_PRELOAD", library()).env("CHAOS_CLOCK", &self.path);
    }

    /// Moves it, so many seconds ahead of the right one, under whoever runs by it now and from now on.
    pub fn move_to(&self, seconds: i64) {
        self.file.write_all_at(&seconds.to_ne_bytes(), 0).unwrap();
    }
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

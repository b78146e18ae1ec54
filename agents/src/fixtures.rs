//! What unit tests of several files start from.
#![allow(clippy::unwrap_used)]

use protocol::Name;

use crate::home::Home;

/// A name that is one.
pub(crate) fn name(text: &str) -> Name {
    text.parse().unwrap()
}

/// A home with its authority and the parties that every study has; it goes away with the folder.
pub(crate) fn new_home() -> (tempfile::TempDir, Home) {
    let dir = tempfile::tempdir().unwrap();
    let home = Home::at(dir.path().join("home"));
    home.init(None).unwrap();
    (dir, home)
}

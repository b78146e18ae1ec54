//! How much of the disk the board may take.

use std::fs;
use std::io;
use std::path::Path;

/// What a board gets at least: a round of a small study.
const LEAST: u64 = 64 << 20;

/// Half of what the board in `dir` has and could have: the other half is left to everybody else on that disk.
///
/// In bytes. `dir` need not be there yet, but the folder that it will be in.
pub fn share_of_disk(dir: &Path) -> io::Result<u64> {
    let existing = dir.ancestors().find(|folder| folder.exists()).unwrap_or(dir);
    let disk = rustix::fs::statvfs(existing)?;
    let free = disk.f_bavail.saturating_mul(disk.f_frsize);
    Ok((free.saturating_add(used(dir)) / 2).max(LEAST))
}

/// What the files below `dir` take. One that goes away meanwhile counts nothing.
fn used(dir: &Path) -> u64 {
    let entries = fs::read_dir(dir).into_iter().flatten().flatten();
    let sizes = entries.filter_map(|entry| {
        let entry_is = entry.metadata().ok()?;
        Some(if entry_is.is_dir() { used(&entry.path()) } else { entry_is.len() })
    });
    sizes.sum()
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn a_board_gets_half_and_what_it_has_counts() {
        let dir = tempfile::tempdir().unwrap();
        let store = dir.path().join("board");
        assert!(share_of_disk(&store).unwrap() >= LEAST);
        fs::create_dir_all(store.join("streams")).unwrap();
        fs::write(store.join("streams/one"), [0; 1000]).unwrap();
        fs::write(store.join("two"), [0; 24]).unwrap();
        assert_eq!(used(&store), 1024);
    }
}

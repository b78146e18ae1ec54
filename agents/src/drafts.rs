//! Files come into place as a whole: each is begun under a name of its own, a draft. Who is killed before it is in place
//! leaves it to whoever has the same lock next, and who has that lock removes it.

use std::path::Path;
use std::{fs, io};

/// How the names of drafts begin that are made under the home's lock; those of `certs` are.
pub(crate) const UNDER_LOCK: &str = certs::DRAFT;
/// How the name of a new CA's folder begins, which is made under the home's lock.
pub(crate) const OF_CA: &str = ".ca-draft-";
/// How the names of drafts begin that are made by the one process that runs as a party.
pub(crate) const OF_RUNNING: &str = ".draft-";

/// Removes what was begun in `dir`, which need not be there, under names that begin with `prefix`. Only for who has the lock
/// under which they are made.
///
/// # Errors
/// If the folder cannot be read or a draft not be removed.
pub(crate) fn clear(dir: &Path, prefix: &str) -> io::Result<()> {
    let entries = match fs::read_dir(dir) {
        Err(cause) if cause.kind() == io::ErrorKind::NotFound => return Ok(()),
        entries => entries?,
    };
    for entry in entries {
        let entry = entry?;
        if !entry.file_name().as_encoded_bytes().starts_with(prefix.as_bytes()) {
            continue;
        }
        match entry.file_type()?.is_dir() {
            true => fs::remove_dir_all(entry.path())?,
            false => fs::remove_file(entry.path())?,
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use super::*;

    #[test]
    fn drafts_go_and_everything_else_stays() {
        let dir = tempfile::tempdir().unwrap();
        let at = |name: &str| dir.path().join(name);
        for name in [".draft-1", ".ward-draft-1", ".ward-2", "draft-1", "key.pem"] {
            fs::write(at(name), "").unwrap();
        }
        fs::create_dir(at(".ca-draft-1")).unwrap();
        fs::write(at(".ca-draft-1").join("ca.key"), "").unwrap();
        for (prefix, gone) in [(UNDER_LOCK, ".ward-draft-1"), (OF_RUNNING, ".draft-1"), (OF_CA, ".ca-draft-1")] {
            assert!(at(gone).exists());
            clear(dir.path(), prefix).unwrap();
            assert!(!at(gone).exists());
        }
        assert!([".ward-2", "draft-1", "key.pem"].into_iter().all(|name| at(name).exists()));
        clear(&at("nowhere"), OF_RUNNING).unwrap();
        assert!(!at("nowhere").exists());
    }
}

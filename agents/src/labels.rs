//! Which snapshot labels were given in this home, so that `ward up` can take a fresh one.

use std::fs;
use std::io::Write as _;
use std::os::unix::fs::OpenOptionsExt as _;

use protocol::Snapshot;

use crate::home::Home;

/// Notes that `label` was given. Only numbers matter: the next one is taken from them.
///
/// # Errors
/// If the home cannot be written.
pub fn note(home: &Home, label: &Snapshot) -> std::io::Result<()> {
    if label.as_str().parse::<u64>().is_err() {
        return Ok(());
    }
    let mut labels = fs::OpenOptions::new().create(true).append(true).mode(0o600).open(home.path().join("labels"))?;
    writeln!(labels, "{label}")
}

/// The number after the largest that was ever given; 1 in a new home.
///
/// # Errors
/// If the home cannot be read.
pub fn fresh(home: &Home) -> anyhow::Result<Snapshot> {
    let labels = match fs::read_to_string(home.path().join("labels")) {
        Ok(labels) => labels,
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => String::new(),
        Err(error) => return Err(error.into()),
    };
    let largest = labels.lines().filter_map(|label| label.parse::<u64>().ok()).max().unwrap_or(0);
    Ok(largest.saturating_add(1).to_string().parse()?)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn a_fresh_label_is_the_next_number() {
        let dir = tempfile::tempdir().unwrap();
        let home = Home::at(dir.path());
        assert_eq!(fresh(&home).unwrap().as_str(), "1");
        for label in ["2", "vitals-2026-11", "1"] {
            note(&home, &label.parse().unwrap()).unwrap();
        }
        assert_eq!(fresh(&home).unwrap().as_str(), "3");
    }
}

//! What may be left in a home in which nobody runs any more.

use std::fs;
use std::path::{Path, PathBuf};

use protocol::Name;

/// All files and folders that may stay; `*` stands for the name of a party.
const MAY_STAY: [&str; 27] = [
    "broker",
    "broker/consumers.secret",
    "broker/jetstream",
    "broker/lock",
    "broker/lock.gate",
    "broker/nats-server.conf",
    "broker/nats-server.log",
    "broker/nats-server.log.old",
    "broker/port",
    "ca",
    "ca/ca.key",
    "ca/ca.pem",
    "ca/issued",
    "ca/issued/*.pem",
    "ca/revoked",
    "ca/revoked/*",
    "labels",
    "lock",
    "parties",
    "parties/*",
    "parties/*/ca.pem",
    "parties/*/cert.pem",
    "parties/*/key.pem",
    "parties/*/lock",
    "parties/*/lock.gate",
    "parties/*/patient.toml",
    "parties/*/state.redb",
];

/// nats-server's own: what is in there is none of Ward's.
const STORE: &str = "broker/jetstream";

/// What is in `home` and may not stay, such as a draft, an offer, the broker's address or half of a file.
pub fn strays(home: &Path) -> Vec<PathBuf> {
    let mut strays = Vec::new();
    let mut folders = vec![home.to_path_buf()];
    while let Some(folder) = folders.pop() {
        for entry in fs::read_dir(folder).unwrap() {
            let (path, kind) = entry.map(|entry| (entry.path(), entry.file_type().unwrap())).unwrap();
            let name = path.strip_prefix(home).unwrap();
            match may_stay(name) {
                false => strays.push(path),
                true if kind.is_dir() && name != Path::new(STORE) => folders.push(path),
                true => {}
            }
        }
    }
    strays
}

fn may_stay(path: &Path) -> bool {
    let parts: Vec<&str> = path.iter().filter_map(|part| part.to_str()).collect();
    MAY_STAY.iter().any(|pattern| {
        let pattern: Vec<&str> = pattern.split('/').collect();
        pattern.len() == parts.len() && pattern.iter().zip(&parts).all(|(pattern, part)| fits(pattern, part))
    })
}

fn fits(pattern: &str, part: &str) -> bool {
    match pattern.strip_prefix('*') {
        Some(end) => part.strip_suffix(end).is_some_and(|name| name.parse::<Name>().is_ok()),
        None => pattern == part,
    }
}

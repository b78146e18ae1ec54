//! The keys under which a machine's records stand in its store.

use std::collections::{BTreeMap, BTreeSet};

use serde::{Deserialize, Serialize};
use zeroize::Zeroize;

use crate::id::SessionId;
use crate::secret::SecretBytes;

/// All records of one party, by key; they may hold secrets and are wiped on drop.
pub type Records = BTreeMap<String, SecretBytes>;

/// A secret as it stands in a record; wiped on drop.
#[derive(Serialize, Deserialize)]
#[serde(transparent)]
pub(crate) struct StoredSecret(#[serde(with = "serde_bytes")] pub(crate) [u8; 32]);

impl Drop for StoredSecret {
    fn drop(&mut self) {
        self.0.zeroize();
    }
}

/// The keys of a session's own records start with this.
pub(crate) fn session_key(session: SessionId, what: &str) -> String {
    format!("session/{session}/{what}")
}

/// An ended session is remembered by this key.
pub(crate) fn over_key(session: SessionId) -> String {
    format!("over/{session}")
}

/// The key of the record with this number among those that start with `prefix`.
pub(crate) fn numbered_key(prefix: &str, number: u64) -> String {
    format!("{prefix}{number:016x}")
}

/// The number that [`numbered_key`] made this key of. The last there is has no next one, so that it is none.
pub(crate) fn number_of(prefix: &str, key: &str) -> Option<u64> {
    let number = u64::from_str_radix(key.strip_prefix(prefix)?, 16).ok()?;
    (number < u64::MAX && numbered_key(prefix, number) == key).then_some(number)
}

/// The sessions of a store that are over: remembered as such, or not to be read any longer; and the keys that belong to
/// those.
pub(crate) fn leftovers(store: &Records, is_live: impl Fn(SessionId) -> bool) -> (BTreeSet<SessionId>, Vec<String>) {
    let mut over: BTreeSet<SessionId> =
        store.keys().filter_map(|key| key.strip_prefix("over/")?.parse().ok()).collect();
    let mut keys = Vec::new();
    for key in store.keys() {
        let session = key.strip_prefix("session/").and_then(|rest| rest.split('/').next()?.parse().ok());
        if let Some(session) = session.filter(|session| !is_live(*session)) {
            over.insert(session);
            keys.push(key.clone());
        }
    }
    (over, keys)
}

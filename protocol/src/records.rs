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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::id::Digest;

    /// The subjects of two sessions may say the same, by a search for 2^64 digests; their records stay apart.
    #[test]
    fn sessions_of_one_tag_have_records_of_their_own() {
        let [one, other] = [1, 2].map(|last| Digest(std::array::from_fn(|at| if at < 31 { 7 } else { last })));
        assert_eq!(crate::id::SessionTag::from(one), other.into());
        assert_ne!(session_key(one, "round"), session_key(other, "round"));
        assert_ne!(over_key(one), over_key(other));
        let store = [session_key(one, "round"), session_key(other, "round"), over_key(other)];
        let store: Records = store.map(|key| (key, vec![1].into())).into();
        let (over, keys) = leftovers(&store, |session| session == one);
        assert_eq!((over, keys), ([other].into(), vec![session_key(other, "round")]));
    }
}

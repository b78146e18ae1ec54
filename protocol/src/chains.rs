//! The chain of keys that a patient and a member share: one per session, hashed once per round (PROTOCOL.md, *Key*).

use serde::{Deserialize, Serialize};

use crate::id::RoundNo;
use crate::records::StoredSecret;
use crate::secret::ChainKey;

/// A chain at the round that its key is for.
#[derive(Debug)]
pub(crate) struct Chain {
    at: RoundNo,
    key: ChainKey,
}

/// A [`Chain`] as it stands in a store.
#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct StoredChain {
    at: RoundNo,
    key: StoredSecret,
}

impl Chain {
    /// The chain that begins with `key`, at round 0.
    pub(crate) fn new(key: ChainKey) -> Self {
        Self { at: RoundNo::SETUP, key }
    }

    /// Hashes on to `round`; the keys before it are gone. A round that is past leaves the chain as it is.
    pub(crate) fn advance(&mut self, round: RoundNo) {
        for _ in self.at.0..round.0 {
            self.key = self.key.next();
        }
        self.at = self.at.max(round);
    }

    /// The key of `round`; `None` if the chain is past it.
    pub(crate) fn key(&self, round: RoundNo) -> Option<ChainKey> {
        let steps = round.0.checked_sub(self.at.0)?;
        Some(self.key.duplicate().advance(steps))
    }

    /// The chain for a store.
    pub(crate) fn store(&self) -> StoredChain {
        StoredChain { at: self.at, key: StoredSecret(*self.key.expose()) }
    }
}

impl From<&StoredChain> for Chain {
    fn from(stored: &StoredChain) -> Self {
        Self { at: stored.at, key: ChainKey::new(stored.key.0) }
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn a_party_that_missed_rounds_hashes_on_and_the_past_is_gone() {
        let mut steady = Chain::new(ChainKey::new([1; 32]));
        let mut absent = Chain::new(ChainKey::new([1; 32]));
        for round in 1..=5 {
            steady.advance(RoundNo(round));
        }
        let ahead = absent.key(RoundNo(5)).unwrap();
        absent.advance(RoundNo(5));
        assert_eq!(steady.key(RoundNo(5)).unwrap().expose(), absent.key(RoundNo(5)).unwrap().expose());
        assert_eq!(ahead.expose(), steady.key(RoundNo(5)).unwrap().expose());
        assert!(steady.key(RoundNo(4)).is_none());
        steady.advance(RoundNo(2));
        assert!(steady.key(RoundNo(5)).is_some());
    }
}

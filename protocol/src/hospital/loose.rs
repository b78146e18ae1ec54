//! Pieces of sums that came before the message that names them.

use std::collections::BTreeMap;

use bytes::Bytes;

use crate::chunks::CHUNK_BYTES;
use crate::id::{Digest, Name};
use crate::seal::TAG_BYTES;

/// The largest piece of a sum: a chunk, sealed.
const LARGEST_PIECE: usize = CHUNK_BYTES + TAG_BYTES;

/// What is kept by sender, as its subject says: who floods takes up no room but its own.
#[derive(Debug, Default)]
pub(super) struct Loose(BTreeMap<Name, BTreeMap<Digest, Bytes>>);

impl Loose {
    /// Keeps a piece of `from` that nobody has named yet; at most `room` of them.
    pub(super) fn keep(&mut self, from: Name, digest: Digest, bytes: Bytes, room: usize) {
        let pieces = self.0.entry(from).or_default();
        if pieces.len() < room && bytes.len() <= LARGEST_PIECE {
            pieces.insert(digest, bytes);
        }
    }

    /// The piece of `from` with this digest, which it has named: it makes room for the next.
    pub(super) fn take(&mut self, from: &Name, digest: Digest) -> Option<Bytes> {
        self.0.get_mut(from)?.remove(&digest)
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn a_sender_has_room_of_its_own_which_what_it_names_leaves() {
        let (alice, bob): (Name, Name) = ("alice".parse().unwrap(), "bob".parse().unwrap());
        let mut loose = Loose::default();
        let mut keep = |from: &Name, byte: u8, bytes| {
            loose.keep(from.clone(), Digest([byte; 32]), Bytes::from(vec![byte; bytes]), 2);
        };
        (1..=9).for_each(|byte| keep(&alice, byte, 1));
        keep(&bob, 9, LARGEST_PIECE);
        keep(&bob, 8, LARGEST_PIECE + 1);
        assert!(loose.take(&alice, Digest([2; 32])).is_some() && loose.take(&alice, Digest([3; 32])).is_none());
        assert!(loose.take(&bob, Digest([9; 32])).is_some() && loose.take(&bob, Digest([8; 32])).is_none());
        loose.keep(alice.clone(), Digest([3; 32]), Bytes::new(), 2);
        assert!(loose.take(&alice, Digest([3; 32])).is_some());
    }
}

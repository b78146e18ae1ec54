//! Seeds: what a patient's masks of one round are expanded from (PROTOCOL.md, *Sharing*).

use vectors::StreamKey;

use crate::id::{Digest, Name};
use crate::kdf::derive;
use crate::secret::{Root, Seed};

impl Seed {
    /// `s[i,B]` from a patient's root of this round, bound to the Begin, the digest of its input and
    /// the block's index: two inputs never share a mask, not even after a restore.
    pub fn derive(root: &Root, begin: Digest, input: Digest, block: u16) -> Self {
        Self::new(derive("ward/1 seed", root.expose(), &[&begin.0, &input.0, &block.to_le_bytes()]))
    }

    /// The key under which this seed expands.
    pub fn stream_key(&self) -> StreamKey {
        StreamKey::new(derive("ward/1 stream", self.expose(), &[]))
    }

    /// What a Share says of this seed: it binds the sender, the block's index and the Begin, and
    /// tells nothing of the mask.
    pub fn commitment(&self, sender: &Name, block: u16, begin: Digest) -> Digest {
        let parts: [&[u8]; 3] = [sender.as_str().as_bytes(), &block.to_le_bytes(), &begin.0];
        Digest(derive("ward/1 commitment", self.expose(), &parts))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    // BLAKE3 of these inputs by a separate Python implementation of its specification.
    #[test]
    fn known_answers_for_seeds() {
        let begin = Digest([3; 32]);
        let seed = Seed::derive(&Root::new([1; 32]), begin, Digest([4; 32]), 5);
        assert_eq!(hex::encode(seed.expose()), "a71c8b590c39966ee03b6e1f4ebb59a95888aadf70562269f783265d6b3e2654");
        let key = seed.stream_key();
        assert_eq!(hex::encode(key.expose()), "235abd052cdb1973d637ec84d8d0eff0060a597b49e045bb1df68eca1c2b310b");
        let commitment = seed.commitment(&"alice".parse().unwrap(), 5, begin);
        assert_eq!(commitment.to_string(), "1a920a9bb8dcecae0a1ca4d7001d42f458049caf89154a610902a2bda5dcf093");
    }

    #[test]
    fn seeds_are_bound_to_all_that_they_are_made_from() {
        let (root, other) = (Root::new([1; 32]), Root::new([2; 32]));
        let (a, b) = (Digest([3; 32]), Digest([4; 32]));
        let seeds = [
            Seed::derive(&root, a, b, 0),
            Seed::derive(&other, a, b, 0),
            Seed::derive(&root, b, a, 0),
            Seed::derive(&root, a, a, 0),
            Seed::derive(&root, a, b, 1),
        ];
        assert!((1..seeds.len()).all(|i| seeds[..i].iter().all(|seed| seed.expose() != seeds[i].expose())));
        assert_eq!(Seed::derive(&root, a, b, 0).expose(), seeds[0].expose());
        assert_ne!(seeds[0].stream_key().expose(), seeds[0].expose());
    }

    #[test]
    fn commitments_bind_sender_block_and_begin() {
        let seed = Seed::new([5; 32]);
        let (alice, bob): (Name, Name) = ("alice".parse().unwrap(), "bob".parse().unwrap());
        let (begin, next) = (Digest([6; 32]), Digest([7; 32]));
        let commitments = [
            seed.commitment(&alice, 0, begin),
            seed.commitment(&bob, 0, begin),
            seed.commitment(&alice, 1, begin),
            seed.commitment(&alice, 0, next),
            Seed::new([8; 32]).commitment(&alice, 0, begin),
        ];
        assert!((1..commitments.len()).all(|i| !commitments[..i].contains(&commitments[i])));
        assert_ne!(&commitments[0].0, seed.stream_key().expose());
    }
}

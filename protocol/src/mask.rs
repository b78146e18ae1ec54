//! From seeds to masks: G is AES-256-CTR, one lane for each coordinate (PROTOCOL.md, *Sharing*).

use crate::id::{Digest, Name};
use crate::kdf::derive;
use crate::keystream;
use crate::lane::Lane;
use crate::ring::{Lanes, Ring, RingError, pack_onto};
use crate::secret::{Root, Seed, StreamKey};
use crate::words;

/// Bytes of lanes that all masks are applied to before the next: they stay in the second cache, and a key's schedule
/// is made anew for each in a hundredth of its time.
const TILE: usize = 64 * 1024;

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

/// Adds the mask's coordinates from `start` on to `lanes`, which must be the lanes of `ring`.
pub fn add_mask(key: &StreamKey, ring: Ring, start: u64, lanes: &mut Lanes) {
    add_masks(std::slice::from_ref(key), ring, start, lanes);
}

/// Subtracts the mask's coordinates from `start` on from `lanes`, which must be the lanes of `ring`.
pub fn sub_mask(key: &StreamKey, ring: Ring, start: u64, lanes: &mut Lanes) {
    sub_masks(std::slice::from_ref(key), ring, start, lanes);
}

/// Adds the coordinates from `start` on of many masks to `lanes`, which must be the lanes of `ring`.
pub fn add_masks(keys: &[StreamKey], ring: Ring, start: u64, lanes: &mut Lanes) {
    let at = u128::from(start) * ring.lane_bytes() as u128;
    match lanes {
        Lanes::U16(v) => combine::<_, 2>(keys, at, v, Lane::plus),
        Lanes::U32(v) => combine::<_, 4>(keys, at, v, Lane::plus),
        Lanes::U64(v) => combine::<_, 8>(keys, at, v, Lane::plus),
    }
}

/// Subtracts the coordinates from `start` on of many masks from `lanes`, which must be the lanes of `ring`.
pub fn sub_masks(keys: &[StreamKey], ring: Ring, start: u64, lanes: &mut Lanes) {
    let at = u128::from(start) * ring.lane_bytes() as u128;
    match lanes {
        Lanes::U16(v) => combine::<_, 2>(keys, at, v, Lane::minus),
        Lanes::U32(v) => combine::<_, 4>(keys, at, v, Lane::minus),
        Lanes::U64(v) => combine::<_, 8>(keys, at, v, Lane::minus),
    }
}

/// The coordinates of a masked vector from `start` on, as they travel: `values` without the masks of all `keys`.
///
/// Fails with [`RingError::Value`] where a value does not lie in the ring.
pub fn mask_values(keys: &[StreamKey], ring: Ring, start: u64, values: &[i64]) -> Result<Vec<u8>, RingError> {
    let at = u128::from(start) * ring.lane_bytes() as u128;
    let mut tile = Lanes::zero(ring, values.len().min(TILE / ring.lane_bytes()));
    match &mut tile {
        Lanes::U16(v) => mask_tiles::<_, 2>(keys, ring, at, values, v),
        Lanes::U32(v) => mask_tiles::<_, 4>(keys, ring, at, values, v),
        Lanes::U64(v) => mask_tiles::<_, 8>(keys, ring, at, values, v),
    }
}

/// From values to words in one walk over memory: what happens between is in `tile`, which the caller wipes.
fn mask_tiles<L: Lane, const S: usize>(
    keys: &[StreamKey],
    ring: Ring,
    at: u128,
    values: &[i64],
    tile: &mut [L],
) -> Result<Vec<u8>, RingError> {
    let mut packed = Vec::with_capacity(values.len() * ring.word_bytes());
    for (i, part) in values.chunks(TILE / S).enumerate() {
        let lanes = &mut tile[..part.len()];
        if !words::cut(part, ring.bits().into(), lanes) {
            return Err(ring.refusal(values));
        }
        combine::<L, S>(keys, at + (i * TILE) as u128, lanes, L::minus);
        pack_onto(lanes, ring, &mut packed);
    }
    Ok(packed)
}

fn combine<L: Lane, const S: usize>(keys: &[StreamKey], at: u128, lanes: &mut [L], op: impl Fn(L, L) -> L) {
    for (tile, lanes) in lanes.chunks_mut(TILE / S).enumerate() {
        let at = at + (tile * TILE) as u128;
        keys.iter().for_each(|key| keystream::combine::<L, S>(key, at, lanes, &op));
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use proptest::prelude::*;

    use super::*;

    fn ring(bits: u8) -> Ring {
        Ring::new(bits).unwrap()
    }

    fn mask(key: &StreamKey, ring: Ring, start: u64, len: usize) -> Vec<i64> {
        let mut lanes = Lanes::zero(ring, len);
        add_mask(key, ring, start, &mut lanes);
        lanes.to_i64(ring)
    }

    /// The bytes of the keystream that the lanes from byte `at` on are made of.
    fn keystream(bits: u8, at: u64, bytes: usize) -> String {
        let (key, ring) = (StreamKey::new(std::array::from_fn(|i| i as u8)), ring(bits));
        let mut lanes = Lanes::zero(ring, bytes / ring.lane_bytes());
        add_mask(&key, ring, at / ring.lane_bytes() as u64, &mut lanes);
        hex::encode(lanes.pack(ring))
    }

    // AES-256-CTR under the key 00 01 .. 1f with a zero IV, by Python `cryptography` 48.0.0; the
    // first and the last also by `openssl enc -aes-256-ctr` 3.0.19.
    #[test]
    fn known_answers() {
        for bits in [16, 32, 64] {
            let first = "f29000b62a499fd0a9f39a6add2e7780f05d76ae4ab99fe5a6f69b3148c2363d";
            assert_eq!(keystream(bits, 0, 32), first);
            assert_eq!(keystream(bits, 40_000, 16), "d3e8f20c73fe1b77654f8b3b96ac7c93");
            // The last block that a vector can reach.
            assert_eq!(keystream(bits, (1 << 33) - 16, 16), "b23ba4ead13cc3473380877c1d7fcb78");
        }
        // A word of 24 bits is the low three bytes of its lane.
        assert_eq!(keystream(24, 0, 16), "f290002a499fa9f39add2e77");
        assert_eq!(keystream(40, 0, 16), "f29000b62aa9f39a6add");
    }

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

    #[test]
    fn a_value_outside_is_named_by_its_place_in_the_whole() {
        let mut values = vec![1; 40_000];
        values[39_000] = 1 << 40;
        let refused = mask_values(&[StreamKey::new([9; 32])], ring(40), 0, &values);
        assert_eq!(refused, Err(RingError::Value { index: 39_000, bits: 40 }));
    }

    proptest! {
        #[test]
        fn many_masks_at_once_equal_one_by_one(bytes in 2_u8..=8, start in 0_u64..1_000, len in 0_usize..40_000, count in 0_u8..4) {
            let ring = ring(bytes * 8);
            let keys: Vec<StreamKey> = (0..count).map(|i| StreamKey::new([i; 32])).collect();
            let values: Vec<i64> = (0..len as i64).map(|i| i % 65_536 - 32_768).collect();
            let (mut added, mut taken) = (Lanes::from_i64(ring, &values).unwrap(), Lanes::from_i64(ring, &values).unwrap());
            for key in &keys {
                add_mask(key, ring, start, &mut added);
                sub_mask(key, ring, start, &mut taken);
            }
            let (mut sum, mut difference) = (Lanes::from_i64(ring, &values).unwrap(), Lanes::from_i64(ring, &values).unwrap());
            add_masks(&keys, ring, start, &mut sum);
            sub_masks(&keys, ring, start, &mut difference);
            prop_assert_eq!(sum.to_i64(ring), added.to_i64(ring));
            prop_assert_eq!(difference.to_i64(ring), taken.to_i64(ring));
            prop_assert_eq!(mask_values(&keys, ring, start, &values).unwrap(), taken.pack(ring));
        }

        #[test]
        fn chunkwise_equals_whole(bytes in 2_u8..=8, start in 0_u64..70_000, len in 0_usize..20_000, cut in 0_usize..20_000) {
            let (key, ring) = (StreamKey::new([9; 32]), ring(bytes * 8));
            let cut = cut.min(len);
            let whole = mask(&key, ring, start, len);
            prop_assert_eq!(&whole[..cut], mask(&key, ring, start, cut));
            prop_assert_eq!(&whole[cut..], mask(&key, ring, start + cut as u64, len - cut));
        }

        #[test]
        fn what_was_added_can_be_taken_away(bytes in 2_u8..=8, values in prop::collection::vec(-32_768_i64..32_768, 0..5_000)) {
            let (key, ring) = (StreamKey::new([9; 32]), ring(bytes * 8));
            let mut lanes = Lanes::from_i64(ring, &values).unwrap();
            add_mask(&key, ring, 7, &mut lanes);
            prop_assert!(values.len() < 16 || lanes.to_i64(ring) != values);
            sub_mask(&key, ring, 7, &mut lanes);
            prop_assert_eq!(lanes.to_i64(ring), values);
        }
    }
}

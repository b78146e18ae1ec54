//! From keys to masks: G is AES-256-CTR, one lane for each coordinate (PROTOCOL.md, *Sharing*).

use bytes::Bytes;
use zerocopy::IntoBytes as _;
use zeroize::Zeroize as _;

use crate::keystream;
use crate::lane::Lane;
use crate::ring::{Lanes, Ring, RingError, pack_onto};
use crate::secret::StreamKey;
use crate::words;

/// Bytes of lanes that all masks are applied to before the next: they stay in the second cache, and a key's schedule
/// is made anew for each in a hundredth of its time.
const TILE: usize = 64 * 1024;

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
pub fn mask_values(keys: &[StreamKey], ring: Ring, start: u64, values: &[i64]) -> Result<Bytes, RingError> {
    let at = u128::from(start) * ring.lane_bytes() as u128;
    if cfg!(target_endian = "little") && ring.word_bytes() == ring.lane_bytes() {
        return match ring.lane_bytes() {
            2 => mask_in_place::<u16, 2>(keys, ring, at, values),
            4 => mask_in_place::<u32, 4>(keys, ring, at, values),
            _ => mask_in_place::<u64, 8>(keys, ring, at, values),
        };
    }
    let mut tile = Lanes::with_capacity(ring, values.len().min(TILE / ring.lane_bytes()));
    match &mut tile {
        Lanes::U16(v) => mask_tiles::<_, 2>(keys, ring, at, values, v),
        Lanes::U32(v) => mask_tiles::<_, 4>(keys, ring, at, values, v),
        Lanes::U64(v) => mask_tiles::<_, 8>(keys, ring, at, values, v),
    }
}

/// Lanes that travel as they lie in memory.
struct Words<L>(Vec<L>);

impl<L: Lane> AsRef<[u8]> for Words<L> {
    fn as_ref(&self) -> &[u8] {
        self.0.as_bytes()
    }
}

/// Where lanes lie in memory as they travel they are masked where they are: a copy takes longer than a mask.
fn mask_in_place<L: Lane, const S: usize>(
    keys: &[StreamKey],
    ring: Ring,
    at: u128,
    values: &[i64],
) -> Result<Bytes, RingError> {
    let mut lanes = Vec::with_capacity(values.len());
    for (i, part) in values.chunks(TILE / S).enumerate() {
        let done = lanes.len();
        let fit = words::cut(part, ring.bits().into(), &mut lanes);
        let tile: &mut [L] = &mut lanes[done..];
        if !fit {
            tile.zeroize();
            return Err(ring.refusal(values));
        }
        combine::<L, S>(keys, at + (i * TILE) as u128, tile, L::minus);
    }
    Ok(Bytes::from_owner(Words(lanes)))
}

/// From values to words in one walk over memory: what happens between is in `tile`, which the caller wipes.
fn mask_tiles<L: Lane, const S: usize>(
    keys: &[StreamKey],
    ring: Ring,
    at: u128,
    values: &[i64],
    tile: &mut Vec<L>,
) -> Result<Bytes, RingError> {
    let mut packed = Vec::with_capacity(values.len() * ring.word_bytes());
    for (i, part) in values.chunks(TILE / S).enumerate() {
        tile.clear();
        if !words::cut(part, ring.bits().into(), tile) {
            return Err(ring.refusal(values));
        }
        combine::<L, S>(keys, at + (i * TILE) as u128, tile, L::minus);
        pack_onto(tile, ring, &mut packed);
    }
    Ok(packed.into())
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

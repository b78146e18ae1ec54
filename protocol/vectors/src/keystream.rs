//! The stream that masks are made of: AES-256-CTR, the counter from zero, made and used up a piece at a time.

use aes::Aes256;
use aes::cipher::{KeyIvInit, StreamCipher, StreamCipherSeek};
use ctr::Ctr128BE;
use multiversion::multiversion;
use multiversion::target::match_target;
use zeroize::Zeroize;

use crate::lane::Lane;
use crate::secret::StreamKey;
#[cfg(target_arch = "x86_64")]
use crate::vaes;
use crate::words;

/// The whole IV is the counter, from zero: a key serves one vector, so there is no nonce. Below
/// 2^36 bytes a counter of 32 bits yields the same stream; this one cannot run over whatever the
/// start, and a vector ends at 2^33.
type Cipher = Ctr128BE<Aes256>;

/// Bytes of keystream made at a time: they are used up while they are in the first cache.
const TILE: usize = 8 * 1024;

/// Combines `lanes` of `S` bytes with the stream of `key` from byte `at` on, a multiple of `S`.
///
/// Where there is VAES, [`vaes`] is faster than the definition. (With AVX-512 `multiversion` asks for all that it had since
/// Ice Lake and Zen 4, so that an older or a masked processor gets the kernel without it, or the definition.)
#[multiversion(targets("x86_64+aes+avx512f+avx512bw+vaes", "x86_64+aes+avx2+vaes"))]
pub(crate) fn combine<L: Lane, const S: usize>(key: &StreamKey, at: u128, lanes: &mut [L], op: impl Fn(L, L) -> L) {
    match_target! {
        "x86_64+aes+avx512f+avx512bw+vaes" => vaes::combine_512::<L, S>(key, at, lanes, op),
        "x86_64+aes+avx2+vaes" => vaes::combine_256::<L, S>(key, at, lanes, op),
        _ => portable::<L, S>(key, at, lanes, op),
    }
}

/// The definition, for any processor. Never inlined, so that it stays the same code whoever calls it.
#[inline(never)]
fn portable<L: Lane, const S: usize>(key: &StreamKey, at: u128, lanes: &mut [L], op: impl Fn(L, L) -> L) {
    let mut cipher = Cipher::new(key.expose().into(), &[0; 16].into());
    cipher.seek(at);
    let mut tile = Tile([0; TILE]);
    for part in lanes.chunks_mut(TILE / S) {
        let stream = &mut tile.0[..part.len() * S];
        cipher.write_keystream(stream);
        words::combine_full(part, stream.as_chunks::<S>().0, &op);
    }
}

/// Keystream for the moment, wiped on drop.
struct Tile([u8; TILE]);

impl Drop for Tile {
    fn drop(&mut self) {
        // A slice is wiped in bulk, an array byte by byte: a tenth of the time of a chunk.
        self.0.as_mut_slice().zeroize();
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// What a processor that has AVX-512 does without it.
    #[multiversion(targets("x86_64+aes+avx2+vaes"))]
    fn without_avx512<L: Lane, const S: usize>(key: &StreamKey, at: u128, lanes: &mut [L], op: fn(L, L) -> L) {
        match_target! {
            "x86_64+aes+avx2+vaes" => vaes::combine_256::<L, S>(key, at, lanes, op),
            _ => portable::<L, S>(key, at, lanes, op),
        }
    }

    fn check<L: Lane + PartialEq + std::fmt::Debug, const S: usize>(key: &StreamKey, start: u64, len: usize) {
        let at = u128::from(start) * S as u128;
        let lanes: Vec<L> = (0..len as u64).map(|i| L::cut(i.wrapping_mul(0x9e37_79b9_7f4a_7c15))).collect();
        for op in [L::plus, L::minus] {
            let mut defined = lanes.clone();
            portable::<L, S>(key, at, &mut defined, op);
            for fast in [combine::<L, S> as fn(&_, _, &mut _, _), without_avx512::<L, S>] {
                let mut lanes = lanes.clone();
                fast(key, at, &mut lanes, op);
                assert_eq!(lanes, defined, "{S} bytes, from {start}");
            }
        }
    }

    #[test]
    fn whatever_the_processor_it_is_the_definition_at_every_offset_and_length() {
        let key = StreamKey::new(std::array::from_fn(|i| (i * 37) as u8));
        for start in 0..24 {
            for len in (0..300).chain(4_090..4_100) {
                check::<u16, 2>(&key, start, len);
                check::<u32, 4>(&key, start, len);
                check::<u64, 8>(&key, start, len);
            }
        }
        // Where a carry runs through the counter, and the last start there is.
        for start in [(1 << 9) - 40, (1 << 17) - 40, (1 << 33) - 40, u64::MAX] {
            check::<u16, 2>(&key, start, 400);
            check::<u32, 4>(&key, start, 400);
            check::<u64, 8>(&key, start, 400);
        }
    }

    proptest! {
        #[test]
        fn any_key_and_start(key in any::<[u8; 32]>(), start in any::<u64>(), len in 0_usize..700) {
            let key = StreamKey::new(key);
            check::<u16, 2>(&key, start, len);
            check::<u32, 4>(&key, start, len);
            check::<u64, 8>(&key, start, len);
        }
    }
}

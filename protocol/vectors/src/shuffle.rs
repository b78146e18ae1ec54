//! Words that are narrower than their lanes: to and from 32 bytes of lanes by one shuffle of bytes (AVX2).

use std::arch::x86_64::*;

use zerocopy::{IntoBytes as _, transmute};

use crate::lane::Lane;

/// Combines lanes of `S` bytes with words of `W`, and says how many: the rest is less than 32 bytes of lanes.
///
/// Where lanes take 32 bytes, their words must take more than 16.
#[inline]
#[target_feature(enable = "avx2")]
pub(crate) fn combine<L: Lane, const W: usize, const S: usize>(
    lanes: &mut [L],
    words: &[[u8; W]],
    op: impl Fn(L, L) -> L,
) -> usize {
    const { assert!(W < S && 32 / S * W > 16, "one shuffle holds two halves that overlap") };
    let pattern = pattern::<W, S>();
    let groups = lanes.chunks_exact_mut(32 / S).zip(words.chunks_exact(32 / S));
    let done = groups.len() * (32 / S);
    for (lanes, words) in groups {
        let spread = spread(words.as_flattened(), pattern);
        lanes.iter_mut().zip(spread.as_chunks::<S>().0).for_each(|(lane, word)| *lane = op(*lane, L::read(word)));
    }
    done
}

/// Writes the low `W` bytes of every lane, and says of how many: the words of the rest take less than 32 bytes.
#[inline]
#[target_feature(enable = "avx2")]
pub(crate) fn pack<L: Lane, const W: usize>(lanes: &[L], bytes: &mut [u8]) -> usize {
    // What the words of half a register take; what is stored past them, the next ones overwrite.
    let half = 16 / size_of::<L>() * W;
    let pattern = gathering::<W>(size_of::<L>());
    let mut at = 0;
    for group in lanes.as_bytes().as_chunks::<32>().0 {
        let Some(window) = bytes.get_mut(at..at + half + 16) else { break };
        let [first, last]: [[u8; 16]; 2] = transmute!(_mm256_shuffle_epi8(transmute!(*group), pattern));
        window[..16].copy_from_slice(&first);
        window[half..].copy_from_slice(&last);
        at += 2 * half;
    }
    at / W
}

/// Where each byte of the words comes from, in both halves of a register of lanes of `lane` bytes; -1 stands for zero.
#[inline]
#[target_feature(enable = "avx2")]
fn gathering<const W: usize>(lane: usize) -> __m256i {
    let source = |byte: usize| if byte < 16 / lane * W { (byte / W * lane + byte % W) as u8 } else { u8::MAX };
    let word = |i: usize| i64::from_le_bytes(std::array::from_fn(|k| source(8 * i + k)));
    _mm256_set_epi64x(word(1), word(0), word(1), word(0))
}

/// Where each byte of a register of lanes comes from: the lower half from the first 16 bytes of the words and the
/// upper half from the last 16, so that no byte beside the words is read. -1 stands for zero.
#[inline]
#[target_feature(enable = "avx2")]
fn pattern<const W: usize, const S: usize>() -> __m256i {
    let upper = 32 / S * W - 16;
    let source = |byte: usize| match (byte / S * W + byte % S, byte % S < W) {
        (_, false) => -1,
        (at, true) if byte < 16 => at as i8,
        (at, true) => (at - upper) as i8,
    };
    let word = |i: usize| i64::from_le_bytes(std::array::from_fn(|k| source(8 * i + k) as u8));
    _mm256_set_epi64x(word(3), word(2), word(1), word(0))
}

/// The words, more than 16 bytes, each in a lane of its own.
#[inline]
#[target_feature(enable = "avx2")]
fn spread(words: &[u8], pattern: __m256i) -> [u8; 32] {
    let (Some(first), Some(last)) = (words.first_chunk::<16>(), words.last_chunk::<16>()) else { return [0; 32] };
    transmute!(_mm256_shuffle_epi8(_mm256_set_m128i(transmute!(*last), transmute!(*first)), pattern))
}

//! AES-256-CTR, two blocks to an instruction, for processors with VAES and without AVX-512.
//!
//! The definition of the stream is `keystream::portable`, which this is tested against; it is here because it is twice
//! as fast. There is no pointer in it and no `unsafe`: whoever calls it was compiled for the same processor.

use std::arch::x86_64::*;

use zerocopy::transmute;
use zeroize::Zeroize;

use crate::lane::Lane;
use crate::secret::StreamKey;

/// Bytes of a block of AES.
const BLOCK: usize = 16;

/// Registers that run through the rounds side by side: enough to hide how long a round takes.
const PAIRS: usize = 8;

/// Bytes of stream that they hold.
const GROUP: usize = PAIRS * 2 * BLOCK;

/// Combines `lanes` of `S` bytes with the stream of `key` from byte `at` on, a multiple of `S`.
#[inline]
#[target_feature(enable = "aes,avx2,vaes")]
pub(crate) fn combine<L: Lane, const S: usize>(key: &StreamKey, at: u128, lanes: &mut [L], op: impl Fn(L, L) -> L) {
    let keys = RoundKeys::expand(key.expose());
    // Below 2^64 whatever the start: a start is of 64 bits and a lane of half a block at most.
    let mut block = (at / BLOCK as u128) as u64;
    let into = (at % BLOCK as u128) as usize;
    let head = ((BLOCK - into) % BLOCK / S).min(lanes.len());
    let (head, body) = lanes.split_at_mut(head);
    let mut stream = Stream([0; GROUP]);
    if !head.is_empty() {
        stream.0 = keys.stream(block);
        take::<L, S>(head, &stream.0[into..], &op);
        block += 1;
    }
    let mut groups = body.chunks_exact_mut(GROUP / S);
    for group in &mut groups {
        stream.0 = keys.stream(block);
        // A register at a time: loops that short are unrolled, and run beside the rounds of the next group.
        let parts = group.chunks_exact_mut(2 * BLOCK / S).zip(stream.0.chunks_exact(2 * BLOCK));
        parts.for_each(|(lanes, stream)| take::<L, S>(lanes, stream, &op));
        block += (GROUP / BLOCK) as u64;
    }
    let tail = groups.into_remainder();
    if !tail.is_empty() {
        stream.0 = keys.stream(block);
        take::<L, S>(tail, &stream.0, &op);
    }
}

#[inline(always)]
fn take<L: Lane, const S: usize>(lanes: &mut [L], stream: &[u8], op: impl Fn(L, L) -> L) {
    lanes.iter_mut().zip(stream.as_chunks::<S>().0).for_each(|(lane, word)| *lane = op(*lane, L::read(word)));
}

/// Keystream for the moment, wiped on drop.
struct Stream([u8; GROUP]);

impl Drop for Stream {
    fn drop(&mut self) {
        self.0.as_mut_slice().zeroize();
    }
}

/// The fifteen round keys, each in both halves of a register; wiped on drop.
struct RoundKeys([__m256i; 15]);

impl Drop for RoundKeys {
    fn drop(&mut self) {
        self.0.zeroize();
    }
}

impl RoundKeys {
    /// FIPS 197, section 5.2: a key is the last but one, folded, and one substituted word of the last.
    #[inline]
    #[target_feature(enable = "aes,avx2")]
    fn expand(key: &[u8; 32]) -> Self {
        let mut keys = Self([_mm256_setzero_si256(); 15]);
        let [low, high]: [__m128i; 2] = transmute!(*key);
        keys.0[0] = _mm256_broadcastsi128_si256(low);
        keys.0[1] = _mm256_broadcastsi128_si256(high);
        for i in 2..15 {
            let last = _mm_aeskeygenassist_si128::<0>(_mm256_castsi256_si128(keys.0[i - 1]));
            let word = if i % 2 == 0 {
                _mm_xor_si128(_mm_shuffle_epi32::<0xff>(last), _mm_set1_epi32(1 << (i / 2 - 1)))
            } else {
                _mm_shuffle_epi32::<0xaa>(last)
            };
            let folded = fold(_mm256_castsi256_si128(keys.0[i - 2]));
            keys.0[i] = _mm256_broadcastsi128_si256(_mm_xor_si128(folded, word));
        }
        keys
    }

    /// The stream from the block of this number on: the counter is the number, big-endian.
    #[inline]
    #[target_feature(enable = "avx2,vaes")]
    fn stream(&self, block: u64) -> [u8; GROUP] {
        let big_endian = _mm256_broadcastsi128_si256(_mm_set_epi64x(0x0001_0203_0405_0607, -1));
        let first = _mm256_add_epi64(_mm256_set1_epi64x(block as i64), _mm256_set_epi64x(0, 1, 0, 0));
        let mut state = [first; PAIRS];
        for (i, pair) in state.iter_mut().enumerate() {
            let counters = _mm256_add_epi64(*pair, _mm256_set1_epi64x(2 * i as i64));
            *pair = _mm256_xor_si256(_mm256_shuffle_epi8(counters, big_endian), self.0[0]);
        }
        for key in &self.0[1..14] {
            state.iter_mut().for_each(|pair| *pair = _mm256_aesenc_epi128(*pair, *key));
        }
        state.iter_mut().for_each(|pair| *pair = _mm256_aesenclast_epi128(*pair, self.0[14]));
        transmute!(state)
    }
}

/// Every word and all words before it, by exclusive or.
#[inline]
#[target_feature(enable = "sse2")]
fn fold(key: __m128i) -> __m128i {
    let pairs = _mm_xor_si128(key, _mm_slli_si128::<4>(key));
    _mm_xor_si128(pairs, _mm_slli_si128::<8>(pairs))
}

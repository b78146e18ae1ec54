//! AES-256-CTR, two or four blocks to an instruction, for processors with VAES.
//!
//! The definition of the stream is `keystream::portable`, which this is tested against; it is here because it is up to
//! twice as fast. There is no pointer in it and no `unsafe`: whoever calls it was compiled for the same processor.

use std::arch::x86_64::*;

use zerocopy::transmute;
use zeroize::Zeroize;

use crate::lane::Lane;
use crate::secret::StreamKey;

/// Bytes of a block of AES.
const BLOCK: usize = 16;

/// Registers that run through the rounds side by side: enough to hide how long a round takes.
const REGISTERS: usize = 8;

/// Bytes of lanes and stream that are taken at a time: loops that short are unrolled, and run beside the rounds of the
/// next group.
const PART: usize = 2 * BLOCK;

/// Bytes of stream in as many registers of 256 bits, and of 512.
const GROUP_256: usize = REGISTERS * 2 * BLOCK;
const GROUP_512: usize = REGISTERS * 4 * BLOCK;

/// Combines `lanes` of `S` bytes with the stream of `key` from byte `at` on, a multiple of `S`, two blocks at a time.
#[inline]
#[target_feature(enable = "aes,avx2,vaes")]
pub(crate) fn combine_256<L: Lane, const S: usize>(key: &StreamKey, at: u128, lanes: &mut [L], op: impl Fn(L, L) -> L) {
    let keys = RoundKeys::expand(key.expose());
    let keys = RoundKeys(keys.0.each_ref().map(|key| _mm256_broadcastsi128_si256(*key)));
    combine::<L, S, GROUP_256>(at, lanes, op, |block| keys.stream_256(block));
}

/// The same, four blocks at a time.
#[inline]
#[target_feature(enable = "aes,avx512f,avx512bw,vaes")]
pub(crate) fn combine_512<L: Lane, const S: usize>(key: &StreamKey, at: u128, lanes: &mut [L], op: impl Fn(L, L) -> L) {
    let keys = RoundKeys::expand(key.expose());
    let keys = RoundKeys(keys.0.each_ref().map(|key| _mm512_broadcast_i32x4(*key)));
    combine::<L, S, GROUP_512>(at, lanes, op, |block| keys.stream_512(block));
}

/// Walks over `lanes` in groups of `G` bytes, which `stream_from` gives from the block of a number on.
#[inline(always)]
fn combine<L: Lane, const S: usize, const G: usize>(
    at: u128,
    lanes: &mut [L],
    op: impl Fn(L, L) -> L,
    stream_from: impl Fn(u64) -> [u8; G],
) {
    // Below 2^64 whatever the start: a start is of 64 bits and a lane of half a block at most.
    let mut block = (at / BLOCK as u128) as u64;
    let into = (at % BLOCK as u128) as usize;
    let head = ((BLOCK - into) % BLOCK / S).min(lanes.len());
    let (head, body) = lanes.split_at_mut(head);
    let mut stream = Stream([0; G]);
    if !head.is_empty() {
        stream.0 = stream_from(block);
        take::<L, S>(head, &stream.0[into..], &op);
        block += 1;
    }
    let mut groups = body.chunks_exact_mut(G / S);
    for group in &mut groups {
        stream.0 = stream_from(block);
        let parts = group.chunks_exact_mut(PART / S).zip(stream.0.chunks_exact(PART));
        parts.for_each(|(lanes, stream)| take::<L, S>(lanes, stream, &op));
        block += (G / BLOCK) as u64;
    }
    let tail = groups.into_remainder();
    if !tail.is_empty() {
        stream.0 = stream_from(block);
        take::<L, S>(tail, &stream.0, &op);
    }
}

#[inline(always)]
fn take<L: Lane, const S: usize>(lanes: &mut [L], stream: &[u8], op: impl Fn(L, L) -> L) {
    lanes.iter_mut().zip(stream.as_chunks::<S>().0).for_each(|(lane, word)| *lane = op(*lane, L::read(word)));
}

/// Keystream for the moment, wiped on drop.
struct Stream<const G: usize>([u8; G]);

impl<const G: usize> Drop for Stream<G> {
    fn drop(&mut self) {
        self.0.as_mut_slice().zeroize();
    }
}

/// The fifteen round keys, each in every block of a register; wiped on drop.
struct RoundKeys<R: Zeroize>([R; 15]);

impl<R: Zeroize> Drop for RoundKeys<R> {
    fn drop(&mut self) {
        self.0.zeroize();
    }
}

impl RoundKeys<__m128i> {
    /// FIPS 197, section 5.2: a key is the last but one, folded, and one substituted word of the last.
    #[inline]
    #[target_feature(enable = "aes")]
    fn expand(key: &[u8; 32]) -> Self {
        let mut keys = Self([_mm_setzero_si128(); 15]);
        let first: [__m128i; 2] = transmute!(*key);
        keys.0[..2].copy_from_slice(&first);
        for i in 2..15 {
            let last = _mm_aeskeygenassist_si128::<0>(keys.0[i - 1]);
            let word = if i % 2 == 0 {
                _mm_xor_si128(_mm_shuffle_epi32::<0xff>(last), _mm_set1_epi32(1 << (i / 2 - 1)))
            } else {
                _mm_shuffle_epi32::<0xaa>(last)
            };
            keys.0[i] = _mm_xor_si128(fold(keys.0[i - 2]), word);
        }
        keys
    }
}

impl RoundKeys<__m256i> {
    /// The stream from the block of this number on: the counter is the number, big-endian.
    #[inline]
    #[target_feature(enable = "avx2,vaes")]
    fn stream_256(&self, block: u64) -> [u8; GROUP_256] {
        let big_endian = _mm256_broadcastsi128_si256(_mm_set_epi64x(0x0001_0203_0405_0607, -1));
        let first = _mm256_add_epi64(_mm256_set1_epi64x(block as i64), _mm256_set_epi64x(0, 1, 0, 0));
        let mut state = [first; REGISTERS];
        for (i, blocks) in state.iter_mut().enumerate() {
            let counters = _mm256_add_epi64(*blocks, _mm256_set1_epi64x(2 * i as i64));
            *blocks = _mm256_xor_si256(_mm256_shuffle_epi8(counters, big_endian), self.0[0]);
        }
        for key in &self.0[1..14] {
            state.iter_mut().for_each(|blocks| *blocks = _mm256_aesenc_epi128(*blocks, *key));
        }
        state.iter_mut().for_each(|blocks| *blocks = _mm256_aesenclast_epi128(*blocks, self.0[14]));
        transmute!(state)
    }
}

impl RoundKeys<__m512i> {
    /// The same, four blocks to a register.
    #[inline]
    #[target_feature(enable = "avx512f,avx512bw,vaes")]
    fn stream_512(&self, block: u64) -> [u8; GROUP_512] {
        let big_endian = _mm512_broadcast_i32x4(_mm_set_epi64x(0x0001_0203_0405_0607, -1));
        let first = _mm512_add_epi64(_mm512_set1_epi64(block as i64), _mm512_set_epi64(0, 3, 0, 2, 0, 1, 0, 0));
        let mut state = [first; REGISTERS];
        for (i, blocks) in state.iter_mut().enumerate() {
            let counters = _mm512_add_epi64(*blocks, _mm512_set1_epi64(4 * i as i64));
            *blocks = _mm512_xor_si512(_mm512_shuffle_epi8(counters, big_endian), self.0[0]);
        }
        for key in &self.0[1..14] {
            state.iter_mut().for_each(|blocks| *blocks = _mm512_aesenc_epi128(*blocks, *key));
        }
        state.iter_mut().for_each(|blocks| *blocks = _mm512_aesenclast_epi128(*blocks, self.0[14]));
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

//! Between lanes and words: plain loops, compiled for several processors and chosen when they are called.
//!
//! Each is kept for a measured gain: with AVX2, in the first cache, full words are added half as fast again as without
//! it and narrow ones three to six times as fast. `cargo bench` shows them.

use multiversion::multiversion;
use multiversion::target::match_target;

use crate::lane::Lane;
#[cfg(target_arch = "x86_64")]
use crate::shuffle;

/// Lanes with lanes.
#[multiversion(targets("x86_64+avx512f+avx512bw+avx512vl", "x86_64+avx2"))]
pub(crate) fn combine<L: Lane>(to: &mut [L], from: &[L], op: impl Fn(L, L) -> L) {
    to.iter_mut().zip(from).for_each(|(lane, &other)| *lane = op(*lane, other));
}

/// Lanes with words as wide as they are.
#[multiversion(targets("x86_64+avx512f+avx512bw+avx512vl", "x86_64+avx2"))]
pub(crate) fn combine_full<L: Lane, const W: usize>(to: &mut [L], words: &[[u8; W]], op: impl Fn(L, L) -> L) {
    to.iter_mut().zip(words).for_each(|(lane, word)| *lane = op(*lane, L::read(word)));
}

/// Lanes of `S` bytes with words of `W`, which are fewer: the compiler makes no shuffles of this loop.
#[multiversion(targets("x86_64+avx2"))]
pub(crate) fn combine_narrow<L: Lane, const W: usize, const S: usize>(
    to: &mut [L],
    words: &[[u8; W]],
    op: impl Fn(L, L) -> L,
) {
    let done = match_target! {
        "x86_64+avx2" => shuffle::combine::<L, W, S>(to, words, &op),
        _ => 0,
    };
    to.iter_mut().zip(words).skip(done).for_each(|(lane, word)| *lane = op(*lane, L::read(word)));
}

/// Appends signed values as lanes; whether all of them fit `bits` bits.
#[multiversion(targets("x86_64+avx512f+avx512bw+avx512vl", "x86_64+avx2"))]
pub(crate) fn cut<L: Lane>(values: &[i64], bits: u32, to: &mut Vec<L>) -> bool {
    let half = 1_i64 << (bits - 1);
    let mut beyond = 0;
    // One test at the end: a loop that may stop early is not vectorised.
    to.extend(values.iter().map(|&value| {
        beyond |= (value.wrapping_add(half) as u64).unbounded_shr(bits);
        L::cut(value as u64)
    }));
    beyond == 0
}

/// Writes the low `W` bytes of every lane, which has more, to `bytes`, which has `W` for each.
#[multiversion(targets("x86_64+avx2"))]
pub(crate) fn pack<L: Lane, const W: usize>(lanes: &[L], bytes: &mut [u8]) {
    const GROUP: usize = 8;
    let mut done = match_target! {
        "x86_64+avx2" => shuffle::pack::<L, W>(lanes, bytes),
        _ => 0,
    };
    // A whole lane is one store; what it writes past its word, the next word overwrites.
    let stored = W.max(size_of::<L>());
    for lanes in lanes[done..].chunks_exact(GROUP) {
        let at = done * W;
        let Some(window) = bytes.get_mut(at..at + (GROUP - 1) * W + stored) else { break };
        for (i, lane) in lanes.iter().enumerate() {
            window[i * W..i * W + stored].copy_from_slice(&lane.wide().to_le_bytes()[..stored]);
        }
        done += GROUP;
    }
    let words = bytes[done * W..].as_chunks_mut::<W>().0;
    words.iter_mut().zip(&lanes[done..]).for_each(|(word, lane)| lane.write(word));
}

//! No mask covers two vectors (PROTOCOL.md, *Sharing*): who sees both would have their difference.

use std::collections::BTreeMap;

use super::shape::Shape;
use crate::id::Digest;
use crate::message::Begin;

/// The masks that were used so far.
#[derive(Debug, Default)]
pub(super) struct Masks {
    /// By the mask: over which vector, answering which Begin, as it was sent.
    seen: BTreeMap<Vec<u64>, (Digest, Vec<u8>)>,
}

impl Masks {
    /// Takes note of patient `i`'s masked vector as it travels; whether its mask covered another one before. Which of its
    /// values are in it is not known: each gives another mask, and one of them is the true one.
    pub(super) fn is_used(&mut self, shape: &Shape, i: u8, begin: (&Begin, Digest), masked: &[u8]) -> bool {
        let size = begin.0.ring.word_bytes();
        let most = u64::MAX >> (64 - 8 * size as u32);
        let word = |bytes: &[u8]| bytes.iter().rev().fold(0_u64, |word, byte| (word << 8) | u64::from(*byte));
        let masked_words: Vec<u64> = masked.chunks(size).map(word).collect();
        let mut used = false;
        for version in 0..2 {
            let words = (0_u32..).zip(&masked_words);
            let mask = words.map(|(j, word)| (shape.value(i, version, j) as u64).wrapping_sub(*word) & most).collect();
            let vector = (begin.1, masked.to_vec());
            used |= *self.seen.entry(mask).or_insert_with(|| vector.clone()) != vector;
        }
        used
    }
}

//! Vectors over the ring Z_2^w: words as they travel, lanes as they are added (PROTOCOL.md, *Sharing*).

use std::fmt;
use std::ops::Range;

use serde::{Deserialize, Serialize};
use zerocopy::IntoBytes as _;
use zeroize::Zeroize;

use crate::lane::Lane;
use crate::words;

/// The ring Z_2^w for a width w of 16, 24, .. 64 bits.
///
/// A word travels in w/8 bytes, little-endian, and is added in a lane of 16, 32 or 64 bits: the
/// smallest that holds it. A lane may carry more bits than the word; they mean nothing and are
/// dropped when the word is packed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(try_from = "u8", into = "u8")]
pub struct Ring(u8);

/// Why there is no such ring, or why a value does not lie in it. Values are secrets: none is named.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum RingError {
    /// Not a multiple of 8 from 16 to 64.
    #[error("{0} bits are no ring width: use a multiple of 8 from 16 to 64")]
    Width(u8),
    /// A value outside `-2^(w-1) .. 2^(w-1) - 1`.
    #[error(
        "the value at index {index} does not fit {bits} bits: check values against the bound before they enter a ring"
    )]
    Value {
        /// Where in the vector.
        index: usize,
        /// The ring's width.
        bits: u8,
    },
}

/// Two vectors, or a vector and a ring, that do not go together.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ShapeError {
    /// Different numbers of coordinates.
    #[error("expected {expected} coordinates and got {got}: both sides must hold the same chunk")]
    Length {
        /// How many this side has.
        expected: usize,
        /// How many came.
        got: usize,
    },
    /// Bytes that are no whole number of words.
    #[error("{bytes} bytes are no whole number of {word}-byte words: the chunk was cut or is of another ring")]
    Words {
        /// How many bytes came.
        bytes: usize,
        /// Bytes in a word.
        word: usize,
    },
    /// Lanes of different width.
    #[error("these lanes belong to another ring: use one ring through a round")]
    Lanes,
}

impl Ring {
    /// The ring of `bits` bits: a multiple of 8 from 16 to 64, or [`RingError::Width`].
    pub fn new(bits: u8) -> Result<Self, RingError> {
        if (16..=64).contains(&bits) && bits.is_multiple_of(8) { Ok(Self(bits)) } else { Err(RingError::Width(bits)) }
    }

    /// All rings, narrowest first.
    pub fn all() -> impl Iterator<Item = Self> {
        (16..=64).step_by(8).map(Self)
    }

    /// The width w.
    pub fn bits(self) -> u8 {
        self.0
    }

    /// Bytes of a word as it travels: w/8.
    pub fn word_bytes(self) -> usize {
        usize::from(self.0 / 8)
    }

    /// Bytes of the lane that a word is added in: 2, 4 or 8.
    pub fn lane_bytes(self) -> usize {
        self.word_bytes().next_power_of_two()
    }

    /// Whether a sum over `n` patients with values up to `scaled_bound` (bound times scale) keeps
    /// its sign and size: `n * scaled_bound < 2^(w-1)`, in 128-bit arithmetic.
    pub fn fits(self, n: u64, scaled_bound: u64) -> bool {
        u128::from(n) * u128::from(scaled_bound) < 1 << (self.0 - 1)
    }

    /// Which of `values` is the first that does not lie in the ring; there must be one.
    pub(crate) fn refusal(self, values: &[i64]) -> RingError {
        let unused = 64 - u32::from(self.0);
        let outside = values.iter().position(|&value| value != (value << unused) >> unused);
        RingError::Value { index: outside.unwrap_or_default(), bits: self.0 }
    }

    /// The narrowest ring in which [`Ring::fits`] holds.
    pub fn narrowest(n: u64, scaled_bound: u64) -> Option<Self> {
        Self::all().find(|ring| ring.fits(n, scaled_bound))
    }
}

impl TryFrom<u8> for Ring {
    type Error = RingError;

    fn try_from(bits: u8) -> Result<Self, RingError> {
        Self::new(bits)
    }
}

impl From<Ring> for u8 {
    fn from(ring: Ring) -> u8 {
        ring.0
    }
}

/// A vector over a ring, one lane for each coordinate; wiped on drop, silent when printed.
#[derive(Clone)]
pub enum Lanes {
    /// For words of 16 bits.
    U16(Vec<u16>),
    /// For words of 24 and 32 bits.
    U32(Vec<u32>),
    /// For words of 40 to 64 bits.
    U64(Vec<u64>),
}

/// Runs `$body` for whichever lanes these are.
macro_rules! each {
    ($lanes:expr, $v:ident => $body:expr) => {
        match $lanes {
            Lanes::U16($v) => $body,
            Lanes::U32($v) => $body,
            Lanes::U64($v) => $body,
        }
    };
}

/// Runs `$body` on two vectors of the same lanes, or fails with [`ShapeError::Lanes`].
macro_rules! both {
    ($one:expr, $other:expr, $a:ident, $b:ident => $body:expr) => {
        match ($one, $other) {
            (Lanes::U16($a), Lanes::U16($b)) => $body,
            (Lanes::U32($a), Lanes::U32($b)) => $body,
            (Lanes::U64($a), Lanes::U64($b)) => $body,
            _ => Err(ShapeError::Lanes),
        }
    };
}

/// Combines lanes with words, or fails with [`ShapeError`]. The word size is a constant, so that the loops vectorise.
macro_rules! combine_words {
    ($lanes:expr, $ring:expr, $bytes:expr, $op:expr) => {
        match ($lanes, $ring.word_bytes()) {
            (Lanes::U16(v), 2) => combine_full::<_, 2>(v, $bytes, $op),
            (Lanes::U32(v), 3) => combine_narrow::<_, 3, 4>(v, $bytes, $op),
            (Lanes::U32(v), 4) => combine_full::<_, 4>(v, $bytes, $op),
            (Lanes::U64(v), 5) => combine_narrow::<_, 5, 8>(v, $bytes, $op),
            (Lanes::U64(v), 6) => combine_narrow::<_, 6, 8>(v, $bytes, $op),
            (Lanes::U64(v), 7) => combine_narrow::<_, 7, 8>(v, $bytes, $op),
            (Lanes::U64(v), 8) => combine_full::<_, 8>(v, $bytes, $op),
            _ => Err(ShapeError::Lanes),
        }
    };
}

impl Lanes {
    /// `len` zeros in the ring's lanes.
    pub fn zero(ring: Ring, len: usize) -> Self {
        match ring.lane_bytes() {
            2 => Self::U16(vec![0; len]),
            4 => Self::U32(vec![0; len]),
            _ => Self::U64(vec![0; len]),
        }
    }

    /// No lanes yet, and room for `len` of the ring's: as long as they are no more, none is left behind unwiped.
    pub(crate) fn with_capacity(ring: Ring, len: usize) -> Self {
        match ring.lane_bytes() {
            2 => Self::U16(Vec::with_capacity(len)),
            4 => Self::U32(Vec::with_capacity(len)),
            _ => Self::U64(Vec::with_capacity(len)),
        }
    }

    /// How many coordinates.
    pub fn len(&self) -> usize {
        each!(self, v => v.len())
    }

    /// Whether there are no coordinates.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Signed values as ring elements, or [`RingError::Value`] with the index of the first that
    /// lies outside `-2^(w-1) .. 2^(w-1) - 1`.
    pub fn from_i64(ring: Ring, values: &[i64]) -> Result<Self, RingError> {
        let mut lanes = Self::with_capacity(ring, values.len());
        let fit = each!(&mut lanes, v => words::cut(values, ring.bits().into(), v));
        if fit { Ok(lanes) } else { Err(ring.refusal(values)) }
    }

    /// The ring elements as signed values, their sign taken from bit w-1.
    pub fn to_i64(&self, ring: Ring) -> Vec<i64> {
        let mut values = Vec::with_capacity(self.len());
        self.append_i64(ring, &mut values);
        values
    }

    /// Appends the ring elements as signed values.
    pub fn append_i64(&self, ring: Ring, values: &mut Vec<i64>) {
        let unused = 64 - u32::from(ring.bits());
        each!(self, v => values.extend(v.iter().map(|&lane| ((lane.wide() << unused) as i64) >> unused)));
    }

    /// Adds coordinate by coordinate.
    pub fn add(&mut self, other: &Self) -> Result<(), ShapeError> {
        both!(self, other, a, b => combine(a, b, Lane::plus))
    }

    /// Subtracts coordinate by coordinate.
    pub fn sub(&mut self, other: &Self) -> Result<(), ShapeError> {
        both!(self, other, a, b => combine(a, b, Lane::minus))
    }

    /// The words as they travel: w/8 bytes each, little-endian. Bits of a lane above w are dropped.
    pub fn pack(&self, ring: Ring) -> Vec<u8> {
        let mut bytes = Vec::with_capacity(self.len() * ring.word_bytes());
        each!(self, v => pack_onto(v, ring, &mut bytes));
        bytes
    }

    /// Words from the bytes in which they travelled, or [`ShapeError::Words`].
    pub fn unpack(ring: Ring, bytes: &[u8]) -> Result<Self, ShapeError> {
        let mut lanes = Self::zero(ring, bytes.len() / ring.word_bytes());
        lanes.add_packed(ring, bytes)?;
        Ok(lanes)
    }

    /// Adds words in the form in which they travel.
    pub fn add_packed(&mut self, ring: Ring, bytes: &[u8]) -> Result<(), ShapeError> {
        combine_words!(self, ring, bytes, Lane::plus)
    }

    /// Subtracts words in the form in which they travel.
    pub fn sub_packed(&mut self, ring: Ring, bytes: &[u8]) -> Result<(), ShapeError> {
        combine_words!(self, ring, bytes, Lane::minus)
    }

    /// A copy of the coordinates in `range`, which is cut to the vector's length.
    pub fn slice(&self, range: Range<usize>) -> Self {
        let end = range.end.min(self.len());
        let range = range.start.min(end)..end;
        match self {
            Self::U16(v) => Self::U16(v[range].to_vec()),
            Self::U32(v) => Self::U32(v[range].to_vec()),
            Self::U64(v) => Self::U64(v[range].to_vec()),
        }
    }
}

fn combine<L: Lane>(to: &mut [L], from: &[L], op: impl Fn(L, L) -> L) -> Result<(), ShapeError> {
    if to.len() != from.len() {
        return Err(ShapeError::Length { expected: to.len(), got: from.len() });
    }
    words::combine(to, from, op);
    Ok(())
}

fn combine_full<L: Lane, const W: usize>(to: &mut [L], bytes: &[u8], op: impl Fn(L, L) -> L) -> Result<(), ShapeError> {
    let words = as_words::<W>(bytes, to.len())?;
    words::combine_full(to, words, op);
    Ok(())
}

fn combine_narrow<L: Lane, const W: usize, const S: usize>(
    to: &mut [L],
    bytes: &[u8],
    op: impl Fn(L, L) -> L,
) -> Result<(), ShapeError> {
    let words = as_words::<W>(bytes, to.len())?;
    words::combine_narrow::<L, W, S>(to, words, op);
    Ok(())
}

/// Appends the words of `lanes` as they travel.
pub(crate) fn pack_onto<L: Lane>(lanes: &[L], ring: Ring, bytes: &mut Vec<u8>) {
    if cfg!(target_endian = "little") && ring.word_bytes() == size_of::<L>() {
        // Such lanes lie in memory as they travel: one copy, and no zeros before it.
        return bytes.extend_from_slice(lanes.as_bytes());
    }
    let start = bytes.len();
    bytes.resize(start + lanes.len() * ring.word_bytes(), 0);
    let to = &mut bytes[start..];
    match ring.word_bytes() {
        2 => words::pack::<L, 2>(lanes, to),
        3 => words::pack::<L, 3>(lanes, to),
        4 => words::pack::<L, 4>(lanes, to),
        5 => words::pack::<L, 5>(lanes, to),
        6 => words::pack::<L, 6>(lanes, to),
        7 => words::pack::<L, 7>(lanes, to),
        _ => words::pack::<L, 8>(lanes, to),
    }
}

/// `bytes` as words, which must be as many as expected.
fn as_words<const W: usize>(bytes: &[u8], expected: usize) -> Result<&[[u8; W]], ShapeError> {
    let (words, rest) = bytes.as_chunks::<W>();
    match (rest, words.len()) {
        ([], got) if got == expected => Ok(words),
        ([], got) => Err(ShapeError::Length { expected, got }),
        _ => Err(ShapeError::Words { bytes: bytes.len(), word: W }),
    }
}

impl Drop for Lanes {
    fn drop(&mut self) {
        // A slice is wiped in bulk, a `Vec` element by element; lanes never grow, so there is no spare capacity.
        each!(self, v => v.as_mut_slice().zeroize());
    }
}

impl fmt::Debug for Lanes {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Lanes(..)")
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use proptest::prelude::*;

    use super::*;

    fn rings() -> impl Strategy<Value = Ring> {
        (2_u8..=8).prop_map(|bytes| Ring::new(bytes * 8).unwrap())
    }

    fn wrap(ring: Ring, value: i128) -> i64 {
        let unused = 128 - u32::from(ring.bits());
        ((value << unused) >> unused) as i64
    }

    fn values(ring: Ring, len: usize) -> impl Strategy<Value = Vec<i64>> {
        prop::collection::vec(any::<i64>().prop_map(move |value| wrap(ring, value.into())), len)
    }

    fn pairs() -> impl Strategy<Value = (Ring, Vec<i64>, Vec<i64>)> {
        (rings(), 0_usize..70).prop_flat_map(|(ring, len)| (Just(ring), values(ring, len), values(ring, len)))
    }

    #[test]
    fn widths() {
        let good: Vec<u8> = (0..=255).filter(|&bits| Ring::new(bits).is_ok()).collect();
        assert_eq!(good, [16, 24, 32, 40, 48, 56, 64]);
        let lanes: Vec<usize> = Ring::all().map(Ring::lane_bytes).collect();
        assert_eq!(lanes, [2, 4, 4, 8, 8, 8, 8]);
        let encoded = rmp_serde::to_vec(&Ring::new(24).unwrap()).unwrap();
        assert_eq!(rmp_serde::from_slice::<Ring>(&encoded).unwrap().bits(), 24);
        assert!(rmp_serde::from_slice::<Ring>(&[17]).is_err());
    }

    #[test]
    fn the_bound_is_strict_and_does_not_overflow() {
        let ring = Ring::new(16).unwrap();
        assert!(ring.fits(1, 32_767) && !ring.fits(1, 32_768) && !ring.fits(2, 16_384) && ring.fits(0, u64::MAX));
        let widest = Ring::new(64).unwrap();
        assert!(widest.fits(1, (1 << 63) - 1) && !widest.fits(1, 1 << 63) && !widest.fits(u64::MAX, u64::MAX));
        assert_eq!(Ring::narrowest(100, 1_000_000).map(Ring::bits), Some(32));
        assert_eq!(Ring::narrowest(1, 32_768).map(Ring::bits), Some(24));
        assert_eq!(Ring::narrowest(u64::MAX, 2), None);
    }

    #[test]
    fn a_value_outside_is_named_by_index_only() {
        for ring in Ring::all().filter(|ring| ring.bits() < 64) {
            let most = (1_i64 << (ring.bits() - 1)) - 1;
            assert_eq!(Lanes::from_i64(ring, &[most, -most - 1]).unwrap().to_i64(ring), [most, -most - 1]);
            for outside in [most + 1, -most - 2, i64::MAX, i64::MIN] {
                let error = Lanes::from_i64(ring, &[0, 0, outside]).unwrap_err();
                assert_eq!(error, RingError::Value { index: 2, bits: ring.bits() });
                assert!(!error.to_string().contains(&outside.to_string()));
            }
        }
    }

    #[test]
    fn shapes_that_differ_are_refused() {
        let (narrow, wide) = (Ring::new(24).unwrap(), Ring::new(40).unwrap());
        let mut lanes = Lanes::zero(narrow, 2);
        assert_eq!(lanes.add(&Lanes::zero(wide, 2)), Err(ShapeError::Lanes));
        assert_eq!(lanes.sub(&Lanes::zero(narrow, 3)), Err(ShapeError::Length { expected: 2, got: 3 }));
        assert_eq!(lanes.add_packed(narrow, &[0; 5]), Err(ShapeError::Words { bytes: 5, word: 3 }));
        assert_eq!(lanes.sub_packed(narrow, &[0; 9]), Err(ShapeError::Length { expected: 2, got: 3 }));
        assert_eq!(lanes.add_packed(wide, &[0; 10]), Err(ShapeError::Lanes));
        assert!(matches!(Lanes::unpack(narrow, &[0; 4]), Err(ShapeError::Words { bytes: 4, word: 3 })));
    }

    #[test]
    fn words_travel_little_endian_and_lanes_stay_silent() {
        let ring = Ring::new(24).unwrap();
        let lanes = Lanes::from_i64(ring, &[1, -2]).unwrap();
        assert_eq!(lanes.pack(ring), [1, 0, 0, 0xfe, 0xff, 0xff]);
        assert_eq!(format!("{lanes:?}"), "Lanes(..)");
        assert_eq!(lanes.slice(1..9).to_i64(ring), [-2]);
        assert!(lanes.slice(7..9).is_empty());
    }

    proptest! {
        #[test]
        fn packing_is_undone(pair in pairs()) {
            let (ring, values, _) = pair;
            let packed = Lanes::from_i64(ring, &values).unwrap().pack(ring);
            prop_assert_eq!(packed.len(), values.len() * ring.word_bytes());
            prop_assert_eq!(Lanes::unpack(ring, &packed).unwrap().to_i64(ring), values);
        }

        #[test]
        fn arithmetic_is_modulo_2_to_the_w(pair in pairs()) {
            let (ring, a, b) = pair;
            let (x, y) = (Lanes::from_i64(ring, &a).unwrap(), Lanes::from_i64(ring, &b).unwrap());
            let expect = |op: fn(i128, i128) -> i128| -> Vec<i64> {
                a.iter().zip(&b).map(|(&a, &b)| wrap(ring, op(a.into(), b.into()))).collect()
            };
            let (mut sum, mut difference) = (x.clone(), x.clone());
            sum.add(&y).unwrap();
            difference.sub(&y).unwrap();
            prop_assert_eq!(sum.to_i64(ring), expect(|a, b| a + b));
            prop_assert_eq!(difference.to_i64(ring), expect(|a, b| a - b));

            let (mut sum, mut difference) = (x.clone(), x);
            sum.add_packed(ring, &y.pack(ring)).unwrap();
            difference.sub_packed(ring, &y.pack(ring)).unwrap();
            prop_assert_eq!(sum.to_i64(ring), expect(|a, b| a + b));
            prop_assert_eq!(difference.to_i64(ring), expect(|a, b| a - b));
        }
    }
}

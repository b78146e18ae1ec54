//! One coordinate in memory.

use zerocopy::{Immutable, IntoBytes};
use zeroize::DefaultIsZeroes;

/// An unsigned integer with wrapping arithmetic, read from and written to words of `W` bytes: bytes that the lane has
/// and the word lacks are zero on the way in and dropped on the way out.
pub(crate) trait Lane: DefaultIsZeroes + Immutable + IntoBytes + Send + 'static {
    fn plus(self, other: Self) -> Self;
    fn minus(self, other: Self) -> Self;
    fn wide(self) -> u64;
    fn cut(value: u64) -> Self;
    fn read<const W: usize>(word: &[u8; W]) -> Self;
    fn write<const W: usize>(self, word: &mut [u8; W]);
}

macro_rules! lane {
    ($($lane:ty),+) => {$(
        impl Lane for $lane {
            #[inline(always)]
            fn plus(self, other: Self) -> Self {
                self.wrapping_add(other)
            }

            #[inline(always)]
            fn minus(self, other: Self) -> Self {
                self.wrapping_sub(other)
            }

            #[inline(always)]
            fn wide(self) -> u64 {
                self as u64
            }

            #[inline(always)]
            fn cut(value: u64) -> Self {
                value as Self
            }

            #[inline(always)]
            fn read<const W: usize>(word: &[u8; W]) -> Self {
                let mut bytes = [0; size_of::<Self>()];
                let shared = W.min(bytes.len());
                bytes[..shared].copy_from_slice(&word[..shared]);
                Self::from_le_bytes(bytes)
            }

            #[inline(always)]
            fn write<const W: usize>(self, word: &mut [u8; W]) {
                let shared = W.min(size_of::<Self>());
                word[..shared].copy_from_slice(&self.to_le_bytes()[..shared]);
            }
        }
    )+};
}

lane!(u16, u32, u64);

//! How a vector is cut into chunks (PROTOCOL.md, *Sharing*).

use vectors::Ring;

/// The most bytes in a chunk's words: 512 KiB.
pub const CHUNK_BYTES: usize = 512 * 1024;

/// The fewest chunks of a vector that is more than one: reading one in eight is an eighth of it, however narrow the ring.
const AT_LEAST: u64 = 8;

/// The most bytes of vectors, or of the digests of their chunks, that a party reads from the board, or has read and not yet
/// used, at a time, however many patients there are: 4 MiB, where the senders wrote what they should.
const READ_BYTES: usize = 8 * CHUNK_BYTES;

/// The most messages that are read at a time, however short they are.
const READ_AT_ONCE: usize = 64;

/// How many messages a party reads from the board, or has read and not yet used, at a time, where each has so many `bytes`
/// of vectors or of digests: as many as have 4 MiB, or 64 of shorter ones; at least one.
pub fn read_window(bytes: usize) -> usize {
    (READ_BYTES / bytes.max(1)).clamp(1, READ_AT_ONCE)
}

/// The most bytes in a vector's lanes, 2^33: what one keystream is used for.
pub const VECTOR_BYTES: u64 = 1 << 33;

/// The most chunks of a vector: whoever sends it names each by its digest, in one signed part with all that it says beside.
pub const MOST_CHUNKS: u64 = 15_000;

/// A vector of d coordinates over a ring, cut into chunks.
///
/// A vector whose words fit 512 KiB is one chunk. A longer one is cut into eight or more: a chunk is an eighth of it,
/// rounded up to a multiple of 16 coordinates, or as much as fits 512 KiB, whichever is less; the last one is what remains.
/// Chunk `j` is the coordinates from `start(j)` on, `len(j)` of them.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Chunks {
    ring: Ring,
    dimension: u64,
}

/// A length that no vector may have.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ChunkError {
    /// No coordinates.
    #[error("a vector of no coordinates: ask for at least one")]
    Empty,
    /// Lanes of more than 2^33 bytes, or more chunks than a message can name.
    #[error("{dimension} coordinates are too many: at {bits} bits a vector may have {most}; ask in several rounds")]
    TooLong {
        /// The length asked for.
        dimension: u64,
        /// The ring's width.
        bits: u8,
        /// The longest vector over this ring.
        most: u64,
    },
}

impl Chunks {
    /// The chunks of a vector of `d` coordinates: 1 to 2^33 bytes of lanes, in at most [`MOST_CHUNKS`].
    pub fn new(ring: Ring, d: u64) -> Result<Self, ChunkError> {
        let named = MOST_CHUNKS * largest(ring) as u64;
        let most = named.min(VECTOR_BYTES / ring.lane_bytes() as u64);
        match d {
            0 => Err(ChunkError::Empty),
            d if d > most => Err(ChunkError::TooLong { dimension: d, bits: ring.bits(), most }),
            dimension => Ok(Self { ring, dimension }),
        }
    }

    /// The ring that the vector is over.
    pub fn ring(&self) -> Ring {
        self.ring
    }

    /// How many coordinates the whole vector has.
    pub fn dimension(&self) -> u64 {
        self.dimension
    }

    /// How many coordinates a full chunk has.
    pub fn full(&self) -> usize {
        let largest = largest(self.ring);
        let shared = self.dimension.div_ceil(AT_LEAST).div_ceil(16) * 16;
        if self.dimension <= largest as u64 { largest } else { shared.min(largest as u64) as usize }
    }

    /// How many chunks there are, at least one.
    pub fn count(&self) -> u32 {
        // At most `MOST_CHUNKS`: this always fits.
        self.dimension.div_ceil(self.full() as u64) as u32
    }

    /// The first coordinate of chunk `j`; past the last chunk, the vector's end.
    pub fn start(&self, j: u32) -> u64 {
        (u64::from(j) * self.full() as u64).min(self.dimension)
    }

    /// How many coordinates chunk `j` has; none past the last chunk.
    pub fn len(&self, j: u32) -> usize {
        (self.dimension - self.start(j)).min(self.full() as u64) as usize
    }

    /// How many bytes the words of chunk `j` travel in.
    pub fn bytes(&self, j: u32) -> usize {
        self.len(j) * self.ring.word_bytes()
    }
}

/// How many coordinates the largest chunk over a ring has.
fn largest(ring: Ring) -> usize {
    CHUNK_BYTES / ring.word_bytes() / 16 * 16
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use proptest::prelude::*;
    use serde_bytes::ByteBuf;

    use super::*;
    use crate::id::{Digest, Place};
    use crate::message::{Share, ShareCore};
    use crate::sharing::{MOST_BLOCKS, MOST_MEMBERS};
    use crate::wire::{self, MAX_M};

    #[test]
    fn a_full_chunk_is_the_largest_that_fits() {
        let full: Vec<usize> = Ring::all().map(|ring| Chunks::new(ring, 1).unwrap().full()).collect();
        assert_eq!(full, [262_144, 174_752, 131_072, 104_848, 87_376, 74_896, 65_536]);
    }

    #[test]
    fn a_vector_that_is_more_than_one_chunk_is_eight_or_more() {
        let cut = |bits, d| {
            let chunks = Chunks::new(Ring::new(bits).unwrap(), d).unwrap();
            (chunks.count(), chunks.len(0), chunks.len(chunks.count() - 1))
        };
        assert_eq!(cut(16, 262_144), (1, 262_144, 262_144));
        assert_eq!(cut(16, 262_145), (8, 32_784, 32_657));
        assert_eq!(cut(16, 1_000_000), (8, 125_008, 124_944));
        assert_eq!(cut(24, 1_000_000), (8, 125_008, 124_944));
        assert_eq!(cut(32, 1_000_000), (8, 125_008, 124_944));
        assert_eq!(cut(32, 8 * 131_072 + 1), (9, 131_072, 1));
    }

    #[test]
    fn a_window_has_as_many_messages_as_fit_4_mib_and_no_more_than_64() {
        let bytes =
            [usize::MAX, CHUNK_BYTES, MOST_CHUNKS as usize * size_of::<Digest>(), 250_016, 65_536, 65_535, 1, 0];
        assert_eq!(bytes.map(read_window), [1, 8, 8, 16, 64, 64, 64, 64]);
    }

    #[test]
    fn limits() {
        let ring = Ring::new(16).unwrap();
        assert_eq!(Chunks::new(ring, 0), Err(ChunkError::Empty));
        let most = 15_000 << 18;
        let longest = Chunks::new(ring, most).unwrap();
        assert_eq!((longest.count(), longest.len(14_999), longest.len(15_000)), (15_000, 262_144, 0));
        assert_eq!(longest.len(u32::MAX), 0);
        assert_eq!(Chunks::new(ring, most + 1), Err(ChunkError::TooLong { dimension: most + 1, bits: 16, most }));
        assert!(Chunks::new(Ring::new(40).unwrap(), 1 << 30).is_ok());
        assert!(Chunks::new(Ring::new(40).unwrap(), (1 << 30) + 1).is_err());
    }

    /// Whoever has the longest vector can still say so: digests of all chunks, with the most blocks and the largest
    /// committee, in one signed part.
    #[test]
    fn the_digests_of_the_longest_vector_fit_a_message() {
        let digest = Digest([1; 32]);
        let core = ShareCore {
            place: Place(u32::MAX),
            chunks: vec![digest; MOST_CHUNKS as usize],
            commitments: vec![digest; MOST_BLOCKS],
        };
        let share = Share { core: ByteBuf::from(wire::encode(&core)), boxes: vec![digest; MOST_MEMBERS] };
        assert!(wire::encode(&share).len() + 1024 < MAX_M);
        assert!(Ring::all().all(|ring| Chunks::new(ring, u64::MAX).is_err()));
        let longest = |ring| match Chunks::new(ring, u64::MAX) {
            Err(ChunkError::TooLong { most, .. }) => Chunks::new(ring, most).unwrap().count(),
            other => panic!("{other:?}"),
        };
        assert!(Ring::all().all(|ring| u64::from(longest(ring)) <= MOST_CHUNKS));
    }

    proptest! {
        #[test]
        fn chunks_cover_the_vector_once(bytes in 2_u8..=8, d in 1_u64..2_000_000) {
            let chunks = Chunks::new(Ring::new(bytes * 8).unwrap(), d).unwrap();
            let mut next = 0;
            for j in 0..chunks.count() {
                prop_assert_eq!(chunks.start(j), next);
                prop_assert!((1..=CHUNK_BYTES).contains(&chunks.bytes(j)));
                next += chunks.len(j) as u64;
            }
            prop_assert!(chunks.count() == 1 || chunks.count() >= AT_LEAST as u32);
            prop_assert_eq!(next, d);
        }
    }
}

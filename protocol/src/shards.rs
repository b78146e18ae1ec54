//! Which server adds which chunks of a vector: chunk j is server (j mod their number)'s (PROTOCOL.md, *Held*).

use crate::chunks::Chunks;

/// One server's part of every vector.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Shard {
    index: u32,
    servers: u32,
}

impl Shard {
    /// The part of the server at `index` of `servers`, which are at least one.
    pub(crate) fn new(index: usize, servers: usize) -> Self {
        Self { index: index as u32, servers: servers.max(1) as u32 }
    }

    /// All parts of `servers` servers, in their order.
    pub(crate) fn all(servers: usize) -> impl Iterator<Item = Self> {
        (0..servers).map(move |index| Self::new(index, servers))
    }

    /// Its chunks, ascending.
    pub(crate) fn chunks(self, chunks: &Chunks) -> impl Iterator<Item = u32> + use<> {
        (self.index..chunks.count()).step_by(self.servers as usize)
    }

    /// How many chunks it has.
    pub(crate) fn count(self, chunks: &Chunks) -> usize {
        self.chunks(chunks).count()
    }

    /// Whether a vector of this shape rides in the message to this server: it is one chunk, and this server's.
    pub(crate) fn rides(self, chunks: &Chunks) -> bool {
        chunks.count() == 1 && self.index == 0
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use vectors::Ring;

    #[test]
    fn every_chunk_has_one_server() {
        let ring = Ring::new(32).unwrap();
        for (d, servers) in [(1, 1), (1, 3), (1_000_000, 1), (1_000_000, 3), (1_000_000, 8), (1_000_000, 9)] {
            let chunks = Chunks::new(ring, d).unwrap();
            let mut all: Vec<u32> = Shard::all(servers).flat_map(|shard| shard.chunks(&chunks)).collect();
            all.sort_unstable();
            assert!(all.into_iter().eq(0..chunks.count()));
            assert_eq!(Shard::all(servers).filter(|shard| shard.rides(&chunks)).count(), usize::from(d == 1));
        }
    }
}

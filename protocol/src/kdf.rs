//! Key derivation and digests: BLAKE3 in `derive_key` mode, one context for each purpose
//! (PROTOCOL.md, *Trust*).
//!
//! Contexts read `ward/1 <purpose>` and are literals. A purpose belongs either to keys or to
//! digests, never to both.

use std::convert::Infallible;

use rand_core::{TryCryptoRng, TryRng};
use zeroize::Zeroize;

use crate::id::Digest;

/// A key of 32 bytes for `purpose`, from `key` and the parts that it is bound to.
///
/// Every part is preceded by its length, so no two lists of parts read the same.
pub(crate) fn derive(purpose: &'static str, key: &[u8], parts: &[&[u8]]) -> [u8; 32] {
    let mut hasher = keyed(purpose, key, parts);
    let derived = *hasher.finalize().as_bytes();
    hasher.zeroize();
    derived
}

/// The digest of a list of parts under `context`; each part is preceded by its length.
pub(crate) fn digest(context: &'static str, parts: &[&[u8]]) -> Digest {
    let mut hasher = blake3::Hasher::new_derive_key(context);
    parts.iter().for_each(|part| absorb(&mut hasher, part));
    Digest(*hasher.finalize().as_bytes())
}

/// The digest of a chunk's bytes as they travel.
pub fn chunk_digest(bytes: &[u8]) -> Digest {
    Digest(blake3::derive_key("ward/1 chunk", bytes))
}

fn keyed(purpose: &'static str, key: &[u8], parts: &[&[u8]]) -> blake3::Hasher {
    let mut hasher = blake3::Hasher::new_derive_key(purpose);
    absorb(&mut hasher, key);
    parts.iter().for_each(|part| absorb(&mut hasher, part));
    hasher
}

fn absorb(hasher: &mut blake3::Hasher, part: &[u8]) {
    hasher.update(&(part.len() as u64).to_le_bytes());
    hasher.update(part);
}

/// Bytes without end from one derived key, in the shape that `hpke` asks for.
///
/// This makes no randomness: randomness is an input of this crate, stored before it is used, and
/// here it is only stretched. The same inputs yield the same bytes, which is what lets a resumed
/// party repeat its encapsulation.
pub(crate) struct Stream(blake3::OutputReader);

impl Stream {
    pub(crate) fn new(purpose: &'static str, key: &[u8], parts: &[&[u8]]) -> Self {
        let mut hasher = keyed(purpose, key, parts);
        let stream = Self(hasher.finalize_xof());
        hasher.zeroize();
        stream
    }
}

impl Drop for Stream {
    fn drop(&mut self) {
        self.0.zeroize();
    }
}

impl TryRng for Stream {
    type Error = Infallible;

    fn try_next_u32(&mut self) -> Result<u32, Infallible> {
        let mut bytes = [0; 4];
        self.0.fill(&mut bytes);
        Ok(u32::from_le_bytes(bytes))
    }

    fn try_next_u64(&mut self) -> Result<u64, Infallible> {
        let mut bytes = [0; 8];
        self.0.fill(&mut bytes);
        Ok(u64::from_le_bytes(bytes))
    }

    fn try_fill_bytes(&mut self, bytes: &mut [u8]) -> Result<(), Infallible> {
        self.0.fill(bytes);
        Ok(())
    }
}

impl TryCryptoRng for Stream {}

#[cfg(test)]
mod tests {
    use rand_core::Rng;

    use super::*;

    #[test]
    fn parts_are_kept_apart() {
        let whole = derive("ward/1 test", b"key", &[b"ab", b"c"]);
        assert_eq!(whole, derive("ward/1 test", b"key", &[b"ab", b"c"]));
        for other in [
            derive("ward/1 test", b"key", &[b"a", b"bc"]),
            derive("ward/1 test", b"key", &[b"abc"]),
            derive("ward/1 test", b"key", &[b"ab", b"c", b""]),
            derive("ward/1 test", b"keya", &[b"b", b"c"]),
            derive("ward/1 other", b"key", &[b"ab", b"c"]),
        ] {
            assert_ne!(whole, other);
        }
        assert_ne!(digest("ward/1 test", &[b"ab", b"c"]), digest("ward/1 test", &[b"a", b"bc"]));
        assert_ne!(digest("ward/1 test", &[]), digest("ward/1 test", &[b""]));
    }

    #[test]
    fn a_stream_repeats_and_does_not_depend_on_how_it_is_read() {
        let stream = || Stream::new("ward/1 test", b"key", &[b"part"]);
        let (mut whole, mut pieces) = ([0; 100], [0; 100]);
        stream().fill_bytes(&mut whole);
        let mut reader = stream();
        pieces[..4].copy_from_slice(&reader.next_u32().to_le_bytes());
        pieces[4..12].copy_from_slice(&reader.next_u64().to_le_bytes());
        reader.fill_bytes(&mut pieces[12..]);
        assert_eq!(whole, pieces);
        assert_ne!(whole[..32], whole[32..64]);
    }

    // By a separate Python implementation of BLAKE3's specification, which passes the official test
    // vectors for `hash` and `derive_key`.
    #[test]
    fn known_answers() {
        let key = derive("ward/1 test", b"key", &[b"ab", b"c"]);
        assert_eq!(hex::encode(key), "2dea166b1584380b350f66a26614895a5421cb7be2b0d29f03f42c544241b06d");
        let parts = digest("ward/1 test", &[b"ab", b"c"]).to_string();
        assert_eq!(parts, "24cad85beffdd56707cf3b7350bd394c922af93b8df409d2bf3c2ed4936c18c8");
        let chunk: Vec<u8> = (0..1024).map(|i| i as u8).collect();
        let chunk = chunk_digest(&chunk).to_string();
        assert_eq!(chunk, "9117b327efc00b401105fe22e51eb1ca62603bf54e7b2da2f274338979646f13");
        let mut stream = [0; 100];
        Stream::new("ward/1 test", b"key", &[b"part"]).fill_bytes(&mut stream);
        assert_eq!(hex::encode(&stream[60..76]), "4548134358040c8ebe1f5a8bfaf29dba");
    }
}

//! The names of the cohort's chunks, put together from the pieces that come with each server's MaskedSum.

use std::collections::BTreeMap;

use crate::desk::{Stop, rule};
use crate::id::MessageName;
use crate::message::ChunkNames;
use crate::wire;

/// The names of one server's chunks: chunk by chunk, and for each of the cohort by ascending place.
#[derive(Debug)]
pub(super) struct Names {
    total: usize,
    pieces: BTreeMap<u32, Vec<MessageName>>,
}

impl Names {
    /// Of a server that has `total` chunks of all patients together.
    pub(super) fn new(total: usize) -> Self {
        Self { total, pieces: BTreeMap::new() }
    }

    /// Takes the piece that came with a MaskedSum. Names prove nothing: what is read under them must have the digest that
    /// its patient signed.
    pub(super) fn take(&mut self, attachment: &[u8]) -> Result<(), Stop> {
        if self.is_whole() {
            return Ok(());
        }
        let ChunkNames { piece, names } = wire::decode(attachment, "chunk names")?;
        let before = (piece as usize).saturating_mul(ChunkNames::MOST);
        if names.is_empty() || names.len() != self.total.saturating_sub(before).min(ChunkNames::MOST) {
            return Err(rule("a piece of the chunks' names that does not fit the Cohort"));
        }
        self.pieces.insert(piece, names);
        Ok(())
    }

    pub(super) fn is_whole(&self) -> bool {
        self.pieces.len() == self.total.div_ceil(ChunkNames::MOST)
    }

    /// The name at `at`.
    pub(super) fn get(&self, at: usize) -> Option<MessageName> {
        let piece = self.pieces.get(&((at / ChunkNames::MOST) as u32))?;
        piece.get(at % ChunkNames::MOST).copied()
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    fn piece(piece: u32, count: usize) -> Vec<u8> {
        wire::encode(&ChunkNames { piece, names: vec![MessageName([(piece % 16) as u8 + 1; 16]); count] })
    }

    #[test]
    fn names_of_several_pieces_are_whole_in_any_order() {
        let mut names = Names::new(ChunkNames::MOST + 2);
        for wrong in [piece(0, ChunkNames::MOST - 1), piece(1, 3), piece(2, 1), piece(u32::MAX, 1), piece(1, 0)] {
            assert!(names.take(&wrong).is_err());
        }
        names.take(&piece(1, 2)).unwrap();
        assert!(!names.is_whole());
        names.take(&piece(0, ChunkNames::MOST)).unwrap();
        assert!(names.is_whole());
        let found = [0, ChunkNames::MOST - 1, ChunkNames::MOST, ChunkNames::MOST + 2].map(|at| names.get(at));
        assert_eq!(found, [Some(1), Some(1), Some(2), None].map(|byte| byte.map(|byte| MessageName([byte; 16]))));
    }

    #[test]
    fn a_server_without_a_part_has_no_names() {
        assert!(Names::new(0).is_whole());
    }

    #[test]
    fn a_full_piece_fits_a_message() {
        assert!(piece(0, ChunkNames::MOST).len() + crate::wire::MAX_M < crate::wire::MAX_MESSAGE);
    }
}

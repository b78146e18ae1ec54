//! The Shares of a cohort, put together from the pieces that come with its Cohort.

use std::collections::BTreeMap;

use crate::desk::{Stop, rule};
use crate::id::{Digest, MessageName};
use crate::merkle;
use crate::message::{CohortShares, cohort_leaf};
use crate::session::Fixed;
use crate::wire;

/// The pieces that are here, of the Cohort that came last.
#[derive(Debug, Default)]
pub(super) struct Listed {
    cohort: Digest,
    pieces: BTreeMap<u32, CohortShares>,
}

impl Listed {
    /// Takes the piece that came with the Cohort `fixed`. The digest and name of each Share by ascending place, once
    /// the list is whole; then it is the one that the Cohort commits to.
    pub(super) fn take(
        &mut self,
        fixed: &Fixed,
        attachment: &[u8],
    ) -> Result<Option<Vec<(Digest, MessageName)>>, Stop> {
        let piece: CohortShares = wire::decode(attachment, "cohort shares")?;
        let count = fixed.cohort.places.len() as usize;
        let before = (piece.piece as usize).saturating_mul(CohortShares::MOST);
        if piece.shares.is_empty() || piece.shares.len() != count.saturating_sub(before).min(CohortShares::MOST) {
            return Err(rule("a piece of the Shares listed that does not fit the Cohort"));
        }
        if self.cohort != fixed.digest {
            *self = Self { cohort: fixed.digest, pieces: BTreeMap::new() };
        }
        self.pieces.insert(piece.piece, piece);
        if self.pieces.len() < count.div_ceil(CohortShares::MOST) {
            return Ok(None);
        }
        // Which piece is wrong cannot be told: all are forgotten, and those that stand on the board may come again.
        let pieces = std::mem::take(&mut self.pieces).into_values();
        let shares: Vec<(Digest, MessageName)> = pieces.flat_map(|piece| piece.shares).collect();
        let leaves: Vec<Digest> =
            fixed.places().zip(&shares).map(|(place, (share, _))| cohort_leaf(place, *share)).collect();
        if merkle::root(&leaves) != fixed.cohort.root {
            return Err(rule("the Shares listed are not those that the Cohort commits to"));
        }
        Ok(Some(shares))
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use crate::desk::Pen;
    use crate::id::{Kind, Place, Role, RoundNo, To};
    use crate::memory::Registry;
    use crate::message::Cohort;
    use crate::places::Places;

    /// A Cohort of `count` patients and the pieces of its list.
    fn cohort(count: u32) -> (Fixed, Vec<CohortShares>) {
        let me = std::sync::Arc::new(Registry::default()).register(&"server".parse().unwrap(), Role::Server);
        let pen = Pen { me: &me, session: Digest::default(), round: RoundNo(1), secret: &[1; 32] };
        let shares: Vec<_> = (0..count).map(|at| (Digest([at as u8; 32]), MessageName([at as u8; 16]))).collect();
        let leaves: Vec<Digest> =
            (0..count).zip(&shares).map(|(at, (share, _))| cohort_leaf(Place(at), *share)).collect();
        let cohort = Cohort { places: Places::all(count), root: merkle::root(&leaves) };
        let signed = pen.sign(Kind::Cohort, To::All, Digest::default(), &cohort);
        let pieces = (0u32..).zip(shares.chunks(CohortShares::MOST));
        let pieces = pieces.map(|(piece, shares)| CohortShares { piece, shares: shares.to_vec() }).collect();
        (Fixed { digest: signed.digest(), cohort, signed }, pieces)
    }

    #[test]
    fn a_list_of_several_pieces_is_whole_in_any_order() {
        let (fixed, pieces) = cohort(2 * CohortShares::MOST as u32 + 1);
        let mut listed = Listed::default();
        for (at, whole) in [(2, false), (0, false), (0, false), (1, true)] {
            assert_eq!(listed.take(&fixed, &wire::encode(&pieces[at])).unwrap().is_some(), whole);
        }
    }

    #[test]
    fn a_list_of_other_shares_is_refused_and_may_come_again() {
        let (fixed, pieces) = cohort(CohortShares::MOST as u32 + 3);
        let mut wrong = pieces[1].clone();
        wrong.shares.swap(0, 1);
        let mut listed = Listed::default();
        assert!(listed.take(&fixed, &wire::encode(&wrong)).unwrap().is_none());
        assert!(listed.take(&fixed, &wire::encode(&pieces[0])).is_err());
        assert!(listed.take(&fixed, &wire::encode(&pieces[0])).unwrap().is_none());
        assert!(listed.take(&fixed, &wire::encode(&pieces[1])).unwrap().is_some());
    }

    #[test]
    fn a_piece_of_another_length_or_beyond_the_cohort_is_refused() {
        let (fixed, pieces) = cohort(CohortShares::MOST as u32 + 3);
        let mut listed = Listed::default();
        for piece in [2, u32::MAX] {
            assert!(listed.take(&fixed, &wire::encode(&CohortShares { piece, ..pieces[0].clone() })).is_err());
        }
        let short = CohortShares { piece: 1, shares: pieces[1].shares[1..].to_vec() };
        assert!(listed.take(&fixed, &wire::encode(&short)).is_err());
    }
}

//! What coalitions learn: every sum of masks that was released takes the masks off a sum of vectors, and sums of vectors over
//! several rounds have differences. A coalition is the hospital, the servers and up to t patients, members or not; what it
//! knows by itself is left out, and what it can reckon is a space of sums over the others, snapshot by snapshot.

use std::collections::{BTreeMap, BTreeSet};

use super::super::blocks;
use super::super::shape::Shape;
use super::Oracle;
use super::space::Space;
use crate::id::{Digest, Snapshot};

/// People, by number.
type People = BTreeSet<u8>;

/// The sums of masks that were released, by the Begin that the masks are of.
#[derive(Debug, Default)]
pub(super) struct Released(BTreeMap<Digest, Sums>);

/// Those of one Begin.
#[derive(Debug)]
struct Sums {
    snapshot: Snapshot,
    /// Who sits where on the committee.
    seats: Vec<Option<u8>>,
    /// Over whom, block by block.
    over: BTreeMap<u16, BTreeSet<People>>,
}

impl Released {
    /// Somebody released the sum of these masks of these people.
    pub(super) fn add(
        &mut self,
        (begin, snapshot): (Digest, &Snapshot),
        seats: Vec<Option<u8>>,
        blocks: impl IntoIterator<Item = u16>,
        people: &People,
    ) {
        let new = || Sums { snapshot: snapshot.clone(), seats, over: BTreeMap::new() };
        let sums = self.0.entry(begin).or_insert_with(new);
        for block in blocks {
            sums.over.entry(block).or_default().insert(people.clone());
        }
    }

    /// A coalition with all of `known`, who broke the rules, that knows the sum over too few others: whom it has, and over whom.
    pub(super) fn leak(&self, shape: &Shape, known: &People) -> Option<(People, People)> {
        let everybody: People = (0..shape.patients).collect();
        let most = usize::from(shape.threshold);
        let coalitions = subsets(&everybody).filter(|corrupt| corrupt.is_superset(known) && corrupt.len() <= most);
        coalitions.into_iter().find_map(|corrupt| {
            let few = usize::from(shape.min_cohort).saturating_sub(corrupt.len());
            let honest: People = everybody.difference(&corrupt).copied().collect();
            let spaces = self.spaces(shape, &corrupt);
            let too_few = subsets(&honest).filter(|people| !people.is_empty() && people.len() < few);
            let learnt = too_few.into_iter().find(|people| spaces.iter().any(|space| space.has(people)));
            Some((corrupt, learnt?))
        })
    }

    /// Whether all masks of a Begin are off the sum over these people, for anybody.
    pub(super) fn is_open(&self, shape: &Shape, begin: Digest, people: &People) -> bool {
        self.0.get(&begin).is_some_and(|sums| sums.space(shape, &People::new()).has(people))
    }

    /// The sums that these can reckon over the others, one space for each snapshot.
    fn spaces(&self, shape: &Shape, corrupt: &People) -> Vec<Space> {
        let mut spaces: BTreeMap<&Snapshot, Space> = BTreeMap::new();
        for sums in self.0.values() {
            let space = sums.space(shape, corrupt);
            let known = spaces.entry(&sums.snapshot).or_default();
            *known = known.with(&space);
        }
        spaces.into_values().collect()
    }
}

impl Sums {
    /// The sums of vectors that these can take all masks off: those of blocks whose seeds they hold by themselves, and of each
    /// other block by a sum that was released.
    fn space(&self, shape: &Shape, corrupt: &People) -> Space {
        let seats = (0..).zip(&self.seats).filter(|(_, who)| who.is_some_and(|who| corrupt.contains(&who)));
        let held: BTreeSet<u16> =
            seats.flat_map(|(seat, _)| blocks::held(shape.committee, shape.threshold, seat)).collect();
        let all = 0..blocks::blocks(shape.committee, shape.threshold).len() as u16;
        let spaces = all.filter(|block| !held.contains(block)).map(|block| {
            let over = self.over.get(&block).into_iter().flatten();
            Space::of(over.map(|people| people.difference(corrupt).copied().collect::<People>()))
        });
        spaces.reduce(|one, other| one.common(&other)).unwrap_or_default()
    }
}

/// All subsets of people, few first.
fn subsets(people: &People) -> impl Iterator<Item = People> {
    let people: Vec<u8> = people.iter().copied().collect();
    let mut all: Vec<u32> = (0..1 << people.len()).collect();
    all.sort_by_key(|bits| bits.count_ones());
    let chosen =
        move |bits: u32| (0..).zip(&people).filter(|(at, _)| bits >> at & 1 == 1).map(|(_, who)| *who).collect();
    all.into_iter().map(chosen)
}

impl Oracle {
    /// Judges all rounds together: whatever anybody was handed in any of them, nobody's sum is over too few.
    pub(in super::super) fn judge_leakage(&mut self) {
        let broke = self.liars.iter().chain(&self.restored);
        let known: People = broke.filter_map(|who| self.cast.number(who)).collect();
        if let Some((corrupt, people)) = self.released.leak(&self.shape, &known) {
            let what = format!("who has {corrupt:?}, hospital and servers knows the sum over {people:?} alone");
            self.fail("leakage", what);
        }
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use super::*;

    /// Whoever is on one of its four blocks has the seeds of the other three.
    fn shape(patients: u8) -> Shape {
        let (marked, servers, committee, threshold, min_cohort, dimension) = (patients, 1, 4, 1, 3, 1);
        let (acts, silent) = (Vec::new(), Vec::new());
        Shape { patients, marked, servers, committee, threshold, min_cohort, dimension, acts, silent, payloads: false }
    }

    /// Rounds over one snapshot, all blocks of each opened over these people.
    fn opened(rounds: &[&[u8]]) -> Released {
        let mut released = Released::default();
        for (number, people) in (0..).zip(rounds) {
            release(&mut released, number, 0..4, people);
        }
        released
    }

    fn release(released: &mut Released, number: u8, blocks: impl IntoIterator<Item = u16>, people: &[u8]) {
        let seats = (0..4).map(Some).collect();
        let (begin, snapshot) = (Digest([number; 32]), "1".parse().unwrap());
        released.add((begin, &snapshot), seats, blocks, &people.iter().copied().collect());
    }

    fn nobody() -> People {
        People::new()
    }

    #[test]
    fn the_same_people_again_or_others_give_nothing_away() {
        assert_eq!(opened(&[&[0, 1, 2, 3, 4], &[0, 1, 2, 3, 4]]).leak(&shape(5), &nobody()), None);
        assert_eq!(opened(&[&[0, 1, 2], &[3, 4, 5], &[0, 1, 2]]).leak(&shape(6), &nobody()), None);
    }

    #[test]
    fn an_overlap_gives_away_who_is_left_out() {
        let leak = opened(&[&[0, 1, 2, 3, 4], &[0, 1, 2, 3]]).leak(&shape(5), &nobody());
        assert_eq!(leak, Some((nobody(), [4].into())));
        let chain = opened(&[&[0, 1, 2], &[2, 3, 4], &[0, 1, 3, 4]]).leak(&shape(5), &nobody());
        assert_eq!(chain, Some((nobody(), [2].into())), "by halves");
    }

    #[test]
    fn a_block_that_is_closed_to_all_hides_everything() {
        let mut released = opened(&[&[0, 1, 2, 3, 4]]);
        release(&mut released, 0, [0], &[0, 1, 2, 3]);
        assert_eq!(released.leak(&shape(5), &[3].into()), None, "the other sum of block 0 hides behind block 3");
        assert_eq!(released.leak(&shape(5), &[0].into()), Some(([0].into(), [4].into())), "all others are its own");
    }

    #[test]
    fn two_openings_of_one_round_give_away_their_difference() {
        let mut released = opened(&[&[0, 1, 2, 3, 4]]);
        release(&mut released, 0, 0..4, &[1, 2, 3, 4]);
        assert_eq!(released.leak(&shape(5), &nobody()), Some((nobody(), [0].into())));
    }

    #[test]
    fn a_cohort_that_is_too_small_is_known() {
        assert_eq!(opened(&[&[1, 4]]).leak(&shape(5), &nobody()), Some((nobody(), [1, 4].into())));
    }
}

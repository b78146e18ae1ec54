//! Which patients are in the sum (PROTOCOL.md, *Cohort*): a decision over sets, and nothing else.

use crate::places::Places;
use crate::sharing::Sharing;

/// What is known when the cohort is decided.
pub(super) struct Choice<'a> {
    pub(super) sharing: Sharing,
    /// k.
    pub(super) min_cohort: u32,
    /// With `same_as`: the cohort that must come out, nobody less.
    pub(super) exact: Option<&'a Places>,
    /// Who may be in and whose whole vector the server has.
    pub(super) folded: &'a Places,
    /// Whose seeds each member holds, by seat.
    pub(super) held: &'a [&'a Places],
}

impl Choice<'_> {
    /// Everybody whom all members and the server hold.
    pub(super) fn held_by_all(&self) -> Places {
        self.held.iter().fold(self.folded.clone(), |cohort, held| cohort.intersect(held))
    }

    /// Everybody whom one and the same set of q or more members, and the server, hold. Of these sets the one with the
    /// largest cohort, giving up at most a tenth of it to keep a member more, but never below k; with `same_as` nobody.
    pub(super) fn best(&self) -> Option<Places> {
        let (quorum, committee) = (usize::from(self.sharing.quorum()), self.held.len());
        let largest: Vec<Places> = (quorum..=committee).filter_map(|size| self.largest(size)).collect();
        let floor = match self.exact {
            Some(exact) => exact.len().max(self.min_cohort),
            None => {
                let most = largest.iter().map(Places::len).max()?;
                self.min_cohort.max(most - most / 10)
            }
        };
        largest.into_iter().rev().find(|cohort| cohort.len() >= floor)
    }

    /// How many could be in a cohort at the most, whatever its least size.
    pub(super) fn most(&self) -> u32 {
        self.largest(usize::from(self.sharing.quorum())).map_or(0, |cohort| cohort.len())
    }

    /// The largest cohort that some set of exactly `size` members holds.
    fn largest(&self, size: usize) -> Option<Places> {
        let sets = (0..1_u16 << self.held.len()).filter(|set| set.count_ones() as usize == size);
        let cohorts = sets.map(|set| {
            let members = self.held.iter().enumerate().filter(|(seat, _)| set >> seat & 1 == 1);
            members.fold(self.folded.clone(), |cohort, (_, held)| cohort.intersect(held))
        });
        cohorts.max_by_key(Places::len)
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use crate::id::Place;

    fn places(list: &[u32]) -> Places {
        Places::of(20, list.iter().copied().map(Place))
    }

    fn best(held: &[Places], min_cohort: u32, exact: Option<&Places>) -> Option<Places> {
        let sharing = Sharing::new(held.len() as u8, 1).unwrap();
        let held: Vec<&Places> = held.iter().collect();
        Choice { sharing, min_cohort, exact, folded: &Places::all(20), held: &held }.best()
    }

    #[test]
    fn a_member_that_holds_nobody_is_left_out_and_costs_nobody() {
        let all = Places::all(20);
        let held = [all.clone(), all.clone(), Places::none(20), all.clone()];
        assert_eq!(best(&held, 3, None), Some(all));
    }

    #[test]
    fn one_lying_member_leaves_nobody_out() {
        let all = Places::all(20);
        let mut lie = all.clone();
        (0..5).for_each(|place| lie.remove(Place(place)));
        assert_eq!(best(&[all.clone(), lie, all.clone(), all.clone()], 3, None), Some(all));
    }

    #[test]
    fn a_tenth_of_the_cohort_is_given_up_to_keep_a_member_more_but_never_below_k() {
        let all = Places::all(20);
        let mut fewer = all.clone();
        fewer.remove(Place(3));
        fewer.remove(Place(4));
        let held = [all.clone(), fewer.clone(), all.clone(), all.clone()];
        assert_eq!(best(&held, 3, None), Some(fewer));
        assert_eq!(best(&held, 19, None), Some(all.clone()));
        assert_eq!(best(&held, 3, Some(&all)), Some(all));
    }

    #[test]
    fn below_k_or_not_the_same_is_no_cohort() {
        let few = places(&[1, 2]);
        assert_eq!(best(&[few.clone(), few.clone(), few.clone(), few.clone()], 3, None), None);
        let exact = places(&[1, 2, 3]);
        assert_eq!(best(&[few.clone(), few.clone(), few.clone(), few], 2, Some(&exact)), None);
    }
}

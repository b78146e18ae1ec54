//! Sets of patients by their place in the Roster: the cohort of a round.

use serde::{Deserialize, Serialize};
use serde_bytes::ByteBuf;

use crate::id::Place;

/// One bit per place of the Roster, lowest bit of the first byte first; no bit beyond the Roster's count is set.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Places {
    count: u32,
    bits: ByteBuf,
}

impl Places {
    /// The empty set over a Roster of `count` patients.
    pub fn none(count: u32) -> Self {
        Self { count, bits: ByteBuf::from(vec![0; count.div_ceil(8) as usize]) }
    }

    /// The set of `places`; a place beyond `count` is left out.
    pub fn of(count: u32, places: impl IntoIterator<Item = Place>) -> Self {
        let mut set = Self::none(count);
        for place in places {
            set.insert(place);
        }
        set
    }

    /// Whether this is a set over a Roster of `count` patients: right length and no stray bit.
    pub fn fits(&self, count: u32) -> bool {
        let stray = self.bits.last().is_some_and(|last| !count.is_multiple_of(8) && last >> (count % 8) != 0);
        self.count == count && self.bits.len() == count.div_ceil(8) as usize && !stray
    }

    /// Adds `place`, unless it is beyond the Roster.
    pub fn insert(&mut self, place: Place) {
        if place.0 < self.count {
            self.bits[place.0 as usize / 8] |= 1 << (place.0 % 8);
        }
    }

    /// Whether `place` is in the set.
    pub fn contains(&self, place: Place) -> bool {
        self.bits.get(place.0 as usize / 8).is_some_and(|byte| byte >> (place.0 % 8) & 1 == 1)
    }

    /// How many places the Roster has.
    pub fn universe(&self) -> u32 {
        self.count
    }

    /// How many places are in the set.
    pub fn len(&self) -> u32 {
        self.bits.iter().map(|byte| byte.count_ones()).sum()
    }

    /// Whether nobody is in the set.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// The places in the set, ascending.
    pub fn iter(&self) -> impl Iterator<Item = Place> + '_ {
        (0..self.count).map(Place).filter(|place| self.contains(*place))
    }

    /// Those that are in both sets.
    pub fn intersect(&self, other: &Self) -> Self {
        let bits: Vec<u8> = self.bits.iter().zip(other.bits.iter()).map(|(a, b)| a & b).collect();
        Self { count: self.count, bits: ByteBuf::from(bits) }
    }

    /// Takes `place` out.
    pub fn remove(&mut self, place: Place) {
        if let Some(byte) = self.bits.get_mut(place.0 as usize / 8) {
            *byte &= !(1 << (place.0 % 8));
        }
    }

    /// All places of a Roster of `count` patients.
    pub fn all(count: u32) -> Self {
        Self::of(count, (0..count).map(Place))
    }

    /// Whether the two sets are equal or have nobody in common (PROTOCOL.md, *Confirm*).
    pub fn same_or_apart(&self, other: &Self) -> bool {
        self == other || self.bits.iter().zip(other.bits.iter()).all(|(a, b)| a & b == 0)
    }
}

/// A set that knows how many are in it: what is asked after every message must not count them anew.
#[derive(Clone, Debug)]
pub(crate) struct Counted {
    places: Places,
    len: u32,
}

impl Counted {
    pub(crate) fn new(places: Places) -> Self {
        Self { len: places.len(), places }
    }

    pub(crate) fn insert(&mut self, place: Place) {
        if place.0 < self.places.count && !self.places.contains(place) {
            self.places.insert(place);
            self.len += 1;
        }
    }

    pub(crate) fn remove(&mut self, place: Place) {
        if self.places.contains(place) {
            self.places.remove(place);
            self.len -= 1;
        }
    }

    pub(crate) fn len(&self) -> u32 {
        self.len
    }

    pub(crate) fn places(&self) -> &Places {
        &self.places
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn a_stray_bit_does_not_fit() {
        let set = Places { count: 3, bits: ByteBuf::from(vec![0b1000]) };
        assert!(!set.fits(3));
        assert!(Places::of(3, [Place(2)]).fits(3));
        assert!(!Places::of(3, [Place(2)]).fits(4));
    }

    proptest! {
        #[test]
        fn it_is_a_set(count in 1u32..70, members in proptest::collection::btree_set(0u32..70, 0..40)) {
            let set = Places::of(count, members.iter().copied().map(Place));
            let expected: Vec<_> = members.into_iter().filter(|m| *m < count).map(Place).collect();
            prop_assert_eq!(set.iter().collect::<Vec<_>>(), expected);
            prop_assert!(set.fits(count));
        }

        #[test]
        fn the_count_follows_the_set(count in 1u32..70, steps in proptest::collection::vec((0u32..80, 0u8..2), 0..60)) {
            let mut set = Counted::new(Places::of(count, [Place(0), Place(count - 1)]));
            for (place, add) in steps {
                if add == 1 { set.insert(Place(place)) } else { set.remove(Place(place)) }
                prop_assert_eq!(set.len(), set.places().len());
            }
        }

        #[test]
        fn same_or_apart_means_no_part_in_common(a in 0u8.., b in 0u8..) {
            let set = |bits: u8| Places { count: 8, bits: ByteBuf::from(vec![bits]) };
            prop_assert_eq!(set(a).same_or_apart(&set(b)), a == b || a & b == 0);
        }
    }
}

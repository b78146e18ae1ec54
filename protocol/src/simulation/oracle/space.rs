//! Sums over people that can be reckoned from one another: a vector space with a coordinate for each of them, modulo a prime
//! that no determinant of so few zeroes and ones reaches, so that it is as over the fractions.

use std::collections::BTreeSet;

/// 2^31 - 1.
const PRIME: u64 = (1 << 31) - 1;

/// How many people there are room for.
const PEOPLE: usize = 8;

type Row = [u64; PEOPLE];

/// The rows of a basis, in echelon form: each has a 1 where all others have 0, its pivot.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Space(Vec<Row>);

impl Space {
    /// What follows from the sums over these.
    pub(super) fn of(sums: impl IntoIterator<Item = BTreeSet<u8>>) -> Self {
        let mut space = Self::default();
        sums.into_iter().for_each(|people| space.add(row(&people)));
        space
    }

    /// Whether the sum over these people follows.
    pub(super) fn has(&self, people: &BTreeSet<u8>) -> bool {
        self.reduced(row(people)) == [0; PEOPLE]
    }

    /// What follows from either.
    pub(super) fn with(&self, other: &Self) -> Self {
        let mut both = self.clone();
        other.0.iter().for_each(|row| both.add(*row));
        both
    }

    /// What follows from each alone: whatever stands upright on all that stands upright on one of them.
    pub(super) fn common(&self, other: &Self) -> Self {
        if self == other { self.clone() } else { self.upright().with(&other.upright()).upright() }
    }

    fn add(&mut self, row: Row) {
        let row = self.reduced(row);
        let Some(pivot) = pivot(&row) else { return };
        let row = scaled(&row, inverse(row[pivot]));
        for known in &mut self.0 {
            *known = less(known, &row, known[pivot]);
        }
        self.0.push(row);
        self.0.sort_unstable_by_key(|row| std::cmp::Reverse(*row));
    }

    fn reduced(&self, row: Row) -> Row {
        let steps = self.0.iter().filter_map(|known| Some((known, pivot(known)?)));
        steps.fold(row, |row, (known, at)| less(&row, known, row[at]))
    }

    /// All rows whose product with each of these is 0: one for each coordinate without a pivot.
    fn upright(&self) -> Self {
        let pivots: Vec<Option<usize>> = self.0.iter().map(pivot).collect();
        let mut upright = Self::default();
        for free in (0..PEOPLE).filter(|at| !pivots.contains(&Some(*at))) {
            let mut row = [0; PEOPLE];
            row[free] = 1;
            for (known, at) in self.0.iter().zip(&pivots) {
                if let Some(at) = at {
                    row[*at] = (PRIME - known[free]) % PRIME;
                }
            }
            upright.add(row);
        }
        upright
    }
}

fn row(people: &BTreeSet<u8>) -> Row {
    std::array::from_fn(|at| u64::from(people.contains(&(at as u8))))
}

fn pivot(row: &Row) -> Option<usize> {
    row.iter().position(|entry| *entry != 0)
}

fn scaled(row: &Row, factor: u64) -> Row {
    row.map(|entry| entry * factor % PRIME)
}

fn less(row: &Row, other: &Row, factor: u64) -> Row {
    let other = scaled(other, factor);
    std::array::from_fn(|at| (row[at] + PRIME - other[at]) % PRIME)
}

/// By Fermat: the power PRIME - 2.
fn inverse(number: u64) -> u64 {
    let (mut power, mut square, mut left) = (1, number, PRIME - 2);
    while left > 0 {
        if left % 2 == 1 {
            power = power * square % PRIME;
        }
        square = square * square % PRIME;
        left /= 2;
    }
    power
}

#[cfg(test)]
mod tests {
    use super::*;

    fn space(sums: &[&[u8]]) -> Space {
        Space::of(sums.iter().map(|people| people.iter().copied().collect()))
    }

    fn has(space: &Space, people: &[u8]) -> bool {
        space.has(&people.iter().copied().collect())
    }

    #[test]
    fn differences_follow_and_nothing_else() {
        let known = space(&[&[0, 1, 2, 3], &[0, 1], &[1, 2]]);
        assert!(has(&known, &[2, 3]) && has(&known, &[0, 3]));
        assert!(!has(&known, &[0]) && !has(&known, &[0, 2]) && !has(&known, &[4]));
        assert!(has(&space(&[&[0, 1], &[1, 2], &[0, 2]]), &[1]), "by halves");
    }

    #[test]
    fn in_common_is_what_follows_from_each() {
        let (one, other) = (space(&[&[0, 1], &[2, 3]]), space(&[&[0, 1, 2, 3], &[4]]));
        let common = one.common(&other);
        assert_eq!(common, space(&[&[0, 1, 2, 3]]));
        assert_eq!(common, other.common(&one));
        assert_eq!(one.common(&Space::default()), Space::default());
        assert_eq!(one.with(&other), space(&[&[0, 1], &[2, 3], &[4]]));
    }
}

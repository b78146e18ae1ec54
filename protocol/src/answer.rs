//! The vector that answers a question, read where it lies: nobody copies what is long.

use std::ops::{Deref, Range};

use zeroize::Zeroize;

use crate::task::{Question, Record};

/// The columns that a question names, end to end: one long vector in pieces.
pub(crate) struct Answering<'a>(Vec<&'a [i64]>);

/// Some coordinates of the vector.
pub(crate) enum Coordinates<'a> {
    /// They lie side by side in one column.
    InPlace(&'a [i64]),
    /// They are of several columns: a copy, wiped on drop.
    Gathered(Vec<i64>),
}

impl<'a> Answering<'a> {
    /// What answers `question` in `record`; `None` where a column is missing or of another width.
    pub(crate) fn new(question: &Question, record: &'a Record) -> Option<Self> {
        question.columns().iter().map(|column| record.column(column)).collect::<Option<_>>().map(Self)
    }

    /// The coordinates in `range`; `None` where the vector ends before.
    pub(crate) fn range(&self, range: Range<usize>) -> Option<Coordinates<'a>> {
        let (len, mut pieces) = (range.len(), self.pieces(range));
        let first = pieces.next().unwrap_or_default();
        if first.len() == len {
            return Some(Coordinates::InPlace(first));
        }
        // With room for all from the start: growing would leave copies behind that nobody wipes.
        let mut all = Vec::with_capacity(len);
        all.extend_from_slice(first);
        pieces.for_each(|piece| all.extend_from_slice(piece));
        let gathered = Coordinates::Gathered(all);
        (gathered.len() == len).then_some(gathered)
    }

    /// What of each column lies in `range`, where anything does.
    fn pieces(&self, range: Range<usize>) -> impl Iterator<Item = &'a [i64]> {
        let mut start = 0;
        let cut = move |column: &&'a [i64]| {
            let within = |at: usize| at.saturating_sub(start).min(column.len());
            let piece = &column[within(range.start)..within(range.end)];
            start += column.len();
            piece
        };
        self.0.iter().map(cut).filter(|piece| !piece.is_empty())
    }
}

impl Deref for Coordinates<'_> {
    type Target = [i64];

    fn deref(&self) -> &[i64] {
        match self {
            Coordinates::InPlace(values) => values,
            Coordinates::Gathered(values) => values,
        }
    }
}

impl Drop for Coordinates<'_> {
    fn drop(&mut self) {
        if let Coordinates::Gathered(values) = self {
            // A slice is wiped in bulk, a vector element by element.
            values.as_mut_slice().zeroize();
        }
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use std::collections::BTreeMap;

    use super::*;
    use crate::decimal::Scale;
    use crate::task::{Column, Schema};

    const WIDTHS: [u32; 4] = [1, 5, 1, 3];

    /// Columns `c0`, `c1`, .. of these widths that hold 0, 1, 2, .. through all of them.
    fn record() -> (Question, Record) {
        let names = WIDTHS.iter().enumerate();
        let columns: Vec<Column> = names.map(|(at, width)| Column { name: format!("c{at}"), width: *width }).collect();
        let mut next = 0..;
        let values = columns.iter().map(|column| {
            let values: Vec<i64> = next.by_ref().take(column.width as usize).collect();
            (column.name.clone(), values)
        });
        let values: BTreeMap<_, _> = values.collect();
        let schema = Schema { columns: columns.clone(), scaled_bound: 100, scale: Scale::default() };
        (Question::Sum(columns), Record::new(values, &schema).unwrap())
    }

    #[test]
    fn every_range_is_the_same_as_of_the_whole() {
        let (question, record) = record();
        let vector = Answering::new(&question, &record).unwrap();
        for start in 0..=10_usize {
            for end in start..=10 {
                let expected: Vec<i64> = (start as i64..end as i64).collect();
                assert_eq!(*vector.range(start..end).unwrap(), expected);
            }
            assert!(vector.range(start..11).is_none());
        }
    }

    #[test]
    fn what_lies_in_one_column_is_not_copied() {
        let (question, record) = record();
        let vector = Answering::new(&question, &record).unwrap();
        assert!(matches!(vector.range(2..6), Some(Coordinates::InPlace([2, 3, 4, 5]))));
        assert!(matches!(vector.range(5..7), Some(Coordinates::Gathered(_))));
    }

    #[test]
    fn a_column_of_another_width_answers_nothing() {
        let (_, record) = record();
        for (name, width) in [("c1", 4), ("c9", 1)] {
            let question = Question::Sum(vec![Column { name: name.into(), width }]);
            assert!(Answering::new(&question, &record).is_none());
        }
    }
}

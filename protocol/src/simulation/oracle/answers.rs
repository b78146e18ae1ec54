//! What an answer may say: one value of each patient of the frozen cohort, each once, and the same ones for ever.

use std::collections::BTreeSet;

use super::super::shape::DIGIT_BITS;
use super::{Fixed, Oracle};
use crate::id::{Digest, Name};
use crate::session::sum_info;
use crate::step::Answer;

impl Oracle {
    /// The sum says of each patient how often it was counted and with which of its values. A liar may add what it likes to
    /// its own vector: here that is known, and without it the sum must be exact. Where mask sums cannot be checked, which the
    /// answer must say, so may who sends one; nobody honest is named for either.
    pub(super) fn judge_answer(&mut self, answer: &Answer) {
        let round = answer.round.0;
        let Some(fixed) = self.cohort(answer.session, answer.round, answer.cohort_root).cloned() else {
            return self.fail("frozen cohort", format!("the answer of round {round} is over no cohort that was fixed"));
        };
        let people = self.people(&fixed);
        if fixed.confirmed.len() < self.quorum || (answer.confirmations as usize) < self.quorum {
            self.fail("quorum", format!("round {round} was opened with {} Confirms", fixed.confirmed.len()));
        }
        if people.len() != answer.cohort as usize || fixed.snapshot != answer.snapshot {
            self.fail("frozen cohort", format!("the answer of round {round} says {} patients", answer.cohort));
        }
        if !self.released.is_open(&self.shape, fixed.begin, &people) {
            self.fail(
                "release",
                format!("the answer of round {round} is over {people:?}, whose masks nobody released"),
            );
        }
        let honest = |who: &&Name| !self.liars.contains(*who) && !self.restored.contains(*who);
        if let Some(who) = answer.checked.caught.iter().find(honest) {
            self.fail("no accusation", format!("the answer of round {round} names {who}, who follows the protocol"));
        }
        if answer.checked.masks.is_some() != self.is_checkable() {
            self.fail("checks", format!("the answer of round {round} does not say whether its mask sums are checked"));
        }
        let counted: Vec<_> = self.likely_sums(answer, &fixed).iter().map(|sum| self.count(sum, &people)).collect();
        match counted.iter().flatten().next() {
            Some(versions) => self.freeze(versions.clone(), answer),
            None => {
                let what: Vec<_> = counted.into_iter().filter_map(Result::err).take(1).collect();
                self.fail("exact sum", format!("round {round} over {people:?}: {}", what.concat()));
            }
        }
        self.answers.push((answer.session, answer.round, answer.snapshot.clone(), people));
    }

    /// The sum without what liars are known to have added to it; several where it is not known whether one did.
    fn likely_sums(&self, answer: &Answer, fixed: &Fixed) -> Vec<Vec<i64>> {
        let Some(asked) = self.begins.get(&fixed.begin) else { return Vec::new() };
        let people = self.people(fixed);
        let cohort = people.iter().filter_map(|i| self.cast.patients.get(usize::from(*i)));
        let sums = self.errors.without(&answer.sum, asked.begin.ring, fixed.begin, cohort);
        let most = if self.is_checkable() { 0 } else { self.wrong_sums(answer) };
        let less = |sum: Vec<i64>| {
            (0..=most).map(move |wrong| {
                let mut sum = sum.clone();
                sum.iter_mut().take(1).for_each(|first| *first -= wrong);
                sum
            })
        };
        sums.into_iter().flat_map(less).collect()
    }

    /// How many wrong mask sums were sealed for an answer.
    fn wrong_sums(&self, answer: &Answer) -> i64 {
        let infos = |open: &Digest| {
            let open = *open;
            self.liars.iter().map(move |liar| sum_info(answer.session, answer.round, liar, open))
        };
        self.opens.keys().flat_map(infos).filter(|info| self.errors.is_wrong(info)).count() as i64
    }

    /// Whether any quorum holds t+1 copies of every seed.
    fn is_checkable(&self) -> bool {
        self.shape.committee >= 3 * self.shape.threshold
    }

    /// With which of its values each patient of a cohort is counted, each once.
    fn count(&self, sum: &[i64], people: &BTreeSet<u8>) -> Result<Vec<(u8, u8)>, String> {
        let [first, second, ..] = sum else { return Err("no coordinates".into()) };
        let repeats = sum.chunks(2).all(|pair| pair == [*first, *second]);
        if !repeats || sum.len() != self.dimension as usize {
            return Err("coordinates that must be equal are not".into());
        }
        let digit = |sum: i64, i: u8| (sum >> (DIGIT_BITS * u32::from(i))) & ((1 << DIGIT_BITS) - 1);
        let all = 1_i64 << (DIGIT_BITS * self.cast.patients.len() as u32);
        if [first, second].iter().any(|sum| !(0..all).contains(*sum)) {
            return Err(format!("sums {first:x} and {second:x} hold more than the patients' values"));
        }
        let mut versions = Vec::new();
        for i in 0..self.cast.patients.len() as u8 {
            let counted = (digit(*first, i), digit(*second, i));
            match (people.contains(&i), counted) {
                (false, (0, 0)) => {}
                (true, (1, 0)) => versions.push((i, 0)),
                (true, (0, 1)) => versions.push((i, 1)),
                (inside, _) => return Err(format!("p{i}, in the cohort: {inside}, is counted {counted:?} times")),
            }
        }
        Ok(versions)
    }

    /// The values under a label stay as they were first counted.
    fn freeze(&mut self, versions: Vec<(u8, u8)>, answer: &Answer) {
        for (i, version) in versions {
            let frozen = *self.versions.entry((i, answer.snapshot.clone())).or_insert(version);
            let restored = self.cast.patients.get(usize::from(i)).is_some_and(|who| self.restored.contains(who));
            if frozen != version && !restored {
                self.fail("exact sum", format!("p{i} is counted with other values than before"));
            }
        }
    }
}

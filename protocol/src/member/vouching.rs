//! The Checks of one round, answered one after the other: a member holds the sums of one of them, however many it is
//! asked (PROTOCOL.md, *Checks*).

use std::collections::{BTreeMap, BTreeSet, VecDeque};

use vectors::Lanes;

use crate::id::{Address, Digest};
use crate::message::Check;

/// What a member was asked to vouch for in one round.
#[derive(Debug, Default)]
pub(super) struct Vouching {
    /// The Opens of the confirmed cohort, whomever they ask.
    pub(super) opens: BTreeSet<Digest>,
    /// What was asked for: no sum is made twice in a round, unless the board may have lost it.
    asked: BTreeSet<(u16, u32)>,
    checks: BTreeMap<Digest, Check>,
    waiting: VecDeque<Digest>,
    turn: Option<Turn>,
    /// The Checks whose answer was given away, and is kept no longer.
    given: BTreeSet<Digest>,
}

/// The Check that is being answered.
#[derive(Debug)]
struct Turn {
    check: Digest,
    answer: Answer,
}

/// How far an answer is.
#[derive(Debug)]
enum Answer {
    /// Its sums are being made, block by block and of each the chunks; none while a job has it.
    Adding(Vec<Option<Lanes>>),
    /// A job seals it.
    Sealing,
    /// It is on its way to the board, up to the message that stands at `last`; `again` where the board may lose it.
    Sending { last: Address, again: bool },
}

impl Vouching {
    /// Whether this Check was taken.
    pub(super) fn knows(&self, check: Digest) -> bool {
        self.checks.contains_key(&check)
    }

    /// Takes a Check, to be answered in its turn; false where a sum of it was asked for before.
    pub(super) fn take(&mut self, digest: Digest, check: Check) -> bool {
        if check.pairs().any(|pair| self.asked.contains(&pair)) {
            return false;
        }
        self.asked.extend(check.pairs());
        self.checks.insert(digest, check);
        self.waiting.push_back(digest);
        true
    }

    /// Begins the next answer; `None` while one is under way.
    pub(super) fn begin(&mut self) -> Option<(Digest, &Check)> {
        if self.turn.is_some() {
            return None;
        }
        let digest = self.waiting.pop_front()?;
        let check = self.checks.get(&digest)?;
        let answer = Answer::Adding(check.pairs().map(|_| None).collect());
        self.turn = Some(Turn { check: digest, answer });
        Some((digest, check))
    }

    /// A sum of the answer is made; the Check and all sums of it, once they are.
    pub(super) fn made(&mut self, check: Digest, at: usize, sum: Lanes) -> Option<(&Check, Vec<Lanes>)> {
        let turn = self.turn.as_mut().filter(|turn| turn.check == check)?;
        let Answer::Adding(sums) = &mut turn.answer else { return None };
        *sums.get_mut(at)? = Some(sum);
        if sums.iter().any(Option::is_none) {
            return None;
        }
        let sums = std::mem::take(sums).into_iter().flatten().collect();
        turn.answer = Answer::Sealing;
        Some((self.checks.get(&check)?, sums))
    }

    /// The answer is on its way, up to the message that stands at `last`.
    pub(super) fn sending(&mut self, check: Digest, last: Address) {
        self.turn = Some(Turn { check, answer: Answer::Sending { last, again: false } });
    }

    /// The board has what stands at `address`; whether an answer is there with it, and the next may begin.
    pub(super) fn sent(&mut self, address: &Address) -> bool {
        let is_last = |turn: &mut Turn| matches!(&turn.answer, Answer::Sending { last, .. } if last == address);
        match self.turn.take_if(is_last) {
            None => false,
            Some(Turn { check, answer: Answer::Sending { again: true, .. } }) => {
                self.waiting.push_back(check);
                true
            }
            Some(Turn { check, .. }) => self.given.insert(check),
        }
    }

    /// Has all answers made again that were given away: the board may have lost them. One that is on its way stays the
    /// only one until the board has it, and is made again then.
    pub(super) fn again(&mut self) {
        if let Some(Turn { answer: Answer::Sending { again, .. }, .. }) = &mut self.turn {
            *again = true;
        }
        self.waiting.extend(std::mem::take(&mut self.given));
    }
}

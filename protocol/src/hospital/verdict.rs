//! What the holders of a block say of its mask sum over one chunk, and when that settles it.

use std::collections::{BTreeMap, BTreeSet};

use crate::id::Digest;
use crate::job::Words;

/// What holders say of one block and chunk.
#[derive(Debug, Default)]
pub(super) struct Verdict {
    asked: BTreeSet<u8>,
    /// What each said; nothing of whom it cannot be read.
    said: BTreeMap<u8, Option<Digest>>,
    /// Every answer once; once it is settled only that one.
    words: BTreeMap<Digest, Words>,
    /// What enough of them said.
    agreed: Option<Digest>,
    /// Everybody who holds the block is to be asked.
    all: bool,
}

impl Verdict {
    /// Whether enough holders said the same.
    pub(super) fn is_settled(&self) -> bool {
        self.agreed.is_some()
    }

    /// Asks everybody, unless it is settled.
    pub(super) fn ask_all(&mut self) {
        self.all = !self.is_settled();
    }

    /// How many holders are to be asked: as many as can settle it, or all.
    pub(super) fn most(&self, enough: usize) -> usize {
        if self.all { usize::MAX } else { enough }
    }

    /// Notes that `seat` is asked; false where it was asked before.
    pub(super) fn ask(&mut self, seat: u8) -> bool {
        self.asked.insert(seat)
    }

    /// Notes what `seat` says, which settles it once `enough` say the same. When all that were asked answered and too few
    /// say the same, everybody is to be asked.
    pub(super) fn hear(&mut self, seat: u8, said: Option<(Digest, Words)>, enough: usize) {
        self.said.insert(seat, said.as_ref().map(|(digest, _)| *digest));
        if self.is_settled() {
            return;
        }
        if let Some((digest, words)) = said {
            self.words.entry(digest).or_insert(words);
        }
        self.agreed = self.words.keys().copied().find(|digest| self.votes(digest) >= enough);
        match self.agreed {
            Some(agreed) => self.words.retain(|digest, _| *digest == agreed),
            None => self.all |= self.said.len() == self.asked.len(),
        }
    }

    fn votes(&self, digest: &Digest) -> usize {
        self.said.values().filter(|said| said.as_ref() == Some(digest)).count()
    }

    /// Who said otherwise than what is settled.
    pub(super) fn liars(&self) -> BTreeSet<u8> {
        let Some(agreed) = self.agreed else { return BTreeSet::new() };
        self.said.iter().filter(|(_, said)| **said != Some(agreed)).map(|(seat, _)| *seat).collect()
    }

    /// Who answered.
    pub(super) fn answered(&self) -> impl ExactSizeIterator<Item = u8> + '_ {
        self.said.keys().copied()
    }

    /// Whether `seat` answered.
    pub(super) fn has_answered(&self, seat: u8) -> bool {
        self.said.contains_key(&seat)
    }

    /// Who was asked and did not answer.
    pub(super) fn silent(&self) -> impl Iterator<Item = u8> + '_ {
        self.asked.iter().copied().filter(|seat| !self.said.contains_key(seat))
    }

    /// What it is settled to.
    pub(super) fn words(&self) -> Option<Words> {
        self.words.get(&self.agreed?).cloned()
    }
}

//! Lies in what a party reckons: its own machine goes on with them, seals and signs them. By how much each is off is known
//! here, so that a sum in which one is can be judged to the last bit.

use std::collections::{BTreeMap, BTreeSet};

use vectors::{Lanes, Ring};

use super::lie::{Lie, SumLie};
use crate::chunks::Chunks;
use crate::id::{Digest, Name};
use crate::job::{Job, Outcome};
use crate::kdf;
use crate::secret::Seed;
use crate::wire;

/// By how much a liar's job is off.
#[derive(Debug)]
pub(super) enum Misreckoned {
    /// The sum of masks that is sealed for this (`sum_info`), by one in its first coordinate.
    Sum(Vec<u8>),
    /// What a patient's vector adds to a sum, in answer to this Begin: by so much in each coordinate.
    Vector(Digest, Vec<i64>),
}

/// A job that was run.
pub(super) struct Worked<'a> {
    pub(super) outcome: Outcome,
    pub(super) error: Option<Misreckoned>,
    /// The lie that it tells.
    pub(super) lie: Option<&'a Lie>,
}

/// Runs a job of `who`'s as these lies have it; in calm nobody lies.
pub(super) fn work<'a>(lies: &'a [Lie], who: &Name, job: Job, calm: bool) -> Worked<'a> {
    let mine =
        |lie: &&Lie| matches!(lie, Lie::WrongSum { who: liar, .. } | Lie::OtherDraw { who: liar, .. } if liar == who);
    for lie in lies.iter().filter(mine) {
        match (lie, &job) {
            (Lie::WrongSum { which, .. }, Job::Seal { blocks, sums, info, .. }) if !calm => {
                let opened = wire::decode::<Vec<u16>>(blocks, "blocks").is_ok();
                if tells(*which, opened) && (!opened || sums.len() == 1) {
                    let error = opened.then(|| Misreckoned::Sum(info.clone()));
                    return Worked { outcome: off_by_one(job).run(), error, lie: Some(lie) };
                }
            }
            // Who goes on in calm repeats its draw as it should have been: one more vector to be judged by.
            (Lie::OtherDraw { block, .. }, Job::Mask { begin, chunks, .. }) => {
                let (begin, chunks) = (*begin, *chunks);
                let (outcome, error) = reseal(job.run(), *block, &chunks, calm);
                let error = Some(Misreckoned::Vector(begin, error));
                return Worked { outcome, error, lie: (!calm).then_some(lie) };
            }
            _ => {}
        }
    }
    Worked { outcome: job.run(), error: None, lie: None }
}

fn tells(which: SumLie, opened: bool) -> bool {
    match which {
        SumLie::Opened => opened,
        SumLie::Checked => !opened,
        SumLie::Both => true,
    }
}

/// Adds one to the first coordinate of each sum.
fn off_by_one(mut job: Job) -> Job {
    if let Job::Seal { sums, ring, .. } = &mut job {
        for sum in sums {
            let one: Vec<i64> = (0..sum.len()).map(|at| i64::from(at == 0)).collect();
            if let Ok(one) = Lanes::from_i64(*ring, &one) {
                // Of the same length: it fits.
                let _ = sum.add(&one);
            }
        }
    }
    job
}

/// Has another seed stand for a block than its vector was masked with, unless `calm`; what that adds to a sum.
fn reseal(outcome: Outcome, block: u16, chunks: &Chunks, calm: bool) -> (Outcome, Vec<i64>) {
    let length = (0..chunks.count()).map(|chunk| chunks.len(chunk)).sum();
    let Outcome::Masked { chunks: masked, digests, mut seeds } = outcome else { return (outcome, vec![0; length]) };
    let mut error = vec![0; length];
    let at = usize::from(block).checked_rem(seeds.len()).unwrap_or_default();
    if let Some(seed) = seeds.get_mut(at).filter(|_| !calm) {
        let other = Seed::new(kdf::derive("ward/1 simulated seed", seed.expose(), &[]));
        error = difference(&other, seed, chunks);
        *seed = other;
    }
    (Outcome::Masked { chunks: masked, digests, seeds }, error)
}

/// The mask of one seed less that of another, over the whole vector.
fn difference(seed: &Seed, other: &Seed, chunks: &Chunks) -> Vec<i64> {
    let mut all = Vec::new();
    for chunk in 0..chunks.count() {
        let mut lanes = Lanes::zero(chunks.ring(), chunks.len(chunk));
        vectors::add_mask(&seed.stream_key(), chunks.ring(), chunks.start(chunk), &mut lanes);
        vectors::sub_mask(&other.stream_key(), chunks.ring(), chunks.start(chunk), &mut lanes);
        lanes.append_i64(chunks.ring(), &mut all);
    }
    all
}

/// What liars reckoned, as far as it can be in a sum.
#[derive(Debug, Default)]
pub(super) struct Errors {
    /// By whom and in answer to which Begin; of a patient that came back with an older store there may be several.
    vectors: BTreeMap<(Name, Digest), BTreeSet<Vec<i64>>>,
    /// For what wrong mask sums were sealed.
    sums: BTreeSet<Vec<u8>>,
}

impl Errors {
    pub(super) fn note(&mut self, who: &Name, error: Misreckoned) {
        match error {
            Misreckoned::Sum(info) => drop(self.sums.insert(info)),
            Misreckoned::Vector(begin, error) => {
                self.vectors.entry((who.clone(), begin)).or_default().insert(error);
            }
        }
    }

    /// Whether a wrong mask sum was sealed for this.
    pub(super) fn is_wrong(&self, info: &[u8]) -> bool {
        self.sums.contains(info)
    }

    /// The sums that `sum` may be of, without what the patients of a cohort, who answered `begin`, added to it that is no
    /// value of theirs.
    pub(super) fn without<'a>(
        &self,
        sum: &[i64],
        ring: Ring,
        begin: Digest,
        cohort: impl Iterator<Item = &'a Name>,
    ) -> Vec<Vec<i64>> {
        let mut all = vec![sum.to_vec()];
        for who in cohort {
            if let Some(errors) = self.vectors.get(&(who.clone(), begin)) {
                let less = |sum: &Vec<i64>| errors.iter().map(|error| subtract(sum, error, ring)).collect::<Vec<_>>();
                all = all.iter().flat_map(less).collect();
            }
        }
        all
    }
}

/// One vector less another, in the ring.
fn subtract(sum: &[i64], error: &[i64], ring: Ring) -> Vec<i64> {
    let unused = 64 - u32::from(ring.bits());
    let wrap = |value: i64| (value << unused) >> unused;
    sum.iter().zip(error).map(|(sum, error)| wrap(sum.wrapping_sub(*error))).collect()
}

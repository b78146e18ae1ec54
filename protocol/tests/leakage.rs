//! The rank oracle: what a coalition saw in real rounds, as linear equations over Z_2^w, never spans an honest patient.
//!
//! The unknowns are every patient's value (per snapshot) and every mask (per round, patient and block). The equations are
//! read off actual runs: masked vectors from the board, seeds from the boxes that corrupt members can open, mask sums as
//! the hospital opens them; each is checked against the true values first. By linearity one coordinate tells all.

#![allow(missing_docs, clippy::unwrap_used, clippy::expect_used, clippy::panic)]

mod support;

use std::collections::{BTreeMap, BTreeSet};

use protocol::message::{Begin, MaskSum};
use protocol::*;
use serde_bytes::ByteBuf;
use support::*;

/// An unknown.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Unknown {
    /// The value of a patient under a snapshot.
    Value(u8, usize),
    /// The mask of a round, patient and block.
    Mask(u32, usize, u16),
}

/// An equation: coefficients and what they add up to.
#[derive(Clone, Debug)]
struct Equation(BTreeMap<Unknown, u64>, u64);

impl Equation {
    fn of(terms: impl IntoIterator<Item = (Unknown, u64)>, sum: u64) -> Self {
        Self(terms.into_iter().collect(), sum)
    }

    fn holds(&self, truth: &BTreeMap<Unknown, u64>, modulus: u64) -> bool {
        let left =
            self.0.iter().fold(0_u64, |sum, (unknown, factor)| sum.wrapping_add(factor.wrapping_mul(truth[unknown])));
        left & modulus == self.1 & modulus
    }
}

/// Everything of a run that somebody might see.
struct Run {
    patients: usize,
    sharing: Sharing,
    /// 2^w - 1.
    modulus: u64,
    /// All unknowns as they are: only for checking the equations.
    truth: BTreeMap<Unknown, u64>,
    /// The masked vectors: the server's.
    masked: Vec<Equation>,
    /// What the hospital opens: sums of masks, as they came.
    sums: Vec<Equation>,
    /// The same block by block, as if the hospital had asked for each alone: what further Opens can give.
    single: Vec<Equation>,
    /// Whose masks each seat holds.
    held: BTreeMap<u8, BTreeSet<Unknown>>,
    /// Every round's cohort and snapshot.
    cohorts: Vec<(u32, u8, Vec<usize>)>,
}

const MINUS: u64 = u64::MAX;

/// Three rounds: everybody over snapshot 1, the same again, and over snapshot 2 without the last patient, whose masked
/// vector the server has all the same.
fn run(c: u8, t: u8) -> Run {
    let n = usize::from(c) + 1;
    let mut study = Build::new(n, c, t).start();
    for i in 0..n {
        study.net.offer(&p(i), &snapshot("2"), study.build.record(i)).unwrap();
    }
    let chains: Vec<Vec<ChainKey>> = (0..n).map(|i| study.chains(&p(i), 0)).collect();
    let state = study.stored_bytes(&name("hospital"), "state").unwrap();
    let randomness = SessionRandomness::new(state[state.len() - 32..].try_into().unwrap());
    let hospital = SealSecret::from_randomness(&randomness, &[b"hospital"]);
    let sharing = Sharing::new(c, t).unwrap();
    let empty = || (Vec::new(), Vec::new(), Vec::new());
    let (masked, sums, single) = empty();
    let (truth, held, cohorts) = (BTreeMap::new(), BTreeMap::new(), Vec::new());
    let mut run = Run { patients: n, sharing, modulus: 0, truth, masked, sums, single, held, cohorts };
    for (round, label) in [(1, 1), (2, 1), (3, 2)] {
        if round == 3 {
            study.cut(move |d| {
                d.address.kind == Kind::Share && d.address.from == p(n - 1) && d.receiver != name("server")
            });
        }
        let expected = if round == 3 { 0..n - 1 } else { 0..n };
        assert_eq!(
            study.ask_with(|ask| ask.snapshot = snapshot(&label.to_string())),
            study.sum(expected),
            "c={c} t={t}"
        );
        run.read(&study, round, label, &chains, &hospital);
    }
    run
}

fn lane(bytes: &[u8], ring: Ring) -> u64 {
    Lanes::unpack(ring, bytes).unwrap().to_i64(ring)[0] as u64
}

impl Run {
    fn read(&mut self, study: &Study, round: u32, label: u8, chains: &[Vec<ChainKey>], hospital: &SealSecret) {
        let begin: Begin = study.begin().envelope.body().unwrap();
        let ring = begin.ring;
        self.modulus = u64::MAX >> (64 - ring.bits());
        let cohort = study.cohort_places();
        self.cohorts.push((round, label, cohort.clone()));
        let blocks = self.sharing.blocks().len() as u16;
        let committee = study.committee();
        for (address, frame) in study.frames(Kind::Share).into_iter().filter(|(address, _)| address.round.0 == round) {
            let i = (0..self.patients).find(|i| p(*i) == address.from).unwrap();
            if address.to == To::One(name("server")) {
                let masks = (0..blocks).map(|block| (Unknown::Mask(round, i, block), MINUS));
                let terms = masks.chain([(Unknown::Value(label, i), 1)]);
                self.masked.push(Equation::of(terms, lane(&frame.attachment, ring)));
                self.truth.insert(Unknown::Value(label, i), value(i, 0) as u64);
                continue;
            }
            let seat = committee.iter().position(|member| address.to == To::One(member.clone())).unwrap();
            let share: message::Share = frame.envelope.body().unwrap();
            let key = chains[i][seat].duplicate().advance(round);
            let begin = study.begin().digest;
            let (sender, receiver) = (p(i), &committee[seat]);
            let context = BoxContext { begin, core: share.core_digest(), sender: &sender, receiver };
            let seeds = open_box(&key, &context, &frame.attachment).unwrap();
            let held = self.sharing.held_by(seat as u8);
            assert_eq!(
                seeds.len(),
                32 * held.len(),
                "a box has the seeds of the blocks that its member holds, no more"
            );
            for (block, seed) in held.into_iter().zip(seeds.chunks(32)) {
                let mut mask = Lanes::zero(ring, 1);
                add_mask(&Seed::new(seed.try_into().unwrap()).stream_key(), ring, 0, &mut mask);
                let unknown = Unknown::Mask(round, i, block as u16);
                self.truth.insert(unknown, mask.to_i64(ring)[0] as u64);
                self.held.entry(seat as u8).or_default().insert(unknown);
            }
        }
        let mut covered = BTreeSet::new();
        for (address, frame) in study.frames(Kind::MaskSum).into_iter().filter(|(address, _)| address.round.0 == round)
        {
            let sum: MaskSum = frame.envelope.body().unwrap();
            let parts: [&[u8]; 4] =
                [&study.session.0, &round.to_le_bytes(), address.from.as_str().as_bytes(), &frame.envelope.after.0];
            let info = digest("ward/1 mask sum info", &parts).0;
            let opener = SumOpener::new(hospital, &sum.encapsulation, &info).unwrap();
            let pieces: Vec<ByteBuf> = rmp_serde::from_slice(&frame.attachment).unwrap();
            let listed: Vec<u16> = rmp_serde::from_slice(&opener.open(0, &pieces[0]).unwrap()).unwrap();
            let terms = listed.iter().flat_map(|block| cohort.iter().map(|i| (Unknown::Mask(round, *i, *block), 1)));
            self.sums.push(Equation::of(terms, lane(&opener.open(1, &pieces[1]).unwrap(), ring)));
            covered.extend(listed);
        }
        assert_eq!(covered.len(), usize::from(blocks));
        for block in 0..blocks {
            let terms: Vec<_> = cohort.iter().map(|i| (Unknown::Mask(round, *i, block), 1)).collect();
            let sum = terms.iter().fold(0_u64, |sum, (unknown, _)| sum.wrapping_add(self.truth[unknown]));
            self.single.push(Equation::of(terms, sum));
        }
    }

    /// What server, hospital, these members and these patients know together: the equations, and the unknowns they have.
    fn view(&self, members: &[u8], patients: &[usize]) -> View {
        let mut known: BTreeSet<Unknown> = BTreeSet::new();
        for unknown in self.truth.keys() {
            let (Unknown::Value(_, i) | Unknown::Mask(_, i, _)) = unknown;
            if patients.contains(i) {
                known.insert(*unknown);
            }
        }
        // A member that lies in every block holds nothing: seat 0 of c=4, t=2.
        members.iter().filter_map(|seat| self.held.get(seat)).for_each(|held| known.extend(held));
        let rows = self.masked.iter().chain(&self.sums).chain(&self.single).map(|equation| equation.0.clone());
        View { known, rows: rows.collect(), modulus: self.modulus }
    }
}

/// A coalition's knowledge: unknowns that it knows, and linear forms in all unknowns whose value it knows.
struct View {
    known: BTreeSet<Unknown>,
    rows: Vec<BTreeMap<Unknown, u64>>,
    modulus: u64,
}

impl View {
    /// Whether the value of this form follows: whether it lies in the row space over Z_2^w.
    fn spans(&self, form: &[(Unknown, u64)]) -> bool {
        let rows = self.rows.iter().flat_map(|row| row.keys());
        let columns: Vec<Unknown> = rows
            .chain(form.iter().map(|(unknown, _)| unknown))
            .copied()
            .collect::<BTreeSet<_>>()
            .into_iter()
            .filter(|unknown| !self.known.contains(unknown))
            .collect();
        let dense = |row: &BTreeMap<Unknown, u64>| -> Vec<u64> {
            columns.iter().map(|unknown| row.get(unknown).copied().unwrap_or(0) & self.modulus).collect()
        };
        let rows = self.rows.iter().map(dense).collect();
        in_row_space(rows, dense(&form.iter().copied().collect()), self.modulus)
    }
}

/// Whether `target` is a combination of `rows` over Z_2^w: elimination with the pivot that has the fewest factors of two;
/// what a pivot row becomes when its pivot is multiplied away is a row too (Howell).
fn in_row_space(mut rows: Vec<Vec<u64>>, mut target: Vec<u64>, modulus: u64) -> bool {
    let bits = modulus.count_ones();
    for column in 0..target.len() {
        let pivot =
            (0..rows.len()).filter(|row| rows[*row][column] != 0).min_by_key(|row| rows[*row][column].trailing_zeros());
        let Some(pivot) = pivot else {
            if target[column] != 0 {
                return false;
            }
            continue;
        };
        let pivot = rows.swap_remove(pivot);
        let twos = pivot[column].trailing_zeros();
        let inverse = inverse(pivot[column] >> twos);
        let eliminate = |row: &mut Vec<u64>| {
            // The quotient is exact: no row has fewer factors of two here than the pivot.
            let factor = (row[column] >> twos).wrapping_mul(inverse);
            row.iter_mut().zip(&pivot).for_each(|(a, b)| *a = a.wrapping_sub(b.wrapping_mul(factor)) & modulus);
        };
        rows.iter_mut().for_each(eliminate);
        if target[column].trailing_zeros() < twos {
            return false;
        }
        eliminate(&mut target);
        if twos > 0 {
            rows.push(pivot.iter().map(|a| a.wrapping_mul(1 << (bits - twos)) & modulus).collect());
        }
    }
    true
}

/// The inverse of an odd number modulo 2^64, by Newton's iteration.
fn inverse(odd: u64) -> u64 {
    (0..6).fold(odd, |x, _| x.wrapping_mul(2_u64.wrapping_sub(odd.wrapping_mul(x))))
}

fn subsets<T: Copy>(of: &[T], size: usize) -> Vec<Vec<T>> {
    match (size, of) {
        (0, _) => vec![vec![]],
        (_, []) => vec![],
        (_, [first, rest @ ..]) => {
            let with = subsets(rest, size - 1).into_iter().map(|set| [vec![*first], set].concat());
            with.chain(subsets(rest, size)).collect()
        }
    }
}

fn settings() -> impl Iterator<Item = (u8, u8)> {
    (2..=5).flat_map(|c| (1..c).map(move |t| (c, t)))
}

/// Promise 1: no coalition of server, hospital, any t members and any n - 2 patients learns an honest patient's value over
/// three rounds; it does learn the sum over the two, as it must.
#[test]
fn no_coalition_of_t_members_and_all_but_two_patients_spans_an_honest_patient() {
    let mut views = 0;
    for (c, t) in settings() {
        let run = run(c, t);
        let all = run.masked.iter().chain(&run.sums).chain(&run.single);
        all.for_each(|equation| assert!(equation.holds(&run.truth, run.modulus), "what is analysed is what was sent"));
        let (seats, everybody): (Vec<u8>, Vec<usize>) = ((0..c).collect(), (0..run.patients).collect());
        for members in subsets(&seats, t.into()) {
            for honest in subsets(&everybody, 2) {
                // A corrupt member is a corrupt patient too.
                if honest.iter().any(|i| members.contains(&(*i as u8))) {
                    continue;
                }
                let corrupt: Vec<usize> = everybody.iter().copied().filter(|i| !honest.contains(i)).collect();
                let view = run.view(&members, &corrupt);
                for label in [1, 2] {
                    let value = |i: usize| (Unknown::Value(label, i), 1);
                    let cohort = &run.cohorts.iter().find(|(_, of, _)| *of == label).unwrap().2;
                    let inside: Vec<usize> = honest.iter().copied().filter(|i| cohort.contains(i)).collect();
                    // Where one of the two is not in the cohort, the sum is the other's: |U| - f = 1 (section 2).
                    for i in &honest {
                        let alone = inside.len() == 1 && inside[0] == *i;
                        assert_eq!(view.spans(&[value(*i)]), alone, "c={c} t={t} {members:?} {honest:?}");
                    }
                    let sum: Vec<_> = inside.iter().map(|i| value(*i)).collect();
                    assert!(view.spans(&sum), "the sum itself is what everybody works for");
                }
                views += 1;
            }
        }
    }
    assert!(views > 150, "{views}");
}

/// A test that cannot fail is a defect: t + 1 members that lie together in no block hold every seed, and then the oracle
/// sees every patient; t + 1 members of one block see nothing more.
#[test]
fn the_oracle_sees_every_patient_once_the_seeds_are_all_held() {
    for (c, t) in settings() {
        let run = run(c, t);
        let seats: Vec<u8> = (0..c).collect();
        let mut fired = 0;
        for members in subsets(&seats, usize::from(t) + 1) {
            let blocked = run.sharing.blocks().iter().any(|block| members.iter().all(|seat| block.contains(*seat)));
            let view = run.view(&members, &[]);
            for i in 0..run.patients {
                assert_eq!(view.spans(&[(Unknown::Value(1, i), 1)]), !blocked, "c={c} t={t} {members:?}");
            }
            fired += usize::from(!blocked);
        }
        assert!(fired > 0);
    }
}

/// What *same or apart* stops: had the members also opened the same snapshot without one patient, the oracle would see
/// that patient, with no member corrupt at all.
#[test]
fn the_oracle_sees_the_patient_that_an_overlapping_cohort_leaves_out() {
    let run = run(4, 1);
    let mut view = run.view(&[], &[]);
    let patient = (Unknown::Value(1, 0), 1);
    assert!(!view.spans(&[patient]));
    let fewer = run.cohorts[1].2.iter().copied().filter(|i| *i != 0);
    for block in 0..run.sharing.blocks().len() as u16 {
        view.rows.push(fewer.clone().map(|i| (Unknown::Mask(2, i, block), 1)).collect());
    }
    assert!(view.spans(&[patient]));
}

/// The oracle itself, against all combinations of small matrices over Z_8.
#[test]
fn the_row_space_is_what_all_combinations_give() {
    let mut dice = Dice::new(3);
    let (mut inside, mut outside) = (0, 0);
    for _ in 0..300 {
        let rows: Vec<Vec<u64>> = (0..2).map(|_| (0..3).map(|_| dice.below(8)).collect()).collect();
        let target: Vec<u64> = (0..3).map(|_| 2 * dice.below(4)).collect();
        let combination = |a: u64, b: u64| (0..3).all(|at| (a * rows[0][at] + b * rows[1][at]) % 8 == target[at]);
        let expected = (0..64).any(|both| combination(both % 8, both / 8));
        assert_eq!(in_row_space(rows.clone(), target.clone(), 7), expected, "{rows:?} {target:?}");
        (inside, outside) = (inside + u32::from(expected), outside + u32::from(!expected));
    }
    assert!(inside > 30 && outside > 30);
}

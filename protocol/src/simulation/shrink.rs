//! From a run that fails to few faults that make it fail.

use super::Case;
use super::fault::Fault;

/// The most runs that are spent on it.
const MOST_RUNS: u32 = 400;

/// Leaves out faults, one half of them at a time, then a quarter and so on, as long as the same rule fails (ddmin;
/// Zeller and Hildebrandt, IEEE TSE 28, 2002).
pub(super) fn shrink(case: &Case, rule: &'static str) -> Case {
    let fails = |faults: &[Fault]| {
        let outcome = Case { faults: faults.to_vec(), ..case.clone() }.play();
        outcome.failure.is_some_and(|failure| failure.rule == rule)
    };
    let mut faults = case.faults.clone();
    let (mut pieces, mut runs) = (2, 0);
    while !faults.is_empty() && runs < MOST_RUNS {
        let size = faults.len().div_ceil(pieces);
        let without = |piece: usize| {
            let rest = faults.iter().enumerate().filter(|(at, _)| at / size != piece);
            rest.map(|(_, fault)| fault.clone()).collect::<Vec<_>>()
        };
        let fewer = (0..faults.len().div_ceil(size)).map(without).find(|fewer| {
            runs += 1;
            fails(fewer)
        });
        match fewer {
            Some(fewer) => {
                faults = fewer;
                pieces = (pieces - 1).max(2);
            }
            None if size == 1 => break,
            None => pieces *= 2,
        }
    }
    Case { faults, ..case.clone() }
}

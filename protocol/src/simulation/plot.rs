//! Faults that are aimed: deaths between storing and sending, lies that do harm only together with them, and servers that
//! are slow. Drawn one by one it would take a million runs until they meet.

use super::dice::Dice;
use super::fault::{Blow, Fault, down};
use super::lie::{BeginLie, CohortLie, Lie};
use super::shape::Cast;
use crate::id::{Kind, Name, RoundNo};

/// What patients and members send, servers, and the hospital.
const PATIENT: [Kind; 7] =
    [Kind::Join, Kind::Key, Kind::Share, Kind::Held, Kind::Confirm, Kind::MaskSum, Kind::CheckSum];
const SERVER: [Kind; 4] = [Kind::Roster, Kind::Place, Kind::Cohort, Kind::MaskedSum];
const HOSPITAL: [Kind; 4] = [Kind::Begin, Kind::Open, Kind::Check, Kind::Result];

/// The aimed faults of a run.
pub(super) fn draw(cast: &Cast, marked: usize, horizon: u64, dice: &mut Dice) -> Vec<Fault> {
    let mut faults = Vec::new();
    let deaths = if dice.percent(40) { dice.within(1, 2) } else { 0 };
    faults.extend((0..deaths).filter_map(|_| draw_death(cast, horizon, dice)));
    if dice.percent(15) {
        faults.extend(draw_second_cohort(cast, marked, dice));
    }
    if dice.percent(15) {
        faults.extend(draw_slow_server(cast, horizon, dice));
    }
    if dice.percent(15) {
        faults.extend(draw_overlap(cast, horizon, dice));
    }
    if dice.percent(15) {
        faults.extend(draw_split_network(cast, horizon, dice));
    }
    faults
}

/// A server's sums take long: a cohort is fixed while vectors of others wait to be added.
fn draw_slow_server(cast: &Cast, horizon: u64, dice: &mut Dice) -> Option<Fault> {
    let (who, millis) = (dice.one_of(&cast.servers)?.clone(), dice.within(1_000, 40_000));
    Some(Fault::Blow(dice.below(horizon), Blow::SlowJobs { who, millis }))
}

/// Some of all parties are cut off, at once and for as long, or one after the other, and are back in any order.
fn draw_split_network(cast: &Cast, horizon: u64, dice: &mut Dice) -> Vec<Fault> {
    let (step, gap) = (dice.below(horizon), dice.one_of(&[0, 0, 3, 20]).copied().unwrap_or_default());
    let whole = dice.within(1_000, 60_000);
    let behind: Vec<&Name> = cast.everybody().filter(|_| dice.percent(40)).collect();
    let cut = |(at, who): (u64, &Name)| {
        let millis = if gap == 0 { whole } else { dice.within(1_000, 60_000) };
        Fault::Blow(step + at * gap, Blow::Partition { who: who.clone(), millis })
    };
    (0..).zip(behind).map(cut).collect()
}

/// The hospital asks once more over a snapshot as if for the first time, and the first server makes a cohort of anybody, all
/// but one: only what members confirmed before stands against the difference.
fn draw_overlap(cast: &Cast, horizon: u64, dice: &mut Dice) -> [Fault; 3] {
    let shown = || cast.everybody().cloned().collect();
    let round = Some(RoundNo(dice.within(2, 3) as u32));
    [
        Fault::Blow(dice.below(horizon / 2 + 1), Blow::ForgetCohorts { down: down(dice) }),
        Fault::Lie(Lie::Begin { shown: shown(), how: BeginLie::Anybody, after: None }),
        Fault::Lie(Lie::Cohort { shown: shown(), how: CohortLie::Fewer, after: None, round }),
    ]
}

/// Somebody dies before it sends something.
fn draw_death(cast: &Cast, horizon: u64, dice: &mut Dice) -> Option<Fault> {
    let everybody: Vec<&Name> = cast.everybody().collect();
    let who = (*dice.one_of(&everybody)?).clone();
    let kinds: &[Kind] = match cast.number(&who) {
        Some(_) => &PATIENT,
        None if who == cast.hospital => &HOSPITAL,
        None => &SERVER,
    };
    let (kind, down, reversed) = (*dice.one_of(kinds)?, down(dice), dice.percent(50));
    Some(Fault::Blow(dice.below(horizon), Blow::CrashBefore { who, kind, down, reversed }))
}

/// In one round everybody is shown a cohort of one patient less: in a later one than the first instead of the true cohort,
/// which may have been opened over the same snapshot before; in the first one beside it, where members die before they
/// send their Confirm, so that they see it first when they are back.
fn draw_second_cohort(cast: &Cast, marked: usize, dice: &mut Dice) -> Vec<Fault> {
    let round = RoundNo(dice.within(1, 3) as u32);
    let after = (round == RoundNo(1)).then_some(1);
    let shown = cast.everybody().cloned().collect();
    let mut faults = vec![Fault::Lie(Lie::Cohort { shown, how: CohortLie::Fewer, after, round: Some(round) })];
    if after.is_some() {
        let members = cast.patients.iter().take(marked).filter(|_| dice.percent(50));
        let death = |who: &Name| Blow::CrashBefore { who: who.clone(), kind: Kind::Confirm, down: 100, reversed: true };
        faults.extend(members.map(|who| Fault::Blow(0, death(who))).collect::<Vec<_>>());
    }
    faults
}

/// Clocks of some that run are set.
pub(super) fn draw_steps(cast: &Cast, horizon: u64, dice: &mut Dice) -> Vec<Fault> {
    let count = if dice.percent(15) { dice.within(1, 3) } else { 0 };
    let everybody: Vec<&Name> = cast.everybody().collect();
    let set = |_| {
        let (who, millis) = ((*dice.one_of(&everybody)?).clone(), dice.within(0, 400_000) as i64 - 200_000);
        Some(Fault::Blow(dice.below(horizon), Blow::Step { who, millis }))
    };
    (0..count).filter_map(set).collect()
}

/// Some are cut off by the broker.
pub(super) fn draw_cut_offs(cast: &Cast, horizon: u64, dice: &mut Dice) -> Vec<Fault> {
    let count = if dice.percent(15) { dice.within(1, 3) } else { 0 };
    let everybody: Vec<&Name> = cast.everybody().collect();
    let cut = |_| {
        let who = (*dice.one_of(&everybody)?).clone();
        Some(Fault::Blow(dice.below(horizon), Blow::Reconnect { who }))
    };
    (0..count).filter_map(cut).collect()
}

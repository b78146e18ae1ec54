//! Lies: what a party says instead of the truth or beside it, signed with its own key.

use std::collections::BTreeSet;

use serde::{Deserialize, Serialize};

use super::dice::Dice;
use super::shape::{Cast, Shape};
use crate::id::{Name, RoundNo};

/// What a party says that is not so.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Lie {
    /// The first server shows these another Cohort.
    Cohort {
        /// To whom.
        shown: BTreeSet<Name>,
        /// Which.
        how: CohortLie,
        /// So many milliseconds after the true one; instead of it where there are none.
        after: Option<u64>,
        /// In this round only.
        #[serde(default)]
        round: Option<RoundNo>,
    },
    /// A server sends another sum than that of the vectors.
    MaskedSum {
        /// Who.
        who: Name,
    },
    /// The first server shows these another list of who joined.
    List {
        /// To whom.
        shown: BTreeSet<Name>,
        /// Which.
        how: ListLie,
    },
    /// The hospital sends these another Open.
    Open {
        /// To whom.
        shown: BTreeSet<Name>,
        /// Which.
        how: OpenLie,
    },
    /// A patient sends these another box, which does not open, in a Share that names it.
    Box {
        /// Who.
        who: Name,
        /// To whom.
        shown: BTreeSet<Name>,
    },
    /// A member sends a mask sum that does not open.
    MaskSum {
        /// Who.
        who: Name,
    },
    /// The first server shows these another Roster, with the list and the places that go with it.
    Roster {
        /// To whom.
        shown: BTreeSet<Name>,
        /// Which.
        how: RosterLie,
    },
    /// The hospital shows these another Begin.
    Begin {
        /// To whom.
        shown: BTreeSet<Name>,
        /// Which.
        how: BeginLie,
        /// So many milliseconds after the true one; instead of it where there are none.
        after: Option<u64>,
    },
    /// A member seals sums of masks that are wrong by one, of vectors of one chunk; more of a longer one than is drawn for a
    /// check may be wrong and not be found.
    WrongSum {
        /// Who.
        who: Name,
        /// Which sums.
        which: SumLie,
    },
    /// A patient masks a block with another seed than the one that it seals for it.
    OtherDraw {
        /// Who.
        who: Name,
        /// Which block, counted around their number.
        block: u16,
    },
    /// The hospital tells these that a round was aborted which was not.
    Abort {
        /// Whom.
        shown: BTreeSet<Name>,
        /// When.
        when: AbortLie,
        /// Whether it says that the session ends with it.
        last: bool,
    },
    /// The hospital shows these another Result.
    Result {
        /// To whom.
        shown: BTreeSet<Name>,
        /// Which.
        how: ResultLie,
    },
    /// The hospital gives these another payload key, which its Begins are not committed to.
    PayloadKey {
        /// To whom.
        shown: BTreeSet<Name>,
    },
}

/// Which sums a member seals that are wrong.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum SumLie {
    /// Those that an Open asks for.
    Opened,
    /// Those that a Check asks for.
    Checked,
    /// Both.
    Both,
}

/// When a round is said to be aborted that was not.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum AbortLie {
    /// So many milliseconds after its Begin.
    Begun(u64),
    /// Instead of its Result.
    Instead,
    /// So many milliseconds after its Result.
    Answered(u64),
}

/// Another Result than the true one.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum ResultLie {
    /// Before the sums are there: with the Open.
    Early,
    /// With a Confirm less than the quorum.
    TooFew,
    /// With another count than that of its Cohort.
    Count,
    /// It says that the session ends with it, or that it does not.
    Last,
    /// Of the Cohort of another round.
    OtherRound,
    /// Where the round was aborted, of the Cohort that was to be opened.
    Aborted,
}

/// Another Begin than the true one.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum BeginLie {
    /// Over another snapshot.
    Snapshot,
    /// In a ring that cannot hold the sum.
    Narrow,
    /// In a wider ring.
    Wide,
    /// With half the bound, as one that bisects values.
    Bound,
    /// Of a longer vector.
    Dimension,
    /// Of so many rounds later.
    Number(u8),
    /// With half the time.
    Seconds,
    /// Over the cohort of the round before, or of none, where the true one says otherwise.
    SameAs,
    /// Of anybody who shares, where the true one says whose cohort it must be.
    Anybody,
    /// With a cohort that is fixed as soon as one patient shared.
    Enough,
    /// Committed to another payload key.
    Payload,
}

/// Another Roster than the true one. Who gives away its key for it is corrupt too, and is shown the true one.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum RosterLie {
    /// Of one patient less, one outside the committee where there is any.
    Fewer,
    /// Its last two have changed places.
    SwappedPlaces,
    /// The first two of the committee have changed seats.
    SwappedSeats,
    /// Somebody else who is marked sits on the first seat.
    OtherSeat,
    /// With another seal key in the first seat's Join, which its owner did not sign.
    ForgedKey,
    /// With another seal key in the Join of a member, signed by it.
    OtherKey {
        /// Whose.
        by: Name,
    },
    /// With another member's seal key in the Join of a member, signed by it.
    CopiedKey {
        /// Whose.
        by: Name,
    },
}

/// Another Cohort than the true one.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum CohortLie {
    /// Of one patient less.
    Fewer,
    /// Of fewer than k.
    TooSmall,
    /// Of one patient more, who did not share.
    Stranger,
    /// Of the same patients, with other Shares.
    OtherShares,
}

/// Another list of who joined than the true one.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum ListLie {
    /// Without its last.
    Omitted,
    /// Its last but one stands for its last too.
    Repeated,
    /// Its first two have changed places.
    Swapped,
}

/// Another Open than the true one.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum OpenLie {
    /// Asks for each block twice.
    Twice,
    /// Asks everybody for all blocks.
    All,
    /// Asks for no block.
    Nothing,
    /// With a Confirm less than the quorum.
    TooFew,
    /// With one Confirm as often as the quorum has members.
    Repeated,
}

impl Lie {
    /// Who says it.
    pub(super) fn liar<'a>(&'a self, cast: &'a Cast) -> &'a Name {
        match self {
            Lie::Cohort { .. } | Lie::List { .. } | Lie::Roster { .. } => cast.first_server(),
            Lie::Open { .. } | Lie::Begin { .. } | Lie::Abort { .. } | Lie::Result { .. } => &cast.hospital,
            Lie::PayloadKey { .. } => &cast.hospital,
            Lie::MaskedSum { who } | Lie::Box { who, .. } | Lie::MaskSum { who } => who,
            Lie::WrongSum { who, .. } | Lie::OtherDraw { who, .. } => who,
        }
    }

    /// Who says it, and who lends its key to it.
    pub(super) fn liars<'a>(&'a self, cast: &'a Cast) -> impl Iterator<Item = &'a Name> {
        let lender = match self {
            Lie::Roster { how: RosterLie::OtherKey { by } | RosterLie::CopiedKey { by }, .. } => Some(by),
            _ => None,
        };
        [self.liar(cast)].into_iter().chain(lender)
    }

    pub(super) fn name(&self) -> &'static str {
        match self {
            Lie::Cohort { .. } => "another cohort",
            Lie::MaskedSum { .. } => "another masked sum",
            Lie::List { .. } => "another list",
            Lie::Open { .. } => "another open",
            Lie::Box { .. } => "another box",
            Lie::MaskSum { .. } => "another mask sum",
            Lie::Roster { .. } => "another roster",
            Lie::Begin { .. } => "another begin",
            Lie::WrongSum { .. } => "wrong sum",
            Lie::OtherDraw { .. } => "another draw",
            Lie::Abort { .. } => "another abort",
            Lie::Result { .. } => "another result",
            Lie::PayloadKey { .. } => "another payload key",
        }
    }
}

/// The lies of a run, one or two in four of ten; `takes` says whether a patient may still be corrupt.
pub(super) fn draw(
    shape: &Shape,
    cast: &Cast,
    dice: &mut Dice,
    mut takes: impl FnMut(&Name) -> bool,
) -> impl Iterator<Item = Lie> {
    let count = if dice.percent(40) { dice.within(1, 2) } else { 0 };
    let lies: Vec<Lie> = (0..count).filter_map(|_| draw_one(shape, cast, dice, &mut takes)).collect();
    lies.into_iter()
}

fn draw_one(shape: &Shape, cast: &Cast, dice: &mut Dice, takes: &mut impl FnMut(&Name) -> bool) -> Option<Lie> {
    let everybody: Vec<Name> = cast.everybody().cloned().collect();
    let share = *dice.one_of(&[30, 60, 100])?;
    let shown: BTreeSet<Name> = everybody.iter().filter(|_| dice.percent(share)).cloned().collect();
    let marked = cast.patients.get(..usize::from(shape.marked)).unwrap_or_default();
    Some(match dice.below(12) {
        0..=3 => {
            let hows =
                [CohortLie::Fewer, CohortLie::Fewer, CohortLie::TooSmall, CohortLie::Stranger, CohortLie::OtherShares];
            let after = *dice.one_of(&[None, None, Some(1), Some(3_000), Some(20_000)])?;
            Lie::Cohort { shown, how: *dice.one_of(&hows)?, after, round: None }
        }
        4 => Lie::MaskedSum { who: dice.one_of(&cast.servers)?.clone() },
        5 => Lie::List { shown, how: *dice.one_of(&[ListLie::Omitted, ListLie::Repeated, ListLie::Swapped])? },
        6 | 7 => {
            let hows = [OpenLie::Twice, OpenLie::All, OpenLie::Nothing, OpenLie::TooFew, OpenLie::Repeated];
            Lie::Open { shown, how: *dice.one_of(&hows)? }
        }
        8 | 9 => Lie::Box { who: dice.one_of(&cast.patients).filter(|who| takes(who))?.clone(), shown },
        _ => Lie::MaskSum { who: dice.one_of(marked).filter(|who| takes(who))?.clone() },
    })
}

/// Lies by which parties are shown different studies, one or two in three of ten; drawn apart from the others, so that
/// these stay what they are.
pub(super) fn draw_splits(
    shape: &Shape,
    cast: &Cast,
    dice: &mut Dice,
    mut takes: impl FnMut(&Name) -> bool,
) -> Vec<Lie> {
    let count = if dice.percent(30) { dice.within(1, 2) } else { 0 };
    (0..count).filter_map(|_| draw_split(shape, cast, dice, &mut takes)).collect()
}

fn draw_split(shape: &Shape, cast: &Cast, dice: &mut Dice, takes: &mut impl FnMut(&Name) -> bool) -> Option<Lie> {
    let shown = draw_shown(cast, dice)?;
    let marked = cast.patients.get(..usize::from(shape.marked)).unwrap_or_default();
    Some(match dice.below(18) {
        0..=3 => Lie::Roster { shown, how: draw_roster(shape, cast, dice, takes)? },
        4..=7 => draw_begin(shown, dice)?,
        8 | 9 => {
            let later = dice.within(1, 40_000);
            let when = *dice.one_of(&[
                AbortLie::Begun(1),
                AbortLie::Begun(later),
                AbortLie::Instead,
                AbortLie::Answered(1),
            ])?;
            Lie::Abort { shown, when, last: dice.percent(30) }
        }
        10..=12 => {
            let hows = [
                ResultLie::Early,
                ResultLie::Early,
                ResultLie::TooFew,
                ResultLie::Count,
                ResultLie::Last,
                ResultLie::OtherRound,
                ResultLie::Aborted,
            ];
            Lie::Result { shown, how: *dice.one_of(&hows)? }
        }
        13..=15 => {
            let which = *dice.one_of(&[SumLie::Opened, SumLie::Checked, SumLie::Both])?;
            Lie::WrongSum { who: dice.one_of(marked).filter(|who| takes(who))?.clone(), which }
        }
        _ => {
            let block = dice.below(4) as u16;
            Lie::OtherDraw { who: dice.one_of(&cast.patients).filter(|who| takes(who))?.clone(), block }
        }
    })
}

/// In every second run with payloads the patients are shown different ones.
pub(super) fn draw_payload(shape: &Shape, cast: &Cast, dice: &mut Dice) -> Option<Lie> {
    if !shape.payloads || dice.percent(50) {
        return None;
    }
    let shown = draw_shown(cast, dice)?;
    Some(match dice.percent(50) {
        true => Lie::PayloadKey { shown },
        false => Lie::Begin { shown, how: BeginLie::Payload, after: None },
    })
}

/// Some of all parties: few of them, most or all.
fn draw_shown(cast: &Cast, dice: &mut Dice) -> Option<BTreeSet<Name>> {
    let share = *dice.one_of(&[30, 60, 100])?;
    Some(cast.everybody().filter(|_| dice.percent(share)).cloned().collect())
}

fn draw_roster(
    shape: &Shape,
    cast: &Cast,
    dice: &mut Dice,
    takes: &mut impl FnMut(&Name) -> bool,
) -> Option<RosterLie> {
    let marked = cast.patients.get(..usize::from(shape.marked)).unwrap_or_default();
    let mut lender = |dice: &mut Dice| dice.one_of(marked).filter(|who| takes(who)).cloned();
    Some(match dice.below(10) {
        0..=2 => RosterLie::Fewer,
        3 => RosterLie::SwappedPlaces,
        4 => RosterLie::SwappedSeats,
        5 => RosterLie::OtherSeat,
        6 => RosterLie::ForgedKey,
        7 | 8 => RosterLie::OtherKey { by: lender(dice)? },
        _ => RosterLie::CopiedKey { by: lender(dice)? },
    })
}

fn draw_begin(shown: BTreeSet<Name>, dice: &mut Dice) -> Option<Lie> {
    let number = BeginLie::Number(*dice.one_of(&[1, 1, 3])?);
    let hows = [
        BeginLie::Snapshot,
        BeginLie::Snapshot,
        BeginLie::Narrow,
        BeginLie::Wide,
        BeginLie::Wide,
        BeginLie::Bound,
        BeginLie::Dimension,
        number,
        number,
        BeginLie::Seconds,
        BeginLie::Seconds,
        BeginLie::SameAs,
        BeginLie::Enough,
    ];
    let after = *dice.one_of(&[None, None, Some(1), Some(3_000), Some(20_000)])?;
    Some(Lie::Begin { shown, how: *dice.one_of(&hows)?, after })
}

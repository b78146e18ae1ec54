//! Faults: what goes wrong, when, and how often each kind did.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use super::dice::Dice;
use super::lie::{self, Lie};
use super::plot;
use super::shape::{Cast, Shape};
use crate::id::{Kind, Name, RoundNo};

/// A message on its way to one party, as a reader would name it.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Which {
    /// Of which round; of each session.
    pub round: RoundNo,
    /// What it is.
    pub kind: Kind,
    /// Who wrote it.
    pub from: Name,
    /// Who is to get it.
    pub to: Name,
    /// How many like it came before.
    pub nth: u32,
}

/// A part of a subject.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Part {
    /// Which session.
    Session,
    /// Which round.
    Round,
    /// Who wrote it.
    From,
    /// Who is to get it.
    To,
    /// What it is.
    Kind,
}

/// What becomes of a message on its way; times are in milliseconds.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Fate {
    /// It is not delivered, until its receiver follows the board from the first message again.
    Drop,
    /// It is delivered, and again after this time.
    Repeat(u64),
    /// Those behind it overtake it.
    Reorder(u64),
    /// It is held back, but not for long.
    Delay(u64),
    /// What it leads to is here before it.
    Early(u64),
    /// It comes after the deadline of its phase, or after its round.
    Late(u64),
    /// A byte of it is another one: this one, counted around its length.
    Alter(u16),
    /// It comes also under a subject with another part, before it does as it is.
    Readdress(Part),
    /// It comes also as if another one had signed it, before it does as it is.
    Forge,
    /// With it comes again one that its receiver was sent before, in any round or session: so many ago, counted around them all.
    Replay {
        /// How many.
        back: u16,
        /// Whether it comes under this one's session and round.
        moved: bool,
    },
}

/// What happens to a party, or to the broker; times are in milliseconds.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Blow {
    /// It dies and is back from its store.
    Crash {
        /// Who.
        who: Name,
        /// After this time.
        down: u64,
    },
    /// It dies after it stored and wrote so many more messages; the rest of what it had to say is not sent.
    CrashSending {
        /// Who.
        who: Name,
        /// How many.
        after: u8,
        /// It is back after this time.
        down: u64,
    },
    /// It dies the next time that it has stored what leads to a message of this kind, before it is sent.
    CrashBefore {
        /// Who.
        who: Name,
        /// What it is about to send.
        kind: Kind,
        /// It is back after this time.
        down: u64,
        /// Whether what it had not acknowledged comes to it again in the opposite order.
        reversed: bool,
    },
    /// The first server dies before it sends the sum of a cohort, and is back without knowing whose cohorts it ever fixed.
    ForgetCohorts {
        /// It is back after this time.
        down: u64,
    },
    /// Its store is copied.
    Copy {
        /// Whose.
        who: Name,
    },
    /// It dies and is back with that copy.
    Older {
        /// Who.
        who: Name,
        /// After this time.
        down: u64,
    },
    /// It dies and is back with an empty store.
    LostStore {
        /// Who.
        who: Name,
        /// After this time.
        down: u64,
    },
    /// It dies and is back with another clock.
    Clock {
        /// Who.
        who: Name,
        /// After this time.
        down: u64,
        /// How far its clock jumps.
        millis: i64,
    },
    /// Its clock jumps while it runs.
    Step {
        /// Who.
        who: Name,
        /// How far; for one that is set back it stands still as long.
        millis: i64,
    },
    /// The broker cuts off its connection, as of one that reads too slowly: it follows the board from the first message again.
    Reconnect {
        /// Who.
        who: Name,
    },
    /// Nothing reaches it.
    Deaf {
        /// Who.
        who: Name,
        /// For this time.
        millis: u64,
    },
    /// Nothing that it writes arrives.
    Mute {
        /// Who.
        who: Name,
        /// For this time.
        millis: u64,
    },
    /// Both.
    Partition {
        /// Who.
        who: Name,
        /// For this time.
        millis: u64,
    },
    /// The broker dies and is back without its last so many writes.
    BoardLost {
        /// How many.
        writes: u16,
    },
    /// Its jobs take long: what others send overtakes them.
    SlowJobs {
        /// Who.
        who: Name,
        /// For this time.
        millis: u64,
    },
    /// It draws the same random bytes from now on.
    SameDraws {
        /// Who.
        who: Name,
    },
    /// Its owner gives it other values under a label that it has.
    Change {
        /// Who.
        who: Name,
        /// Which label.
        snapshot: u8,
    },
}

/// A fault of one run.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Fault {
    /// A message.
    Message(Which, Fate),
    /// A party, or the broker, at this step of the run.
    Blow(u64, Blow),
    /// What a party says that is not so, while there are faults.
    Lie(Lie),
}

/// A kind of fault, and how often it must have happened in a thousand runs for them to say anything.
pub const KINDS: [(&str, u64); 44] = [
    ("drop", 1500),
    ("repeat", 5000),
    ("reorder", 6000),
    ("delay", 4000),
    ("early", 3000),
    ("late", 600),
    ("crash", 500),
    ("crash while sending", 200),
    ("crash before sending", 200),
    ("crash in calm", 200),
    ("older store", 50),
    ("lost store", 100),
    ("clock jump", 150),
    ("clock step", 100),
    ("cut off", 100),
    ("deaf", 100),
    ("mute", 80),
    ("partition", 250),
    ("board lost", 90),
    ("changed values", 70),
    ("silent patient", 40),
    ("payloads", 100),
    ("older server or hospital", 25),
    ("slow jobs", 80),
    ("same draws", 60),
    ("altered", 200),
    ("readdressed", 1000),
    ("forged", 1000),
    ("replayed", 200),
    ("chunk", 100),
    ("another cohort", 100),
    ("another masked sum", 10),
    ("another list", 50),
    ("another open", 50),
    ("another box", 50),
    ("another mask sum", 12),
    ("another roster", 300),
    ("another begin", 300),
    ("another abort", 100),
    ("another result", 12),
    ("another payload key", 50),
    ("wrong sum", 5),
    ("another draw", 15),
    ("forgotten cohorts", 25),
];

/// How often each kind of fault happened.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Counts(pub BTreeMap<&'static str, u64>);

impl Counts {
    /// One more.
    pub(super) fn add(&mut self, kind: &'static str) {
        *self.0.entry(kind).or_default() += 1;
    }

    /// Those of another run.
    pub fn merge(&mut self, other: &Counts) {
        other.0.iter().for_each(|(kind, count)| *self.0.entry(kind).or_default() += count);
    }

    /// The kinds that happened too seldom in so many runs: what it is, how often it happened and should have.
    pub fn too_seldom(&self, runs: u64) -> Vec<(&'static str, u64, u64)> {
        let rows = KINDS.iter().map(|(kind, mille)| {
            (*kind, self.0.get(kind).copied().unwrap_or_default(), mille.saturating_mul(runs) / 1000)
        });
        rows.filter(|(_, count, least)| count < least).collect()
    }
}

impl Fate {
    pub(super) fn name(self) -> &'static str {
        match self {
            Fate::Drop => "drop",
            Fate::Repeat(_) => "repeat",
            Fate::Reorder(_) => "reorder",
            Fate::Delay(_) => "delay",
            Fate::Early(_) => "early",
            Fate::Late(_) => "late",
            Fate::Alter(_) => "altered",
            Fate::Readdress(_) => "readdressed",
            Fate::Forge => "forged",
            Fate::Replay { .. } => "replayed",
        }
    }
}

/// How long a party is away: not at all, less than a phase, or a round and more.
pub(super) fn down(dice: &mut Dice) -> u64 {
    let most = dice.one_of(&[0, 50, 2_000, 20_000, 40_000, 90_000]).copied().unwrap_or_default();
    dice.within(most / 2, most)
}

/// The blows of a run, by the step at which they fall, and its lies; those that split a study have dice of their own.
pub(super) fn draw_blows(shape: &Shape, cast: &Cast, dice: &mut Dice, splits: &mut Dice) -> Vec<Fault> {
    let everybody: Vec<&Name> = cast.everybody().collect();
    let talk = u64::from(shape.patients) * u64::from(shape.committee + shape.servers + 3);
    let horizon = shape.acts.len() as u64 * (talk + 10);
    let mut restored = Restored { left: shape.threshold, cast };
    let mut blows = Vec::new();
    let count = if dice.percent(20) { 0 } else { dice.within(1, 8) };
    for _ in 0..count {
        let step = dice.below(horizon);
        let Some(who) = dice.one_of(&everybody).map(|who| (*who).clone()) else { continue };
        let (down, millis) = (down(dice), dice.within(100, 70_000));
        let blow = match dice.below(18) {
            0..=3 => Blow::Crash { who, down },
            4..=6 => Blow::CrashSending { who, after: dice.below(8) as u8, down },
            7 if restored.takes(&who) => {
                blows.push(Fault::Blow(dice.below(step + 1), Blow::Copy { who: who.clone() }));
                Blow::Older { who, down }
            }
            8 if restored.takes(&who) => Blow::LostStore { who, down },
            9 | 10 => Blow::Clock { who, down, millis: dice.within(0, 400_000) as i64 - 200_000 },
            11 => Blow::Deaf { who, millis },
            12 => Blow::Mute { who, millis },
            13 => Blow::Partition { who, millis },
            14 => Blow::BoardLost { writes: dice.within(1, 40) as u16 },
            15 if cast.number(&who).is_some() => Blow::Change { who, snapshot: dice.within(1, 2) as u8 },
            16 => Blow::SlowJobs { who, millis },
            17 if cast.number(&who).is_some() => Blow::SameDraws { who },
            _ => Blow::Crash { who, down },
        };
        blows.push(Fault::Blow(step, blow));
    }
    blows.extend(lie::draw(shape, cast, dice, |who| restored.takes(who)).map(Fault::Lie));
    blows.extend(lie::draw_splits(shape, cast, splits, |who| restored.takes(who)).into_iter().map(Fault::Lie));
    blows.extend(plot::draw(cast, usize::from(shape.marked), horizon, splits));
    blows.extend(lie::draw_payload(shape, cast, splits).map(Fault::Lie));
    blows.extend(plot::draw_steps(cast, horizon, splits));
    blows.extend(plot::draw_cut_offs(cast, horizon, splits));
    blows
}

/// Who may still come back with an older store: t patients at most, as each counts as one of the t; servers and the
/// hospital without limit, as nobody trusts them.
struct Restored<'a> {
    left: u8,
    cast: &'a Cast,
}

impl Restored<'_> {
    fn takes(&mut self, who: &Name) -> bool {
        if self.cast.number(who).is_none() {
            return true;
        }
        let takes = self.left > 0;
        self.left = self.left.saturating_sub(1);
        takes
    }
}

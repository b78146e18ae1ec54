//! The way of messages: what becomes of each, drawn from the seed or as a list says.

use std::collections::{BTreeMap, BTreeSet};

use super::dice::Dice;
use super::fault::{Counts, Fate, Fault, Part, Which};
use super::forge::{Liars, alter, forge, readdress};
use super::lie::Lie;
use super::misreckon::{Misreckoned, Worked};
use crate::id::{Kind, Name, RoundNo, Time};
use crate::job::{Job, Outcome};
use crate::kdf;
use crate::memory::Delivery;
use crate::step::Effects;

/// Where the fates of messages come from.
#[derive(Clone, Debug)]
pub(super) enum Source {
    /// From the seed, at these rates.
    Drawn(u64, Rates),
    /// From a list.
    Listed(BTreeMap<Which, Fate>),
}

/// How many messages in a thousand each fate takes, in one run.
#[derive(Clone, Debug, Default)]
pub(super) struct Rates {
    drop: u64,
    repeat: u64,
    reorder: u64,
    delay: u64,
    early: u64,
    late: u64,
    altered: u64,
    readdressed: u64,
    forged: u64,
    replayed: u64,
}

impl Rates {
    /// Each kind of weather is there in some of the runs only: what needs calm to happen gets it.
    pub(super) fn draw(dice: &mut Dice) -> Self {
        let mut rate = |percent, most| if dice.percent(percent) { dice.within(1, most) } else { 0 };
        let rates = Self {
            drop: rate(50, 60),
            repeat: rate(50, 200),
            reorder: rate(50, 300),
            delay: rate(50, 200),
            early: rate(50, 200),
            late: rate(40, 40),
            altered: rate(15, 40),
            readdressed: rate(25, 100),
            forged: rate(25, 100),
            replayed: rate(25, 60),
        };
        // Storms are rare: in most of them no round comes to its end.
        if dice.percent(95) {
            return rates;
        }
        Self { drop: dice.within(60, 300), repeat: dice.within(200, 500), ..rates }
    }

    fn fate(&self, dice: &mut Dice, kind: Kind) -> Option<Fate> {
        let early = if is_continued(kind) { self.early } else { 0 };
        let relay = [self.altered, self.readdressed, self.forged, self.replayed];
        let rates = [self.drop, self.repeat, self.reorder, self.delay, early, self.late].into_iter().chain(relay);
        let mut left = dice.below(1000);
        let falls = |rate: u64| {
            let falls = left < rate;
            left = left.saturating_sub(rate);
            falls
        };
        let mut rates = rates;
        match rates.position(falls)? {
            0 => Some(Fate::Drop),
            1 => Some(Fate::Repeat(dice.below(3_000))),
            2 => Some(Fate::Reorder(dice.within(1, 20))),
            3 => Some(Fate::Delay(dice.within(20, 5_000))),
            4 => Some(Fate::Early(dice.within(50, 2_000))),
            5 => Some(Fate::Late(dice.within(20_000, 120_000))),
            6 => Some(Fate::Alter(dice.below(u64::from(u16::MAX)) as u16)),
            7 => {
                let parts = [Part::Session, Part::Round, Part::From, Part::To, Part::Kind];
                dice.one_of(&parts).map(|part| Fate::Readdress(*part))
            }
            8 => Some(Fate::Forge),
            _ => Some(Fate::Replay { back: dice.below(500) as u16, moved: dice.percent(50) }),
        }
    }
}

/// Whether others answer this kind at once: held back at one party, it is overtaken by what it leads to.
fn is_continued(kind: Kind) -> bool {
    matches!(kind, Kind::Announce | Kind::Roster | Kind::List | Kind::Begin | Kind::Share | Kind::Cohort | Kind::Open)
}

/// A party that is cut off.
#[derive(Clone, Debug)]
struct Cut {
    who: Name,
    deaf: bool,
    mute: bool,
    until: Time,
}

/// The weather of a run.
#[derive(Debug)]
pub(super) struct Weather {
    source: Source,
    seen: BTreeMap<(RoundNo, Kind, Name, Name), u32>,
    /// What each party was sent.
    past: BTreeMap<Name, Vec<Delivery>>,
    cuts: Vec<Cut>,
    silent: BTreeSet<Name>,
    liars: Liars,
    /// Now, by the study's clock; kept by who advances it.
    pub(super) now: Time,
    /// From now on nothing goes wrong any more, but what the end of a study does to one patient.
    pub(super) calm: bool,
    /// What went wrong.
    pub(super) fired: Vec<Fault>,
    pub(super) counts: Counts,
}

impl Weather {
    pub(super) fn new(source: Source, silent: BTreeSet<Name>, now: Time, liars: Liars) -> Self {
        let (seen, past, cuts) = (BTreeMap::new(), BTreeMap::new(), Vec::new());
        Self { source, seen, past, cuts, silent, liars, now, calm: false, fired: Vec::new(), counts: Counts::default() }
    }

    /// Cuts a party off for some time.
    pub(super) fn cut(&mut self, who: &Name, deaf: bool, mute: bool, millis: u64) {
        self.cuts.push(Cut { who: who.clone(), deaf, mute, until: self.now.plus_millis(millis) });
    }

    /// Shows liars what a party is about to write.
    pub(super) fn written(&mut self, who: &Name, effects: &Effects) {
        self.liars.written(who, effects);
    }

    /// The deliveries that take the place of `delivery`.
    pub(super) fn pass(&mut self, delivery: Delivery) -> Vec<Delivery> {
        let address = &delivery.address;
        if self.silent.contains(&address.from) && !matches!(address.kind, Kind::Join | Kind::Key) {
            return Vec::new();
        }
        if self.calm {
            return vec![delivery];
        }
        let (told, lies) = self.liars.tell(delivery);
        lies.into_iter().for_each(|lie| self.note(lie));
        told.into_iter().flat_map(|delivery| self.carry(delivery)).collect()
    }

    /// Somebody lied.
    fn note(&mut self, lie: Lie) {
        self.counts.add(lie.name());
        let lie = Fault::Lie(lie);
        if !self.fired.contains(&lie) {
            self.fired.push(lie);
        }
    }

    /// Runs a party's job; by how much it is off, where its owner is one who lies so.
    pub(super) fn work(&mut self, who: &Name, job: Job) -> (Outcome, Option<Misreckoned>) {
        let Worked { outcome, error, lie } = self.liars.work(who, job, self.calm);
        let lie = lie.cloned();
        lie.into_iter().for_each(|lie| self.note(lie));
        (outcome, error)
    }

    /// What becomes on its way of what was said.
    fn carry(&mut self, delivery: Delivery) -> Vec<Delivery> {
        if delivery.delay > 0 {
            return vec![delivery];
        }
        if let Some(wait) = self.wait(&delivery) {
            return vec![Delivery { delay: wait, ..delivery }];
        }
        let fate = self.fate(&delivery);
        self.past.entry(delivery.receiver.clone()).or_default().push(delivery.clone());
        match fate {
            None => vec![delivery],
            Some(Fate::Drop) => Vec::new(),
            Some(Fate::Repeat(delay)) => {
                let again = Delivery { delay: delay + 1, ..delivery.clone() };
                vec![delivery, again]
            }
            Some(Fate::Alter(at)) => vec![alter(delivery, at)],
            Some(Fate::Readdress(part)) => {
                let other = self.liars.another(&delivery.address.from);
                other.map(|other| readdress(&delivery, part, other)).into_iter().chain([delivery]).collect()
            }
            Some(Fate::Forge) => {
                let other = self.liars.another(&delivery.address.from);
                other.and_then(|other| forge(&delivery, &other)).into_iter().chain([delivery]).collect()
            }
            Some(Fate::Replay { back, moved }) => {
                self.older(&delivery, back, moved).into_iter().chain([delivery]).collect()
            }
            Some(Fate::Reorder(delay) | Fate::Delay(delay) | Fate::Early(delay) | Fate::Late(delay)) => {
                vec![Delivery { delay, ..delivery }]
            }
        }
    }

    /// What the receiver was sent so many messages before, as it was or under the session and round of `delivery`.
    fn older(&self, delivery: &Delivery, back: u16, moved: bool) -> Option<Delivery> {
        let past = self.past.get(&delivery.receiver)?;
        let back = usize::from(back).checked_rem(past.len())?;
        let mut older = past.iter().rev().nth(back)?.clone();
        if moved {
            (older.address.session, older.address.round) = (delivery.address.session, delivery.address.round);
        }
        Some(older)
    }

    /// For how long a cut holds this back.
    fn wait(&mut self, delivery: &Delivery) -> Option<u64> {
        self.cuts.retain(|cut| cut.until > self.now);
        let holds =
            |cut: &&Cut| (cut.deaf && cut.who == delivery.receiver) || (cut.mute && cut.who == delivery.address.from);
        self.cuts.iter().filter(holds).map(|cut| cut.until.0 - self.now.0).max()
    }

    fn fate(&mut self, delivery: &Delivery) -> Option<Fate> {
        let (address, to) = (&delivery.address, &delivery.receiver);
        let key = (address.round, address.kind, address.from.clone(), to.clone());
        let nth = self.seen.entry(key).or_default();
        let which =
            Which { round: address.round, kind: address.kind, from: address.from.clone(), to: to.clone(), nth: *nth };
        *nth += 1;
        let fate = match &self.source {
            Source::Drawn(seed, rates) => rates.fate(&mut dice_of(*seed, &which), which.kind),
            Source::Listed(fates) => fates.get(&which).copied(),
        }?;
        self.counts.add(fate.name());
        if which.kind == Kind::Chunk {
            self.counts.add("chunk");
        }
        self.fired.push(Fault::Message(which, fate));
        Some(fate)
    }
}

/// Its own choices for each message: leaving out one fault leaves the others as they are.
fn dice_of(seed: u64, which: &Which) -> Dice {
    let Which { round, kind, from, to, nth } = which;
    let numbers = [round.0, *nth].map(u32::to_le_bytes).concat();
    let parts = [kind.as_str().as_bytes(), from.as_str().as_bytes(), to.as_str().as_bytes(), &numbers];
    let digest = kdf::digest("ward/1 simulated fate", &parts);
    let (word, _) = digest.0.split_at(8);
    Dice::new(seed, word.iter().fold(0, |number, byte| (number << 8) | u64::from(*byte)))
}

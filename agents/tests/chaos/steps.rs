//! Who is killed at which step: over the seeds each of these pairs has its turn.

use protocol::Kind;

use super::scenario::Whom;

/// A step of a study.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Step {
    /// Servers and patients become ready.
    Ready,
    /// A message of this kind is written.
    Written(Kind),
}

/// What comes once a session, what comes once a round, what each patient writes, and what members write.
const ONCE: [Kind; 3] = [Kind::Announce, Kind::Roster, Kind::List];
const ROUNDS: [Kind; 6] = [Kind::Begin, Kind::Cohort, Kind::Open, Kind::MaskedSum, Kind::Check, Kind::Result];
const PATIENTS: [Kind; 4] = [Kind::Join, Kind::Place, Kind::Key, Kind::Share];
const MEMBERS: [Kind; 4] = [Kind::Held, Kind::Confirm, Kind::MaskSum, Kind::CheckSum];

/// What each role passes: all that it writes and all that it waits for. Before the Roster nobody is a member.
const PASSED: [(Whom, bool, &[Kind]); 4] = [
    (
        Whom::Hospital,
        false,
        &[
            Kind::Announce,
            Kind::Roster,
            Kind::List,
            Kind::Begin,
            Kind::Cohort,
            Kind::Confirm,
            Kind::Open,
            Kind::MaskedSum,
            Kind::MaskSum,
            Kind::Check,
            Kind::CheckSum,
            Kind::Result,
        ],
    ),
    (
        Whom::Server(0),
        true,
        &[
            Kind::Announce,
            Kind::Join,
            Kind::Roster,
            Kind::List,
            Kind::Place,
            Kind::Begin,
            Kind::Share,
            Kind::Held,
            Kind::Cohort,
            Kind::Open,
            Kind::MaskedSum,
            Kind::Result,
        ],
    ),
    (
        Whom::Member(0),
        false,
        &[
            Kind::Roster,
            Kind::List,
            Kind::Place,
            Kind::Key,
            Kind::Begin,
            Kind::Share,
            Kind::Held,
            Kind::Cohort,
            Kind::Confirm,
            Kind::Open,
            Kind::MaskSum,
            Kind::Check,
            Kind::CheckSum,
            Kind::Result,
        ],
    ),
    (
        Whom::Outsider(0),
        true,
        &[Kind::Announce, Kind::Join, Kind::Roster, Kind::Place, Kind::Key, Kind::Begin, Kind::Share, Kind::Result],
    ),
];

impl Step {
    /// All that a study of these scenarios passes, in their order.
    pub fn all() -> impl Iterator<Item = Step> {
        let written = Kind::ALL.into_iter().filter(|kind| Step::kinds().contains(kind)).map(Step::Written);
        std::iter::once(Step::Ready).chain(written)
    }

    /// The kinds of messages of which there are some in every study.
    pub fn kinds() -> Vec<Kind> {
        [&ONCE[..], &ROUNDS, &PATIENTS, &MEMBERS].concat()
    }

    /// How often it comes while the hospital is asked so many times, unless something goes wrong.
    pub fn times(self, asks: u8) -> u32 {
        match self {
            Step::Ready => 5,
            Step::Written(kind) if ONCE.contains(&kind) => 1,
            Step::Written(kind) if ROUNDS.contains(&kind) => asks.into(),
            Step::Written(kind) if PATIENTS.contains(&kind) => 5,
            // Each sum of masks comes from as few members as have all of them.
            Step::Written(Kind::MaskSum | Kind::CheckSum) => u32::from(asks) + 1,
            Step::Written(_) => 3,
        }
    }

    /// Whether it is settled by then who is on the committee.
    pub fn has_committee(self) -> bool {
        !matches!(self, Step::Ready | Step::Written(Kind::Announce | Kind::Join))
    }

    /// One word.
    pub fn name(self) -> &'static str {
        match self {
            Step::Ready => "ready",
            Step::Written(kind) => kind.as_str(),
        }
    }
}

/// All pairs of a party and a step at which it must be killed.
pub fn pairs() -> Vec<(Whom, Step)> {
    let of_one = |(whom, readies, kinds): (Whom, bool, &'static [Kind])| {
        let steps = readies.then_some(Step::Ready).into_iter().chain(kinds.iter().copied().map(Step::Written));
        steps.map(move |step| (whom, step))
    };
    PASSED.into_iter().flat_map(of_one).collect()
}

/// The pair whose turn it is with this seed.
pub fn turn(seed: u64) -> (Whom, Step) {
    let pairs = pairs();
    pairs[(seed % pairs.len() as u64) as usize]
}

//! What can go wrong, and who has to know: [`Fault`] (one peer, the round goes on), [`AbortReason`] (this round ends)
//! and [`PlanError`] (our own settings, before anything starts).

use serde::{Deserialize, Serialize};

use crate::form;
use crate::id::{Kind, Name, RoundNo};
use crate::plan::MOST_SERVERS;
use crate::sharing::MOST_MEMBERS;

/// A message that no honest party would have sent so. It is dropped and the round goes on.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{from} sent a {kind} that {wrong}")]
pub struct Fault {
    /// Whom the message came from: as signed where the signature holds, else as the subject says.
    pub from: Name,
    /// What it was.
    pub kind: Kind,
    /// What is wrong with it.
    pub wrong: Wrong,
}

/// What is wrong with a message.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Wrong {
    /// It does not decode, or is not signed by whom it says.
    #[error("does not hold: {0}")]
    Wire(#[from] crate::wire::WireError),
    /// Its sender's certificate does not.
    #[error("comes with a certificate that does not hold: {0}")]
    Certificate(String),
    /// Its subject says otherwise than its signed part.
    #[error("stands under a subject of another sender, receiver, round or kind")]
    Readdressed,
    /// Its sender may not send this kind.
    #[error("is not its to send")]
    NotItsRole,
    /// It contradicts what the same sender said before.
    #[error("contradicts an earlier one of the same sender")]
    Equivocation,
    /// It breaks a rule of the protocol.
    #[error("breaks a rule: {0}")]
    Rule(&'static str),
    /// Bytes that no signed message names.
    #[error("no signed message names")]
    Unnamed,
}

/// Why a round ended without an answer.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, thiserror::Error)]
#[serde(rename_all = "snake_case")]
pub enum AbortReason {
    /// Too few patients joined before joins closed.
    #[error(
        "{joined} patients joined ({marked} of them marked member); the session needs {needed}, {committee} of them \
         marked: start the missing patients, or ask with a smaller --patients, --min-cohort or --committee"
    )]
    TooFewJoined {
        /// How many joined.
        joined: u32,
        /// How many of them are marked.
        marked: u32,
        /// max(k, c).
        needed: u32,
        /// c.
        committee: u32,
    },
    /// Not every server of the session joined before joins closed.
    #[error(
        "{} did not join the session in time: start what is missing (`ward server --name NAME`) and ask again",
        list(missing)
    )]
    ServersMissing {
        /// Which.
        #[serde(deserialize_with = "form::list_of::<_, _, { MOST_SERVERS + MOST_MEMBERS }>")]
        missing: Vec<Name>,
    },
    /// Too few patients shared for a cohort.
    #[error("the cohort takes {needed} patients and {shared} can be in it")]
    TooFewShared {
        /// How many could be in it.
        shared: u32,
        /// How many it takes.
        needed: u32,
    },
    /// The server sent no Cohort in time.
    #[error("no cohort came from the server before shares closed: is `ward server` running?")]
    NoCohort,
    /// Too few members confirmed the cohort.
    #[error(
        "{confirmed} of {committee} members confirmed the cohort and it takes {quorum}; silent or refusing: \
         {}. Start them again and ask again",
        list(missing)
    )]
    TooFewConfirmed {
        /// How many confirmed.
        confirmed: u32,
        /// c.
        committee: u32,
        /// q.
        quorum: u32,
        /// Who did not confirm.
        #[serde(deserialize_with = "form::list_of::<_, _, { MOST_SERVERS + MOST_MEMBERS }>")]
        missing: Vec<Name>,
    },
    /// Members refused the cohort under a rule.
    #[error(
        "members refuse: the cohort overlaps in part with that of round {round} over the same snapshot; ask that cohort \
         again, or ask for another snapshot"
    )]
    Overlap {
        /// The round it clashes with.
        round: RoundNo,
    },
    /// Not all sums came before the round's end.
    #[error("the cohort was confirmed, and these sums did not come in time: {}", list(missing))]
    SumsMissing {
        /// Whose sums are missing.
        #[serde(deserialize_with = "form::list_of::<_, _, { MOST_SERVERS + MOST_MEMBERS }>")]
        missing: Vec<Name>,
    },
    /// The sum is larger than |U| * bound: somebody added wrongly.
    #[error("the sum is outside cohort times bound: a patient, a member or the server added something else")]
    SumOutOfRange,
    /// The board lost a vector that had to be read again.
    #[error("the broker lost a masked vector that had to be taken out of the sum again: ask again")]
    BoardLost,
    /// The board lost what the masked sum is checked against.
    #[error(
        "the sum could not be checked: the broker has no longer what {patient} shared, something else stands in its place, \
         or a server was revoked and nobody may read any more what was for it. Ask again, in a new session without such a \
         server (--new)"
    )]
    CheckLost {
        /// Whose vector it is.
        patient: Name,
    },
    /// The holders of a block's seeds do not agree on the sum of its masks.
    #[error(
        "the mask sums of block {block} are not the same at {}, and too few of them agree: one of them is wrong, and \
         which one cannot be told. Ask again in a new session with other members",
        list(holders)
    )]
    MaskSumsDiffer {
        /// Which block.
        block: u16,
        /// Who sent sums of it.
        #[serde(deserialize_with = "form::list_of::<_, _, MOST_MEMBERS>")]
        holders: Vec<Name>,
    },
    /// The sums came, and their checks took longer than the round.
    #[error(
        "the sums came and could not be checked before the round's end: {} did not come. Ask again with a longer \
         --round-seconds, or check less (--audit)",
        if missing.is_empty() { "vectors from the broker".into() } else { format!("answers of {}", list(missing)) }
    )]
    Unchecked {
        /// Who did not answer.
        #[serde(deserialize_with = "form::list_of::<_, _, { MOST_SERVERS + MOST_MEMBERS }>")]
        missing: Vec<Name>,
    },
    /// The hospital was stopped.
    #[error("the hospital stopped the round")]
    Stopped,
}

impl AbortReason {
    /// A word for programs: stable, one for each reason.
    pub fn code(&self) -> &'static str {
        match self {
            AbortReason::TooFewJoined { .. } => "too_few_joined",
            AbortReason::ServersMissing { .. } => "servers_missing",
            AbortReason::TooFewShared { .. } => "too_few_shared",
            AbortReason::NoCohort => "no_cohort",
            AbortReason::TooFewConfirmed { .. } => "too_few_confirmed",
            AbortReason::Overlap { .. } => "overlap",
            AbortReason::SumsMissing { .. } => "sums_missing",
            AbortReason::SumOutOfRange => "sum_out_of_range",
            AbortReason::BoardLost => "board_lost",
            AbortReason::CheckLost { .. } => "check_lost",
            AbortReason::MaskSumsDiffer { .. } => "mask_sums_differ",
            AbortReason::Unchecked { .. } => "unchecked",
            AbortReason::Stopped => "stopped",
        }
    }
}

/// `alice, bob and charlie`.
pub fn list(names: &[Name]) -> String {
    match names {
        [] => "nobody".into(),
        [one] => one.to_string(),
        [first @ .., last] => {
            let first: Vec<_> = first.iter().map(Name::as_str).collect();
            format!("{} and {last}", first.join(", "))
        }
    }
}

/// Settings that cannot make a session or a round.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum PlanError {
    /// c, t or both are out of range.
    #[error(transparent)]
    Sharing(#[from] crate::sharing::SharingError),
    /// Fewer patients than the committee has seats.
    #[error(
        "a committee of {committee} needs as many patients, and {patients} are expected: lower --committee or add patients"
    )]
    CommitteeTooLarge {
        /// c.
        committee: u32,
        /// How many patients are expected.
        patients: u32,
    },
    /// Fewer patients than the smallest cohort.
    #[error(
        "a cohort of at least {min_cohort} cannot come from {patients} patients: add patients, or lower --min-cohort \
         (never below 2)"
    )]
    TooFewPatients {
        /// k.
        min_cohort: u32,
        /// How many patients are expected.
        patients: u32,
    },
    /// More patients than a session can have.
    #[error(
        "a session can have {} patients and {patients} are expected: divide them over several",
        crate::plan::MOST_PATIENTS
    )]
    TooManyPatients {
        /// How many are expected.
        patients: u32,
    },
    /// No server, too many, or one named twice.
    #[error("{servers} servers are named: a session takes from 1 to {most} different ones")]
    Servers {
        /// How many are named.
        servers: usize,
        /// The most there can be.
        most: usize,
    },
    /// More candidates for the committee than an Announce may name.
    #[error(
        "{candidates} candidates for the committee are named: name at most {most}, or nobody for every marked patient"
    )]
    Candidates {
        /// How many are named.
        candidates: usize,
        /// The most there can be.
        most: usize,
    },
    /// k below 2: a sum over one patient is that patient's value.
    #[error("--min-cohort {0} would open the value of a single patient: use 2 or more")]
    CohortOfOne(u32),
    /// No ring up to 64 bits holds the sum.
    #[error(
        "a sum over {patients} patients with this bound and scale may overflow 64 bits: lower the bound or the scale"
    )]
    Overflow {
        /// How many patients may be in the sum.
        patients: u32,
    },
    /// The ring asked for is too narrow.
    #[error(
        "a ring of {bits} bits cannot hold a sum over {patients} patients with this bound and scale: it takes {needed}"
    )]
    RingTooNarrow {
        /// The ring asked for.
        bits: u8,
        /// How many patients may be in the sum.
        patients: u32,
        /// The narrowest that holds.
        needed: u8,
    },
    /// Columns that cannot be asked for together.
    #[error(
        "a question takes 1 to {} different columns, each with a name of 1 to {} bytes, of {} KiB together at the most: \
         name each once",
        crate::task::MAX_COLUMNS,
        crate::form::MAX_TEXT,
        crate::task::MAX_COLUMN_NAMES >> 10
    )]
    Columns,
    /// A bound of 0.
    #[error("a bound of 0 lets nobody have a value: use 1 or more, as the patients do")]
    NoBound,
    /// A vector that is empty or too long.
    #[error(
        "a vector of {0} coordinates cannot be shared: ask for at least one column, and at most 2^33 bytes of lanes in 15000 chunks"
    )]
    Dimension(u64),
    /// A round or join time of zero, or of more than a day.
    #[error("{what} of {seconds} s: use 1 to 86400")]
    Seconds {
        /// Which setting.
        what: &'static str,
        /// What it was.
        seconds: u32,
    },
    /// No such session, or one that ended.
    #[error("session {0} is not open here: `ward hospital sum --new` opens one")]
    NoSession(String),
    /// A round is still running in the session.
    #[error("a round is still running in this session: wait for its end")]
    Busy,
}

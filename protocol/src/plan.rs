//! Plans: settings that were checked before anything starts.

use std::collections::BTreeSet;

use serde::{Deserialize, Serialize};
use vectors::Ring;

use crate::decimal::Scale;
use crate::error::PlanError;
use crate::id::{Name, Snapshot, Time};
use crate::session::WAIT_SECONDS;
use crate::sharing::{Sharing, default_min_cohort};
use crate::task::Question;

/// The most patients of a session. A Cohort has a bit for each, and stands whole in the Result, whose signed part is at
/// most 512 KiB.
pub const MOST_PATIENTS: u32 = 1_000_000;

/// The most servers of a session.
pub const MOST_SERVERS: usize = 16;

/// The most patients that an Announce may name as candidates for the committee.
pub const MOST_CANDIDATES: usize = 1024;

/// The rules of a session to open: they fit together.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Plan {
    pub(crate) study: String,
    pub(crate) sharing: Sharing,
    pub(crate) min_cohort: u32,
    pub(crate) expect: u32,
    pub(crate) candidates: Vec<Name>,
    pub(crate) servers: Vec<Name>,
    pub(crate) payloads: bool,
    pub(crate) join_seconds: u32,
    pub(crate) not_after: Time,
}

/// What a [`Plan`] is made of; what is `None` gets the default of PROTOCOL.md, *Sharing*.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Settings {
    /// The study, as in the certificates' URIs.
    pub study: String,
    /// How many patients are expected.
    pub expect: u32,
    /// c; by default min(5, expect).
    pub committee: Option<u8>,
    /// t; by default max(1, floor((c - 1) / 3)).
    pub threshold: Option<u8>,
    /// k; by default half of expect rounded up, and at least 3.
    pub min_cohort: Option<u32>,
    /// Who may sit on the committee; nobody named means every marked patient.
    pub candidates: Vec<Name>,
    /// The servers, in the order of their parts: the first fixes the cohort.
    pub servers: Vec<Name>,
    /// Whether questions carry a payload.
    pub payloads: bool,
    /// How long joins stay open, in seconds.
    pub join_seconds: u32,
    /// When the session ends at the latest.
    pub not_after: Time,
}

impl Plan {
    /// Checks `settings` and fills in the defaults.
    ///
    /// # Errors
    /// [`PlanError`] names the setting, the rule and the remedy.
    pub fn new(settings: Settings) -> Result<Self, PlanError> {
        let expect = settings.expect;
        let c = settings.committee.unwrap_or(expect.clamp(2, 5) as u8);
        let t = settings.threshold.unwrap_or((c.saturating_sub(1) / 3).max(1));
        let sharing = Sharing::new(c, t)?;
        let min_cohort = settings.min_cohort.unwrap_or(default_min_cohort(expect));
        if min_cohort < 2 {
            return Err(PlanError::CohortOfOne(min_cohort));
        }
        if u32::from(c) > expect {
            return Err(PlanError::CommitteeTooLarge { committee: c.into(), patients: expect });
        }
        if min_cohort > expect {
            return Err(PlanError::TooFewPatients { min_cohort, patients: expect });
        }
        if expect > MOST_PATIENTS {
            return Err(PlanError::TooManyPatients { patients: expect });
        }
        let different: BTreeSet<&Name> = settings.servers.iter().collect();
        if !(1..=MOST_SERVERS).contains(&settings.servers.len()) || different.len() != settings.servers.len() {
            return Err(PlanError::Servers { servers: settings.servers.len(), most: MOST_SERVERS });
        }
        if settings.candidates.len() > MOST_CANDIDATES {
            return Err(PlanError::Candidates { candidates: settings.candidates.len(), most: MOST_CANDIDATES });
        }
        check_seconds("join_seconds", settings.join_seconds)?;
        let Settings { study, candidates, servers, payloads, join_seconds, not_after, .. } = settings;
        Ok(Self { study, sharing, min_cohort, expect, candidates, servers, payloads, join_seconds, not_after })
    }

    /// The committee's size and threshold.
    pub fn sharing(&self) -> Sharing {
        self.sharing
    }

    /// k.
    pub fn min_cohort(&self) -> u32 {
        self.min_cohort
    }

    /// In words: who must collude to read a patient, how many may drop, and what is checked.
    pub fn explain(&self) -> String {
        let (c, t, drop) = (self.sharing.committee(), self.sharing.threshold(), self.sharing.may_drop());
        let read = t + 1;
        let drops = match drop {
            0 => format!("all {c} members are needed"),
            1 => "one member may drop".to_string(),
            many => format!("{many} members may drop"),
        };
        let checks = if self.sharing.checkable() { "" } else { "; mask sums unchecked" };
        format!(
            "committee of {c}, threshold {t}: {read} members would have to collude with server or hospital to read a \
             patient; {drops}; the sum covers at least {} patients{checks}",
            self.min_cohort
        )
    }
}

/// How much of a long vector the hospital adds up again (PROTOCOL.md, *Checks*).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub enum Audit {
    /// All chunks.
    Full,
    /// One chunk in eight, rounded up and drawn once all sums are in: the only one of a vector of one chunk.
    #[default]
    Sample,
    /// None: whoever adds wrongly is not caught.
    None,
}

/// A text that is no [`Audit`].
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("`{0}` is no audit: use full, sample or none")]
pub struct AuditError(String);

impl std::fmt::Display for Audit {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.pad(match self {
            Audit::Full => "full",
            Audit::Sample => "sample",
            Audit::None => "none",
        })
    }
}

impl Audit {
    /// How many of `count` chunks are checked.
    pub fn draws(self, count: u32) -> u32 {
        match self {
            Audit::Full => count,
            Audit::Sample => count.div_ceil(8),
            Audit::None => 0,
        }
    }
}

impl std::str::FromStr for Audit {
    type Err = AuditError;

    fn from_str(text: &str) -> Result<Self, AuditError> {
        match text {
            "full" => Ok(Audit::Full),
            "sample" => Ok(Audit::Sample),
            "none" => Ok(Audit::None),
            _ => Err(AuditError(text.chars().take(40).collect())),
        }
    }
}

/// A question to put in a session.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Ask {
    /// What is asked.
    pub question: Question,
    /// Over which snapshot.
    pub snapshot: Snapshot,
    /// The ring; by default the narrowest that holds the sum.
    pub ring: Option<Ring>,
    /// Units per 1 of a value.
    pub scale: Scale,
    /// The largest absolute value in those units.
    pub scaled_bound: u64,
    /// Fix the cohort as soon as so many shared.
    pub enough: Option<u32>,
    /// The round's length in seconds.
    pub round_seconds: u32,
    /// How much of the sums is checked.
    pub audit: Audit,
    /// Whether the session ends with this answer.
    pub last: bool,
}

impl Ask {
    /// The ring for a sum over `patients`, once everything else is checked.
    pub(crate) fn check(&self, patients: u32) -> Result<Ring, PlanError> {
        check_seconds("round_seconds", self.round_seconds)?;
        if !self.question.is_sound() {
            return Err(PlanError::Columns);
        }
        if self.scaled_bound == 0 {
            return Err(PlanError::NoBound);
        }
        let narrowest =
            Ring::narrowest(u64::from(patients), self.scaled_bound).ok_or(PlanError::Overflow { patients })?;
        let ring = self.ring.unwrap_or(narrowest);
        if ring < narrowest {
            return Err(PlanError::RingTooNarrow { bits: ring.bits(), patients, needed: narrowest.bits() });
        }
        let d = self.question.dimension();
        if crate::chunks::Chunks::new(ring, d).is_err() {
            return Err(PlanError::Dimension(d));
        }
        Ok(ring)
    }

    /// Checks the question for a session of at most `patients`, before the session is opened.
    ///
    /// # Errors
    /// [`PlanError`] names the setting, the rule and the remedy.
    pub fn fits(&self, patients: u32) -> Result<(), PlanError> {
        self.check(patients).map(|_| ())
    }
}

fn check_seconds(what: &'static str, seconds: u32) -> Result<(), PlanError> {
    if WAIT_SECONDS.contains(&seconds) { Ok(()) } else { Err(PlanError::Seconds { what, seconds }) }
}

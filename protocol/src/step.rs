//! What goes into a machine and what comes out: inputs in, effects out.
//!
//! The driver's part is one loop: hand over an [`Input`] with a [`Moment`], then carry out the [`Effects`] in the
//! order of their fields: store, then send, then run jobs; then wait until [`Effects::wake`] or the next input.

use std::collections::BTreeSet;
use std::fmt;

use bytes::Bytes;
use zeroize::Zeroizing;

use crate::error::{AbortReason, Fault};
use crate::id::{Address, Digest, Kind, Name, RoundNo, SessionId, Snapshot, Time};
use crate::job::{Job, JobId, Outcome};
use crate::message::Decline;
use crate::outbox::Settled;
use crate::secret::SecretBytes;
use crate::task::Question;

/// The time and 32 fresh random bytes: all that a machine learns of the world besides its inputs.
pub struct Moment {
    /// Now, as the driver counts.
    pub now: Time,
    /// Fresh bytes of the system's generator: spent once, here.
    pub fresh: Zeroizing<[u8; 32]>,
}

impl Moment {
    /// The moment `now` with fresh bytes.
    pub fn new(now: Time, fresh: [u8; 32]) -> Self {
        Self { now, fresh: Zeroizing::new(fresh) }
    }
}

impl fmt::Debug for Moment {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Moment({}, ..)", self.now.0)
    }
}

/// What happens to a machine.
#[derive(Debug)]
pub enum Input {
    /// A message of the board that is addressed to this party or to all.
    Message {
        /// Where it stood: a hint.
        address: Address,
        /// Its bytes.
        payload: Bytes,
    },
    /// The board acknowledged a message that asked for it.
    Sent(Address),
    /// The answer to [`Effects::read`]; `None` where the board has no such message.
    Read {
        /// What was read.
        address: Address,
        /// Its bytes.
        payload: Option<Bytes>,
    },
    /// A job is done.
    Done(JobId, Outcome),
    /// The broker was lost and is back, or another process of it: it may have lost what it acknowledged.
    Reconnected,
    /// The time that [`Effects::wake`] named has come.
    Tick,
}

/// A message to write to the board.
#[derive(Clone, Debug)]
pub struct Outgoing {
    /// Under which name.
    pub address: Address,
    /// Its bytes.
    pub payload: Bytes,
    /// Whether the machine waits for [`Input::Sent`].
    pub report: bool,
}

/// One change of the machine's store: a key and its new value, or none to forget it.
pub struct Write {
    /// The key.
    pub key: String,
    /// The value; it may hold secrets.
    pub value: Option<SecretBytes>,
}

impl fmt::Debug for Write {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let what = if self.value.is_some() { ".." } else { "none" };
        write!(f, "Write({} = {what})", self.key)
    }
}

/// What the driver must do, in the order of the fields.
#[derive(Debug, Default)]
#[must_use]
pub struct Effects {
    /// Store all of these durably, in one transaction, before anything below.
    pub store: Vec<Write>,
    /// Write these to the board, in this order.
    pub send: Vec<Outgoing>,
    /// Read these from the board by name.
    pub read: Vec<Address>,
    /// Run these on any thread and hand back what they give.
    pub jobs: Vec<(JobId, Job)>,
    /// What happened, for people and programs.
    pub events: Vec<Event>,
    /// Hand in [`Input::Tick`] at this time, unless a later call names another one.
    pub wake: Option<Time>,
    /// What the machine need not write again: for its own outbox.
    pub(crate) settled: Vec<Settled>,
    /// Of what is sent here, what the machine makes again itself where the board may have lost it: its outbox keeps no copy.
    pub(crate) remade: BTreeSet<Address>,
}

impl Effects {
    /// Appends what `other` asks for; the earlier wake wins.
    pub fn merge(&mut self, other: Effects) {
        self.store.extend(other.store);
        self.send.extend(other.send);
        self.read.extend(other.read);
        self.jobs.extend(other.jobs);
        self.events.extend(other.events);
        self.wake = match (self.wake, other.wake) {
            (Some(a), Some(b)) => Some(a.min(b)),
            (a, b) => a.or(b),
        };
    }

    pub(crate) fn put(&mut self, key: impl Into<String>, value: Vec<u8>) {
        self.store.push(Write { key: key.into(), value: Some(value.into()) });
    }

    pub(crate) fn forget(&mut self, key: impl Into<String>) {
        self.store.push(Write { key: key.into(), value: None });
    }

    pub(crate) fn event(&mut self, event: Event) {
        self.events.push(event);
    }

    pub(crate) fn wake_at(&mut self, time: Time) {
        self.wake = Some(self.wake.map_or(time, |earlier| earlier.min(time)));
    }
}

/// What happened: for logs, progress lines and the caller of a round. No event carries a value, a seed or a share.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Event {
    /// A peer misbehaved; the round goes on.
    Fault(Fault),
    /// A session was announced (hospital) or joined (patient).
    Session(SessionId),
    /// A patient will not join a session.
    NotJoined {
        /// Which session.
        session: SessionId,
        /// Why, in words for its owner.
        why: String,
    },
    /// A session has this party on its committee, and its store has nothing of that: it is out there, as if it had dropped.
    StoreLost {
        /// Which session.
        session: SessionId,
    },
    /// The Roster is fixed.
    Roster {
        /// Which session.
        session: SessionId,
        /// How many joined.
        count: u32,
        /// Who sits on the committee.
        committee: Vec<Name>,
    },
    /// A round began.
    Round {
        /// Which session.
        session: SessionId,
        /// Which round.
        round: RoundNo,
    },
    /// A patient shared its vector, masked.
    Shared {
        /// Which session.
        session: SessionId,
        /// Which round.
        round: RoundNo,
        /// Over which snapshot.
        snapshot: Snapshot,
    },
    /// A patient declined a round.
    Declined {
        /// Which session.
        session: SessionId,
        /// Which round.
        round: RoundNo,
        /// What it told the server.
        decline: Decline,
        /// Why, in words for its owner.
        why: String,
    },
    /// The server's count of patients whose vector it holds.
    Progress {
        /// Which round.
        round: RoundNo,
        /// How many it holds.
        held: u32,
        /// Of how many.
        of: u32,
    },
    /// The cohort is fixed.
    Cohort {
        /// Which round.
        round: RoundNo,
        /// How many are in.
        count: u32,
    },
    /// A member confirmed a cohort, or the hospital got so many Confirms.
    Confirmed {
        /// Which round.
        round: RoundNo,
        /// How many the hospital has; 1 at a member.
        count: u32,
    },
    /// The hospital has all sums; what of them is checked comes next.
    Summed {
        /// Which round.
        round: RoundNo,
    },
    /// The hospital has the answer.
    Opened(Box<Answer>),
    /// A round ended with a receipt: what a patient keeps.
    Receipt {
        /// Which session.
        session: SessionId,
        /// Which round.
        round: RoundNo,
        /// How many are in the sum.
        count: u32,
        /// Whether this patient is among them; it is not where it never saw the round's Begin.
        included: bool,
        /// The cohort's Merkle root.
        root: Digest,
    },
    /// A round ended without an answer, or a session before its first round.
    Aborted {
        /// Which session.
        session: SessionId,
        /// Which round.
        round: RoundNo,
        /// Why.
        reason: AbortReason,
        /// At the hospital: who declined or refused and what would pass, in words; empty elsewhere.
        advice: String,
    },
    /// A session is over and its keys are wiped.
    Ended(SessionId),
    /// A message was dropped that is neither a fault nor of use: late, repeated or for a party that is out.
    Dropped {
        /// Whom it came from, as the subject says.
        from: Name,
        /// What it was.
        kind: Kind,
        /// Why it is of no use.
        why: &'static str,
    },
}

/// The answer of a round, as the hospital has it.
#[derive(Clone, PartialEq, Eq)]
pub struct Answer {
    /// Which session.
    pub session: SessionId,
    /// Which round.
    pub round: RoundNo,
    /// Over which snapshot.
    pub snapshot: Snapshot,
    /// What was asked: it names each coordinate, see [`Question::fields`].
    pub question: Question,
    /// The sum of each coordinate, in units of 1 / scale.
    pub sum: Vec<i64>,
    /// Units per 1.
    pub scale: crate::decimal::Scale,
    /// |U|.
    pub cohort: u32,
    /// How many joined the session.
    pub invited: u32,
    /// How many Confirms the hospital holds.
    pub confirmations: u32,
    /// The cohort's Merkle root.
    pub cohort_root: Digest,
    /// What was checked of the sums.
    pub checked: Checked,
}

/// What the hospital checked of the sums behind an answer (PROTOCOL.md, *Checks*).
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Checked {
    /// How many chunks the vector has.
    pub chunks: u32,
    /// Of how many of them the hospital added up the masked vectors again.
    pub masked: u32,
    /// Of how many of them t+1 holders of each block vouched for the mask sums; `None` where mask sums are unchecked.
    pub masks: Option<u32>,
    /// Whose sums were wrong, each once: the answer is made without them.
    pub caught: Vec<Name>,
}

impl fmt::Debug for Answer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        // The sum is the hospital's alone: it stays out of logs.
        write!(f, "Answer(session {:?}, round {}, cohort {})", self.session, self.round, self.cohort)
    }
}

//! Another end of a round than the true one: an Abort where there was none, or a Result.

use std::collections::{BTreeMap, BTreeSet};

use serde::Serialize;
use serde_bytes::ByteBuf;

use super::forge::Told;
use super::lie::ResultLie;
use crate::error::AbortReason;
use crate::id::{Digest, Kind, RoundNo, SessionId, To};
use crate::memory::signing_key;
use crate::message::{Abort, Cohort, Open, Receipt};
use crate::wire::{self, Envelope, Frame, Signed};

/// What a Result is made of: what the hospital was sent, and sent itself.
#[derive(Debug, Default)]
pub(super) struct Endings {
    cohorts: BTreeMap<Digest, Signed>,
    /// Of which Cohort each round was opened, and its Confirms.
    opened: BTreeMap<(SessionId, RoundNo), (Digest, Vec<Signed>)>,
    /// The Opens beside which a Result was sent.
    early: BTreeSet<Digest>,
}

impl Endings {
    /// Takes note of Cohorts and Opens.
    pub(super) fn learn(&mut self, frame: &Frame) {
        let envelope = &frame.envelope;
        match envelope.kind {
            Kind::Cohort => drop(self.cohorts.insert(frame.digest, frame.signed())),
            Kind::Open => {
                if let Ok(open) = envelope.body::<Open>() {
                    let of = (envelope.session, envelope.round);
                    self.opened.entry(of).or_insert((envelope.after, open.confirms));
                }
            }
            _ => {}
        }
    }

    /// The Result of what this Open is about to open; once for each Open.
    pub(super) fn early(&mut self, frame: &Frame) -> Option<Told> {
        let told = self.of_opened(frame)?;
        self.early.insert(frame.digest).then_some(told)
    }

    /// The Result of the Cohort that was opened in the round of `frame`.
    fn of_opened(&self, frame: &Frame) -> Option<Told> {
        let (digest, confirms) = self.opened.get(&(frame.envelope.session, frame.envelope.round))?;
        let cohort = self.cohorts.get(digest)?.clone();
        let count = cohort.open().ok()?.envelope.body::<Cohort>().ok()?.places.len();
        let receipt = Receipt { count, cohort, confirms: confirms.clone(), last: false };
        Some(end(frame, Kind::Result, *digest, &receipt))
    }

    /// What stands for an end of a round, of that kind.
    pub(super) fn other(&self, frame: &Frame, kind: Kind, how: ResultLie, quorum: usize) -> Option<Told> {
        if (kind, how) == (Kind::Abort, ResultLie::Aborted) {
            return self.of_opened(frame);
        }
        let mut receipt: Receipt = (kind == Kind::Result).then(|| frame.envelope.body().ok())??;
        match how {
            ResultLie::Early | ResultLie::Aborted => return None,
            ResultLie::TooFew => receipt.confirms.truncate(quorum.saturating_sub(1)),
            ResultLie::Count => receipt.count += 1,
            ResultLie::Last => receipt.last = !receipt.last,
            ResultLie::OtherRound => receipt.cohort = self.of_another_round(frame)?,
        }
        Some(end(frame, Kind::Result, receipt.cohort.digest(), &receipt))
    }

    /// A Cohort of another round of the session.
    fn of_another_round(&self, frame: &Frame) -> Option<Signed> {
        let is_other = |signed: &&Signed| {
            let other = signed.open().map(|other| (other.envelope.session, other.envelope.round));
            other.is_ok_and(|(session, round)| session == frame.envelope.session && round != frame.envelope.round)
        };
        self.cohorts.values().find(is_other).cloned()
    }
}

/// An Abort of the round that this Begin or Result is of.
pub(super) fn abort(frame: &Frame, last: bool) -> Option<Told> {
    let begin = match frame.envelope.kind {
        Kind::Begin => frame.digest,
        _ => frame.envelope.body::<Receipt>().ok()?.cohort.open().ok()?.envelope.after,
    };
    Some(end(frame, Kind::Abort, begin, &Abort { reason: AbortReason::Stopped, last }))
}

/// An end of the round of `frame`, signed by its sender.
fn end<B: Serialize>(frame: &Frame, kind: Kind, after: Digest, body: &B) -> Told {
    let body = ByteBuf::from(wire::encode(body));
    let envelope = Envelope { kind, to: To::All, after, body, ..frame.envelope.clone() };
    (Signed::new(&envelope, &signing_key(&envelope.from)), Vec::new())
}

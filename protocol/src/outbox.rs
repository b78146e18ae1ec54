//! What a party wrote in its open rounds, and its last word, to be written again (design section 6).
//!
//! A broker may lose what it has acknowledged, and a process may die between storing and sending. So what a machine
//! writes is kept here, and in its store, until it is settled: a party that starts again, or finds its broker again,
//! writes it once more under the same name, and the board keeps one of each. What was written in set-up is not kept:
//! it follows from the session's own records.

use std::collections::{BTreeMap, BTreeSet};

use bytes::Bytes;
use serde::{Deserialize, Serialize};
use serde_bytes::ByteBuf;

use crate::id::{Address, Kind, RoundNo, SessionId, SessionTag};
use crate::records::Records;
use crate::step::{Effects, Outgoing};
use crate::wire;

/// What need not be written again.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Settled {
    /// All up to the end of this round; but its Cohort may have reached members and not the hospital, which must ask
    /// that cohort again.
    Round(SessionId, RoundNo),
    /// All up to the end of this round, whose Cohort the hospital has.
    Opened(SessionId, RoundNo),
    /// All of the session.
    Session(SessionId),
}

/// What a party wrote and has not settled.
#[derive(Debug, Default)]
pub(crate) struct Outbox {
    /// By the order of writing.
    kept: BTreeMap<u64, Outgoing>,
    addresses: BTreeSet<Address>,
}

/// A message as it stands in a store.
#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Stored {
    address: Address,
    payload: ByteBuf,
}

impl Outbox {
    /// What the store has; a record that cannot be read is a message that is not written again.
    pub(crate) fn restore(store: &Records) -> Self {
        let mut outbox = Self::default();
        for (key, value) in store {
            let number = key.strip_prefix(PREFIX).and_then(|number| u64::from_str_radix(number, 16).ok());
            if let (Some(number), Ok(Stored { address, payload })) = (number, wire::decode(value, "outbox")) {
                let payload = Bytes::from(payload.into_vec());
                outbox.addresses.insert(address.clone());
                outbox.kept.insert(number, Outgoing { address, payload, report: false });
            }
        }
        outbox
    }

    /// Has everything written again.
    pub(crate) fn again(&self, out: &mut Effects) {
        out.send.extend(self.kept.values().cloned());
    }

    /// Keeps what a machine writes with `out`, then drops what is settled: the last thing that is done to effects.
    pub(crate) fn keep(&mut self, out: &mut Effects) {
        let fresh: Vec<Outgoing> = out.send.iter().filter(|sent| self.takes(&sent.address)).cloned().collect();
        for outgoing in fresh {
            let number = self.kept.last_key_value().map_or(0, |(last, _)| last + 1);
            if !is_bulk(outgoing.address.kind) {
                let payload = ByteBuf::from(outgoing.payload.to_vec());
                out.put(key(number), wire::encode(&Stored { address: outgoing.address.clone(), payload }));
            }
            self.addresses.insert(outgoing.address.clone());
            self.kept.insert(number, Outgoing { report: false, ..outgoing });
        }
        for settled in std::mem::take(&mut out.settled) {
            self.settle(settled, out);
        }
    }

    fn takes(&self, address: &Address) -> bool {
        let in_setup = address.round == RoundNo::SETUP;
        (!in_setup || is_end(address.kind)) && !self.addresses.contains(address)
    }

    fn settle(&mut self, settled: Settled, out: &mut Effects) {
        let open: BTreeSet<SessionTag> =
            self.kept.values().filter(|sent| !is_end(sent.address.kind)).map(tag).collect();
        let over: Vec<u64> =
            self.kept.iter().filter(|(_, sent)| is_over(sent, settled, &open)).map(|(n, _)| *n).collect();
        for number in over {
            if let Some(outgoing) = self.kept.remove(&number) {
                self.addresses.remove(&outgoing.address);
                out.forget(key(number));
            }
        }
    }
}

/// The records of the outbox start with this.
const PREFIX: &str = "outbox/";

fn key(number: u64) -> String {
    format!("{PREFIX}{number:016x}")
}

fn tag(sent: &Outgoing) -> SessionTag {
    sent.address.session
}

/// Whether `sent` need not be written again. A hospital's last word stays, until another session ends.
fn is_over(sent: &Outgoing, settled: Settled, open: &BTreeSet<SessionTag>) -> bool {
    let Address { session, round, kind, .. } = sent.address;
    match settled {
        Settled::Round(of, until) | Settled::Opened(of, until) => {
            let kept = match kind {
                Kind::Result | Kind::Abort => round == until,
                Kind::Cohort => settled == Settled::Round(of, until),
                _ => false,
            };
            session == of.into() && round <= until && !kept
        }
        Settled::Session(of) if session == of.into() => !is_end(kind),
        Settled::Session(_) => is_end(kind) && !open.contains(&session),
    }
}

/// The last word on a round, or on a session.
fn is_end(kind: Kind) -> bool {
    matches!(kind, Kind::Result | Kind::Abort)
}

/// What has a vector in it is kept in memory only: it can be made again from what is stored.
fn is_bulk(kind: Kind) -> bool {
    matches!(kind, Kind::Share | Kind::Chunk | Kind::MaskedSum | Kind::MaskSum)
}

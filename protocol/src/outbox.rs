//! What a party wrote in its open rounds, and its last word, to be written again (PROTOCOL.md, *The board*).
//!
//! A broker may lose what it has acknowledged, and a process may die between storing and sending. So what a machine
//! writes is kept here, and in its store, until it is settled: a party that starts again, or finds its broker again,
//! writes it once more under the same name, and the board keeps one of each. What was written in set-up is not kept:
//! it follows from the session's own records; but Keys are, as what they were made of is wiped long before the last member
//! needs them. Nor are the chunks of a patient's vector: they are masked again.

use std::collections::{BTreeMap, BTreeSet};

use bytes::Bytes;
use serde::{Deserialize, Serialize};
use serde_bytes::ByteBuf;

use crate::id::{Address, Kind, Name, RoundNo, SessionId, SessionTag, To};
use crate::records::{Records, number_of, numbered_key};
use crate::step::{Effects, Outgoing};
use crate::wire;

/// What need not be written again.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Settled {
    /// All up to the end of this round but its last word; but Keys, and but Cohorts, which may have reached members and not
    /// the hospital, which must ask those cohorts again.
    Round(SessionId, RoundNo),
    /// The Cohort of this round, but what goes to this party.
    Cohort(SessionId, RoundNo, Option<Name>),
    /// The Key to this member.
    Key(SessionId, Name),
    /// All of the session but its last word.
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
    /// What the store has; a record that cannot be read is a message that is not written again, and goes to the
    /// `leftovers`.
    pub(crate) fn restore(store: &Records, leftovers: &mut Vec<String>) -> Self {
        let mut outbox = Self::default();
        for (key, value) in store.iter().filter(|(key, _)| key.starts_with(PREFIX)) {
            match (number_of(PREFIX, key), wire::decode(value, "outbox")) {
                (Some(number), Ok(Stored { address, payload })) => {
                    let payload = Bytes::from(payload.into_vec());
                    outbox.addresses.insert(address.clone());
                    outbox.kept.insert(number, Outgoing { address, payload, report: false });
                }
                _ => leftovers.push(key.clone()),
            }
        }
        outbox
    }

    /// Has everything written again.
    pub(crate) fn again(&self, out: &mut Effects) {
        out.send.extend(self.kept.values().cloned());
    }

    /// Keeps what a machine writes with `out`, then drops what is settled: the last thing that is done to effects. The
    /// last words of sessions that are over go when another one ends.
    pub(crate) fn keep(&mut self, out: &mut Effects, is_over: impl Fn(SessionTag) -> bool) {
        let remade = std::mem::take(&mut out.remade);
        let is_kept = |sent: &&Outgoing| self.takes(&sent.address) && !remade.contains(&sent.address);
        let fresh: Vec<Outgoing> = out.send.iter().filter(is_kept).cloned().collect();
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
            self.drop_all(|sent| is_settled(sent, &settled, &is_over), out);
        }
    }

    fn takes(&self, address: &Address) -> bool {
        let is_kept = address.round != RoundNo::SETUP || is_end(address.kind) || address.kind == Kind::Key;
        is_kept && !self.addresses.contains(address)
    }

    /// Forgets what was written in a session that is over, but its last word.
    pub(crate) fn forget(&mut self, session: SessionId, out: &mut Effects) {
        self.drop_all(|sent| sent.address.session == session.into() && !is_end(sent.address.kind), out);
    }

    fn drop_all(&mut self, doomed: impl Fn(&Outgoing) -> bool, out: &mut Effects) {
        let doomed: Vec<u64> = self.kept.iter().filter(|(_, sent)| doomed(sent)).map(|(n, _)| *n).collect();
        for number in doomed {
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
    numbered_key(PREFIX, number)
}

/// Whether `sent` need not be written again.
fn is_settled(sent: &Outgoing, settled: &Settled, is_over: impl Fn(SessionTag) -> bool) -> bool {
    let Address { session, round, kind, to, .. } = &sent.address;
    match settled {
        Settled::Round(of, until) => {
            let kept = if is_end(*kind) { round == until } else { matches!(kind, Kind::Cohort | Kind::Key) };
            *session == (*of).into() && round <= until && !kept
        }
        Settled::Cohort(of, number, but) => {
            let kept = matches!(to, To::One(receiver) if Some(receiver) == but.as_ref());
            *session == (*of).into() && round == number && *kind == Kind::Cohort && !kept
        }
        Settled::Key(of, member) => {
            *session == (*of).into() && *kind == Kind::Key && matches!(to, To::One(receiver) if receiver == member)
        }
        Settled::Session(of) if *session == (*of).into() => !is_end(*kind),
        Settled::Session(_) => is_end(*kind) && is_over(*session),
    }
}

/// The last word on a round, or on a session.
fn is_end(kind: Kind) -> bool {
    matches!(kind, Kind::Result | Kind::Abort)
}

/// What has a vector in it is kept in memory only: it can be made again from what is stored.
fn is_bulk(kind: Kind) -> bool {
    matches!(kind, Kind::Share | Kind::Chunk | Kind::MaskedSum | Kind::MaskSum | Kind::CheckSum)
}

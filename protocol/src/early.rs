//! Messages that came before what they continue: kept, and tried again once something was taken.

use std::collections::{BTreeMap, BTreeSet, VecDeque};

use bytes::Bytes;
use serde::{Deserialize, Serialize};
use serde_bytes::ByteBuf;

use crate::desk::Stop;
use crate::error::Fault;
use crate::id::{Address, Kind, Name, RoundNo, SessionId, SessionTag, Time};
use crate::records::{Records, number_of, numbered_key};
use crate::step::{Effects, Event};
use crate::wire;

/// Messages that came before what they continue, in the store too: the board will not bring them again. Bounded by
/// sender, as its subject says, so that who floods pushes out nothing but what it wrote itself; and over all.
#[derive(Debug, Default)]
pub(crate) struct Early {
    /// By the order in which they came.
    messages: BTreeMap<u64, Waiting>,
    /// The number of the next one: never one that was in use since the start.
    next: u64,
    by_sender: BTreeMap<Name, Load>,
    /// Those of a kind that hospital or server send.
    leading: BTreeSet<u64>,
    bytes: usize,
    /// Those that were taken in a round which is open: they stay in the store, as a party that starts again in that round
    /// needs them once more.
    taken: BTreeMap<u64, (SessionTag, RoundNo)>,
}

/// A message that waits for what it continues.
#[derive(Debug)]
struct Waiting {
    address: Address,
    payload: Bytes,
    until: Time,
}

/// What is kept of one sender.
#[derive(Clone, Debug, Default)]
struct Load {
    messages: BTreeSet<u64>,
    bytes: usize,
}

/// A message as it stands in a store.
#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Stored {
    address: Address,
    payload: ByteBuf,
    until: Time,
}

/// How long a message waits. What it continues was written before it, so on a board that loses nothing it comes within the
/// same delivery; and of a session whose Announce never came nothing tells when it is over.
pub(crate) const PATIENCE_SECONDS: u32 = 86_400;

impl Early {
    const MOST_BYTES: usize = 64 << 20;
    const MOST_BYTES_BY_SENDER: usize = 4 << 20;
    const MOST_MESSAGES_BY_SENDER: usize = 64;

    /// What the store has; a record that cannot be read is a message that never came, and goes to the `leftovers`.
    pub(crate) fn restore(store: &Records, leftovers: &mut Vec<String>) -> Self {
        let mut early = Self::default();
        for (key, value) in store.iter().filter(|(key, _)| key.starts_with(PREFIX)) {
            match (number_of(PREFIX, key), wire::decode(value, "early message")) {
                (Some(number), Ok(Stored { address, payload, until })) => {
                    early.insert(number, Waiting { address, payload: Bytes::from(payload.into_vec()), until });
                }
                _ => leftovers.push(key.clone()),
            }
        }
        early
    }

    /// Keeps a message; the oldest of its sender make room for it, or of who has most where all have too much.
    fn keep(&mut self, address: Address, payload: Bytes, now: Time, out: &mut Effects) {
        while let Some(oldest) = self.in_the_way(&address.from, payload.len()) {
            self.remove(oldest, out);
        }
        let number = self.next;
        let until = now.plus_seconds(PATIENCE_SECONDS);
        let stored = Stored { address: address.clone(), payload: ByteBuf::from(payload.to_vec()), until };
        out.put(key(number), wire::encode(&stored));
        self.insert(number, Waiting { address, payload, until });
    }

    /// The message that goes first, where there is no room for `bytes` more of `sender`.
    fn in_the_way(&self, sender: &Name, bytes: usize) -> Option<u64> {
        let is_full = |load: &&Load| {
            load.messages.len() >= Self::MOST_MESSAGES_BY_SENDER || load.bytes + bytes > Self::MOST_BYTES_BY_SENDER
        };
        let full = self.by_sender.get(sender).filter(is_full);
        // Were nobody to make room, who flooded once under many names would keep out all others for good.
        let most = || self.by_sender.values().max_by_key(|load| load.bytes);
        let load = full.or_else(|| if self.bytes + bytes > Self::MOST_BYTES { most() } else { None })?;
        load.messages.first().copied()
    }

    fn insert(&mut self, number: u64, message: Waiting) {
        let Waiting { address, payload, .. } = &message;
        let load = self.by_sender.entry(address.from.clone()).or_default();
        load.messages.insert(number);
        load.bytes += payload.len();
        self.bytes += payload.len();
        self.next = self.next.max(number + 1);
        if leads(address.kind) {
            self.leading.insert(number);
        }
        self.messages.insert(number, message);
    }

    /// Forgets what has waited long enough. Nobody is woken for it: it is done when there is something else to do.
    pub(crate) fn expire(&mut self, now: Time, out: &mut Effects) {
        while let Some((&number, _)) = self.messages.first_key_value().filter(|(_, message)| message.until <= now) {
            self.remove(number, out);
        }
    }

    /// Notes that a message was taken.
    fn take(&mut self, number: u64, out: &mut Effects) {
        match self.messages.get(&number).map(|message| (message.address.session, message.address.round)) {
            Some((session, round)) if round > RoundNo::SETUP => {
                self.taken.insert(number, (session, round));
                self.drop_from_memory(number);
            }
            _ => self.remove(number, out),
        }
    }

    /// Forgets what was taken up to the end of `round`.
    pub(crate) fn settle(&mut self, session: SessionId, round: RoundNo, out: &mut Effects) {
        self.forget_taken(|(of, number)| *of == session.into() && *number <= round, out);
    }

    fn forget_taken(&mut self, doomed: impl Fn(&(SessionTag, RoundNo)) -> bool, out: &mut Effects) {
        for (number, _) in self.taken.extract_if(.., |_, of| doomed(of)) {
            out.forget(key(number));
        }
    }

    fn remove(&mut self, number: u64, out: &mut Effects) {
        if self.messages.contains_key(&number) {
            out.forget(key(number));
            self.drop_from_memory(number);
        }
    }

    fn drop_from_memory(&mut self, number: u64) {
        let Some(Waiting { address, payload, .. }) = self.messages.remove(&number) else { return };
        self.leading.remove(&number);
        self.bytes -= payload.len();
        if let Some(load) = self.by_sender.get_mut(&address.from) {
            load.bytes -= payload.len();
            load.messages.remove(&number);
            if load.messages.is_empty() {
                self.by_sender.remove(&address.from);
            }
        }
    }

    /// What may have waited for the message at `taken`, to be tried again: its session's, and where `taken` is of a kind
    /// that many send, only its sender's and what hospital and server sent. So what one party floods is not looked at
    /// again for every message of the others.
    fn waiting_for(&self, taken: &Address) -> Vec<(u64, Address, Bytes)> {
        let of_sender = self.by_sender.get(&taken.from).map(|load| &load.messages);
        let numbers: Vec<u64> = match of_sender {
            _ if leads(taken.kind) => self.messages.keys().copied().collect(),
            Some(of_sender) => of_sender.union(&self.leading).copied().collect(),
            None => self.leading.iter().copied().collect(),
        };
        let waiting = numbers.into_iter().filter_map(|number| {
            let Waiting { address, payload, .. } = self.messages.get(&number)?;
            (address.session == taken.session).then(|| (number, address.clone(), payload.clone()))
        });
        waiting.collect()
    }

    /// Forgets what belongs to a session.
    pub(crate) fn forget(&mut self, session: SessionId, out: &mut Effects) {
        let of: Vec<u64> = self
            .messages
            .iter()
            .filter(|(_, message)| message.address.session == session.into())
            .map(|(n, _)| *n)
            .collect();
        of.into_iter().for_each(|number| self.remove(number, out));
        self.forget_taken(|(of, _)| *of == session.into(), out);
    }
}

/// The records of early messages start with this.
const PREFIX: &str = "early/";

fn key(number: u64) -> String {
    numbered_key(PREFIX, number)
}

/// Has `take` take a message, and then what was early and may fit now, again and again while something does.
pub(crate) fn receive(
    first: (Address, Bytes),
    early: &mut Early,
    now: Time,
    out: &mut Effects,
    take: impl FnMut(&Address, &Bytes, &mut Effects) -> Result<(), Stop>,
) {
    try_all(VecDeque::from([(None, first.0, first.1)]), early, now, out, take);
}

/// Has `take` take what was early and may fit, after a restart.
pub(crate) fn retry(
    early: &mut Early,
    now: Time,
    out: &mut Effects,
    take: impl FnMut(&Address, &Bytes, &mut Effects) -> Result<(), Stop>,
) {
    let all = early.messages.iter();
    let all = all.map(|(number, message)| (Some(*number), message.address.clone(), message.payload.clone())).collect();
    try_all(all, early, now, out, take);
}

fn try_all(
    mut next: VecDeque<(Option<u64>, Address, Bytes)>,
    early: &mut Early,
    now: Time,
    out: &mut Effects,
    mut take: impl FnMut(&Address, &Bytes, &mut Effects) -> Result<(), Stop>,
) {
    while let Some((waited, address, payload)) = next.pop_front() {
        if waited.is_some_and(|number| !early.messages.contains_key(&number)) {
            continue;
        }
        let taken = take(&address, &payload, out);
        match (waited, &taken) {
            (Some(_), Err(Stop::Early)) => continue,
            (Some(number), Ok(())) => early.take(number, out),
            (Some(number), _) => early.remove(number, out),
            (None, _) => {}
        }
        match taken {
            Ok(()) => {
                let waiting = early.waiting_for(&address);
                next.extend(waiting.into_iter().map(|(number, address, payload)| (Some(number), address, payload)));
            }
            Err(stop) => settle(stop, (address, payload), early, now, out),
        }
    }
}

/// Whether hospital or server lead a session on by messages of this kind.
fn leads(kind: Kind) -> bool {
    matches!(
        kind,
        Kind::Announce
            | Kind::Roster
            | Kind::List
            | Kind::Place
            | Kind::PayloadKey
            | Kind::Begin
            | Kind::Cohort
            | Kind::Open
            | Kind::Check
    )
}

/// Notes why a message was not taken, or keeps it if it is early.
fn settle(stop: Stop, (address, payload): (Address, Bytes), early: &mut Early, now: Time, out: &mut Effects) {
    let Address { from, kind, .. } = address.clone();
    match stop {
        Stop::Early => early.keep(address, payload, now, out),
        Stop::Fault(wrong) => out.event(Event::Fault(Fault { from, kind, wrong })),
        Stop::Useless(why) => out.event(Event::Dropped { from, kind, why }),
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use crate::id::{Digest, MessageName, To};

    const SESSION: SessionId = Digest([0; 32]);

    fn keep(early: &mut Early, from: &str, bytes: usize) {
        let _ = keep_of(early, RoundNo(1), from, bytes);
    }

    /// Keeps a message of a round; what is stored.
    fn keep_of(early: &mut Early, round: RoundNo, from: &str, bytes: usize) -> Effects {
        let (from, name) = (from.parse().unwrap(), MessageName([0; 16]));
        let address = Address { session: SESSION.into(), round, from, to: To::All, kind: Kind::Share, name };
        let mut out = Effects::default();
        early.keep(address, Bytes::from(vec![0; bytes]), Time(1), &mut out);
        out
    }

    /// How many messages a party has that starts again after these effects.
    fn restored(out: &Effects) -> usize {
        let mut store = Records::new();
        for write in &out.store {
            match &write.value {
                Some(value) => store.insert(write.key.clone(), value.clone()),
                None => store.remove(&write.key),
            };
        }
        Early::restore(&store, &mut vec![]).messages.len()
    }

    /// Who starts again in the middle of a round needs once more what it took of it; what is of the set-up it has.
    #[test]
    fn what_was_taken_stays_in_the_store_to_the_end_of_its_round() {
        for (round, kept) in [(RoundNo::SETUP, 0), (RoundNo(1), 1)] {
            let mut early = Early::default();
            let mut out = keep_of(&mut early, round, "alice", 1_000);
            assert_eq!(restored(&out), 1);
            early.take(0, &mut out);
            assert_eq!((early.messages.len(), restored(&out)), (0, kept), "{round:?}");
            early.settle(SESSION, RoundNo(1), &mut out);
            assert_eq!(restored(&out), 0);
        }
    }

    #[test]
    fn who_floods_under_many_names_makes_room_for_who_does_not() {
        let mut early = Early::default();
        (0..17 * 4).for_each(|i| keep(&mut early, &format!("flood-{}", i / 4), 1 << 20));
        assert_eq!(early.bytes, Early::MOST_BYTES);
        keep(&mut early, "alice", 1_000);
        keep(&mut early, "flood-0", 1 << 20);
        assert!(early.bytes <= Early::MOST_BYTES);
        assert!(early.messages.values().any(|message| message.address.from.as_str() == "alice"));
    }

    #[test]
    fn what_is_never_continued_is_forgotten_after_a_day() {
        let (mut early, mut out) = (Early::default(), Effects::default());
        keep(&mut early, "alice", 1_000);
        let day = Time(1).plus_seconds(PATIENCE_SECONDS);
        early.expire(Time(2), &mut out);
        assert_eq!((early.messages.len(), out.wake), (1, None));
        early.expire(day, &mut out);
        assert_eq!((early.messages.len(), early.bytes, out.store.len()), (0, 0, 1));
    }
}

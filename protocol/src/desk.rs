//! What every machine works with while it handles one input: who it is, the moment, and where effects go.

use std::collections::{BTreeMap, VecDeque};
use std::sync::Arc;

use bytes::Bytes;
use ed25519_dalek::SigningKey;
use serde::Serialize;
use serde_bytes::ByteBuf;

use crate::error::{Fault, Wrong};
use crate::id::{Address, Authority, Chain, Digest, Identity, Kind, Name, Role, RoundNo, SessionId, Time, To};
use crate::job::{Job, JobId};
use crate::kdf;
use crate::step::{Effects, Event, Moment, Outgoing};
use crate::wire::{self, Envelope, Frame, Signed, WireError};

/// A party as itself: its name and role, its signing key and chain, and how it reads other parties' chains.
#[derive(Clone)]
pub struct Me {
    /// Its name.
    pub name: Name,
    /// What its certificate says it may be.
    pub role: Role,
    /// The key of its certificate; wiped on drop.
    pub signing: SigningKey,
    /// Its certificate chain.
    pub chain: Chain,
    /// How it reads other parties' chains.
    pub authority: Arc<dyn Authority>,
}

impl std::fmt::Debug for Me {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Me({}, {})", self.role, self.name)
    }
}

/// Why a message was not taken.
#[derive(Debug)]
pub(crate) enum Stop {
    /// What it continues is not here yet: keep it and try again.
    Early,
    /// No honest party sends this.
    Fault(Wrong),
    /// Late, repeated or for somebody who is out.
    Useless(&'static str),
}

impl From<WireError> for Stop {
    fn from(error: WireError) -> Self {
        Stop::Fault(Wrong::Wire(error))
    }
}

impl From<Wrong> for Stop {
    fn from(wrong: Wrong) -> Self {
        Stop::Fault(wrong)
    }
}

/// A [`Stop::Fault`] for a broken rule.
pub(crate) fn rule(text: &'static str) -> Stop {
    Stop::Fault(Wrong::Rule(text))
}

/// The identity that `chain` proves now.
pub(crate) fn identify(me: &Me, chain: &Chain, now: Time) -> Result<Identity, Stop> {
    me.authority.identify(chain, now).map_err(|why| Stop::Fault(Wrong::Certificate(why)))
}

/// One call of a machine: everything it may use, and where its effects go.
pub(crate) struct Desk<'a, T> {
    pub(crate) me: &'a Me,
    pub(crate) now: Time,
    pub(crate) out: &'a mut Effects,
    pub(crate) jobs: &'a mut Jobs<T>,
    fresh: &'a [u8; 32],
}

impl<'a, T> Desk<'a, T> {
    pub(crate) fn new(me: &'a Me, moment: &'a Moment, jobs: &'a mut Jobs<T>, out: &'a mut Effects) -> Self {
        Self { me, now: moment.now, out, jobs, fresh: &moment.fresh }
    }

    /// Fresh bytes for one purpose; `about` tells apart what one input needs several times.
    pub(crate) fn fresh(&self, purpose: &'static str, about: &[u8]) -> [u8; 32] {
        kdf::derive(purpose, self.fresh, &[about])
    }

    /// Starts a job whose outcome comes back with `ticket`.
    pub(crate) fn run(&mut self, ticket: T, job: Job) {
        let id = self.jobs.open(ticket);
        self.out.jobs.push((id, job));
    }
}

/// The jobs that are under way, and what each is for.
#[derive(Debug)]
pub(crate) struct Jobs<T> {
    next: u64,
    tickets: BTreeMap<JobId, T>,
}

impl<T> Default for Jobs<T> {
    fn default() -> Self {
        Self { next: 0, tickets: BTreeMap::new() }
    }
}

impl<T> Jobs<T> {
    fn open(&mut self, ticket: T) -> JobId {
        let id = JobId(self.next);
        self.next += 1;
        self.tickets.insert(id, ticket);
        id
    }

    /// What the job was for; `None` for one that was not started here.
    pub(crate) fn close(&mut self, id: JobId) -> Option<T> {
        self.tickets.remove(&id)
    }
}

/// A thread of messages that one party writes in one round (or in set-up): it fills in what they have in common.
pub(crate) struct Pen<'a> {
    pub(crate) me: &'a Me,
    pub(crate) session: SessionId,
    pub(crate) round: RoundNo,
    /// The round's root, in set-up the session randomness: names are derived from it.
    pub(crate) secret: &'a [u8; 32],
}

impl Pen<'_> {
    /// Signs `body` for `to`, continuing the message `after`.
    pub(crate) fn sign<B: Serialize>(&self, kind: Kind, to: To, after: Digest, body: &B) -> Signed {
        let session = if kind == Kind::Announce { Digest::default() } else { self.session };
        let envelope = Envelope {
            version: wire::VERSION,
            session,
            round: self.round,
            from: self.me.name.clone(),
            to,
            kind,
            after,
            body: ByteBuf::from(wire::encode(body)),
        };
        Signed::new(&envelope, &self.me.signing)
    }

    /// The message `signed`, written for `to` with `attachment`.
    pub(crate) fn post(&self, kind: Kind, signed: &Signed, to: To, attachment: &[u8]) -> Outgoing {
        let name = wire::message_name(self.secret, signed.digest(), wire::attachment_digest(attachment), &to);
        Outgoing { address: self.address(kind, to, name), payload: signed.frame(attachment), report: false }
    }

    /// Signs and posts a message to one receiver, or to all.
    pub(crate) fn write<B: Serialize>(&self, kind: Kind, to: To, after: Digest, body: &B) -> Outgoing {
        let signed = self.sign(kind, to.clone(), after, body);
        self.post(kind, &signed, to, &[])
    }

    /// A chunk: the bytes and nothing else.
    pub(crate) fn chunk(&self, to: To, digest: Digest, bytes: Bytes) -> Outgoing {
        let name = wire::message_name(self.secret, digest, Digest::default(), &to);
        Outgoing { address: self.address(Kind::Chunk, to, name), payload: bytes, report: false }
    }

    fn address(&self, kind: Kind, to: To, name: crate::id::MessageName) -> Address {
        Address { session: self.session.into(), round: self.round, from: self.me.name.clone(), to, kind, name }
    }
}

/// Decodes a message and checks that its subject says what its signed part says.
pub(crate) fn open(me: &Me, address: &Address, payload: &Bytes) -> Result<Frame, Stop> {
    let frame = Frame::decode(payload)?;
    let envelope = &frame.envelope;
    let session = if envelope.kind == Kind::Announce { frame.digest } else { envelope.session };
    let honest = address.session == session.into()
        && address.round == envelope.round
        && address.kind == envelope.kind
        && address.from == envelope.from
        && address.to.includes(&me.name)
        && envelope.to.includes(&me.name);
    if honest { Ok(frame) } else { Err(Stop::Fault(Wrong::Readdressed)) }
}

/// Messages that came before what they continue. Bounded by sender, as its subject says, so that who floods pushes out
/// nothing but what it wrote itself; and over all.
#[derive(Debug, Default)]
pub(crate) struct Early {
    messages: VecDeque<(Address, Bytes)>,
    by_sender: BTreeMap<Name, Load>,
    bytes: usize,
}

/// What is kept of one sender.
#[derive(Clone, Copy, Debug, Default)]
struct Load {
    messages: usize,
    bytes: usize,
}

impl Early {
    const MOST_BYTES: usize = 64 << 20;
    const MOST_BYTES_BY_SENDER: usize = 4 << 20;
    const MOST_MESSAGES_BY_SENDER: usize = 64;

    pub(crate) fn keep(&mut self, address: Address, payload: Bytes) {
        let load = self.by_sender.entry(address.from.clone()).or_default();
        let room = load.messages < Self::MOST_MESSAGES_BY_SENDER
            && load.bytes + payload.len() <= Self::MOST_BYTES_BY_SENDER
            && self.bytes + payload.len() <= Self::MOST_BYTES;
        if room {
            load.messages += 1;
            load.bytes += payload.len();
            self.bytes += payload.len();
            self.messages.push_back((address, payload));
        }
    }

    /// Takes out what may have waited for the message at `taken`, to be tried again: its session's, and where `taken` is
    /// of a kind that many send, only its sender's and what hospital and server sent. So what one party floods is not
    /// looked at again for every message of the others.
    pub(crate) fn waiting_for(&mut self, taken: &Address) -> Vec<(Address, Bytes)> {
        self.split(|address| {
            let related = leads(taken.kind) || leads(address.kind) || address.from == taken.from;
            address.session == taken.session && related
        })
    }

    /// Forgets what belongs to a session.
    pub(crate) fn forget(&mut self, session: SessionId) {
        self.split(|address| address.session == session.into());
    }

    /// Takes out the messages whose address is `wanted` and keeps the others.
    fn split(&mut self, wanted: impl Fn(&Address) -> bool) -> Vec<(Address, Bytes)> {
        if self.messages.is_empty() {
            return Vec::new();
        }
        let Self { messages, .. } = std::mem::take(self);
        let (out, kept): (Vec<_>, Vec<_>) = messages.into_iter().partition(|(address, _)| wanted(address));
        kept.into_iter().for_each(|(address, payload)| self.keep(address, payload));
        out
    }
}

/// Has `take` take a message, and then what was early and may fit now, again and again while something does.
pub(crate) fn receive(
    first: (Address, Bytes),
    early: &mut Early,
    out: &mut Effects,
    mut take: impl FnMut(&Address, &Bytes, &mut Effects) -> Result<(), Stop>,
) {
    let mut next = VecDeque::from([first]);
    while let Some((address, payload)) = next.pop_front() {
        match take(&address, &payload, out) {
            Ok(()) => next.extend(early.waiting_for(&address)),
            Err(stop) => settle(stop, address, payload, early, out),
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
    )
}

/// Notes why a message was not taken, or keeps it if it is early.
fn settle(stop: Stop, address: Address, payload: Bytes, early: &mut Early, out: &mut Effects) {
    let Address { from, kind, .. } = address.clone();
    match stop {
        Stop::Early => early.keep(address, payload),
        Stop::Fault(wrong) => out.event(Event::Fault(Fault { from, kind, wrong })),
        Stop::Useless(why) => out.event(Event::Dropped { from, kind, why }),
    }
}

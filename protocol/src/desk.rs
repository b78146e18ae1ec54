//! What every machine works with while it handles one input: who it is, the moment, and where effects go.

use std::collections::BTreeMap;
use std::sync::Arc;

use bytes::Bytes;
use serde::Serialize;
use serde_bytes::ByteBuf;

use crate::error::Wrong;
use crate::id::{Address, Authority, Chain, Dates, Digest, Identity, Kind, Name, Role, RoundNo, SessionId, Time, To};
use crate::job::{Job, JobId};
use crate::kdf;
use crate::signing::SigningKey;
use crate::step::{Effects, Moment, Outgoing};
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

/// The identity that `chain` proves.
pub(crate) fn identify(me: &Me, chain: &Chain, dates: Dates) -> Result<Identity, Stop> {
    me.authority.identify(chain, dates).map_err(|why| Stop::Fault(Wrong::Certificate(why)))
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

    /// Fresh bytes for one purpose; `about` tells apart what one input needs several times. Of two machines of which one was
    /// copied from the other, with its random generator, each has its own.
    pub(crate) fn fresh(&self, purpose: &'static str, about: &[u8]) -> [u8; 32] {
        kdf::derive(purpose, self.fresh, &[self.me.name.as_str().as_bytes(), about])
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

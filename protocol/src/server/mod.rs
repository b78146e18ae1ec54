//! The server: collects Joins, makes the Roster, adds masked vectors as they arrive and fixes the cohort.
//!
//! It holds masked vectors only, which are uniformly random without the seeds, and of those no more than their sum.

mod cohort;
mod fold;
mod following;
mod gather;
mod joining;
mod lead;
mod round;
mod votes;

use std::collections::BTreeMap;

use bytes::Bytes;

use crate::desk::{self, Desk, Jobs, Me, Stop};
use crate::id::{Address, Dates, Kind, RoundNo, SessionId, Time};
use crate::job::{JobId, Outcome};
use crate::machine::{self, Machine};
use crate::mail::Mail;
use crate::records::Records;
use crate::session::Rules;
use crate::step::{Effects, Input, Moment};
use joining::Session;

/// What a job of the server's was for.
#[derive(Debug)]
pub(crate) struct Ticket {
    session: SessionId,
    round: RoundNo,
    work: Work,
}

#[derive(Debug)]
enum Work {
    /// Which chunk is this, and under which address did it come?
    Identify(Address),
    /// Folding into this chunk of the sum.
    Fold,
}

type ServerDesk<'a> = Desk<'a, Ticket>;

/// A server in all its sessions.
///
/// Constructors: [`Server::new`], [`Server::restore`]. Then [`Server::handle`] for each input.
#[derive(Debug)]
pub struct Server {
    me: Me,
    sessions: BTreeMap<SessionId, Session>,
    mail: Mail,
    jobs: Jobs<Ticket>,
}

impl Server {
    /// A server without sessions.
    pub fn new(me: Me) -> Self {
        Self { me, sessions: BTreeMap::new(), mail: Mail::default(), jobs: Jobs::default() }
    }

    /// The server as its store has it. A session that can no longer be read is over; a round that was open when
    /// the store was written goes on: its vectors are added again, as the board brings them.
    pub fn restore(me: Me, store: &Records, now: Time) -> Self {
        let sessions: BTreeMap<_, _> = Session::restore_all(&me, store, now).into_iter().collect();
        let mail = Mail::restore(store, |id| sessions.contains_key(&id));
        Self { me, sessions, mail, jobs: Jobs::default() }
    }

    /// Takes one input; what follows from it is in the effects.
    pub fn handle(&mut self, moment: &Moment, input: Input) -> Effects {
        self.react(moment, input)
    }

    /// Whether a round is open. What came since it began is not acknowledged to the board until it is over: a server
    /// that starts again needs it once more.
    pub fn is_in_round(&self) -> bool {
        self.sessions.values().any(Session::is_in_round)
    }

    fn announced(&mut self, frame: &crate::wire::Frame, moment: &Moment, out: &mut Effects) -> Result<(), Stop> {
        let mut desk = Desk::new(&self.me, moment, &mut self.jobs, out);
        if self.sessions.contains_key(&frame.digest) {
            return Err(Stop::Useless("the session is known"));
        }
        let rules = Rules::read(frame, desk.me, Dates::At(desk.now))?;
        if rules.is_over(desk.now) {
            return Err(Stop::Useless("the session is over"));
        }
        if !rules.announce.servers.contains(&desk.me.name) {
            return Err(Stop::Useless("a session of another server"));
        }
        let session = Session::open(rules, frame, &mut desk);
        self.sessions.insert(frame.digest, session);
        Ok(())
    }
}

impl Machine for Server {
    fn mail(&mut self) -> &mut Mail {
        &mut self.mail
    }

    fn again(&mut self, moment: &Moment, out: &mut Effects) {
        let mut desk = Desk::new(&self.me, moment, &mut self.jobs, out);
        self.sessions.values().for_each(|session| session.again(&mut desk));
        self.mail.again(out);
    }

    fn take(&mut self, moment: &Moment, address: &Address, payload: &Bytes, out: &mut Effects) -> Result<(), Stop> {
        let mut desk = Desk::new(&self.me, moment, &mut self.jobs, out);
        if address.kind == Kind::Chunk {
            let is_over = || self.mail.is_tag_over(address.session);
            return take_chunk(&mut self.sessions, is_over, address, payload, &mut desk);
        }
        let frame = desk::open(desk.me, address, payload)?;
        let id = if frame.envelope.kind == Kind::Announce { frame.digest } else { frame.envelope.session };
        if self.mail.is_over(id) {
            return Err(Stop::Useless("the session is over"));
        }
        if frame.envelope.kind == Kind::Announce {
            return self.announced(&frame, moment, out);
        }
        let session = self.sessions.get_mut(&id).ok_or(Stop::Early)?;
        session.take(&frame, address, &mut desk)
    }

    fn read(&mut self, moment: &Moment, address: &Address, payload: Option<Bytes>, out: &mut Effects) {
        let mut desk = Desk::new(&self.me, moment, &mut self.jobs, out);
        for session in self.sessions.values_mut().filter(|session| address.session == session.id().into()) {
            session.read(address, payload.clone(), &mut desk);
        }
    }

    fn done(&mut self, moment: &Moment, job: JobId, outcome: Outcome, out: &mut Effects) {
        let mut desk = Desk::new(&self.me, moment, &mut self.jobs, out);
        if let Some(ticket) = desk.jobs.close(job)
            && let Some(session) = self.sessions.get_mut(&ticket.session)
        {
            session.done(ticket, outcome, &mut desk);
        }
    }

    fn keep_time(&mut self, moment: &Moment, out: &mut Effects) {
        let mut desk = Desk::new(&self.me, moment, &mut self.jobs, out);
        machine::keep_time(&mut self.sessions, &mut self.mail, &mut desk);
    }
}

/// A chunk names its session by a short form only: it belongs to the session that has a Share which names it.
fn take_chunk(
    sessions: &mut BTreeMap<SessionId, Session>,
    is_over: impl Fn() -> bool,
    address: &Address,
    payload: &Bytes,
    desk: &mut ServerDesk<'_>,
) -> Result<(), Stop> {
    let mut named = sessions.values_mut().filter(|session| address.session == session.id().into());
    match named.next() {
        Some(session) => session.take_chunk(address, payload, desk),
        None if is_over() => Err(Stop::Useless("the session is over")),
        None => Err(Stop::Early),
    }
}

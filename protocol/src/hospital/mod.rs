//! The hospital: opens sessions, asks questions and reconstructs the answers.

mod advice;
mod checks;
mod chunk_names;
mod ending;
mod jobs;
mod listed;
mod loose;
mod open;
mod recount;
mod round;
mod session;
mod sums;
mod verdict;
mod vouch;

use std::collections::BTreeMap;

use bytes::Bytes;

use crate::desk::{self, Desk, Jobs, Me, Stop};
use crate::error::PlanError;
use crate::id::{Address, Digest, Kind, Name, RoundNo, SessionId, Time};
use crate::job::{JobId, Outcome};
use crate::machine::{self, Machine};
use crate::mail::Mail;
use crate::plan::{Ask, Plan};
use crate::records::Records;
use crate::step::{Effects, Input, Moment};
use round::Last;
use session::Session;

/// What a job of the hospital's was for.
#[derive(Debug)]
pub(crate) struct Ticket {
    session: SessionId,
    round: RoundNo,
    work: Work,
}

#[derive(Debug)]
enum Work {
    /// Which piece of a sum is this that came from there?
    Identify { from: Name },
    /// Which chunk is this that was read from the board, of whom in the cohort?
    Read { at: usize, chunk: u32 },
    /// Adding up a chunk again.
    Again { chunk: u32 },
    /// Opening the answer to this Check.
    Unseal { check: Digest },
    /// Opening mask sums and adding them up.
    Reconstruct,
}

type HospitalDesk<'a> = Desk<'a, Ticket>;

/// A session as its owner sees it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SessionInfo {
    /// Its name.
    pub session: SessionId,
    /// When it was announced, and later than every session before it.
    pub announced: Time,
    /// Its rules in words.
    pub rules: String,
    /// c.
    pub committee: u8,
    /// t.
    pub threshold: u8,
    /// q.
    pub quorum: u8,
    /// k.
    pub min_cohort: u32,
    /// How many patients were expected.
    pub expect: u32,
}

/// A hospital in all its sessions.
///
/// Constructors: [`Hospital::new`], [`Hospital::restore`]. Then [`Hospital::announce`], [`Hospital::ask`] and
/// [`Hospital::stop`] for what its owner wants, and [`Hospital::handle`] for each input.
#[derive(Debug)]
pub struct Hospital {
    me: Me,
    sessions: BTreeMap<SessionId, Session>,
    mail: Mail,
    jobs: Jobs<Ticket>,
}

impl Hospital {
    /// A hospital without sessions.
    pub fn new(me: Me) -> Self {
        Self { me, sessions: BTreeMap::new(), mail: Mail::default(), jobs: Jobs::default() }
    }

    /// The hospital as its store has it. A session that can no longer be read is over; a round that was open when
    /// the store was written goes on with what the board brings again.
    pub fn restore(me: Me, store: &Records) -> Self {
        let sessions: BTreeMap<_, _> = Session::restore_all(&me, store).into_iter().collect();
        let mail = Mail::restore(store, |id| sessions.contains_key(&id));
        Self { me, sessions, mail, jobs: Jobs::default() }
    }

    /// What is known of one session, while it is not over.
    pub fn info(&self, session: SessionId) -> Option<SessionInfo> {
        self.sessions.get(&session).map(Session::info)
    }

    /// The sessions in which nobody can ask yet: it is not known who joined.
    pub fn unready(&self) -> Vec<SessionId> {
        self.sessions.values().filter(|session| !session.is_open()).map(Session::id).collect()
    }

    /// The sessions in which can be asked, oldest first.
    pub fn sessions(&self) -> Vec<SessionInfo> {
        let mut sessions: Vec<_> = self.sessions.values().filter(|s| s.is_open()).map(Session::info).collect();
        sessions.sort_by_key(|info| (info.announced, info.session));
        sessions
    }

    /// Opens a session under `plan`.
    pub fn announce(&mut self, moment: &Moment, plan: &Plan) -> (SessionId, Effects) {
        let mut out = Effects::default();
        // A clock that went back since the last session makes no session older than that.
        let newest = self.sessions.values().map(|session| session.info().announced).max();
        let announced = newest.map_or(moment.now, |newest| moment.now.max(newest.plus_millis(1)));
        let mut desk = Desk::new(&self.me, moment, &mut self.jobs, &mut out);
        let session = Session::announce(plan, announced, &mut desk);
        let id = session.id();
        self.sessions.insert(id, session);
        self.mail.keep(&mut out);
        (id, out)
    }

    /// Puts a question in an open session; it begins as soon as the Roster and the list of who joined are here.
    ///
    /// # Errors
    /// [`PlanError`] where there is no such session, a round is running in it, or the question does not fit it.
    pub fn ask(&mut self, moment: &Moment, session: SessionId, ask: Ask) -> Result<Effects, PlanError> {
        let last = if ask.last { Last::Yes } else { Last::No };
        self.put(moment, session, ask, last)
    }

    /// As [`Hospital::ask`], but only an answer ends the session where `ask` says that it is its last question: a round
    /// that ends without one can be asked again.
    ///
    /// # Errors
    /// As [`Hospital::ask`].
    pub fn ask_until_answered(&mut self, moment: &Moment, session: SessionId, ask: Ask) -> Result<Effects, PlanError> {
        let last = if ask.last { Last::Answered } else { Last::No };
        self.put(moment, session, ask, last)
    }

    /// The sessions in which `ask` is open, asked before this hospital was stopped; and whether each was never asked over another
    /// snapshot.
    pub fn asking(&self, ask: &Ask) -> Vec<(SessionId, bool)> {
        self.sessions.iter().filter_map(|(id, session)| Some((*id, session.asking(ask)?))).collect()
    }

    fn put(&mut self, moment: &Moment, session: SessionId, ask: Ask, last: Last) -> Result<Effects, PlanError> {
        let mut out = Effects::default();
        let mut desk = Desk::new(&self.me, moment, &mut self.jobs, &mut out);
        let open = self.sessions.get_mut(&session).ok_or_else(|| PlanError::NoSession(session.short()))?;
        open.ask(ask, last, &mut desk)?;
        self.keep_time(moment, &mut out);
        self.mail.keep(&mut out);
        Ok(out)
    }

    /// Aborts what runs in `session`; with `last` ends it.
    pub fn stop(&mut self, moment: &Moment, session: SessionId, last: bool) -> Effects {
        let mut out = Effects::default();
        let mut desk = Desk::new(&self.me, moment, &mut self.jobs, &mut out);
        if let Some(open) = self.sessions.get_mut(&session) {
            open.stop(last, &mut desk);
        }
        self.keep_time(moment, &mut out);
        self.mail.keep(&mut out);
        out
    }

    /// Takes one input; what follows from it is in the effects.
    pub fn handle(&mut self, moment: &Moment, input: Input) -> Effects {
        self.react(moment, input)
    }

    /// Whether a round is open. What came since it began is not acknowledged to the board until it is over: a hospital
    /// that starts again needs it once more.
    pub fn is_in_round(&self) -> bool {
        self.sessions.values().any(Session::is_in_round)
    }
}

impl Machine for Hospital {
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
            let mut named = self.sessions.values_mut().filter(|session| address.session == session.id().into());
            return named.next().ok_or(Stop::Useless("a chunk of no session"))?.take_chunk(address, payload, &mut desk);
        }
        let frame = desk::open(desk.me, address, payload)?;
        if matches!(frame.envelope.kind, Kind::Announce | Kind::Begin | Kind::Result | Kind::Abort) {
            // What this hospital wrote to all comes back to it; what another one wrote is not for it.
            return Err(Stop::Useless("a hospital's own message"));
        }
        if self.mail.is_over(frame.envelope.session) {
            return Err(Stop::Useless("the session is over"));
        }
        let session =
            self.sessions.get_mut(&frame.envelope.session).ok_or(Stop::Useless("no session of this hospital"))?;
        session.take(&frame, &mut desk)
    }

    fn read(&mut self, moment: &Moment, address: &Address, payload: Option<Bytes>, out: &mut Effects) {
        let mut desk = Desk::new(&self.me, moment, &mut self.jobs, out);
        let mut sessions = self.sessions.values_mut();
        if let Some(session) = sessions.find(|session| address.session == session.id().into()) {
            session.read(address, payload, &mut desk);
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

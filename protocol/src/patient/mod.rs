//! The patient: offers snapshots of its data, joins the sessions that its policy allows and answers their questions.
//!
//! A marked patient that is drawn onto a committee also runs a [`crate::member::Member`] for that session.

mod losses;
mod round;
mod session;
mod vault;

use std::collections::BTreeMap;

use bytes::Bytes;

use crate::desk::{self, Desk, Jobs, Me, Stop};
use crate::id::{Address, Dates, Kind, SessionId, Snapshot};
use crate::job::{JobId, Outcome};
use crate::machine::{self, Machine};
use crate::mail::Mail;
use crate::member;
use crate::records::Records;
use crate::session::Rules;
use crate::step::{Effects, Input, Moment};
use crate::task::{Policy, Record, Schema};
use losses::Losses;
pub(crate) use round::payload_commitment;
use session::Session;
pub(crate) use session::payload_info;
use vault::Vault;
pub use vault::{OfferError, StoreError};

/// What a job of a patient's was for.
#[derive(Debug)]
pub(crate) enum Ticket {
    /// Masking the vector of a round.
    Mask(SessionId, crate::id::RoundNo),
    /// Work of the member in this session.
    Member(SessionId, member::Ticket),
}

/// A patient in all its sessions.
///
/// Constructors: [`Patient::new`], [`Patient::restore`]. Then: [`Patient::offer`] for each snapshot and
/// [`Patient::handle`] for each input, in any order.
#[derive(Debug)]
pub struct Patient {
    me: Me,
    policy: Policy,
    vault: Vault,
    sessions: BTreeMap<SessionId, Session>,
    mail: Mail,
    jobs: Jobs<Ticket>,
    losses: Losses,
}

impl Patient {
    /// A patient without sessions or data.
    pub fn new(me: Me, policy: Policy, schema: Schema) -> Self {
        let (vault, sessions, losses) = (Vault::new(schema), BTreeMap::new(), Losses::default());
        Self { me, policy, vault, sessions, mail: Mail::default(), jobs: Jobs::default(), losses }
    }

    /// The patient as its store has it. A session that can no longer be read is over for this patient, and its keys
    /// go. A round that was open when the store was written goes on with the next input.
    ///
    /// # Errors
    /// [`StoreError`] where a record of what was shared cannot be read.
    pub fn restore(me: Me, policy: Policy, schema: Schema, store: &Records) -> Result<Self, StoreError> {
        let mut patient = Self::new(me, policy, schema);
        patient.vault.restore(store)?;
        for (session, restored) in Session::restore_all(&patient.me, patient.policy.min_cohort, store) {
            patient.sessions.insert(session, restored);
        }
        patient.mail = Mail::restore(store, |id| patient.sessions.contains_key(&id));
        Ok(patient)
    }

    /// Takes `record` as the data under `snapshot`. Until it is first shared it may be offered again with other values.
    ///
    /// # Errors
    /// [`OfferError::Frozen`] where it was shared with other values.
    pub fn offer(&mut self, snapshot: Snapshot, record: Record, moment: &Moment) -> Result<Effects, OfferError> {
        let is_over = |session| self.mail.is_over(session);
        self.vault.offer(snapshot, record, is_over, moment)
    }

    /// Forgets the values under `snapshot`, for an owner who will not be asked for them again. Where they went is kept:
    /// under this label they can only come back as they were.
    pub fn withdraw(&mut self, snapshot: &Snapshot) -> Effects {
        self.vault.withdraw(snapshot)
    }

    /// The snapshots that this patient was given.
    pub fn snapshots(&self) -> impl Iterator<Item = &Snapshot> {
        self.vault.labels()
    }

    /// Takes one input; what follows from it is in the effects.
    pub fn handle(&mut self, moment: &Moment, input: Input) -> Effects {
        self.react(moment, input)
    }

    /// Whether a round is open. What came since it began is not acknowledged to the board until it is over: a patient
    /// that starts again needs it once more.
    pub fn is_in_round(&self) -> bool {
        self.sessions.values().any(Session::is_in_round)
    }
}

impl Machine for Patient {
    fn mail(&mut self) -> &mut Mail {
        &mut self.mail
    }

    fn again(&mut self, moment: &Moment, out: &mut Effects) {
        let mut desk = Desk::new(&self.me, moment, &mut self.jobs, out);
        self.sessions.values_mut().for_each(|session| session.again(&mut desk));
        self.mail.over().for_each(|id| self.vault.release(id, desk.out));
        self.mail.again(out);
    }

    fn resume(&mut self, moment: &Moment, out: &mut Effects) {
        let mut desk = Desk::new(&self.me, moment, &mut self.jobs, out);
        self.sessions.values_mut().for_each(|session| session.resume(&self.vault, &mut desk));
    }

    fn take(&mut self, moment: &Moment, address: &Address, payload: &Bytes, out: &mut Effects) -> Result<(), Stop> {
        if address.kind == Kind::Chunk {
            return Err(Stop::Useless("a patient takes no chunks"));
        }
        let frame = desk::open(&self.me, address, payload)?;
        let mut desk = Desk::new(&self.me, moment, &mut self.jobs, out);
        if frame.envelope.kind == Kind::Announce {
            if self.sessions.contains_key(&frame.digest) || self.mail.is_over(frame.digest) {
                return Err(Stop::Useless("the session is known"));
            }
            let rules = Rules::read(&frame, desk.me, Dates::At(desk.now))?;
            if rules.is_over(desk.now) {
                self.mail.ignore(frame.digest, desk.out);
                return Err(Stop::Useless("the session is over"));
            }
            match Session::join(rules, &frame, &self.policy, &mut desk) {
                Some(session) => drop(self.sessions.insert(frame.digest, session)),
                None => self.mail.ignore(frame.digest, desk.out),
            }
            return Ok(());
        }
        if self.mail.is_over(frame.envelope.session) {
            return Err(Stop::Useless("the session is over"));
        }
        let id = frame.envelope.session;
        let Some(session) = self.sessions.get_mut(&id) else {
            if losses::is_for_members(address) {
                self.losses.tell(id, desk.out);
            }
            return Err(Stop::Early);
        };
        let taken = session.take(&frame, &self.policy, &mut self.vault, &mut desk);
        if session.has_lost_its_seat(&self.me) {
            self.losses.tell(id, desk.out);
        }
        taken
    }

    fn sent(&mut self, moment: &Moment, address: &Address, out: &mut Effects) {
        let mut desk = Desk::new(&self.me, moment, &mut self.jobs, out);
        for session in self.sessions.values_mut() {
            session.sent(address, &mut desk);
        }
    }

    fn done(&mut self, moment: &Moment, job: JobId, outcome: Outcome, out: &mut Effects) {
        let mut desk = Desk::new(&self.me, moment, &mut self.jobs, out);
        let Some(ticket) = desk.jobs.close(job) else { return };
        let (Ticket::Mask(id, _) | Ticket::Member(id, _)) = ticket;
        if let Some(session) = self.sessions.get_mut(&id) {
            session.done(ticket, outcome, &mut desk);
        }
    }

    fn keep_time(&mut self, moment: &Moment, out: &mut Effects) {
        let mut desk = Desk::new(&self.me, moment, &mut self.jobs, out);
        for id in machine::keep_time(&mut self.sessions, &mut self.mail, &mut desk) {
            self.vault.release(id, desk.out);
        }
    }
}

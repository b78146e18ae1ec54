//! What patient, server and hospital do alike: they take inputs in whatever order these come, and end what is over.

use std::collections::BTreeMap;

use bytes::Bytes;

use crate::desk::{Desk, Stop};
use crate::early;
use crate::id::{Address, SessionId, Time};
use crate::job::{JobId, Outcome};
use crate::mail::Mail;
use crate::step::{Effects, Input, Moment};

/// A party in all its sessions.
pub(crate) trait Machine {
    /// What it keeps beside its sessions.
    fn mail(&mut self) -> &mut Mail;

    /// Writes again what the board may have lost, or never had.
    fn again(&mut self, moment: &Moment, out: &mut Effects);

    /// Goes on with what was open when it was stopped.
    fn resume(&mut self, _moment: &Moment, _out: &mut Effects) {}

    /// Takes one message.
    fn take(&mut self, moment: &Moment, address: &Address, payload: &Bytes, out: &mut Effects) -> Result<(), Stop>;

    /// The board answered a read.
    fn read(&mut self, _moment: &Moment, _address: &Address, _payload: Option<Bytes>, _out: &mut Effects) {}

    /// The board has what was written there.
    fn sent(&mut self, _moment: &Moment, _address: &Address, _out: &mut Effects) {}

    /// A job is done.
    fn done(&mut self, moment: &Moment, job: JobId, outcome: Outcome, out: &mut Effects);

    /// Does what is due, ends what is over and asks to be woken for what is next.
    fn keep_time(&mut self, moment: &Moment, out: &mut Effects);

    /// Takes one input; what follows from it is in the effects.
    fn react(&mut self, moment: &Moment, input: Input) -> Effects {
        let mut out = Effects::default();
        if self.mail().is_resumed() {
            self.again(moment, &mut out);
            self.resume(moment, &mut out);
            self.retry(moment, &mut out);
        }
        match input {
            Input::Message { address, payload } => self.receive(moment, address, payload, &mut out),
            Input::Reconnected => self.again(moment, &mut out),
            Input::Read { address, payload } => self.read(moment, &address, payload, &mut out),
            Input::Done(job, outcome) => self.done(moment, job, outcome, &mut out),
            Input::Sent(address) => self.sent(moment, &address, &mut out),
            Input::Tick => {}
        }
        self.keep_time(moment, &mut out);
        self.mail().early.expire(moment.now, &mut out);
        self.mail().keep(&mut out);
        out
    }

    /// Takes a message, and what was early and fits now.
    fn receive(&mut self, moment: &Moment, address: Address, payload: Bytes, out: &mut Effects) {
        let mut early = std::mem::take(&mut self.mail().early);
        let take = |address: &Address, payload: &Bytes, out: &mut Effects| self.take(moment, address, payload, out);
        early::receive((address, payload), &mut early, moment.now, out, take);
        self.mail().early = early;
    }

    /// Tries again what was early when this party was stopped.
    fn retry(&mut self, moment: &Moment, out: &mut Effects) {
        let mut early = std::mem::take(&mut self.mail().early);
        let take = |address: &Address, payload: &Bytes, out: &mut Effects| self.take(moment, address, payload, out);
        early::retry(&mut early, moment.now, out, take);
        self.mail().early = early;
    }
}

/// One session of a party.
pub(crate) trait Session<T> {
    /// Does what is due and asks to be woken for what is next.
    fn keep_time(&mut self, desk: &mut Desk<'_, T>);

    /// Whether it is over.
    fn is_over(&self, now: Time) -> bool;

    /// Forgets what the store has of it.
    fn wipe(&mut self, desk: &mut Desk<'_, T>);
}

/// Does what is due in every session, and ends what is over; which sessions these are.
pub(crate) fn keep_time<T, S: Session<T>>(
    sessions: &mut BTreeMap<SessionId, S>,
    mail: &mut Mail,
    desk: &mut Desk<'_, T>,
) -> Vec<SessionId> {
    sessions.values_mut().for_each(|session| session.keep_time(desk));
    let over: Vec<(SessionId, S)> = sessions.extract_if(.., |_, session| session.is_over(desk.now)).collect();
    let end = |(id, mut session): (SessionId, S)| {
        session.wipe(desk);
        mail.end(id, desk.out);
        id
    };
    over.into_iter().map(end).collect()
}

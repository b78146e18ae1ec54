//! What every machine keeps beside its sessions: messages that came early, messages to be written again, and which
//! sessions are over.

use std::collections::BTreeSet;

use crate::early::Early;
use crate::id::{SessionId, SessionTag};
use crate::outbox::{Outbox, Settled};
use crate::records::{Records, leftovers, over_key};
use crate::step::{Effects, Event};

/// A machine's mail.
#[derive(Debug, Default)]
pub(crate) struct Mail {
    pub(crate) early: Early,
    outbox: Outbox,
    /// Sessions that ended: whoever writes their Announce again, after a restart too, opens nothing.
    over: BTreeSet<SessionId>,
    /// Keys of the store that belong to no session any longer.
    leftovers: Vec<String>,
    /// The machine was restored: what it wrote may never have been sent.
    restored: bool,
}

impl Mail {
    /// The mail as its store has it. A session of the store that is not live is over.
    pub(crate) fn restore(store: &Records, is_live: impl Fn(SessionId) -> bool) -> Self {
        let (over, mut leftovers) = leftovers(store, is_live);
        let mut early = Early::restore(store, &mut leftovers);
        let mut outbox = Outbox::restore(store, &mut leftovers);
        let mut stale = Effects::default();
        for id in &over {
            early.forget(*id, &mut stale);
            outbox.forget(*id, &mut stale);
        }
        leftovers.extend(stale.store.into_iter().map(|write| write.key));
        Self { early, outbox, over, leftovers, restored: true }
    }

    pub(crate) fn is_over(&self, session: SessionId) -> bool {
        self.over.contains(&session)
    }

    /// Whether a session that a subject calls so is over.
    pub(crate) fn is_tag_over(&self, session: SessionTag) -> bool {
        is_one_of(&self.over, session)
    }

    /// The sessions that are over.
    pub(crate) fn over(&self) -> impl Iterator<Item = SessionId> + '_ {
        self.over.iter().copied()
    }

    /// Whether what was written is to be written again, as this is the first call after a restart.
    pub(crate) fn is_resumed(&mut self) -> bool {
        std::mem::take(&mut self.restored)
    }

    /// Writes again what the rounds wrote, and forgets what belongs to no session; but that those sessions are over.
    pub(crate) fn again(&mut self, out: &mut Effects) {
        if !self.leftovers.is_empty() {
            self.over.iter().for_each(|id| out.put(over_key(*id), Vec::new()));
        }
        self.leftovers.drain(..).for_each(|key| out.forget(key));
        self.outbox.again(out);
    }

    /// Notes that this machine takes no part in a session, whatever its policy is after a restart.
    pub(crate) fn ignore(&mut self, session: SessionId, out: &mut Effects) {
        self.over.insert(session);
        out.put(over_key(session), Vec::new());
    }

    /// Notes that a session ended.
    pub(crate) fn end(&mut self, session: SessionId, out: &mut Effects) {
        self.early.forget(session, out);
        self.over.insert(session);
        out.put(over_key(session), Vec::new());
        out.settled.push(Settled::Session(session));
        out.event(Event::Ended(session));
    }

    /// Keeps what is written with `out`: the last thing that is done to the effects of a call.
    pub(crate) fn keep(&mut self, out: &mut Effects) {
        for settled in &out.settled.clone() {
            if let Settled::Round(session, round) = settled {
                self.early.settle(*session, *round, out);
            }
        }
        self.outbox.keep(out, |session| is_one_of(&self.over, session));
    }
}

/// Whether a subject means one of these sessions by this tag.
fn is_one_of(sessions: &BTreeSet<SessionId>, tag: SessionTag) -> bool {
    sessions.iter().any(|id| tag == (*id).into())
}

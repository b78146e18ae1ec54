//! Sessions that count on this party as a member, and of which its store has nothing: it is out there, and says so.

use std::collections::BTreeSet;

use crate::id::{Address, Kind, SessionId, To};
use crate::step::{Effects, Event};

/// The sessions of which it was said.
#[derive(Debug, Default)]
pub(super) struct Losses(BTreeSet<SessionId>);

impl Losses {
    /// The most that is said: whoever may write to this party can name a session that never was.
    const MOST: usize = 16;

    /// Says once of a session that the store has lost this party's part in it.
    pub(super) fn tell(&mut self, session: SessionId, out: &mut Effects) {
        if self.0.len() < Self::MOST && self.0.insert(session) {
            out.event(Event::StoreLost { session });
        }
    }
}

/// Whether this is sent to none but members. Who is on a Roster has joined, and stored the session before it did: where it
/// knows nothing of the session, it has lost its store.
pub(super) fn is_for_members(address: &Address) -> bool {
    let kinds = [Kind::List, Kind::Key, Kind::Share, Kind::Cohort, Kind::Open, Kind::Check];
    matches!(address.to, To::One(_)) && kinds.contains(&address.kind)
}

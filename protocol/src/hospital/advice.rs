//! What the hospital's owner is told of patients and members that are missing, and what would help.

use std::collections::BTreeMap;

use super::open::Open;
use crate::error::list;
use crate::id::{Name, Place, SessionId, Snapshot};
use crate::message::Decline;

impl Open {
    /// The name at `place`.
    fn name(&self, place: Place) -> Option<Name> {
        self.joined.get(place.0 as usize).map(|one| one.name().clone())
    }

    /// Who declined and what would pass, in words.
    pub(super) fn explain(&self, declined: &[(Place, Decline)], snapshot: &Snapshot) -> String {
        let mut once: BTreeMap<SessionId, Vec<Name>> = BTreeMap::new();
        let mut policy = Vec::new();
        for (place, decline) in declined {
            match decline {
                Decline::Once(session) => once.entry(*session).or_default().extend(self.name(*place)),
                Decline::Policy => policy.extend(self.name(*place)),
            }
        }
        let mut words = Vec::new();
        for (session, names) in &once {
            let short = session.short();
            words.push(format!(
                "snapshot `{snapshot}` of {} belongs to session {short}: a snapshot goes into one session only. Ask there \
                 again (--session {short}), or ask for the next snapshot once they offer one (--snapshot)",
                first_of(names)
            ));
        }
        if !policy.is_empty() {
            words.push(format!(
                "{} declined by their own policy: no data under snapshot `{snapshot}`, or a question that their schema or \
                 policy does not allow; their own agents say which",
                first_of(&policy)
            ));
        }
        words.join(". ")
    }

    /// Who said nothing and what would help, in words.
    pub(super) fn explain_silence(&self, missing: &[Place], silent: &[u8]) -> String {
        let missing: Vec<Name> = missing.iter().filter_map(|place| self.name(*place)).collect();
        let seats = silent.iter().filter_map(|seat| self.lineup.seats.get(usize::from(*seat)));
        let silent: Vec<Name> =
            seats.map(|seat| seat.identity.name.clone()).filter(|name| !missing.contains(name)).collect();
        let mut words = Vec::new();
        if !missing.is_empty() {
            words.push(format!("no share came in time from {}", first_of(&missing)));
        }
        if !silent.is_empty() {
            words.push(format!("nothing was held in time by {}", first_of(&silent)));
        }
        if !words.is_empty() {
            words.push("start who is missing and ask again".into());
        }
        words.join("; ")
    }
}

/// The first few names, and how many more there are.
fn first_of(names: &[Name]) -> String {
    const MOST: usize = 8;
    match names.len().checked_sub(MOST) {
        None | Some(0) => list(names),
        Some(more) => {
            format!("{} and {more} more", names[..MOST].iter().map(Name::as_str).collect::<Vec<_>>().join(", "))
        }
    }
}

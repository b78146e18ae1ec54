//! One payload key in a round: nobody shares who was given another one than the Begin is committed to.

use std::collections::BTreeSet;

use super::super::forge_payload::commitment;
use crate::id::{Name, RoundNo, SessionId};
use crate::message::Begin;

/// Who was handed a payload key, and whether it was the hospital's or another one.
#[derive(Debug, Default)]
pub(super) struct PayloadKeys(BTreeSet<(Name, SessionId, bool)>);

impl PayloadKeys {
    /// Takes note of a payload key that was handed to `who`.
    pub(super) fn hand(&mut self, who: &Name, session: SessionId, is_true: bool) {
        self.0.insert((who.clone(), session, is_true));
    }

    /// Whether `who` may share under this Begin.
    pub(super) fn fit(&self, who: &Name, (session, round): (SessionId, RoundNo), begin: &Begin) -> bool {
        let Some(payload) = &begin.payload else { return true };
        self.0.contains(&(who.clone(), session, payload.key != commitment(round)))
    }
}

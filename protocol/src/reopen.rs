//! An open round as a store keeps it, so that a party that starts again goes on with it (PROTOCOL.md, *Restarts*).
//!
//! Kept are the Begin, when it came and the round's root; all that the party writes follows from them and from what the
//! board brings again: nothing that came since the Begin is acknowledged before the round's end.

use serde::{Deserialize, Serialize};

use crate::id::{RoundNo, Time};
use crate::records::StoredSecret;
use crate::secret::Root;
use crate::session::{Asked, Lineup, Rules};
use crate::wire::Signed;

/// An open round.
#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct OpenRound {
    root: StoredSecret,
    begin: Signed,
    /// When the Begin came: the round's times count from there, also after a restart.
    since: Time,
}

impl OpenRound {
    pub(crate) fn new(asked: &Asked, root: &Root) -> Self {
        Self { root: StoredSecret(*root.expose()), begin: asked.signed.clone(), since: asked.since }
    }

    /// The round again; `None` where the store does not fit together.
    pub(crate) fn reopen(&self, last: RoundNo, rules: &Rules, lineup: &Lineup) -> Option<(Asked, Root)> {
        let asked = Asked::read(&self.begin.open().ok()?, rules, lineup, last, self.since).ok()?;
        (asked.round == last).then(|| (asked, Root::new(self.root.0)))
    }
}

//! The caretaker: tells the broker's operator what the board need not keep any longer.
//!
//! It believes only what a hospital of the study signed: the broker's permissions alone do not prove who wrote a
//! Result. A wrong purge could cost a round, never a promise.

use std::collections::BTreeMap;
use std::sync::Arc;

use bytes::Bytes;

use crate::id::{Address, Authority, Dates, Identity, Kind, Role, RoundNo, SessionId, SessionTag};
use crate::message::{Abort, Announce, Receipt};
use crate::wire::{Frame, WireError};

/// What the board need not keep any longer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Purge {
    /// Shares, chunks and sums of a round that ended.
    Round(SessionTag, RoundNo),
    /// Everything of a session that ended but how it ended.
    Session(SessionTag),
}

/// Follows every Announce, Result and Abort of a board.
pub struct Caretaker {
    authority: Arc<dyn Authority>,
    hospitals: BTreeMap<SessionId, Identity>,
}

impl Caretaker {
    /// A caretaker of a study.
    pub fn new(authority: Arc<dyn Authority>) -> Self {
        Self { authority, hospitals: BTreeMap::new() }
    }

    /// Takes one message; what may be purged now, if its signature holds.
    ///
    /// # Errors
    /// [`WireError`] where it does not decode or verify; nothing is purged then.
    pub fn take(&mut self, address: &Address, payload: &Bytes) -> Result<Option<Purge>, WireError> {
        let frame = Frame::decode(payload)?;
        let last = match frame.envelope.kind {
            Kind::Announce => return self.announced(&frame).map(|()| None),
            Kind::Result => frame.envelope.body::<Receipt>()?.last,
            Kind::Abort => frame.envelope.body::<Abort>()?.last,
            _ => return Ok(None),
        };
        let session = frame.envelope.session;
        let Some(hospital) = self.hospitals.get(&session).filter(|_| address.session == session.into()) else {
            return Ok(None);
        };
        frame.verify(hospital)?;
        if last {
            self.hospitals.remove(&session);
            return Ok(Some(Purge::Session(session.into())));
        }
        Ok(Some(Purge::Round(session.into(), frame.envelope.round)))
    }

    fn announced(&mut self, frame: &Frame) -> Result<(), WireError> {
        let announce: Announce = frame.envelope.body()?;
        // A session outlives the certificate that it began with, and this one may be read again long after.
        if let Ok(hospital) = self.authority.identify(&announce.chain, Dates::Checked)
            && hospital.role == Role::Hospital
        {
            frame.verify(&hospital)?;
            self.hospitals.insert(frame.digest, hospital);
        }
        Ok(())
    }
}

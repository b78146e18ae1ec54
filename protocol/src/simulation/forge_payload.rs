//! Another payload key than the hospital's, sealed to those who are to have it.

use std::collections::BTreeMap;

use serde_bytes::ByteBuf;

use super::forge::{Told, sign};
use crate::id::{Digest, Kind, Name, RoundNo, SessionId};
use crate::message::{Join, PayloadKey};
use crate::patient::{payload_commitment, payload_info};
use crate::seal::{SealKey, SumSealer};
use crate::wire::Frame;

/// The other key.
const OTHER: [u8; 32] = [5; 32];

/// What it is sealed to: the keys that patients join with.
#[derive(Debug, Default)]
pub(super) struct SealKeys(BTreeMap<(SessionId, Name), SealKey>);

impl SealKeys {
    /// Takes note of Joins.
    pub(super) fn learn(&mut self, frame: &Frame) {
        let envelope = &frame.envelope;
        if envelope.kind != Kind::Join {
            return;
        }
        if let Some(key) = envelope.body::<Join>().ok().and_then(|join| join.seal_key) {
            self.0.insert((envelope.session, envelope.from.clone()), key);
        }
    }

    /// What stands for the payload key in `frame`, which is to `patient`.
    pub(super) fn other(&self, frame: &Frame, patient: &Name) -> Option<Told> {
        let session = frame.envelope.session;
        let to = self.0.get(&(session, patient.clone()))?;
        let (sealer, encapsulation) = SumSealer::new(to, &payload_info(session, patient), [3; 32]).ok()?;
        let sealed = sealer.seal(0, &OTHER).ok()?;
        let key = PayloadKey { encapsulation: ByteBuf::from(encapsulation), sealed: ByteBuf::from(sealed) };
        Some((sign(frame, &key), Vec::new()))
    }
}

/// A commitment to the other key, as the Begin of a round has it.
pub(super) fn commitment(round: RoundNo) -> Digest {
    payload_commitment(&OTHER, round.0)
}

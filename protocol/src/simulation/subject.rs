//! Whether the subject of a message says what its signed part says.

use crate::id::{Address, Kind, Name};
use crate::wire::Frame;

/// Whether `me` must refuse a message that stands under this address. Bytes that are no message have no signed part.
pub(super) fn differs(address: &Address, payload: &bytes::Bytes, me: &Name) -> bool {
    let Ok(frame) = Frame::decode(payload) else { return false };
    let said = &frame.envelope;
    let session = if said.kind == Kind::Announce { frame.digest } else { said.session };
    let same = [
        address.kind == said.kind,
        address.session == session.into(),
        address.round == said.round,
        address.from == said.from,
        address.to.includes(me),
        said.to.includes(me),
    ];
    address.kind != Kind::Chunk && same.contains(&false)
}

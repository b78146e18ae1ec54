//! What stands inside a message: its body, and what is attached. The first byte says which.

use protocol::message::*;
use protocol::*;
use serde::Serialize;
use serde::de::DeserializeOwned;
use serde_bytes::ByteBuf;

use super::{Corpus, bad};
use crate::support::encode;
use crate::support::samples::{Decode, again, d, envelope, samples, signed};

/// What a message can have inside.
pub struct Part {
    pub name: &'static str,
    /// Decodes it, and encodes it again.
    pub again: Decode,
    /// Decodes it.
    pub holds: fn(&Envelope) -> bool,
}

const fn part<T: DeserializeOwned + Serialize>(name: &'static str) -> Part {
    Part { name, again: again::<T>, holds: |envelope| envelope.body::<T>().is_ok() }
}

/// All that a message can have inside.
pub const PARTS: [Part; 27] = [
    part::<Announce>("announce"),
    part::<Join>("join"),
    part::<Roster>("roster"),
    part::<List>("list"),
    part::<PlaceProof>("place"),
    part::<Key>("key"),
    part::<PayloadKey>("payloadkey"),
    part::<Begin>("begin"),
    part::<Share>("share"),
    part::<Decline>("decline"),
    part::<Held>("held"),
    part::<Cohort>("cohort"),
    part::<Confirm>("confirm"),
    part::<Refuse>("refuse"),
    part::<Open>("open"),
    part::<MaskedSum>("maskedsum"),
    part::<MaskSum>("masksum"),
    part::<Check>("check"),
    part::<CheckSum>("checksum"),
    part::<Receipt>("result"),
    part::<Abort>("abort"),
    part::<ShareCore>("core"),
    part::<Joins>("joins"),
    part::<SumPieces>("sumpieces"),
    part::<CohortShares>("cohortshares"),
    part::<ChunkNames>("chunknames"),
    part::<Chain>("chain"),
];

/// Decodes; what is accepted is the one encoding of what it says.
pub fn run(bytes: &[u8]) -> bool {
    let Some((which, bytes)) = bytes.split_first() else { return false };
    let Part { name, again, .. } = PARTS[usize::from(*which) % PARTS.len()];
    // Which kind stands around it makes no difference to the decoder.
    let envelope = envelope(Kind::Confirm, bytes.to_vec());
    if name == "share" {
        let _ = envelope.body::<Share>().map(|share| share.open_core());
    }
    if let ("begin", Ok(Begin { question, ring, .. })) = (name, envelope.body::<Begin>()) {
        assert!(!question.is_sound() || question.columns().len() <= MAX_COLUMNS);
        let _ = Chunks::new(ring, question.dimension());
    }
    let Some(again) = again(&envelope) else { return false };
    assert_eq!(again, bytes, "{name}");
    true
}

/// A valid one of each.
pub fn whole() -> Vec<Vec<u8>> {
    let of_kinds = samples().into_iter().map(|sample| sample.body);
    let others = [
        encode(&ShareCore { place: Place(2), chunks: vec![d(9)], commitments: vec![d(11); 3] }),
        encode(&Joins(vec![signed(1), signed(2)])),
        encode(&SumPieces(vec![ByteBuf::from(vec![1; 17]), ByteBuf::from(vec![2; 16])])),
        encode(&CohortShares { piece: 1, shares: vec![(d(1), MessageName([2; 16])); 2] }),
        encode(&ChunkNames { piece: 0, names: vec![MessageName([2; 16]); 3] }),
        encode(&Chain(vec![ByteBuf::from(vec![1, 2, 3])])),
    ];
    of_kinds.chain(others).collect()
}

pub fn corpus() -> Corpus {
    let parts = (0..).zip(PARTS).zip(whole());
    let variants = parts.flat_map(|((which, Part { name, .. }), whole)| {
        let named = move |(what, bytes): (String, Vec<u8>)| (format!("{name}-{what}"), [&[which], &bytes[..]].concat());
        bad::variants(&whole).into_iter().map(named)
    });
    variants.collect()
}

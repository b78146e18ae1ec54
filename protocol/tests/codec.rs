//! What stands on the wire: every body has one encoding, frozen here, and nothing else decodes.

#![allow(missing_docs, clippy::unwrap_used, clippy::expect_used, clippy::panic)]

mod support;

use bytes::Bytes;
use proptest::prelude::*;
use protocol::message::*;
use protocol::*;
use serde_bytes::ByteBuf;
use support::samples::*;
use support::*;

fn fingerprint(bytes: &[u8]) -> String {
    blake3::hash(bytes).to_hex()[..32].to_string()
}

/// Releases talk to each other: an encoding that changes needs another version. A change shows here first.
#[test]
fn the_encoding_of_every_kind_is_frozen() {
    let samples = samples();
    let kinds: Vec<Kind> = samples.iter().map(|sample| sample.kind).collect();
    let framed: Vec<Kind> = Kind::ALL.into_iter().filter(|kind| *kind != Kind::Chunk).collect();
    assert_eq!(kinds, framed, "every kind but the bare bytes has a sample");
    let now: Vec<(Kind, String)> = samples
        .iter()
        .map(|sample| (sample.kind, fingerprint(&encode(&envelope(sample.kind, sample.body.clone())))))
        .collect();
    let frozen: Vec<(Kind, String)> = samples.iter().map(|sample| (sample.kind, sample.frozen.to_string())).collect();
    assert_eq!(now, frozen);
}

/// Each reason and refusal has a name of its own on the wire.
#[test]
fn the_variants_are_frozen() {
    let hex = |body: Vec<u8>| hex::encode(body);
    assert_eq!(hex(encode(&Decline::Policy)), "a6506f6c696379");
    assert_eq!(hex(encode(&Refuse::BoardLost)), "a9426f6172644c6f7374");
    assert_eq!(hex(encode(&Refuse::NotHeld)), "a74e6f7448656c64");
    assert_eq!(hex(encode(&Refuse::BelowMinimum)), "ac42656c6f774d696e696d756d");
    assert_eq!(hex(encode(&Refuse::Overlap { round: RoundNo(2) })), "81a74f7665726c61709102");
    assert_eq!(hex(encode(&Refuse::NotSame { round: RoundNo(2) })), "81a74e6f7453616d659102");
    assert_eq!(hex(encode(&AbortReason::Stopped)), "a773746f70706564");
    assert_eq!(hex(encode(&AbortReason::NoCohort)), "a96e6f5f636f686f7274");
    assert_eq!(hex(encode(&AbortReason::SumOutOfRange)), "b073756d5f6f75745f6f665f72616e6765");
    assert_eq!(hex(encode(&Confirm())), "90");
}

/// A body that is cut at any byte, or goes on behind its end, is refused.
#[test]
fn every_cut_and_every_trailing_byte_is_refused() {
    for sample in samples() {
        assert_eq!(decodes(&sample, &sample.body).as_ref(), Some(&sample.body), "{}", sample.kind);
        for cut in 0..sample.body.len() {
            assert_eq!(decodes(&sample, &sample.body[..cut]), None, "{} cut at {cut}", sample.kind);
        }
        for byte in [0x00, 0x80, 0x90, 0xa0, 0xc0, 0xff] {
            let longer = [&sample.body[..], &[byte]].concat();
            assert_eq!(decodes(&sample, &longer), None, "{} and a byte {byte:#x}", sample.kind);
        }
    }
}

/// The body of one kind is no body of any other. Only a Share, a MaskSum and a CheckSum are alike in shape (bytes, then digests): the
/// kind that is signed with them tells them apart, and the others have no core of a Share.
#[test]
fn no_body_is_one_of_another_kind() {
    let samples = samples();
    for sample in &samples {
        for other in samples.iter().filter(|other| other.kind != sample.kind) {
            let alike = [Kind::Share, Kind::MaskSum, Kind::CheckSum];
            let decoded = decodes(sample, &other.body).is_some();
            assert_eq!(
                decoded,
                alike.contains(&sample.kind) && alike.contains(&other.kind),
                "a {} as {}",
                other.kind,
                sample.kind
            );
        }
    }
    let sum = MaskSum { encapsulation: ByteBuf::from(vec![7; 1120]), pieces: vec![d(19)] };
    assert_eq!(envelope(Kind::Share, encode(&sum)).body::<Share>().unwrap().open_core(), None);
}

/// Headers that claim what is not there cost no memory and no panic; integers have one encoding.
#[test]
fn claims_of_a_header_are_not_believed() {
    let huge: [&[u8]; 6] = [
        &[0xdd, 0xff, 0xff, 0xff, 0xff],
        &[0xdf, 0xff, 0xff, 0xff, 0xff],
        &[0xc6, 0xff, 0xff, 0xff, 0xff],
        &[0xdb, 0xff, 0xff, 0xff, 0xff],
        &[0xc9, 0xff, 0xff, 0xff, 0xff, 0x01],
        &[0x91; 10_000],
    ];
    for sample in samples() {
        for claim in huge {
            assert_eq!(decodes(&sample, claim), None, "{}", sample.kind);
            // In place of the first field, and of the last.
            assert_eq!(decodes(&sample, &[&sample.body[..1], claim].concat()), None, "{}", sample.kind);
        }
    }
    for claim in huge {
        assert!(Frame::decode(&Bytes::copy_from_slice(claim)).is_err());
        assert!(Frame::decode(&Bytes::from([&[0x93][..], claim].concat())).is_err());
    }
    let list = List { roster: d(3), piece: 1, pieces: 2, joins: d(4) };
    let body = encode(&list);
    let at = body.iter().position(|byte| *byte == 1).unwrap();
    let padded = [&body[..at], &[0xcc, 0x01], &body[at + 1..]].concat();
    assert_eq!(envelope(Kind::List, padded).body::<List>(), Err(WireError::Malformed("list")));
    let as_map = rmp_serde::to_vec_named(&list).unwrap();
    assert_eq!(envelope(Kind::List, as_map).body::<List>(), Err(WireError::Malformed("list")));
    let float = [&body[..at], &[0xca, 0x3f, 0x80, 0, 0], &body[at + 1..]].concat();
    assert_eq!(envelope(Kind::List, float).body::<List>(), Err(WireError::Malformed("list")));
}

/// A frame over the broker's limit is refused before anything of it is decoded.
#[test]
fn a_frame_over_the_limit_is_refused() {
    let frame = signed(1).frame(&vec![0; MAX_MESSAGE]);
    assert_eq!(Frame::decode(&frame).unwrap_err(), WireError::TooLarge { got: frame.len(), limit: MAX_MESSAGE });
    let m = envelope(Kind::Share, vec![0; MAX_M]);
    let frame = Signed::new(&m, &ed25519_dalek::SigningKey::from_bytes(&[1; 32])).frame(&[]);
    assert!(matches!(Frame::decode(&frame), Err(WireError::TooLarge { limit: MAX_M, .. })));
}

/// A Share whose core names a chunk twice has no core.
#[test]
fn a_core_that_names_a_chunk_twice_is_none() {
    let core = ShareCore { place: Place(1), chunks: vec![d(1), d(2), d(1)], commitments: vec![] };
    let share = Share { core: ByteBuf::from(encode(&core)), boxes: vec![] };
    assert_eq!(share.open_core(), None);
    let core = ShareCore { chunks: vec![d(1), d(2)], ..core };
    let share = Share { core: ByteBuf::from(encode(&core)), boxes: vec![] };
    assert_eq!(share.open_core(), Some(core));
}

proptest! {
    /// Junk never panics, and is never a frame that verifies.
    #[test]
    fn junk_is_no_frame(junk in proptest::collection::vec(any::<u8>(), 0..400)) {
        prop_assert!(Frame::decode(&Bytes::from(junk)).is_err());
    }

    /// An altered body is refused or is the one encoding of what it decodes to.
    #[test]
    fn an_altered_body_is_refused_or_canonical(
        which in 0_usize..19,
        changes in proptest::collection::vec((any::<u16>(), any::<u8>()), 1..4),
    ) {
        let sample = &samples()[which];
        let mut body = sample.body.clone();
        for (at, byte) in changes {
            let at = usize::from(at) % body.len();
            body[at] = byte;
        }
        if let Some(again) = decodes(sample, &body) {
            prop_assert_eq!(again, body);
        }
    }

    /// An altered frame does not verify.
    #[test]
    fn an_altered_frame_does_not_verify(at in any::<u16>(), bit in 0_u8..8) {
        let key = ed25519_dalek::SigningKey::from_bytes(&[1; 32]);
        let identity =
            Identity { name: name("alice"), role: Role::Member, key: key.verifying_key(), certificate: Digest::default() };
        let bytes = signed(1).frame(&[]);
        Frame::decode(&bytes).unwrap().verify(&identity).unwrap();
        let mut altered = bytes.to_vec();
        let at = usize::from(at) % altered.len();
        altered[at] ^= 1 << bit;
        let verifies = Frame::decode(&Bytes::from(altered)).is_ok_and(|frame| frame.verify(&identity).is_ok());
        prop_assert!(!verifies);
    }
}

//! A body of every kind of message.

use protocol::message::*;
use protocol::*;
use serde::Serialize;
use serde::de::DeserializeOwned;
use serde_bytes::ByteBuf;

use super::{encode, name, snapshot};

/// Tries to decode a body of one kind; what it encodes to again.
pub type Decode = fn(&Envelope) -> Option<Vec<u8>>;

pub struct Sample {
    pub kind: Kind,
    pub body: Vec<u8>,
    pub decode: Decode,
    /// The first 32 hex digits of the BLAKE3 of the encoding.
    pub frozen: &'static str,
}

pub fn again<T: DeserializeOwned + Serialize>(envelope: &Envelope) -> Option<Vec<u8>> {
    envelope.body::<T>().ok().map(|body| encode(&body))
}

fn sample<T: DeserializeOwned + Serialize>(kind: Kind, body: &T, frozen: &'static str) -> Sample {
    Sample { kind, body: encode(body), decode: again::<T>, frozen }
}

pub fn d(byte: u8) -> Digest {
    Digest([byte; 32])
}

pub fn signed(byte: u8) -> Signed {
    let key = ed25519_dalek::SigningKey::from_bytes(&[byte; 32]);
    Signed::new(&envelope(Kind::Confirm, vec![0x90]), &key)
}

pub fn envelope(kind: Kind, body: Vec<u8>) -> Envelope {
    Envelope {
        version: VERSION,
        session: d(1),
        round: RoundNo(3),
        from: name("alice"),
        to: To::One(name("bob")),
        kind,
        after: d(2),
        body: ByteBuf::from(body),
    }
}

/// A body of every kind, with everything that may be absent present.
pub fn samples() -> Vec<Sample> {
    let key = SealSecret::new([4; 32]).public();
    let chain = Chain(vec![ByteBuf::from(vec![1, 2, 3]), ByteBuf::from(vec![4])]);
    let column = Column { name: "age".into(), width: 3 };
    vec![
        sample(
            Kind::Announce,
            &Announce {
                nonce: [1; 32],
                study: "ward".into(),
                sharing: Sharing::new(5, 1).unwrap(),
                min_cohort: 3,
                expect: 300,
                candidates: vec![name("alice")],
                servers: vec![name("server")],
                payloads: true,
                join_seconds: 30,
                not_after: 1_700_000_000_000,
                seal_key: key.clone(),
                chain: chain.clone(),
            },
            "04297259b511576323870b3cd969634f",
        ),
        sample(Kind::Join, &Join { chain: chain.clone(), seal_key: Some(key) }, "df670be7e7d26a8e0415c057369b1b7d"),
        sample(
            Kind::Roster,
            &Roster { root: d(3), count: 2, committee: vec![signed(1), signed(2)], servers: vec![chain] },
            "008fbaaf0eb43ffe73fa1033fdd48e1a",
        ),
        sample(
            Kind::List,
            &List { roster: d(3), piece: 1, pieces: 2, joins: d(4) },
            "4c8e63a82e389c3bc14153057bbb08ba",
        ),
        sample(
            Kind::Place,
            &PlaceProof { place: Place(700), path: vec![d(5), d(6)] },
            "1cb38a975e91627eddf91f070df08868",
        ),
        sample(Kind::Key, &Key { encapsulation: ByteBuf::from(vec![7; 1120]) }, "00ea34127924db0f0447185402d649b1"),
        sample(
            Kind::PayloadKey,
            &PayloadKey { encapsulation: ByteBuf::from(vec![7; 1120]), sealed: ByteBuf::from(vec![8; 48]) },
            "ab0a86821411c90aa5afbd4e384cd70e",
        ),
        sample(
            Kind::Begin,
            &Begin {
                question: Question::Sum(vec![column]),
                snapshot: snapshot("vitals-2026-11"),
                same_as: Some(RoundNo(1)),
                ring: Ring::new(40).unwrap(),
                scale: Scale::default(),
                scaled_bound: 1_000_000_000,
                enough: Some(4),
                round_seconds: 60,
                payload: Some(PayloadHeader { chunks: vec![d(7)], key: d(8) }),
            },
            "b004f4bb6160287f53d7511af4d04fab",
        ),
        sample(
            Kind::Share,
            &Share {
                core: ByteBuf::from(encode(&ShareCore {
                    place: Place(2),
                    chunks: vec![d(9), d(10)],
                    commitments: vec![d(11); 3],
                })),
                boxes: vec![d(12); 4],
            },
            "eef60458549ea4984308c64d70efa509",
        ),
        sample(Kind::Decline, &Decline::Once(d(13)), "faac6e63afb56cad5bef05f686ae5e4f"),
        sample(
            Kind::Held,
            &Held { held: vec![(Place(0), d(14)), (Place(1), d(15))], faults: vec![Place(2)] },
            "8d3108ea2a969c94caa03679b2ae81e0",
        ),
        sample(
            Kind::Cohort,
            &Cohort { places: Places::of(11, [Place(0), Place(10)]), root: d(16) },
            "c46e1d935dcdd8f4247005020b999df1",
        ),
        sample(Kind::Confirm, &Confirm(), "f7cd0c750e18ab8e3e98cac28c914a83"),
        sample(
            Kind::Refuse,
            &Refuse::TooFewShared {
                shared: 1,
                needed: 3,
                declined: vec![(Place(0), Decline::Policy)],
                missing: vec![Place(2)],
                silent: vec![1],
            },
            "8682854e78c6c6ac0fd9080f9fba9152",
        ),
        sample(
            Kind::Open,
            &Open { confirms: vec![signed(3)], senders: vec![(0, vec![1, 2]), (3, vec![0])] },
            "94513445112a3cf7c9e1eb6ebfeb70e9",
        ),
        sample(Kind::MaskedSum, &MaskedSum { chunks: vec![d(17), d(18)] }, "36c8c89f20c6e04fff3a3c89ec300e8b"),
        sample(
            Kind::MaskSum,
            &MaskSum { encapsulation: ByteBuf::from(vec![7; 1120]), pieces: vec![d(19), d(20)] },
            "246735ab477c8b50942237b327c48072",
        ),
        sample(Kind::Check, &Check { blocks: vec![0, 2], chunks: vec![1, 300] }, "e3676ec2db4802444d58bc0fc1620fcf"),
        sample(
            Kind::CheckSum,
            &CheckSum { encapsulation: ByteBuf::from(vec![7; 1120]), pieces: vec![d(19), d(20)] },
            "31fc44dba9fa35c74e93753da593cb5b",
        ),
        sample(
            Kind::Result,
            &Receipt { count: 3, cohort: signed(4), confirms: vec![signed(5), signed(6)], last: true },
            "74d758a00633e0c3dfebdc828a0a8f44",
        ),
        sample(
            Kind::Abort,
            &Abort {
                reason: AbortReason::TooFewConfirmed {
                    confirmed: 1,
                    committee: 3,
                    quorum: 3,
                    missing: vec![name("bob")],
                },
                last: false,
            },
            "d2623b6de3632162fb1ef6ac0d7d195b",
        ),
    ]
}

pub fn decodes(sample: &Sample, body: &[u8]) -> Option<Vec<u8>> {
    (sample.decode)(&envelope(sample.kind, body.to_vec()))
}

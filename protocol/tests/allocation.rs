//! What decoding takes of memory: less than four times the bytes and 256 KiB, whatever they claim.
#![allow(missing_docs, unreachable_pub, clippy::unwrap_used, clippy::expect_used, clippy::panic)]

mod support;
mod targets;

use bytes::Bytes;
use protocol::message::*;
use protocol::*;
use serde_bytes::ByteBuf;
use support::samples::{d, envelope, signed};
use support::{encode, name};
use targets::{bad, frame, part};

/// Beside four times the bytes: what a question of 4096 columns, or a refusal that repeats 8192 Declines, takes more in
/// memory than in a message.
const BESIDE: u64 = 256 << 10;

/// The most memory held at one time while `decode` runs.
fn peak(decode: impl FnOnce()) -> u64 {
    allocation_counter::measure(decode).bytes_max
}

fn check(what: &str, bytes: usize, peak: u64) {
    assert!(peak <= 4 * bytes as u64 + BESIDE, "{what}: {bytes} bytes took {peak}");
}

fn check_frame(what: &str, bytes: &[u8]) {
    let payload = Bytes::copy_from_slice(bytes);
    check(what, bytes.len(), peak(|| drop(std::hint::black_box(Frame::decode(&payload)))));
}

fn check_part(what: &str, which: &str, bytes: Vec<u8>) {
    let part = part::PARTS.into_iter().find(|part| part.name == which).unwrap();
    let length = bytes.len();
    let envelope = envelope(Kind::Confirm, bytes);
    check(&format!("{which}: {what}"), length, peak(|| _ = (part.holds)(&envelope)));
}

/// As [`check_part`], of one that holds.
fn check_whole(what: &str, which: &str, bytes: Vec<u8>) {
    let part = part::PARTS.into_iter().find(|part| part.name == which).unwrap();
    assert!((part.holds)(&envelope(Kind::Confirm, bytes.clone())), "{which}: {what}");
    check_part(what, which, bytes);
}

#[test]
fn bad_inputs_take_little() {
    for (what, bytes) in frame::corpus() {
        check_frame(&what, &bytes);
    }
    for (what, bytes) in part::corpus() {
        check_part(&what, part::PARTS[usize::from(bytes[0])].name, bytes[1..].to_vec());
    }
}

/// In the place of each field of each message: a list as long as it says, of what takes least in a message, and a text
/// that an error would repeat six times as long.
#[test]
fn large_bad_inputs_take_little() {
    const COUNT: usize = 200_000;
    let list =
        |of: &[u8]| [&[0xdd], &((COUNT / of.len()) as u32).to_be_bytes()[..], &of.repeat(COUNT / of.len())].concat();
    let lists = [
        &[0xc0][..],
        &[0x00],
        &[0xa0],
        &[0xa1, b'a'],
        &[0xc4, 0],
        &[0x90],
        &[0x92, 0, 0x90],
        &[0x92, 0xc4, 0, 0xc4, 0],
    ];
    let text = [&[0xdb], &(COUNT as u32).to_be_bytes()[..], &[0x7f; COUNT]].concat();
    let large: Vec<Vec<u8>> = lists.into_iter().map(list).chain([text]).collect();
    for (part, whole) in part::PARTS.into_iter().zip(part::whole()) {
        for (number, large) in large.iter().enumerate() {
            check_part(&format!("alone, {number}"), part.name, large.clone());
            for (start, end) in bad::fields(&whole) {
                let bytes = [&whole[..start], large, &whole[end..]].concat();
                check_part(&format!("at {start}, {number}"), part.name, bytes);
            }
        }
    }
    for large in large {
        check_frame("alone", &large);
        let bytes = serde_bytes::Bytes::new;
        check_frame("as a signed part", &encode(&(bytes(&large), bytes(&[1; 64]), bytes(&[]))));
    }
}

/// The largest that a session of a million patients, or a vector of 15,000 chunks, is made of.
#[test]
fn large_messages_take_less_than_four_times_their_size() {
    let many = MOST_PATIENTS;
    let share = envelope(Kind::Share, encode(&Share { core: ByteBuf::from(vec![1; 64 << 10]), boxes: vec![d(1); 10] }));
    let key = ed25519_dalek::SigningKey::from_bytes(&[1; 32]);
    check_frame("a Share of 64 KiB", &Signed::new(&share, &key).frame(&[]));
    check_frame("a Share with 512 KiB", &Signed::new(&share, &key).frame(&vec![1; 512 << 10]));
    check_whole("of a million", "cohort", encode(&Cohort { places: Places::all(many), root: d(1) }));
    check_whole(
        "of many chunks",
        "core",
        encode(&ShareCore {
            place: Place(1),
            chunks: vec![d(1); MOST_CHUNKS as usize],
            commitments: vec![d(2); MOST_BLOCKS],
        }),
    );
    check_whole("of many chunks", "maskedsum", encode(&MaskedSum { chunks: vec![d(1); MOST_CHUNKS as usize] }));
    let held = (0..4096).map(|place| (Place(place), d(1))).collect();
    check_whole("of many", "held", encode(&Held { held, faults: vec![Place(1); 4096] }));
    check_whole("of many", "joins", encode(&Joins(vec![signed(1); 4000])));
    check_whole(
        "of many",
        "cohortshares",
        encode(&CohortShares { piece: 0, shares: vec![(d(1), MessageName([1; 16])); CohortShares::MOST] }),
    );
    let names = vec![MessageName([1; 16]); ChunkNames::MOST];
    check_whole("of many", "chunknames", encode(&ChunkNames { piece: 0, names }));
    check_whole("of many", "check", encode(&Check { blocks: vec![1; MOST_BLOCKS], chunks: vec![1; Check::MOST] }));
    let declined = (0..8192).map(|place| (Place(place), Decline::Policy)).collect();
    let refuse =
        Refuse::TooFewShared { shared: 1, needed: 2, declined, missing: vec![Place(1); 64], silent: vec![1; 10] };
    check_whole("of many", "refuse", encode(&refuse));
    let columns = (0..MAX_COLUMNS).map(|number| Column::scalar(&format!("{number}"))).collect();
    check_whole("of short columns", "begin", begin(columns));
    let columns = (0..256).map(|number| Column::scalar(&format!("{number:0MAX_TEXT$}"))).collect();
    check_whole("of long columns", "begin", begin(columns));
    check_whole("of many candidates", "announce", announce());
}

fn begin(columns: Vec<Column>) -> Vec<u8> {
    encode(&Begin {
        question: Question::Sum(columns),
        snapshot: "1".parse().unwrap(),
        same_as: None,
        ring: Ring::new(64).unwrap(),
        scale: Scale::default(),
        scaled_bound: 1,
        enough: None,
        round_seconds: 60,
        payload: None,
    })
}

fn announce() -> Vec<u8> {
    encode(&Announce {
        nonce: [1; 32],
        study: "ward".into(),
        sharing: Sharing::new(10, 3).unwrap(),
        min_cohort: 3,
        expect: 300,
        candidates: (0..MOST_CANDIDATES).map(|number| name(&format!("{number}"))).collect(),
        servers: vec![name("server"); MOST_SERVERS],
        payloads: false,
        join_seconds: 30,
        not_after: 1,
        seal_key: SealSecret::new([4; 32]).public(),
        chain: Chain(vec![ByteBuf::from(vec![1; 500])]),
    })
}

//! What stands under a seal, once it is opened: who lies has the key to seal whatever it likes. The first byte says which text
//! it is.

use std::cell::RefCell;
use std::collections::BTreeMap;
use std::sync::Arc;

use bytes::Bytes;
use protocol::message::{Join, PayloadKey};
use protocol::*;
use serde_bytes::ByteBuf;

use super::{Corpus, bad};
use crate::support::{Build, Study, among, digest, encode, name, p, snapshot};

/// Reads a text, and says whether it was accepted.
type Read = fn(&[u8]) -> bool;

const TEXTS: [(&str, Read); 6] = [
    ("words", words),
    ("blocks", blocks),
    ("sum", sum),
    ("check", check),
    ("seeds", seeds),
    ("payload-key", payload_key),
];

/// The patient that seals what no honest one does: it is no member.
const LIAR: usize = 5;

/// So many texts are tried in one study.
const INPUTS: usize = 50;

pub fn run(bytes: &[u8]) -> bool {
    let Some((which, text)) = bytes.split_first() else { return false };
    TEXTS[usize::from(*which) % TEXTS.len()].1(text)
}

/// Words of a ring, whose width the first byte says.
fn words(text: &[u8]) -> bool {
    let Some((width, words)) = text.split_first() else { return false };
    let rings: Vec<Ring> = Ring::all().collect();
    let ring = rings[usize::from(*width) % rings.len()];
    let Ok(lanes) = Lanes::unpack(ring, words) else { return false };
    assert_eq!(lanes.pack(ring), words);
    assert_eq!(Lanes::from_i64(ring, &lanes.to_i64(ring)).unwrap().pack(ring), words);
    for other in rings {
        let mut rest = lanes.clone();
        let took = rest.sub_packed(other, words).is_ok();
        assert!(took || other != ring);
        assert!(!took || rest.pack(other).iter().all(|byte| *byte == 0));
    }
    true
}

/// A hospital's key, and a mask sum that was sealed to it: `first` is its list of blocks, and `rest` its chunks.
fn sealed(asked: &[u8], first: &[u8], rest: &[&[u8]]) -> (Arc<SealSecret>, SealedSum) {
    let (secret, info) = (SealSecret::new([4; 32]), b"fuzz".to_vec());
    let (sealer, encapsulation) = SumSealer::new(&secret.public(), &info, [7; 32]).unwrap();
    let texts = (0..).zip(std::iter::once(first).chain(rest.iter().copied()));
    let pieces = texts.map(|(piece, text)| Bytes::from(sealer.seal(piece, text).unwrap())).collect();
    (Arc::new(secret), SealedSum { seat: 0, encapsulation, info, blocks: asked.to_vec(), pieces })
}

/// What a hospital that knows the sum of block 0 makes of a mask sum.
fn reconstruct((secret, sealed): (Arc<SealSecret>, SealedSum)) -> Outcome {
    let chunks = Chunks::new(Ring::new(24).unwrap(), 5).unwrap();
    let known = self::sealed(&[], &[], &[&[0; 15]]);
    let Outcome::Unsealed(known) = (Job::Unseal { secret: known.0, sealed: known.1 }).run() else {
        panic!("a sum that is well sealed")
    };
    let vouched = known.into_iter().map(|(_, words)| ((0, 0), words)).collect();
    let masked = vec![Bytes::from(vec![1; 15])];
    Job::Reconstruct { secret, chunks, masked, sealed: vec![sealed], vouched, whole: vec![] }.run()
}

/// The list of blocks in a mask sum, where it is what was asked for; and where it is not.
fn blocks(text: &[u8]) -> bool {
    let zeros: &[u8] = &[0; 15];
    let other = [text, &[0]].concat();
    let refused = reconstruct(sealed(&other, text, &[zeros]));
    assert!(matches!(refused, Outcome::BadSum(0)), "{refused:?}");
    match reconstruct(sealed(text, text, &[zeros])) {
        Outcome::Reconstructed(_) => true,
        Outcome::BadSum(0) => false,
        other => panic!("{other:?}"),
    }
}

/// A chunk of a mask sum.
fn sum(text: &[u8]) -> bool {
    let blocks = encode(&[1_u16]);
    match reconstruct(sealed(&blocks, &blocks, &[text])) {
        Outcome::Reconstructed(_) => {
            assert_eq!(text.len(), 15);
            true
        }
        Outcome::BadSum(0) => false,
        other => panic!("{other:?}"),
    }
}

/// A sum in the answer to a Check: nothing is read of it, what counts is its digest.
fn check(text: &[u8]) -> bool {
    let (secret, sealed) = sealed(&[], &[], &[text]);
    let Outcome::Unsealed(sums) = (Job::Unseal { secret, sealed }).run() else { return false };
    let sums: Vec<(Digest, &[u8])> = sums.iter().map(|(digest, words)| (*digest, words.as_bytes())).collect();
    assert_eq!(sums, [(chunk_digest(text), text)]);
    true
}

thread_local! {
    static STUDIES: RefCell<BTreeMap<bool, (Study, usize)>> = RefCell::default();
}

/// Tries a text in a study that was begun for such: with or without payloads.
fn in_study(payloads: bool, read: impl FnOnce(&mut Study, usize) -> bool) -> bool {
    STUDIES.with_borrow_mut(|studies| {
        let (mut study, before) = studies.remove(&payloads).unwrap_or_else(|| (begin(payloads), 0));
        let taken = read(&mut study, before + 1);
        if before + 1 < INPUTS {
            studies.insert(payloads, (study, before + 1));
        }
        taken
    })
}

fn begin(payloads: bool) -> Study {
    let mut study = Build { payloads, ..Build::new(6, 4, 1) }.parties();
    study.announce();
    let cut = study.cut(|delivery| among(delivery, Kind::PayloadKey, &[LIAR]));
    study.net.run();
    cut.mend();
    if !payloads {
        study.net.kill(&p(LIAR));
    }
    study
}

/// The seeds in the box of a member: whatever it is, the round has its sum, for the others hold them, and nobody is accused
/// but who sealed it.
fn seeds(text: &[u8]) -> bool {
    in_study(false, |study, number| {
        let label = snapshot(&format!("round-{number}"));
        for i in 0..LIAR {
            let record = study.build.record(i);
            study.net.offer(&p(i), &label, record).unwrap();
        }
        let faults = study.faults().len();
        study.put(|ask| ask.snapshot = label);
        study.until(|net| net.count(Kind::Begin) == number);
        let forged = study.forge_share(LIAR, |forged| forged.text = Some((0, text.to_vec())));
        study.send_share(&forged);
        study.net.run();
        assert_eq!(study.ends().len(), number);
        assert_eq!(study.end(), study.sum(0..=LIAR));
        let faults = &study.faults()[faults..];
        assert!(faults.iter().all(|(who, fault)| *who == p(0) && fault.from == p(LIAR)), "{faults:?}");
        faults.is_empty()
    })
}

/// The key of a payload: 32 bytes, and no others after that.
fn payload_key(text: &[u8]) -> bool {
    in_study(true, |study, _| {
        let receiver = p(LIAR);
        let join: Join = study.newest(Kind::Join, &receiver).envelope.body().unwrap();
        let info = digest("ward/1 payload key info", &[&study.session.0, receiver.as_str().as_bytes()]).0;
        let (sealer, encapsulation) = SumSealer::new(&join.seal_key.unwrap(), &info, [3; 32]).unwrap();
        let sealed = ByteBuf::from(sealer.seal(0, text).unwrap());
        let key = PayloadKey { encapsulation: ByteBuf::from(encapsulation), sealed };
        let to = To::One(receiver.clone());
        let signed = study.sign(&name("hospital"), Kind::PayloadKey, to, study.roster().digest, &key);
        let faults = study.faults().len();
        study.deliver(&signed, &receiver, &[]);
        study.settle();
        let taken = study.faults().len() == faults;
        assert!(!taken || text.len() == 32);
        taken
    })
}

pub fn corpus() -> Corpus {
    let mut corpus = Corpus::new();
    let mut add = |which: u8, of: &str, text: &[u8]| {
        corpus.insert(format!("{}-{of}", TEXTS[usize::from(which)].0), [&[which], text].concat());
    };
    for (width, ring) in (0..).zip(Ring::all()) {
        let bytes = [&[width][..], &[0xff; 64]].concat();
        let end = 1 + 3 * ring.word_bytes();
        for (what, end) in [("whole", end), ("with-a-byte-too-few", end - 1), ("with-a-byte-too-many", end + 1)] {
            add(0, &format!("of-{}-bits-{what}", ring.bits()), &bytes[..end]);
        }
    }
    add(0, "without-a-width", &[]);
    add(0, "that-are-none-whole", &[0]);
    bad::variants(&encode(&[0_u16, 2])).iter().for_each(|(what, text)| add(1, what, text));
    for (what, length) in
        [("whole", 15), ("nothing", 0), ("a-byte-too-few", 14), ("a-byte-too-many", 16), ("twice", 30)]
    {
        add(2, what, &vec![0xff; length]);
    }
    add(3, "nothing", &[]);
    add(3, "junk", b"junk");
    let sharing = Sharing::new(4, 1).unwrap();
    let seeds: Vec<u8> = sharing.held_by(0).into_iter().flat_map(|block| [block as u8 + 1; 32]).collect();
    let end = seeds.len();
    add(4, "whole", &seeds);
    add(4, "nothing", &[]);
    add(4, "a-byte-too-few", &seeds[..end - 1]);
    add(4, "a-byte-too-many", &[&seeds[..], &[0]].concat());
    add(4, "a-seed-too-few", &seeds[..end - 32]);
    add(4, "a-seed-too-many", &[&seeds[..], &[9; 32]].concat());
    add(4, "in-another-order", &[&seeds[32..], &seeds[..32]].concat());
    add(4, "of-zeros", &vec![0; end]);
    for (what, length) in [("whole", 32), ("nothing", 0), ("a-byte-too-few", 31), ("a-byte-too-many", 33)] {
        add(5, what, &vec![9; length]);
    }
    corpus
}

/// Whether this file may be accepted.
pub fn may(file: &str) -> bool {
    bad::is_valid(file) || file == "blocks-its-last-field-twice" || file.starts_with("check-")
}

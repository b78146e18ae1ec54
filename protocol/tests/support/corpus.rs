//! Corpora of bad inputs: small files, each called after what it attacks, which a generator makes and nobody edits.
//!
//! `WARD_WRITE_CORPUS=1 cargo test fuzz` writes them anew. `WARD_MUTATIONS=1000000 cargo test fuzz` goes on for hours.

// Other crates take this file too, and each a part of it.
#![allow(dead_code, missing_docs, unreachable_pub, clippy::unwrap_used, clippy::panic)]
// Who runs it says how much: these are no settings of the protocol.
#![allow(clippy::disallowed_methods)]

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;

/// Inputs by what they attack.
pub type Corpus = BTreeMap<String, Vec<u8>>;

/// The corpus in `folder`, which must be what its generator makes.
pub fn read(folder: &Path, made: &Corpus) {
    if std::env::var_os("WARD_WRITE_CORPUS").is_some() {
        let _ = fs::remove_dir_all(folder);
        fs::create_dir_all(folder).unwrap();
        made.iter().for_each(|(name, bytes)| fs::write(folder.join(name), bytes).unwrap());
    }
    let found: Corpus = fs::read_dir(folder)
        .unwrap()
        .map(|file| {
            let file = file.unwrap();
            (file.file_name().into_string().unwrap(), fs::read(file.path()).unwrap())
        })
        .collect();
    let differ: Vec<&String> =
        made.keys().chain(found.keys()).filter(|name| made.get(*name) != found.get(*name)).collect();
    assert!(differ.is_empty(), "{} is not what its generator makes: {differ:?}", folder.display());
}

/// Hands `run` the corpus, and then mutations of it: from a fixed seed, so that a failure comes again. Fewer where a run
/// is slow: one in `slow`.
pub fn pelt(corpus: &Corpus, slow: usize, mut run: impl FnMut(&str, &[u8])) {
    corpus.iter().for_each(|(name, bytes)| run(name, bytes));
    let all: Vec<(&String, &Vec<u8>)> = corpus.iter().collect();
    let mut dice = Dice(0x5eed);
    let mutations = std::env::var("WARD_MUTATIONS").map_or(2000, |count| count.parse::<usize>().unwrap());
    for number in 0..mutations / slow {
        let (name, bytes) = all[dice.below(all.len())];
        let other = all[dice.below(all.len())].1;
        let mut bytes = bytes.clone();
        (0..=dice.below(4)).for_each(|_| mutate(&mut bytes, other, &mut dice));
        run(&format!("mutation {number}, of {name}"), &bytes);
    }
}

/// One change: of a bit, a byte, a number, or of what stands where.
fn mutate(bytes: &mut Vec<u8>, other: &[u8], dice: &mut Dice) {
    let at = dice.below(bytes.len() + 1);
    let end = (at + 1 + dice.below(16)).min(bytes.len());
    let marks = [
        0x00, 0x7f, 0x80, 0x90, 0x91, 0xa1, 0xc0, 0xc1, 0xc4, 0xc6, 0xcb, 0xcf, 0xd9, 0xdd, 0xdf, 0xff, b',', b'"',
        b'\n',
    ];
    match dice.below(8) {
        0 | 1 if at < bytes.len() => bytes[at] ^= 1 << dice.below(8),
        2 | 3 if at < bytes.len() => bytes[at] = marks[dice.below(marks.len())],
        4 => drop(bytes.drain(at..end)),
        5 => {
            let again = bytes[at..end].to_vec();
            drop(bytes.splice(at..at, again));
        }
        6 => {
            let from = dice.below(other.len() + 1);
            let piece = other[from..(from + dice.below(64)).min(other.len())].to_vec();
            drop(bytes.splice(at..end, piece));
        }
        7 => bytes.truncate(at),
        _ => bytes.insert(at, marks[dice.below(marks.len())]),
    }
}

/// xorshift64*
struct Dice(u64);

impl Dice {
    fn below(&mut self, most: usize) -> usize {
        self.0 ^= self.0 >> 12;
        self.0 ^= self.0 << 25;
        self.0 ^= self.0 >> 27;
        (self.0.wrapping_mul(0x2545_f491_4f6c_dd1d) >> 33) as usize % most
    }
}

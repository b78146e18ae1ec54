//! What a machine reads by name, and a broker that answers with whatever it likes, or with nothing. The first bytes are those
//! of [`super::handle`].

use std::cell::RefCell;
use std::collections::{BTreeMap, VecDeque};
use std::rc::Rc;

use bytes::Bytes;
use protocol::memory::Step;
use protocol::*;

use super::handle::build;
use crate::support::{End, Study, p, snapshot};

/// Who is not in the cohort: members get nothing of it, so that servers read again what they added of it.
const ABSENT: usize = 4;

/// After so many wrong answers a round without one must have its sum.
const WRONGS: u32 = 10;

/// So many rounds are played in one study.
const ROUNDS: u32 = 60;

/// A read that a party made, and nobody answered yet.
type Asked = (Name, Address);

/// What stands on the board in the place of what was read.
type Answer<'a> = &'a dyn Fn(&Study, &Bytes) -> Option<Bytes>;

/// Answers one read of `reader` as `how` says: with the bytes, with nothing, or with the right answer changed by them.
/// Whatever it is: no panic, the round ends, the sum is right if there is one, and nobody is accused.
pub fn run(reader: &Name, servers: usize, which: usize, how: u8, rest: &[u8]) -> bool {
    thread_local! {
        static STUDIES: RefCell<BTreeMap<usize, Rounds>> = RefCell::default();
    }
    STUDIES.with_borrow_mut(|studies| {
        let mut rounds = studies.remove(&servers).unwrap_or_else(|| Rounds::new(servers));
        let Some(count) = rounds.reads.get(reader).copied() else { return false };
        let opened = rounds.play(Some((reader, which % count)), &|study, right| wrong(study, right, how, rest));
        if rounds.played % WRONGS == 0 {
            assert!(rounds.play(None, &|_, right| Some(right.clone())), "a round after wrong answers has no sum");
        }
        if rounds.played < ROUNDS {
            studies.insert(servers, rounds);
        }
        opened
    })
}

/// The answer in the place of the right one.
fn wrong(study: &Study, right: &Bytes, how: u8, rest: &[u8]) -> Option<Bytes> {
    let number = rest.iter().take(2).fold(0, |number, byte| number << 8 | usize::from(*byte));
    let mut bytes = right.to_vec();
    match how % 6 {
        0 => return Some(Bytes::copy_from_slice(rest)),
        1 => return None,
        2 if !bytes.is_empty() => {
            let at = number % bytes.len();
            let changed = rest.get(2..).unwrap_or_default();
            bytes[at..].iter_mut().zip(changed).for_each(|(old, new)| *old ^= new);
        }
        3 => bytes.truncate(number % (bytes.len() + 1)),
        4 => bytes.extend_from_slice(rest),
        _ => return study.net.board().values().nth(number % study.net.board().len()).cloned(),
    }
    Some(bytes.into())
}

/// One answer of each kind: what it is, how it is made, and of which bytes.
pub fn answers() -> [(&'static str, u8, &'static [u8]); 10] {
    [
        ("answered-with-no-bytes", 0, &[]),
        ("answered-with-junk", 0, b"junk"),
        ("answered-with-an-array-of-4-gib", 0, &[0xdd, 0xff, 0xff, 0xff, 0xff]),
        ("answered-with-nothing", 1, &[]),
        ("answered-whole", 2, &[]),
        ("answered-with-a-bit-flipped", 2, &[0, 9, 1]),
        ("answered-with-a-bit-flipped-at-its-end", 2, &[0xff, 0xff, 0, 0x80]),
        ("answered-cut-after-its-first-byte", 3, &[0, 1]),
        ("answered-with-a-byte-too-many", 4, &[0xc0]),
        ("answered-with-another-message", 5, &[0, 1]),
    ]
}

/// A study whose servers and hospital read in every round.
struct Rounds {
    study: Study,
    asked: Rc<RefCell<VecDeque<Asked>>>,
    /// How many reads each party makes in a round.
    reads: BTreeMap<Name, usize>,
    played: u32,
}

impl Rounds {
    fn new(servers: usize) -> Self {
        let mut study = build(servers).start();
        study.cut(|delivery| {
            let Address { kind, from, .. } = &delivery.address;
            *kind == Kind::Share && *from == p(ABSENT) && !delivery.receiver.as_str().starts_with("server")
        });
        let asked = Rc::<RefCell<VecDeque<Asked>>>::default();
        let noted = asked.clone();
        study.net.watch(move |who, step| {
            if let Step::Effects(effects) = step {
                noted.borrow_mut().extend(effects.read.iter().map(|address| (who.clone(), address.clone())));
            }
        });
        let mut rounds = Self { study, asked, reads: BTreeMap::new(), played: 0 };
        assert!(rounds.play(None, &|_, right| Some(right.clone())));
        assert_eq!(rounds.reads.len(), 1 + servers, "{:?}", rounds.reads);
        rounds
    }

    /// Plays a round over data under a new label in which one read, counted among those of its reader, is answered
    /// otherwise. Whether the round has a sum.
    fn play(&mut self, otherwise: Option<(&Name, usize)>, answer: Answer<'_>) -> bool {
        self.played += 1;
        let label = snapshot(&format!("round-{}", self.played));
        for i in self.study.all() {
            let record = self.study.build.record(i);
            self.study.net.offer(&p(i), &label, record).unwrap();
        }
        self.study.put(|ask| ask.snapshot = label);
        let mut counts = BTreeMap::<Name, usize>::new();
        let until = self.study.net.now().plus_seconds(600);
        loop {
            let next = self.asked.borrow_mut().pop_front();
            let Some((who, address)) = next else { if self.study.net.advance(until) { continue } else { break } };
            let count = counts.entry(who.clone()).or_default();
            if otherwise == Some((&who, *count)) {
                self.answer(&address, answer);
            } else {
                self.study.net.step();
            }
            *count += 1;
        }
        if otherwise.is_none() {
            self.reads = counts;
        }
        self.judge()
    }

    /// Has the read of `address`, which is the next, answered so; then the board is as it was.
    fn answer(&mut self, address: &Address, answer: Answer<'_>) {
        let right = self.study.net.board()[address].clone();
        match answer(&self.study, &right) {
            Some(bytes) => self.study.net.alter(address, bytes),
            None => self.study.net.lose(address),
        }
        self.study.net.step();
        self.study.net.alter(address, right);
    }

    fn judge(&self) -> bool {
        assert_eq!(self.study.faults(), [], "an answer of the broker's is nobody's fault");
        let ends = self.study.ends();
        assert_eq!(ends.len(), self.played as usize, "a round did not end");
        match self.study.end() {
            End::Aborted(_) => false,
            opened => {
                assert_eq!(opened, self.study.sum(0..ABSENT));
                true
            }
        }
    }
}

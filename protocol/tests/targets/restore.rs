//! A store that is damaged, torn or of somebody else: `restore` of each machine, and what it does next.

use std::sync::{Arc, LazyLock};

use bytes::Bytes;
use protocol::*;

use super::Corpus;
use crate::support::{Build, Study, name};

/// Whose store it is: the first byte. Which of its records is changed is the second, how is the third.
const OWNERS: [&str; 4] = ["hospital", "server", "p00", "p04"];

/// The records of one party, by key.
type Stored = Vec<(String, Vec<u8>)>;

/// A study whose round stands before its end, as four of its parties have it in their stores.
struct Kept {
    build: Build,
    now: Time,
    owners: Vec<(Me, Stored)>,
    /// A message that each of them is sent next.
    next: (Address, Bytes),
}

static KEPT: LazyLock<Arc<Kept>> = LazyLock::new(|| {
    let mut study: Study = Build::new(5, 3, 1).start();
    study.ask();
    let cut = study.cut(|delivery| delivery.address.kind == Kind::MaskSum);
    study.put(|ask| ask.last = true);
    study.settle();
    cut.mend();
    let owner = |who: &&str| {
        let (who, records) = (name(who), study.net.store(&name(who)).unwrap());
        let records = records.iter().map(|(key, value)| (key.clone(), value.to_vec()));
        (study.net.me(&who).unwrap().clone(), records.collect())
    };
    let next = study.net.board().iter().rfind(|(address, _)| address.kind == Kind::Cohort).unwrap();
    let next = (next.0.clone(), next.1.clone());
    Arc::new(Kept { now: study.net.now(), owners: OWNERS.iter().map(owner).collect(), next, build: study.build })
});

/// Restores a party from a store with one changed record, and has it go on. It may refuse to start; it may not panic.
pub fn run(bytes: &[u8]) -> bool {
    let [owner, record, how, rest @ ..] = bytes else { return false };
    let (me, mut records) = KEPT.owners[usize::from(*owner) % OWNERS.len()].clone();
    let at = usize::from(*record) % records.len();
    change(&mut records, at, *how, rest);
    let store: Records = records.into_iter().map(|(key, value)| (key, value.into())).collect();
    match me.role {
        Role::Server => drive({
            let mut server = Server::restore(me, &store, KEPT.now);
            move |moment, input| server.handle(moment, input)
        }),
        Role::Hospital => drive({
            let mut hospital = Hospital::restore(me, &store);
            move |moment, input| hospital.handle(moment, input)
        }),
        _ => match Patient::restore(me, KEPT.build.policy.clone(), KEPT.build.schema(), &store) {
            Ok(mut patient) => drive(move |moment, input| patient.handle(moment, input)),
            Err(error) => return error.to_string().is_empty(),
        },
    }
    true
}

/// Changes one record: other bytes in its place, some of them, an end that is missing, another record's value, or none.
fn change(records: &mut Stored, at: usize, how: u8, rest: &[u8]) {
    let number = |of: &[u8]| of.iter().take(2).fold(0, |number, byte| number << 8 | usize::from(*byte));
    let value = &mut records[at].1;
    match how % 6 {
        0 => *value = rest.to_vec(),
        1 => value.truncate(number(rest) % (value.len() + 1)),
        2 if !value.is_empty() => {
            let from = number(rest) % value.len();
            let changed = rest.get(2..).unwrap_or_default();
            value[from..].iter_mut().zip(changed).for_each(|(old, new)| *old ^= new);
        }
        3 => {
            let other = number(rest) % records.len();
            records[at].1 = records[other].1.clone();
        }
        4 => value.extend_from_slice(rest),
        _ => drop(records.remove(at)),
    }
}

/// What comes next: time passes, the broker is back, a message, and what the jobs give.
fn drive(mut handle: impl FnMut(&Moment, Input) -> Effects) {
    let (address, payload) = KEPT.next.clone();
    let message = Input::Message { address, payload };
    let mut jobs = Vec::new();
    for (after, input) in [(0, Input::Tick), (1, Input::Reconnected), (2, message), (600, Input::Tick)] {
        let moment = Moment::new(KEPT.now.plus_seconds(after), [after as u8; 32]);
        jobs.extend(handle(&moment, input).jobs);
        for (id, job) in std::mem::take(&mut jobs) {
            let _ = handle(&moment, Input::Done(id, job.run()));
        }
    }
}

pub fn corpus() -> Corpus {
    let ways: [(&str, u8, &[u8]); 9] = [
        ("whole", 4, &[]),
        ("empty", 0, &[]),
        ("of-an-array-of-4-gib", 0, &[0xdd, 0xff, 0xff, 0xff, 0xff]),
        ("of-junk", 0, b"junk"),
        ("cut-after-its-first-byte", 1, &[0, 1]),
        ("with-a-bit-flipped", 2, &[0, 9, 1]),
        ("of-another", 3, &[0, 1]),
        ("with-a-byte-too-many", 4, &[0xc0]),
        ("missing", 5, &[]),
    ];
    let mut corpus = Corpus::new();
    for (owner, who) in (0..).zip(OWNERS) {
        for (record, (key, _)) in (0..).zip(&KEPT.owners[usize::from(owner)].1) {
            // A digest says nothing to a reader, and is another one when a message is.
            let key: String = key.split('/').filter(|part| part.len() < 64).collect::<Vec<_>>().join("-");
            for (what, how, rest) in ways {
                corpus.insert(format!("{who}-{key}-{what}"), [&[owner, record, how], rest].concat());
            }
        }
    }
    corpus
}

//! A store that is damaged, torn or of somebody else: `restore` of each machine, and what it does next.

use std::sync::LazyLock;

use bytes::Bytes;
use protocol::*;

use super::Corpus;
use crate::support::{Build, Study, name, server};

/// Whose store it is: the first byte. Which of its records is changed is the second, how is the third.
const OWNERS: [&str; 7] =
    ["hospital", "server", "p00", "p04", "server-1", "server-1-without-the-list", "server-1-without-the-roster"];

/// The records of one party, by key.
type Stored = Vec<(String, Vec<u8>)>;

/// What a party has in its store in the middle of a study.
struct Kept {
    build: Build,
    now: Time,
    me: Me,
    records: Stored,
    /// A message that it is sent next.
    next: (Address, Bytes),
}

/// In the order of [`OWNERS`].
static KEPT: LazyLock<Vec<Kept>> = LazyLock::new(|| {
    let (one, two) = (in_a_round(1), in_a_round(2));
    let of_one = ["hospital", "server", "p00", "p04"].map(|who| Kept::of(&one, &name(who), Kind::Cohort));
    let another = Kept::of(&two, &server(1), Kind::Cohort);
    let following = [Kind::List, Kind::Roster].map(|lost| Kept::of(&without(lost), &server(1), lost));
    of_one.into_iter().chain([another]).chain(following).collect()
});

impl Kept {
    /// What `who` has in its store, where the newest message of kind `next` comes next: its own, if there is one.
    fn of(study: &Study, who: &Name, next: Kind) -> Self {
        let records = study.net.store(who).unwrap().iter();
        let messages = || study.net.board().iter().rev().filter(|(address, _)| address.kind == next);
        let next = messages().find(|(address, _)| address.to.includes(who)).or_else(|| messages().next()).unwrap();
        Self {
            build: study.build.clone(),
            now: study.net.now(),
            me: study.net.me(who).unwrap().clone(),
            records: records.map(|(key, value)| (key.clone(), value.to_vec())).collect(),
            next: (next.0.clone(), next.1.clone()),
        }
    }
}

/// A study whose last round stands before its end.
fn in_a_round(servers: usize) -> Study {
    let mut study = Build { servers, ..Build::new(5, 3, 1) }.start();
    study.ask();
    let cut = study.cut(|delivery| delivery.address.kind == Kind::MaskSum);
    study.put(|ask| ask.last = true);
    study.settle();
    cut.mend();
    study
}

/// A study of two servers in which the second does not get this.
fn without(lost: Kind) -> Study {
    let mut study = Build { servers: 2, ..Build::new(5, 3, 1) }.parties();
    let cut = study.cut(move |delivery| delivery.address.kind == lost && delivery.receiver == server(1));
    study.announce();
    study.net.run();
    cut.mend();
    study
}

/// Restores a party from a store with one changed record, and has it go on. It may refuse to start; it may not panic.
pub fn run(bytes: &[u8]) -> bool {
    let [owner, record, how, rest @ ..] = bytes else { return false };
    let kept = &KEPT[usize::from(*owner) % OWNERS.len()];
    let (me, mut records) = (kept.me.clone(), kept.records.clone());
    let at = usize::from(*record) % records.len();
    change(&mut records, at, *how, rest);
    let store: Records = records.into_iter().map(|(key, value)| (key, value.into())).collect();
    match me.role {
        Role::Server => kept.drive({
            let mut server = Server::restore(me, &store, kept.now);
            move |moment, input| server.handle(moment, input)
        }),
        Role::Hospital => kept.drive({
            let mut hospital = Hospital::restore(me, &store);
            move |moment, input| hospital.handle(moment, input)
        }),
        _ => match Patient::restore(me, kept.build.policy.clone(), kept.build.schema(), &store) {
            Ok(mut patient) => kept.drive(move |moment, input| patient.handle(moment, input)),
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

impl Kept {
    /// What comes next: time passes, the broker is back, a message, and what the jobs give.
    fn drive(&self, mut handle: impl FnMut(&Moment, Input) -> Effects) {
        let (address, payload) = self.next.clone();
        let message = Input::Message { address, payload };
        let mut jobs = Vec::new();
        for (after, input) in [(0, Input::Tick), (1, Input::Reconnected), (2, message), (600, Input::Tick)] {
            let moment = Moment::new(self.now.plus_seconds(after), [after as u8; 32]);
            jobs.extend(handle(&moment, input).jobs);
            for (id, job) in std::mem::take(&mut jobs) {
                let _ = handle(&moment, Input::Done(id, job.run()));
            }
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
        for (record, (key, _)) in (0..).zip(&KEPT[usize::from(owner)].records) {
            // A digest says nothing to a reader, and is another one when a message is.
            let key: String = key.split('/').filter(|part| part.len() < 64).collect::<Vec<_>>().join("-");
            for (what, how, rest) in ways {
                corpus.insert(format!("{who}-{key}-{what}"), [&[owner, record, how], rest].concat());
            }
        }
    }
    corpus
}

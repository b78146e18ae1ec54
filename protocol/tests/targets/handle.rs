//! Each machine's `handle`, in the middle of a round with real seals and signatures: any bytes, under any kind, also signed
//! by whom they should be from; and any bytes in answer to what a machine reads by name.

use std::cell::{Cell, RefCell};
use std::collections::{BTreeMap, BTreeSet};
use std::rc::Rc;

use bytes::Bytes;
use protocol::memory::Delivery;
use protocol::message::{Joins, List};
use protocol::*;
use serde_bytes::ByteBuf;

use super::{Corpus, bad, reads};
use crate::support::samples::{samples, signed};
use crate::support::{Build, End, Study, attachment_digest, encode, name, p, server, stand};

/// To whom: the first byte. Its name, of how many servers its study has, and what files call it.
const RECEIVERS: [(&str, usize, &str); 7] = [
    ("hospital", 1, "hospital"),
    ("server", 1, "server"),
    ("p00", 1, "p00"),
    ("p04", 1, "p04"),
    ("server-1", 2, "server-1"),
    ("server", 2, "server-of-two"),
    ("hospital", 2, "hospital-of-two"),
];
/// Before which kind the round stands still: the second byte.
const MOMENTS: [Kind; 7] = [Kind::Key, Kind::Share, Kind::Cohort, Kind::Open, Kind::MaskSum, Kind::Join, Kind::List];
/// What is done with the bytes after the fourth, which is the kind: the third byte. For the answer to a read the second
/// byte says which read, and the fourth how it is answered.
const USES: [&str; 4] = ["payload", "body", "attachment", "read"];
/// Which of [`USES`] is the answer to a read.
const READ: u8 = 3;

/// So many inputs go into one study, before it is ended and its sum is checked.
const INPUTS: usize = 100;

/// Hands bytes to a machine. Whatever they are: no panic, and nobody confirms two cohorts of one round. Where they are not
/// signed, the round ends with the right sum.
pub fn run(bytes: &[u8]) -> bool {
    let [receiver, moment, what, kind, rest @ ..] = bytes else { return false };
    let (receiver, servers, _) = RECEIVERS[usize::from(*receiver) % RECEIVERS.len()];
    let (receiver, what) = (name(receiver), *what % USES.len() as u8);
    if what == READ {
        return reads::run(&receiver, servers, usize::from(*moment), *kind, rest);
    }
    let moment = usize::from(*moment) % MOMENTS.len();
    let kind = Kind::ALL[usize::from(*kind) % Kind::ALL.len()];
    thread_local! {
        static STUDIES: RefCell<BTreeMap<(usize, usize, bool), Paused>> = RefCell::default();
    }
    STUDIES.with_borrow_mut(|studies| {
        let which = (servers, moment, what != 0 && kind != Kind::Chunk);
        let paused = studies.remove(&which);
        let mut paused = paused.unwrap_or_else(|| Paused::before(servers, MOMENTS[moment], which.2));
        let taken = paused.hand(&receiver, kind, what, rest);
        if paused.inputs < INPUTS {
            studies.insert(which, paused);
        } else {
            paused.end();
        }
        taken
    })
}

/// A study whose round stands still, because messages of one kind are held back.
struct Paused {
    study: Study,
    open: Rc<Cell<bool>>,
    held: Rc<RefCell<Vec<Delivery>>>,
    signed: bool,
    inputs: usize,
}

impl Paused {
    fn before(servers: usize, kind: Kind, signed: bool) -> Self {
        let mut study = build(servers).parties();
        study.announce();
        study.put(|_| {});
        let (open, held) = (Rc::new(Cell::new(false)), Rc::<RefCell<Vec<Delivery>>>::default());
        let (opened, kept) = (open.clone(), held.clone());
        study.net.tamper(move |delivery| {
            if delivery.address.kind != kind || opened.get() {
                return vec![delivery];
            }
            kept.borrow_mut().push(delivery);
            vec![]
        });
        // Joins close by the clock at the latest; a round that stands still does not end by it.
        while held.borrow().is_empty() && study.net.advance(study.net.now().plus_seconds(40)) {}
        study.settle();
        Self { study, open, held, signed, inputs: 0 }
    }

    fn hand(&mut self, receiver: &Name, kind: Kind, what: u8, rest: &[u8]) -> bool {
        self.inputs += 1;
        let (address, payload) = self.message(receiver, kind, what, rest);
        let before = self.study.net.events().len();
        self.open.set(true);
        self.study.net.inject(Delivery { receiver: receiver.clone(), address, payload, delay: 0 });
        self.study.net.step();
        self.open.set(false);
        self.study.settle();
        self.no_two_cohorts();
        let new = &self.study.net.events()[before..];
        !new.iter().any(|(who, event)| who == receiver && matches!(event, Event::Fault(_) | Event::Dropped { .. }))
    }

    /// The bytes as a message: as they are, or in one that is signed by who sends such.
    fn message(&self, receiver: &Name, kind: Kind, what: u8, rest: &[u8]) -> (Address, Bytes) {
        let sender = sender_of(kind, self.study.build.servers);
        let setup = self.study.net.count(Kind::Begin) == 0 || (kind as u8) < Kind::Begin as u8;
        let round = if setup { RoundNo::SETUP } else { RoundNo(1) };
        // A chunk is no frame.
        let frames = if kind == Kind::Chunk { Vec::new() } else { self.study.frames(kind) };
        let real = frames.into_iter().find(|(address, _)| address.from == sender);
        let after = real.as_ref().map_or_else(|| self.continued(kind), |(_, frame)| frame.envelope.after);
        let (body, attachment) = match (what, real) {
            (2, Some((_, frame))) => (naming(&frame.envelope, rest), rest),
            _ => (rest.to_vec(), &[][..]),
        };
        let session = if kind == Kind::Announce { Digest::default() } else { self.study.session };
        let body = ByteBuf::from(body);
        let envelope =
            Envelope { version: VERSION, session, round, from: sender.clone(), to: To::All, kind, after, body };
        let signed = Signed::new(&envelope, &self.study.net.me(&sender).unwrap().signing);
        let (address, payload) = stand(&signed, receiver, attachment);
        if self.signed {
            return (address, payload);
        }
        let session = self.study.session.into();
        (Address { session, ..address }, Bytes::copy_from_slice(rest))
    }

    /// What a message of this kind would continue, where none was written yet.
    fn continued(&self, kind: Kind) -> Digest {
        let continued = [Kind::Open, Kind::Cohort, Kind::Begin, Kind::Roster].into_iter();
        let mut older = continued.filter(|other| (*other as u8) < kind as u8).flat_map(|kind| self.study.frames(kind));
        older.next().map_or(self.study.session, |(_, frame)| frame.digest)
    }

    fn no_two_cohorts(&self) {
        let confirms = self
            .study
            .frames(Kind::Confirm)
            .into_iter()
            .map(|(address, frame)| ((address.from, address.round), frame.envelope.after));
        let different: BTreeSet<((Name, RoundNo), Digest)> = confirms.collect();
        let confirmed: BTreeSet<&(Name, RoundNo)> = different.iter().map(|(who, _)| who).collect();
        assert_eq!(confirmed.len(), different.len(), "a member confirmed two cohorts of a round");
    }

    fn end(mut self) {
        self.open.set(true);
        self.held.take().into_iter().for_each(|delivery| self.study.net.inject(delivery));
        self.study.net.run();
        self.no_two_cohorts();
        if !self.signed {
            assert_eq!(self.study.end(), self.study.sum(0..5));
        }
        assert!(self.study.ends().iter().filter(|end| matches!(end, End::Opened(_))).count() <= 1);
    }
}

/// A study of so many servers; with two of them vectors have several chunks, so that each server has a part.
pub fn build(servers: usize) -> Build {
    let build = Build { servers, ..Build::new(5, 3, 1) };
    // As wide as words are, few coordinates are enough.
    if servers == 1 { build } else { Build { bound: 1 << 59, ..build }.wide(66_000) }
}

/// The body of a real message with this attached: a List names what comes with it, or that is not looked at.
fn naming(real: &Envelope, attachment: &[u8]) -> Vec<u8> {
    match real.body::<List>() {
        Ok(list) if real.kind == Kind::List => encode(&List { joins: attachment_digest(attachment), ..list }),
        _ => real.body.to_vec(),
    }
}

/// Who sends a kind, where there are so many servers.
fn sender_of(kind: Kind, servers: usize) -> Name {
    match kind {
        Kind::Join | Kind::MaskedSum if servers == 2 => server(1),
        Kind::Roster | Kind::List | Kind::Place | Kind::Cohort | Kind::MaskedSum => name("server"),
        Kind::Held | Kind::Confirm | Kind::Refuse | Kind::MaskSum | Kind::CheckSum => p(1),
        Kind::Join | Kind::Key | Kind::Share | Kind::Chunk | Kind::Decline => p(3),
        _ => name("hospital"),
    }
}

pub fn corpus() -> Corpus {
    let wholes: BTreeMap<Kind, Vec<u8>> = samples().into_iter().map(|sample| (sample.kind, sample.body)).collect();
    let mut corpus = Corpus::new();
    for (number, kind) in (0..).zip(Kind::ALL) {
        for (to, (_, servers, receiver)) in (0..).zip(RECEIVERS) {
            // Of two servers, the first and the hospital hear nothing new but what the second one says.
            if servers == 2 && receiver != "server-1" && sender_of(kind, servers) != server(1) {
                continue;
            }
            let moment = match (receiver, kind) {
                // Before another server than the first has the Roster, and before it has the list.
                ("server-1", Kind::Roster) => 5,
                ("server-1", Kind::List) => 6,
                // Studies of one server stand still before the kinds that there were first.
                _ if servers == 1 => (number + to) % 5,
                _ => (number + to) % MOMENTS.len() as u8,
            };
            let mut add = |what: u8, of: &str, rest: &[u8]| {
                let name = format!("{kind}-to-{receiver}-{}-{of}", USES[usize::from(what)]);
                corpus.insert(name, [&[to, moment, what, number], rest].concat());
            };
            add(0, "junk", b"junk");
            let Some(whole) = wholes.get(&kind) else { continue };
            add(1, "whole", whole);
            add(2, "an-array-of-4-gib", &[0xdd, 0xff, 0xff, 0xff, 0xff]);
            let variants = bad::variants(whole);
            let (what, bytes) = &variants[(usize::from(number) * 7 + usize::from(to) * 3) % variants.len()];
            add(1, what, bytes);
            if let ("server-1", Kind::List) = (receiver, kind) {
                add(2, "joins-of-nobody", &encode(&Joins(vec![signed(1), signed(2)])));
            }
        }
    }
    let readers = (0..).zip(RECEIVERS).filter(|(_, (receiver, ..))| !receiver.starts_with('p'));
    for (to, (_, _, called)) in readers {
        for (which, (what, how, rest)) in (0..).zip(reads::answers()) {
            corpus.insert(format!("read-by-{called}-{what}"), [&[to, which, READ, how], rest].concat());
        }
    }
    corpus
}

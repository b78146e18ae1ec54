//! A study that runs in memory: what one does with it, and what one reads of it.

use std::cell::Cell;
use std::collections::BTreeMap;
use std::rc::Rc;

use protocol::memory::{Delivery, Network};
use protocol::message::{Cohort, Open, Roster, Share};
use protocol::*;
use serde::de::DeserializeOwned;
use serde_bytes::ByteBuf;

use super::{Build, name, p, snapshot, value};

/// How a round ended, as the hospital says.
#[derive(Debug, PartialEq)]
pub enum End {
    Opened(Vec<i64>),
    Aborted(AbortReason),
}

/// A study that runs.
pub struct Study {
    pub net: Network,
    pub build: Build,
    pub session: SessionId,
}

impl Study {
    pub fn announce(&mut self) -> SessionId {
        let plan = self.build.plan(self.net.now());
        self.session = self.net.announce(&plan).unwrap();
        self.session
    }

    pub fn question(&self) -> Ask {
        Ask {
            question: Question::Sum(self.build.columns.clone()),
            snapshot: snapshot("1"),
            ring: None,
            scale: self.build.scale,
            scaled_bound: self.build.bound,
            enough: None,
            round_seconds: 60,
            audit: Audit::Sample,
            last: false,
        }
    }

    /// Puts a question and lets everything happen that follows.
    pub fn ask_with(&mut self, change: impl FnOnce(&mut Ask)) -> End {
        self.put(change);
        self.net.run();
        self.end()
    }

    pub fn ask(&mut self) -> End {
        self.ask_with(|_| {})
    }

    /// Puts a question; nothing is delivered yet.
    pub fn put(&mut self, change: impl FnOnce(&mut Ask)) {
        let mut ask = self.question();
        change(&mut ask);
        self.net.ask(self.session, ask).unwrap();
    }

    /// Runs until `done`, step by step.
    pub fn until(&mut self, done: impl Fn(&Network) -> bool) {
        let until = self.net.now().plus_seconds(86_400);
        while !done(&self.net) {
            assert!(self.net.advance(until), "nothing more happens");
        }
    }

    /// Runs until nothing is on its way; the clock stands still.
    pub fn settle(&mut self) {
        while self.net.step() {}
    }

    /// Loses every message that `doomed` says, until the [`Cut`] is mended; it takes the place of what tampered before.
    pub fn cut(&mut self, doomed: impl Fn(&Delivery) -> bool + 'static) -> Cut {
        let on = Rc::new(Cell::new(true));
        let cut = Cut(on.clone());
        self.net.tamper(move |delivery| if on.get() && doomed(&delivery) { vec![] } else { vec![delivery] });
        cut
    }

    /// How the newest round ended.
    pub fn end(&self) -> End {
        self.ends().pop().expect("the hospital has the end of a round")
    }

    /// How all rounds ended.
    pub fn ends(&self) -> Vec<End> {
        let of_hospital = self.net.events().iter().filter(|(who, _)| *who == name("hospital"));
        of_hospital
            .filter_map(|(_, event)| match event {
                Event::Opened(answer) => Some(End::Opened(answer.sum.clone())),
                Event::Aborted { reason, .. } => Some(End::Aborted(reason.clone())),
                _ => None,
            })
            .collect()
    }

    /// What the hospital advised with its newest Abort.
    pub fn advice(&self) -> String {
        let advice = self.net.events().iter().rev().find_map(|(who, event)| match event {
            Event::Aborted { advice, .. } if *who == name("hospital") => Some(advice.clone()),
            _ => None,
        });
        advice.unwrap_or_default()
    }

    /// The sum over these patients.
    pub fn sum(&self, of: impl IntoIterator<Item = usize> + Clone) -> End {
        let coordinates = self.build.columns.iter().flat_map(|column| 0..column.width);
        End::Opened(coordinates.map(|j| of.clone().into_iter().map(|i| value(i, j)).sum()).collect())
    }

    /// The sum over these patients where `columns` scalar columns are asked.
    pub fn sum_of(&self, of: impl IntoIterator<Item = usize>, columns: usize) -> End {
        End::Opened(vec![of.into_iter().map(|i| value(i, 0)).sum(); columns])
    }

    pub fn all(&self) -> std::ops::Range<usize> {
        0..self.build.patients
    }

    /// Every fault that anybody found: who found it, and what.
    pub fn faults(&self) -> Vec<(Name, Fault)> {
        let faults = self.net.events().iter().filter_map(|(who, event)| match event {
            Event::Fault(fault) => Some((who.clone(), fault.clone())),
            _ => None,
        });
        faults.collect()
    }

    /// Who is named in faults, each once.
    pub fn accused(&self) -> Vec<Name> {
        let mut names: Vec<Name> = self.faults().into_iter().map(|(_, fault)| fault.from).collect();
        names.sort();
        names.dedup();
        names
    }

    /// What was dropped without a fault at `who`, by kind and reason.
    pub fn dropped(&self, who: &Name) -> Vec<(Kind, &'static str)> {
        let dropped = self.net.events().iter().filter(|(party, _)| party == who).filter_map(|(_, event)| match event {
            Event::Dropped { kind, why, .. } => Some((*kind, *why)),
            _ => None,
        });
        dropped.collect()
    }

    /// The messages of one kind that stand on the board for this session, oldest round first.
    pub fn frames(&self, kind: Kind) -> Vec<(Address, Frame)> {
        let tag = self.session.into();
        let of_kind = self.net.board().iter().filter(|(address, _)| address.kind == kind && address.session == tag);
        let mut frames: Vec<_> =
            of_kind.map(|(address, bytes)| (address.clone(), Frame::decode(bytes).unwrap())).collect();
        frames.sort_by_key(|(address, _)| (address.round, address.from.clone(), address.to.clone()));
        frames
    }

    /// The newest message of one kind from `from`.
    pub fn newest(&self, kind: Kind, from: &Name) -> Frame {
        let frames = self.frames(kind).into_iter().rev();
        frames.map(|(_, frame)| frame).find(|frame| frame.envelope.from == *from).expect("such a message was written")
    }

    pub fn roster(&self) -> Frame {
        self.newest(Kind::Roster, &name("server"))
    }

    pub fn begin(&self) -> Frame {
        self.newest(Kind::Begin, &name("hospital"))
    }

    pub fn cohort(&self) -> Frame {
        self.newest(Kind::Cohort, &name("server"))
    }

    /// Who is in the newest Cohort.
    pub fn cohort_places(&self) -> Vec<usize> {
        let cohort: Cohort = self.cohort().envelope.body().unwrap();
        cohort.places.iter().map(|place| place.0 as usize).collect()
    }

    /// The committee, by seat.
    pub fn committee(&self) -> Vec<Name> {
        let roster: Roster = self.roster().envelope.body().unwrap();
        roster.committee.iter().map(|join| join.open().unwrap().envelope.from).collect()
    }

    pub fn round(&self) -> RoundNo {
        self.begin().envelope.round
    }

    /// The Open that the hospital last wrote.
    pub fn open(&self) -> (Frame, Open) {
        let frame = self.newest(Kind::Open, &name("hospital"));
        let open = frame.envelope.body().unwrap();
        (frame, open)
    }

    /// The digests of the Shares of one round, by place.
    pub fn shares(&self, round: u32) -> BTreeMap<usize, Digest> {
        let shares = self.frames(Kind::Share).into_iter().filter(|(address, _)| address.round.0 == round);
        let place = |frame: &Frame| {
            let share: Share = frame.envelope.body().unwrap();
            share.open_core().unwrap().place.0 as usize
        };
        shares.map(|(_, frame)| (place(&frame), frame.digest)).collect()
    }

    /// A record of a party's store for this session, decoded.
    pub fn stored<T: DeserializeOwned>(&self, who: &Name, what: &str) -> Option<T> {
        let bytes = self.stored_bytes(who, what)?;
        Some(rmp_serde::from_slice(&bytes).unwrap())
    }

    pub fn stored_bytes(&self, who: &Name, what: &str) -> Option<Vec<u8>> {
        self.net.store(who).unwrap().get(&format!("session/{}/{what}", self.session)).map(|value| value.to_vec())
    }

    /// The chain keys that patient `who` shares with each seat, as its store has them, moved on to `round`.
    pub fn chains(&self, who: &Name, round: u32) -> Vec<ChainKey> {
        let stored: Vec<(u32, ByteBuf)> = self.stored(who, "chains").unwrap();
        let key = |(at, key): (u32, ByteBuf)| {
            ChainKey::new(key.as_slice().try_into().unwrap()).advance(round.checked_sub(at).unwrap())
        };
        stored.into_iter().map(key).collect()
    }
}

/// Messages that get lost until this is mended.
pub struct Cut(Rc<Cell<bool>>);

impl Cut {
    /// From now on they get through again.
    pub fn mend(self) {
        self.0.set(false);
    }
}

/// Whether this is a message of one kind to one of these patients.
pub fn among(delivery: &Delivery, kind: Kind, receivers: &[usize]) -> bool {
    delivery.address.kind == kind && receivers.iter().any(|i| p(*i) == delivery.receiver)
}

/// Which rule a fault broke, if it is one.
pub fn rule_of(fault: &Fault) -> &'static str {
    match &fault.wrong {
        Wrong::Rule(rule) => rule,
        _ => "",
    }
}

//! What must hold after every step, whatever goes wrong.

use std::collections::{BTreeMap, BTreeSet};

use super::shape::{Cast, DIGIT_BITS, Shape};
use crate::id::{Digest, Kind, Name, RoundNo, SessionId, Snapshot};
use crate::memory::Step;
use crate::message::{Begin, Cohort, Share};
use crate::step::{Answer, Effects, Event, Input};
use crate::wire::Frame;

/// A rule that did not hold.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Failure {
    /// Which rule, in a word or two: stable, for programs.
    pub rule: &'static str,
    /// What happened.
    pub what: String,
}

/// A cohort that a server fixed.
#[derive(Clone, Debug)]
struct Fixed {
    session: SessionId,
    round: RoundNo,
    snapshot: Snapshot,
    cohort: Cohort,
    confirmed: BTreeSet<Name>,
}

/// Looks on and judges.
#[derive(Debug)]
pub(super) struct Oracle {
    cast: Cast,
    quorum: usize,
    min_cohort: u32,
    dimension: u32,
    /// Over everything that machines were handed and did.
    trace: blake3::Hasher,
    /// Who came back with an older store, and so may have forgotten what it promised.
    pub(super) restored: BTreeSet<Name>,
    /// Who is where on the Roster.
    places: BTreeMap<(SessionId, u32), u8>,
    /// Over which snapshot each Begin asks.
    begins: BTreeMap<Digest, Snapshot>,
    fixed: BTreeMap<Digest, Fixed>,
    /// Which cohort each member confirmed.
    confirms: BTreeMap<(Name, SessionId, RoundNo), Digest>,
    /// Where each snapshot of each patient went.
    shared: BTreeMap<(Name, Snapshot), SessionId>,
    /// Which of its values each patient was counted with.
    versions: BTreeMap<(u8, Snapshot), u8>,
    /// All answers: which session and round, and who is in.
    pub(super) answers: Vec<(SessionId, RoundNo, Snapshot, BTreeSet<u8>)>,
    /// How many rounds and sessions ended without an answer, by reason.
    pub(super) aborts: BTreeMap<&'static str, u64>,
    /// How many rounds and sessions ended at the hospital, with or without an answer.
    pub(super) ends: u64,
    pub(super) failure: Option<Failure>,
}

impl Oracle {
    pub(super) fn new(shape: &Shape, cast: &Cast) -> Self {
        Self {
            cast: cast.clone(),
            quorum: shape.quorum().into(),
            min_cohort: shape.min_cohort.into(),
            dimension: shape.dimension * 2,
            trace: blake3::Hasher::new_derive_key("ward/1 simulated trace"),
            restored: BTreeSet::new(),
            places: BTreeMap::new(),
            begins: BTreeMap::new(),
            fixed: BTreeMap::new(),
            confirms: BTreeMap::new(),
            shared: BTreeMap::new(),
            versions: BTreeMap::new(),
            answers: Vec::new(),
            aborts: BTreeMap::new(),
            ends: 0,
            failure: None,
        }
    }

    /// The digest of everything so far.
    pub(super) fn trace(&self) -> Digest {
        Digest(*self.trace.finalize().as_bytes())
    }

    /// The first failure is the one that counts.
    pub(super) fn fail(&mut self, rule: &'static str, what: String) {
        self.failure.get_or_insert(Failure { rule, what });
    }

    /// Whether nobody came back with an older store: everybody knows what it promised, and what it was sent.
    pub(super) fn all_remember(&self) -> bool {
        self.restored.is_empty()
    }

    /// Takes one step of one party's machine.
    pub(super) fn look(&mut self, who: &Name, step: &Step<'_>) {
        self.absorb(who.as_str().as_bytes());
        match step {
            Step::Input(input) => self.absorb_input(input),
            Step::Effects(effects) => {
                self.absorb_effects(effects);
                effects.send.iter().for_each(|sent| self.judge_message(who, sent.address.kind, &sent.payload));
                effects.events.iter().for_each(|event| self.judge_event(who, event));
            }
        }
    }

    fn absorb(&mut self, bytes: &[u8]) {
        self.trace.update(&(bytes.len() as u64).to_le_bytes());
        self.trace.update(bytes);
    }

    fn absorb_input(&mut self, input: &Input) {
        match input {
            Input::Message { address, payload } => {
                self.absorb(&address.name.0);
                self.absorb(payload);
            }
            Input::Sent(address) => self.absorb(&address.name.0),
            Input::Read { address, payload } => {
                self.absorb(&address.name.0);
                self.absorb(payload.as_deref().unwrap_or_default());
            }
            Input::Done(..) => self.absorb(b"done"),
            Input::Reconnected => self.absorb(b"reconnected"),
            Input::Tick => self.absorb(b"tick"),
        }
    }

    fn absorb_effects(&mut self, effects: &Effects) {
        for write in &effects.store {
            self.absorb(write.key.as_bytes());
            self.absorb(write.value.as_ref().map_or(&[], |value| value.as_slice()));
        }
        for sent in &effects.send {
            self.absorb(&sent.address.name.0);
            self.absorb(&sent.payload);
        }
        self.absorb(&effects.wake.map_or(0, |wake| wake.0).to_le_bytes());
    }

    fn judge_message(&mut self, who: &Name, kind: Kind, payload: &bytes::Bytes) {
        if !matches!(kind, Kind::Begin | Kind::Share | Kind::Cohort | Kind::Confirm) {
            return;
        }
        let Ok(frame) = Frame::decode(payload) else {
            return self.fail("encoding", format!("{who} sent a {kind} that nobody can read"));
        };
        let (session, round) = (frame.envelope.session, frame.envelope.round);
        match kind {
            Kind::Begin => {
                if let Ok(begin) = frame.envelope.body::<Begin>() {
                    self.begins.insert(frame.digest, begin.snapshot);
                }
            }
            Kind::Share => {
                let core = frame.envelope.body::<Share>().ok().and_then(|share| share.open_core());
                if let (Some(core), Some(i)) = (core, self.cast.number(who)) {
                    self.places.insert((session, core.place.0), i);
                }
            }
            Kind::Cohort => self.judge_cohort(&frame),
            _ => self.judge_confirm(who, session, round, frame.envelope.after),
        }
    }

    fn judge_cohort(&mut self, frame: &Frame) {
        let (session, round) = (frame.envelope.session, frame.envelope.round);
        let Ok(cohort) = frame.envelope.body::<Cohort>() else { return };
        let Some(snapshot) = self.begins.get(&frame.envelope.after).cloned() else {
            return self.fail("cohort", format!("a Cohort of round {} answers no Begin", round.0));
        };
        let fixed = Fixed { session, round, snapshot, cohort, confirmed: BTreeSet::new() };
        self.fixed.entry(frame.digest).or_insert(fixed);
    }

    /// A member confirms one cohort of a round and never another; what q confirmed is open to whoever has their sums.
    fn judge_confirm(&mut self, who: &Name, session: SessionId, round: RoundNo, cohort: Digest) {
        let first = *self.confirms.entry((who.clone(), session, round)).or_insert(cohort);
        if first != cohort && !self.restored.contains(who) {
            self.fail("one confirm", format!("{who} confirmed two cohorts of round {}", round.0));
        }
        let Some(fixed) = self.fixed.get_mut(&cohort) else {
            return self.fail("confirm", format!("{who} confirmed what is no cohort"));
        };
        fixed.confirmed.insert(who.clone());
        if fixed.confirmed.len() == self.quorum {
            let opened = fixed.clone();
            self.judge_opening(cohort, &opened);
        }
    }

    /// One opening a round, of k patients or more; and over a snapshot the same people or others.
    fn judge_opening(&mut self, digest: Digest, opened: &Fixed) {
        if opened.cohort.places.len() < self.min_cohort {
            self.fail("smallest cohort", format!("round {} opens {}", opened.round.0, opened.cohort.places.len()));
        }
        let quorum = self.quorum;
        let others = self.fixed.iter().filter(|(other, fixed)| **other != digest && fixed.confirmed.len() >= quorum);
        let mut failures = Vec::new();
        for (_, other) in others.filter(|(_, other)| other.session == opened.session) {
            if other.round == opened.round {
                failures.push(("one opening", format!("two cohorts of round {} can be opened", opened.round.0)));
            }
            if other.snapshot == opened.snapshot && !other.cohort.places.same_or_apart(&opened.cohort.places) {
                let what = format!("rounds {} and {} open cohorts that overlap", other.round.0, opened.round.0);
                failures.push(("same or apart", what));
            }
        }
        failures.into_iter().for_each(|(rule, what)| self.fail(rule, what));
    }

    fn judge_event(&mut self, who: &Name, event: &Event) {
        match event {
            Event::Shared { session, snapshot, .. } => {
                let first = *self.shared.entry((who.clone(), snapshot.clone())).or_insert(*session);
                if first != *session && !self.restored.contains(who) {
                    self.fail("once", format!("{who} shared snapshot {snapshot:?} in two sessions"));
                }
            }
            Event::Fault(fault) if self.restored.is_empty() => {
                self.fail("no accusation", format!("{who} accuses where all follow the protocol: {fault}"));
            }
            Event::Aborted { reason, .. } if *who == self.cast.hospital => {
                *self.aborts.entry(reason.code()).or_default() += 1;
                self.ends += 1;
            }
            Event::Opened(answer) => {
                self.ends += 1;
                self.judge_answer(answer);
            }
            Event::Receipt { session, round, count, included, root } => {
                self.judge_receipt(who, (*session, *round), *count, *included, *root);
            }
            _ => {}
        }
    }

    /// The cohort of an answer or a receipt.
    fn cohort(&self, session: SessionId, round: RoundNo, root: Digest) -> Option<&Fixed> {
        self.fixed.values().find(|f| (f.session, f.round, f.cohort.root) == (session, round, root))
    }

    /// Who is in a cohort, by number.
    fn people(&self, fixed: &Fixed) -> BTreeSet<u8> {
        let places = fixed.cohort.places.iter();
        places.filter_map(|place| self.places.get(&(fixed.session, place.0)).copied()).collect()
    }

    /// The sum says of each patient how often it was counted and with which of its values.
    fn judge_answer(&mut self, answer: &Answer) {
        let round = answer.round.0;
        let Some(fixed) = self.cohort(answer.session, answer.round, answer.cohort_root).cloned() else {
            return self.fail("frozen cohort", format!("the answer of round {round} is over no cohort that was fixed"));
        };
        let people = self.people(&fixed);
        if fixed.confirmed.len() < self.quorum || (answer.confirmations as usize) < self.quorum {
            self.fail("quorum", format!("round {round} was opened with {} Confirms", fixed.confirmed.len()));
        }
        if people.len() != answer.cohort as usize || fixed.snapshot != answer.snapshot {
            self.fail("frozen cohort", format!("the answer of round {round} says {} patients", answer.cohort));
        }
        if let Err(what) = self.count(answer, &people) {
            self.fail("exact sum", format!("round {round} over {people:?}: {what}"));
        }
        self.answers.push((answer.session, answer.round, answer.snapshot.clone(), people));
    }

    fn count(&mut self, answer: &Answer, people: &BTreeSet<u8>) -> Result<(), String> {
        let [first, second, ..] = answer.sum.as_slice() else { return Err("no coordinates".into()) };
        let repeats = answer.sum.chunks(2).all(|pair| pair == [*first, *second]);
        if !repeats || answer.sum.len() != self.dimension as usize {
            return Err("coordinates that must be equal are not".into());
        }
        let digit = |sum: i64, i: u8| (sum >> (DIGIT_BITS * u32::from(i))) & ((1 << DIGIT_BITS) - 1);
        let all = 1_i64 << (DIGIT_BITS * self.cast.patients.len() as u32);
        if [first, second].iter().any(|sum| !(0..all).contains(*sum)) {
            return Err(format!("sums {first:x} and {second:x} hold more than the patients' values"));
        }
        for i in 0..self.cast.patients.len() as u8 {
            let counted = (digit(*first, i), digit(*second, i));
            let version = match (people.contains(&i), counted) {
                (false, (0, 0)) => continue,
                (true, (1, 0)) => 0,
                (true, (0, 1)) => 1,
                (inside, _) => return Err(format!("p{i}, in the cohort: {inside}, is counted {counted:?} times")),
            };
            let frozen = *self.versions.entry((i, answer.snapshot.clone())).or_insert(version);
            let restored = self.cast.patients.get(usize::from(i)).is_some_and(|who| self.restored.contains(who));
            if frozen != version && !restored {
                return Err(format!("p{i} is counted with other values than before"));
            }
        }
        Ok(())
    }

    fn judge_receipt(
        &mut self,
        who: &Name,
        (session, round): (SessionId, RoundNo),
        count: u32,
        included: bool,
        root: Digest,
    ) {
        let Some(i) = self.cast.number(who) else { return };
        let Some(fixed) = self.cohort(session, round, root) else {
            return self.fail("receipt", format!("{who} has a receipt for no cohort that was fixed"));
        };
        let people = self.people(fixed);
        // A patient that came back with an older store may have lost its place.
        if people.len() != count as usize || (people.contains(&i) != included && !self.restored.contains(who)) {
            self.fail(
                "receipt",
                format!("{who} has a receipt of round {} that says otherwise than its cohort", round.0),
            );
        }
    }
}

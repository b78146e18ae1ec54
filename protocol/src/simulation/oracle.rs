//! What must hold after every step, whatever goes wrong.

mod answers;
mod leakage;
mod payload;
mod space;

use std::collections::{BTreeMap, BTreeSet};

use leakage::Released;
use payload::PayloadKeys;

use super::blocks;
use super::masks::Masks;
use super::misreckon::Errors;
use super::shape::{Cast, Shape};
use super::subject;
use crate::error::{Fault, Wrong};
use crate::id::{Digest, Kind, Name, Place, RoundNo, SessionId, Snapshot};
use crate::kdf::chunk_digest;
use crate::memory::{Step, signing_key};
use crate::merkle;
use crate::message::{Begin, Check, Cohort, Open, Share, ShareCore, cohort_leaf};
use crate::step::{Effects, Event, Input};
use crate::wire::{Frame, Signed};

/// A rule that did not hold.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Failure {
    /// Which rule, in a word or two: stable, for programs.
    pub rule: &'static str,
    /// What happened.
    pub what: String,
}

/// A question, and the Roster that it is asked of.
#[derive(Clone, Debug)]
struct Asked {
    begin: Begin,
    roster: Digest,
}

/// A cohort that a server fixed.
#[derive(Clone, Debug)]
struct Fixed {
    session: SessionId,
    round: RoundNo,
    begin: Digest,
    roster: Digest,
    snapshot: Snapshot,
    cohort: Cohort,
    confirmed: BTreeSet<Name>,
}

/// Whether the key of whom a message names signed it: signed once more, as whoever judges must not ask who is judged.
fn is_signed(frame: &Frame) -> bool {
    Signed::new(&frame.envelope, &signing_key(&frame.envelope.from)) == frame.signed()
}

/// Whether a fault says of its sender that it broke a rule; the others can be a relay's work.
fn is_accusation(fault: &Fault) -> bool {
    matches!(fault.wrong, Wrong::Rule(_) | Wrong::Equivocation | Wrong::Certificate(_))
}

/// Looks on and judges.
#[derive(Debug)]
pub(super) struct Oracle {
    shape: Shape,
    cast: Cast,
    quorum: usize,
    min_cohort: u32,
    dimension: u32,
    /// What machines wrote, by its digest.
    sent: BTreeSet<Digest>,
    /// Who was handed what nobody wrote so, and under whose name.
    tampered: BTreeSet<(Name, Name)>,
    /// Whether what a party was just handed stands under a subject of something else.
    readdressed: bool,
    /// Who may say what is not so.
    liars: BTreeSet<Name>,
    /// Over everything that machines were handed and did.
    trace: blake3::Hasher,
    /// Who came back with an older store, and so may have forgotten what it promised.
    pub(super) restored: BTreeSet<Name>,
    /// Who is where on each Roster.
    places: BTreeMap<(Digest, Place), u8>,
    /// What was sent from each place in answer to each Begin; more than one Share where its patient was restored.
    shares: BTreeMap<(Digest, Place), BTreeSet<Digest>>,
    masks: Masks,
    /// What liars added to sums.
    pub(super) errors: Errors,
    begins: BTreeMap<Digest, Asked>,
    /// By session, as each party was shown it, and seat.
    committees: BTreeMap<(Name, SessionId), Vec<Name>>,
    /// What the hospital signed.
    opens: BTreeMap<Digest, (Digest, Open)>,
    /// Which Open each Check continues, and of which blocks it asks for sums.
    checks: BTreeMap<Digest, (Digest, Vec<u16>)>,
    released: Released,
    payload_keys: PayloadKeys,
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
    pub(super) fn new(shape: &Shape, cast: &Cast, liars: BTreeSet<Name>) -> Self {
        Self {
            shape: shape.clone(),
            cast: cast.clone(),
            quorum: shape.quorum().into(),
            min_cohort: shape.min_cohort.into(),
            dimension: shape.dimension * 2,
            sent: BTreeSet::new(),
            tampered: BTreeSet::new(),
            readdressed: false,
            liars,
            trace: blake3::Hasher::new_derive_key("ward/1 simulated trace"),
            restored: BTreeSet::new(),
            places: BTreeMap::new(),
            shares: BTreeMap::new(),
            masks: Masks::default(),
            errors: Errors::default(),
            begins: BTreeMap::new(),
            committees: BTreeMap::new(),
            opens: BTreeMap::new(),
            checks: BTreeMap::new(),
            released: Released::default(),
            payload_keys: PayloadKeys::default(),
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

    /// Whether nobody lies and nobody came back with an older store: everybody knows what it promised, and what it was sent.
    pub(super) fn all_are_honest(&self) -> bool {
        self.restored.is_empty() && self.liars.is_empty()
    }

    /// Takes one step of one party's machine.
    pub(super) fn look(&mut self, who: &Name, step: &Step<'_>) {
        self.absorb(who.as_str().as_bytes());
        match step {
            Step::Input(input) => {
                self.absorb_input(input);
                self.readdressed =
                    matches!(input, Input::Message { address, payload } if subject::differs(address, payload, who));
                self.hear(who, input);
            }
            Step::Effects(effects) => {
                self.absorb_effects(effects);
                self.judge_subject(who, effects);
                effects.send.iter().for_each(|sent| self.judge_message(who, sent.address.kind, &sent.payload));
                effects.events.iter().for_each(|event| self.judge_event(who, event));
            }
        }
    }

    /// Whoever is handed a message under another subject than its own refuses it (promise 3).
    fn judge_subject(&mut self, who: &Name, effects: &Effects) {
        let refused = |event: &Event| matches!(event, Event::Fault(Fault { wrong: Wrong::Readdressed, .. }));
        if std::mem::take(&mut self.readdressed) && !effects.events.iter().any(refused) {
            self.fail("subject", format!("{who} took what stood under a subject that is not its own"));
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
            self.absorb(write.value.as_deref().unwrap_or(&[]));
        }
        for sent in &effects.send {
            self.absorb(&sent.address.name.0);
            self.absorb(&sent.payload);
            self.sent.insert(chunk_digest(&sent.payload));
        }
        self.absorb(&effects.wake.map_or(0, |wake| wake.0).to_le_bytes());
    }

    /// Whether all that `who` was handed under the name of whom it accuses is what an honest party wrote.
    fn is_honest(&self, who: &Name, fault: &Fault) -> bool {
        let handed = (who.clone(), fault.from.clone());
        !self.liars.contains(&fault.from) && !self.tampered.contains(&handed)
    }

    /// Takes note of what hospital and server signed, whether or not they did so as the protocol says.
    fn hear(&mut self, who: &Name, input: &Input) {
        let Input::Message { address, payload } = input else { return };
        let is_true = self.sent.contains(&chunk_digest(payload));
        if !is_true {
            self.tampered.insert((who.clone(), address.from.clone()));
        }
        if !matches!(address.kind, Kind::Begin | Kind::Cohort | Kind::Open | Kind::Check | Kind::PayloadKey) {
            return;
        }
        let Ok(frame) = Frame::decode(payload) else { return };
        let by = |name: &Name| frame.envelope.from == *name && is_signed(&frame);
        match frame.envelope.kind {
            Kind::Cohort if by(self.cast.first_server()) && self.begins.contains_key(&frame.envelope.after) => {
                self.judge_cohort(&frame);
            }
            Kind::Begin if by(&self.cast.hospital) => self.note_begin(&frame),
            Kind::PayloadKey => self.payload_keys.hand(who, frame.envelope.session, is_true),
            Kind::Open if by(&self.cast.hospital) => {
                if let Ok(open) = frame.envelope.body::<Open>() {
                    self.opens.insert(frame.digest, (frame.envelope.after, open));
                }
            }
            Kind::Check if by(&self.cast.hospital) => {
                if let Ok(check) = frame.envelope.body::<Check>() {
                    self.checks.insert(frame.digest, (frame.envelope.after, check.blocks));
                }
            }
            _ => {}
        }
    }

    fn judge_message(&mut self, who: &Name, kind: Kind, payload: &bytes::Bytes) {
        let judged = [Kind::Begin, Kind::Share, Kind::Cohort, Kind::Confirm, Kind::MaskSum, Kind::CheckSum];
        if !judged.contains(&kind) {
            return;
        }
        let Ok(frame) = Frame::decode(payload) else {
            return self.fail("encoding", format!("{who} sent a {kind} that nobody can read"));
        };
        let (session, round) = (frame.envelope.session, frame.envelope.round);
        match kind {
            Kind::Begin => self.note_begin(&frame),
            Kind::Share => {
                let core = frame.envelope.body::<Share>().ok().and_then(|share| share.open_core());
                if let (Some(core), Some(i)) = (core, self.cast.number(who)) {
                    self.judge_share(who, i, &frame, &core);
                }
            }
            Kind::Cohort => self.judge_cohort(&frame),
            Kind::MaskSum => {
                self.judge_release(who, (session, round), frame.envelope.after);
                self.note_release(who, session, frame.envelope.after);
            }
            Kind::CheckSum => self.note_vouching(who, session, frame.envelope.after),
            _ => self.judge_confirm(who, session, round, frame.envelope.after),
        }
    }

    fn note_begin(&mut self, frame: &Frame) {
        if let Ok(begin) = frame.envelope.body::<Begin>() {
            self.begins.insert(frame.digest, Asked { begin, roster: frame.envelope.after });
        }
    }

    /// No mask covers two vectors; of a vector that rides in its Share that can be seen.
    fn judge_share(&mut self, who: &Name, i: u8, frame: &Frame, core: &ShareCore) {
        let begin = frame.envelope.after;
        let Some(asked) = self.begins.get(&begin) else {
            return self.fail("share", format!("{who} shares what nobody asked for"));
        };
        let of = (frame.envelope.session, frame.envelope.round);
        if !self.payload_keys.fit(who, of, &asked.begin) {
            return self.fail("payload", format!("{who} shares in round {} with another payload key", of.1.0));
        }
        self.places.insert((asked.roster, core.place), i);
        self.shares.entry((begin, core.place)).or_default().insert(frame.digest);
        let rides = core.chunks == [chunk_digest(&frame.attachment)];
        if rides && self.masks.is_used(&self.shape, i, (&asked.begin, begin), &frame.attachment) {
            self.fail("fresh masks", format!("{who} masked two vectors with one mask"));
        }
    }

    fn judge_cohort(&mut self, frame: &Frame) {
        let (session, round) = (frame.envelope.session, frame.envelope.round);
        let Ok(cohort) = frame.envelope.body::<Cohort>() else { return };
        let begin = frame.envelope.after;
        let Some(asked) = self.begins.get(&begin) else {
            return self.fail("cohort", format!("a Cohort of round {} answers no Begin", round.0));
        };
        let (roster, snapshot) = (asked.roster, asked.begin.snapshot.clone());
        let fixed = Fixed { session, round, begin, roster, snapshot, cohort, confirmed: BTreeSet::new() };
        self.fixed.entry(frame.digest).or_insert(fixed);
    }

    /// A member confirms one cohort of a round and never another; what q confirmed is open to whoever has their sums.
    fn judge_confirm(&mut self, who: &Name, session: SessionId, round: RoundNo, cohort: Digest) {
        let first = *self.confirms.entry((who.clone(), session, round)).or_insert(cohort);
        if first != cohort && !self.restored.contains(who) {
            self.fail("one confirm", format!("{who} confirmed two cohorts of round {}", round.0));
        }
        if !self.restored.contains(who) && self.overlaps(who, cohort) {
            self.fail("same or apart", format!("{who} confirmed cohorts of a snapshot that overlap in part"));
        }
        let Some(fixed) = self.fixed.get_mut(&cohort) else {
            return self.fail("confirm", format!("{who} confirmed what is no cohort"));
        };
        fixed.confirmed.insert(who.clone());
        let fixed = fixed.clone();
        if !self.is_of_shares(&fixed) {
            self.fail("cohort", format!("{who} confirmed a cohort of others than shared in round {}", round.0));
        }
        if fixed.confirmed.len() == self.quorum {
            self.judge_opening(cohort, &fixed);
        }
    }

    /// Whether a cohort has some and not all patients in common with one that `who` confirmed in another round over the same
    /// snapshot.
    fn overlaps(&self, who: &Name, cohort: Digest) -> bool {
        let Some(fixed) = self.fixed.get(&cohort) else { return false };
        let people = |fixed: &Fixed| fixed.cohort.places.iter().collect::<BTreeSet<Place>>();
        let (this, of) = (people(fixed), (fixed.session, &fixed.snapshot));
        let earlier = self.fixed.values().filter(|other| other.round != fixed.round && other.confirmed.contains(who));
        let mut others = earlier.filter(|other| (other.session, &other.snapshot) == of).map(people);
        others.any(|other| other != this && !other.is_disjoint(&this))
    }

    /// Whether a cohort is of Shares that its patients sent. (Those of a restored one may be several: any may be meant.)
    fn is_of_shares(&self, fixed: &Fixed) -> bool {
        let shares = |place: Place| self.shares.get(&(fixed.begin, place));
        let mut leaves = Vec::new();
        for place in fixed.cohort.places.iter() {
            match shares(place).map(|sent| (sent.len(), sent.first())) {
                Some((1, Some(share))) => leaves.push(cohort_leaf(place, *share)),
                Some(_) => return true,
                None => return false,
            }
        }
        merkle::root(&leaves) == fixed.cohort.root
    }

    /// A mask sum answers an Open with q Confirms of the cohort that its member confirmed, and is over blocks that it holds,
    /// each once.
    fn judge_release(&mut self, who: &Name, (session, round): (SessionId, RoundNo), open: Digest) {
        let Some((cohort, open)) = self.opens.get(&open) else {
            return self.fail("release", format!("{who} answers no Open in round {}", round.0));
        };
        let of = |frame: &Frame| frame.envelope.after == *cohort && frame.envelope.round == round && is_signed(frame);
        let confirms = open.confirms.iter().filter_map(|signed| signed.open().ok()).filter(of);
        let confirmed: BTreeSet<Name> = confirms.map(|frame| frame.envelope.from).collect();
        let mine = self.confirms.get(&(who.clone(), session, round)) == Some(cohort);
        if confirmed.len() < self.quorum || !(mine || self.restored.contains(who)) {
            return self
                .fail("release", format!("{who} released without a quorum for its cohort of round {}", round.0));
        }
        if !self.are_held(who, session, open) {
            self.fail("release", format!("{who} released other blocks than those it holds, each once"));
        }
    }

    /// What a member answers an Open with is known to whoever has the hospital's key.
    fn note_release(&mut self, who: &Name, session: SessionId, open: Digest) {
        let Some((cohort, open)) = self.opens.get(&open) else { return };
        let (cohort, seat) = (*cohort, self.seat(who, session));
        let asked = open.senders.iter().filter(|(sender, _)| Some(*sender) == seat);
        let blocks: Vec<u16> = asked.flat_map(|(_, blocks)| blocks.iter().copied()).collect();
        self.release(who, session, cohort, blocks);
    }

    /// So is what it vouches for.
    fn note_vouching(&mut self, who: &Name, session: SessionId, check: Digest) {
        let Some((open, blocks)) = self.checks.get(&check).cloned() else { return };
        let Some((cohort, _)) = self.opens.get(&open) else { return };
        self.release(who, session, *cohort, blocks);
    }

    fn release(&mut self, who: &Name, session: SessionId, cohort: Digest, blocks: Vec<u16>) {
        let Some(fixed) = self.fixed.get(&cohort) else { return };
        let Some(committee) = self.committees.get(&(who.clone(), session)) else { return };
        let seats = committee.iter().map(|member| self.cast.number(member)).collect();
        let (people, question) = (self.people(fixed), (fixed.begin, &fixed.snapshot));
        self.released.add(question, seats, blocks, &people);
    }

    /// On which seat of the committee that it was shown somebody sits.
    fn seat(&self, who: &Name, session: SessionId) -> Option<u8> {
        let seats = self.committees.get(&(who.clone(), session))?;
        seats.iter().position(|seat| seat == who).map(|seat| seat as u8)
    }

    /// Whether what an Open asks of a member are blocks that it holds, each once.
    fn are_held(&self, who: &Name, session: SessionId, open: &Open) -> bool {
        let Some(seat) = self.seat(who, session) else { return false };
        let held = blocks::held(self.shape.committee, self.shape.threshold, seat);
        let asked = open.senders.iter().filter(|(sender, _)| *sender == seat).map(|(_, blocks)| blocks);
        asked.into_iter().all(|blocks| {
            let each: BTreeSet<u16> = blocks.iter().copied().collect();
            !blocks.is_empty() && each.len() == blocks.len() && each.is_subset(&held)
        })
    }

    /// One opening a round, of k patients or more; and over a snapshot the same people or others. Who was shown another
    /// Roster is in no cohort of this one.
    fn judge_opening(&mut self, digest: Digest, opened: &Fixed) {
        if opened.cohort.places.len() < self.min_cohort {
            self.fail("smallest cohort", format!("round {} opens {}", opened.round.0, opened.cohort.places.len()));
        }
        let quorum = self.quorum;
        let others = self.fixed.iter().filter(|(other, fixed)| **other != digest && fixed.confirmed.len() >= quorum);
        let mut failures = Vec::new();
        let honest = self.honest_people(opened);
        for (_, other) in others.filter(|(_, other)| other.session == opened.session) {
            if other.roster != opened.roster {
                if !self.honest_people(other).is_disjoint(&honest) {
                    let what =
                        format!("rounds {} and {} of two Rosters share a patient", other.round.0, opened.round.0);
                    failures.push(("one roster", what));
                }
                continue;
            }
            if other.round == opened.round {
                failures.push(("one opening", format!("two cohorts of round {} can be opened", opened.round.0)));
            }
            // Not by the product's own function, which may be what is wrong.
            let (one, another) = (&other.cohort.places, &opened.cohort.places);
            let overlap = one != another && one.iter().any(|place| another.contains(place));
            if other.snapshot == opened.snapshot && overlap {
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
            Event::Fault(fault) if self.restored.is_empty() && is_accusation(fault) && self.is_honest(who, fault) => {
                self.fail("no accusation", format!("{who} accuses whoever follows the protocol: {fault}"));
            }
            Event::Roster { session, committee, .. } => {
                self.committees.insert((who.clone(), *session), committee.clone());
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
        places.filter_map(|place| self.places.get(&(fixed.roster, place)).copied()).collect()
    }

    /// Those of them who keep the rules: not who lies, and not who may have forgotten what it did.
    fn honest_people(&self, fixed: &Fixed) -> BTreeSet<u8> {
        let keeps = |i: &u8| {
            let who = self.cast.patients.get(usize::from(*i));
            who.is_some_and(|who| !self.restored.contains(who) && !self.liars.contains(who))
        };
        self.people(fixed).into_iter().filter(keeps).collect()
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
        if fixed.confirmed.len() < self.quorum {
            return self.fail("receipt", format!("{who} has a receipt for a cohort that no quorum confirmed"));
        }
        // A patient that came back with an older store may have lost its place.
        if people.len() != count as usize || (people.contains(&i) != included && !self.restored.contains(who)) {
            self.fail(
                "receipt",
                format!("{who} has a receipt of round {} that says otherwise than its cohort", round.0),
            );
        }
    }
}

//! One round of the server: Shares in, a Cohort out, then the sum of its masked vectors.

use std::collections::{BTreeMap, BTreeSet};

use bytes::Bytes;

use super::cohort::Choice;
use super::fold::{Change, Part, Sum};
use super::joining::{Past, Running};
use super::{ServerDesk, Ticket, Work};
use crate::desk::{Me, Pen, Stop, rule};
use crate::error::Wrong;
use crate::id::{Address, Digest, Kind, MessageName, Name, Place, SessionId, Time, To};
use crate::job::{Job, Outcome};
use crate::merkle;
use crate::message::{Cohort, CohortShares, Decline, Held, MaskedSum, Refuse, Share, cohort_leaf};
use crate::outbox::Settled;
use crate::places::Places;
use crate::secret::Root;
use crate::session::{Asked, Rules, place_of};
use crate::step::Event;
use crate::wire::{self, Frame};

/// The most patients that a Refuse names as missing.
const MOST_NAMED: usize = 64;

/// A patient whose Share is here.
#[derive(Debug)]
struct Sharer {
    share: Digest,
    name: MessageName,
    chunks: Vec<Digest>,
    parts: Vec<Part>,
}

impl Sharer {
    fn folded(&self) -> bool {
        self.parts.iter().all(|part| matches!(part, Part::Added(_)))
    }
}

#[derive(Debug)]
enum Stage {
    /// Shares are open.
    Collecting,
    /// The cohort is fixed; vectors outside it are being taken out.
    Fixed { cohort: Places, digest: Digest },
    /// The sum is being packed.
    Packing { digest: Digest },
    /// The sum is sent, or the round was refused.
    Over,
}

/// One round of the server.
#[derive(Debug)]
pub(super) struct Round {
    pub(super) asked: Asked,
    root: Root,
    /// Who may be in the cohort: with `same_as` that cohort, else who was in none over this snapshot.
    allowed: Places,
    shares: BTreeMap<Place, Sharer>,
    declined: BTreeMap<Place, Decline>,
    /// What each member says it holds, by seat.
    held: Vec<BTreeMap<Place, Digest>>,
    /// Which members say that a patient's box does not fit.
    faulted: BTreeMap<Place, BTreeSet<u8>>,
    sum: Sum,
    /// When the last new Share or Held came.
    news: Time,
    stage: Stage,
}

impl Round {
    pub(super) fn begin(asked: Asked, rules: &Rules, running: &Running, desk: &mut ServerDesk<'_>) -> Self {
        let root = Root::new(desk.fresh("ward/1 server root", &asked.digest.0));
        Self {
            root,
            allowed: allowed(&asked, running),
            shares: BTreeMap::new(),
            declined: BTreeMap::new(),
            held: vec![BTreeMap::new(); usize::from(rules.announce.sharing.committee())],
            faulted: BTreeMap::new(),
            sum: Sum::new(asked.chunks),
            news: desk.now,
            stage: Stage::Collecting,
            asked,
        }
    }

    fn pen<'a>(&'a self, session: SessionId, me: &'a Me) -> Pen<'a> {
        Pen { me, session, round: self.asked.round, secret: self.root.expose() }
    }

    /// Whether the Shares of this round still count.
    fn collecting(&self) -> bool {
        matches!(self.stage, Stage::Collecting)
    }

    fn on_share(
        &mut self,
        frame: &Frame,
        place: Place,
        address: &Address,
        rules: &Rules,
        desk: &mut ServerDesk<'_>,
    ) -> Result<(), Stop> {
        if let Some(known) = self.shares.get(&place) {
            let same = known.share == frame.digest;
            return Err(if same { Stop::Useless("the share is known") } else { Stop::Fault(Wrong::Equivocation) });
        }
        if !self.collecting() || !self.allowed.contains(place) {
            return Err(Stop::Useless("the cohort is fixed, or cannot have this patient"));
        }
        let share: Share = frame.envelope.body()?;
        let core = share.open_core().ok_or(rule("a Share core that is malformed or names a chunk twice"))?;
        let fits = core.place == place
            && core.chunks.len() == self.asked.chunks.count() as usize
            && core.commitments.len() == rules.blocks.len()
            && share.boxes.len() == self.held.len();
        if !fits {
            return Err(rule("a Share of another place or shape"));
        }
        self.news = desk.now;
        let parts = vec![Part::Awaited; core.chunks.len()];
        self.shares.insert(place, Sharer { share: frame.digest, name: address.name, chunks: core.chunks, parts });
        if self.asked.chunks.count() == 1 {
            let work = Work::Identify(address.clone());
            desk.run(self.ticket(rules.session, work), Job::Identify { bytes: frame.attachment.clone() });
        }
        Ok(())
    }

    fn ticket(&self, session: SessionId, work: Work) -> Ticket {
        Ticket { session, round: self.asked.round, work }
    }

    /// A chunk was hashed: fold it into the sum, or take it out again.
    fn identified(
        &mut self,
        place: Place,
        address: Address,
        bytes: Bytes,
        digest: Digest,
        rules: &Rules,
        desk: &mut ServerDesk<'_>,
    ) {
        let collecting = self.collecting();
        let Some(sharer) = self.shares.get_mut(&place) else { return };
        let Some(chunk) = sharer.chunks.iter().position(|known| *known == digest) else {
            if sharer.parts.contains(&Part::Removing(address.clone())) {
                // Other bytes stand there than those that were added: the board has lost them.
                return self.send_refuse(Refuse::BoardLost, rules, desk);
            }
            let wrong = Wrong::Unnamed;
            let fault = crate::error::Fault { from: address.from, kind: address.kind, wrong };
            desk.out.event(Event::Fault(fault));
            return;
        };
        let remove = match &sharer.parts[chunk] {
            Part::Awaited if collecting => false,
            Part::Removing(_) => true,
            _ => return,
        };
        if bytes.len() != self.asked.chunks.bytes(chunk as u32) {
            return;
        }
        if !remove {
            sharer.parts[chunk] = Part::Adding(address);
        }
        self.news = desk.now;
        let job = self.sum.change(chunk as u32, Change { place, bytes, remove });
        self.fold(job, rules.session, desk);
    }

    fn fold(&self, job: Option<Job>, session: SessionId, desk: &mut ServerDesk<'_>) {
        if let Some(job) = job {
            desk.run(self.ticket(session, Work::Fold), job);
        }
    }

    fn folded(&mut self, chunk: u32, sum: crate::ring::Lanes, session: SessionId, desk: &mut ServerDesk<'_>) {
        for (place, removed) in self.sum.settle(chunk, sum) {
            let Some(part) = self.shares.get_mut(&place).and_then(|sharer| sharer.parts.get_mut(chunk as usize)) else {
                continue;
            };
            *part = match std::mem::replace(part, Part::Awaited) {
                Part::Adding(address) if !removed => Part::Added(address),
                Part::Removing(_) if removed => Part::Removed,
                other => other,
            };
        }
        let job = self.sum.next(chunk);
        self.fold(job, session, desk);
    }

    fn on_decline(&mut self, frame: &Frame, place: Place, now: Time) -> Result<(), Stop> {
        let decline: Decline = frame.envelope.body()?;
        self.declined.entry(place).or_insert(decline);
        self.news = now;
        Ok(())
    }

    fn on_held(&mut self, frame: &Frame, seat: u8, now: Time) -> Result<(), Stop> {
        let Held { held, faults } = frame.envelope.body()?;
        let count = self.allowed.universe();
        if held.iter().map(|(place, _)| place).chain(&faults).any(|place| place.0 >= count) {
            return Err(rule("a Held of a place that the Roster does not have"));
        }
        for (place, share) in held {
            // What a member said first stands: it cannot hold two Shares of one patient.
            self.held[usize::from(seat)].entry(place).or_insert(share);
        }
        for place in faults {
            self.faulted.entry(place).or_default().insert(seat);
        }
        self.news = now;
        Ok(())
    }

    /// Those that can still be in the cohort.
    fn eligible(&self, quorum: u8) -> Places {
        let mut eligible = self.allowed.clone();
        self.declined.keys().for_each(|place| eligible.remove(*place));
        // Without q members that hold its seeds, a patient can be in no cohort.
        let lost = |seats: &BTreeSet<u8>| self.held.len() - seats.len() < usize::from(quorum);
        self.faulted.iter().filter(|(_, seats)| lost(seats)).for_each(|(place, _)| eligible.remove(*place));
        eligible
    }

    /// Fixes the cohort if it is time to, or refuses if there can be none.
    fn decide(&mut self, rules: &Rules, running: &mut RunningParts<'_>, desk: &mut ServerDesk<'_>) {
        if !self.collecting() {
            return;
        }
        let eligible = self.eligible(rules.announce.sharing.quorum());
        let exact = self.asked.begin.same_as.map(|_| &self.allowed);
        let needed = exact.map_or(rules.announce.min_cohort, |exact| exact.len().max(rules.announce.min_cohort));
        let late = desk.now >= self.asked.shares_close();
        let quiet = desk.now >= self.news.plus_millis(self.asked.tenth());
        if eligible.len() < needed {
            // The refusal says who declined: so it waits for those who have not answered yet, but not for long.
            if late || quiet || self.all_answered(&eligible) {
                self.refuse(eligible.len(), needed, late, rules, desk);
            }
            return;
        }
        let enough = match exact {
            Some(exact) => exact.len(),
            None => self.asked.begin.enough.map_or(eligible.len(), |enough| enough.min(eligible.len())),
        };
        let folded = self.folded_places(&eligible);
        let held: Vec<Places> = self.held.iter().map(|held| self.agreeing(held, &folded)).collect();
        let choice =
            Choice { sharing: rules.announce.sharing, min_cohort: needed, exact, folded: &folded, held: &held };
        let all = choice.held_by_all();
        if all.len() >= enough.max(needed) {
            self.fix(all, rules, running, desk);
        } else if late || quiet {
            match choice.best().filter(|best| late || best.len() >= enough) {
                Some(best) if best.len() >= needed => self.fix(best, rules, running, desk),
                _ if late => {
                    // Enough may have shared, and too few members hold it.
                    let shared = if folded.len() < needed { folded.len() } else { choice.most() };
                    self.refuse(shared, needed, true, rules, desk);
                }
                _ => {}
            }
        }
    }

    /// Whether everybody who may be in the cohort has shared, declined or is out.
    fn all_answered(&self, eligible: &Places) -> bool {
        eligible.iter().all(|place| self.shares.contains_key(&place))
    }

    fn folded_places(&self, eligible: &Places) -> Places {
        let folded = self.shares.iter().filter(|(_, sharer)| sharer.folded()).map(|(place, _)| *place);
        Places::of(self.allowed.universe(), folded).intersect(eligible)
    }

    /// Those of `folded` of whom a member holds the same Share as the server.
    fn agreeing(&self, held: &BTreeMap<Place, Digest>, folded: &Places) -> Places {
        let same = |place: &Place| self.shares.get(place).map(|sharer| sharer.share) == held.get(place).copied();
        Places::of(folded.universe(), folded.iter().filter(same))
    }

    /// Says how many are missing; where time ran out, also who said nothing.
    fn refuse(&mut self, shared: u32, needed: u32, late: bool, rules: &Rules, desk: &mut ServerDesk<'_>) {
        let declined = self.declined.iter().map(|(place, decline)| (*place, *decline)).collect();
        let answered = |place: &Place| self.shares.contains_key(place) || self.declined.contains_key(place);
        let missing = self.allowed.iter().filter(|place| late && !answered(place)).take(MOST_NAMED).collect();
        let reports = (0u8..).zip(&self.held);
        let unheard = |held: &BTreeMap<Place, Digest>| late && held.is_empty() && !self.shares.is_empty();
        let silent = reports.filter(|(_, held)| unheard(held)).map(|(seat, _)| seat).collect();
        self.send_refuse(Refuse::TooFewShared { shared, needed, declined, missing, silent }, rules, desk);
    }

    fn send_refuse(&mut self, refuse: Refuse, rules: &Rules, desk: &mut ServerDesk<'_>) {
        let to = To::One(rules.hospital.name.clone());
        let message = self.pen(rules.session, desk.me).write(Kind::Refuse, to, self.asked.digest, &refuse);
        desk.out.send.push(message);
        self.stage = Stage::Over;
    }

    /// Writes the Cohort to members and hospital, and begins to take out who is not in it.
    fn fix(&mut self, cohort: Places, rules: &Rules, running: &mut RunningParts<'_>, desk: &mut ServerDesk<'_>) {
        let sharers: Vec<(Place, &Sharer)> =
            cohort.iter().filter_map(|place| Some((place, self.shares.get(&place)?))).collect();
        let shares: CohortShares = sharers.iter().map(|(_, sharer)| (sharer.share, sharer.name)).collect();
        let leaves: Vec<Digest> = sharers.iter().map(|(place, sharer)| cohort_leaf(*place, sharer.share)).collect();
        let body = Cohort { places: cohort.clone(), root: merkle::root(&leaves) };
        let pen = self.pen(rules.session, desk.me);
        let signed = pen.sign(Kind::Cohort, To::All, self.asked.digest, &body);
        let mut sends = Vec::new();
        for member in &running.members {
            sends.push(pen.post(Kind::Cohort, &signed, To::One(member.clone()), &[]));
        }
        let hospital = To::One(rules.hospital.name.clone());
        sends.push(pen.post(Kind::Cohort, &signed, hospital, &wire::encode(&shares)));
        desk.out.send.extend(sends);
        let (round, snapshot) = (self.asked.round, self.asked.begin.snapshot.clone());
        desk.out.event(Event::Cohort { round, count: cohort.len() });
        running.fixed.push(Past { round, snapshot, places: cohort.clone() });
        for place in self.shares.keys().copied().filter(|place| !cohort.contains(*place)).collect::<Vec<_>>() {
            for chunk in self.sum.cancel(place) {
                if let Some(sharer) = self.shares.get_mut(&place) {
                    sharer.parts[chunk as usize] = Part::Removed;
                }
            }
        }
        self.stage = Stage::Fixed { cohort, digest: signed.digest() };
    }

    /// Once the cohort is fixed: read again what must come out, and send the sum once nothing is left to take out.
    fn finish(&mut self, session: SessionId, desk: &mut ServerDesk<'_>) {
        let Stage::Fixed { cohort, digest } = &self.stage else { return };
        let digest = *digest;
        let mut waiting = false;
        for (_, sharer) in self.shares.iter_mut().filter(|(place, _)| !cohort.contains(**place)) {
            for part in &mut sharer.parts {
                if let Part::Added(address) = part {
                    desk.out.read.push(address.clone());
                    *part = Part::Removing(address.clone());
                }
                waiting |= matches!(part, Part::Adding(_) | Part::Removing(_));
            }
        }
        if waiting {
            return;
        }
        if let Some(sums) = self.sum.take() {
            self.stage = Stage::Packing { digest };
            desk.run(self.ticket(session, Work::Fold), Job::Pack { sums, ring: self.asked.begin.ring });
        }
    }

    /// What was read again from the board: hash it, to be sure that it is what was added.
    fn read(&mut self, address: &Address, payload: Option<Bytes>, rules: &Rules, desk: &mut ServerDesk<'_>) {
        let bytes = match (address.kind, payload) {
            (Kind::Chunk, Some(bytes)) => Some(bytes),
            (_, Some(payload)) => Frame::decode(&payload).ok().map(|frame| frame.attachment),
            (_, None) => None,
        };
        match bytes {
            Some(bytes) => {
                let ticket = self.ticket(rules.session, Work::Identify(address.clone()));
                desk.run(ticket, Job::Identify { bytes });
            }
            None if matches!(self.stage, Stage::Fixed { .. }) => self.send_refuse(Refuse::BoardLost, rules, desk),
            None => {}
        }
    }

    fn packed(&mut self, chunks: Vec<Bytes>, digests: Vec<Digest>, rules: &Rules, desk: &mut ServerDesk<'_>) {
        let Stage::Packing { digest } = self.stage else { return };
        let pen = self.pen(rules.session, desk.me);
        let to = To::One(rules.hospital.name.clone());
        let signed = pen.sign(Kind::MaskedSum, to.clone(), digest, &MaskedSum { chunks: digests.clone() });
        let single: &[u8] = if chunks.len() == 1 { &chunks[0] } else { &[] };
        let mut sends = vec![pen.post(Kind::MaskedSum, &signed, to.clone(), single)];
        if chunks.len() > 1 {
            sends.extend(digests.iter().zip(chunks).map(|(digest, bytes)| pen.chunk(to.clone(), *digest, bytes)));
        }
        desk.out.send.extend(sends);
        self.stage = Stage::Over;
    }
}

/// Who may be in the cohort of this round.
fn allowed(asked: &Asked, running: &Running) -> Places {
    let count = running.lineup.count;
    if let Some(same_as) = asked.begin.same_as {
        let past = running.past.iter().find(|past| past.round == same_as);
        return past.map_or(Places::none(count), |past| past.places.clone());
    }
    let mut allowed = Places::all(count);
    for past in running.past.iter().filter(|past| past.snapshot == asked.begin.snapshot) {
        past.places.iter().for_each(|place| allowed.remove(place));
    }
    allowed
}

/// What a round needs of its session while it decides, and what it gives back.
struct RunningParts<'a> {
    members: Vec<Name>,
    fixed: &'a mut Vec<Past>,
}

impl Running {
    pub(super) fn take(
        &mut self,
        frame: &Frame,
        address: &Address,
        rules: &Rules,
        desk: &mut ServerDesk<'_>,
    ) -> Result<(), Stop> {
        let envelope = &frame.envelope;
        if envelope.round <= self.last && self.round.as_ref().is_none_or(|round| round.asked.round != envelope.round) {
            return Err(Stop::Useless("a message of an old round"));
        }
        let Some(round) = self.round.as_mut().filter(|round| round.asked.round == envelope.round) else {
            return Err(Stop::Early);
        };
        if envelope.kind == Kind::Open {
            return Err(Stop::Useless("a single server has nothing to open"));
        }
        if envelope.after != round.asked.digest {
            return Err(Stop::Useless("it continues another Begin than this server has"));
        }
        match envelope.kind {
            Kind::Held => {
                let seat = self.lineup.seat_of(&envelope.from).ok_or(Wrong::NotItsRole)?;
                frame.verify(&self.lineup.seats[usize::from(seat)].identity)?;
                round.on_held(frame, seat, desk.now)?;
            }
            _ => {
                let place = place_of(&self.joined, &envelope.from).ok_or(Wrong::NotItsRole)?;
                frame.verify(&self.joined[place.0 as usize].identity)?;
                match envelope.kind {
                    Kind::Share => round.on_share(frame, place, address, rules, desk)?,
                    _ => round.on_decline(frame, place, desk.now)?,
                }
            }
        }
        self.advance(rules, desk);
        Ok(())
    }

    pub(super) fn take_chunk(
        &mut self,
        address: &Address,
        payload: &Bytes,
        session: SessionId,
        desk: &mut ServerDesk<'_>,
    ) -> Result<(), Stop> {
        let Some(round) = self.round.as_mut().filter(|round| round.asked.round == address.round) else {
            let old = address.round <= self.last;
            return Err(if old { Stop::Useless("a chunk of an old round") } else { Stop::Early });
        };
        let place = place_of(&self.joined, &address.from).ok_or(Wrong::NotItsRole)?;
        if !round.shares.contains_key(&place) {
            return Err(if round.collecting() { Stop::Early } else { Stop::Useless("the cohort is fixed") });
        }
        let ticket = round.ticket(session, Work::Identify(address.clone()));
        desk.run(ticket, Job::Identify { bytes: payload.clone() });
        Ok(())
    }

    pub(super) fn read(&mut self, address: &Address, payload: Option<Bytes>, rules: &Rules, desk: &mut ServerDesk<'_>) {
        if let Some(round) = self.round.as_mut().filter(|round| round.asked.round == address.round) {
            round.read(address, payload, rules, desk);
        }
    }

    pub(super) fn done(&mut self, ticket: Ticket, outcome: Outcome, rules: &Rules, desk: &mut ServerDesk<'_>) {
        let Some(round) = self.round.as_mut().filter(|round| round.asked.round == ticket.round) else { return };
        match (ticket.work, outcome) {
            (Work::Identify(address), Outcome::Identified { bytes, digest }) => {
                if let Some(place) = place_of(&self.joined, &address.from) {
                    round.identified(place, address, bytes, digest, rules, desk);
                }
            }
            (Work::Fold, Outcome::Folded { chunk, sum }) => round.folded(chunk, sum, rules.session, desk),
            (Work::Fold, Outcome::Packed { chunks, digests }) => round.packed(chunks, digests, rules, desk),
            _ => {}
        }
        self.advance(rules, desk);
    }

    pub(super) fn keep_time(&mut self, rules: &Rules, desk: &mut ServerDesk<'_>) {
        self.advance(rules, desk);
        let Some(round) = &self.round else { return };
        if round.collecting() {
            let quiet = round.news.plus_millis(round.asked.tenth());
            let next =
                if quiet > desk.now { quiet.min(round.asked.shares_close()) } else { round.asked.shares_close() };
            desk.out.wake_at(next);
        } else if desk.now >= round.asked.ends() {
            desk.out.settled.push(Settled::Round(rules.session, round.asked.round));
            self.round = None;
        } else {
            desk.out.wake_at(round.asked.ends());
        }
    }

    /// Decides on the cohort and works towards the sum, as far as things stand.
    fn advance(&mut self, rules: &Rules, desk: &mut ServerDesk<'_>) {
        let Some(round) = &mut self.round else { return };
        let members = self.lineup.seats.iter().map(|seat| seat.identity.name.clone()).collect();
        let before = self.past.len();
        round.decide(rules, &mut RunningParts { members, fixed: &mut self.past }, desk);
        round.finish(rules.session, desk);
        if self.past.len() > before {
            self.save(rules.session, desk);
        }
    }
}

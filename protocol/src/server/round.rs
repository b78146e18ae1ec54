//! One round of a server: Shares in, a cohort fixed, the sum of its masked vectors out.

use bytes::Bytes;
use serde::{Deserialize, Serialize};
use vectors::Lanes;

use super::gather::{Found, Gather};
use super::joining::Running;
use super::lead::{self, Lead, Standing, Verdict};
use super::{ServerDesk, Ticket, Work};
use crate::desk::{Me, Pen, Stop, rule};
use crate::error::{Fault, Wrong};
use crate::id::{Address, Digest, Kind, Place, SessionId, Time, To};
use crate::job::{Job, Outcome};
use crate::merkle;
use crate::message::{ChunkNames, Held, MOST_HELD, MaskedSum, Refuse, Share, cohort_leaf};
use crate::outbox::Settled;
use crate::places::Places;
use crate::records::session_key;
use crate::reopen::OpenRound;
use crate::secret::Root;
use crate::session::{Asked, Fixed, Lineup, Past, Rules, place_of};
use crate::shards::Shard;
use crate::wire::{self, Frame, Signed};

/// How long another server waits for more before it reports whom it holds, in milliseconds.
const BATCH_MILLIS: u64 = 10;

#[derive(Debug)]
enum Stage {
    /// Shares are open.
    Collecting,
    /// The cohort was fixed before a restart: its vectors come again, and are added again.
    Refilling(Box<Fixed>),
    /// The cohort is fixed; vectors outside it are being taken out.
    Fixed { digest: Digest, cohort: Places },
    /// The sum is being packed.
    Packing { digest: Digest, cohort: Places },
    /// The sum is sent, or the round was refused.
    Over,
}

/// What this server does beside adding.
#[derive(Debug)]
enum Duty {
    /// It is the first: it fixes the cohort.
    Lead(Box<Lead>),
    /// It tells the first whom it holds.
    Report { unreported: Vec<(Place, Digest)>, due: Option<Time> },
}

/// One round of a server.
#[derive(Debug)]
pub(super) struct Round {
    pub(super) asked: Asked,
    root: Root,
    gather: Gather,
    duty: Duty,
    /// When the last new Share, chunk or Held came.
    news: Time,
    /// It was restored: what it had comes again, maybe after what it led to.
    resumed: bool,
    stage: Stage,
}

/// What the store keeps of an open round: the Cohort too, once it is fixed.
#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Stored {
    open: OpenRound,
    cohort: Option<Signed>,
}

impl Round {
    pub(super) fn begin(asked: Asked, rules: &Rules, running: &Running, desk: &mut ServerDesk<'_>) -> Self {
        let root = Root::new(desk.fresh("ward/1 server root", &asked.digest.0));
        let round = Self::new(asked, root, rules, running, desk.now);
        round.save(None, rules.session, desk);
        round
    }

    fn new(asked: Asked, root: Root, rules: &Rules, running: &Running, now: Time) -> Self {
        let shard = Shard::new(running.index, rules.announce.servers.len());
        let duty = match running.index {
            0 => Duty::Lead(Box::new(Lead::new(&asked, rules, &running.lineup, &running.past))),
            _ => Duty::Report { unreported: Vec::new(), due: None },
        };
        let gather = Gather::new(asked.chunks, shard, running.lineup.count);
        Self { root, gather, duty, news: now, resumed: false, stage: Stage::Collecting, asked }
    }

    fn save(&self, cohort: Option<Signed>, session: SessionId, desk: &mut ServerDesk<'_>) {
        let stored = Stored { open: OpenRound::new(&self.asked, &self.root), cohort };
        desk.out.put(round_key(session), wire::encode(&stored));
    }

    /// The round as the store has it. Which vectors were added is not in it: they come again.
    pub(super) fn restore(stored: &[u8], rules: &Rules, running: &Running, now: Time) -> Option<Self> {
        let Stored { open, cohort } = wire::decode(stored, "round").ok()?;
        let (asked, root) = open.reopen(running.last, rules, &running.lineup)?;
        let mut round = Self::new(asked, root, rules, running, now);
        round.resumed = true;
        if let Some(cohort) = cohort {
            let fixed = Fixed::read(&cohort.open().ok()?, &running.lineup, round.asked.digest).ok()?;
            round.stage = Stage::Refilling(Box::new(fixed));
        }
        Some(round)
    }

    fn pen<'a>(&'a self, session: SessionId, me: &'a Me) -> Pen<'a> {
        Pen { me, session, round: self.asked.round, secret: self.root.expose() }
    }

    /// Whether the Shares of this round still count.
    fn collecting(&self) -> bool {
        matches!(self.stage, Stage::Collecting | Stage::Refilling(_))
    }

    /// Whether the Share of `place` can count.
    fn allows(&self, place: Place) -> bool {
        match (&self.stage, &self.duty) {
            (Stage::Refilling(fixed), _) => fixed.cohort.places.contains(place),
            (Stage::Collecting, Duty::Lead(lead)) => lead.allows(place),
            (Stage::Collecting, Duty::Report { .. }) => true,
            _ => false,
        }
    }

    fn on_share(
        &mut self,
        frame: &Frame,
        place: Place,
        address: &Address,
        rules: &Rules,
        desk: &mut ServerDesk<'_>,
    ) -> Result<(), Stop> {
        let known = self.gather.sharer(place).is_some();
        if !known && !self.allows(place) {
            return Err(Stop::Useless("the cohort is fixed, or cannot have this patient"));
        }
        let share: Share = frame.envelope.body()?;
        let core = share.open_core().ok_or(rule("a Share core that is malformed or names a chunk twice"))?;
        let fits = core.place == place
            && core.chunks.len() == self.asked.chunks.count() as usize
            && core.commitments.len() == rules.blocks.len()
            && share.boxes.len() == usize::from(rules.announce.sharing.committee());
        if !fits {
            return Err(rule("a Share of another place or shape"));
        }
        self.gather.expect(place, frame.digest, address.name, &core.chunks)?;
        self.news = desk.now;
        if let Duty::Lead(lead) = &mut self.duty {
            lead.shared(place, frame.digest);
        }
        if self.gather.whole().places().contains(place) {
            // This server has no part of so short a vector.
            self.completed(vec![place], desk.now);
        } else if self.asked.chunks.count() == 1 {
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
        let (from, kind) = (address.from.clone(), address.kind);
        match self.gather.identified(place, address, bytes, digest, self.collecting()) {
            Found::Nothing => {}
            Found::Change(job) => {
                self.news = desk.now;
                self.fold(job, rules.session, desk);
            }
            Found::Unnamed => desk.out.event(crate::step::Event::Fault(Fault { from, kind, wrong: Wrong::Unnamed })),
            Found::Lost => self.send_refuse(&Refuse::BoardLost, rules, desk),
        }
    }

    fn fold(&self, job: Option<Job>, session: SessionId, desk: &mut ServerDesk<'_>) {
        if let Some(job) = job {
            desk.run(self.ticket(session, Work::Fold), job);
        }
    }

    fn folded(&mut self, at: usize, sum: Lanes, session: SessionId, desk: &mut ServerDesk<'_>) {
        let (completed, job) = self.gather.folded(at, sum);
        self.completed(completed, desk.now);
        self.fold(job, session, desk);
    }

    /// These patients' vectors are in the sum, as far as they are this server's.
    fn completed(&mut self, places: Vec<Place>, now: Time) {
        if let Duty::Report { unreported, due } = &mut self.duty
            && !places.is_empty()
        {
            let held = places.into_iter().filter_map(|place| Some((place, self.gather.sharer(place)?.share)));
            unreported.extend(held);
            let latest = if unreported.len() >= MOST_HELD { now } else { now.plus_millis(BATCH_MILLIS) };
            *due = Some(due.map_or(latest, |due| due.min(latest)));
        }
    }

    /// Tells the first server whom this one holds, in batches.
    fn report(&mut self, rules: &Rules, desk: &mut ServerDesk<'_>) {
        let Duty::Report { unreported, due } = &mut self.duty else { return };
        match *due {
            Some(time) if desk.now >= time => *due = None,
            Some(time) => return desk.out.wake_at(time),
            None => return,
        }
        let held = Held { held: std::mem::take(unreported), faults: Vec::new() };
        let to = To::One(rules.first_server().clone());
        let message = self.pen(rules.session, desk.me).write(Kind::Held, to, self.asked.digest, &held);
        desk.out.send.push(message);
    }

    /// Fixes the cohort, where this is the first server and it is time to.
    fn decide(&mut self, rules: &Rules, lineup: &Lineup, desk: &mut ServerDesk<'_>) -> Option<Past> {
        if let Stage::Refilling(fixed) = &self.stage {
            let fixed = fixed.clone();
            return self.refill(*fixed, rules, desk);
        }
        let (Duty::Lead(lead), Stage::Collecting) = (&self.duty, &self.stage) else { return None };
        if desk.now >= self.asked.confirms_close() {
            // It was away too long: nobody opens this cohort any more, and it would only bind its patients.
            return None;
        }
        let Self { asked, gather, news, .. } = self;
        match lead.decide(&Standing { asked, rules, gather, news: *news, now: desk.now }) {
            Verdict::Wait => None,
            Verdict::Refuse(refuse) => {
                self.send_refuse(&refuse, rules, desk);
                None
            }
            Verdict::Fix(cohort) => {
                let pen = self.pen(rules.session, desk.me);
                let signed = lead::write_cohort(&cohort, &self.asked, &self.gather, lineup, rules, &pen, desk);
                let digest = signed.digest();
                self.save(Some(signed), rules.session, desk);
                Some(self.fix(cohort, digest))
            }
        }
    }

    /// Once everybody of the cohort that was fixed before a restart is in the sum again: goes on with it. Other Shares
    /// than it commits to make another sum, which nobody gets.
    fn refill(&mut self, fixed: Fixed, rules: &Rules, desk: &mut ServerDesk<'_>) -> Option<Past> {
        let leaves = self.leaves(&fixed)?;
        if merkle::root(&leaves) != fixed.cohort.root {
            self.send_refuse(&Refuse::BoardLost, rules, desk);
            return None;
        }
        Some(self.fix(fixed.cohort.places, fixed.digest))
    }

    /// What the cohort commits to, once this server holds all of it.
    fn leaves(&self, fixed: &Fixed) -> Option<Vec<Digest>> {
        let whole = |place: &Place| self.gather.whole().places().contains(*place);
        let leaf = |place| Some(cohort_leaf(place, self.gather.sharer(place).filter(|_| whole(&place))?.share));
        fixed.places().map(leaf).collect()
    }

    /// From here on only these patients' vectors count.
    fn fix(&mut self, cohort: Places, digest: Digest) -> Past {
        self.gather.keep_only(&cohort);
        let snapshot = self.asked.begin.snapshot.clone();
        self.stage = Stage::Fixed { digest, cohort: cohort.clone() };
        Past { round: self.asked.round, snapshot, places: cohort }
    }

    /// The first server fixed the cohort: it must be of patients that this server holds too.
    fn on_cohort(
        &mut self,
        frame: &Frame,
        lineup: &Lineup,
        session: SessionId,
        desk: &mut ServerDesk<'_>,
    ) -> Result<Option<Past>, Stop> {
        if matches!(self.duty, Duty::Lead(_)) {
            return Err(rule("a Cohort is the first server's to send"));
        }
        let fixed = Fixed::read(frame, lineup, self.asked.digest)?;
        if !matches!(self.stage, Stage::Collecting) {
            return Err(Stop::Useless("the cohort is fixed"));
        }
        match self.leaves(&fixed) {
            Some(leaves) if merkle::root(&leaves) == fixed.cohort.root => {
                self.save(Some(fixed.signed), session, desk);
                Ok(Some(self.fix(fixed.cohort.places, fixed.digest)))
            }
            Some(_) => Err(rule("a Cohort of other Shares than this server holds")),
            None if self.resumed => {
                self.save(Some(fixed.signed.clone()), session, desk);
                self.stage = Stage::Refilling(Box::new(fixed));
                Ok(None)
            }
            None => Err(rule("a Cohort of whom another server does not hold")),
        }
    }

    fn send_refuse(&mut self, refuse: &Refuse, rules: &Rules, desk: &mut ServerDesk<'_>) {
        let to = To::One(rules.hospital.name.clone());
        let message = self.pen(rules.session, desk.me).write(Kind::Refuse, to, self.asked.digest, refuse);
        desk.out.send.push(message);
        desk.out.forget(round_key(rules.session));
        self.stage = Stage::Over;
    }

    /// Once the cohort is fixed: read again what must come out, and send the sum once nothing is left to take out.
    fn finish(&mut self, session: SessionId, desk: &mut ServerDesk<'_>) {
        let Stage::Fixed { digest, cohort } = &self.stage else { return };
        let (read, waiting) = self.gather.take_out();
        desk.out.read.extend(read);
        if waiting {
            return;
        }
        if let Some(sums) = self.gather.take_sum() {
            self.stage = Stage::Packing { digest: *digest, cohort: cohort.clone() };
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
            None if matches!(self.stage, Stage::Fixed { .. }) => self.send_refuse(&Refuse::BoardLost, rules, desk),
            None => {}
        }
    }

    fn packed(&mut self, chunks: Vec<Bytes>, digests: Vec<Digest>, rules: &Rules, desk: &mut ServerDesk<'_>) {
        let Stage::Packing { digest, cohort } = &self.stage else { return };
        let pen = self.pen(rules.session, desk.me);
        let to = To::One(rules.hospital.name.clone());
        let signed = pen.sign(Kind::MaskedSum, to.clone(), *digest, &MaskedSum { chunks: digests.clone() });
        let rides = self.asked.chunks.count() == 1;
        let names = if rides || chunks.is_empty() { Vec::new() } else { self.gather.names(cohort) };
        for (piece, names) in (0u32..).zip(names.chunks(ChunkNames::MOST)) {
            let names = wire::encode(&ChunkNames { piece, names: names.to_vec() });
            desk.out.send.push(pen.post(Kind::MaskedSum, &signed, to.clone(), &names));
        }
        if names.is_empty() {
            let attached: &[u8] = chunks.first().map_or(&[], |chunk| chunk);
            desk.out.send.push(pen.post(Kind::MaskedSum, &signed, to.clone(), attached));
        } else {
            let sends = digests.iter().zip(chunks).map(|(digest, bytes)| pen.chunk(to.clone(), *digest, bytes));
            desk.out.send.extend(sends);
        }
        self.stage = Stage::Over;
    }
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
            return Err(Stop::Useless("a server has nothing to open"));
        }
        if envelope.after != round.asked.digest {
            return Err(Stop::Useless("it continues another Begin than this server has"));
        }
        match envelope.kind {
            Kind::Held => {
                let Duty::Lead(lead) = &mut round.duty else { return Err(rule("a Held goes to the first server")) };
                lead.on_held(frame, &self.lineup, &round.gather)?;
                round.news = desk.now;
            }
            Kind::Cohort => {
                if let Some(past) = round.on_cohort(frame, &self.lineup, rules.session, desk)? {
                    self.remember(past, rules.session, desk);
                }
            }
            _ => self.take_patients(frame, address, rules, desk)?,
        }
        self.advance(rules, desk);
        Ok(())
    }

    /// A patient shares or declines.
    fn take_patients(
        &mut self,
        frame: &Frame,
        address: &Address,
        rules: &Rules,
        desk: &mut ServerDesk<'_>,
    ) -> Result<(), Stop> {
        let Some(round) = &mut self.round else { return Err(Stop::Early) };
        let place = place_of(&self.joined, &frame.envelope.from).ok_or(Wrong::NotItsRole)?;
        frame.verify(&self.joined[place.0 as usize].identity)?;
        match (frame.envelope.kind, &mut round.duty) {
            (Kind::Share, _) => round.on_share(frame, place, address, rules, desk),
            (_, Duty::Lead(lead)) => {
                round.news = desk.now;
                lead.on_decline(frame, place)
            }
            (_, Duty::Report { .. }) => Err(Stop::Useless("the first server counts who declined")),
        }
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
        if round.gather.sharer(place).is_none() {
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
            (Work::Fold, Outcome::Folded { at, sum }) => round.folded(at, sum, rules.session, desk),
            (Work::Fold, Outcome::Packed { chunks, digests }) => round.packed(chunks, digests, rules, desk),
            _ => {}
        }
        self.advance(rules, desk);
    }

    pub(super) fn keep_time(&mut self, rules: &Rules, desk: &mut ServerDesk<'_>) {
        self.advance(rules, desk);
        let Some(round) = &mut self.round else { return };
        round.report(rules, desk);
        let (close, ends) = (round.asked.shares_close(), round.asked.ends());
        if desk.now >= ends {
            let (session, number, hospital) = (rules.session, round.asked.round, rules.hospital.name.clone());
            desk.out
                .settled
                .extend([Settled::Round(session, number), Settled::Cohort(session, number, Some(hospital))]);
            self.close_round(session, desk);
        } else if round.collecting() && desk.now < close {
            let quiet = round.news.plus_millis(round.asked.tenth());
            desk.out.wake_at(if quiet > desk.now { quiet.min(close) } else { close });
        } else {
            desk.out.wake_at(ends);
        }
    }

    /// Decides on the cohort and works towards the sum, as far as things stand.
    fn advance(&mut self, rules: &Rules, desk: &mut ServerDesk<'_>) {
        let Some(round) = &mut self.round else { return };
        if let Some(past) = round.decide(rules, &self.lineup, desk) {
            self.remember(past, rules.session, desk);
        }
        if let Some(round) = &mut self.round {
            round.finish(rules.session, desk);
        }
    }

    fn remember(&mut self, past: Past, session: SessionId, desk: &mut ServerDesk<'_>) {
        if self.past.iter().all(|known| known.round != past.round) {
            self.past.push(past);
            self.save(session, desk);
        }
    }

    /// The round is over, or given up.
    pub(super) fn close_round(&mut self, session: SessionId, desk: &mut ServerDesk<'_>) {
        if self.round.take().is_some() {
            desk.out.forget(round_key(session));
        }
    }
}

/// The record of the round that is open.
fn round_key(session: SessionId) -> String {
    session_key(session, "round")
}

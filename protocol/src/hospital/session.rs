//! One session of the hospital: from its Announce to the list of who joined, then question by question.

use std::sync::Arc;

use serde::{Deserialize, Serialize};
use serde_bytes::ByteBuf;

use super::open::{Begun, Open};
use super::round::{Last, Round};
use super::{HospitalDesk, SessionInfo, Ticket};
use crate::desk::{Me, Pen, Stop, identify, rule};
use crate::error::{AbortReason, PlanError, Wrong};
use crate::id::{Address, Dates, Digest, Kind, Name, Role, RoundNo, SessionId, Time, To};
use crate::job::Outcome;
use crate::kdf;
use crate::machine;
use crate::message::{Abort, Announce, Begin, PayloadHeader, PayloadKey, Refuse};
use crate::outbox::Settled;
use crate::patient::{payload_commitment, payload_info};
use crate::plan::{Ask, Plan};
use crate::records::{Records, StoredSecret, session_key};
use crate::seal::{SealError, SealKey, SealSecret, SumSealer};
use crate::secret::{Root, SessionRandomness};
use crate::session::{Asked, Lineup, Pieces, Rules, read_list};
use crate::step::Event;
use crate::wire::{self, Frame, Signed};

#[derive(Debug)]
enum Stage {
    /// No Roster yet.
    Announced,
    /// The Roster is here; the list is coming.
    Listing(Box<Lineup>, Pieces),
    /// It is known who joined.
    Open(Box<Open>),
}

/// One session of the hospital.
#[derive(Debug)]
pub(super) struct Session {
    rules: Rules,
    announce: Signed,
    announced: Time,
    randomness: SessionRandomness,
    secret: Arc<SealSecret>,
    stage: Stage,
    /// A question that waits for the list.
    waiting: Option<(Ask, Last)>,
    ended: bool,
}

/// What the store keeps of a session.
#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Stored {
    announce: Signed,
    announced: Time,
    randomness: StoredSecret,
}

/// The hospital's seal key for a session, from its randomness.
fn seal_secret(randomness: &SessionRandomness) -> SealSecret {
    SealSecret::from_randomness(randomness, &[b"hospital"])
}

impl Session {
    /// Opens one that counts as announced at `announced`.
    pub(super) fn announce(plan: &Plan, announced: Time, desk: &mut HospitalDesk<'_>) -> Self {
        let randomness = SessionRandomness::new(desk.fresh("ward/1 session randomness", b"announce"));
        let secret = seal_secret(&randomness);
        let announce = Announce {
            nonce: kdf::derive("ward/1 announce nonce", randomness.expose(), &[]),
            study: plan.study.clone(),
            sharing: plan.sharing,
            min_cohort: plan.min_cohort,
            expect: plan.expect,
            candidates: plan.candidates.clone(),
            servers: plan.servers.clone(),
            payloads: plan.payloads,
            join_seconds: plan.join_seconds,
            not_after: plan.not_after.0,
            seal_key: secret.public(),
            chain: desk.me.chain.clone(),
        };
        let pen = Pen { me: desk.me, session: Digest::default(), round: RoundNo::SETUP, secret: randomness.expose() };
        let signed = pen.sign(Kind::Announce, To::All, Digest::default(), &announce);
        let hospital = crate::id::Identity {
            name: desk.me.name.clone(),
            role: desk.me.role,
            key: desk.me.signing.verifying_key(),
            certificate: Digest::default(),
        };
        let blocks = announce.sharing.blocks().into();
        let rules = Rules { session: signed.digest(), announce, hospital, blocks };
        let session = Self {
            announce: signed,
            announced,
            secret: Arc::new(secret),
            randomness,
            stage: Stage::Announced,
            waiting: None,
            ended: false,
            rules,
        };
        session.save(desk);
        session.again(desk);
        desk.out.event(Event::Session(session.id()));
        session
    }

    /// Writes what this session says in its set-up, for the first time or again.
    pub(super) fn again(&self, desk: &mut HospitalDesk<'_>) {
        desk.out.send.push(self.pen(desk.me).post(Kind::Announce, &self.announce, To::All, &[]));
        self.send_payload_keys(desk);
    }

    pub(super) fn id(&self) -> SessionId {
        self.rules.session
    }

    pub(super) fn info(&self) -> SessionInfo {
        let sharing = self.rules.announce.sharing;
        SessionInfo {
            session: self.id(),
            announced: self.announced,
            rules: format!(
                "c={}, t={}, k={}",
                sharing.committee(),
                sharing.threshold(),
                self.rules.announce.min_cohort
            ),
            committee: sharing.committee(),
            threshold: sharing.threshold(),
            quorum: sharing.quorum(),
            min_cohort: self.rules.announce.min_cohort,
            expect: self.rules.announce.expect,
        }
    }

    pub(super) fn is_open(&self) -> bool {
        matches!(self.stage, Stage::Open(_))
    }

    fn pen<'a>(&'a self, me: &'a Me) -> Pen<'a> {
        Pen { me, session: self.rules.session, round: RoundNo::SETUP, secret: self.randomness.expose() }
    }

    pub(super) fn take(&mut self, frame: &Frame, desk: &mut HospitalDesk<'_>) -> Result<(), Stop> {
        match frame.envelope.kind {
            Kind::Roster => self.on_roster(frame, desk),
            Kind::List => self.on_list(frame, desk),
            Kind::Refuse if matches!(self.stage, Stage::Announced) => self.on_refused_joins(frame, desk),
            Kind::Cohort | Kind::Confirm | Kind::Refuse | Kind::MaskedSum | Kind::MaskSum | Kind::CheckSum => {
                let (rules, open) = self.open()?;
                open.take(frame, rules, desk)
            }
            _ => Err(rule("a hospital is never sent this kind")),
        }
    }

    fn open(&mut self) -> Result<(&Rules, &mut Open), Stop> {
        match &mut self.stage {
            Stage::Open(open) => Ok((&self.rules, open)),
            _ => Err(Stop::Early),
        }
    }

    fn on_roster(&mut self, frame: &Frame, desk: &mut HospitalDesk<'_>) -> Result<(), Stop> {
        let lineup = Lineup::read(frame, &self.rules, desk.me, Dates::At(desk.now))?;
        if let Some(known) = self.lineup() {
            let same = known.digest == lineup.digest;
            return Err(if same { Stop::Useless("the roster is known") } else { Stop::Fault(Wrong::Equivocation) });
        }
        let committee = lineup.seats.iter().map(|seat| seat.identity.name.clone()).collect();
        desk.out.event(Event::Roster { session: self.id(), count: lineup.count, committee });
        desk.out.put(session_key(self.id(), "roster"), wire::encode(&frame.signed()));
        self.stage = Stage::Listing(Box::new(lineup), Pieces::default());
        Ok(())
    }

    fn lineup(&self) -> Option<&Lineup> {
        match &self.stage {
            Stage::Announced => None,
            Stage::Listing(lineup, _) => Some(lineup),
            Stage::Open(open) => Some(&open.lineup),
        }
    }

    fn on_list(&mut self, frame: &Frame, desk: &mut HospitalDesk<'_>) -> Result<(), Stop> {
        let (lineup, pieces) = match &mut self.stage {
            Stage::Announced => return Err(Stop::Early),
            Stage::Listing(lineup, pieces) => (lineup, pieces),
            Stage::Open(_) => return Err(Stop::Useless("the list is known")),
        };
        let Some(joined) = pieces.take(frame, &self.rules, lineup, desk)? else { return Ok(()) };
        let open = Open {
            lineup: (**lineup).clone(),
            joined,
            past: Vec::new(),
            begun: Vec::new(),
            last: RoundNo::SETUP,
            round: None,
            ended: false,
        };
        open.save(self.rules.session, desk);
        self.stage = Stage::Open(Box::new(open));
        self.send_payload_keys(desk);
        if let Some((ask, last)) = self.waiting.take() {
            let refused = self.begin(ask, last, desk);
            debug_assert!(refused.is_ok(), "a question is checked for the expected patients before it waits");
        }
        Ok(())
    }

    /// Seals the payload key to everybody who joined; a Join with a key that is no key gets none, and cannot answer.
    fn send_payload_keys(&self, desk: &mut HospitalDesk<'_>) {
        let Stage::Open(open) = &self.stage else { return };
        if !self.rules.announce.payloads {
            return;
        }
        let key = self.payload_key();
        let pen = self.pen(desk.me);
        for one in &open.joined {
            let Some(Ok(message)) = one.seal_key.as_ref().map(|to| self.seal_payload_key(to, one.name(), &key)) else {
                continue;
            };
            desk.out.send.push(pen.write(Kind::PayloadKey, To::One(one.name().clone()), open.lineup.digest, &message));
        }
    }

    fn seal_payload_key(&self, to: &SealKey, patient: &Name, key: &[u8; 32]) -> Result<PayloadKey, SealError> {
        let info = payload_info(self.rules.session, patient);
        let randomness = kdf::derive("ward/1 payload seal randomness", self.randomness.expose(), &[&info, key]);
        let (sealer, encapsulation) = SumSealer::new(to, &info, randomness)?;
        let sealed = sealer.seal(0, key)?;
        Ok(PayloadKey { encapsulation: ByteBuf::from(encapsulation), sealed: ByteBuf::from(sealed) })
    }

    fn payload_key(&self) -> [u8; 32] {
        kdf::derive("ward/1 payload key", self.randomness.expose(), &[])
    }

    /// The server closed joins with too few, or without one of the servers.
    fn on_refused_joins(&mut self, frame: &Frame, desk: &mut HospitalDesk<'_>) -> Result<(), Stop> {
        let refuse: Refuse = frame.envelope.body()?;
        if !matches!(refuse, Refuse::TooFewJoined { .. } | Refuse::ServersMissing { .. }) {
            return Err(Stop::Early);
        }
        // There is no Roster that would show who the server is: its chain comes along, and proves itself.
        let server = identify(desk.me, &wire::decode(&frame.attachment, "certificate chain")?, Dates::At(desk.now))?;
        frame.verify(&server)?;
        let announced = server.role == Role::Server && server.name == *self.rules.first_server();
        if frame.envelope.after != self.rules.session || !announced {
            return Err(Wrong::NotItsRole.into());
        }
        let committee = u32::from(self.rules.announce.sharing.committee());
        let is_other = |name: &Name| self.rules.announce.servers[1..].contains(name);
        let reason = match refuse {
            Refuse::TooFewJoined { joined, marked } => {
                AbortReason::TooFewJoined { joined, marked, needed: self.rules.needed(), committee }
            }
            Refuse::ServersMissing { missing } if missing.iter().all(is_other) => {
                AbortReason::ServersMissing { missing }
            }
            _ => return Err(rule("a Refuse for want of servers that the Announce does not name")),
        };
        self.abort(reason, self.rules.session, RoundNo::SETUP, true, desk);
        Ok(())
    }

    fn abort(&mut self, reason: AbortReason, after: Digest, round: RoundNo, last: bool, desk: &mut HospitalDesk<'_>) {
        let pen = Pen { round, ..self.pen(desk.me) };
        let abort = Abort { reason: reason.clone(), last };
        desk.out.send.push(pen.write(Kind::Abort, To::All, after, &abort));
        let advice = String::new();
        desk.out.event(Event::Aborted { session: self.rules.session, round, reason, advice });
        self.waiting = None;
        self.ended |= last;
    }

    /// Asks now, or as soon as the list is here.
    pub(super) fn ask(&mut self, ask: Ask, last: Last, desk: &mut HospitalDesk<'_>) -> Result<(), PlanError> {
        if let Stage::Open(open) = &self.stage {
            if open.round.is_some() {
                return Err(PlanError::Busy);
            }
            return self.begin(ask, last, desk);
        }
        if self.waiting.is_some() {
            return Err(PlanError::Busy);
        }
        ask.check(self.rules.announce.expect)?;
        self.waiting = Some((ask, last));
        Ok(())
    }

    fn begin(&mut self, ask: Ask, last: Last, desk: &mut HospitalDesk<'_>) -> Result<(), PlanError> {
        let payload_key = self.payload_key();
        let Stage::Open(open) = &mut self.stage else { return Err(PlanError::Busy) };
        let ring = ask.check(open.lineup.count)?;
        let number = open.last.next();
        let payload = self
            .rules
            .announce
            .payloads
            .then(|| PayloadHeader { chunks: Vec::new(), key: payload_commitment(&payload_key, number.0) });
        // The newest cohort over this snapshot, opened or not: members may have confirmed it.
        let same_as = open.past.iter().rev().find(|past| past.snapshot == ask.snapshot).map(|past| past.round);
        let begin = Begin {
            question: ask.question,
            snapshot: ask.snapshot,
            same_as,
            ring,
            scale: ask.scale,
            scaled_bound: ask.scaled_bound,
            enough: ask.enough,
            round_seconds: ask.round_seconds,
            payload,
        };
        let root = Root::new(desk.fresh("ward/1 hospital root", &self.rules.session.0));
        let pen = Pen { me: desk.me, session: self.rules.session, round: number, secret: root.expose() };
        let signed = pen.sign(Kind::Begin, To::All, open.lineup.digest, &begin);
        let asked = signed.open().map_err(Stop::from);
        let asked = asked.and_then(|frame| Asked::read(&frame, &self.rules, &open.lineup, open.last, desk.now));
        let asked = asked.map_err(|_| PlanError::Dimension(begin.question.dimension()))?;
        desk.out.settled.push(Settled::Round(self.rules.session, open.last));
        open.last = number;
        open.begun.push(Begun { round: number, begin: asked.digest, snapshot: begin.snapshot.clone() });
        open.save(self.rules.session, desk);
        desk.out.send.push(pen.post(Kind::Begin, &signed, To::All, &[]));
        desk.out.event(Event::Round { session: self.rules.session, round: number });
        let servers = open.lineup.servers.len();
        let round = Round::new(asked, root, self.secret.clone(), (ask.audit, last), servers);
        round.save(self.rules.session, desk);
        open.round = Some(round);
        Ok(())
    }

    pub(super) fn stop(&mut self, last: bool, desk: &mut HospitalDesk<'_>) {
        match &mut self.stage {
            Stage::Open(open) if open.round.is_some() => {
                open.abort(AbortReason::Stopped, String::new(), last, &self.rules, desk);
            }
            Stage::Open(open) if last => {
                let (after, round) = (open.lineup.digest, open.last);
                self.abort(AbortReason::Stopped, after, round, true, desk);
            }
            Stage::Open(_) => {}
            _ => self.abort(AbortReason::Stopped, self.rules.session, RoundNo::SETUP, last, desk),
        }
    }

    pub(super) fn take_chunk(
        &mut self,
        address: &Address,
        payload: &bytes::Bytes,
        desk: &mut HospitalDesk<'_>,
    ) -> Result<(), Stop> {
        let (rules, open) = self.open()?;
        open.take_chunk(address, payload, rules.session, desk)
    }

    pub(super) fn read(&mut self, address: &Address, payload: Option<bytes::Bytes>, desk: &mut HospitalDesk<'_>) {
        if let Stage::Open(open) = &mut self.stage {
            open.read(address, payload, &self.rules, desk);
        }
    }

    pub(super) fn done(&mut self, ticket: Ticket, outcome: Outcome, desk: &mut HospitalDesk<'_>) {
        if let Stage::Open(open) = &mut self.stage {
            open.done(ticket, outcome, &self.rules, desk);
        }
    }

    /// Where the round that is open asks this, to be checked in this way: whether no round was over another snapshot.
    pub(super) fn asking(&self, ask: &Ask) -> Option<bool> {
        let Stage::Open(open) = &self.stage else { return None };
        let round = open.round.as_ref()?;
        let Begin { question, snapshot, scale, scaled_bound, .. } = &round.asked.begin;
        let same = *question == ask.question
            && *snapshot == ask.snapshot
            && *scale == ask.scale
            && *scaled_bound == ask.scaled_bound
            && round.audit == ask.audit;
        same.then(|| open.snapshots().all(|asked| asked == snapshot))
    }

    pub(super) fn is_in_round(&self) -> bool {
        matches!(&self.stage, Stage::Open(open) if open.round.is_some())
    }

    fn save(&self, desk: &mut HospitalDesk<'_>) {
        let announce = self.announce.clone();
        let stored =
            Stored { announce, announced: self.announced, randomness: StoredSecret(*self.randomness.expose()) };
        desk.out.put(session_key(self.id(), "state"), wire::encode(&stored));
    }

    /// All sessions that the store has.
    pub(super) fn restore_all(me: &Me, store: &Records) -> Vec<(SessionId, Self)> {
        let states = store.iter().filter(|(key, _)| key.starts_with("session/") && key.ends_with("/state"));
        states.filter_map(|(_, value)| Self::restore(me, value, store)).collect()
    }

    fn restore(me: &Me, value: &[u8], store: &Records) -> Option<(SessionId, Self)> {
        let stored: Stored = wire::decode(value, "session").ok()?;
        let rules = Rules::read(&stored.announce.open().ok()?, me, Dates::Checked).ok()?;
        let id = rules.session;
        let randomness = SessionRandomness::new(stored.randomness.0);
        let secret = Arc::new(seal_secret(&randomness));
        let bytes = |what: &str| store.get(&session_key(id, what));
        let lineup = match bytes("roster") {
            Some(roster) => {
                let roster: Signed = wire::decode(roster, "roster").ok()?;
                Some(Lineup::read(&roster.open().ok()?, &rules, me, Dates::Checked).ok()?)
            }
            None => None,
        };
        let stage = match (lineup, bytes("list"), bytes("rounds")) {
            (None, ..) => Stage::Announced,
            (Some(lineup), Some(list), Some(rounds)) => {
                let joined = read_list(list, &rules, me)?;
                let (last, past, begun) = wire::decode(rounds, "rounds").ok()?;
                let mut open = Open { lineup, joined, past, begun, last, round: None, ended: false };
                if let Some(stored) = bytes("round") {
                    open.round = Some(Round::restore(stored, &rules, &open, secret.clone())?);
                }
                Stage::Open(Box::new(open))
            }
            (Some(lineup), ..) => {
                let pieces = Pieces::restore(&rules, &lineup, me, store);
                Stage::Listing(Box::new(lineup), pieces)
            }
        };
        let session = Self {
            announce: stored.announce.clone(),
            announced: stored.announced,
            secret,
            randomness,
            stage,
            waiting: None,
            ended: false,
            rules,
        };
        Some((id, session))
    }
}

impl machine::Session<Ticket> for Session {
    fn keep_time(&mut self, desk: &mut HospitalDesk<'_>) {
        desk.out.wake_at(self.rules.not_after());
        if let Stage::Open(open) = &mut self.stage {
            open.keep_time(&self.rules, desk);
        }
    }

    fn is_over(&self, now: Time) -> bool {
        self.ended || self.rules.is_over(now) || matches!(&self.stage, Stage::Open(open) if open.ended)
    }

    fn wipe(&mut self, desk: &mut HospitalDesk<'_>) {
        for what in ["state", "roster", "list", "rounds", "round"] {
            desk.out.forget(session_key(self.rules.session, what));
        }
        if let Stage::Listing(_, pieces) = &self.stage {
            pieces.wipe(self.rules.session, desk.out);
        }
    }
}

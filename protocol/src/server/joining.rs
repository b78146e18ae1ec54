//! One session of the server: Joins until they close, then the Roster, then round by round.

use std::collections::{BTreeMap, BTreeSet};

use serde::{Deserialize, Serialize};

use super::following::{Following, read_join};
use super::round::Round;
use super::{ServerDesk, Ticket};
use crate::desk::{Me, Pen, Stop, rule};
use crate::error::Wrong;
use crate::id::{Address, Chain, Dates, Digest, Kind, Name, Place, RoundNo, SessionId, Time, To};
use crate::job::Outcome;
use crate::machine;
use crate::merkle::{self, MerkleTree};
use crate::message::{Abort, List, PlaceProof, Receipt, Refuse, Roster};
use crate::outbox::Settled;
use crate::records::{Records, StoredSecret, session_key};
use crate::seal::SealKey;
use crate::secret::SessionRandomness;
use crate::session::{Asked, Joined, Lineup, Past, Rules, read_list, store_list};
use crate::step::Event;
use crate::wire::{self, Frame, Signed};

/// The most bytes of Joins in one piece of the list.
const PIECE: usize = 512 << 10;

#[derive(Debug)]
enum Stage {
    /// Joins are open; the other servers say who they are.
    Joining {
        joins: BTreeMap<Name, Joined>,
        seal_keys: BTreeSet<SealKey>,
        servers: BTreeMap<Name, Chain>,
        closes: Time,
    },
    /// This is not the first server: it follows the one that is.
    Following(Following),
    /// Joins closed with too few, or without one of the servers; the hospital aborts.
    Refused(Refuse),
    /// There is a Roster.
    Running(Box<Running>),
}

/// A session with a Roster.
#[derive(Debug)]
pub(super) struct Running {
    /// Which of the servers this is, counted from 0.
    pub(super) index: usize,
    roster: Signed,
    pub(super) lineup: Lineup,
    pub(super) joined: Vec<Joined>,
    pub(super) past: Vec<Past>,
    pub(super) last: RoundNo,
    pub(super) round: Option<Round>,
}

/// One session of the server.
#[derive(Debug)]
pub(super) struct Session {
    rules: Rules,
    randomness: SessionRandomness,
    stage: Stage,
    ended: bool,
}

/// What the store keeps of a session.
#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Stored {
    announce: Signed,
    randomness: StoredSecret,
}

impl Session {
    pub(super) fn open(rules: Rules, frame: &Frame, desk: &mut ServerDesk<'_>) -> Self {
        let randomness = SessionRandomness::new(desk.fresh("ward/1 session randomness", &rules.session.0));
        let stored = Stored { announce: frame.signed(), randomness: StoredSecret(*randomness.expose()) };
        desk.out.put(session_key(rules.session, "state"), wire::encode(&stored));
        desk.out.event(Event::Session(rules.session));
        let closes = desk.now.plus_seconds(rules.announce.join_seconds);
        let stage = match rules.server_index(&desk.me.name) {
            Some(0) => {
                let (joins, seal_keys, servers) = (BTreeMap::new(), BTreeSet::new(), BTreeMap::new());
                Stage::Joining { joins, seal_keys, servers, closes }
            }
            _ => Stage::Following(Following::Joined),
        };
        let session = Self { randomness, stage, ended: false, rules };
        session.again(desk);
        session
    }

    pub(super) fn id(&self) -> SessionId {
        self.rules.session
    }

    pub(super) fn take(&mut self, frame: &Frame, address: &Address, desk: &mut ServerDesk<'_>) -> Result<(), Stop> {
        match frame.envelope.kind {
            Kind::Join => self.on_join(frame, desk),
            Kind::Begin => self.on_begin(frame, desk),
            Kind::Share | Kind::Decline | Kind::Held | Kind::Cohort | Kind::Open => {
                let (rules, running) = self.running()?;
                running.take(frame, address, rules, desk)
            }
            Kind::Result | Kind::Abort => self.on_end(frame, desk),
            Kind::Roster => match &mut self.stage {
                Stage::Following(following) => following.on_roster(frame, &self.rules, desk),
                _ => Err(Stop::Useless("the roster is known, or this server's own")),
            },
            Kind::List => self.on_list(frame, desk),
            _ => Err(rule("a server is never sent this kind")),
        }
    }

    fn running(&mut self) -> Result<(&Rules, &mut Running), Stop> {
        match &mut self.stage {
            Stage::Running(running) => Ok((&self.rules, running)),
            Stage::Joining { .. } | Stage::Following(_) => Err(Stop::Early),
            Stage::Refused(_) => Err(Stop::Useless("too few joined this session, or not every server")),
        }
    }

    fn on_join(&mut self, frame: &Frame, desk: &mut ServerDesk<'_>) -> Result<(), Stop> {
        let Stage::Joining { joins, seal_keys, servers, .. } = &mut self.stage else {
            return Err(Stop::Useless("joins are closed"));
        };
        if self.rules.announce.servers.contains(&frame.envelope.from) {
            let (name, chain) = read_join(frame, &self.rules, desk.me, Dates::At(desk.now))?;
            desk.out.put(join_key(self.rules.session, &name), wire::encode(&frame.signed()));
            servers.insert(name, chain);
            self.close_joins(desk);
            return Ok(());
        }
        let joined = Joined::read(frame, &self.rules, desk.me, Dates::At(desk.now))?;
        if let Some(known) = joins.get(joined.name()) {
            let same = known.digest == joined.digest;
            return Err(if same { Stop::Useless("the join is known") } else { Stop::Fault(Wrong::Equivocation) });
        }
        if joins.len() >= self.rules.announce.expect as usize {
            // Another server is still to come: a Roster of more than were expected would be none.
            return Err(Stop::Useless("as many joined as are expected"));
        }
        if joined.seal_key.as_ref().is_some_and(|key| !seal_keys.insert(key.clone())) {
            // Which of the two copied the other's key cannot be told.
            return Err(Stop::Useless("a join with the seal key of another"));
        }
        desk.out.put(join_key(self.rules.session, joined.name()), wire::encode(&joined.signed));
        joins.insert(joined.name().clone(), joined);
        self.close_joins(desk);
        Ok(())
    }

    fn on_list(&mut self, frame: &Frame, desk: &mut ServerDesk<'_>) -> Result<(), Stop> {
        let Stage::Following(following) = &mut self.stage else { return Err(Stop::Useless("the list is known")) };
        if let Some(running) = following.on_list(frame, &self.rules, desk)? {
            self.stage = Stage::Running(Box::new(running));
        }
        Ok(())
    }

    /// Once all who are expected joined and all servers said who they are, or time is up: makes the Roster of all who
    /// joined, or tells the hospital that they are too few, or which servers are missing.
    fn close_joins(&mut self, desk: &mut ServerDesk<'_>) {
        let Stage::Joining { joins, servers, closes, .. } = &mut self.stage else { return };
        let others = self.rules.announce.servers[1..].iter();
        let missing: Vec<Name> = others.filter(|name| !servers.contains_key(*name)).cloned().collect();
        let complete = joins.len() >= self.rules.announce.expect as usize && missing.is_empty();
        if !complete && desk.now < *closes {
            return;
        }
        let chains: Vec<Chain> = std::iter::once(&desk.me.chain)
            .chain(self.rules.announce.servers.iter().filter_map(|name| servers.get(name)))
            .cloned()
            .collect();
        servers.keys().for_each(|name| desk.out.forget(join_key(self.rules.session, name)));
        let joined: Vec<Joined> = std::mem::take(joins).into_values().collect();
        let enough = missing.is_empty() && joined.len() as u32 >= self.rules.needed();
        let committee = self.rules.draw(joined.iter()).filter(|_| enough);
        let committee: Option<Vec<Signed>> =
            committee.map(|seats| seats.iter().map(|seat| seat.signed.clone()).collect());
        let marked = joined.iter().filter(|one| self.rules.may_sit(&one.identity)).count() as u32;
        let refuse = match missing.is_empty() {
            true => Refuse::TooFewJoined { joined: joined.len() as u32, marked },
            false => Refuse::ServersMissing { missing },
        };
        joined.iter().for_each(|one| desk.out.forget(join_key(self.rules.session, one.name())));
        let running = committee.and_then(|committee| self.found(joined, committee, chains, desk).ok());
        self.stage = match running {
            Some(running) => Stage::Running(Box::new(running)),
            None => {
                desk.out.put(session_key(self.rules.session, "refused"), wire::encode(&refuse));
                Stage::Refused(refuse)
            }
        };
        self.again(desk);
    }

    /// Writes what this session says in its set-up, for the first time or again.
    pub(super) fn again(&self, desk: &mut ServerDesk<'_>) {
        match &self.stage {
            Stage::Joining { .. } | Stage::Following(Following::Listing(..)) => {}
            Stage::Following(Following::Joined) => Following::send_join(&self.rules, &self.pen(desk.me), desk),
            Stage::Refused(refuse) => self.send_refuse(refuse, desk),
            Stage::Running(running) if running.index == 0 => self.send_roster(running, desk),
            Stage::Running(_) => {}
        }
    }

    fn send_refuse(&self, refuse: &Refuse, desk: &mut ServerDesk<'_>) {
        let to = To::One(self.rules.hospital.name.clone());
        let pen = self.pen(desk.me);
        let signed = pen.sign(Kind::Refuse, to.clone(), self.rules.session, refuse);
        // There is no Roster that would show who this server is: its chain goes along, and proves itself.
        desk.out.send.push(pen.post(Kind::Refuse, &signed, to, &wire::encode(&desk.me.chain)));
    }

    /// The Roster of all who joined.
    fn found(
        &self,
        joined: Vec<Joined>,
        committee: Vec<Signed>,
        servers: Vec<Chain>,
        desk: &mut ServerDesk<'_>,
    ) -> Result<Running, Stop> {
        let leaves: Vec<Digest> = joined.iter().map(|one| one.digest).collect();
        let (root, count) = (merkle::root(&leaves), joined.len() as u32);
        let body = Roster { root, count, committee, servers };
        let roster = self.pen(desk.me).sign(Kind::Roster, To::All, self.rules.session, &body);
        let lineup = Lineup::read(&roster.open()?, &self.rules, desk.me, Dates::Checked)?;
        let committee = lineup.seats.iter().map(|seat| seat.identity.name.clone()).collect();
        desk.out.event(Event::Roster { session: self.rules.session, count, committee });
        let running = Running::new(0, roster, lineup, joined);
        desk.out.put(session_key(self.rules.session, "roster"), wire::encode(&running.roster));
        desk.out.put(session_key(self.rules.session, "list"), store_list(&running.joined));
        running.save(self.rules.session, desk);
        Ok(running)
    }

    /// Writes Roster, list and places.
    fn send_roster(&self, running: &Running, desk: &mut ServerDesk<'_>) {
        let Running { roster, lineup, joined, .. } = running;
        let pen = self.pen(desk.me);
        desk.out.send.push(pen.post(Kind::Roster, roster, To::All, &[]));
        self.publish_list(lineup, joined, desk);
        let tree = MerkleTree::new(&joined.iter().map(|one| one.digest).collect::<Vec<_>>());
        for (place, one) in (0u32..).zip(joined) {
            let proof = PlaceProof { place: Place(place), path: tree.path(place).unwrap_or_default() };
            let to = To::One(one.name().clone());
            desk.out.send.push(pen.write(Kind::Place, to, lineup.digest, &proof));
        }
    }

    fn publish_list(&self, lineup: &Lineup, joined: &[Joined], desk: &mut ServerDesk<'_>) {
        let pieces = pieces(joined);
        let pen = self.pen(desk.me);
        let members = lineup.seats.iter().map(|seat| &seat.identity.name);
        let others = &self.rules.announce.servers[1..];
        let receivers: Vec<&Name> = members.chain(others).chain([&self.rules.hospital.name]).collect();
        for (piece, attachment) in (0u32..).zip(&pieces) {
            let joins = wire::attachment_digest(attachment);
            let list = List { roster: lineup.digest, piece, pieces: pieces.len() as u32, joins };
            let signed = pen.sign(Kind::List, To::All, self.rules.session, &list);
            for receiver in &receivers {
                desk.out.send.push(pen.post(Kind::List, &signed, To::One((*receiver).clone()), attachment));
            }
        }
    }

    fn on_begin(&mut self, frame: &Frame, desk: &mut ServerDesk<'_>) -> Result<(), Stop> {
        let (rules, running) = self.running()?;
        let asked = Asked::read(frame, rules, &running.lineup, running.last, desk.now)?;
        if asked.round <= running.last {
            let current = running.round.as_ref().filter(|round| round.asked.round == asked.round);
            let other = current.is_some_and(|round| round.asked.digest != asked.digest);
            return Err(if other { Stop::Fault(Wrong::Equivocation) } else { Stop::Useless("an old round") });
        }
        let hospital = rules.hospital.name.clone();
        desk.out.settled.push(Settled::Round(rules.session, running.last));
        desk.out.settled.push(Settled::Cohort(rules.session, running.last, Some(hospital)));
        // Who asks a cohort again has it.
        desk.out.settled.extend(asked.begin.same_as.map(|round| Settled::Cohort(rules.session, round, None)));
        running.last = asked.round;
        running.save(rules.session, desk);
        desk.out.event(Event::Round { session: rules.session, round: asked.round });
        let round = Round::begin(asked, rules, running, desk);
        running.round = Some(round);
        Ok(())
    }

    /// The hospital says that a round, or the session, is over.
    fn on_end(&mut self, frame: &Frame, desk: &mut ServerDesk<'_>) -> Result<(), Stop> {
        frame.verify(&self.rules.hospital)?;
        let (last, after) = match frame.envelope.kind {
            Kind::Result => {
                let receipt: Receipt = frame.envelope.body()?;
                if receipt.cohort.digest() != frame.envelope.after {
                    return Err(rule("a Result continues the Cohort that it shows"));
                }
                (receipt.last, receipt.cohort.open()?.envelope.after)
            }
            _ => (frame.envelope.body::<Abort>()?.last, frame.envelope.after),
        };
        if let Stage::Running(running) = &mut self.stage
            && let Some(round) = running.round.as_ref().filter(|round| round.asked.round <= frame.envelope.round)
        {
            let current = round.asked.round == frame.envelope.round;
            if current && ![round.asked.digest, running.lineup.digest, self.rules.session].contains(&after) {
                return Err(Stop::Useless("the end of a round after another Begin than this server has"));
            }
            running.close_round(self.rules.session, desk);
        }
        let (session, round) = (self.rules.session, frame.envelope.round);
        desk.out.settled.push(Settled::Round(session, round));
        // Who says that a round was opened has its Cohort.
        let missing = (frame.envelope.kind != Kind::Result).then(|| self.rules.hospital.name.clone());
        desk.out.settled.push(Settled::Cohort(session, round, missing));
        self.ended |= last;
        Ok(())
    }

    pub(super) fn take_chunk(
        &mut self,
        address: &Address,
        payload: &bytes::Bytes,
        desk: &mut ServerDesk<'_>,
    ) -> Result<(), Stop> {
        let (rules, running) = self.running()?;
        running.take_chunk(address, payload, rules.session, desk)
    }

    pub(super) fn read(&mut self, address: &Address, payload: Option<bytes::Bytes>, desk: &mut ServerDesk<'_>) {
        if let Ok((rules, running)) = self.running() {
            running.read(address, payload, rules, desk);
        }
    }

    pub(super) fn done(&mut self, ticket: Ticket, outcome: Outcome, desk: &mut ServerDesk<'_>) {
        if let Ok((rules, running)) = self.running() {
            running.done(ticket, outcome, rules, desk);
        }
    }

    pub(super) fn is_in_round(&self) -> bool {
        matches!(&self.stage, Stage::Running(running) if running.round.is_some())
    }

    fn pen<'a>(&'a self, me: &'a Me) -> Pen<'a> {
        Pen { me, session: self.rules.session, round: RoundNo::SETUP, secret: self.randomness.expose() }
    }

    /// All sessions that the store has.
    pub(super) fn restore_all(me: &Me, store: &Records, now: Time) -> Vec<(SessionId, Self)> {
        let states = store.iter().filter(|(key, _)| key.starts_with("session/") && key.ends_with("/state"));
        states.filter_map(|(_, value)| Self::restore(me, value, store, now)).collect()
    }

    fn restore(me: &Me, value: &[u8], store: &Records, now: Time) -> Option<(SessionId, Self)> {
        let stored: Stored = wire::decode(value, "session").ok()?;
        let rules = Rules::read(&stored.announce.open().ok()?, me, Dates::Checked).ok()?;
        let session = rules.session;
        let index = rules.server_index(&me.name)?;
        let stage = match (index, store.contains_key(&session_key(session, "rounds"))) {
            (_, true) => Stage::Running(Box::new(Running::restore(index, &rules, me, store, now)?)),
            (0, false) if let Some(refuse) = store.get(&session_key(session, "refused")) => {
                Stage::Refused(wire::decode(refuse, "refusal").ok()?)
            }
            (0, false) => {
                let (joins, servers) = restore_joins(&rules, me, store);
                let seal_keys = joins.values().filter_map(|joined| joined.seal_key.clone()).collect();
                Stage::Joining { joins, seal_keys, servers, closes: now.plus_seconds(rules.announce.join_seconds) }
            }
            (_, false) => Stage::Following(Following::restore(&rules, me, store)?),
        };
        let randomness = SessionRandomness::new(stored.randomness.0);
        Some((session, Self { randomness, stage, ended: false, rules }))
    }
}

impl machine::Session<Ticket> for Session {
    fn keep_time(&mut self, desk: &mut ServerDesk<'_>) {
        desk.out.wake_at(self.rules.not_after());
        match &mut self.stage {
            Stage::Joining { closes, .. } if desk.now >= *closes => self.close_joins(desk),
            Stage::Joining { closes, .. } => desk.out.wake_at(*closes),
            Stage::Running(running) => running.keep_time(&self.rules, desk),
            Stage::Following(_) | Stage::Refused(_) => {}
        }
    }

    fn is_over(&self, now: Time) -> bool {
        self.ended || self.rules.is_over(now)
    }

    fn wipe(&mut self, desk: &mut ServerDesk<'_>) {
        for what in ["state", "roster", "list", "rounds", "round", "refused"] {
            desk.out.forget(session_key(self.rules.session, what));
        }
        match &self.stage {
            Stage::Joining { joins, servers, .. } => {
                let names = joins.keys().chain(servers.keys());
                names.for_each(|name| desk.out.forget(join_key(self.rules.session, name)));
            }
            Stage::Following(Following::Listing(_, _, pieces)) => pieces.wipe(self.rules.session, desk.out),
            _ => {}
        }
    }
}

impl Running {
    /// A session in which nothing was asked yet.
    pub(super) fn new(index: usize, roster: Signed, lineup: Lineup, joined: Vec<Joined>) -> Self {
        Self { index, roster, lineup, joined, past: Vec::new(), last: RoundNo::SETUP, round: None }
    }

    /// Stores which rounds were, and their cohorts.
    pub(super) fn save(&self, session: SessionId, desk: &mut ServerDesk<'_>) {
        desk.out.put(session_key(session, "rounds"), wire::encode(&(self.last, &self.past)));
    }

    fn restore(index: usize, rules: &Rules, me: &Me, store: &Records, now: Time) -> Option<Self> {
        let bytes = |what: &str| store.get(&session_key(rules.session, what));
        let roster: Signed = wire::decode(bytes("roster")?, "roster").ok()?;
        let lineup = Lineup::read(&roster.open().ok()?, rules, me, Dates::Checked).ok()?;
        let joined = read_list(bytes("list")?, rules, me)?;
        let (last, past) = wire::decode(bytes("rounds")?, "rounds").ok()?;
        let mut running = Self { index, roster, lineup, joined, past, last, round: None };
        if let Some(stored) = bytes("round") {
            running.round = Some(Round::restore(stored, rules, &running, now)?);
        }
        Some(running)
    }
}

fn join_key(session: SessionId, name: &Name) -> String {
    session_key(session, &format!("join/{name}"))
}

/// The Joins of patients and of other servers that were stored while joins were open.
fn restore_joins(rules: &Rules, me: &Me, store: &Records) -> (BTreeMap<Name, Joined>, BTreeMap<Name, Chain>) {
    let (mut joins, mut servers) = (BTreeMap::new(), BTreeMap::new());
    let prefix = session_key(rules.session, "join/");
    for (_, value) in store.range(prefix.clone()..).take_while(|(key, _)| key.starts_with(&prefix)) {
        let Ok(frame) = wire::decode::<Signed>(value, "join").and_then(|signed| signed.open()) else { continue };
        if let Ok(joined) = Joined::read(&frame, rules, me, Dates::Checked) {
            joins.insert(joined.name().clone(), joined);
        } else if let Ok((name, chain)) = read_join(&frame, rules, me, Dates::Checked) {
            servers.insert(name, chain);
        }
    }
    (joins, servers)
}

/// The Joins in pieces that fit a message.
fn pieces(joined: &[Joined]) -> Vec<Vec<u8>> {
    let mut pieces: Vec<Vec<&Signed>> = Vec::new();
    let mut size = PIECE;
    for one in joined {
        let length = wire::encode(&one.signed).len();
        if size + length > PIECE {
            pieces.push(Vec::new());
            size = 0;
        }
        size += length;
        if let Some(piece) = pieces.last_mut() {
            piece.push(&one.signed);
        }
    }
    pieces.iter().map(wire::encode).collect()
}

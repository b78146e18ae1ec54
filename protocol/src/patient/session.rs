//! One session of a patient: from Announce to its place and its keys, then round by round.

use serde::{Deserialize, Serialize};
use serde_bytes::ByteBuf;
use zeroize::Zeroizing;

use super::Ticket;
use super::round::Round;
use super::vault::Vault;
use crate::chains::{Chain, StoredChain};
use crate::desk::{Desk, Me, Pen, Stop, identify, rule};
use crate::error::{AbortReason, Wrong};
use crate::id::{Address, Dates, Digest, Identity, Kind, Place, Role, RoundNo, SessionId, Time, To};
use crate::job::Outcome;
use crate::machine;
use crate::member::Member;
use crate::merkle;
use crate::message::{Abort, Announce, Join, Key, PayloadKey, PlaceProof, Receipt};
use crate::outbox::Settled;
use crate::records::{Records, session_key};
use crate::seal::{self, SealSecret, SumOpener};
use crate::secret::{Root, SessionRandomness};
use crate::session::{Asked, Fixed, Lineup, Pieces, Rules, read_confirms};
use crate::step::Event;
use crate::task::Policy;
use crate::wire::{self, Frame, Signed};

/// How far the patient is in.
#[derive(Debug)]
enum Stage {
    /// Joined; no Roster yet.
    Joined,
    /// There is a Roster; whether the patient is on it is not proven yet.
    Waiting(Lineup),
    /// On the Roster, with a chain of keys to each member.
    In(Box<Enrolled>),
}

/// A patient with its place.
pub(super) struct Enrolled {
    pub(super) lineup: Lineup,
    pub(super) place: Place,
    pub(super) chains: Vec<Chain>,
    pub(super) payload_key: Option<Zeroizing<[u8; 32]>>,
}

impl std::fmt::Debug for Enrolled {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        // The payload key is a secret, and an array would print its bytes.
        write!(f, "Enrolled(place {}, {:?})", self.place.0, self.chains)
    }
}

/// One session of a patient.
#[derive(Debug)]
pub(crate) struct Session {
    pub(super) rules: Rules,
    announce: Signed,
    /// As it was written when this patient joined: a certificate that is renewed later makes no other of it.
    join: Signed,
    roster: Option<Signed>,
    randomness: Option<SessionRandomness>,
    stage: Stage,
    member: Option<Member>,
    /// The newest round that began, and its Begin; no Begin where its end came first.
    last: Option<(RoundNo, Option<Digest>)>,
    round: Option<Round>,
    /// The last word was said: the session is over.
    ended: bool,
}

/// What a store keeps of a session, besides its keys.
#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Stored {
    announce: Signed,
    join: Signed,
    roster: Option<Signed>,
    place: Option<Place>,
    last: Option<(RoundNo, Option<Digest>)>,
}

impl Session {
    /// Joins the session, if `policy` allows.
    pub(super) fn join(rules: Rules, frame: &Frame, policy: &Policy, desk: &mut Desk<'_, Ticket>) -> Option<Self> {
        if let Some(why) = objection(&rules, policy) {
            desk.out.event(Event::NotJoined { session: rules.session, why });
            return None;
        }
        let randomness = SessionRandomness::new(desk.fresh("ward/1 session randomness", &rules.session.0));
        let session = Self {
            announce: frame.signed(),
            join: write_join(&rules, &randomness, desk.me),
            roster: None,
            stage: Stage::Joined,
            member: None,
            last: None,
            round: None,
            ended: false,
            randomness: Some(randomness),
            rules,
        };
        session.save(desk);
        session.save_randomness(desk);
        session.send_join(desk);
        desk.out.event(Event::Session(session.rules.session));
        Some(session)
    }

    /// Writes the Join that no Roster followed yet, and has the chunks of the open round made again.
    pub(super) fn again(&mut self, desk: &mut Desk<'_, Ticket>) {
        if matches!(self.stage, Stage::Joined) {
            self.send_join(desk);
        }
        if let Some(round) = &mut self.round {
            round.again(&self.rules, desk);
        }
        if let Some(member) = &mut self.member {
            member.again(&self.rules, desk);
        }
    }

    /// Goes on with the round that was open when this patient was stopped.
    pub(super) fn resume(&mut self, vault: &Vault, desk: &mut Desk<'_, Ticket>) {
        if let (Some(round), Stage::In(enrolled)) = (&mut self.round, &self.stage) {
            round.resume(&self.rules, enrolled.lineup.digest, vault, desk);
        }
    }

    pub(super) fn is_in_round(&self) -> bool {
        self.round.is_some()
    }

    /// Whether the Roster has a seat for this party and its store has not what it sat down with.
    pub(super) fn has_lost_its_seat(&self, me: &Me) -> bool {
        let is_seated = |lineup: &Lineup| lineup.seat_of(&me.name).is_some();
        self.member.is_none() && !self.ended && self.lineup().is_some_and(is_seated)
    }

    fn send_join(&self, desk: &mut Desk<'_, Ticket>) {
        let Some(randomness) = &self.randomness else { return };
        let pen = self.pen(desk.me, randomness.expose());
        for server in &self.rules.announce.servers {
            desk.out.send.push(pen.post(Kind::Join, &self.join, To::One(server.clone()), &[]));
        }
    }

    fn pen<'a>(&self, me: &'a Me, secret: &'a [u8; 32]) -> Pen<'a> {
        Pen { me, session: self.rules.session, round: RoundNo::SETUP, secret }
    }

    pub(super) fn take(
        &mut self,
        frame: &Frame,
        policy: &Policy,
        vault: &mut Vault,
        desk: &mut Desk<'_, Ticket>,
    ) -> Result<(), Stop> {
        match frame.envelope.kind {
            Kind::Roster => self.on_roster(frame, policy, desk),
            Kind::Place => self.on_place(frame, desk),
            Kind::PayloadKey => self.on_payload_key(frame, desk),
            Kind::Begin => self.on_begin(frame, policy, vault, desk),
            Kind::Result => self.on_result(frame, desk),
            Kind::Abort => self.on_abort(frame, desk),
            Kind::List | Kind::Key | Kind::Share | Kind::Cohort | Kind::Open | Kind::Check => match &mut self.member {
                Some(member) => member.take(frame, &self.rules, desk),
                None if matches!(self.stage, Stage::Joined) => Err(Stop::Early),
                None => Err(Stop::Useless("this patient is not on the committee")),
            },
            _ => Err(rule("a patient is never sent this kind")),
        }
    }

    fn on_roster(&mut self, frame: &Frame, policy: &Policy, desk: &mut Desk<'_, Ticket>) -> Result<(), Stop> {
        if self.lineup().is_some_and(|known| known.digest == frame.digest) {
            return Err(Stop::Useless("the roster is known"));
        }
        let lineup = Lineup::read(frame, &self.rules, desk.me, Dates::At(desk.now))?;
        if self.lineup().is_some() {
            // One Roster per session: a second one that the server signed is its lie.
            return Err(Stop::Fault(Wrong::Equivocation));
        }
        if let Some(seat) = lineup.seats.iter().find(|seat| !policy.members.accepts(&seat.identity.name)) {
            let why = format!("member {} is not among those this patient accepts", seat.identity.name);
            desk.out.event(Event::NotJoined { session: self.rules.session, why });
            self.ended = true;
            return Ok(());
        }
        self.sit_down(&lineup, policy, desk);
        let committee = lineup.seats.iter().map(|seat| seat.identity.name.clone()).collect();
        desk.out.event(Event::Roster { session: self.rules.session, count: lineup.count, committee });
        self.roster = Some(frame.signed());
        self.stage = Stage::Waiting(lineup);
        self.save(desk);
        Ok(())
    }

    /// Becomes a member where the Roster says so.
    fn sit_down(&mut self, lineup: &Lineup, policy: &Policy, desk: &Desk<'_, Ticket>) {
        let Some(randomness) = &self.randomness else { return };
        self.member = seated(lineup, desk.me, randomness, self.rules.session, policy.min_cohort);
    }

    fn on_place(&mut self, frame: &Frame, desk: &mut Desk<'_, Ticket>) -> Result<(), Stop> {
        let lineup = match &self.stage {
            Stage::Joined => return Err(Stop::Early),
            Stage::Waiting(lineup) => lineup.clone(),
            Stage::In(_) => return Err(Stop::Useless("the place is known")),
        };
        frame.verify(&lineup.servers[0])?;
        let proof: PlaceProof = frame.envelope.body()?;
        if frame.envelope.after != lineup.digest
            || !merkle::verify(lineup.root, lineup.count, proof.place.0, self.join.digest(), &proof.path)
        {
            return Err(rule("the place does not fit the Roster's root"));
        }
        let chains = self.send_keys(&lineup, desk)?;
        self.stage = Stage::In(Box::new(Enrolled { lineup, place: proof.place, chains, payload_key: None }));
        self.save(desk);
        self.save_chains(desk);
        Ok(())
    }

    /// This patient as its Join says, and as others know it: its certificate may have been renewed since.
    fn joined_as(&self, me: &Me) -> Result<Identity, Stop> {
        let join: Join = self.join.open()?.envelope.body()?;
        identify(me, &join.chain, Dates::Checked)
    }

    fn send_keys(&self, lineup: &Lineup, desk: &mut Desk<'_, Ticket>) -> Result<Vec<Chain>, Stop> {
        let randomness = self.randomness.as_ref().ok_or(Stop::Useless("the session's keys are gone"))?;
        let own = self.joined_as(desk.me)?;
        let pen = self.pen(desk.me, randomness.expose());
        let mut chains = Vec::new();
        for seat in &lineup.seats {
            let info = lineup.key_info(&self.rules, &own, seat);
            let spent = crate::kdf::derive("ward/1 key randomness", randomness.expose(), &[&info]);
            let (encapsulation, key) =
                seal::encapsulate(&seat.seal_key, &info, spent).map_err(|_| rule("a seal key that is no key"))?;
            let key_message = Key { encapsulation: ByteBuf::from(encapsulation) };
            let to = To::One(seat.identity.name.clone());
            desk.out.send.push(pen.write(Kind::Key, to, lineup.digest, &key_message));
            chains.push(Chain::new(key));
        }
        Ok(chains)
    }

    fn on_payload_key(&mut self, frame: &Frame, desk: &mut Desk<'_, Ticket>) -> Result<(), Stop> {
        let Stage::In(enrolled) = &mut self.stage else { return Err(Stop::Early) };
        frame.verify(&self.rules.hospital)?;
        let message: PayloadKey = frame.envelope.body()?;
        if !self.rules.announce.payloads {
            return Err(rule("a PayloadKey in a session without payloads"));
        }
        if frame.envelope.after != enrolled.lineup.digest {
            return Err(Stop::Useless("a PayloadKey after another Roster than this patient has"));
        }
        let randomness = self.randomness.as_ref().ok_or(Stop::Useless("the session's keys are gone"))?;
        let secret = seal_secret(randomness, self.rules.session);
        let info = payload_info(self.rules.session, &desk.me.name);
        let opened =
            SumOpener::new(&secret, &message.encapsulation, &info).and_then(|opener| opener.open(0, &message.sealed));
        let opened = opened.map_err(|_| rule("the payload key does not open"))?;
        let key: [u8; 32] = opened[..].try_into().map_err(|_| rule("the payload key is not 32 bytes"))?;
        let key = Zeroizing::new(key);
        if enrolled.payload_key.as_ref().is_some_and(|known| *known != key) {
            return Err(Stop::Fault(Wrong::Equivocation));
        }
        desk.out.put(session_key(self.rules.session, "payload"), key.to_vec());
        enrolled.payload_key = Some(key);
        Ok(())
    }

    fn on_begin(
        &mut self,
        frame: &Frame,
        policy: &Policy,
        vault: &mut Vault,
        desk: &mut Desk<'_, Ticket>,
    ) -> Result<(), Stop> {
        let enrolled = match &self.stage {
            Stage::Joined => return Err(Stop::Early),
            Stage::Waiting(_) if self.round_seen(frame) => return Err(Stop::Useless("not on the roster")),
            Stage::Waiting(_) => return Err(Stop::Early),
            Stage::In(enrolled) => enrolled,
        };
        let asked = Asked::read(frame, &self.rules, &enrolled.lineup, self.last_round(), desk.now)?;
        if let Some((last, begin)) = self.last
            && asked.round <= last
        {
            let other = asked.round == last && begin.is_some_and(|begin| begin != asked.digest);
            return Err(if other { Stop::Fault(Wrong::Equivocation) } else { Stop::Useless("an old round") });
        }
        if asked.begin.payload.is_some() && self.rules.announce.payloads && enrolled.payload_key.is_none() {
            // The key may still be on its way: to decline now would be a matter of delivery order.
            return Err(Stop::Early);
        }
        self.close_round(desk);
        self.last = Some((asked.round, Some(asked.digest)));
        self.save(desk);
        desk.out.event(Event::Round { session: self.rules.session, round: asked.round });
        let root = Root::new(desk.fresh("ward/1 patient root", &asked.digest.0));
        if let Some(member) = &mut self.member {
            member.begin(&asked, Round::member_root(&root, asked.digest), &self.rules, desk);
        }
        if let Stage::In(enrolled) = &self.stage {
            self.round = Some(Round::answer(asked, root, &self.rules, enrolled, policy, vault, desk));
        }
        Ok(())
    }

    fn last_round(&self) -> RoundNo {
        self.last.map_or(RoundNo::SETUP, |(last, _)| last)
    }

    /// Whether the round of this frame was seen already.
    fn round_seen(&self, frame: &Frame) -> bool {
        self.last.is_some_and(|(last, _)| frame.envelope.round <= last)
    }

    fn on_result(&mut self, frame: &Frame, desk: &mut Desk<'_, Ticket>) -> Result<(), Stop> {
        let lineup = self.lineup().ok_or(Stop::Early)?;
        frame.verify(&self.rules.hospital)?;
        let receipt: Receipt = frame.envelope.body()?;
        let round = frame.envelope.round;
        let cohort = receipt.cohort.open()?;
        let begin = match self.last {
            Some((last, begin)) if last == round => begin,
            Some((last, _)) if last > round => return Err(Stop::Useless("the receipt of an old round")),
            _ => None,
        };
        if begin.is_some_and(|begin| begin != cohort.envelope.after) {
            // The hospital signed both: the Begin that this patient has and a Result after another one.
            return Err(Stop::Fault(Wrong::Equivocation));
        }
        let checked = Fixed::read(&cohort, lineup, cohort.envelope.after).and_then(|fixed| {
            let seats = read_confirms(&receipt.confirms, fixed.digest, self.rules.session, round, lineup)?;
            Ok((fixed, seats))
        });
        let (fixed, seats) = checked.map_err(|stop| match begin {
            Some(_) => stop,
            // Without the Begin it cannot be told whether the Roster is another one: the server may have shown two.
            None => Stop::Useless("a Result that does not fit, of a round that this patient has not seen"),
        })?;
        if frame.envelope.after != fixed.digest || seats.len() < usize::from(self.rules.announce.sharing.quorum()) {
            return Err(rule("a Result carries q Confirms of the Cohort that it continues"));
        }
        // Who has not seen the Begin shared nothing after it, and may have another Roster, with other places, than it names.
        let is_at = |place: Place| fixed.cohort.places.contains(place);
        let included = begin.is_some() && matches!(&self.stage, Stage::In(enrolled) if is_at(enrolled.place));
        let (session, count, root) = (self.rules.session, fixed.cohort.places.len(), fixed.cohort.root);
        if included {
            // A member confirms whom it has a seed of, and so has the Key that opened it.
            let has_key = |seat: &u8| Some(lineup.seats.get(usize::from(*seat))?.identity.name.clone());
            desk.out.settled.extend(seats.iter().filter_map(has_key).map(|member| Settled::Key(session, member)));
        }
        desk.out.put(format!("receipt/{session}/{round}"), wire::encode(&frame.signed()));
        desk.out.event(Event::Receipt { session, round, count, included, root });
        if let Some(member) = &mut self.member {
            member.forget_secret(&self.rules, desk);
        }
        self.finish(round, receipt.last, desk);
        Ok(())
    }

    fn on_abort(&mut self, frame: &Frame, desk: &mut Desk<'_, Ticket>) -> Result<(), Stop> {
        frame.verify(&self.rules.hospital)?;
        let Abort { reason, last } = frame.envelope.body()?;
        let (session, round) = (self.rules.session, frame.envelope.round);
        if self.last.is_some_and(|(newest, _)| newest > round) && !last {
            return Err(Stop::Useless("the abort of an old round"));
        }
        if round.0.saturating_sub(self.last_round().0) > Asked::MOST_MISSED {
            return Err(rule("an Abort that is more than 10000 rounds ahead"));
        }
        if let Some((newest, Some(begin))) = self.last
            && newest == round
        {
            let roster = self.lineup().map(|lineup| lineup.digest);
            if ![Some(begin), roster, Some(session)].contains(&Some(frame.envelope.after)) {
                return Err(Stop::Useless("the abort of a round after another Begin than this patient has"));
            }
        }
        self.report_abort(session, round, reason, desk);
        self.finish(round, last, desk);
        Ok(())
    }

    fn report_abort(&self, session: SessionId, round: RoundNo, reason: AbortReason, desk: &mut Desk<'_, Ticket>) {
        desk.out.event(Event::Aborted { session, round, reason, advice: String::new() });
    }

    /// The round is over; with `last` the session too.
    fn finish(&mut self, round: RoundNo, last: bool, desk: &mut Desk<'_, Ticket>) {
        if self.last.is_none_or(|(newest, _)| newest < round) {
            self.last = Some((round, None));
        }
        self.ended |= last;
        self.close_round(desk);
        self.save(desk);
    }

    /// Wipes what belongs to the newest round and moves the chains on.
    fn close_round(&mut self, desk: &mut Desk<'_, Ticket>) {
        let Some((last, _)) = self.last else { return };
        desk.out.settled.push(Settled::Round(self.rules.session, last));
        if let Some(member) = &mut self.member {
            member.close_round(last, &self.rules, desk);
        }
        if self.round.take().is_some() {
            desk.out.forget(self.key("round"));
        }
        if let Stage::In(enrolled) = &mut self.stage {
            enrolled.chains.iter_mut().for_each(|chain| chain.advance(last.next()));
        }
        self.save_chains(desk);
        // The Keys are written and the first round has ended: nothing is derived from it any more, unless a payload
        // key is still to come, or a member that starts again needs its seal key.
        let payloads = self.rules.announce.payloads;
        let is_spent = matches!(&self.stage, Stage::In(enrolled) if !payloads || enrolled.payload_key.is_some());
        let is_needed = self.member.as_ref().is_some_and(Member::awaits_list);
        if is_spent && !is_needed && self.randomness.take().is_some() {
            desk.out.forget(self.key("randomness"));
        }
    }

    pub(super) fn sent(&mut self, address: &Address, desk: &mut Desk<'_, Ticket>) {
        if let Some(round) = &mut self.round {
            round.sent(address, desk);
        }
        if let Some(member) = &mut self.member {
            member.sent(address, &self.rules, desk);
        }
    }

    pub(super) fn done(&mut self, ticket: Ticket, outcome: Outcome, desk: &mut Desk<'_, Ticket>) {
        match ticket {
            Ticket::Mask(_, number) => {
                if let (Some(round), Stage::In(enrolled)) = (&mut self.round, &self.stage)
                    && round.asked.round == number
                {
                    round.masked(outcome, &self.rules, enrolled, desk);
                }
            }
            Ticket::Member(_, ticket) => {
                if let Some(member) = &mut self.member {
                    member.done(ticket, outcome, &self.rules, desk);
                }
            }
        }
    }

    fn lineup(&self) -> Option<&Lineup> {
        match &self.stage {
            Stage::Joined => None,
            Stage::Waiting(lineup) => Some(lineup),
            Stage::In(enrolled) => Some(&enrolled.lineup),
        }
    }

    fn key(&self, what: &str) -> String {
        session_key(self.rules.session, what)
    }

    fn save(&self, desk: &mut Desk<'_, Ticket>) {
        let place = match &self.stage {
            Stage::In(enrolled) => Some(enrolled.place),
            _ => None,
        };
        let (announce, join, roster) = (self.announce.clone(), self.join.clone(), self.roster.clone());
        let stored = Stored { announce, join, roster, place, last: self.last };
        desk.out.put(self.key("state"), wire::encode(&stored));
    }

    fn save_randomness(&self, desk: &mut Desk<'_, Ticket>) {
        if let Some(randomness) = &self.randomness {
            desk.out.put(self.key("randomness"), randomness.expose().to_vec());
        }
    }

    fn save_chains(&self, desk: &mut Desk<'_, Ticket>) {
        if let Stage::In(enrolled) = &self.stage {
            let chains: Vec<StoredChain> = enrolled.chains.iter().map(Chain::store).collect();
            desk.out.put(self.key("chains"), wire::encode(&chains));
        }
    }

    /// All sessions that the store has.
    pub(super) fn restore_all(me: &Me, min_cohort: u32, store: &Records) -> Vec<(SessionId, Self)> {
        let states = store.iter().filter(|(key, _)| key.starts_with("session/") && key.ends_with("/state"));
        states.filter_map(|(_, value)| Self::restore(me, min_cohort, value, store)).collect()
    }

    fn restore(me: &Me, min_cohort: u32, value: &[u8], store: &Records) -> Option<(SessionId, Self)> {
        let Stored { announce, join, roster, place, last } = wire::decode(value, "session").ok()?;
        let rules = Rules::read(&announce.open().ok()?, me, Dates::Checked).ok()?;
        let session = rules.session;
        let bytes = |what: &str| store.get(&session_key(session, what));
        let randomness = bytes("randomness").and_then(|bytes| bytes[..].try_into().ok()).map(SessionRandomness::new);
        let lineup = match &roster {
            Some(signed) => Some(Lineup::read(&signed.open().ok()?, &rules, me, Dates::Checked).ok()?),
            None => None,
        };
        let member = match (&lineup, bytes("list").or(bytes("confirmed")), &randomness) {
            // Stopped between Roster and list: it has confirmed nothing, and the rest of the list is still to come.
            (Some(lineup), None, Some(randomness)) => seated(lineup, me, randomness, session, min_cohort)
                .map(|member| member.with_pieces(Pieces::restore(&rules, lineup, me, store))),
            (Some(lineup), ..) => Member::restore(lineup, &rules, me, min_cohort, store),
            (None, ..) => None,
        };
        let stage = match (lineup, place) {
            (None, _) => Stage::Joined,
            (Some(lineup), None) => Stage::Waiting(lineup),
            (Some(lineup), Some(place)) => {
                let chains: Vec<StoredChain> = wire::decode(bytes("chains")?, "chains").ok()?;
                let chains = chains.iter().map(Chain::from).collect();
                let payload_key = bytes("payload").and_then(|key| key[..].try_into().ok()).map(Zeroizing::new);
                Stage::In(Box::new(Enrolled { lineup, place, chains, payload_key }))
            }
        };
        let mut restored =
            Self { rules, announce, join, roster, randomness, stage, member, last, round: None, ended: false };
        if let Some(stored) = bytes("round") {
            restored.reopen(stored)?;
        }
        Some((session, restored))
    }
}

impl machine::Session<Ticket> for Session {
    fn keep_time(&mut self, desk: &mut Desk<'_, Ticket>) {
        if let Some(member) = &mut self.member {
            member.keep_time(&self.rules, desk);
        }
        desk.out.wake_at(self.rules.not_after());
        let Some(round) = &self.round else { return };
        if desk.now >= round.asked.ends() {
            self.close_round(desk);
        } else {
            desk.out.wake_at(round.asked.ends());
        }
    }

    fn is_over(&self, now: Time) -> bool {
        self.ended || self.rules.is_over(now)
    }

    /// Forgets all that the store has of this session but receipts.
    fn wipe(&mut self, desk: &mut Desk<'_, Ticket>) {
        if let Some(member) = &mut self.member {
            member.wipe(self.rules.session, desk);
        }
        for what in ["state", "randomness", "chains", "round", "payload", "list", "seal", "holdings", "confirmed"] {
            desk.out.forget(self.key(what));
        }
    }
}

impl Session {
    /// Takes up the round that was open; `None` where it does not fit the session.
    fn reopen(&mut self, stored: &[u8]) -> Option<()> {
        let Stage::In(enrolled) = &self.stage else { return None };
        let (last, _) = self.last?;
        let round = Round::restore(stored, last, &self.rules, &enrolled.lineup)?;
        if let Some(member) = &mut self.member {
            member.reopen(&round.asked, Round::member_root(round.root(), round.asked.digest), &self.rules);
        }
        self.round = Some(round);
        Some(())
    }
}

/// The member that `me` is, where the Roster gives it a seat.
fn seated(
    lineup: &Lineup,
    me: &Me,
    randomness: &SessionRandomness,
    session: SessionId,
    min_cohort: u32,
) -> Option<Member> {
    let seat = lineup.seat_of(&me.name)?;
    let secret = seal_secret(randomness, session);
    // A seat under a key that this patient does not hold is a Join of its name that it has not written.
    let own = secret.public() == lineup.seats[usize::from(seat)].seal_key;
    own.then(|| Member::new(seat, lineup.clone(), secret, min_cohort))
}

/// The Join of `me`: with a seal key where it is marked, or where there are payloads.
fn write_join(rules: &Rules, randomness: &SessionRandomness, me: &Me) -> Signed {
    let sealed = me.role == Role::Member || rules.announce.payloads;
    let seal_key = sealed.then(|| seal_secret(randomness, rules.session).public());
    let pen = Pen { me, session: rules.session, round: RoundNo::SETUP, secret: randomness.expose() };
    pen.sign(Kind::Join, To::All, rules.session, &Join { chain: me.chain.clone(), seal_key })
}

/// The seal key of a Join, from the session randomness.
fn seal_secret(randomness: &SessionRandomness, session: SessionId) -> SealSecret {
    SealSecret::from_randomness(randomness, &[b"join".as_slice(), &session.0])
}

/// What a payload key's seal is bound to.
pub(crate) fn payload_info(session: SessionId, patient: &crate::id::Name) -> Vec<u8> {
    crate::kdf::digest("ward/1 payload key info", &[&session.0, patient.as_str().as_bytes()]).0.to_vec()
}

/// Why this patient takes no part, if its policy objects.
fn objection(rules: &Rules, policy: &Policy) -> Option<String> {
    let Announce { study, sharing, min_cohort, .. } = &rules.announce;
    if *study != policy.study {
        return Some(format!("it is of the study `{study}`, this patient of `{}`", policy.study));
    }
    if !policy.hospitals.accepts(&rules.hospital.name) {
        return Some(format!("hospital {} is not among those this patient answers", rules.hospital.name));
    }
    if *min_cohort < policy.min_cohort {
        return Some(format!("its smallest cohort is {min_cohort}, this patient's is {}", policy.min_cohort));
    }
    if sharing.committee() < policy.min_committee || sharing.threshold() < policy.min_threshold {
        return Some(format!(
            "its committee is {} with threshold {}, this patient's at least {} and {}",
            sharing.committee(),
            sharing.threshold(),
            policy.min_committee,
            policy.min_threshold
        ));
    }
    None
}

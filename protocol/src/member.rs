//! The member of a committee: holds seeds for the patients of one session and keeps their rules.
//!
//! It confirms at most one cohort per round, stored before it is said, only one that is the same as or apart from
//! every cohort it confirmed over the same snapshot, and releases mask sums for that cohort only.

mod check;
mod confirms;
mod hold;
mod release;
mod total;
mod vouching;

use std::collections::BTreeMap;

use crate::chains::{Chain, StoredChain};
use crate::desk::{Desk, Me, Pen, Stop, rule};
use crate::error::Wrong;
use crate::id::{Kind, Place, RoundNo, SessionId, To};
use crate::merkle;
use crate::message::{Confirm, Key, Refuse, cohort_leaf};
use crate::patient::Ticket as PatientTicket;
use crate::records::{Records, session_key};
use crate::seal::{self, SealSecret};
use crate::secret::Root;
use crate::session::{Asked, Fixed, Joined, Lineup, Pieces, Rules, place_of, read_list};
use crate::step::Event;
use crate::wire::{self, Frame};
use confirms::{Confirms, Proposal};
use hold::Holdings;
use release::Releases;
pub(crate) use release::Ticket;
use vouching::Vouching;

/// The list of who joined: before it is whole a member knows nobody.
#[derive(Debug)]
enum Listing {
    Partial(Pieces),
    Whole(Vec<Joined>),
}

/// One member's part in one session.
#[derive(Debug)]
pub(crate) struct Member {
    seat: u8,
    lineup: Lineup,
    /// The private half of its seal key; gone once it stored its first Confirm.
    secret: Option<SealSecret>,
    /// The smallest cohort that its own policy allows.
    min_cohort: u32,
    listing: Listing,
    chains: BTreeMap<Place, Chain>,
    /// Whose chains came since all were last stored: each has a record of its own, as storing all for every Key would
    /// take time that grows with the square of their number.
    single: Vec<Place>,
    confirms: Confirms,
    /// Whether a Cohort came: with the end of its round the private half goes, confirmed or not.
    had_cohort: bool,
    round: Option<Round>,
}

/// One round of a member.
#[derive(Debug)]
struct Round {
    asked: Asked,
    root: Root,
    holdings: Holdings,
    releases: Releases,
    vouching: Vouching,
    stage: Stage,
}

#[derive(Debug)]
enum Stage {
    /// Collecting seeds; no Cohort was confirmed.
    Holding,
    /// This Cohort was confirmed, and no other ever will be.
    Confirmed(Box<Fixed>),
}

type MemberDesk<'a> = Desk<'a, PatientTicket>;

impl Member {
    pub(crate) fn new(seat: u8, lineup: Lineup, secret: SealSecret, min_cohort: u32) -> Self {
        Self {
            seat,
            lineup,
            secret: Some(secret),
            min_cohort,
            listing: Listing::Partial(Pieces::default()),
            chains: BTreeMap::new(),
            single: Vec::new(),
            confirms: Confirms::default(),
            had_cohort: false,
            round: None,
        }
    }

    /// The member with these pieces of the list: what came before a restart, and will not come again.
    pub(crate) fn with_pieces(self, pieces: Pieces) -> Self {
        Self { listing: Listing::Partial(pieces), ..self }
    }

    pub(crate) fn take(&mut self, frame: &Frame, rules: &Rules, desk: &mut MemberDesk<'_>) -> Result<(), Stop> {
        match frame.envelope.kind {
            Kind::List => self.on_list(frame, rules, desk),
            Kind::Key => self.on_key(frame, rules, desk),
            Kind::Share => self.on_share(frame, rules, desk),
            Kind::Cohort => self.on_cohort(frame, rules, desk),
            Kind::Open => self.on_open(frame, rules, desk),
            Kind::Check => self.on_check(frame, rules, desk),
            _ => Err(rule("a member is never sent this kind")),
        }
    }

    fn on_list(&mut self, frame: &Frame, rules: &Rules, desk: &mut MemberDesk<'_>) -> Result<(), Stop> {
        let Listing::Partial(pieces) = &mut self.listing else { return Err(Stop::Useless("the list is known")) };
        if let Some(joined) = pieces.take(frame, rules, &self.lineup, desk)? {
            if let Some(secret) = &self.secret {
                desk.out.put(session_key(rules.session, "seal"), secret.expose().to_vec());
            }
            self.listing = Listing::Whole(joined);
        }
        Ok(())
    }

    /// Whether it can still take Keys, and does not know yet of whom: its seal key has no record of its own so far.
    pub(crate) fn awaits_list(&self) -> bool {
        self.secret.is_some() && matches!(self.listing, Listing::Partial(_))
    }

    /// The patient that sent `frame`: its place and identity, its signature checked.
    fn sender(&self, frame: &Frame) -> Result<(Place, &Joined), Stop> {
        let Listing::Whole(joined) = &self.listing else { return Err(Stop::Early) };
        let place = place_of(joined, &frame.envelope.from).ok_or(Wrong::NotItsRole)?;
        let sender = &joined[place.0 as usize];
        frame.verify(&sender.identity)?;
        Ok((place, sender))
    }

    fn on_key(&mut self, frame: &Frame, rules: &Rules, desk: &mut MemberDesk<'_>) -> Result<(), Stop> {
        let (place, sender) = self.sender(frame)?;
        if frame.envelope.after != self.lineup.digest {
            return Err(Stop::Useless("a Key after another Roster than this member has"));
        }
        if self.chains.contains_key(&place) {
            return Err(Stop::Useless("the key is known"));
        }
        let secret = self.secret.as_ref().ok_or(Stop::Useless("this member takes no more keys in this session"))?;
        let key: Key = frame.envelope.body()?;
        let info = self.lineup.key_info(rules, &sender.identity, &self.lineup.seats[usize::from(self.seat)]);
        let chain =
            seal::decapsulate(secret, &key.encapsulation, &info).map_err(|_| rule("a Key that does not open"))?;
        let chain = Chain::new(chain);
        desk.out.put(single_key(rules.session, place), wire::encode(&chain.store()));
        self.chains.insert(place, chain);
        self.single.push(place);
        Ok(())
    }

    /// A round began; the patient checked its Begin already.
    pub(crate) fn begin(&mut self, asked: &Asked, root: Root, rules: &Rules, desk: &mut MemberDesk<'_>) {
        self.chains.values_mut().for_each(|chain| chain.advance(asked.round));
        self.save_chains(rules, desk);
        self.reopen(asked, root, rules);
    }

    /// Takes up a round: boxes, Cohort and Opens are still to come, or come again after a restart.
    pub(crate) fn reopen(&mut self, asked: &Asked, root: Root, rules: &Rules) {
        let releases = Releases::ahead(asked, self.seat, rules);
        let (asked, holdings, vouching) = (asked.clone(), Holdings::default(), Vouching::default());
        self.round = Some(Round { asked, root, holdings, releases, vouching, stage: Stage::Holding });
    }

    /// The round that `frame` speaks of, where it is the one that runs.
    fn current(&mut self, frame: &Frame) -> Result<&mut Round, Stop> {
        let number = frame.envelope.round;
        let newest = self.round.as_ref().map(|round| round.asked.round);
        let newest = newest.max(self.confirms.newest());
        match &mut self.round {
            Some(round) if round.asked.round == number => Ok(round),
            _ if newest >= Some(number) => Err(Stop::Useless("a message of an old round")),
            _ => Err(Stop::Early),
        }
    }

    fn on_cohort(&mut self, frame: &Frame, rules: &Rules, desk: &mut MemberDesk<'_>) -> Result<(), Stop> {
        let lineup = self.lineup.clone();
        let round = self.current(frame)?;
        let fixed = Fixed::read(frame, &lineup, round.asked.digest)?;
        if let Stage::Confirmed(confirmed) = &round.stage {
            let same = confirmed.digest == fixed.digest;
            return Err(if same { Stop::Useless("confirmed already") } else { Stop::Fault(Wrong::Equivocation) });
        }
        if desk.now >= round.asked.ends() {
            return Err(Stop::Useless("the round is over"));
        }
        self.had_cohort = true;
        match self.objection(&fixed, rules)? {
            Some(refuse) => self.refuse(&fixed, refuse, rules, desk),
            None => self.confirm(fixed, rules, desk),
        }
        Ok(())
    }

    /// Which rule forbids to confirm, if one does (PROTOCOL.md, *Confirm*).
    fn objection(&self, fixed: &Fixed, rules: &Rules) -> Result<Option<Refuse>, Stop> {
        let round = self.round.as_ref().ok_or(Stop::Early)?;
        let proposal = Proposal::new(&round.asked, fixed);
        self.confirms.once(proposal).map_err(Stop::Fault)?;
        if fixed.cohort.places.len() < rules.announce.min_cohort.max(self.min_cohort) {
            return Ok(Some(Refuse::BelowMinimum));
        }
        let mut leaves = Vec::new();
        for place in fixed.places() {
            // A box may still be on its way: the Cohort waits for it until the round's end.
            let share = round.holdings.digest(place).ok_or(Stop::Early)?;
            leaves.push(cohort_leaf(place, share));
        }
        if merkle::root(&leaves) != fixed.cohort.root {
            return Ok(Some(Refuse::NotHeld));
        }
        Ok(self.confirms.clash(proposal))
    }

    fn refuse(&mut self, fixed: &Fixed, refuse: Refuse, rules: &Rules, desk: &mut MemberDesk<'_>) {
        if let Some(round) = &mut self.round {
            let to = To::One(rules.hospital.name.clone());
            let message = round.pen(rules, desk.me).write(Kind::Refuse, to, fixed.digest, &refuse);
            desk.out.send.push(message);
        }
        self.forget_secret(rules, desk);
    }

    fn confirm(&mut self, fixed: Fixed, rules: &Rules, desk: &mut MemberDesk<'_>) {
        let Some(round) = &mut self.round else { return };
        self.confirms.add(Proposal::new(&round.asked, &fixed));
        let to = To::One(rules.hospital.name.clone());
        let message = round.pen(rules, desk.me).write(Kind::Confirm, to, fixed.digest, &Confirm());
        desk.out.send.push(message);
        desk.out.event(Event::Confirmed { round: round.asked.round, count: 1 });
        let jobs = round.releases.fit(&fixed.cohort.places, &round.holdings);
        release::run(jobs, rules.session, round.asked.round, desk);
        round.stage = Stage::Confirmed(Box::new(fixed));
        self.save_confirmed(rules, desk);
        self.forget_secret(rules, desk);
    }

    /// From the first Cohort on no Key is taken, so that a later break-in cannot open past rounds.
    pub(crate) fn forget_secret(&mut self, rules: &Rules, desk: &mut MemberDesk<'_>) {
        if self.secret.take().is_some() {
            desk.out.forget(session_key(rules.session, "seal"));
        }
    }

    /// Wipes what belongs to `last` and moves the chains on.
    pub(crate) fn close_round(&mut self, last: RoundNo, rules: &Rules, desk: &mut MemberDesk<'_>) {
        self.round = None;
        if self.had_cohort {
            self.forget_secret(rules, desk);
        }
        self.chains.values_mut().for_each(|chain| chain.advance(last.next()));
        self.save_chains(rules, desk);
    }

    pub(crate) fn keep_time(&mut self, rules: &Rules, desk: &mut MemberDesk<'_>) {
        if self.round.as_ref().is_some_and(|round| round.holdings.is_due(desk.now)) {
            self.report_held(rules, desk);
        } else if let Some(due) = self.round.as_ref().and_then(|round| round.holdings.due()) {
            desk.out.wake_at(due);
        }
    }

    fn save_chains(&mut self, rules: &Rules, desk: &mut MemberDesk<'_>) {
        let chains: Vec<(Place, StoredChain)> =
            self.chains.iter().map(|(place, chain)| (*place, chain.store())).collect();
        desk.out.put(session_key(rules.session, "holdings"), wire::encode(&chains));
        self.forget_single(rules.session, desk);
    }

    /// Forgets what the store has of it under keys of its own: at the session's end.
    pub(crate) fn wipe(&mut self, session: SessionId, desk: &mut MemberDesk<'_>) {
        self.forget_single(session, desk);
        if let Listing::Partial(pieces) = &self.listing {
            pieces.wipe(session, desk.out);
        }
    }

    /// Forgets the records of single chains: at the session's end, and once all chains are stored together.
    fn forget_single(&mut self, session: SessionId, desk: &mut MemberDesk<'_>) {
        for place in self.single.drain(..) {
            desk.out.forget(single_key(session, place));
        }
    }

    fn save_confirmed(&self, rules: &Rules, desk: &mut MemberDesk<'_>) {
        desk.out.put(session_key(rules.session, "confirmed"), wire::encode(&self.confirms));
    }

    /// The member as its store has it; a store without the list is a drop: such a party is no member any more.
    pub(crate) fn restore(lineup: &Lineup, rules: &Rules, me: &Me, min_cohort: u32, store: &Records) -> Option<Self> {
        let bytes = |what: &str| store.get(&session_key(rules.session, what));
        let seat = lineup.seat_of(&me.name)?;
        let joined = read_list(bytes("list")?, rules, me)?;
        let mut chains = match bytes("holdings") {
            Some(bytes) => wire::decode::<Vec<(Place, StoredChain)>>(bytes, "holdings").ok()?,
            None => Vec::new(),
        };
        let mut single = Vec::new();
        for place in (0..lineup.count).map(Place) {
            if let Some(bytes) = store.get(&single_key(rules.session, place)) {
                chains.push((place, wire::decode(bytes, "chain").ok()?));
                single.push(place);
            }
        }
        let confirms = match bytes("confirmed") {
            Some(bytes) => wire::decode(bytes, "confirmed").ok()?,
            None => Confirms::default(),
        };
        Some(Self {
            seat,
            lineup: lineup.clone(),
            secret: bytes("seal").and_then(|bytes| bytes[..].try_into().ok()).map(SealSecret::new),
            min_cohort,
            listing: Listing::Whole(joined),
            chains: chains.iter().map(|(place, chain)| (*place, Chain::from(chain))).collect(),
            single,
            confirms,
            had_cohort: false,
            round: None,
        })
    }
}

/// The record of one patient's chain.
fn single_key(session: SessionId, place: Place) -> String {
    session_key(session, &format!("holding/{}", place.0))
}

impl Round {
    fn pen<'a>(&'a self, rules: &Rules, me: &'a Me) -> Pen<'a> {
        Pen { me, session: rules.session, round: self.asked.round, secret: self.root.expose() }
    }
}

//! What only the first server does in a round: it hears who holds whom and fixes the cohort (design section 4, *Cohort*).

use std::collections::BTreeMap;

use super::ServerDesk;
use super::cohort::Choice;
use super::gather::Gather;
use super::joining::Past;
use super::votes::Votes;
use crate::desk::{Pen, Stop};
use crate::error::Wrong;
use crate::id::{Digest, Kind, Place, Time, To};
use crate::merkle;
use crate::message::{Cohort, CohortShares, Decline, Held, Refuse, cohort_leaf};
use crate::places::Places;
use crate::session::{Asked, Lineup, Rules};
use crate::step::Event;
use crate::wire::{self, Frame, Signed};

/// The most patients that a Refuse names as missing.
const MOST_NAMED: usize = 64;

/// What the first server knows of the others.
#[derive(Debug)]
pub(super) struct Lead {
    /// Who may be in the cohort: with `same_as` that cohort, else who was in none over this snapshot.
    allowed: Places,
    declined: BTreeMap<Place, Decline>,
    /// By seat.
    members: Votes,
    /// By their order in the Announce, without the first.
    servers: Votes,
}

/// What comes of deciding.
#[derive(Debug)]
pub(super) enum Verdict {
    /// It is too early.
    Wait,
    /// This is the cohort.
    Fix(Places),
    /// There can be none.
    Refuse(Refuse),
}

/// What a decision is made on.
pub(super) struct Standing<'a> {
    pub(super) asked: &'a Asked,
    pub(super) rules: &'a Rules,
    pub(super) gather: &'a Gather,
    /// When the last news came.
    pub(super) news: Time,
    pub(super) now: Time,
}

impl Lead {
    pub(super) fn new(asked: &Asked, rules: &Rules, lineup: &Lineup, past: &[Past]) -> Self {
        let (committee, others) = (rules.announce.sharing.committee(), rules.announce.servers.len() - 1);
        Self {
            allowed: allowed(asked, lineup.count, past),
            declined: BTreeMap::new(),
            members: Votes::new(usize::from(committee), lineup.count),
            servers: Votes::new(others, lineup.count),
        }
    }

    /// Whether `place` can be in this round's cohort.
    pub(super) fn allows(&self, place: Place) -> bool {
        self.allowed.contains(place)
    }

    /// The Share of `place` is here.
    pub(super) fn shared(&mut self, place: Place, share: Digest) {
        self.members.shared(place, share);
        self.servers.shared(place, share);
    }

    pub(super) fn on_decline(&mut self, frame: &Frame, place: Place) -> Result<(), Stop> {
        let decline: Decline = frame.envelope.body()?;
        self.declined.entry(place).or_insert(decline);
        Ok(())
    }

    /// A member, or another server, reports whom it holds.
    pub(super) fn on_held(&mut self, frame: &Frame, lineup: &Lineup, gather: &Gather) -> Result<(), Stop> {
        let held: Held = frame.envelope.body()?;
        let share = |place: Place| gather.sharer(place).map(|sharer| sharer.share);
        let from = &frame.envelope.from;
        if let Some(seat) = lineup.seat_of(from) {
            let seat = usize::from(seat);
            frame.verify(&lineup.seats[seat].identity)?;
            return self.members.report(seat, held, share);
        }
        let server = lineup.servers.iter().position(|server| server.name == *from).filter(|index| *index > 0);
        let server = server.ok_or(Wrong::NotItsRole)?;
        frame.verify(&lineup.servers[server])?;
        self.servers.report(server - 1, held, share)
    }

    /// Those that can still be in the cohort.
    fn eligible(&self, quorum: u8) -> Places {
        let mut eligible = self.allowed.clone();
        self.declined.keys().for_each(|place| eligible.remove(*place));
        // Without q members that hold its seeds, a patient can be in no cohort.
        self.members.lost(quorum.into()).for_each(|place| eligible.remove(place));
        eligible
    }

    /// Fixes the cohort if it is time to, or refuses if there can be none.
    pub(super) fn decide(&self, standing: &Standing<'_>) -> Verdict {
        let Standing { asked, rules, gather, news, now } = *standing;
        let eligible = self.eligible(rules.announce.sharing.quorum());
        let exact = asked.begin.same_as.map(|_| &self.allowed);
        let needed = exact.map_or(rules.announce.min_cohort, |exact| exact.len().max(rules.announce.min_cohort));
        let late = now >= asked.shares_close();
        let quiet = now >= news.plus_millis(asked.tenth());
        if eligible.len() < needed {
            // The refusal says who declined: so it waits for those who have not answered yet, but not for long.
            let over = late || quiet || eligible.iter().all(|place| gather.sharer(place).is_some());
            return if over { self.refuse(eligible.len(), needed, late, gather) } else { Verdict::Wait };
        }
        let enough = match exact {
            Some(exact) => exact.len(),
            None => asked.begin.enough.map_or(eligible.len(), |enough| enough.min(eligible.len())),
        };
        let folded =
            self.servers.agreed().iter().fold(gather.whole().intersect(&eligible), |all, one| all.intersect(one));
        if !late && !quiet && folded.len() < enough.max(needed) {
            return Verdict::Wait;
        }
        let held = self.members.agreed();
        let choice = Choice { sharing: rules.announce.sharing, min_cohort: needed, exact, folded: &folded, held };
        let all = choice.held_by_all();
        if all.len() >= enough.max(needed) {
            return Verdict::Fix(all);
        }
        if !late && !quiet {
            return Verdict::Wait;
        }
        match choice.best().filter(|best| late || best.len() >= enough) {
            Some(best) if best.len() >= needed => Verdict::Fix(best),
            _ if late => {
                // Enough may have shared, and too few members hold it.
                let shared = if folded.len() < needed { folded.len() } else { choice.most() };
                self.refuse(shared, needed, true, gather)
            }
            _ => Verdict::Wait,
        }
    }

    /// Says how many are missing; where time ran out, also who said nothing.
    fn refuse(&self, shared: u32, needed: u32, late: bool, gather: &Gather) -> Verdict {
        let declined = self.declined.iter().map(|(place, decline)| (*place, *decline)).collect();
        let answered = |place: Place| gather.sharer(place).is_some() || self.declined.contains_key(&place);
        let missing = self.allowed.iter().filter(|place| late && !answered(*place)).take(MOST_NAMED).collect();
        let silent = self.members.silent().filter(|_| late && !gather.is_empty()).map(|seat| seat as u8).collect();
        Verdict::Refuse(Refuse::TooFewShared { shared, needed, declined, missing, silent })
    }
}

/// Writes the Cohort to members, other servers and hospital; its signed part.
pub(super) fn write_cohort(
    cohort: &Places,
    asked: &Asked,
    gather: &Gather,
    lineup: &Lineup,
    rules: &Rules,
    pen: &Pen<'_>,
    desk: &mut ServerDesk<'_>,
) -> Signed {
    let sharers = cohort.iter().filter_map(|place| Some((place, gather.sharer(place)?)));
    let (leaves, shares): (Vec<Digest>, CohortShares) =
        sharers.map(|(place, sharer)| (cohort_leaf(place, sharer.share), (sharer.share, sharer.name))).unzip();
    let body = Cohort { places: cohort.clone(), root: merkle::root(&leaves) };
    let signed = pen.sign(Kind::Cohort, To::All, asked.digest, &body);
    let members = lineup.seats.iter().map(|seat| &seat.identity.name);
    for receiver in members.chain(&rules.announce.servers[1..]) {
        desk.out.send.push(pen.post(Kind::Cohort, &signed, To::One(receiver.clone()), &[]));
    }
    let hospital = To::One(rules.hospital.name.clone());
    desk.out.send.push(pen.post(Kind::Cohort, &signed, hospital, &wire::encode(&shares)));
    desk.out.event(Event::Cohort { round: asked.round, count: cohort.len() });
    signed
}

/// Who may be in the cohort of this round.
fn allowed(asked: &Asked, count: u32, past: &[Past]) -> Places {
    if let Some(same_as) = asked.begin.same_as {
        let past = past.iter().find(|past| past.round == same_as);
        return past.map_or(Places::none(count), |past| past.places.clone());
    }
    let mut allowed = Places::all(count);
    for past in past.iter().filter(|past| past.snapshot == asked.begin.snapshot) {
        past.places.iter().for_each(|place| allowed.remove(place));
    }
    allowed
}

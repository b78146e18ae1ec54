//! What only the first server does in a round: it hears who holds whom and fixes the cohort (PROTOCOL.md, *Cohort*).

use std::collections::BTreeMap;

use super::ServerDesk;
use super::cohort::Choice;
use super::gather::Gather;
use super::votes::Votes;
use crate::desk::{Pen, Stop};
use crate::error::Wrong;
use crate::id::{Digest, Kind, MessageName, Place, Time, To};
use crate::merkle;
use crate::message::{Cohort, CohortShares, Decline, Held, MOST_DECLINED, MOST_MISSING, Refuse, cohort_leaf};
use crate::places::{Counted, Places};
use crate::session::{Asked, Lineup, Past, Rules};
use crate::step::Event;
use crate::wire::{self, Frame, Signed};

/// What the first server knows of the others.
#[derive(Debug)]
pub(super) struct Lead {
    /// Who may be in the cohort: with `same_as` that cohort, else who was in none over this snapshot.
    allowed: Counted,
    /// Those of them that can still be.
    eligible: Counted,
    declined: BTreeMap<Place, Decline>,
    quorum: usize,
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
        let allowed = Counted::new(allowed(asked, lineup.count, past));
        Self {
            eligible: allowed.clone(),
            allowed,
            declined: BTreeMap::new(),
            quorum: rules.announce.sharing.quorum().into(),
            members: Votes::new(usize::from(committee), lineup.count),
            servers: Votes::new(others, lineup.count),
        }
    }

    /// Whether `place` can be in this round's cohort.
    pub(super) fn allows(&self, place: Place) -> bool {
        self.allowed.places().contains(place)
    }

    /// The Share of `place` is here.
    pub(super) fn shared(&mut self, place: Place, share: Digest) {
        self.members.shared(place, share);
        self.servers.shared(place, share);
    }

    pub(super) fn on_decline(&mut self, frame: &Frame, place: Place) -> Result<(), Stop> {
        let decline: Decline = frame.envelope.body()?;
        self.declined.entry(place).or_insert(decline);
        self.eligible.remove(place);
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
            let faults = !held.faults.is_empty();
            self.members.report(seat, held, share)?;
            if faults {
                // Without q members that hold its seeds, a patient can be in no cohort.
                self.members.lost(self.quorum).for_each(|place| self.eligible.remove(place));
            }
            return Ok(());
        }
        let server = lineup.servers.iter().position(|server| server.name == *from).filter(|index| *index > 0);
        let server = server.ok_or(Wrong::NotItsRole)?;
        frame.verify(&lineup.servers[server])?;
        self.servers.report(server - 1, held, share)
    }

    /// No cohort that all hold can be larger.
    fn bound(&self, gather: &Gather) -> u32 {
        gather.whole().len().min(self.members.fewest()).min(self.servers.fewest())
    }

    /// Fixes the cohort if it is time to, or refuses if there can be none.
    pub(super) fn decide(&self, standing: &Standing<'_>) -> Verdict {
        let Standing { asked, rules, gather, news, now } = *standing;
        let eligible = &self.eligible;
        let exact = asked.begin.same_as.map(|_| self.allowed.places());
        let needed = if exact.is_some() { self.allowed.len() } else { 0 }.max(rules.announce.min_cohort);
        let late = now >= asked.shares_close();
        let quiet = now >= news.plus_millis(asked.tenth());
        if eligible.len() < needed {
            // The refusal says who declined: so it waits for those who have not answered yet, but not for long.
            let over = late || quiet || self.all_shared(gather);
            return if over { self.refuse(eligible.len(), needed, late, gather) } else { Verdict::Wait };
        }
        let enough = match exact {
            Some(_) => self.allowed.len(),
            None => asked.begin.enough.map_or(eligible.len(), |enough| enough.min(eligible.len())),
        };
        // This is asked after every message: while too few are held by all, nothing is walked.
        if !late && !quiet && self.bound(gather) < enough.max(needed) {
            return Verdict::Wait;
        }
        let whole = gather.whole().places().intersect(eligible.places());
        let folded = self.servers.agreed().into_iter().fold(whole, |all, one| all.intersect(one));
        let held = self.members.agreed();
        let choice =
            Choice { sharing: rules.announce.sharing, min_cohort: needed, exact, folded: &folded, held: &held };
        let all = choice.held_by_all();
        if all.len() >= enough.max(needed) {
            return Verdict::Fix(all);
        }
        if !late && !quiet {
            return Verdict::Wait;
        }
        match choice.best().filter(|best| late || best.len() >= enough) {
            Some(best) => Verdict::Fix(best),
            None if late => {
                // Enough may have shared, and too few members hold it.
                let shared = if folded.len() < needed { folded.len() } else { choice.most() };
                self.refuse(shared, needed, true, gather)
            }
            None => Verdict::Wait,
        }
    }

    /// Whether everybody who can be in the cohort has shared.
    fn all_shared(&self, gather: &Gather) -> bool {
        let eligible = &self.eligible;
        gather.count() >= eligible.len() && eligible.places().iter().all(|place| gather.sharer(place).is_some())
    }

    /// Says how many are missing; where time ran out, also who said nothing.
    fn refuse(&self, shared: u32, needed: u32, late: bool, gather: &Gather) -> Verdict {
        let declined = self.declined.iter().map(|(place, decline)| (*place, *decline)).take(MOST_DECLINED).collect();
        let answered = |place: Place| gather.sharer(place).is_some() || self.declined.contains_key(&place);
        let missing =
            self.allowed.places().iter().filter(|place| late && !answered(*place)).take(MOST_MISSING).collect();
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
    let (leaves, shares): (Vec<Digest>, Vec<(Digest, MessageName)>) =
        sharers.map(|(place, sharer)| (cohort_leaf(place, sharer.share), (sharer.share, sharer.name))).unzip();
    let body = Cohort { places: cohort.clone(), root: merkle::root(&leaves) };
    let signed = pen.sign(Kind::Cohort, To::All, asked.digest, &body);
    let members = lineup.seats.iter().map(|seat| &seat.identity.name);
    for receiver in members.chain(&rules.announce.servers[1..]) {
        desk.out.send.push(pen.post(Kind::Cohort, &signed, To::One(receiver.clone()), &[]));
    }
    let hospital = To::One(rules.hospital.name.clone());
    for (piece, shares) in (0u32..).zip(shares.chunks(CohortShares::MOST)) {
        let shares = wire::encode(&CohortShares { piece, shares: shares.to_vec() });
        desk.out.send.push(pen.post(Kind::Cohort, &signed, hospital.clone(), &shares));
    }
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
    // The cohort of this very round, fixed before a restart, bars nobody.
    let earlier = |past: &&Past| past.snapshot == asked.begin.snapshot && past.round != asked.round;
    for past in past.iter().filter(earlier) {
        past.places.iter().for_each(|place| allowed.remove(place));
    }
    allowed
}

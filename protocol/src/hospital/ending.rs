//! How a round of the hospital ends: with an answer, or without one and why.

use super::HospitalDesk;
use super::open::Open;
use super::recount::{Lost, Recount};
use super::round::{Last, Stage};
use crate::error::AbortReason;
use crate::id::{Kind, Name, To};
use crate::message::{Abort, Receipt, Refuse};
use crate::outbox::Settled;
use crate::records::session_key;
use crate::session::Rules;
use crate::step::{Answer, Event};

impl Open {
    pub(super) fn too_few_confirmed(&mut self, rules: &Rules, desk: &mut HospitalDesk<'_>) {
        let Some(round) = &self.round else { return };
        let overlaps = round.refusals.values().filter_map(|refuse| match refuse {
            Refuse::Overlap { round } | Refuse::NotSame { round } => Some(*round),
            _ => None,
        });
        // A clash is believed where an honest member says so.
        let enough = usize::from(rules.announce.sharing.threshold()) + 1;
        let overlap = overlaps.clone().next().filter(|_| overlaps.clone().count() >= enough);
        let silent = (0u8..).zip(&self.lineup.seats).filter(|(seat, _)| !round.confirms.contains_key(seat));
        let missing: Vec<Name> = silent.map(|(_, seat)| seat.identity.name.clone()).collect();
        let sharing = rules.announce.sharing;
        let reason = match overlap {
            Some(round) => AbortReason::Overlap { round },
            None => AbortReason::TooFewConfirmed {
                confirmed: round.confirms.len() as u32,
                committee: sharing.committee().into(),
                quorum: sharing.quorum().into(),
                missing,
            },
        };
        self.give_up(reason, rules, desk);
    }

    /// What the board cannot produce is an Abort, never a skipped check.
    pub(super) fn unless_lost(&mut self, read: Result<(), Lost>, rules: &Rules, desk: &mut HospitalDesk<'_>) {
        if let Err(lost) = read {
            self.give_up(lost.into(), rules, desk);
        }
    }

    /// The sum is there: hand it to the hospital's owner and everybody their receipt.
    pub(super) fn answer(&mut self, sum: Vec<i64>, rules: &Rules, desk: &mut HospitalDesk<'_>) {
        let Some(round) = &self.round else { return };
        let Stage::Opening(opening) = &round.stage else { return };
        let last = round.last != Last::No;
        let (count, begin) = (opening.fixed.cohort.places.len(), &round.asked.begin);
        let most = u128::from(begin.scaled_bound) * u128::from(count);
        if sum.iter().any(|one| u128::from(one.unsigned_abs()) > most) {
            return self.give_up(AbortReason::SumOutOfRange, rules, desk);
        }
        let pen = round.pen(rules.session, desk.me);
        let receipt = Receipt { count, cohort: opening.fixed.signed.clone(), confirms: opening.confirms.clone(), last };
        desk.out.send.push(pen.write(Kind::Result, To::All, opening.fixed.digest, &receipt));
        desk.out.event(Event::Opened(Box::new(Answer {
            session: rules.session,
            round: round.asked.round,
            snapshot: begin.snapshot.clone(),
            question: begin.question.clone(),
            sum,
            scale: begin.scale,
            cohort: count,
            invited: self.lineup.count,
            confirmations: opening.confirms.len() as u32,
            cohort_root: opening.fixed.cohort.root,
            checked: round.checked(),
        })));
        desk.out.settled.push(Settled::Round(rules.session, round.asked.round));
        desk.out.forget(session_key(rules.session, "round"));
        self.round = None;
        self.ended |= last;
    }

    /// The round ends without an answer, and nothing more is to be said of it.
    pub(super) fn give_up(&mut self, reason: AbortReason, rules: &Rules, desk: &mut HospitalDesk<'_>) {
        if let Some(round) = &self.round {
            let last = round.last.with_abort();
            self.abort(reason, String::new(), last, rules, desk);
        }
    }

    /// The round ends without an answer; with `last` the session too.
    pub(super) fn abort(
        &mut self,
        reason: AbortReason,
        advice: String,
        last: bool,
        rules: &Rules,
        desk: &mut HospitalDesk<'_>,
    ) {
        let Some(round) = self.round.take() else { return };
        let abort = Abort { reason: reason.clone(), last };
        let pen = round.pen(rules.session, desk.me);
        desk.out.send.push(pen.write(Kind::Abort, To::All, round.asked.digest, &abort));
        desk.out.settled.push(Settled::Round(rules.session, round.asked.round));
        desk.out.forget(session_key(rules.session, "round"));
        desk.out.event(Event::Aborted { session: rules.session, round: round.asked.round, reason, advice });
        self.ended |= last;
    }

    /// Gives up what is late.
    pub(super) fn keep_time(&mut self, rules: &Rules, desk: &mut HospitalDesk<'_>) {
        let Ok((round, lineup)) = self.parts() else { return };
        round.open(rules, lineup, desk);
        round.ask_again(lineup, rules, desk);
        let patience = round.patience.unwrap_or(round.asked.confirms_close());
        let (confirms_close, ends) = (round.asked.confirms_close(), round.asked.ends());
        match &round.stage {
            Stage::Asking if desk.now >= confirms_close => self.give_up(AbortReason::NoCohort, rules, desk),
            Stage::Confirming(_) if desk.now >= confirms_close => self.too_few_confirmed(rules, desk),
            Stage::Opening(opening) if desk.now >= ends => {
                let reason = if opening.summed { self.unchecked() } else { self.sums_missing() };
                if let Some(reason) = reason {
                    self.give_up(reason, rules, desk);
                }
            }
            // While the sums are being added nothing more is asked for.
            Stage::Opening(opening) if opening.adding => desk.out.wake_at(ends),
            Stage::Opening(opening) => desk.out.wake_at(opening.again.min(ends)),
            _ => desk.out.wake_at(confirms_close.min(patience)),
        }
    }

    /// The round's time is up, and not all sums are here.
    fn sums_missing(&self) -> Option<AbortReason> {
        let round = self.round.as_ref()?;
        let Stage::Opening(opening) = &round.stage else { return None };
        let silent = opening.sums.silent().into_iter();
        let mut missing: Vec<Name> = silent.map(|seat| self.seat_name(seat)).collect();
        let nameless = round.recount.iter().flat_map(Recount::nameless);
        missing.extend(round.masked.missing().chain(nameless).map(|server| self.lineup.servers[server].name.clone()));
        missing.dedup();
        Some(AbortReason::SumsMissing { missing })
    }

    /// The round's time is up, and the sums are not all checked.
    fn unchecked(&mut self) -> Option<AbortReason> {
        if let Some(dispute) = self.dispute(true) {
            return Some(dispute);
        }
        let silent = self.round.as_mut()?.vouch().map(|vouch| vouch.silent()).unwrap_or_default();
        Some(AbortReason::Unchecked { missing: silent.into_iter().map(|seat| self.seat_name(seat)).collect() })
    }

    fn seat_name(&self, seat: u8) -> Name {
        self.lineup.seats[usize::from(seat)].identity.name.clone()
    }
}

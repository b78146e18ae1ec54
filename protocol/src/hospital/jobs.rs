//! What the hospital's jobs bring back.

use super::open::Open;
use super::round::Stage;
use super::{HospitalDesk, Ticket, Work};
use crate::error::{AbortReason, Fault, Wrong};
use crate::id::{Kind, Name};
use crate::job::Outcome;
use crate::session::Rules;
use crate::step::Event;

impl Open {
    pub(super) fn done(&mut self, ticket: Ticket, outcome: Outcome, rules: &Rules, desk: &mut HospitalDesk<'_>) {
        if self.current(ticket.round).is_err() {
            return;
        }
        let Ok((round, lineup)) = self.parts() else { return };
        match (ticket.work, outcome) {
            (Work::Identify { from }, Outcome::Identified { bytes, digest }) => {
                if !round.take_piece(digest, &bytes) {
                    let room = round.room(&from, lineup);
                    round.loose.keep(from, digest, bytes, room);
                }
                round.open_answers(lineup, rules, desk);
                self.add_up(rules, desk);
            }
            (Work::Unseal { check }, Outcome::Unsealed(sums)) => self.unsealed(check, Some(sums), rules, desk),
            (Work::Unseal { check }, _) => self.unsealed(check, None, rules, desk),
            (Work::Read { at, chunk }, Outcome::Identified { bytes, digest }) => {
                let Some(recount) = &mut round.recount else { return };
                let read = recount.identified((at, chunk), bytes, digest, desk);
                self.unless_lost(read, rules, desk);
            }
            (Work::Again { chunk }, Outcome::Folded { sum, .. }) => {
                let Some(recount) = &mut round.recount else { return };
                let read = recount.folded(chunk, sum, desk);
                self.unless_lost(read, rules, desk);
            }
            (Work::Again { chunk }, Outcome::Packed { chunks, digests }) => {
                let Some(recount) = &mut round.recount else { return };
                if let (Some(bytes), Some(digest)) = (chunks.into_iter().next(), digests.first()) {
                    recount.packed(chunk, bytes, *digest);
                }
                self.add_up(rules, desk);
            }
            (Work::Reconstruct, Outcome::Reconstructed(mut sum)) => {
                self.answer(std::mem::take(&mut sum.0), rules, desk)
            }
            (Work::Reconstruct, Outcome::WrongSums(seats)) => {
                self.wrong_sums(&seats, "a mask sum that t+1 holders give otherwise", rules, desk);
            }
            (Work::Reconstruct, Outcome::BadSum(seat)) => self.bad_sum(seat, rules, desk),
            (Work::Reconstruct, Outcome::Unfit) => self.unfit_masked_sum(rules, desk),
            _ => {}
        }
    }

    /// A part of the masked sum has another length than the vector's: its server is named, and without it there is no
    /// answer.
    fn unfit_masked_sum(&mut self, rules: &Rules, desk: &mut HospitalDesk<'_>) {
        let Ok((round, lineup)) = self.parts() else { return };
        let unfit = round.masked.unfit(&round.asked.chunks);
        let missing: Vec<Name> = unfit.into_iter().map(|server| lineup.servers[server].name.clone()).collect();
        for from in &missing {
            let wrong = Wrong::Rule("a masked sum of another length than the vector");
            desk.out.event(Event::Fault(Fault { from: from.clone(), kind: Kind::MaskedSum, wrong }));
        }
        self.give_up(AbortReason::SumsMissing { missing }, rules, desk);
    }

    /// A mask sum did not open, or was not what was asked for: its sender is named, and others are asked: to vouch for its
    /// blocks where they can be checked, else for their sum.
    fn bad_sum(&mut self, seat: u8, rules: &Rules, desk: &mut HospitalDesk<'_>) {
        const RULE: &str = "a mask sum that does not open, or is of other blocks";
        let Ok((round, lineup)) = self.parts() else { return };
        if round.vouch().is_some() {
            return self.wrong_sums(&[seat], RULE, rules, desk);
        }
        let from = lineup.seats[usize::from(seat)].identity.name.clone();
        desk.out.event(Event::Fault(Fault { from, kind: Kind::MaskSum, wrong: Wrong::Rule(RULE) }));
        if let Stage::Opening(opening) = &mut round.stage {
            opening.adding = false;
            opening.again = desk.now;
            opening.sums.reject(seat);
        }
        round.ask_again(lineup, rules, desk);
        self.add_up(rules, desk);
    }
}

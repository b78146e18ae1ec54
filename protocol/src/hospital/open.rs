//! A session of the hospital in which questions can be asked, and the messages of its rounds.

use bytes::Bytes;
use serde::{Deserialize, Serialize};

use super::HospitalDesk;
use super::recount::Recount;
use super::round::{Round, Stage};
use super::sums::Incoming;
use crate::desk::{Stop, rule};
use crate::error::{AbortReason, Wrong};
use crate::id::{Address, Digest, Kind, Name, RoundNo, SessionId, Snapshot};
use crate::message::{MaskSum, MaskedSum, Refuse, SumPieces};
use crate::plan::Audit;
use crate::records::session_key;
use crate::session::{Fixed, Joined, Lineup, Past, Rules};
use crate::shards::Shard;
use crate::step::Event;
use crate::wire::{self, Frame};

/// A session in which questions can be asked.
#[derive(Debug)]
pub(super) struct Open {
    pub(super) lineup: Lineup,
    pub(super) joined: Vec<Joined>,
    pub(super) past: Vec<Past>,
    /// Rounds that were asked and of which no Cohort came yet: it may still come, also after their end.
    pub(super) begun: Vec<Begun>,
    pub(super) last: RoundNo,
    pub(super) round: Option<Round>,
    /// The last word was said: the session is over.
    pub(super) ended: bool,
}

/// A round that was asked.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Begun {
    pub(super) round: RoundNo,
    pub(super) begin: Digest,
    pub(super) snapshot: Snapshot,
}

impl Open {
    /// Over what it was asked, round by round.
    pub(super) fn snapshots(&self) -> impl Iterator<Item = &Snapshot> {
        let past = self.past.iter().map(|past| &past.snapshot);
        past.chain(self.begun.iter().map(|begun| &begun.snapshot))
    }

    /// Stores which rounds were, and their cohorts.
    pub(super) fn save(&self, session: SessionId, desk: &mut HospitalDesk<'_>) {
        desk.out.put(session_key(session, "rounds"), wire::encode(&(self.last, &self.past, &self.begun)));
    }

    /// The round that runs, where it is the one that `round` names.
    pub(super) fn current(&mut self, round: RoundNo) -> Result<&mut Round, Stop> {
        match &mut self.round {
            Some(running) if running.asked.round == round => Ok(running),
            _ => Err(Stop::Useless("a message of another round")),
        }
    }

    pub(super) fn take(&mut self, frame: &Frame, rules: &Rules, desk: &mut HospitalDesk<'_>) -> Result<(), Stop> {
        if frame.envelope.kind == Kind::Cohort && self.current(frame.envelope.round).is_err() {
            return self.on_late_cohort(frame, rules, desk);
        }
        self.current(frame.envelope.round)?;
        match frame.envelope.kind {
            Kind::Cohort => self.on_cohort(frame, rules, desk),
            Kind::Confirm => {
                let (round, lineup) = self.parts()?;
                round.on_confirm(frame, rules, lineup, desk)
            }
            Kind::Refuse => self.on_refuse(frame, rules, desk),
            Kind::MaskedSum => self.on_masked_sum(frame, rules, desk),
            Kind::CheckSum => self.on_check_sum(frame, rules, desk),
            _ => self.on_mask_sum(frame, rules, desk),
        }
    }

    /// Which of the servers this is.
    fn server(&self, name: &Name) -> Result<usize, Stop> {
        let index = self.lineup.servers.iter().position(|server| server.name == *name);
        Ok(index.ok_or(Wrong::NotItsRole)?)
    }

    pub(super) fn parts(&mut self) -> Result<(&mut Round, &Lineup), Stop> {
        match &mut self.round {
            Some(round) => Ok((round, &self.lineup)),
            None => Err(Stop::Useless("no round is running")),
        }
    }

    fn on_cohort(&mut self, frame: &Frame, rules: &Rules, desk: &mut HospitalDesk<'_>) -> Result<(), Stop> {
        let joined = &self.joined;
        let (Some(round), lineup) = (&mut self.round, &self.lineup) else {
            return Err(Stop::Useless("no round is running"));
        };
        let fixed = Fixed::read(frame, lineup, round.asked.digest)?;
        if let Some(known) = round.fixed() {
            let same = known.digest == fixed.digest;
            return Err(if same { Stop::Useless("the cohort is known") } else { Stop::Fault(Wrong::Equivocation) });
        }
        check_size(&fixed, rules)?;
        let Some(shares) = round.listed.take(&fixed, &frame.attachment)? else { return Ok(()) };
        let (number, snapshot) = (round.asked.round, round.asked.begin.snapshot.clone());
        let places = fixed.cohort.places.clone();
        if self.past.iter().any(|past| past.round == number && past.places != places) {
            // It was shown another one before a restart.
            return Err(Stop::Fault(Wrong::Equivocation));
        }
        // Shares are read while members confirm: all of them are, whatever is drawn later.
        if round.audit != Audit::None {
            round.recount = Some(Recount::new(rules, &round.asked, &fixed, shares, joined));
        }
        let begun = round.recount.as_mut().map_or(Ok(()), |recount| recount.read_on(desk));
        round.confirm(fixed, rules, lineup, desk)?;
        desk.out.event(Event::Cohort { round: number, count: places.len() });
        self.remember(Past { round: number, snapshot, places }, rules, desk);
        self.unless_lost(begun, rules, desk);
        Ok(())
    }

    /// The Cohort of a round that is over: members may have confirmed it, so it is what must be asked again. Its Shares
    /// are not needed any more, so the first piece of their list will do.
    fn on_late_cohort(&mut self, frame: &Frame, rules: &Rules, desk: &mut HospitalDesk<'_>) -> Result<(), Stop> {
        let begun = self.begun.iter().find(|begun| begun.round == frame.envelope.round);
        let Begun { round, begin, snapshot } = begun.ok_or(Stop::Useless("a message of another round"))?.clone();
        let fixed = Fixed::read(frame, &self.lineup, begin)?;
        check_size(&fixed, rules)?;
        self.remember(Past { round, snapshot, places: fixed.cohort.places }, rules, desk);
        Ok(())
    }

    fn remember(&mut self, past: Past, rules: &Rules, desk: &mut HospitalDesk<'_>) {
        if self.past.iter().any(|known| known.round == past.round) {
            return;
        }
        self.begun.retain(|begun| begun.round != past.round);
        self.past.push(past);
        self.past.sort_by_key(|past| past.round);
        self.save(rules.session, desk);
    }

    fn on_refuse(&mut self, frame: &Frame, rules: &Rules, desk: &mut HospitalDesk<'_>) -> Result<(), Stop> {
        let refuse: Refuse = frame.envelope.body()?;
        if let Some(seat) = self.lineup.seat_of(&frame.envelope.from) {
            return self.on_member_refuse(frame, seat, refuse, rules, desk);
        }
        let server = self.server(&frame.envelope.from)?;
        frame.verify(&self.lineup.servers[server])?;
        let (round, _) = self.parts()?;
        let snapshot = round.asked.begin.snapshot.clone();
        if frame.envelope.after != round.asked.digest {
            // The server may be honest: a hospital that came back with an older store asked another question before.
            return Err(Stop::Useless("a server's Refuse after another Begin than this hospital has"));
        }
        let last = round.last.with_abort();
        let (reason, advice) = match refuse {
            Refuse::TooFewShared { shared, needed, declined, missing, silent } if server == 0 => {
                let advice = [self.explain(&declined, &snapshot), self.explain_silence(&missing, &silent)];
                let advice: Vec<String> = advice.into_iter().filter(|words| !words.is_empty()).collect();
                (AbortReason::TooFewShared { shared, needed }, advice.join(". "))
            }
            Refuse::BoardLost => (AbortReason::BoardLost, String::new()),
            _ => return Err(rule("a Refuse that is not the server's to send")),
        };
        self.abort(reason, advice, last, rules, desk);
        Ok(())
    }

    /// A member refuses: the round is lost once too few are left to confirm.
    fn on_member_refuse(
        &mut self,
        frame: &Frame,
        seat: u8,
        refuse: Refuse,
        rules: &Rules,
        desk: &mut HospitalDesk<'_>,
    ) -> Result<(), Stop> {
        frame.verify(&self.lineup.seats[usize::from(seat)].identity)?;
        let (round, _) = self.parts()?;
        let fixed = round.fixed().ok_or(Stop::Early)?;
        if frame.envelope.after != fixed.digest || matches!(round.stage, Stage::Opening(_)) {
            return Err(Stop::Useless("a refusal of another cohort, or too late"));
        }
        round.refusals.insert(seat, refuse);
        let left = usize::from(rules.announce.sharing.committee()) - round.refusals.len();
        if left < usize::from(rules.announce.sharing.quorum()) {
            self.too_few_confirmed(rules, desk);
        }
        Ok(())
    }

    fn on_masked_sum(&mut self, frame: &Frame, rules: &Rules, desk: &mut HospitalDesk<'_>) -> Result<(), Stop> {
        let server = self.server(&frame.envelope.from)?;
        let (round, lineup) = self.parts()?;
        frame.verify(&lineup.servers[server])?;
        let fixed = round.fixed().ok_or(Stop::Early)?;
        let sum: MaskedSum = frame.envelope.body()?;
        let shard = Shard::new(server, lineup.servers.len());
        if server > 0 && frame.envelope.after != fixed.digest {
            // It goes by the Cohort that it was shown, and the first server may have shown it another one.
            return Err(Stop::Useless("a MaskedSum of another cohort"));
        }
        if frame.envelope.after != fixed.digest || sum.chunks.len() != shard.count(&round.asked.chunks) {
            return Err(rule("a MaskedSum of another cohort or shape"));
        }
        if !round.masked.expect(server, &sum.chunks) {
            return Err(Stop::Fault(Wrong::Equivocation));
        }
        round.named(&frame.envelope.from, &sum.chunks, Vec::new(), rules, desk);
        if shard.rides(&round.asked.chunks) {
            round.identify(&frame.envelope.from, frame.attachment.clone(), rules.session, desk);
            return Ok(());
        }
        if let Some(recount) = &mut round.recount {
            recount.take_names(server, &frame.attachment)?;
        }
        // No chunk follows from a server that has no part of so short a vector: this may be all that was missing.
        self.add_up(rules, desk);
        Ok(())
    }

    /// Adds up what is here, as far as it can be; ends the round where the board has lost what is needed, or holders of
    /// a block cannot agree.
    pub(super) fn add_up(&mut self, rules: &Rules, desk: &mut HospitalDesk<'_>) {
        let Ok((round, lineup)) = self.parts() else { return };
        let added = round.add_up(lineup, rules, desk);
        self.unless_lost(added, rules, desk);
        if let Some(dispute) = self.dispute(false) {
            self.give_up(dispute, rules, desk);
        }
    }

    /// The board answered a read.
    pub(super) fn read(
        &mut self,
        address: &Address,
        payload: Option<Bytes>,
        rules: &Rules,
        desk: &mut HospitalDesk<'_>,
    ) {
        let joined = &self.joined;
        let round = self.round.as_mut().filter(|round| round.asked.round == address.round);
        let Some(recount) = round.and_then(|round| round.recount.as_mut()) else { return };
        let read = recount.read(address, payload, joined, desk);
        self.unless_lost(read, rules, desk);
    }

    fn on_mask_sum(&mut self, frame: &Frame, rules: &Rules, desk: &mut HospitalDesk<'_>) -> Result<(), Stop> {
        let (round, lineup) = self.parts()?;
        let seat = lineup.seat_of(&frame.envelope.from).ok_or(Wrong::NotItsRole)?;
        frame.verify(&lineup.seats[usize::from(seat)].identity)?;
        let Stage::Opening(opening) = &mut round.stage else { return Err(Stop::Early) };
        let sum: MaskSum = frame.envelope.body()?;
        if sum.pieces.len() != round.asked.chunks.count() as usize + 1 {
            return Err(rule("a MaskSum of another shape"));
        }
        let SumPieces(attached) = wire::decode(&frame.attachment, "mask sum pieces")?;
        let incoming = Incoming::new(sum);
        let digests = incoming.digests();
        if !opening.sums.arrived(frame.envelope.after, seat, incoming) {
            return Err(Stop::Useless("a MaskSum that was not asked for, is known, or comes after chunks were drawn"));
        }
        round.named(&frame.envelope.from, &digests, attached, rules, desk);
        Ok(())
    }

    pub(super) fn take_chunk(
        &mut self,
        address: &Address,
        payload: &Bytes,
        session: SessionId,
        desk: &mut HospitalDesk<'_>,
    ) -> Result<(), Stop> {
        if self.server(&address.from).is_err() && self.lineup.seat_of(&address.from).is_none() {
            return Err(Wrong::NotItsRole.into());
        }
        let round = self.current(address.round)?;
        round.identify(&address.from, payload.clone(), session, desk);
        Ok(())
    }
}

/// Checks that the cohort is large enough.
fn check_size(fixed: &Fixed, rules: &Rules) -> Result<(), Stop> {
    let large = fixed.cohort.places.len() >= rules.announce.min_cohort;
    if large { Ok(()) } else { Err(rule("a cohort below the minimum")) }
}

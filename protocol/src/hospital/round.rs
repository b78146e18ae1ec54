//! One round of the hospital: Cohort, Confirms, Open, sums, answer.

use std::collections::BTreeMap;
use std::sync::Arc;

use bytes::Bytes;
use serde::{Deserialize, Serialize};

use super::checks::Checks;
use super::listed::Listed;
use super::recount::{Lost, Recount};
use super::session::{Begun, Open, Past};
use super::sums::{Incoming, MaskSums, Masked};
use super::vouch::Vouch;
use super::{HospitalDesk, Ticket, Work};
use crate::desk::{Me, Pen, Stop, rule};
use crate::error::{AbortReason, Fault, Wrong};
use crate::id::{Address, Digest, Kind, Name, RoundNo, SessionId, Time, To};
use crate::job::{Job, Outcome};
use crate::message::{self, Abort, MaskSum, MaskedSum, Receipt, Refuse};
use crate::outbox::Settled;
use crate::plan::Audit;
use crate::records::session_key;
use crate::reopen::OpenRound;
use crate::seal::SealSecret;
use crate::secret::Root;
use crate::session::{Asked, Fixed, Lineup, Rules, read_confirm, sum_info};
use crate::shards::Shard;
use crate::step::{Answer, Checked, Event};
use crate::wire::{self, Frame, Signed};

/// How long, once q Confirms are here, the hospital waits for those of the default holders, in milliseconds.
const PATIENCE_MILLIS: u64 = 20;

/// Whether the session ends with a round.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) enum Last {
    /// It goes on.
    No,
    /// It ends, however the round does.
    Yes,
    /// It ends with an answer; without one the round can be asked again.
    Answered,
}

impl Last {
    fn with_abort(self) -> bool {
        self == Last::Yes
    }
}

/// How far a round is.
#[derive(Debug)]
pub(super) enum Stage {
    /// No Cohort yet.
    Asking,
    /// The Cohort is here; Confirms are coming.
    Confirming(Box<Fixed>),
    /// q Confirms are here and the Open is sent; sums are coming.
    Opening(Box<Opening>),
}

/// A cohort that is being opened.
#[derive(Debug)]
pub(super) struct Opening {
    fixed: Fixed,
    /// The first Open: what Checks continue.
    pub(super) open: Digest,
    /// q Confirms: what the receipt shows.
    confirms: Vec<Signed>,
    pub(super) sums: MaskSums,
    /// When missing sums are asked of others.
    again: Time,
    /// All sums were in.
    summed: bool,
    /// What is checked, from when all sums are in.
    pub(super) checks: Option<Checks>,
    /// The sums are being added up.
    pub(super) adding: bool,
}

/// What to add up: the masked sum, chunk by chunk, and which of the mask sums that cover all blocks.
type Summands = (Vec<Bytes>, Vec<usize>);

/// One round of the hospital.
#[derive(Debug)]
pub(super) struct Round {
    pub(super) asked: Asked,
    pub(super) root: Root,
    pub(super) secret: Arc<SealSecret>,
    audit: Audit,
    last: Last,
    pub(super) confirms: BTreeMap<u8, Signed>,
    refusals: BTreeMap<u8, Refuse>,
    /// Until when it waits for more Confirms than q, once q are here.
    patience: Option<Time>,
    pub(super) masked: Masked,
    listed: Listed,
    /// The Opens that were written, also before a restart.
    opens: Vec<Signed>,
    /// The Checks that were written, also before a restart.
    pub(super) asked_holders: Vec<Signed>,
    /// The hospital's own sum of the masked vectors, from the Cohort on, unless nothing is checked.
    recount: Option<Recount>,
    pub(super) stage: Stage,
}

/// What the store keeps of an open round: Opens and Checks too, as the sums that come answer those.
#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Stored {
    open: OpenRound,
    audit: Audit,
    last: Last,
    opens: Vec<Signed>,
    checks: Vec<Signed>,
}

impl Round {
    pub(super) fn new(
        asked: Asked,
        root: Root,
        secret: Arc<SealSecret>,
        (audit, last): (Audit, Last),
        servers: usize,
    ) -> Self {
        let (confirms, refusals, masked) = (BTreeMap::new(), BTreeMap::new(), Masked::new(servers));
        let (listed, opens, asked_holders) = (Listed::default(), Vec::new(), Vec::new());
        Self {
            asked,
            root,
            secret,
            audit,
            last,
            confirms,
            refusals,
            patience: None,
            masked,
            listed,
            opens,
            asked_holders,
            recount: None,
            stage: Stage::Asking,
        }
    }

    pub(super) fn save(&self, session: SessionId, desk: &mut HospitalDesk<'_>) {
        let open = OpenRound::new(&self.asked, &self.root);
        let (opens, checks) = (self.opens.clone(), self.asked_holders.clone());
        let stored = Stored { open, audit: self.audit, last: self.last, opens, checks };
        desk.out.put(session_key(session, "round"), wire::encode(&stored));
    }

    /// The round as the store has it: Cohort, Confirms and sums come again.
    pub(super) fn restore(stored: &[u8], rules: &Rules, open: &Open, secret: Arc<SealSecret>) -> Option<Self> {
        let Stored { open: kept, audit, last, opens, checks } = wire::decode(stored, "round").ok()?;
        let (asked, root) = kept.reopen(open.last, rules, &open.lineup)?;
        Some(Self {
            opens,
            asked_holders: checks,
            ..Self::new(asked, root, secret, (audit, last), open.lineup.servers.len())
        })
    }

    /// The Cohort is here. Where an Open of it was written before a restart, the sums that answer it are on their way, and
    /// so is what answers the Checks that were.
    fn confirm(&mut self, fixed: Fixed, rules: &Rules, lineup: &Lineup, desk: &HospitalDesk<'_>) -> Result<(), Stop> {
        let mut asked = MaskSums::new(rules.blocks.len() as u16);
        let (mut first, mut confirms) = (None, Vec::new());
        for signed in &self.opens {
            let frame = signed.open()?;
            if frame.envelope.after != fixed.digest {
                return Err(Stop::Fault(Wrong::Equivocation));
            }
            let open: message::Open = frame.envelope.body()?;
            asked.asked(frame.digest, open.senders);
            first.get_or_insert(frame.digest);
            confirms = open.confirms;
        }
        self.stage = match first {
            None => Stage::Confirming(Box::new(fixed)),
            Some(open) => {
                let again = desk.now.plus_millis(self.asked.tenth());
                let sums = asked;
                let checks = self.checks_again(rules, lineup)?;
                let opening = Opening { fixed, open, confirms, sums, again, summed: false, checks, adding: false };
                Stage::Opening(Box::new(opening))
            }
        };
        Ok(())
    }

    fn pen<'a>(&'a self, session: SessionId, me: &'a Me) -> Pen<'a> {
        Pen { me, session, round: self.asked.round, secret: self.root.expose() }
    }

    /// Which chunk is this that came from `from`?
    pub(super) fn identify(&self, from: &Name, bytes: Bytes, session: SessionId, desk: &mut HospitalDesk<'_>) {
        let work = Work::Identify { from: from.clone() };
        desk.run(Ticket { session, round: self.asked.round, work }, Job::Identify { bytes });
    }

    /// The Cohort, once it is here.
    fn fixed(&self) -> Option<&Fixed> {
        match &self.stage {
            Stage::Asking => None,
            Stage::Confirming(fixed) => Some(fixed),
            Stage::Opening(opening) => Some(&opening.fixed),
        }
    }

    /// Asks `senders` for mask sums, showing the Confirms that allow it.
    fn send_open(&mut self, senders: Vec<(u8, Vec<u16>)>, lineup: &Lineup, rules: &Rules, desk: &mut HospitalDesk<'_>) {
        let Stage::Opening(opening) = &self.stage else { return };
        let open = message::Open { confirms: opening.confirms.clone(), senders: senders.clone() };
        let pen = self.pen(rules.session, desk.me);
        let signed = pen.sign(Kind::Open, To::All, opening.fixed.digest, &open);
        let mut sends = Vec::new();
        for seat in &lineup.seats {
            sends.push(pen.post(Kind::Open, &signed, To::One(seat.identity.name.clone()), &[]));
        }
        desk.out.send.extend(sends);
        self.opens.push(signed.clone());
        self.save(rules.session, desk);
        let again = desk.now.plus_millis(self.asked.tenth());
        if let Stage::Opening(opening) = &mut self.stage {
            opening.sums.asked(signed.digest(), senders);
            opening.open = if opening.open == Digest::default() { signed.digest() } else { opening.open };
            opening.again = again;
        }
    }

    /// Takes note of a Confirm; the Open follows once q are here.
    fn on_confirm(
        &mut self,
        frame: &Frame,
        rules: &Rules,
        lineup: &Lineup,
        desk: &mut HospitalDesk<'_>,
    ) -> Result<(), Stop> {
        let fixed = self.fixed().ok_or(Stop::Early)?.clone();
        let seat = read_confirm(frame, fixed.digest, rules.session, self.asked.round, lineup)?;
        self.confirms.insert(seat, frame.signed());
        let count = self.confirms.len() as u32;
        desk.out.event(Event::Confirmed { round: self.asked.round, count });
        self.open(rules, lineup, desk);
        Ok(())
    }

    /// Sends the Open once q Confirms are here. Those who are asked by default made their sums ahead: a moment is given
    /// to their Confirms, as to ask others would cost more.
    fn open(&mut self, rules: &Rules, lineup: &Lineup, desk: &mut HospitalDesk<'_>) {
        let sharing = rules.announce.sharing;
        let Stage::Confirming(fixed) = &self.stage else { return };
        if self.confirms.len() < usize::from(sharing.quorum()) {
            return;
        }
        let everybody: Vec<u8> = (0..sharing.committee()).collect();
        let defaults = sharing.default_senders(&everybody, self.asked.round.0);
        let most = desk.now.plus_millis(PATIENCE_MILLIS).min(self.asked.confirms_close());
        let patience = *self.patience.get_or_insert(most);
        if desk.now < patience && !defaults.iter().all(|(seat, _)| self.confirms.contains_key(seat)) {
            return;
        }
        let fixed = (**fixed).clone();
        let confirmed: Vec<u8> = self.confirms.keys().copied().collect();
        let senders = sharing.default_senders(&confirmed, self.asked.round.0);
        let confirms = self.confirms.values().cloned().collect();
        let sums = MaskSums::new(rules.blocks.len() as u16);
        self.stage = Stage::Opening(Box::new(Opening {
            fixed,
            open: Digest::default(),
            confirms,
            sums,
            again: desk.now,
            summed: false,
            checks: None,
            adding: false,
        }));
        self.send_open(senders, lineup, rules, desk);
    }

    /// Adds everything up, once every block is covered exactly once and the masked sum is here, both checked.
    fn add_up(&mut self, lineup: &Lineup, rules: &Rules, desk: &mut HospitalDesk<'_>) -> Result<(), Lost> {
        if !self.begin_checks(rules, desk) {
            return Ok(());
        }
        // What is settled below may have to be asked for first.
        let sum = self.check_sums(lineup, desk)?;
        self.ask_holders(lineup, rules, desk);
        if let Some((masked, good)) = sum {
            self.reconstruct(masked, &good, lineup, rules, desk);
        }
        Ok(())
    }

    /// Whether all sums are in; then it is drawn what of them is checked.
    fn begin_checks(&mut self, rules: &Rules, desk: &mut HospitalDesk<'_>) -> bool {
        let Self { asked, masked, recount, .. } = self;
        let Stage::Opening(opening) = &mut self.stage else { return false };
        let nameless = recount.as_ref().is_some_and(|recount| recount.nameless().next().is_some());
        if opening.adding || nameless || masked.missing().next().is_some() || opening.sums.cover().is_none() {
            return false;
        }
        if !std::mem::replace(&mut opening.summed, true) {
            desk.out.event(Event::Summed { round: asked.round });
            // Holders have a tenth of the round to vouch before others are asked.
            opening.again = desk.now.plus_millis(asked.tenth());
            if recount.is_some() {
                let checks = opening.checks.get_or_insert_with(|| Checks::new(asked, rules));
                if checks.vouch.is_some() {
                    // Who knows what is drawn must not choose its sum by it.
                    opening.sums.close();
                }
                let fresh = desk.fresh("ward/1 audit", &opening.fixed.digest.0);
                checks.draw(self.audit, &asked.chunks, &fresh);
            }
        }
        true
    }

    /// The masked sum and which mask sums of the cover to add to it, once both are checked.
    fn check_sums(&mut self, lineup: &Lineup, desk: &mut HospitalDesk<'_>) -> Result<Option<Summands>, Lost> {
        let Self { asked, masked, recount, .. } = self;
        let Stage::Opening(opening) = &mut self.stage else { return Ok(None) };
        let Some(cover) = opening.sums.cover() else { return Ok(None) };
        let all = (0..cover.len()).collect();
        let (Some(checks), Some(recount)) = (&mut opening.checks, recount) else {
            return Ok(masked.chunks(&asked.chunks).map(|sum| (sum, all)));
        };
        let sum = checks.masked(masked, recount, &asked.chunks, lineup, desk)?;
        let good = match &mut checks.vouch {
            Some(vouch) => Self::settle(vouch, &cover),
            None => Some(all),
        };
        Ok(sum.zip(good))
    }

    /// Opens these of the mask sums that cover all blocks, and adds them to the masked sum.
    fn reconstruct(
        &mut self,
        masked: Vec<Bytes>,
        good: &[usize],
        lineup: &Lineup,
        rules: &Rules,
        desk: &mut HospitalDesk<'_>,
    ) {
        let Stage::Opening(opening) = &mut self.stage else { return };
        let cover = opening.sums.cover().unwrap_or_default();
        let sealed = good.iter().filter_map(|at| cover.get(*at)).map(|(open, seat, sum)| {
            let member = &lineup.seats[usize::from(*seat)].identity.name;
            sum.sealed(*seat, sum_info(rules.session, self.asked.round, member, *open))
        });
        let sealed = sealed.collect();
        let vouch = opening.checks.as_ref().and_then(|checks| checks.vouch.as_ref());
        let vouched = vouch.map(Vouch::agreed).unwrap_or_default();
        let whole = vouch.map_or_else(Vec::new, |vouch| vouch.whole().iter().copied().collect());
        opening.adding = true;
        let (secret, chunks) = (self.secret.clone(), self.asked.chunks);
        let job = Job::Reconstruct { secret, chunks, masked, sealed, vouched, whole };
        let ticket = Ticket { session: rules.session, round: self.asked.round, work: Work::Reconstruct };
        desk.run(ticket, job);
    }

    /// What was checked of the sums.
    fn checked(&self) -> Checked {
        let checks = match &self.stage {
            Stage::Opening(opening) => opening.checks.as_ref(),
            _ => None,
        };
        Checked {
            chunks: self.asked.chunks.count(),
            masked: self.recount.as_ref().map_or(0, Recount::count),
            masks: checks.and_then(Checks::vouched),
            caught: checks.map_or_else(Vec::new, |checks| checks.caught.clone()),
        }
    }

    /// Asks other members for the sums that did not come.
    fn ask_again(&mut self, lineup: &Lineup, rules: &Rules, desk: &mut HospitalDesk<'_>) {
        let Stage::Opening(opening) = &mut self.stage else { return };
        if opening.adding || desk.now < opening.again {
            return;
        }
        opening.again = desk.now.plus_millis(self.asked.tenth());
        let missing = opening.sums.missing_blocks();
        if let Some(vouch) = opening.checks.as_mut().and_then(|checks| checks.vouch.as_mut()) {
            vouch.ask_all();
        }
        let silent = opening.sums.silent();
        let others: Vec<u8> = self.confirms.keys().copied().filter(|seat| !silent.contains(seat)).collect();
        let senders = rules.announce.sharing.senders_for(&others, self.asked.round.0, &missing);
        if !missing.is_empty() && !senders.is_empty() {
            self.send_open(senders, lineup, rules, desk);
        }
        self.ask_holders(lineup, rules, desk);
    }
}

impl Open {
    /// The round that runs, where it is the one that `round` names.
    fn current(&mut self, round: RoundNo) -> Result<&mut Round, Stop> {
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
            return Err(rule("a server's Refuse continues the Begin"));
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

    fn too_few_confirmed(&mut self, rules: &Rules, desk: &mut HospitalDesk<'_>) {
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
        let last = round.last.with_abort();
        self.abort(reason, String::new(), last, rules, desk);
    }

    fn on_masked_sum(&mut self, frame: &Frame, rules: &Rules, desk: &mut HospitalDesk<'_>) -> Result<(), Stop> {
        let server = self.server(&frame.envelope.from)?;
        let (round, lineup) = self.parts()?;
        frame.verify(&lineup.servers[server])?;
        let fixed = round.fixed().ok_or(Stop::Early)?;
        let sum: MaskedSum = frame.envelope.body()?;
        let shard = Shard::new(server, lineup.servers.len());
        if frame.envelope.after != fixed.digest || sum.chunks.len() != shard.count(&round.asked.chunks) {
            return Err(rule("a MaskedSum of another cohort or shape"));
        }
        if !round.masked.expect(server, sum.chunks) {
            return Err(Stop::Fault(Wrong::Equivocation));
        }
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
        if let (Some(dispute), Some(round)) = (self.dispute(false), &self.round) {
            let last = round.last.with_abort();
            self.abort(dispute, String::new(), last, rules, desk);
        }
    }

    /// What the board cannot produce is an Abort, never a skipped check.
    fn unless_lost(&mut self, read: Result<(), Lost>, rules: &Rules, desk: &mut HospitalDesk<'_>) {
        if let (Err(lost), Some(round)) = (read, &self.round) {
            let last = round.last.with_abort();
            self.abort(lost.into(), String::new(), last, rules, desk);
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
        let attached: Vec<serde_bytes::ByteBuf> = wire::decode(&frame.attachment, "mask sum pieces")?;
        let incoming = Incoming::new(sum);
        let digests = incoming.digests();
        if !opening.sums.arrived(frame.envelope.after, seat, incoming) {
            return Err(Stop::Useless("a MaskSum that was not asked for, is known, or comes after chunks were drawn"));
        }
        // Pieces may have come before the message that names them.
        for digest in digests {
            if let Some(bytes) = round.masked.loose(digest) {
                opening.sums.take(digest, &bytes);
            }
        }
        for piece in attached {
            round.identify(&frame.envelope.from, Bytes::from(piece.into_vec()), rules.session, desk);
        }
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

    pub(super) fn done(&mut self, ticket: Ticket, outcome: Outcome, rules: &Rules, desk: &mut HospitalDesk<'_>) {
        let Ok(round) = self.current(ticket.round) else { return };
        match (ticket.work, outcome) {
            (Work::Identify { from }, Outcome::Identified { bytes, digest }) => {
                // Whoever copies another's digests into its own message must not keep the piece from its owner.
                let mut taken = round.masked.take(digest, &bytes);
                if let Stage::Opening(opening) = &mut round.stage {
                    taken |= opening.sums.take(digest, &bytes);
                }
                taken |= round.vouch().is_some_and(|vouch| vouch.take(digest, &bytes));
                if !taken {
                    // Whoever sends may be ahead of the messages that name its pieces by all that it may be asked for: a
                    // sum, and one more for each block that it is to vouch for.
                    let sums = 1 + rules.blocks.len();
                    round.masked.keep(from, digest, bytes, sums * round.asked.chunks.count() as usize);
                }
                if let Ok((round, lineup)) = self.parts() {
                    round.open_answers(lineup, rules, desk);
                }
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
        let (last, unfit) = (round.last.with_abort(), round.masked.unfit(&round.asked.chunks));
        let missing: Vec<Name> = unfit.into_iter().map(|server| lineup.servers[server].name.clone()).collect();
        for from in &missing {
            let wrong = Wrong::Rule("a masked sum of another length than the vector");
            desk.out.event(Event::Fault(Fault { from: from.clone(), kind: Kind::MaskedSum, wrong }));
        }
        self.abort(AbortReason::SumsMissing { missing }, String::new(), last, rules, desk);
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

    /// The sum is there: hand it to the hospital's owner and everybody their receipt.
    fn answer(&mut self, sum: Vec<i64>, rules: &Rules, desk: &mut HospitalDesk<'_>) {
        let Some(round) = &self.round else { return };
        let Stage::Opening(opening) = &round.stage else { return };
        let last = round.last != Last::No;
        let (count, begin) = (opening.fixed.cohort.places.len(), &round.asked.begin);
        let most = u128::from(begin.scaled_bound) * u128::from(count);
        if sum.iter().any(|one| u128::from(one.unsigned_abs()) > most) {
            let last = round.last.with_abort();
            return self.abort(AbortReason::SumOutOfRange, String::new(), last, rules, desk);
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
        let (confirms_close, ends, last) = (round.asked.confirms_close(), round.asked.ends(), round.last.with_abort());
        match &round.stage {
            Stage::Asking if desk.now >= confirms_close => {
                self.abort(AbortReason::NoCohort, String::new(), last, rules, desk);
            }
            Stage::Confirming(_) if desk.now >= confirms_close => self.too_few_confirmed(rules, desk),
            Stage::Opening(opening) if desk.now >= ends => {
                let summed = opening.summed;
                let silent = opening.sums.silent().into_iter();
                let mut missing: Vec<Name> =
                    silent.map(|seat| lineup.seats[usize::from(seat)].identity.name.clone()).collect();
                missing.extend(round.masked.missing().map(|server| lineup.servers[server].name.clone()));
                let nameless = round.recount.iter().flat_map(Recount::nameless);
                missing.extend(nameless.map(|server| lineup.servers[server].name.clone()));
                missing.dedup();
                let silent = round.vouch().map(|vouch| vouch.silent()).unwrap_or_default();
                let unheard = silent.into_iter().map(|seat| lineup.seats[usize::from(seat)].identity.name.clone());
                let unchecked = AbortReason::Unchecked { missing: unheard.collect() };
                let reason = match summed {
                    true => self.dispute(true).unwrap_or(unchecked),
                    false => AbortReason::SumsMissing { missing },
                };
                self.abort(reason, String::new(), last, rules, desk);
            }
            // While the sums are being added nothing more is asked for.
            Stage::Opening(opening) if opening.adding => desk.out.wake_at(ends),
            Stage::Opening(opening) => desk.out.wake_at(opening.again.min(ends)),
            _ => desk.out.wake_at(confirms_close.min(patience)),
        }
    }
}

/// Checks that the cohort is large enough.
fn check_size(fixed: &Fixed, rules: &Rules) -> Result<(), Stop> {
    let large = fixed.cohort.places.len() >= rules.announce.min_cohort;
    if large { Ok(()) } else { Err(rule("a cohort below the minimum")) }
}

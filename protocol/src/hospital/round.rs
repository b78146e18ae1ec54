//! The stages of one round of the hospital: Cohort, Confirms, Open, sums.

use std::collections::BTreeMap;
use std::sync::Arc;

use bytes::Bytes;
use serde::{Deserialize, Serialize};
use serde_bytes::ByteBuf;

use super::checks::{Checks, pieces_of};
use super::listed::Listed;
use super::loose::Loose;
use super::open::Open;
use super::recount::{Lost, Recount};
use super::sums::{MaskSums, Masked};
use super::vouch::Vouch;
use super::{HospitalDesk, Ticket, Work};
use crate::desk::{Me, Pen, Stop};
use crate::error::Wrong;
use crate::id::{Digest, Kind, Name, SessionId, Time, To};
use crate::job::Job;
use crate::message::{self, Refuse};
use crate::plan::Audit;
use crate::records::session_key;
use crate::reopen::OpenRound;
use crate::seal::SealSecret;
use crate::secret::Root;
use crate::session::{Asked, Fixed, Lineup, Rules, read_confirm, sum_info};
use crate::shards::Shard;
use crate::step::{Checked, Event};
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
    pub(super) fn with_abort(self) -> bool {
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
    pub(super) fixed: Fixed,
    /// q Confirms: what the receipt shows.
    pub(super) confirms: Vec<Signed>,
    pub(super) sums: MaskSums,
    /// When missing sums are asked of others.
    pub(super) again: Time,
    /// All sums were in.
    pub(super) summed: bool,
    /// What is checked, from when all sums are in.
    pub(super) checks: Option<Checks>,
    /// The sums are being added up.
    pub(super) adding: bool,
}

impl Opening {
    fn new(fixed: Fixed, confirms: Vec<Signed>, sums: MaskSums, again: Time) -> Self {
        Self { fixed, confirms, sums, again, summed: false, checks: None, adding: false }
    }

    /// The comparison of mask sums, once it has begun.
    fn vouch(&self) -> Option<&Vouch> {
        self.checks.as_ref()?.vouch.as_ref()
    }

    /// The same, to go on with it.
    pub(super) fn vouch_mut(&mut self) -> Option<&mut Vouch> {
        self.checks.as_mut()?.vouch.as_mut()
    }
}

/// What to add up: the masked sum, chunk by chunk, and which of the mask sums that cover all blocks.
type Summands = (Vec<Bytes>, Vec<usize>);

/// One round of the hospital.
#[derive(Debug)]
pub(super) struct Round {
    pub(super) asked: Asked,
    pub(super) root: Root,
    pub(super) secret: Arc<SealSecret>,
    pub(super) audit: Audit,
    pub(super) last: Last,
    pub(super) confirms: BTreeMap<u8, Signed>,
    pub(super) refusals: BTreeMap<u8, Refuse>,
    /// Until when it waits for more Confirms than q, once q are here.
    pub(super) patience: Option<Time>,
    pub(super) masked: Masked,
    pub(super) loose: Loose,
    pub(super) listed: Listed,
    /// The Opens that were written, also before a restart: Checks continue the first.
    pub(super) opens: Vec<Signed>,
    /// The Checks that were written, also before a restart.
    pub(super) asked_holders: Vec<Signed>,
    /// The hospital's own sum of the masked vectors, from the Cohort on, unless nothing is checked.
    pub(super) recount: Option<Recount>,
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
        let (listed, loose) = (Listed::default(), Loose::default());
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
            loose,
            listed,
            opens: Vec::new(),
            asked_holders: Vec::new(),
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
    pub(super) fn confirm(
        &mut self,
        fixed: Fixed,
        rules: &Rules,
        lineup: &Lineup,
        desk: &HospitalDesk<'_>,
    ) -> Result<(), Stop> {
        let mut asked = MaskSums::new(rules.blocks.len() as u16);
        let mut confirms = Vec::new();
        for signed in &self.opens {
            let frame = signed.open()?;
            if frame.envelope.after != fixed.digest {
                return Err(Stop::Fault(Wrong::Equivocation));
            }
            let open: message::Open = frame.envelope.body()?;
            asked.asked(frame.digest, open.senders);
            confirms = open.confirms;
        }
        self.stage = if self.opens.is_empty() {
            Stage::Confirming(Box::new(fixed))
        } else {
            let again = desk.now.plus_millis(self.asked.tenth());
            let checks = self.checks_again(rules, lineup)?;
            Stage::Opening(Box::new(Opening { checks, ..Opening::new(fixed, confirms, asked, again) }))
        };
        Ok(())
    }

    pub(super) fn pen<'a>(&'a self, session: SessionId, me: &'a Me) -> Pen<'a> {
        Pen { me, session, round: self.asked.round, secret: self.root.expose() }
    }

    /// The cohort that is being opened, once there is one.
    fn opening(&self) -> Option<&Opening> {
        match &self.stage {
            Stage::Opening(opening) => Some(opening),
            Stage::Asking | Stage::Confirming(_) => None,
        }
    }

    /// The Cohort, once it is here.
    pub(super) fn fixed(&self) -> Option<&Fixed> {
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
            opening.again = again;
        }
    }

    /// Takes note of a Confirm; the Open follows once q are here.
    pub(super) fn on_confirm(
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
    pub(super) fn open(&mut self, rules: &Rules, lineup: &Lineup, desk: &mut HospitalDesk<'_>) {
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
        self.stage = Stage::Opening(Box::new(Opening::new(fixed, confirms, sums, desk.now)));
        self.send_open(senders, lineup, rules, desk);
    }

    /// Finds out which piece of a sum this is.
    pub(super) fn identify(&self, from: &Name, bytes: Bytes, session: SessionId, desk: &mut HospitalDesk<'_>) {
        let work = Work::Identify { from: from.clone() };
        desk.run(Ticket { session, round: self.asked.round, work }, Job::Identify { bytes });
    }

    /// Takes a piece for every sum that names it: whoever copies another's digests into its own message must not keep the
    /// piece from its owner.
    pub(super) fn take_piece(&mut self, digest: Digest, bytes: &Bytes) -> bool {
        let mut taken = self.masked.take(digest, bytes);
        if let Stage::Opening(opening) = &mut self.stage {
            taken |= opening.sums.take(digest, bytes);
        }
        self.vouch().is_some_and(|vouch| vouch.take(digest, bytes)) | taken
    }

    /// How many pieces of a party are kept before it names them: as many as it is asked for.
    pub(super) fn room(&self, from: &Name, lineup: &Lineup) -> usize {
        let chunks = self.asked.chunks;
        if let Some(server) = lineup.servers.iter().position(|server| server.name == *from) {
            return Shard::new(server, lineup.servers.len()).count(&chunks);
        }
        let Some(seat) = lineup.seat_of(from) else { return 0 };
        let sums = self.opens.len().max(1) * (chunks.count() as usize + 1);
        // Checks of before a restart are known before the Cohort is here again.
        let before = || self.asked_holders.iter().filter_map(pieces_of).sum();
        let vouch = self.opening().and_then(Opening::vouch);
        sums + vouch.map_or_else(before, |vouch| vouch.asked_of(seat))
    }

    /// A sum named its pieces: takes those that came before it, and those that are attached to it.
    pub(super) fn named(
        &mut self,
        from: &Name,
        pieces: &[Digest],
        attached: Vec<ByteBuf>,
        rules: &Rules,
        desk: &mut HospitalDesk<'_>,
    ) {
        for digest in pieces {
            if let Some(bytes) = self.loose.take(from, *digest) {
                self.take_piece(*digest, &bytes);
            }
        }
        for piece in attached {
            self.identify(from, Bytes::from(piece.into_vec()), rules.session, desk);
        }
    }

    /// Adds everything up, once every block is covered exactly once and the masked sum is here, both checked.
    pub(super) fn add_up(&mut self, lineup: &Lineup, rules: &Rules, desk: &mut HospitalDesk<'_>) -> Result<(), Lost> {
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
        let vouch = opening.vouch();
        let vouched = vouch.map(Vouch::agreed).unwrap_or_default();
        let whole = vouch.map_or_else(Vec::new, |vouch| vouch.whole().iter().copied().collect());
        opening.adding = true;
        let (secret, chunks) = (self.secret.clone(), self.asked.chunks);
        let job = Job::Reconstruct { secret, chunks, masked, sealed, vouched, whole };
        let ticket = Ticket { session: rules.session, round: self.asked.round, work: Work::Reconstruct };
        desk.run(ticket, job);
    }

    /// What was checked of the sums.
    pub(super) fn checked(&self) -> Checked {
        let checks = self.opening().and_then(|opening| opening.checks.as_ref());
        Checked {
            chunks: self.asked.chunks.count(),
            masked: self.recount.as_ref().map_or(0, Recount::count),
            masks: checks.and_then(Checks::vouched),
            caught: checks.map_or_else(Vec::new, |checks| checks.caught.clone()),
        }
    }

    /// Asks other members for the sums that did not come.
    pub(super) fn ask_again(&mut self, lineup: &Lineup, rules: &Rules, desk: &mut HospitalDesk<'_>) {
        let Stage::Opening(opening) = &mut self.stage else { return };
        if opening.adding || desk.now < opening.again {
            return;
        }
        opening.again = desk.now.plus_millis(self.asked.tenth());
        let missing = opening.sums.missing_blocks();
        if let Some(vouch) = opening.vouch_mut() {
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

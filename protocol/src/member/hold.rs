//! Whose seeds a member holds: boxes opened and checked as they arrive, reported in batches.

use std::collections::{BTreeMap, BTreeSet};

use vectors::StreamKey;

use super::{Member, MemberDesk, Place, Stage, release};
use crate::desk::{Stop, rule};
use crate::error::Wrong;
use crate::id::{Digest, Kind, Time, To};
use crate::message::{Held, MOST_HELD, Share, ShareCore};
use crate::seal::{self, BoxContext};
use crate::secret::{ChainKey, Seed};
use crate::session::{Asked, Rules};
use crate::wire::{self, Frame};

/// How long a member waits at least for more before it reports what it holds, in milliseconds.
const BATCH_MILLIS: u64 = 10;

/// Beyond that it waits for so small a part of the time that the round took so far: reports cost the same however many
/// they speak of, and a long round needs no more of them than a short one.
const BATCH_PART: u64 = 16;

/// The seeds that one patient gave this member, by the blocks that it holds.
#[derive(Debug)]
struct Holding {
    share: Digest,
    seeds: BTreeMap<u16, Seed>,
}

/// What a member holds in one round.
#[derive(Debug, Default)]
pub(super) struct Holdings {
    held: BTreeMap<Place, Holding>,
    faults: BTreeSet<Place>,
    unreported: Vec<(Place, Digest)>,
    unreported_faults: Vec<Place>,
    due: Option<Time>,
}

impl Holdings {
    /// The digest of the Share of `place`, if its seeds are held.
    pub(super) fn digest(&self, place: Place) -> Option<Digest> {
        self.held.get(&place).map(|holding| holding.share)
    }

    /// The stream key of one patient's seed for one block.
    pub(super) fn stream_key(&self, place: Place, block: u16) -> Option<StreamKey> {
        self.held.get(&place)?.seeds.get(&block).map(Seed::stream_key)
    }

    pub(super) fn due(&self) -> Option<Time> {
        self.due
    }

    pub(super) fn is_due(&self, now: Time) -> bool {
        self.due.is_some_and(|due| now >= due)
    }
}

impl Member {
    pub(super) fn on_share(&mut self, frame: &Frame, rules: &Rules, desk: &mut MemberDesk<'_>) -> Result<(), Stop> {
        self.current(frame)?;
        let (place, _) = self.sender(frame)?;
        let Some(round) = &self.round else { return Err(Stop::Early) };
        if frame.envelope.after != round.asked.digest {
            return Err(Stop::Useless("a Share after another Begin than this member has"));
        }
        if !matches!(round.stage, Stage::Holding) {
            return Err(Stop::Useless("the cohort is fixed"));
        }
        match round.holdings.digest(place) {
            Some(known) if known == frame.digest => return Err(Stop::Useless("the share is known")),
            Some(_) => return Err(Stop::Fault(Wrong::Equivocation)),
            None if round.holdings.faults.contains(&place) => return Err(Stop::Useless("the patient is at fault")),
            None => {}
        }
        let chain = self.chains.get(&place).ok_or(Stop::Early)?;
        let key = chain.key(round.asked.round).ok_or(Stop::Useless("a message of an old round"))?;
        let opened = self.open_share(frame, place, &key, &round.asked, rules, desk);
        self.note(place, frame.digest, opened, rules, desk)
    }

    /// The seeds in the box, checked against the commitments; an error is the patient's fault where it signed it.
    fn open_share(
        &self,
        frame: &Frame,
        place: Place,
        key: &ChainKey,
        asked: &Asked,
        rules: &Rules,
        desk: &MemberDesk<'_>,
    ) -> Result<BTreeMap<u16, Seed>, Stop> {
        let share: Share = frame.envelope.body()?;
        let named = share.boxes.get(usize::from(self.seat)) == Some(&wire::attachment_digest(&frame.attachment));
        if !named {
            // The bytes may have been altered on the way: that is nobody's fault that could be named.
            return Err(Stop::Useless("a box that its Share does not name"));
        }
        let core = share.open_core().ok_or(rule("a Share core that is malformed or names a chunk twice"))?;
        let fits = core.place == place
            && core.commitments.len() == rules.blocks.len()
            && core.chunks.len() == asked.chunks.count() as usize
            && share.boxes.len() == self.lineup.seats.len();
        if !fits {
            return Err(rule("a Share of another place or shape"));
        }
        let sender = &frame.envelope.from;
        let context = BoxContext { begin: asked.digest, core: share.core_digest(), sender, receiver: &desk.me.name };
        let text = seal::open_box(key, &context, &frame.attachment).map_err(|_| rule("a box that does not open"))?;
        self.read_seeds(&text, &core, frame, asked, rules)
    }

    fn read_seeds(
        &self,
        text: &[u8],
        core: &ShareCore,
        frame: &Frame,
        asked: &Asked,
        rules: &Rules,
    ) -> Result<BTreeMap<u16, Seed>, Stop> {
        let blocks: Vec<u16> = (0u16..)
            .zip(rules.blocks.iter())
            .filter(|(_, block)| !block.contains(self.seat))
            .map(|(at, _)| at)
            .collect();
        let (seeds, rest) = text.as_chunks::<32>();
        if seeds.len() != blocks.len() || !rest.is_empty() {
            return Err(rule("a box with another number of seeds"));
        }
        let mut held = BTreeMap::new();
        for (block, seed) in blocks.into_iter().zip(seeds) {
            let seed = Seed::new(*seed);
            if seed.commitment(&frame.envelope.from, block, asked.digest) != core.commitments[usize::from(block)] {
                return Err(rule("a seed that does not fit its commitment"));
            }
            held.insert(block, seed);
        }
        Ok(held)
    }

    /// Notes what came of a Share, and reports once everybody's is here or the batch is due.
    fn note(
        &mut self,
        place: Place,
        share: Digest,
        opened: Result<BTreeMap<u16, Seed>, Stop>,
        rules: &Rules,
        desk: &mut MemberDesk<'_>,
    ) -> Result<(), Stop> {
        let Some(round) = &mut self.round else { return Err(Stop::Early) };
        let holdings = &mut round.holdings;
        let verdict = match opened {
            Ok(seeds) => {
                holdings.held.insert(place, Holding { share, seeds });
                holdings.unreported.push((place, share));
                let jobs = round.releases.hold(place, holdings);
                release::run(jobs, rules.session, round.asked.round, desk);
                Ok(())
            }
            Err(Stop::Fault(wrong)) => {
                holdings.faults.insert(place);
                holdings.unreported_faults.push(place);
                Err(Stop::Fault(wrong))
            }
            Err(other) => return Err(other),
        };
        let all = holdings.held.len() + holdings.faults.len() == self.lineup.count as usize;
        let enough = round.asked.begin.enough == Some(holdings.held.len() as u32);
        let full = holdings.unreported.len() + holdings.unreported_faults.len() >= MOST_HELD;
        let patience = desk.now.0.saturating_sub(round.asked.since.0) / BATCH_PART;
        let due = *holdings.due.get_or_insert(desk.now.plus_millis(patience.max(BATCH_MILLIS)));
        if all || enough || full || desk.now >= due {
            self.report_held(rules, desk);
        }
        verdict
    }

    /// Reports to the first server what was not reported yet.
    pub(super) fn report_held(&mut self, rules: &Rules, desk: &mut MemberDesk<'_>) {
        let Some(round) = &mut self.round else { return };
        let holdings = &mut round.holdings;
        holdings.due = None;
        let held = std::mem::take(&mut holdings.unreported);
        let faults = std::mem::take(&mut holdings.unreported_faults);
        if held.is_empty() && faults.is_empty() {
            return;
        }
        let to = To::One(rules.first_server().clone());
        let message = round.pen(rules, desk.me).write(Kind::Held, to, round.asked.digest, &Held { held, faults });
        desk.out.send.push(message);
    }
}

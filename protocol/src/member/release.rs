//! The release: sums of masks over the one cohort that this member confirmed, sealed to the hospital.

use std::collections::BTreeMap;

use serde::Serialize;
use serde_bytes::ByteBuf;
use vectors::Lanes;

use super::hold::Holdings;
use super::total::Total;
use super::{Member, MemberDesk, Round, Stage};
use crate::desk::{Me, Stop, rule};
use crate::id::{Digest, Kind, Place, RoundNo, SessionId, To};
use crate::job::{Job, Outcome};
use crate::kdf;
use crate::message::{MaskSum, Open};
use crate::patient::Ticket as PatientTicket;
use crate::places::Places;
use crate::session::{Asked, Rules, read_confirms, sum_info};
use crate::step::Outgoing;
use crate::wire::{self, Frame};
use vectors::StreamKey;

/// The most Opens of a round that one member answers: a hospital asks others for what is missing once in a tenth of it.
const MOST_OPENS: usize = 10;

/// What a job of a member's was for.
#[derive(Clone, Debug)]
pub(crate) struct Ticket {
    round: RoundNo,
    work: Work,
}

#[derive(Clone, Debug)]
enum Work {
    /// Adding masks to the sum over these blocks.
    Expand(Vec<u16>),
    /// Sealing the answer to this Open.
    Seal(Digest),
    /// Adding masks for this Check: which of its sums.
    Vouch(Digest, usize),
    /// Sealing the answer to this Check.
    SealCheck(Digest),
}

/// The sums of one round, by the blocks that they are over, and the Opens that ask for them.
#[derive(Debug, Default)]
pub(super) struct Releases {
    totals: BTreeMap<Vec<u16>, Total>,
    /// Which blocks each Open asks for; none any more once its answer is being sealed.
    opens: BTreeMap<Digest, Option<Vec<u16>>>,
}

impl Releases {
    /// The sums of a round in which this member, at `seat`, will be asked by default if all confirm: they are made ahead.
    pub(super) fn ahead(asked: &Asked, seat: u8, rules: &Rules) -> Self {
        let sharing = rules.announce.sharing;
        let everybody: Vec<u8> = (0..sharing.committee()).collect();
        let senders = sharing.default_senders(&everybody, asked.round.0).into_iter();
        let mine = senders.filter(|(sender, _)| *sender == seat).map(|(_, blocks)| (blocks, Total::new(asked.chunks)));
        Self { totals: mine.collect(), opens: BTreeMap::new() }
    }

    /// Takes what an Open asks for. The answer is as long as the vector, and is kept to the round's end: without a bound on
    /// how many there are a hospital could fill this member's memory.
    fn ask(&mut self, open: Digest, blocks: &[u16]) -> Result<(), Stop> {
        if self.opens.len() >= MOST_OPENS {
            return Err(rule("more Opens of one member than an honest hospital sends in a round"));
        }
        self.opens.insert(open, Some(blocks.to_vec()));
        Ok(())
    }

    /// The seeds of `place` are held: its masks are added to what is made ahead.
    pub(super) fn hold(&mut self, place: Place, holdings: &Holdings) -> Vec<(Vec<u16>, Job)> {
        let add = |(blocks, total): (&Vec<u16>, &mut Total)| {
            for_blocks(blocks, total.add(place, &|place| keys(holdings, place, blocks)))
        };
        self.totals.iter_mut().flat_map(add).collect()
    }

    /// The cohort is confirmed: what was made ahead is made to fit it.
    pub(super) fn fit(&mut self, cohort: &Places, holdings: &Holdings) -> Vec<(Vec<u16>, Job)> {
        let fit = |(blocks, total): (&Vec<u16>, &mut Total)| {
            for_blocks(blocks, total.fit(cohort, &|place| keys(holdings, place, blocks)))
        };
        self.totals.iter_mut().flat_map(fit).collect()
    }

    /// The sums that are done and asked for: by which Opens, as several may ask for the same, and over which blocks.
    fn take_done(&mut self) -> Vec<(Vec<Digest>, Vec<u16>, Vec<Lanes>)> {
        let mut asked: BTreeMap<Vec<u16>, Vec<Digest>> = BTreeMap::new();
        for (open, wanted) in &mut self.opens {
            let done = |blocks: &mut Vec<u16>| self.totals.get(blocks).is_some_and(Total::is_done);
            if let Some(blocks) = wanted.take_if(done) {
                asked.entry(blocks).or_default().push(*open);
            }
        }
        let sums = asked.into_iter().filter_map(|(blocks, opens)| {
            let total = self.totals.remove(&blocks)?;
            Some((opens, blocks, total.into_sums()))
        });
        sums.collect()
    }
}

/// Jobs, each with the blocks whose sum it is for.
fn for_blocks(blocks: &[u16], jobs: impl IntoIterator<Item = Job>) -> Vec<(Vec<u16>, Job)> {
    jobs.into_iter().map(|job| (blocks.to_vec(), job)).collect()
}

/// The stream keys of `place` for `blocks`.
fn keys(holdings: &Holdings, place: Place, blocks: &[u16]) -> Vec<StreamKey> {
    blocks.iter().filter_map(|block| holdings.stream_key(place, *block)).collect()
}

/// Starts jobs that add masks.
pub(super) fn run(jobs: Vec<(Vec<u16>, Job)>, session: SessionId, round: RoundNo, desk: &mut MemberDesk<'_>) {
    for (blocks, job) in jobs {
        let ticket = Ticket { round, work: Work::Expand(blocks) };
        desk.run(PatientTicket::Member(session, ticket), job);
    }
}

/// Starts the job that makes sum `at` of a Check.
pub(super) fn run_check(
    (check, at): (Digest, usize),
    job: Job,
    session: SessionId,
    round: RoundNo,
    desk: &mut MemberDesk<'_>,
) {
    desk.run(PatientTicket::Member(session, Ticket { round, work: Work::Vouch(check, at) }), job);
}

/// Starts the job that seals the answer to a Check.
pub(super) fn run_seal_check(check: Digest, job: Job, session: SessionId, round: RoundNo, desk: &mut MemberDesk<'_>) {
    desk.run(PatientTicket::Member(session, Ticket { round, work: Work::SealCheck(check) }), job);
}

impl Member {
    pub(super) fn on_open(&mut self, frame: &Frame, rules: &Rules, desk: &mut MemberDesk<'_>) -> Result<(), Stop> {
        let (seat, lineup) = (self.seat, self.lineup.clone());
        let round = self.current(frame)?;
        frame.verify(&rules.hospital)?;
        let Stage::Confirmed(fixed) = &round.stage else { return Err(Stop::Early) };
        if frame.envelope.after != fixed.digest {
            // The hospital may be honest: the server may have shown it another Cohort.
            return Err(Stop::Useless("an Open of a cohort that this member did not confirm"));
        }
        if desk.now >= round.asked.ends() {
            return Err(Stop::Useless("the round is over"));
        }
        if round.releases.opens.contains_key(&frame.digest) {
            return Err(Stop::Useless("the open is known"));
        }
        let open: Open = frame.envelope.body()?;
        let seats = read_confirms(&open.confirms, fixed.digest, rules.session, round.asked.round, &lineup)?;
        if seats.len() < usize::from(rules.announce.sharing.quorum()) {
            return Err(rule("an Open with fewer than q Confirms"));
        }
        round.vouching.opens.insert(frame.digest);
        let Some((_, blocks)) = open.senders.into_iter().find(|(sender, _)| *sender == seat) else { return Ok(()) };
        check_blocks(&blocks, seat, rules)?;
        round.releases.ask(frame.digest, &blocks)?;
        // Other blocks than were expected: their sum is made now.
        let Round { asked, holdings, releases, .. } = round;
        let total = releases.totals.entry(blocks.clone()).or_insert_with(|| Total::new(asked.chunks));
        let jobs = total.fit(&fixed.cohort.places, &|place| keys(holdings, place, &blocks));
        run(for_blocks(&blocks, jobs), rules.session, asked.round, desk);
        self.seal_what_is_done(rules, desk);
        Ok(())
    }

    pub(crate) fn done(&mut self, ticket: Ticket, outcome: Outcome, rules: &Rules, desk: &mut MemberDesk<'_>) {
        if self.round.as_ref().is_none_or(|round| round.asked.round != ticket.round || desk.now >= round.asked.ends()) {
            return;
        }
        match (ticket.work, outcome) {
            (Work::Expand(blocks), Outcome::Expanded { chunk, sum }) => self.expanded(blocks, chunk, sum, rules, desk),
            (Work::Seal(open), Outcome::Sealed { encapsulation, pieces }) => {
                self.sealed(open, encapsulation, &pieces, rules, desk);
            }
            (Work::Vouch(check, at), Outcome::Expanded { sum, .. }) => self.vouched(check, at, sum, rules, desk),
            (Work::SealCheck(check), Outcome::Sealed { encapsulation, pieces }) => {
                self.sealed_check(check, encapsulation, &pieces, rules, desk);
            }
            _ => {}
        }
    }

    fn expanded(&mut self, blocks: Vec<u16>, chunk: u32, sum: Lanes, rules: &Rules, desk: &mut MemberDesk<'_>) {
        let Some(Round { asked, holdings, releases, .. }) = &mut self.round else { return };
        let Some(total) = releases.totals.get_mut(&blocks) else { return };
        let next = total.back(chunk, sum, &|place| keys(holdings, place, &blocks));
        run(for_blocks(&blocks, next), rules.session, asked.round, desk);
        self.seal_what_is_done(rules, desk);
    }

    /// Seals the sums that an Open asked for and that are done, of the cohort that was confirmed.
    fn seal_what_is_done(&mut self, rules: &Rules, desk: &mut MemberDesk<'_>) {
        let Some(Round { asked, root, releases, stage: Stage::Confirmed(fixed), .. }) = &mut self.round else { return };
        let mut jobs = Vec::new();
        for (opens, blocks, sums) in releases.take_done() {
            for (open, sums) in opens.iter().zip(std::iter::repeat_n(sums, opens.len())) {
                let job = Job::Seal {
                    to: rules.announce.seal_key.clone(),
                    info: sum_info(rules.session, asked.round, &desk.me.name, *open),
                    root: root.duplicate(),
                    blocks: wire::encode(&blocks),
                    sums,
                    ring: asked.begin.ring,
                };
                jobs.push((Ticket { round: asked.round, work: Work::Seal(*open) }, job));
            }
        }
        let cohort = fixed.digest;
        if !jobs.is_empty() {
            self.mark_released(cohort, rules, desk);
        }
        for (ticket, job) in jobs {
            desk.run(PatientTicket::Member(rules.session, ticket), job);
        }
    }

    pub(super) fn mark_released(&mut self, cohort: Digest, rules: &Rules, desk: &mut MemberDesk<'_>) {
        self.confirms.release(cohort);
        self.save_confirmed(rules, desk);
    }

    fn sealed(
        &mut self,
        open: Digest,
        encapsulation: Vec<u8>,
        pieces: &[bytes::Bytes],
        rules: &Rules,
        desk: &mut MemberDesk<'_>,
    ) {
        let Some(round) = &self.round else { return };
        // What fits one message rides in it; the pieces of a long sum follow as chunks.
        let rides = if pieces.len() == 2 { 2 } else { 1 };
        let sum = |pieces| MaskSum { encapsulation: ByteBuf::from(encapsulation), pieces };
        let sends = round.sealed((Kind::MaskSum, open), sum, pieces, rides, rules, desk.me);
        desk.out.send.extend(sends);
    }
}

impl Round {
    /// What was sealed for the hospital: a message of this kind after `after`, whose body names all pieces, with the first
    /// `rides` of them attached; the others follow as chunks.
    pub(super) fn sealed<B: Serialize>(
        &self,
        (kind, after): (Kind, Digest),
        body: impl FnOnce(Vec<Digest>) -> B,
        pieces: &[bytes::Bytes],
        rides: usize,
        rules: &Rules,
        me: &Me,
    ) -> Vec<Outgoing> {
        let digests: Vec<Digest> = pieces.iter().map(|piece| kdf::chunk_digest(piece)).collect();
        let to = To::One(rules.hospital.name.clone());
        let pen = self.pen(rules, me);
        let signed = pen.sign(kind, to.clone(), after, &body(digests.clone()));
        let attached: Vec<_> = pieces.iter().take(rides).map(|piece| serde_bytes::Bytes::new(piece)).collect();
        let message = pen.post(kind, &signed, to.clone(), &wire::encode(&attached));
        let rest = digests.iter().zip(pieces).skip(rides);
        let chunks = rest.map(|(digest, piece)| pen.chunk(to.clone(), *digest, piece.clone()));
        std::iter::once(message).chain(chunks).collect()
    }
}

/// Whether these are different blocks that `seat` holds.
pub(super) fn check_blocks(blocks: &[u16], seat: u8, rules: &Rules) -> Result<(), Stop> {
    let held = |block: &u16| rules.blocks.get(usize::from(*block)).is_some_and(|block| !block.contains(seat));
    if blocks.is_sorted_by(|a, b| a < b) && !blocks.is_empty() && blocks.iter().all(held) {
        Ok(())
    } else {
        Err(rule("an Open or Check of blocks that stand twice, unsorted, or that this member does not hold"))
    }
}

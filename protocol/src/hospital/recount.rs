//! The masked sum once more (PROTOCOL.md, *Checks*): the hospital reads what the cohort shared from the board, checks
//! it against the patients' signatures and adds it up itself. It learns nothing by it: every vector is masked.

use std::collections::{BTreeMap, VecDeque};

use bytes::Bytes;
use vectors::Lanes;

use super::chunk_names::Names;
use super::{HospitalDesk, Ticket, Work};
use crate::chunks::{Chunks, read_window};
use crate::desk::Stop;
use crate::error::AbortReason;
use crate::id::{Address, Digest, Kind, MessageName, Name, Place, RoundNo, SessionId, To};
use crate::job::Job;
use crate::message::{Share, ShareCore};
use crate::session::{Asked, Fixed, Joined, Rules};
use crate::shards::Shard;
use crate::slot::Slot;
use crate::wire::Frame;

/// A patient of the cohort.
#[derive(Debug)]
struct Sharer {
    place: Place,
    patient: Name,
    share: Digest,
    /// Under which name its Share stands for the first server.
    name: MessageName,
    /// The digests of its chunks, once the Share is read.
    chunks: Vec<Digest>,
}

/// What is to be read: of which patient, counted among the cohort.
#[derive(Clone, Copy, Debug)]
enum Want {
    Share(usize),
    Chunk(usize, u32),
}

/// The sum of one chunk.
#[derive(Debug)]
struct Sum {
    slot: Slot<Bytes>,
    /// How many a job adds.
    lent: usize,
    added: usize,
    /// Its bytes and their digest, once all are in it.
    packed: Option<(Bytes, Digest)>,
}

/// The board did not give what this patient shared, or something else.
#[derive(Debug)]
pub(super) struct Lost(pub(super) Name);

impl From<Lost> for AbortReason {
    fn from(Lost(patient): Lost) -> Self {
        AbortReason::CheckLost { patient }
    }
}

/// The hospital's own sum of the masked vectors, of as many chunks as are drawn.
#[derive(Debug)]
pub(super) struct Recount {
    session: SessionId,
    round: RoundNo,
    begin: Digest,
    servers: Vec<Name>,
    chunks: Chunks,
    sharers: Vec<Sharer>,
    /// By server.
    names: Vec<Names>,
    queue: VecDeque<Want>,
    reading: BTreeMap<Address, Want>,
    /// How many messages are being read, or are read and not yet added.
    busy: usize,
    /// How many Shares are not read yet: chunks are read after them, as they name them.
    unread: usize,
    sums: BTreeMap<u32, Sum>,
}

impl Recount {
    /// Of the cohort `fixed`, whose Shares are these. A vector of one chunk rides in its Share, and is always added.
    pub(super) fn new(
        rules: &Rules,
        asked: &Asked,
        fixed: &Fixed,
        shares: Vec<(Digest, MessageName)>,
        joined: &[Joined],
    ) -> Self {
        let sharer = |(place, (share, name)): (Place, (Digest, MessageName))| {
            let patient = joined.get(place.0 as usize)?.name().clone();
            Some(Sharer { place, patient, share, name, chunks: Vec::new() })
        };
        let sharers: Vec<Sharer> = fixed.places().zip(shares).filter_map(sharer).collect();
        let servers = rules.announce.servers.clone();
        let single = asked.chunks.count() == 1;
        let part = |shard: Shard| if single { 0 } else { shard.count(&asked.chunks) * sharers.len() };
        let mut recount = Self {
            session: rules.session,
            round: asked.round,
            begin: asked.digest,
            chunks: asked.chunks,
            names: Shard::all(servers.len()).map(|shard| Names::new(part(shard))).collect(),
            queue: (0..sharers.len()).map(Want::Share).collect(),
            reading: BTreeMap::new(),
            busy: 0,
            unread: sharers.len(),
            sums: BTreeMap::new(),
            servers,
            sharers,
        };
        if single {
            recount.begin_sum(0);
        }
        recount
    }

    fn begin_sum(&mut self, chunk: u32) {
        let slot = Slot::zero(&self.chunks, chunk);
        self.sums.insert(chunk, Sum { slot, lent: 0, added: 0, packed: None });
    }

    /// Takes the names that came with a server's MaskedSum.
    pub(super) fn take_names(&mut self, server: usize, attachment: &[u8]) -> Result<(), Stop> {
        match self.names.get_mut(server) {
            Some(names) => names.take(attachment),
            None => Ok(()),
        }
    }

    /// The servers that did not say yet where their chunks stand.
    pub(super) fn nameless(&self) -> impl Iterator<Item = usize> + '_ {
        self.names.iter().enumerate().filter(|(_, names)| !names.is_whole()).map(|(server, _)| server)
    }

    /// Adds these chunks too.
    pub(super) fn draw(&mut self, chunks: impl IntoIterator<Item = u32>) {
        for chunk in chunks {
            if !self.sums.contains_key(&chunk) {
                self.begin_sum(chunk);
                self.queue.extend((0..self.sharers.len()).map(|at| Want::Chunk(at, chunk)));
            }
        }
    }

    /// How many chunks are added, or being added.
    pub(super) fn count(&self) -> u32 {
        self.sums.len() as u32
    }

    /// Whether every chunk that was drawn is added.
    pub(super) fn is_done(&self) -> bool {
        self.sums.values().all(|sum| sum.packed.is_some())
    }

    /// The chunks that are added: their words and digests.
    pub(super) fn added(&self) -> impl Iterator<Item = (u32, &Bytes, Digest)> {
        self.sums.iter().filter_map(|(chunk, sum)| {
            let (bytes, digest) = sum.packed.as_ref()?;
            Some((*chunk, bytes, *digest))
        })
    }

    /// Asks for what comes next.
    pub(super) fn read_on(&mut self, desk: &mut HospitalDesk<'_>) -> Result<(), Lost> {
        while self.busy < self.window() {
            let Some(want) = self.queue.front().copied() else { return Ok(()) };
            if matches!(want, Want::Chunk(..)) && self.unread > 0 {
                return Ok(());
            }
            self.queue.pop_front();
            let address = self.address(want).ok_or_else(|| self.lost(want))?;
            desk.out.read.push(address.clone());
            self.reading.insert(address, want);
            self.busy += 1;
        }
        Ok(())
    }

    /// How many messages are read at a time: Shares, which name the chunks of a vector or are all of it, and then chunks.
    fn window(&self) -> usize {
        let digests = self.chunks.count() as usize * size_of::<Digest>();
        let bytes = if self.unread > 0 && self.chunks.count() > 1 { digests } else { self.chunks.bytes(0) };
        read_window(bytes)
    }

    fn lost(&self, want: Want) -> Lost {
        let (Want::Share(at) | Want::Chunk(at, _)) = want;
        Lost(self.sharers[at].patient.clone())
    }

    /// Where it stands on the board.
    fn address(&self, want: Want) -> Option<Address> {
        let (at, server, kind, name) = match want {
            Want::Share(at) => (at, 0, Kind::Share, self.sharers[at].name),
            Want::Chunk(at, chunk) => {
                let (server, before) = (chunk as usize % self.servers.len(), chunk as usize / self.servers.len());
                (at, server, Kind::Chunk, self.names.get(server)?.get(before * self.sharers.len() + at)?)
            }
        };
        let (from, to) = (self.sharers[at].patient.clone(), To::One(self.servers.get(server)?.clone()));
        Some(Address { session: self.session.into(), round: self.round, from, to, kind, name })
    }

    /// What was asked for came, or is not there.
    pub(super) fn read(
        &mut self,
        address: &Address,
        payload: Option<Bytes>,
        joined: &[Joined],
        desk: &mut HospitalDesk<'_>,
    ) -> Result<(), Lost> {
        let Some(want) = self.reading.remove(address) else { return Ok(()) };
        let Some(payload) = payload else { return Err(self.lost(want)) };
        match want {
            Want::Share(at) => {
                let (frame, core) = self.open(at, &payload, joined).ok_or_else(|| self.lost(want))?;
                self.sharers[at].chunks = core.chunks;
                self.unread -= 1;
                if self.chunks.count() == 1 {
                    self.identify(at, 0, frame.attachment, desk);
                } else {
                    self.busy -= 1;
                }
            }
            Want::Chunk(at, chunk) => self.identify(at, chunk, payload, desk),
        }
        self.read_on(desk)
    }

    /// The Share, if it is the one that the cohort's root commits to, and its patient signed it.
    fn open(&self, at: usize, payload: &Bytes, joined: &[Joined]) -> Option<(Frame, ShareCore)> {
        let sharer = &self.sharers[at];
        let frame = Frame::decode(payload).ok()?;
        frame.verify(&joined.get(sharer.place.0 as usize)?.identity).ok()?;
        let core = frame.envelope.body::<Share>().ok()?.open_core()?;
        let is_it = frame.digest == sharer.share
            && frame.envelope.kind == Kind::Share
            && frame.envelope.after == self.begin
            && core.chunks.len() == self.chunks.count() as usize;
        is_it.then_some((frame, core))
    }

    fn identify(&self, at: usize, chunk: u32, bytes: Bytes, desk: &mut HospitalDesk<'_>) {
        self.run(Work::Read { at, chunk }, Job::Identify { bytes }, desk);
    }

    fn run(&self, work: Work, job: Job, desk: &mut HospitalDesk<'_>) {
        desk.run(Ticket { session: self.session, round: self.round, work }, job);
    }

    /// A chunk was hashed: it is added if it is what its patient signed.
    pub(super) fn identified(
        &mut self,
        (at, chunk): (usize, u32),
        bytes: Bytes,
        digest: Digest,
        desk: &mut HospitalDesk<'_>,
    ) -> Result<(), Lost> {
        let named = self.sharers[at].chunks.get(chunk as usize) == Some(&digest);
        if !named || bytes.len() != self.chunks.bytes(chunk) {
            return Err(self.lost(Want::Chunk(at, chunk)));
        }
        if let Some(sum) = self.sums.get_mut(&chunk) {
            sum.slot.waiting.push(bytes);
        }
        self.add(chunk, desk);
        Ok(())
    }

    /// Adds what waits, or packs the sum once all are in it.
    fn add(&mut self, chunk: u32, desk: &mut HospitalDesk<'_>) {
        let (ring, all) = (self.chunks.ring(), self.sharers.len());
        let Some(sum) = self.sums.get_mut(&chunk) else { return };
        let job = if let Some((lanes, add)) = sum.slot.lend() {
            sum.lent = add.len();
            Job::Fold { at: chunk as usize, sum: lanes, ring, add, subtract: Vec::new() }
        } else if sum.added == all
            && let Some(lanes) = sum.slot.take()
        {
            Job::Pack { sums: vec![lanes], ring }
        } else {
            return;
        };
        self.run(Work::Again { chunk }, job, desk);
    }

    /// A job brought a chunk's sum back.
    pub(super) fn folded(&mut self, chunk: u32, lanes: Lanes, desk: &mut HospitalDesk<'_>) -> Result<(), Lost> {
        if let Some(sum) = self.sums.get_mut(&chunk) {
            sum.slot.back(lanes);
            let count = std::mem::take(&mut sum.lent);
            sum.added += count;
            self.busy -= count;
        }
        self.add(chunk, desk);
        self.read_on(desk)
    }

    /// A chunk's sum is whole and packed.
    pub(super) fn packed(&mut self, chunk: u32, bytes: Bytes, digest: Digest) {
        if let Some(sum) = self.sums.get_mut(&chunk) {
            sum.packed = Some((bytes, digest));
        }
    }
}

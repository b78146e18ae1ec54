//! Plain rounds: the same vectors as float32, over the same board, in the same chunks.

use std::collections::BTreeMap;

use anyhow::Context as _;
use bytes::Bytes;
use futures::FutureExt as _;
use futures::future::try_join_all;
use nats::{Board, Delivery, Inbox};
use protocol::{Address, Chunks, Kind, MessageName, Name, Outgoing, RoundNo, SessionTag, To, read_window};

use super::data;
use super::setting::Setting;
use crate::mailer::Mailer;

/// Whose subjects plain rounds use: no session's.
pub const SESSION: SessionTag = SessionTag(*b"plain rounds ...");

/// The most messages that are added before they are acknowledged.
const GROUP: usize = 256;

/// The place of a chunk on the board.
fn address(round: u32, from: &Name, to: &Name, chunk: u32) -> Address {
    let mut name = [0; 16];
    name[..4].copy_from_slice(&chunk.to_le_bytes());
    Address {
        session: SESSION,
        round: RoundNo(round),
        from: from.clone(),
        to: To::One(to.clone()),
        kind: Kind::Chunk,
        name: MessageName(name),
    }
}

/// Which chunk stands there.
fn chunk_of(address: &Address) -> u32 {
    let [a, b, c, d, ..] = address.name.0;
    u32::from_le_bytes([a, b, c, d])
}

/// What the patient at `index` sends in `round`: its vector, or the first half of it where it drops.
pub fn upload(setting: &Setting, index: usize, round: u32) -> Vec<Outgoing> {
    let from = &setting.patients[index];
    let vector = data::vector(setting, index, round);
    let count = setting.plain.count();
    let sent = if index < setting.staying() { count } else { count / 2 };
    let chunk = |chunk: u32| {
        let start = setting.plain.start(chunk) as usize;
        let part = &vector[start..start + setting.plain.len(chunk)];
        let payload: Vec<u8> = part.iter().flat_map(|value| value.to_le_bytes()).collect();
        let to = &setting.adders[chunk as usize % setting.adders.len()];
        Outgoing { address: address(round, from, to, chunk), payload: payload.into(), report: false }
    };
    (0..sent).map(chunk).collect()
}

/// A server of plain rounds: it adds chunks as they come and keeps only where they stand.
pub struct Adder {
    setting: Setting,
    index: usize,
    board: Board,
    inbox: Inbox,
    mailer: Mailer,
    sum: Sum,
}

/// The sum of one round, over one server's chunks.
struct Sum {
    round: u32,
    chunks: BTreeMap<u32, Vec<f32>>,
    came: BTreeMap<Name, Vec<Address>>,
    whole: usize,
}

impl Sum {
    fn new(round: u32, mine: impl Iterator<Item = u32>, plain: &Chunks) -> Self {
        let chunks = mine.map(|chunk| (chunk, vec![0.0; plain.len(chunk)])).collect();
        Self { round, chunks, came: BTreeMap::new(), whole: 0 }
    }

    fn add(&mut self, address: Address, payload: &[u8]) {
        let Some(sum) = self.chunks.get_mut(&chunk_of(&address)) else { return };
        floats(payload).zip(sum).for_each(|(value, sum)| *sum += value);
        let came = self.came.entry(address.from.clone()).or_default();
        came.push(address);
        self.whole += usize::from(came.len() == self.chunks.len());
    }

    fn take_out(&mut self, address: &Address, payload: &[u8]) {
        let Some(sum) = self.chunks.get_mut(&chunk_of(address)) else { return };
        floats(payload).zip(sum).for_each(|(value, sum)| *sum -= value);
    }
}

/// The values of a chunk.
fn floats(payload: &[u8]) -> impl Iterator<Item = f32> {
    payload.as_chunks().0.iter().map(|word| f32::from_le_bytes(*word))
}

impl Adder {
    /// The server at `index`, which follows `board` from now on.
    ///
    /// # Errors
    /// If the broker forbids it.
    pub async fn new(setting: Setting, index: usize, board: Board) -> anyhow::Result<Self> {
        let (inbox, mailer) = (board.follow().await?, Mailer::alone(board.clone()));
        let sum = Sum::new(0, std::iter::empty(), &setting.plain);
        Ok(Self { setting, index, board, inbox, mailer, sum })
    }

    /// Adds, round after round.
    ///
    /// # Errors
    /// If the board fails.
    pub async fn serve(mut self) -> anyhow::Result<()> {
        loop {
            let mut next = Some(self.inbox.next().await?);
            let mut last: Option<Delivery> = None;
            let mut taken = 0;
            while let Some(delivery) = next {
                if delivery.address.session == SESSION {
                    self.take(delivery.address.clone(), &delivery.payload).await?;
                }
                last = Some(delivery);
                taken += 1;
                next = if taken < GROUP { self.inbox.next().now_or_never().transpose()? } else { None };
            }
            if let Some(delivery) = last {
                delivery.ack().await;
            }
        }
    }

    async fn take(&mut self, address: Address, payload: &[u8]) -> anyhow::Result<()> {
        let round = address.round.0;
        if round > self.sum.round {
            let mine = (self.index as u32..self.setting.plain.count()).step_by(self.setting.adders.len());
            self.sum = Sum::new(round, mine, &self.setting.plain);
        }
        // What comes once the sum is sent is too late.
        if round < self.sum.round || self.sum.whole == self.setting.staying() {
            return Ok(());
        }
        self.sum.add(address, payload);
        if self.sum.whole == self.setting.staying() { self.send().await } else { Ok(()) }
    }

    /// Takes out what came of patients that dropped, and sends the sum.
    async fn send(&mut self) -> anyhow::Result<()> {
        let part = self.sum.chunks.len();
        let dropped: Vec<Address> =
            self.sum.came.values().filter(|came| came.len() < part).flatten().cloned().collect();
        for some in dropped.chunks(read_window(self.setting.plain.bytes(0))) {
            let read = try_join_all(some.iter().map(|address| self.board.read(address))).await?;
            for (address, payload) in some.iter().zip(read) {
                self.sum.take_out(address, &payload.context("the board has lost a chunk")?);
            }
        }
        let me = &self.setting.adders[self.index];
        for (chunk, sum) in &self.sum.chunks {
            let payload: Vec<u8> = sum.iter().flat_map(|value| value.to_le_bytes()).collect();
            let address = address(self.sum.round, me, &self.setting.receiver, *chunk);
            self.mailer.send(Outgoing { address, payload: payload.into(), report: false })?;
        }
        Ok(())
    }
}

/// The sum of the newest plain round on its way to the hospital: it may be here before it is waited for.
#[derive(Default)]
pub struct Arriving {
    round: RoundNo,
    chunks: BTreeMap<u32, Bytes>,
}

impl Arriving {
    /// Takes a piece of a sum.
    pub fn take(&mut self, delivery: &Delivery) {
        let address = &delivery.address;
        if address.session != SESSION || address.round < self.round {
            return;
        }
        if address.round > self.round {
            *self = Self { round: address.round, chunks: BTreeMap::new() };
        }
        self.chunks.insert(chunk_of(address), delivery.payload.clone());
    }

    /// Whether all of the sum of `round` is here.
    pub fn is_whole(&self, round: u32, plain: &Chunks) -> bool {
        self.round == RoundNo(round) && self.chunks.len() == plain.count() as usize
    }

    /// The coordinates.
    pub fn values(&self) -> impl Iterator<Item = f32> {
        self.chunks.values().flat_map(|chunk| floats(chunk))
    }
}

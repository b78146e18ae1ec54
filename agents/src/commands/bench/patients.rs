//! The patients of a bench: many in one process, each with its own certificate, connection and state.

use std::collections::BTreeMap;
use std::sync::Arc;

use anyhow::Context as _;
use futures::future::{select_all, try_join_all};
use protocol::{Address, Effects, Event, Input, Kind, Moment, Outgoing, Patient, Record, RoundNo, To};
use tokio::io::{AsyncBufReadExt as _, BufReader};
use tokio::sync::{mpsc, oneshot};
use tokio::task::JoinHandle;

use super::orders::{Order, Said, say};
use super::setting::{Setting, label};
use super::{data, plain};
use crate::cli::BenchRole;
use crate::connect::{self, connect};
use crate::driver::{Driver, Machine};
use crate::home::Home;
use crate::mailer::Mailer;
use crate::store::Store;

/// A patient that may stop in the middle of its uploads, and whose bytes are counted.
struct Uploader {
    patient: Patient,
    fate: Fate,
    setting: Arc<Setting>,
    /// In Shares and chunks since the last look.
    bytes: u64,
}

/// What becomes of an upload.
#[derive(Clone, Copy)]
enum Fate {
    /// All of it is sent.
    Whole,
    /// It ends in the middle: of a vector of one chunk nothing is sent.
    Cut { single: bool },
}

impl Uploader {
    /// Whether this is part of a patient's upload; a member's chunks go to the hospital.
    fn is_upload(&self, address: &Address) -> bool {
        let to_server = matches!(&address.to, To::One(name) if self.setting.servers.contains(name));
        address.kind == Kind::Share || address.kind == Kind::Chunk && to_server
    }

    fn cut(&self, send: &mut Vec<Outgoing>) {
        let Fate::Cut { single } = self.fate else { return };
        // What one server gets comes in one piece.
        let mut left = send.iter().filter(|outgoing| outgoing.address.kind == Kind::Chunk).count() / 2;
        send.retain(|outgoing| match outgoing.address.kind {
            Kind::Share => !single,
            Kind::Chunk if left == 0 => false,
            Kind::Chunk => {
                left -= 1;
                true
            }
            _ => true,
        });
    }
}

impl Machine for Uploader {
    fn handle(&mut self, moment: &Moment, input: Input) -> Effects {
        let mut effects = self.patient.handle(moment, input);
        self.cut(&mut effects.send);
        let up = effects.send.iter().filter(|outgoing| self.is_upload(&outgoing.address));
        self.bytes += up.map(|outgoing| outgoing.payload.len() as u64).sum::<u64>();
        effects
    }
}

/// An order, and where to say that it is carried out and how many bytes went up.
type Task = (Order, oneshot::Sender<u64>);

/// Plays the patients of `role` until the bench ends.
///
/// # Errors
/// If store or broker do not let it.
pub async fn play(home: &Home, way: &connect::Way, setting: Setting, role: BenchRole) -> anyhow::Result<()> {
    let part = setting.part(role);
    let store = Store::open(&home.path().join(format!("{role:?}.redb").to_lowercase()))?;
    let setting = Arc::new(setting);
    let agents = part.clone().map(|index| Agent::start(home, way, &setting, index, store.clone()));
    let (mut desks, mut running) = (Vec::new(), Vec::new());
    for agent in try_join_all(agents).await? {
        let (desk, tasks) = mpsc::unbounded_channel();
        desks.push(desk);
        running.push(tokio::spawn(agent.serve(tasks)));
    }
    say(Said::Ready)?;
    let staying = part.filter(|index| *index < setting.staying()).count().max(1) as u64;
    let mut orders = BufReader::new(tokio::io::stdin()).lines();
    loop {
        let line = tokio::select! {
            line = orders.next_line() => line?,
            (ended, ..) = select_all(&mut running) => return ended?,
        };
        let Some(line) = line else { return Ok(()) };
        let bytes = pass_on(serde_json::from_str(&line)?, &desks, &mut running).await?;
        say(Said::Done { bytes: bytes / staying })?;
    }
}

/// Gives an order to all and waits until it is carried out; how many bytes went up.
async fn pass_on(
    order: Order,
    desks: &[mpsc::UnboundedSender<Task>],
    running: &mut [JoinHandle<anyhow::Result<()>>],
) -> anyhow::Result<u64> {
    let mut answers = Vec::new();
    for desk in desks {
        let (done, answer) = oneshot::channel();
        // One that ended says why below.
        let _ = desk.send((order, done));
        answers.push(answer);
    }
    tokio::select! {
        (ended, ..) = select_all(running) => ended?.and(Err(anyhow::anyhow!("a patient ended"))),
        answers = try_join_all(answers) => Ok(answers.context("a patient ended")?.iter().sum()),
    }
}

/// One patient at work.
struct Agent {
    setting: Arc<Setting>,
    index: usize,
    driver: Driver<Uploader>,
    mailer: Mailer,
    /// What it sends in the next plain round.
    upload: Vec<Outgoing>,
    /// The last round that is over.
    over: RoundNo,
}

impl Agent {
    async fn start(
        home: &Home,
        way: &connect::Way,
        setting: &Arc<Setting>,
        index: usize,
        store: Store,
    ) -> anyhow::Result<Self> {
        let name = setting.patients[index].clone();
        let credentials = home.credentials(&name)?;
        let patient = Patient::new(credentials.me(), setting.policy(&home.study()?), setting.schema());
        let whole = index < setting.staying();
        let fate = if whole { Fate::Whole } else { Fate::Cut { single: setting.chunks.count() == 1 } };
        let board = connect(home, way, &credentials).await?;
        let mailer = Mailer::alone(board.clone());
        let driver =
            Driver::new(name, Uploader { patient, fate, setting: setting.clone(), bytes: 0 }, board, store).await?;
        Ok(Self { setting: setting.clone(), index, driver, mailer, upload: Vec::new(), over: RoundNo::SETUP })
    }

    async fn serve(mut self, mut tasks: mpsc::UnboundedReceiver<Task>) -> anyhow::Result<()> {
        loop {
            tokio::select! {
                ready = self.driver.ready() => {
                    let events = self.driver.take(ready?).await?;
                    self.note(&events);
                }
                task = tasks.recv() => {
                    let Some((order, done)) = task else { return Ok(()) };
                    let bytes = self.obey(order).await?;
                    // The process waits for it, or is about to end.
                    let _ = done.send(bytes);
                }
            }
        }
    }

    fn note(&mut self, events: &[Event]) {
        for event in events {
            if let Event::Receipt { round, .. } | Event::Aborted { round, .. } = event {
                self.over = *round;
            }
        }
    }

    async fn obey(&mut self, order: Order) -> anyhow::Result<u64> {
        match order {
            Order::LoadPlain(round) => self.upload = plain::upload(&self.setting, self.index, round),
            Order::SendPlain => {
                for outgoing in self.upload.drain(..) {
                    self.mailer.send(outgoing)?;
                }
                self.mailer.flush().await?;
            }
            Order::LoadSecure(round) => self.offer(round).await?,
            Order::Forget(round) => return self.forget(round).await,
            Order::AwaitPlain(_) | Order::Ask(_) => anyhow::bail!("{order:?} is no order for a patient"),
        }
        Ok(0)
    }

    /// Offers data. Their values are not stored: gigabytes of them would measure the disk, and a bench never resumes.
    async fn offer(&mut self, round: u32) -> anyhow::Result<()> {
        let values = self.setting.quantize(&data::vector(&self.setting, self.index, round))?;
        let columns = BTreeMap::from([("x".to_string(), values)]);
        let (label, record) = (label(round)?, Record::new(columns, &self.setting.schema())?);
        let offer = |uploader: &mut Uploader, moment: &Moment| {
            let mut effects = uploader.patient.offer(label, record, moment)?;
            effects.store.retain(|write| !write.key.starts_with("values/"));
            anyhow::Ok(effects)
        };
        self.driver.apply(offer).await.map(drop)
    }

    async fn forget(&mut self, round: u32) -> anyhow::Result<u64> {
        while self.over.0 < round {
            let ready = self.driver.ready().await?;
            let events = self.driver.take(ready).await?;
            self.note(&events);
        }
        let label = label(round)?;
        self.driver.apply(|uploader, _| anyhow::Ok(uploader.patient.withdraw(&label))).await?;
        let bytes = std::mem::take(&mut self.driver.machine.bytes);
        Ok(if self.index < self.setting.staying() { bytes } else { 0 })
    }
}

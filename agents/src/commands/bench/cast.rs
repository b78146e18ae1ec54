//! The processes of a bench and what they use.

use std::time::{Duration, Instant};

use anyhow::Context as _;
use clap::ValueEnum as _;
use nats::{ConsumerNames, Operator};
use protocol::{RoundNo, SessionTag};
use tokio::io::{AsyncBufReadExt as _, BufReader, Lines};
use tokio::process::ChildStdout;

use super::orders::{Order, Said};
use super::plain;
use super::setting::Setting;
use crate::children::Process;
use crate::cli::{BenchRole, SizeArgs};
use crate::connect::{Way, connect};
use crate::home::Home;
use crate::spent;

/// How often it is looked whether the broker is ready, or asked again after it was busy.
const LOOK: Duration = Duration::from_millis(20);

/// A process that takes orders.
struct Player {
    process: Process,
    answers: Lines<BufReader<ChildStdout>>,
}

impl Player {
    async fn start(home: &Home, role: BenchRole, index: usize, size: &SizeArgs) -> anyhow::Result<Self> {
        let word = role.to_possible_value().map(|value| value.get_name().to_string()).unwrap_or_default();
        let mut args = vec!["bench-role".to_string(), word.clone(), format!("--index={index}")];
        args.push(format!("--patients={}", size.patients));
        args.push(format!("--dim={}", size.dim));
        args.push(format!("--ring={}", size.ring.bits()));
        args.push(format!("--drop={}", size.drop));
        args.push(format!("--committee={}", size.committee));
        args.push(format!("--threshold={}", size.threshold));
        args.push(format!("--servers={}", size.servers));
        args.push(format!("--audit={}", size.audit));
        let mut process = Process::start(home, &format!("{word}-{index}"), &args, None).await?;
        let stdout = process.stdout().context("a child without standard output")?;
        Ok(Self { process, answers: BufReader::new(stdout).lines() })
    }

    async fn order(&mut self, order: Order) -> anyhow::Result<()> {
        Ok(self.process.say(&serde_json::to_string(&order)?).await?)
    }

    async fn answer(&mut self) -> anyhow::Result<Said> {
        match self.answers.next_line().await? {
            Some(line) => Ok(serde_json::from_str(&line)?),
            None => {
                self.process.ended().await?;
                anyhow::bail!("{}: {}", self.process.what, self.process.last_words())
            }
        }
    }

    async fn ready(&mut self) -> anyhow::Result<()> {
        let said = self.answer().await?;
        anyhow::ensure!(said == Said::Ready, "{} said {said:?}", self.process.what);
        Ok(())
    }

    /// Waits until an order is carried out; how many bytes each patient sent.
    async fn done(&mut self) -> anyhow::Result<u64> {
        match self.answer().await? {
            Said::Done { bytes } => Ok(bytes),
            said => anyhow::bail!("{} said {said:?}", self.process.what),
        }
    }
}

/// The roles whose use is told apart, as people read them.
pub const ROLES: [&str; 5] = ["broker", "server", "patients", "members", "hospital"];

/// What one round took.
#[derive(Clone, Copy, Debug, Default)]
pub struct Sample {
    /// From the order to the sum at the hospital.
    pub seconds: f64,
    /// secure: until the hospital had the cohort.
    pub fixed: f64,
    /// secure: until it had the members' last Confirm.
    pub confirmed: f64,
    /// When all sums were in: the checks take the rest.
    pub summed: f64,
    /// Processor time by role, in seconds.
    pub cpu: [f64; ROLES.len()],
    /// The most memory of one process by role, in MiB.
    pub peak: [u64; ROLES.len()],
    /// Over so many patients.
    pub cohort: u32,
    /// What a patient sent.
    pub bytes: u64,
}

/// Starts the broker of `home`: `ward broker`, and the numbers of its processes, the last that of nats-server.
///
/// # Errors
/// What it says if it does not start.
pub async fn start_broker(home: &Home) -> anyhow::Result<(Process, Vec<u32>)> {
    let mut broker = Process::start(home, "broker", &["broker".to_string()], None).await?;
    while home.broker_address()?.is_none() {
        tokio::select! {
            ended = broker_ended(&mut broker) => ended?,
            () = tokio::time::sleep(LOOK) => {}
        }
    }
    let nats = std::fs::read_to_string(home.broker_dir().join("nats-server.pid"))?;
    let pids = broker.pid().into_iter().chain(nats.trim().parse().ok()).collect();
    Ok((broker, pids))
}

/// Returns when the broker ends, with what it said: all others would wait for it for ever. Cancel safe.
///
/// # Errors
/// Always.
pub async fn broker_ended(broker: &mut Process) -> anyhow::Result<()> {
    let status = broker.ended().await?;
    anyhow::bail!("broker ended ({status}): {}", broker.last_words())
}

/// All processes of a bench but the broker.
pub struct Cast {
    /// The broker's own process and that of nats-server.
    broker_pids: Vec<u32>,
    servers: Vec<Player>,
    /// The members and, where there are any, the others.
    patients: Vec<Player>,
    hospital: Player,
    operator: Operator,
    session: SessionTag,
}

impl Cast {
    /// Starts everybody over `home`, whose broker has these processes, and waits until the session stands.
    ///
    /// # Errors
    /// What a process says that does not start.
    pub async fn start(home: &Home, setting: &Setting, size: &SizeArgs, broker_pids: Vec<u32>) -> anyhow::Result<Self> {
        let way = Way { broker: None, wait: Some(Duration::from_secs(10)) };
        let board = connect(home, &way, &home.credentials(&"operator".parse()?)?).await?;
        let operator = Operator::new(board.link().clone(), ConsumerNames::open(&home.broker_dir())?);
        let (mut servers, mut patients) = (Vec::new(), Vec::new());
        for index in 0..setting.servers.len() {
            servers.push(Player::start(home, BenchRole::Server, index, size).await?);
        }
        for role in [BenchRole::Members, BenchRole::Patients] {
            if !setting.part(role).is_empty() {
                patients.push(Player::start(home, role, 0, size).await?);
            }
        }
        for player in servers.iter_mut().chain(&mut patients) {
            player.ready().await?;
        }
        let mut hospital = Player::start(home, BenchRole::Hospital, 0, size).await?;
        let said = hospital.answer().await?;
        let Said::Open { session } = said else { anyhow::bail!("the hospital said {said:?}") };
        Ok(Self { broker_pids, servers, patients, hospital, operator, session })
    }

    /// Runs a plain round.
    ///
    /// # Errors
    /// A wrong sum, or whatever ends a process.
    pub async fn plain(&mut self, round: u32) -> anyhow::Result<Sample> {
        self.all_patients(Order::LoadPlain(round)).await?;
        let before = self.begin();
        let begun = Instant::now();
        self.hospital.order(Order::AwaitPlain(round)).await?;
        for player in &mut self.patients {
            player.order(Order::SendPlain).await?;
        }
        let sample = self.end(begun, &before).await?;
        for player in &mut self.patients {
            player.done().await?;
        }
        self.purge(plain::SESSION, round).await?;
        Ok(sample)
    }

    /// Runs a secure round.
    ///
    /// # Errors
    /// A wrong sum, or whatever ends a process.
    pub async fn secure(&mut self, round: u32) -> anyhow::Result<Sample> {
        self.all_patients(Order::LoadSecure(round)).await?;
        let before = self.begin();
        let begun = Instant::now();
        self.hospital.order(Order::Ask(round)).await?;
        let mut sample = self.end(begun, &before).await?;
        sample.bytes = self.all_patients(Order::Forget(round)).await?;
        self.purge(self.session, round).await?;
        Ok(sample)
    }

    /// Clears the board, so that no round finds what another has left.
    async fn purge(&self, session: SessionTag, round: u32) -> anyhow::Result<()> {
        loop {
            match self.operator.purge_round_bulk(session, RoundNo(round)).await {
                Err(error) if error.may_pass() => tokio::time::sleep(LOOK).await,
                other => return Ok(other.map(drop)?),
            }
        }
    }

    /// Gives all patients an order and waits until it is carried out; the most bytes that a patient sent.
    async fn all_patients(&mut self, order: Order) -> anyhow::Result<u64> {
        let mut bytes = 0;
        for player in &mut self.patients {
            player.order(order).await?;
        }
        for player in &mut self.patients {
            bytes = bytes.max(player.done().await?);
        }
        Ok(bytes)
    }

    /// The processes by role.
    fn pids(&self) -> [Vec<u32>; ROLES.len()] {
        let of = |players: &[Player]| players.iter().filter_map(|player| player.process.pid()).collect();
        let hospital = self.hospital.process.pid().into_iter().collect();
        let (members, others) = self.patients.split_at(1);
        [self.broker_pids.clone(), of(&self.servers), of(others), of(members), hospital]
    }

    fn cpu(&self) -> [f64; ROLES.len()] {
        self.pids().map(|pids| pids.into_iter().map(spent::cpu).sum())
    }

    fn begin(&self) -> [f64; ROLES.len()] {
        self.pids().into_iter().flatten().for_each(spent::forget_peak);
        self.cpu()
    }

    /// Waits for the sum at the hospital, and for its check.
    async fn end(&mut self, begun: Instant, before: &[f64; ROLES.len()]) -> anyhow::Result<Sample> {
        let said = self.hospital.answer().await?;
        let Said::Answer { cohort, fixed, confirmed, summed } = said else {
            anyhow::bail!("the hospital said {said:?}")
        };
        let seconds = begun.elapsed().as_secs_f64();
        // For whoever lays a profiler beside it: both are of the monotonic clock.
        tracing::debug!(?begun, ended = ?Instant::now(), secure = fixed > 0, "round");
        let mut cpu = self.cpu();
        cpu.iter_mut().zip(before).for_each(|(after, before)| *after -= before);
        let peak = self.pids().map(|pids| pids.into_iter().filter_map(spent::peak).max().unwrap_or_default());
        self.hospital.done().await?;
        let [fixed, confirmed, summed] = [fixed, confirmed, summed].map(|micros| micros as f64 / 1e6);
        Ok(Sample { seconds, fixed, confirmed, summed, cpu, peak, cohort, bytes: 0 })
    }

    /// Ends everybody.
    ///
    /// # Errors
    /// If the system does not let it.
    pub async fn stop(self) -> anyhow::Result<()> {
        let players = self.servers.into_iter().chain(self.patients).chain([self.hospital]);
        futures::future::try_join_all(players.map(|player| player.process.stop())).await?;
        Ok(())
    }
}

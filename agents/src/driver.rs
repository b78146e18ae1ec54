//! The one loop: receive, decode, handle, store, send, wait.
//!
//! A machine decides; the driver carries out. It stores before it sends and acknowledges a message to the board only
//! after its effects are stored, and in a round after the round's end: so what was not stored comes again.

use std::sync::OnceLock;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use anyhow::Context as _;
use bytes::Bytes;
use futures::FutureExt as _;
use nats::{Board, Inbox};
use protocol::{
    Address, Effects, Event, Hospital, Input, Job, JobId, Moment, Name, Outcome, Patient, Plan, Server, SessionId, Time,
};
use rand::TryRng as _;
use rustix::time::{ClockId, clock_gettime};
use tokio::sync::{Semaphore, mpsc, watch};

use crate::faults::Faults;
use crate::mailer::Mailer;
use crate::room::Room;
use crate::store::Store;

/// The most messages that are taken before their effects are stored.
const GROUP: usize = 256;

/// As many bytes of messages end a group early: a group of chunks would be in memory until the last of them is stored.
const GROUP_BYTES: usize = 256 * 1024;
/// Jobs that walk over at most this many bytes run in place: hashing a chunk or adding one to a sum takes a tenth of a
/// millisecond, and handing it to a thread and back costs as much in wake-ups.
const LIGHT: usize = protocol::CHUNK_BYTES;
/// How long a party may take to catch up.
const CATCH_UP: Duration = Duration::from_secs(5);
/// How long a party sleeps at most: the clock that wakes it stands still while the machine sleeps, and [`now`] does not.
const NAP: Duration = Duration::from_secs(10);
/// How long a party that is asked to stop may take to write what it has said.
const FLUSH: Duration = Duration::from_secs(2);
/// How long a message may take from the connection to the machine.
const HAND_ON: Duration = Duration::from_millis(20);

/// A machine of the protocol, as the driver sees it.
pub trait Machine: Send {
    /// Takes one input; what follows from it is in the effects.
    fn handle(&mut self, moment: &Moment, input: Input) -> Effects;

    /// Whether a round is open. What came since it began is not acknowledged before its end: what a machine holds of it
    /// is in memory, and comes again to one that is started again.
    fn is_in_round(&self) -> bool {
        false
    }
}

impl Machine for Patient {
    fn handle(&mut self, moment: &Moment, input: Input) -> Effects {
        Patient::handle(self, moment, input)
    }

    fn is_in_round(&self) -> bool {
        Patient::is_in_round(self)
    }
}

impl Machine for Server {
    fn handle(&mut self, moment: &Moment, input: Input) -> Effects {
        Server::handle(self, moment, input)
    }

    fn is_in_round(&self) -> bool {
        Server::is_in_round(self)
    }
}

impl Machine for Hospital {
    fn handle(&mut self, moment: &Moment, input: Input) -> Effects {
        Hospital::handle(self, moment, input)
    }

    fn is_in_round(&self) -> bool {
        Hospital::is_in_round(self)
    }
}

/// Now, in milliseconds since the Unix epoch; it never runs backwards while the process lives.
pub fn now() -> Time {
    static START: OnceLock<(Duration, Duration)> = OnceLock::new();
    let (start, epoch) =
        START.get_or_init(|| (uptime(), SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default()));
    Time((*epoch + uptime().saturating_sub(*start)).as_millis() as u64)
}

/// For how long the system has been up, with the time that it slept: a laptop that was closed for an hour knows of it.
fn uptime() -> Duration {
    #[cfg(target_os = "linux")]
    const CLOCK: ClockId = ClockId::Boottime;
    // Elsewhere this one goes on in sleep, or there is none that does.
    #[cfg(not(target_os = "linux"))]
    const CLOCK: ClockId = ClockId::Monotonic;
    let up = clock_gettime(CLOCK);
    Duration::new(up.tv_sec.try_into().unwrap_or_default(), up.tv_nsec.try_into().unwrap_or_default())
}

/// The time and 32 fresh bytes of the system's generator.
///
/// # Errors
/// If the generator fails: nothing may go on without it.
pub fn moment() -> anyhow::Result<Moment> {
    let mut fresh = [0; 32];
    rand::rngs::SysRng.try_fill_bytes(&mut fresh).context("the system's random generator failed")?;
    Ok(Moment::new(now(), fresh))
}

/// What comes back from work that the driver had started.
enum Back {
    Done(JobId, Outcome),
    Sent(Address),
    Read(Address, Option<Bytes>),
}

/// One party's machine at work on the board.
pub struct Driver<M> {
    name: Name,
    /// The machine; commands to it go through [`Driver::apply`].
    pub machine: M,
    board: Board,
    inbox: Inbox,
    /// Counts how often the broker was lost.
    losses: watch::Receiver<u64>,
    store: Store,
    faults: Faults,
    mailer: Mailer,
    back: mpsc::UnboundedReceiver<anyhow::Result<Back>>,
    give_back: mpsc::UnboundedSender<anyhow::Result<Back>>,
    wake: Option<Time>,
    /// The newest message that was taken in a round which is open.
    open: Option<nats::Delivery>,
}

/// Something for [`Driver::take`].
pub struct Ready(Taken);

enum Taken {
    Back(Back),
    Delivery(Box<nats::Delivery>),
    /// The broker was lost, and may have lost what it acknowledged.
    Reconnected,
    Tick,
}

impl<M: Machine> Driver<M> {
    /// Starts to follow the board.
    ///
    /// # Errors
    /// If the broker forbids it.
    pub async fn new(name: Name, machine: M, board: Board, store: Store) -> anyhow::Result<Self> {
        let inbox = board.follow().await?;
        let (give_back, back) = mpsc::unbounded_channel();
        let mailer = {
            let back = give_back.clone();
            // Nobody is left to tell once the driver is gone.
            Mailer::start(board.clone(), move |written| drop(back.send(written.map(Back::Sent))))
        };
        let losses = board.losses();
        Ok(Self {
            name,
            machine,
            board,
            inbox,
            losses,
            store,
            faults: Faults::default(),
            mailer,
            back,
            give_back,
            wake: Some(now()),
            open: None,
        })
    }

    /// Waits for something to take. Cancel safe: dropping the future loses nothing.
    ///
    /// # Errors
    /// If the board or a job fails for good: the agent must end.
    pub async fn ready(&mut self) -> anyhow::Result<Ready> {
        let wait = self.wake.map(|wake| Duration::from_millis(wake.0.saturating_sub(now().0)).min(NAP));
        tokio::select! {
            biased;
            Some(back) = self.back.recv() => Ok(Ready(Taken::Back(back?))),
            Ok(()) = self.losses.changed() => Ok(Ready(Taken::Reconnected)),
            delivery = self.inbox.next() => Ok(Ready(Taken::Delivery(Box::new(delivery?)))),
            () = tokio::time::sleep(wait.unwrap_or_default()), if wait.is_some() => Ok(Ready(Taken::Tick)),
        }
    }

    /// Takes what is ready and carries out what follows; what happened. Not to be cancelled.
    ///
    /// # Errors
    /// If the store, the board or the random generator fails for good: the agent must end.
    pub async fn take(&mut self, ready: Ready) -> anyhow::Result<Vec<Event>> {
        self.take_hearing(ready, |_| Ok(())).await
    }

    /// As [`Driver::take`]. `hear` is told what happened before anything of it is stored: a process that is killed in between
    /// hears it again when it is back.
    ///
    /// # Errors
    /// As [`Driver::take`], and what `hear` says: then nothing is stored.
    pub async fn take_hearing(
        &mut self,
        ready: Ready,
        hear: impl FnMut(&Event) -> anyhow::Result<()>,
    ) -> anyhow::Result<Vec<Event>> {
        let mut effects = Effects::default();
        let mut settled = None;
        match ready.0 {
            Taken::Tick => self.hand(Input::Tick, &mut effects)?,
            // What is written meanwhile waits for the connection.
            Taken::Reconnected => self.hand(Input::Reconnected, &mut effects)?,
            Taken::Back(Back::Done(id, outcome)) => self.hand(Input::Done(id, outcome), &mut effects)?,
            Taken::Back(Back::Sent(address)) => self.hand(Input::Sent(address), &mut effects)?,
            Taken::Back(Back::Read(address, payload)) => self.hand(Input::Read { address, payload }, &mut effects)?,
            Taken::Delivery(first) => {
                let mut next = Some(*first);
                let (mut taken, mut bytes) = (0, 0);
                // What is here already goes to the disk in one commit.
                while let Some(delivery) = next {
                    let (address, payload) = (delivery.address.clone(), delivery.payload.clone());
                    bytes += payload.len();
                    self.hand(Input::Message { address, payload }, &mut effects)?;
                    if self.machine.is_in_round() {
                        self.open = Some(delivery);
                    } else {
                        (settled, self.open) = (Some(delivery), None);
                    }
                    taken += 1;
                    let more = taken < GROUP && bytes < GROUP_BYTES;
                    next = if more { self.inbox.next().now_or_never().transpose()? } else { None };
                }
            }
        }
        effects.events.iter().try_for_each(hear)?;
        let events = self.carry_out(effects).await?;
        if !self.machine.is_in_round() {
            settled = self.open.take().or(settled);
        }
        if let Some(delivery) = settled {
            delivery.ack().await;
        }
        Ok(events)
    }

    fn hand(&mut self, input: Input, effects: &mut Effects) -> anyhow::Result<()> {
        let more = self.machine.handle(&moment()?, input);
        self.wake = more.wake;
        effects.merge(more);
        Ok(())
    }

    /// Takes what is on the board already: what others wrote while this party did not run. What happened; `hear` is told as by
    /// [`Driver::take_hearing`].
    ///
    /// # Errors
    /// As [`Driver::take_hearing`].
    pub async fn catch_up(&mut self, mut hear: impl FnMut(&Event) -> anyhow::Result<()>) -> anyhow::Result<Vec<Event>> {
        let mut events = Vec::new();
        let begun = Instant::now();
        loop {
            let delivered = self.is_all_delivered().await?;
            // What is delivered is in this process, and only a few tasks away. Who never stops writing is not waited for.
            while begun.elapsed() < CATCH_UP
                && let Ok(ready) = tokio::time::timeout(HAND_ON, self.ready()).await
            {
                events.extend(self.take_hearing(ready?, &mut hear).await?);
            }
            if delivered || begun.elapsed() >= CATCH_UP {
                return Ok(events);
            }
        }
    }

    /// Whether the broker has handed over all that is addressed to this party; no, while it cannot say.
    async fn is_all_delivered(&self) -> anyhow::Result<bool> {
        match self.board.pending().await {
            Ok(pending) => Ok(pending == 0),
            Err(error) if error.may_pass() => Ok(false),
            Err(error) => Err(error.into()),
        }
    }

    /// Gives the machine a command and carries out what follows; what happened. Not to be cancelled.
    ///
    /// # Errors
    /// What the command refuses, and as [`Driver::take`].
    pub async fn apply<E: Into<anyhow::Error>>(
        &mut self,
        command: impl FnOnce(&mut M, &Moment) -> Result<Effects, E>,
    ) -> anyhow::Result<Vec<Event>> {
        let moment = moment()?;
        let effects = command(&mut self.machine, &moment).map_err(Into::into)?;
        // A command may bring the next wake nearer; the machine itself says so at the tick.
        self.wake = Some(now());
        self.carry_out(effects).await
    }

    /// Store, then send, then read, then jobs.
    async fn carry_out(&mut self, effects: Effects) -> anyhow::Result<Vec<Event>> {
        self.store.commit(&self.name, effects.store).await?;
        for outgoing in effects.send {
            self.mailer.send(outgoing).map_err(|closed| self.last_words().unwrap_or(closed))?;
        }
        for address in effects.read {
            self.read(address);
        }
        for (id, job) in effects.jobs {
            self.run(id, job);
        }
        for event in &effects.events {
            self.log(event);
        }
        Ok(effects.events)
    }

    fn log(&mut self, event: &Event) {
        tracing::debug!(party = %self.name, ?event);
        if let Event::Fault(fault) = event
            && let Some(line) = self.faults.line(fault)
        {
            tracing::warn!("{}: {line}", self.name);
        }
    }

    fn read(&self, address: Address) {
        let (board, back) = (self.board.clone(), self.give_back.clone());
        tokio::spawn(async move {
            let read = match board.read(&address).await {
                // Nobody may read any more what is for a party that was revoked meanwhile: it is lost to whoever asks.
                Err(error) if error.is_refused() => {
                    tracing::warn!("{error}");
                    Ok(None)
                }
                read => read,
            };
            let _ = back.send(read.map(|payload| Back::Read(address, payload)).map_err(Into::into));
        });
    }

    fn run(&self, id: JobId, job: Job) {
        let back = self.give_back.clone();
        if job.weight() <= LIGHT {
            let _ = back.send(Ok(Back::Done(id, job.run())));
            return;
        }
        tokio::spawn(async move {
            let room = Room::wait_for(&job).await;
            let Ok(_turn) = cores().acquire().await else { return };
            let outcome = tokio::task::spawn_blocking(move || job.run()).await;
            let kept = |outcome| match room {
                Some(room) => room.keep_with(outcome),
                None => outcome,
            };
            let _ = back.send(outcome.map(|outcome| Back::Done(id, kept(outcome))).context("a job panicked"));
        });
    }

    /// Before an end: gives what was said a moment to reach the board, where there is one.
    pub async fn finish(&mut self) {
        if !matches!(tokio::time::timeout(FLUSH, self.flush()).await, Ok(Ok(()))) {
            tracing::warn!("{} ends with messages that are not on the board", self.name);
        }
    }

    /// Waits until everything that was sent is on the board.
    ///
    /// # Errors
    /// If the board refuses it for good.
    pub async fn flush(&mut self) -> anyhow::Result<()> {
        let flushed = self.mailer.flush().await;
        flushed.map_err(|closed| self.last_words().unwrap_or(closed))
    }

    /// Why the way to the board is closed, which the mailer reports before it closes it; the agent ends by it, and so nothing
    /// else that came back is of use.
    fn last_words(&mut self) -> Option<anyhow::Error> {
        std::iter::from_fn(|| self.back.try_recv().ok()).find_map(Result::err)
    }
}

impl Driver<Hospital> {
    /// Opens a session under `plan`.
    ///
    /// # Errors
    /// As [`Driver::take`].
    pub async fn announce(&mut self, plan: &Plan) -> anyhow::Result<SessionId> {
        let mut opened = SessionId::default();
        let announce = |hospital: &mut Hospital, moment: &Moment| {
            let (session, effects) = hospital.announce(moment, plan);
            opened = session;
            anyhow::Ok(effects)
        };
        self.apply(announce).await?;
        Ok(opened)
    }
}

/// As many heavy jobs at a time as there are cores, over all agents of the process.
fn cores() -> &'static Semaphore {
    static CORES: OnceLock<Semaphore> = OnceLock::new();
    CORES.get_or_init(|| Semaphore::new(std::thread::available_parallelism().map_or(2, Into::into)))
}

//! What is played: everything of a scenario follows from its seed.

use std::fmt;
use std::time::Duration;

use protocol::Kind;
use rand::rngs::StdRng;
use rand::seq::IndexedRandom as _;
use rand::{RngExt as _, SeedableRng as _};

/// How long patients may take to join, in seconds.
pub const JOIN_SECONDS: u32 = 5;

/// How long a round may take, in seconds.
pub const ROUND_SECONDS: u32 = 8;

/// How often the hospital asks again by itself.
pub const RETRIES: u32 = 1;

/// How far clocks are moved, in seconds: certificates are valid from an hour ago, and a session lives for 90 days.
const MOST_BEHIND: i64 = 50 * 60;
const MOST_AHEAD: i64 = 80 * 86_400;

/// A study, what is asked of it, and what goes wrong meanwhile.
#[derive(Clone, Debug)]
pub struct Scenario {
    /// What it follows from, with [`Scenario::first`].
    pub seed: u64,
    /// What goes wrong first.
    pub first: Blow,
    /// How many patients there are.
    pub patients: u8,
    /// How many servers there are.
    pub servers: u8,
    /// c.
    pub committee: u8,
    /// t.
    pub threshold: u8,
    /// k.
    pub min_cohort: u8,
    /// How often the hospital is asked before everything is well again.
    pub asks: u8,
    /// What goes wrong.
    pub faults: Vec<Fault>,
}

/// What can go wrong with a process.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Blow {
    /// It is killed, and started again with the command line of before.
    Kill,
    /// It stands still (SIGSTOP), and goes on (SIGCONT).
    Pause,
    /// Its connections break, and no other is made.
    Cut,
    /// What it sends and is sent takes its time.
    Slow,
    /// It cannot write to any file: nothing is left on its disk.
    FullDisk,
    /// It is killed, and started again with another clock, which it keeps.
    Clock,
}

impl Blow {
    /// All.
    pub const ALL: [Blow; 6] = [Blow::Kill, Blow::Pause, Blow::Cut, Blow::Slow, Blow::FullDisk, Blow::Clock];

    /// What goes wrong first in the scenario of a seed: all have their turn.
    pub fn of(seed: u64) -> Self {
        Self::ALL[(seed % Self::ALL.len() as u64) as usize]
    }

    /// One word.
    pub fn name(self) -> &'static str {
        match self {
            Blow::Kill => "kill",
            Blow::Pause => "pause",
            Blow::Cut => "cut",
            Blow::Slow => "slow",
            Blow::FullDisk => "full_disk",
            Blow::Clock => "clock",
        }
    }
}

/// Who is struck.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Whom {
    /// A member of the committee; any patient until it is known who that is.
    Member(u8),
    /// A patient that is no member; any patient where there is none.
    Outsider(u8),
    /// A server.
    Server(u8),
    /// The hospital, while it runs.
    Hospital,
    /// `ward broker`, which takes nats-server with it.
    Broker,
    /// nats-server, which takes `ward broker` with it when it dies or cannot write.
    NatsServer,
}

impl Whom {
    /// One word.
    pub fn name(self) -> &'static str {
        match self {
            Whom::Member(_) => "member",
            Whom::Outsider(_) => "patient",
            Whom::Server(_) => "server",
            Whom::Hospital => "hospital",
            Whom::Broker => "broker",
            Whom::NatsServer => "nats_server",
        }
    }
}

/// An event at which something goes wrong.
#[derive(Clone, Copy, Debug)]
pub enum Moment {
    /// So many servers and patients have said that they are ready.
    Ready(u32),
    /// The board has so many messages of this kind.
    Written(Kind, u32),
}

/// How long something goes wrong: for so many messages on the board, if they come in time.
#[derive(Clone, Copy, Debug)]
pub struct Span {
    /// So many messages.
    pub messages: u32,
    /// The longest time.
    pub most: Duration,
}

/// Something that goes wrong.
#[derive(Clone, Debug)]
pub struct Fault {
    /// What.
    pub blow: Blow,
    /// With whom.
    pub whom: Whom,
    /// When.
    pub when: Moment,
    /// For how long; nothing is until the hospital has been asked for the last time.
    pub span: Option<Span>,
    /// By how many seconds its clock is moved, where it is.
    pub clock: i64,
}

impl Fault {
    /// As it is counted.
    pub fn name(&self) -> String {
        format!("{}_{}", self.blow.name(), self.whom.name())
    }
}

impl fmt::Display for Fault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} {:?}", self.blow.name(), self.whom)?;
        match self.when {
            Moment::Ready(count) => write!(f, " once {count} are ready")?,
            Moment::Written(kind, nth) => write!(f, " at {kind} number {nth}")?,
        }
        if self.blow == Blow::Clock {
            write!(f, ", moved by {} s", self.clock)?;
        }
        match self.span {
            Some(Span { messages, most }) => write!(f, ", for {messages} messages or {} ms", most.as_millis()),
            None => write!(f, ", until the last ask"),
        }
    }
}

impl Scenario {
    /// The scenario of a seed whose first fault is of this kind.
    pub fn draw(seed: u64, first: Blow) -> Self {
        let mut dice = StdRng::seed_from_u64(seed);
        let patients = dice.random_range(5..=8);
        let committee = dice.random_range(3..=5);
        let min_cohort = dice.random_range(3..=patients - 2);
        let servers = dice.random_range(1..=2);
        let asks = dice.random_range(1..=2);
        let count = dice.random_range(1..=3);
        let blows = std::iter::once(first).chain((1..count).map(|_| *Blow::ALL.choose(&mut dice).unwrap_or(&first)));
        let blows: Vec<Blow> = blows.collect();
        let faults = blows.into_iter().map(|blow| Fault::draw(blow, servers, asks, &mut dice)).collect();
        Self { seed, first, patients, servers, committee, threshold: 1, min_cohort, asks, faults }
    }

    /// Whether this may go wrong in it.
    pub fn has(&self, blow: impl Fn(Blow) -> bool) -> bool {
        self.faults.iter().any(|fault| blow(fault.blow))
    }

    /// The names of the patients.
    pub fn patient_names(&self) -> impl Iterator<Item = String> {
        (0..self.patients).map(|number| format!("p{number}"))
    }

    /// The names of the servers.
    pub fn server_names(&self) -> impl Iterator<Item = String> {
        (1..=self.servers).map(|number| if number == 1 { "server".into() } else { format!("server-{number}") })
    }

    /// What a patient holds: each hexadecimal digit of a sum counts one of them.
    pub fn value(number: u8) -> u64 {
        1 << (4 * number)
    }

    /// How long an ask may take: all its rounds, and what goes wrong in them, on a slow machine.
    pub fn patience(&self) -> Duration {
        let rounds = Duration::from_secs((JOIN_SECONDS + (1 + RETRIES) * ROUND_SECONDS).into());
        let spans: Duration = self.faults.iter().filter_map(|fault| fault.span).map(|span| span.most).sum();
        rounds + spans + Duration::from_secs(30)
    }
}

impl fmt::Display for Scenario {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { seed, patients, servers, committee, threshold, min_cohort, asks, .. } = self;
        write!(f, "seed {seed}, {}: {patients} patients, {servers} servers, c = {committee}, ", self.first.name())?;
        write!(f, "t = {threshold}, k = {min_cohort}, {asks} asks")?;
        self.faults.iter().try_for_each(|fault| write!(f, "\n  {fault}"))
    }
}

impl Fault {
    fn draw(blow: Blow, servers: u8, asks: u8, dice: &mut StdRng) -> Self {
        let number = dice.random_range(0..8);
        let mut whom =
            vec![Whom::Member(number), Whom::Outsider(number), Whom::Server(number % servers), Whom::Hospital];
        match blow {
            Blow::Kill | Blow::Pause => whom.extend([Whom::Broker, Whom::NatsServer]),
            Blow::FullDisk => whom.push(Whom::NatsServer),
            // Parties are cut off from the broker one by one; nats-server is no program of ours, and reads its own clock.
            Blow::Cut | Blow::Slow | Blow::Clock => {}
        }
        let whom = *whom.choose(dice).unwrap_or(&Whom::Hospital);
        let when = Moment::draw(asks, dice);
        let span =
            Span { messages: dice.random_range(0..30), most: Duration::from_millis(dice.random_range(50..1_500)) };
        // Who is stopped while it is being enrolled has the home's lock, and others wait to be enrolled until it goes on.
        let for_good = matches!(whom, Whom::Member(_) | Whom::Outsider(_))
            && dice.random_bool(0.35)
            && matches!(when, Moment::Written(..));
        let most = if dice.random_bool(0.5) { MOST_BEHIND } else { MOST_AHEAD };
        let clock = dice.random_range(-MOST_BEHIND..=most);
        Self { blow, whom, when, span: (!for_good).then_some(span), clock }
    }
}

impl Moment {
    fn draw(asks: u8, dice: &mut StdRng) -> Self {
        if dice.random_bool(0.08) {
            return Moment::Ready(dice.random_range(1..=5));
        }
        // What comes once a session, what comes once a round, what each patient writes, and what members write.
        let once = [Kind::Announce, Kind::Roster, Kind::List];
        let rounds = [Kind::Begin, Kind::Cohort, Kind::Open, Kind::MaskedSum, Kind::Check, Kind::Result];
        let all = [Kind::Join, Kind::Place, Kind::Key, Kind::Share];
        let members = [Kind::Held, Kind::Confirm, Kind::MaskSum, Kind::CheckSum];
        let every: Vec<Kind> = [&once[..], &rounds, &all, &members].concat();
        let kind = *every.choose(dice).unwrap_or(&Kind::Begin);
        let most = match kind {
            _ if once.contains(&kind) => 1,
            _ if rounds.contains(&kind) => asks.into(),
            _ if all.contains(&kind) => 5,
            _ => 3,
        };
        Moment::Written(kind, dice.random_range(1..=most))
    }
}

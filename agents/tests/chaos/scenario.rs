//! What is played: everything of a scenario follows from its seed.

use std::fmt;
use std::time::Duration;

use rand::rngs::StdRng;
use rand::seq::IndexedRandom as _;
use rand::{RngExt as _, SeedableRng as _};

use super::steps::{self, Step};

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
    /// What goes wrong beside the kill whose turn it is.
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
    /// How many rounds it asks each time.
    pub rounds: u8,
    /// What goes wrong; at the head the kill whose turn it is.
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
    /// Its clock is moved under it while it runs, and stays so.
    Jump,
}

impl Blow {
    /// All.
    pub const ALL: [Blow; 7] =
        [Blow::Kill, Blow::Pause, Blow::Cut, Blow::Slow, Blow::FullDisk, Blow::Clock, Blow::Jump];

    /// What goes wrong beside the kill in the scenario of a seed: all have their turn.
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
            Blow::Jump => "jump",
        }
    }

    /// Whether it moves a clock.
    pub fn moves_clock(self) -> bool {
        matches!(self, Blow::Clock | Blow::Jump)
    }
}

/// Who is struck.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Whom {
    /// A member of the committee.
    Member(u8),
    /// A patient that is no member; any patient where there is none, or until it is settled who that is.
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
    /// All with whom this can go wrong; which of several of one kind says the number.
    pub fn all(blow: Blow, number: u8, servers: u8) -> Vec<Self> {
        let mut all =
            vec![Whom::Member(number), Whom::Outsider(number), Whom::Server(number % servers), Whom::Hospital];
        match blow {
            Blow::Kill | Blow::Pause => all.extend([Whom::Broker, Whom::NatsServer]),
            Blow::FullDisk => all.push(Whom::NatsServer),
            // Parties are cut off from the broker one by one; nats-server is no program of ours, and reads its own clock.
            Blow::Cut | Blow::Slow | Blow::Clock | Blow::Jump => {}
        }
        all
    }

    /// The same kind of party with another number.
    fn numbered(self, number: u8, servers: u8) -> Self {
        match self {
            Whom::Member(_) => Whom::Member(number),
            Whom::Outsider(_) => Whom::Outsider(number),
            Whom::Server(_) => Whom::Server(number % servers),
            other => other,
        }
    }

    /// Whether it is a patient, on the committee or not.
    pub fn is_patient(self) -> bool {
        matches!(self, Whom::Member(_) | Whom::Outsider(_))
    }

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
pub struct Moment {
    /// What happens.
    pub step: Step,
    /// For the how many-th time.
    pub nth: u32,
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
    /// Whether it waits until it is settled who is on the committee.
    pub fn needs_committee(&self) -> bool {
        self.whom.is_patient() && self.when.step.has_committee()
    }
}

impl fmt::Display for Fault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} {:?}", self.blow.name(), self.whom)?;
        write!(f, " at {} number {}", self.when.step.name(), self.when.nth)?;
        if self.blow.moves_clock() {
            write!(f, ", moved by {} s", self.clock)?;
        }
        match self.span {
            Some(Span { messages, most }) => write!(f, ", for {messages} messages or {} ms", most.as_millis()),
            None => write!(f, ", until the last ask"),
        }
    }
}

impl Scenario {
    /// The scenario of a seed in which this goes wrong beside the kill whose turn it is.
    pub fn draw(seed: u64, first: Blow) -> Self {
        let (victim, step) = steps::turn(seed);
        let mut dice = StdRng::seed_from_u64(seed);
        let patients = dice.random_range(5..=8);
        let committee: u8 = dice.random_range(3..=5);
        // Who is to be killed although it is no member must be there.
        let outsiders = u8::from(matches!(victim, Whom::Outsider(_)));
        let committee = committee.min(patients - outsiders);
        let min_cohort = dice.random_range(3..=patients - 2);
        let servers = dice.random_range(1..=2);
        let asks = dice.random_range(1..=2);
        // It ends with its last round, and who is to kill it at the end of one may come too late.
        let rounds = if victim == Whom::Hospital { 2 } else { 1 };
        let mut faults =
            vec![Fault::kill(victim, step, servers, &mut dice), Fault::first(first, seed, servers, asks, &mut dice)];
        for _ in 1..dice.random_range(1..=3) {
            let blow = *Blow::ALL.choose(&mut dice).unwrap_or(&first);
            faults.push(Fault::draw(blow, servers, asks, &mut dice));
        }
        Self { seed, first, patients, servers, committee, threshold: 1, min_cohort, asks, rounds, faults }
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
        let rounds = u32::from(self.rounds) * (1 + RETRIES) * ROUND_SECONDS;
        let rounds = Duration::from_secs((JOIN_SECONDS + rounds).into());
        let spans: Duration = self.faults.iter().filter_map(|fault| fault.span).map(|span| span.most).sum();
        rounds + spans + Duration::from_secs(30)
    }
}

impl fmt::Display for Scenario {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { seed, patients, servers, committee, threshold, min_cohort, asks, rounds, .. } = self;
        write!(f, "seed {seed}, {}: {patients} patients, {servers} servers, c = {committee}, ", self.first.name())?;
        write!(f, "t = {threshold}, k = {min_cohort}, {asks} asks of {rounds} rounds")?;
        self.faults.iter().try_for_each(|fault| write!(f, "\n  {fault}"))
    }
}

impl Fault {
    /// The kill whose turn it is: at a moment that every study reaches.
    fn kill(victim: Whom, step: Step, servers: u8, dice: &mut StdRng) -> Self {
        let whom = victim.numbered(dice.random_range(0..8), servers);
        let when = Moment { step, nth: dice.random_range(1..=step.times(1)) };
        Self::at(Blow::Kill, whom, when, dice)
    }

    /// What goes wrong beside it: by the seeds, everybody has its turn with each blow.
    fn first(blow: Blow, seed: u64, servers: u8, asks: u8, dice: &mut StdRng) -> Self {
        let all = Whom::all(blow, dice.random_range(0..8), servers);
        let turn = seed / Blow::ALL.len() as u64 % all.len() as u64;
        let whom = all[turn as usize];
        Self::at(blow, whom, Moment::draw(whom, asks, dice), dice)
    }

    fn draw(blow: Blow, servers: u8, asks: u8, dice: &mut StdRng) -> Self {
        let all = Whom::all(blow, dice.random_range(0..8), servers);
        let whom = *all.choose(dice).unwrap_or(&Whom::Hospital);
        Self::at(blow, whom, Moment::draw(whom, asks, dice), dice)
    }

    fn at(blow: Blow, whom: Whom, when: Moment, dice: &mut StdRng) -> Self {
        let whom = match whom {
            Whom::Member(number) if !when.step.has_committee() => Whom::Outsider(number),
            whom => whom,
        };
        let span =
            Span { messages: dice.random_range(0..30), most: Duration::from_millis(dice.random_range(50..1_500)) };
        // Who is stopped while it is being enrolled has the home's lock, and others wait to be enrolled until it goes on.
        let for_good = whom.is_patient() && dice.random_bool(0.35) && when.step != Step::Ready;
        let most = if dice.random_bool(0.5) { MOST_BEHIND } else { MOST_AHEAD };
        let clock = dice.random_range(-MOST_BEHIND..=most);
        Self { blow, whom, when, span: (!for_good).then_some(span), clock }
    }
}

impl Moment {
    fn draw(whom: Whom, asks: u8, dice: &mut StdRng) -> Self {
        // The hospital runs only once everybody is ready.
        let is_ready = dice.random_bool(0.08) && whom != Whom::Hospital;
        let step = match is_ready {
            true => Step::Ready,
            false => Step::Written(*Step::kinds().choose(dice).unwrap_or(&protocol::Kind::Begin)),
        };
        Self { step, nth: dice.random_range(1..=step.times(asks)) }
    }
}

//! `ward simulate`: the same machines without a broker, for sizes that no test bench holds.
//!
//! Hospital, servers and committee live all the time. The other patients come in turn: each is made for its Join and
//! dropped, then made again as it was for its keys and its answer, and dropped again. So there is one patient's vector
//! at a time, and time grows with the number of patients, not with its square.

mod crowd;
mod faults;
mod meter;
mod report;
mod study;
mod visitor;

use std::time::{Duration, Instant};

use anyhow::Context as _;
use protocol::{
    Answer, Ask, Audit, Hospital, Kind, Name, Outgoing, Plan, Question, Ring, Role, Server, Settings, Snapshot, To,
};

use crate::cli::SimulateArgs;
use crate::exit::usage;
use crate::report::{note, print};
use crowd::{Crowd, STUDY};
use meter::{Part, Phase, Tally};
use report::Report;
use study::{Machine, Study};
use visitor::Visitor;

/// The largest absolute value of a coordinate, unless the ring holds less.
const BOUND: u64 = 1000;

/// How many patients live to the end and take the Result: they stand for all, as each does the same work.
const SAMPLE: u32 = 8;

/// How often a line of progress is written.
const PROGRESS: Duration = Duration::from_secs(5);

/// Simulates one session with one round and reports what it took; or, with `--faults`, many small studies.
///
/// # Errors
/// If the numbers do not fit together, the sum is wrong, or a rule does not hold under faults.
pub fn run(args: &SimulateArgs, json: bool) -> anyhow::Result<()> {
    if args.faults {
        return faults::run(args, json);
    }
    let begun = Instant::now();
    let mut simulation = Simulation::new(args)?;
    simulation.join()?;
    simulation.share()?;
    simulation.open()?;
    let report = simulation.report(begun.elapsed());
    if json {
        print(report.json())?;
    } else {
        print(report.text().trim_end())?;
    }
    Ok(())
}

/// A session of one round.
struct Simulation {
    args: SimulateArgs,
    plan: Plan,
    ring: Ring,
    crowd: Crowd,
    snapshot: Snapshot,
    study: Study,
    hospital: Name,
    servers: Vec<Name>,
    /// The sum in the clear.
    truth: Vec<i64>,
    /// Those that live to the end.
    sample: Vec<Visitor>,
}

impl Simulation {
    fn new(args: &SimulateArgs) -> anyhow::Result<Self> {
        let (ring, bound) = ring(args)?;
        let dropped = (u64::from(args.patients) * u64::from(args.drop) / 100) as u32;
        let rest = args.patients - dropped;
        let servers = server_names(args.servers)?;
        let plan = Plan::new(Settings {
            study: STUDY.into(),
            expect: args.patients,
            committee: args.committee,
            threshold: args.threshold,
            min_cohort: Some(args.patients.min(2.max(rest / 2))),
            candidates: Vec::new(),
            servers: servers.clone(),
            payloads: false,
            join_seconds: 1,
            not_after: study::BEGIN.plus_seconds(86_400),
        })?;
        let committee = plan.sharing().committee();
        if rest < u32::from(committee) {
            usage!(
                "{dropped} of {} patients drop, and a committee of {committee} must stay: lower --drop",
                args.patients
            );
        }
        let crowd = Crowd::new(args.seed, args.patients, committee, dropped, args.dim, bound)?;
        let mut simulation = Self {
            args: args.clone(),
            plan,
            ring,
            snapshot: "1".parse()?,
            study: Study::new(crowd.draws(b's', 0)),
            hospital: "hospital".parse()?,
            servers,
            truth: Vec::new(),
            sample: Vec::new(),
            crowd,
        };
        simulation.question().fits(args.patients)?;
        simulation.truth = vec![0; args.dim as usize];
        simulation.gather()?;
        Ok(simulation)
    }

    /// The question: one column as wide as the vectors.
    fn question(&self) -> Ask {
        Ask {
            question: Question::Sum(self.crowd.schema.columns.clone()),
            snapshot: self.snapshot.clone(),
            ring: Some(self.ring),
            scale: self.crowd.schema.scale,
            scaled_bound: self.crowd.schema.scaled_bound,
            enough: Some(self.rest()),
            round_seconds: 3600,
            // There is no board that would keep what the hospital reads again.
            audit: Audit::None,
            last: true,
        }
    }

    /// How many do not drop.
    fn rest(&self) -> u32 {
        self.crowd.patients - self.crowd.dropped
    }

    /// Makes the parties that live to the end.
    fn gather(&mut self) -> anyhow::Result<()> {
        let me = self.crowd.party(self.hospital.clone(), Role::Hospital, b'h', 0);
        let hospital = Machine::Hospital(Box::new(Hospital::new(me)));
        self.study.add(self.hospital.clone(), Part::Hospital, hospital);
        for (number, name) in (0u32..).zip(&self.servers) {
            let server = Server::new(self.crowd.party(name.clone(), Role::Server, b'x', number));
            self.study.add(name.clone(), Part::Server, Machine::Server(Box::new(server)));
        }
        for number in 0..self.crowd.members {
            let member = Machine::Patient(Box::new(self.crowd.patient(number)?));
            self.study.add(self.crowd.name(number)?, Part::Member, member);
        }
        Ok(())
    }

    /// Set-up, up to the Roster: everybody joins.
    fn join(&mut self) -> anyhow::Result<()> {
        let plan = self.plan.clone();
        self.study.command(&self.hospital, Phase::Setup, |machine, moment| {
            let Machine::Hospital(hospital) = machine else { anyhow::bail!("only a hospital announces") };
            Ok(hospital.announce(moment, &plan).1)
        })?;
        let announce = self.study.said(Kind::Announce)?;
        let mut progress = Progress::new("joined", self.crowd.patients);
        for number in self.crowd.ordinary() {
            let mut visitor = Visitor::new(&self.crowd, number, self.study.now)?;
            let written = visitor.take(announce.clone(), self.study.tally(Part::Patient))?;
            self.write(written)?;
            progress.step(number);
        }
        self.study.said(Kind::Roster).map(drop)
    }

    /// The question, and everybody's keys and answer.
    fn share(&mut self) -> anyhow::Result<()> {
        for number in 0..self.crowd.members {
            let values = self.values(number);
            let record = self.crowd.record(values)?;
            let snapshot = self.snapshot.clone();
            self.study.command(&self.crowd.name(number)?, Phase::Round, |machine, moment| {
                let Machine::Patient(patient) = machine else { anyhow::bail!("only a patient has data") };
                Ok(patient.offer(snapshot, record, moment)?)
            })?;
        }
        let ask = self.question();
        self.study.command(&self.hospital, Phase::Round, |machine, moment| {
            let Machine::Hospital(hospital) = machine else { anyhow::bail!("only a hospital asks") };
            let session = hospital.sessions().first().context("there is no session")?.session;
            Ok(hospital.ask(moment, session, ask)?)
        })?;
        let mut progress = Progress::new("shared", self.crowd.patients);
        for number in self.crowd.ordinary() {
            self.visit(number)?;
            progress.step(number);
        }
        Ok(())
    }

    /// One patient's keys and answer: it is made again as it was when it joined.
    fn visit(&mut self, number: u32) -> anyhow::Result<()> {
        let mut visitor = Visitor::new(&self.crowd, number, self.study.now)?;
        // It did this before, and it was counted then.
        visitor.take(self.study.said(Kind::Announce)?, &mut Tally::default())?;
        let place = self.study.take_place(&self.crowd.name(number)?)?;
        let (roster, begin) = (self.study.said(Kind::Roster)?, self.study.said(Kind::Begin)?);
        let tally = self.study.tally(Part::Patient);
        visitor.take(roster, tally)?;
        let keys = visitor.take(place, tally)?;
        if self.crowd.drops(number) {
            self.write(keys)?;
            return self.cut_off(visitor, number, begin);
        }
        let values = self.values(number);
        let tally = self.study.tally(Part::Patient);
        visitor.offer(&self.crowd, values, &self.snapshot, tally)?;
        let shares = visitor.take(begin, tally)?;
        self.write(keys)?;
        self.write(shares)?;
        if (self.sample.len() as u32) < SAMPLE {
            self.sample.push(visitor);
        }
        Ok(())
    }

    /// A patient drops in the middle of what it writes: only half of it reaches the board.
    fn cut_off(&mut self, mut visitor: Visitor, number: u32, begin: study::Posted) -> anyhow::Result<()> {
        let mut lost = Tally::default();
        visitor.offer(&self.crowd, self.crowd.values(number), &self.snapshot, &mut lost)?;
        let mut shares = visitor.take(begin, &mut lost)?;
        shares.truncate(shares.len().div_ceil(2));
        // All of its processor time counts, as the last of it is spent before the first byte leaves.
        lost.round.up = 0;
        lost.round.messages = 0;
        self.study.tally(Part::Patient).round.add_scaled(lost.round, 1, 1);
        for outgoing in &shares {
            if matches!(&outgoing.address.to, To::One(name) if self.servers.contains(name)) {
                self.study.keep(outgoing);
            }
        }
        self.write(shares)
    }

    /// The values of a patient that does not drop, added to the sum in the clear.
    fn values(&mut self, number: u32) -> Vec<i64> {
        let values = self.crowd.values(number);
        self.truth.iter_mut().zip(&values).for_each(|(sum, value)| *sum += value);
        values
    }

    /// Writes what a patient that is no member wrote, and does all that follows.
    fn write(&mut self, written: Vec<Outgoing>) -> anyhow::Result<()> {
        for outgoing in written {
            self.study.tally(Part::Patient).wrote(&outgoing);
            self.study.write(outgoing);
        }
        self.study.settle()
    }

    /// Cohort, Confirms, sums and Result; the answer must be the true one.
    fn open(&mut self) -> anyhow::Result<()> {
        note!("the cohort is fixed and opened");
        let answer = self.study.finish()?;
        self.study.settle()?;
        self.check(&answer)?;
        let result = self.study.said(Kind::Result)?;
        let mut receipts = Tally::default();
        for visitor in &mut self.sample {
            visitor.take(result.clone(), &mut receipts)?;
        }
        let all = u64::from(self.rest() - self.crowd.members);
        self.study.tally(Part::Patient).round.add_scaled(receipts.round, all, self.sample.len() as u64);
        Ok(())
    }

    fn check(&self, answer: &Answer) -> anyhow::Result<()> {
        if answer.cohort != self.rest() {
            anyhow::bail!("the cohort is of {} patients and {} did not drop", answer.cohort, self.rest());
        }
        if answer.sum != self.truth {
            anyhow::bail!("the sum is not the true one");
        }
        Ok(())
    }

    fn report(&mut self, elapsed: Duration) -> Report {
        let sharing = self.plan.sharing();
        let parties = |part| match part {
            Part::Patient => self.crowd.patients - self.crowd.members,
            Part::Member => self.crowd.members,
            Part::Server => self.args.servers.into(),
            Part::Hospital => 1,
        };
        Report {
            patients: self.crowd.patients,
            dim: self.args.dim,
            ring: self.ring.bits(),
            drop: self.args.drop,
            committee: sharing.committee(),
            threshold: sharing.threshold(),
            servers: self.args.servers,
            seed: self.args.seed,
            cohort: self.rest(),
            elapsed,
            roles: self.study.tallies.iter().map(|(part, tally)| (*part, parties(*part), *tally)).collect(),
        }
    }
}

/// The ring, and the largest value whose sum over all patients it holds.
fn ring(args: &SimulateArgs) -> anyhow::Result<(Ring, u64)> {
    let Ok(ring) = Ring::new(args.ring) else {
        usage!("a ring of {} bits: use a multiple of 8 from 16 to 64", args.ring)
    };
    let most = (1u64 << (ring.bits() - 1)) - 1;
    match BOUND.min(most / u64::from(args.patients.max(1))) {
        0 => usage!("a ring of {} bits cannot hold the sum of {} patients: raise --ring", args.ring, args.patients),
        bound => Ok((ring, bound)),
    }
}

fn server_names(servers: u8) -> anyhow::Result<Vec<Name>> {
    (1..=servers).map(|number| Ok(format!("server-{number}").parse()?)).collect()
}

/// Says from time to time how many patients are through.
struct Progress {
    what: &'static str,
    of: u32,
    said: Instant,
}

impl Progress {
    fn new(what: &'static str, of: u32) -> Self {
        Self { what, of, said: Instant::now() }
    }

    fn step(&mut self, number: u32) {
        if self.said.elapsed() >= PROGRESS || number + 1 == self.of {
            self.said = Instant::now();
            note!("{} of {} patients {}", number + 1, self.of, self.what);
        }
    }
}

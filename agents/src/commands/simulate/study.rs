//! The parties that live through the whole simulation, hospital, servers and committee, and the messages between them.

use std::collections::{BTreeMap, VecDeque};

use anyhow::Context as _;
use bytes::Bytes;
use protocol::{
    Address, Answer, Effects, Event, Hospital, Input, Job, JobId, Kind, Moment, Name, Outgoing, Patient, Server, Time,
    To,
};
use rand::Rng as _;
use rand::rngs::StdRng;

use super::meter::{Part, Phase, StoreSize, Tally};
use crate::exit::Aborted;

/// When every study begins, by its clock.
pub const BEGIN: Time = Time(1_700_000_000_000);

/// A message that stands on the board.
pub type Posted = (Address, Bytes);

/// The machine of one party.
#[derive(Debug)]
pub enum Machine {
    /// The hospital.
    Hospital(Box<Hospital>),
    /// A server.
    Server(Box<Server>),
    /// A patient.
    Patient(Box<Patient>),
}

impl Machine {
    fn handle(&mut self, moment: &Moment, input: Input) -> Effects {
        match self {
            Machine::Hospital(hospital) => hospital.handle(moment, input),
            Machine::Server(server) => server.handle(moment, input),
            Machine::Patient(patient) => patient.handle(moment, input),
        }
    }
}

#[derive(Debug)]
struct Party {
    part: Part,
    machine: Machine,
    wake: Option<Time>,
    store: StoreSize,
}

/// A study under way. Its clock stands still while there is something to do.
#[derive(Debug)]
pub struct Study {
    /// Now, by its clock.
    pub now: Time,
    draws: StdRng,
    parties: BTreeMap<Name, Party>,
    queue: VecDeque<(Name, Input)>,
    /// What was written to all, by kind: Announce, Roster, Begin and Result.
    said: BTreeMap<Kind, (Address, Bytes)>,
    /// What waits for a patient that does not live now: its Place.
    waiting: BTreeMap<Name, (Address, Bytes)>,
    /// What servers may have to read again: vectors of patients that dropped.
    board: BTreeMap<Address, Bytes>,
    /// What each role has spent.
    pub tallies: BTreeMap<Part, Tally>,
    answer: Option<Answer>,
    failure: Option<anyhow::Error>,
}

impl Study {
    /// An empty study; `draws` is its randomness.
    pub fn new(draws: StdRng) -> Self {
        Self {
            now: BEGIN,
            draws,
            parties: BTreeMap::new(),
            queue: VecDeque::new(),
            said: BTreeMap::new(),
            waiting: BTreeMap::new(),
            board: BTreeMap::new(),
            tallies: Part::ALL.into_iter().map(|part| (part, Tally::default())).collect(),
            answer: None,
            failure: None,
        }
    }

    /// Adds a party that lives to the end.
    pub fn add(&mut self, name: Name, part: Part, machine: Machine) {
        self.parties.insert(name, Party { part, machine, wake: None, store: StoreSize::default() });
    }

    /// The tally of a role.
    pub fn tally(&mut self, part: Part) -> &mut Tally {
        self.tallies.entry(part).or_default()
    }

    /// The message of this kind that went to all.
    pub fn said(&self, kind: Kind) -> anyhow::Result<(Address, Bytes)> {
        self.said.get(&kind).cloned().with_context(|| format!("the study has no {kind}"))
    }

    /// The Place that waits for `name`; it is given away.
    pub fn take_place(&mut self, name: &Name) -> anyhow::Result<(Address, Bytes)> {
        self.waiting.remove(name).with_context(|| format!("{name} has no place"))
    }

    /// Gives a party a command and does all that follows.
    pub fn command<E: Into<anyhow::Error>>(
        &mut self,
        name: &Name,
        phase: Phase,
        command: impl FnOnce(&mut Machine, &Moment) -> Result<Effects, E>,
    ) -> anyhow::Result<()> {
        let moment = moment(self.now, &mut self.draws);
        let party = self.parties.get_mut(name).with_context(|| format!("{name} is no party"))?;
        let tally = self.tallies.entry(party.part).or_default();
        let effects = tally.run(phase, || command(&mut party.machine, &moment)).map_err(Into::into)?;
        self.carry_out(name, effects);
        // A command may bring the next wake nearer; the machine itself says so at the tick.
        self.queue.push_back((name.clone(), Input::Tick));
        self.settle()
    }

    /// Has a party that does not live here write a message.
    pub fn write(&mut self, outgoing: Outgoing) {
        let Outgoing { address, payload, .. } = outgoing;
        match &address.to {
            To::One(name) if self.parties.contains_key(name) => {
                self.queue.push_back((name.clone(), Input::Message { address, payload }));
            }
            To::One(name) => drop(self.waiting.insert(name.clone(), (address, payload))),
            To::All => {
                for name in self.parties.keys() {
                    let (address, payload) = (address.clone(), payload.clone());
                    self.queue.push_back((name.clone(), Input::Message { address, payload }));
                }
                self.said.insert(address.kind, (address, payload));
            }
        }
    }

    /// Keeps a message to be read again by its name.
    pub fn keep(&mut self, outgoing: &Outgoing) {
        self.board.insert(outgoing.address.clone(), outgoing.payload.clone());
    }

    /// Does all that is to be done now.
    pub fn settle(&mut self) -> anyhow::Result<()> {
        while let Some((name, input)) = self.queue.pop_front() {
            self.hand(&name, input);
        }
        self.failure.take().map_or(Ok(()), Err)
    }

    /// Moves the clock on, again and again, until there is an answer.
    pub fn finish(&mut self) -> anyhow::Result<Answer> {
        loop {
            self.settle()?;
            if let Some(answer) = self.answer.take() {
                return Ok(answer);
            }
            let next = self.parties.values().filter_map(|party| party.wake).min();
            self.now = self.now.max(next.context("the round came to a halt without an answer")?);
            for (name, party) in &mut self.parties {
                if party.wake.take_if(|wake| *wake <= self.now).is_some() {
                    self.queue.push_back((name.clone(), Input::Tick));
                }
            }
        }
    }

    fn hand(&mut self, name: &Name, input: Input) {
        let moment = moment(self.now, &mut self.draws);
        let Some(party) = self.parties.get_mut(name) else { return };
        let tally = self.tallies.entry(party.part).or_default();
        let phase = match &input {
            Input::Message { address, payload } => received(tally, address, payload.len()),
            Input::Read { address, payload } => received(tally, address, payload.as_ref().map_or(0, Bytes::len)),
            Input::Tick if !self.said.contains_key(&Kind::Begin) => Phase::Setup,
            _ => Phase::Round,
        };
        let effects = tally.run(phase, || party.machine.handle(&moment, input));
        self.carry_out(name, effects);
    }

    /// Store, send, read, run the jobs: what comes back waits its turn.
    fn carry_out(&mut self, name: &Name, effects: Effects) {
        let Some(party) = self.parties.get_mut(name) else { return };
        let tally = self.tallies.entry(party.part).or_default();
        party.store.commit(&effects.store);
        party.wake = effects.wake;
        tally.stored = tally.stored.max(party.store.peak);
        for (id, job) in effects.jobs {
            self.queue.push_back((name.clone(), run(tally, id, job)));
        }
        effects.send.iter().for_each(|outgoing| tally.wrote(outgoing));
        for outgoing in effects.send {
            let sent = outgoing.report.then(|| outgoing.address.clone());
            self.write(outgoing);
            self.queue.extend(sent.map(|address| (name.clone(), Input::Sent(address))));
        }
        for address in effects.read {
            let payload = self.board.remove(&address);
            self.queue.push_back((name.clone(), Input::Read { address, payload }));
        }
        effects.events.into_iter().for_each(|event| self.note(name, event));
    }

    fn note(&mut self, name: &Name, event: Event) {
        match event {
            Event::Opened(answer) => self.answer = Some(*answer),
            Event::Fault(fault) => self.fail(anyhow::anyhow!("{name} finds a fault where all are honest: {fault}")),
            Event::Aborted { reason, advice, .. } => self.fail(Aborted(format!("{reason}. {advice}")).into()),
            _ => {}
        }
    }

    /// The first failure is the one that counts.
    fn fail(&mut self, error: anyhow::Error) {
        self.failure.get_or_insert(error);
    }
}

/// The time and fresh bytes for one call.
pub fn moment(now: Time, draws: &mut StdRng) -> Moment {
    let mut fresh = [0; 32];
    draws.fill_bytes(&mut fresh);
    Moment::new(now, fresh)
}

/// Counts what is handed over; the phase that it belongs to.
pub fn received(tally: &mut Tally, address: &Address, bytes: usize) -> Phase {
    let phase = Phase::of(address.round);
    tally.phase(phase).down += bytes as u64;
    phase
}

/// Runs a job in place: all jobs belong to rounds.
pub fn run(tally: &mut Tally, id: JobId, job: Job) -> Input {
    Input::Done(id, tally.run(Phase::Round, || job.run()))
}

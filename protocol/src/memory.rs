//! A whole study in memory: the same machines without a broker, under a virtual clock and from one seed.
//!
//! It carries messages in the order in which they were written, runs jobs in place and keeps each party's store. A
//! [`Tamper`] may drop, repeat, delay, alter or add messages on their way: this is what tests and simulations are
//! made of. The same seed gives the same run.

mod party;
mod registry;

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::sync::Arc;

use bytes::Bytes;

use crate::desk::Me;
use crate::error::PlanError;
use crate::hospital::Hospital;
use crate::id::{Address, Kind, Name, Role, SessionId, Snapshot, Time, To};
use crate::job::{Job, Outcome};
use crate::kdf;
use crate::patient::{OfferError, Patient};
use crate::plan::{Ask, Plan};
use crate::records::Records;
use crate::server::Server;
use crate::step::{Answer, Effects, Event, Input, Moment};
use crate::task::{Policy, Record, Schema};

use party::{Machine, Party};
pub use registry::Registry;
pub(crate) use registry::signing_key;

/// A message on its way to one party.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Delivery {
    /// Whom it goes to.
    pub receiver: Name,
    /// Under which name it stands.
    pub address: Address,
    /// Its bytes.
    pub payload: Bytes,
    /// For how many milliseconds it is held back on its way.
    pub delay: u64,
}

/// One step of a machine, as a [`Watcher`] sees it.
#[derive(Debug)]
pub enum Step<'a> {
    /// What it is handed.
    Input(&'a Input),
    /// What follows from it.
    Effects(&'a Effects),
}

/// Looks on: each party's inputs and effects, in the order in which they happen.
pub type Watcher = Box<dyn FnMut(&Name, &Step<'_>)>;

/// What becomes of a message on its way: the deliveries that take its place.
pub type Tamper = Box<dyn FnMut(Delivery) -> Vec<Delivery>>;

/// Runs the jobs of all parties: what each gives.
pub(crate) type Worker = Box<dyn FnMut(&Name, Job) -> Outcome>;

/// A study in memory.
pub struct Network {
    seed: [u8; 32],
    draws: u64,
    now: Time,
    registry: Arc<Registry>,
    parties: BTreeMap<Name, Party>,
    board: BTreeMap<Address, Bytes>,
    /// The names of the board in the order in which they were written.
    written: Vec<Address>,
    queue: VecDeque<Delivery>,
    /// What parties asked to read and is not read yet.
    reads: VecDeque<(Name, Address)>,
    /// What is held back, by the time at which it goes on; the number keeps the order of equals.
    held: BTreeMap<(Time, u64), Delivery>,
    tamper: Option<Tamper>,
    watcher: Option<Watcher>,
    worker: Option<Worker>,
    events: Vec<(Name, Event)>,
}

impl Network {
    /// The moment at which every study begins, in milliseconds since the Unix epoch.
    pub const START: Time = Time(1_700_000_000_000);

    /// An empty study; everything random in it comes from `seed`.
    pub fn new(seed: u64) -> Self {
        Self {
            seed: kdf::derive("ward/1 memory seed", &seed.to_le_bytes(), &[]),
            draws: 0,
            now: Self::START,
            registry: Arc::default(),
            parties: BTreeMap::new(),
            board: BTreeMap::new(),
            written: Vec::new(),
            queue: VecDeque::new(),
            reads: VecDeque::new(),
            held: BTreeMap::new(),
            tamper: None,
            watcher: None,
            worker: None,
            events: Vec::new(),
        }
    }

    /// Now, by the study's clock.
    pub fn now(&self) -> Time {
        self.now
    }

    /// Moves the clock on by `millis` milliseconds, waking whom that wakes.
    pub fn sleep(&mut self, millis: u64) {
        let until = self.now.plus_millis(millis);
        self.run_until(until);
        self.now = until;
    }

    /// The time and fresh bytes for one input of a party.
    fn moment(&mut self, name: &Name) -> Moment {
        self.draws += 1;
        let (mut now, mut draw) = (self.now, self.draws);
        if let Some(party) = self.parties.get_mut(name) {
            now = party.tell(now);
            draw = party.draw.unwrap_or(draw);
        }
        Moment::new(now, kdf::derive("ward/1 memory draw", &self.seed, &[&draw.to_le_bytes()]))
    }

    /// Adds the hospital `name`.
    pub fn add_hospital(&mut self, name: &Name) {
        let me = self.registry.register(name, Role::Hospital);
        self.add(me.clone(), Machine::Hospital(Hospital::new(me)), None);
    }

    /// Adds the server `name`.
    pub fn add_server(&mut self, name: &Name) {
        let me = self.registry.register(name, Role::Server);
        self.add(me.clone(), Machine::Server(Server::new(me)), None);
    }

    /// Adds a patient, marked where `role` is member.
    pub fn add_patient(&mut self, name: &Name, role: Role, policy: Policy, schema: Schema) {
        let me = self.registry.register(name, role);
        let machine = Machine::Patient(Box::new(Patient::new(me.clone(), policy.clone(), schema.clone())));
        self.add(me, machine, Some((policy, schema)));
    }

    fn add(&mut self, me: Me, machine: Machine, patient: Option<(Policy, Schema)>) {
        let name = me.name.clone();
        self.parties.insert(name, Party::new(me, machine, patient));
    }

    /// Offers data under a snapshot.
    ///
    /// # Errors
    /// As [`Patient::offer`].
    ///
    /// # Panics
    /// If `name` is no living patient.
    #[allow(clippy::panic)]
    pub fn offer(&mut self, name: &Name, snapshot: &Snapshot, record: Record) -> Result<(), OfferError> {
        let moment = self.moment(name);
        let Some(Machine::Patient(patient)) = self.parties.get_mut(name).and_then(|party| party.machine.as_mut())
        else {
            panic!("{name} is no living patient")
        };
        let effects = patient.offer(snapshot.clone(), record, &moment)?;
        self.command(name, effects);
        Ok(())
    }

    /// Has the hospital open a session.
    pub fn announce(&mut self, plan: &Plan) -> Option<SessionId> {
        let moment = self.hospital_moment();
        let (name, hospital) = self.hospital()?;
        let (session, effects) = hospital.announce(&moment, plan);
        self.command(&name, effects);
        Some(session)
    }

    /// Has the hospital ask a question.
    ///
    /// # Errors
    /// As [`Hospital::ask`].
    pub fn ask(&mut self, session: SessionId, ask: Ask) -> Result<(), PlanError> {
        let moment = self.hospital_moment();
        let (name, hospital) = self.hospital().ok_or_else(|| PlanError::NoSession(session.short()))?;
        let effects = hospital.ask(&moment, session, ask)?;
        self.command(&name, effects);
        Ok(())
    }

    /// Has the hospital stop what runs in a session; with `last` the session ends.
    pub fn stop(&mut self, session: SessionId, last: bool) {
        let moment = self.hospital_moment();
        let Some((name, hospital)) = self.hospital() else { return };
        let effects = hospital.stop(&moment, session, last);
        self.command(&name, effects);
    }

    /// Carries out what an owner's command led to; the tick after it says when the machine is next to be woken.
    fn command(&mut self, name: &Name, effects: Effects) {
        self.carry_out(name, effects);
        self.hand(name, Input::Tick);
    }

    fn hospital_moment(&mut self) -> Moment {
        let name = self.parties.iter().find(|(_, party)| party.me.role == Role::Hospital).map(|(name, _)| name.clone());
        match name {
            Some(name) => self.moment(&name),
            None => Moment::new(self.now, [0; 32]),
        }
    }

    fn hospital(&mut self) -> Option<(Name, &mut Hospital)> {
        self.parties.iter_mut().find_map(|(name, party)| match &mut party.machine {
            Some(Machine::Hospital(hospital)) => Some((name.clone(), hospital)),
            _ => None,
        })
    }

    /// Puts `tamper` on the way of every message that is delivered from now on.
    pub fn tamper(&mut self, tamper: impl FnMut(Delivery) -> Vec<Delivery> + 'static) {
        self.tamper = Some(Box::new(tamper));
    }

    /// Has `watcher` look on from now on.
    pub fn watch(&mut self, watcher: impl FnMut(&Name, &Step<'_>) + 'static) {
        self.watcher = Some(Box::new(watcher));
    }

    /// Has `worker` run all jobs from now on, in place of the parties themselves.
    pub(crate) fn work(&mut self, worker: impl FnMut(&Name, Job) -> Outcome + 'static) {
        self.worker = Some(Box::new(worker));
    }

    /// How a party's machine prints; nothing for one that is not running.
    pub fn describe(&self, name: &Name) -> String {
        let machine = self.parties.get(name).and_then(|party| party.machine.as_ref());
        machine.map(|machine| format!("{machine:?}")).unwrap_or_default()
    }

    /// Puts all that the board has for a party on its way to it again, in no particular order, as a consumer does that
    /// is made anew.
    pub fn redeliver(&mut self, receiver: &Name) {
        let meant = self.board.iter().filter(|(address, _)| address.to.includes(receiver));
        self.queue.extend(meant.map(|(address, payload)| {
            let (receiver, address, payload) = (receiver.clone(), address.clone(), payload.clone());
            Delivery { receiver, address, payload, delay: 0 }
        }));
    }

    /// Writes a message to the board, as whoever has the keys to sign it could.
    pub fn post(&mut self, address: Address, payload: Bytes) {
        self.write(address, payload);
    }

    /// Puts a message on its way that does not stand on the board; a [`Tamper`] still meets it.
    pub fn inject(&mut self, delivery: Delivery) {
        self.queue.push_back(delivery);
    }

    /// Everything that was ever written, by address.
    pub fn board(&self) -> &BTreeMap<Address, Bytes> {
        &self.board
    }

    /// Forgets all messages of the board, and what is on its way: a broker that lost what it acknowledged.
    pub fn lose_everything(&mut self) {
        self.board.clear();
        self.written.clear();
        self.queue.clear();
        self.held.clear();
        self.parties.values_mut().for_each(|party| party.unacknowledged.clear());
    }

    /// Forgets the last `count` messages that were written, and what is on its way of them: a broker that died before
    /// they were on its disk. How many it had.
    pub fn lose_last(&mut self, count: usize) -> usize {
        let lost = self.written.split_off(self.written.len().saturating_sub(count));
        for address in &lost {
            self.board.remove(address);
        }
        let is_lost = |delivery: &Delivery| lost.contains(&delivery.address);
        self.queue.retain(|delivery| !is_lost(delivery));
        self.held.retain(|_, delivery| !is_lost(delivery));
        self.parties.values_mut().for_each(|party| party.unacknowledged.retain(|delivery| !is_lost(delivery)));
        lost.len()
    }

    /// Forgets a message of the board.
    pub fn lose(&mut self, address: &Address) {
        self.board.remove(address);
    }

    /// Has other bytes stand under a name of the board; what was delivered stays as it was.
    pub fn alter(&mut self, address: &Address, payload: Bytes) {
        self.board.insert(address.clone(), payload);
    }

    /// A party's identity and keys, to forge with in tests.
    pub fn me(&self, name: &Name) -> Option<&Me> {
        self.parties.get(name).map(|party| &party.me)
    }

    /// A party's store.
    pub fn store(&self, name: &Name) -> Option<&Records> {
        self.parties.get(name).map(|party| &party.store)
    }

    /// Gives a party another store, as from a backup; it counts from its next [`Network::revive`].
    pub fn restore_store(&mut self, name: &Name, store: Records) {
        if let Some(party) = self.parties.get_mut(name) {
            party.store = store;
        }
    }

    /// Gives a party a new certificate for its key; it has it from its next [`Network::revive`].
    pub fn renew(&mut self, name: &Name) {
        if let Some(party) = self.parties.get_mut(name) {
            party.renewals += 1;
            party.me = self.registry.issue(name, party.me.role, party.renewals);
        }
    }

    /// Has a party learn that the broker was away and is back.
    pub fn reconnect(&mut self, name: &Name) {
        self.hand(name, Input::Reconnected);
    }

    /// Stops a party at once; what is on its way to it waits until it is back.
    pub fn kill(&mut self, name: &Name) {
        let Some(party) = self.parties.get_mut(name) else { return };
        party.die();
        let (lost, queue) = std::mem::take(&mut self.queue).into_iter().partition(|one| one.receiver == *name);
        self.queue = queue;
        let lost: VecDeque<Delivery> = lost;
        party.unacknowledged.extend(lost);
        let (lost, held) = std::mem::take(&mut self.held).into_iter().partition(|(_, one)| one.receiver == *name);
        self.held = held;
        let lost: BTreeMap<(Time, u64), Delivery> = lost;
        party.unacknowledged.extend(lost.into_values());
        self.reads.retain(|(reader, _)| reader != name);
    }

    /// Has a party die the next time that it has stored what leads to a message of `kind`, before it is sent.
    pub fn kill_before_sending(&mut self, name: &Name, kind: Kind) {
        if let Some(party) = self.parties.get_mut(name) {
            party.dies_before = Some(kind);
        }
    }

    /// Has a party die when it has written `count` more messages: the rest of what it stored is not sent.
    pub fn kill_while_sending(&mut self, name: &Name, count: usize) {
        if let Some(party) = self.parties.get_mut(name) {
            party.dies_after = Some(count);
        }
    }

    /// Has a party not die of what it sends.
    pub fn spare(&mut self, name: &Name) {
        if let Some(party) = self.parties.get_mut(name) {
            party.disarm();
        }
    }

    /// Has what a party had not acknowledged come to it in the opposite order when it is back.
    pub fn reverse_unacknowledged(&mut self, name: &Name) {
        if let Some(party) = self.parties.get_mut(name) {
            party.unacknowledged.reverse();
        }
    }

    /// Whether a party is running.
    pub fn is_alive(&self, name: &Name) -> bool {
        self.parties.get(name).is_some_and(|party| party.machine.is_some())
    }

    /// Moves the clock of one party by `millis`: from now on it is ahead of the study's by so much more, or behind.
    pub fn skew(&mut self, name: &Name, millis: i64) {
        if let Some(party) = self.parties.get_mut(name) {
            party.ahead = party.ahead.saturating_add(millis);
        }
    }

    /// Has a party's jobs take until so many milliseconds from now, whatever else it is handed meanwhile.
    pub fn slow(&mut self, name: &Name, millis: u64) {
        let until = self.now.plus_millis(millis);
        if let Some(party) = self.parties.get_mut(name) {
            party.slow_until = until;
        }
    }

    /// Has a party draw the same random bytes from now on, as one does whose generator was copied with its disk.
    pub fn repeat_draws(&mut self, name: &Name) {
        let draw = self.draws;
        if let Some(party) = self.parties.get_mut(name) {
            party.draw.get_or_insert(draw);
        }
    }

    /// How many messages are on their way or held back.
    pub fn under_way(&self) -> usize {
        self.queue.len() + self.held.len()
    }

    /// Starts a party again from its store.
    pub fn revive(&mut self, name: &Name) {
        let Some(party) = self.parties.get_mut(name) else { return };
        let Some(machine) = party.machine_again(self.now) else { return };
        party.machine = Some(machine);
        let again = std::mem::take(&mut party.unacknowledged);
        self.hand(name, Input::Tick);
        self.queue.extend(again);
    }

    /// What happened so far, and to whom.
    pub fn events(&self) -> &[(Name, Event)] {
        &self.events
    }

    /// The answers that the hospital has so far.
    pub fn answers(&self) -> impl Iterator<Item = &Answer> {
        self.events.iter().filter_map(|(_, event)| match event {
            Event::Opened(answer) => Some(&**answer),
            _ => None,
        })
    }

    /// Runs until nothing is on its way and nobody wants to be woken within a day.
    pub fn run(&mut self) {
        self.run_until(self.now.plus_seconds(86_400));
    }

    fn run_until(&mut self, until: Time) {
        while self.advance(until) {}
    }

    /// The smallest step there is: one message, read or job or, where there is none, the next wake up to `until`; whether
    /// there was any of them.
    pub fn advance(&mut self, until: Time) -> bool {
        if self.step() {
            return true;
        }
        let wakes = self.parties.values().flat_map(|party| [party.due(), party.jobs_done()]).flatten();
        let next = wakes.chain(self.held.keys().map(|(time, _)| *time)).min().filter(|next| *next <= until);
        next.map(|next| self.wake(next)).is_some()
    }

    /// Reads or delivers one message or runs one job; whether there was one.
    pub fn step(&mut self) -> bool {
        if let Some((name, address)) = self.reads.pop_front() {
            let payload = self.board.get(&address).cloned();
            self.hand(&name, Input::Read { address, payload });
            return true;
        }
        let mut ready = self.parties.iter_mut().filter(|(_, party)| party.slow_until <= self.now);
        let job = ready.find_map(|(name, party)| Some((name.clone(), party.jobs.pop_front()?)));
        if let Some((name, (id, job))) = job {
            let outcome = match &mut self.worker {
                Some(worker) => worker(&name, job),
                None => job.run(),
            };
            self.hand(&name, Input::Done(id, outcome));
            return true;
        }
        let Some(delivery) = self.queue.pop_front() else { return false };
        let deliveries = match &mut self.tamper {
            Some(tamper) => tamper(delivery),
            None => vec![delivery],
        };
        for delivery in deliveries {
            self.deliver(delivery);
        }
        true
    }

    /// Hands a message over, or holds it back first.
    fn deliver(&mut self, delivery: Delivery) {
        let Delivery { receiver, address, payload, delay } = delivery;
        if delay == 0 {
            if let Some(party) = self.parties.get_mut(&receiver) {
                let (receiver, address, payload) = (receiver.clone(), address.clone(), payload.clone());
                party.unacknowledged.push(Delivery { receiver, address, payload, delay });
            }
            self.hand(&receiver, Input::Message { address, payload });
            return self.acknowledge(&receiver);
        }
        self.draws += 1;
        let due = (self.now.plus_millis(delay), self.draws);
        self.held.insert(due, Delivery { receiver, address, payload, delay: 0 });
    }

    /// A party acknowledges what it was handed once nothing of it is needed again, as every driver does.
    fn acknowledge(&mut self, name: &Name) {
        if let Some(party) = self.parties.get_mut(name)
            && party.machine.as_ref().is_some_and(|machine| !machine.is_in_round())
        {
            party.unacknowledged.clear();
        }
    }

    fn wake(&mut self, next: Time) {
        self.now = self.now.max(next);
        let later = self.held.split_off(&(Time(next.0.saturating_add(1)), 0));
        for delivery in std::mem::replace(&mut self.held, later).into_values() {
            self.deliver(delivery);
        }
        let due = self.parties.iter().filter(|(_, party)| party.due().is_some_and(|due| due <= next));
        for name in due.map(|(name, _)| name.clone()).collect::<Vec<_>>() {
            if let Some(party) = self.parties.get_mut(&name) {
                party.wake = None;
            }
            self.hand(&name, Input::Tick);
        }
    }

    fn hand(&mut self, name: &Name, input: Input) {
        let moment = self.moment(name);
        let Some(machine) = self.parties.get_mut(name).and_then(|party| party.machine.as_mut()) else { return };
        if let Some(watcher) = &mut self.watcher {
            watcher(name, &Step::Input(&input));
        }
        let effects = machine.handle(&moment, input);
        self.carry_out(name, effects);
    }

    /// Store, then send, then read, then jobs: the order that every driver keeps.
    fn carry_out(&mut self, name: &Name, effects: Effects) {
        if let Some(watcher) = &mut self.watcher {
            watcher(name, &Step::Effects(&effects));
        }
        let mut reports = Vec::new();
        if let Some(party) = self.parties.get_mut(name) {
            party.commit(effects.store);
            party.wake = effects.wake;
            party.jobs.extend(effects.jobs);
            if effects.send.iter().any(|sent| Some(sent.address.kind) == party.dies_before) {
                party.dies_before = None;
                return self.kill(name);
            }
        }
        for outgoing in effects.send {
            if self.dies_now(name) {
                return self.kill(name);
            }
            if outgoing.report {
                reports.push(outgoing.address.clone());
            }
            self.write(outgoing.address, outgoing.payload);
        }
        self.events.extend(effects.events.into_iter().map(|event| (name.clone(), event)));
        self.reads.extend(effects.read.into_iter().map(|address| (name.clone(), address)));
        for address in reports {
            self.hand(name, Input::Sent(address));
        }
    }

    /// Counts a message that a party is about to write; whether it dies before it does.
    fn dies_now(&mut self, name: &Name) -> bool {
        let Some(left) = self.parties.get_mut(name).and_then(|party| party.dies_after.as_mut()) else { return false };
        *left = left.wrapping_sub(1);
        *left == usize::MAX
    }

    /// Writes a message once; a second write of its name changes nothing.
    fn write(&mut self, address: Address, payload: Bytes) {
        if self.board.contains_key(&address) {
            return;
        }
        self.board.insert(address.clone(), payload.clone());
        self.written.push(address.clone());
        let receivers: BTreeSet<Name> = match &address.to {
            To::All => self.parties.keys().cloned().collect(),
            To::One(name) => BTreeSet::from([name.clone()]),
        };
        for receiver in receivers {
            let (address, payload) = (address.clone(), payload.clone());
            self.queue.push_back(Delivery { receiver, address, payload, delay: 0 });
        }
    }

    /// How many messages of `kind` stand on the board.
    pub fn count(&self, kind: Kind) -> usize {
        self.board.keys().filter(|address| address.kind == kind).count()
    }
}

impl std::fmt::Debug for Network {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Network({} parties, {} messages)", self.parties.len(), self.board.len())
    }
}

//! A party of a study in memory: its machine, its store, and what became of it.

use std::collections::VecDeque;

use super::Delivery;
use crate::desk::Me;
use crate::hospital::Hospital;
use crate::id::{Kind, Role, Time};
use crate::job::{Job, JobId};
use crate::patient::Patient;
use crate::records::Records;
use crate::server::Server;
use crate::step::{Effects, Input, Moment, Write};
use crate::task::{Policy, Schema};

/// The machine of one party.
#[derive(Debug)]
pub(super) enum Machine {
    Hospital(Hospital),
    Server(Server),
    Patient(Box<Patient>),
}

impl Machine {
    pub(super) fn is_in_round(&self) -> bool {
        match self {
            Machine::Hospital(hospital) => hospital.is_in_round(),
            Machine::Server(server) => server.is_in_round(),
            Machine::Patient(patient) => patient.is_in_round(),
        }
    }

    pub(super) fn handle(&mut self, moment: &Moment, input: Input) -> Effects {
        match self {
            Machine::Hospital(hospital) => hospital.handle(moment, input),
            Machine::Server(server) => server.handle(moment, input),
            Machine::Patient(patient) => patient.handle(moment, input),
        }
    }
}

/// One party: its machine, its store and how to make it anew.
pub(super) struct Party {
    pub(super) me: Me,
    /// How often its certificate was renewed.
    pub(super) renewals: u32,
    pub(super) machine: Option<Machine>,
    /// What a patient shares and what with: other parties have none.
    patient: Option<(Policy, Schema)>,
    pub(super) store: Records,
    pub(super) wake: Option<Time>,
    /// It dies between storing and sending a message of this kind.
    pub(super) dies_before: Option<Kind>,
    /// It dies when it has written so many more messages, with the rest of them stored and not sent.
    pub(super) dies_after: Option<usize>,
    /// By how many milliseconds its clock is ahead of the study's.
    pub(super) ahead: i64,
    /// The last time that it was told since it runs.
    told: Time,
    /// Jobs that are not run yet: a party that dies loses them.
    pub(super) jobs: VecDeque<(JobId, Job)>,
    /// Until when its jobs take, by the study's clock.
    pub(super) slow_until: Time,
    /// The draw that it is handed again and again, where it is to repeat itself.
    pub(super) draw: Option<u64>,
    /// What it was handed, or should have been, and has not acknowledged: it comes again when the party is back.
    pub(super) unacknowledged: Vec<Delivery>,
}

impl Party {
    pub(super) fn new(me: Me, machine: Machine, patient: Option<(Policy, Schema)>) -> Self {
        Self {
            me,
            renewals: 0,
            machine: Some(machine),
            patient,
            store: Records::new(),
            wake: None,
            dies_before: None,
            dies_after: None,
            ahead: 0,
            told: Time(0),
            jobs: VecDeque::new(),
            slow_until: Time(0),
            draw: None,
            unacknowledged: Vec::new(),
        }
    }

    /// Now, by its own clock.
    pub(super) fn now(&self, now: Time) -> Time {
        Time(now.0.saturating_add_signed(self.ahead))
    }

    /// Now, as its machine is told: a clock that is set back stands still for a machine that runs.
    pub(super) fn tell(&mut self, now: Time) -> Time {
        self.told = self.told.max(self.now(now));
        self.told
    }

    /// When it wants to be woken, by the study's clock.
    pub(super) fn due(&self) -> Option<Time> {
        self.wake.map(|wake| Time(wake.0.saturating_add_signed(-self.ahead)))
    }

    /// When its slow jobs are done, where it has any.
    pub(super) fn jobs_done(&self) -> Option<Time> {
        (!self.jobs.is_empty()).then_some(self.slow_until)
    }

    /// Keeps what it stores.
    pub(super) fn commit(&mut self, writes: Vec<Write>) {
        for Write { key, value } in writes {
            match value {
                Some(value) => drop(self.store.insert(key, value)),
                None => drop(self.store.remove(&key)),
            }
        }
    }

    /// Stops its machine at once.
    pub(super) fn die(&mut self) {
        self.machine = None;
        self.wake = None;
        self.told = Time(0);
        self.jobs.clear();
        self.disarm();
    }

    /// It does not die of what it sends.
    pub(super) fn disarm(&mut self) {
        self.dies_before = None;
        self.dies_after = None;
    }

    /// Makes its machine anew from its store; `None` where it cannot be read: such a party does not start.
    pub(super) fn machine_again(&self, now: Time) -> Option<Machine> {
        let (me, store) = (self.me.clone(), &self.store);
        Some(match (&self.patient, me.role) {
            (Some((policy, schema)), _) => {
                Machine::Patient(Box::new(Patient::restore(me, policy.clone(), schema.clone(), store).ok()?))
            }
            (None, Role::Server) => Machine::Server(Server::restore(me, store, self.now(now))),
            (None, _) => Machine::Hospital(Hospital::restore(me, store)),
        })
    }
}

//! A patient that lives only while it has something to do.

use std::collections::VecDeque;

use protocol::{Effects, Event, Input, Outgoing, Patient, Snapshot, Time};
use rand::rngs::StdRng;

use super::crowd::Crowd;
use super::meter::{Phase, StoreSize, Tally};
use super::study::{Posted, moment, received, run};

/// A patient that is no member, with what it spends.
#[derive(Debug)]
pub struct Visitor {
    number: u32,
    machine: Patient,
    draws: StdRng,
    now: Time,
    store: StoreSize,
}

impl Visitor {
    /// Patient `number` of `crowd`: the same whenever it is made.
    pub fn new(crowd: &Crowd, number: u32, now: Time) -> anyhow::Result<Self> {
        let (machine, draws) = (crowd.patient(number)?, crowd.draws(b'd', number));
        Ok(Self { number, machine, draws, now, store: StoreSize::default() })
    }

    /// Offers `record`'s data.
    pub fn offer(
        &mut self,
        crowd: &Crowd,
        values: Vec<i64>,
        snapshot: &Snapshot,
        tally: &mut Tally,
    ) -> anyhow::Result<()> {
        let (record, moment) = (crowd.record(values)?, moment(self.now, &mut self.draws));
        let effects = tally.run(Phase::Round, || self.machine.offer(snapshot.clone(), record, &moment))?;
        self.store.commit(&effects.store);
        Ok(())
    }

    /// Takes a message and does all that follows; what it writes, in that order, as if the board took all of it.
    pub fn take(&mut self, message: Posted, tally: &mut Tally) -> anyhow::Result<Vec<Outgoing>> {
        let (address, payload) = message;
        let phase = received(tally, &address, payload.len());
        let mut inputs = VecDeque::from([Input::Message { address, payload }]);
        let mut written = Vec::new();
        while let Some(input) = inputs.pop_front() {
            let moment = moment(self.now, &mut self.draws);
            let Effects { store, send, jobs, events, .. } = tally.run(phase, || self.machine.handle(&moment, input));
            if let Some(fault) = events.iter().find(|event| matches!(event, Event::Fault(_))) {
                anyhow::bail!("patient {} finds a fault where all are honest: {fault:?}", self.number);
            }
            self.store.commit(&store);
            inputs.extend(jobs.into_iter().map(|(id, job)| run(tally, id, job)));
            inputs.extend(send.iter().filter(|one| one.report).map(|one| Input::Sent(one.address.clone())));
            written.extend(send);
        }
        tally.stored = tally.stored.max(self.store.peak);
        Ok(written)
    }
}

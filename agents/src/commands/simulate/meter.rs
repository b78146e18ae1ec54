//! What each role spends: processor time, bytes and messages, set-up and round apart.

use std::collections::HashMap;
use std::hash::{BuildHasher as _, RandomState};
use std::time::Duration;

use protocol::{Outgoing, RoundNo, Write};

use crate::spent::thread_time;

/// Whose work it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Part {
    /// A patient that is no member.
    Patient,
    /// A member of the committee, with its work as a patient.
    Member,
    /// A server.
    Server,
    /// The hospital.
    Hospital,
}

impl Part {
    /// All of them, in the order of a report.
    pub const ALL: [Part; 4] = [Part::Patient, Part::Member, Part::Server, Part::Hospital];

    /// Its name in a report.
    pub fn as_str(self) -> &'static str {
        match self {
            Part::Patient => "patient",
            Part::Member => "member",
            Part::Server => "server",
            Part::Hospital => "hospital",
        }
    }
}

/// What the work is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Phase {
    /// Once per session: who takes part, and the keys of each pair.
    Setup,
    /// One question, from its Begin to its Result.
    Round,
}

impl Phase {
    /// The phase that messages of `round` belong to.
    pub fn of(round: RoundNo) -> Self {
        if round == RoundNo::SETUP { Phase::Setup } else { Phase::Round }
    }
}

/// What some work took.
#[derive(Clone, Copy, Debug, Default)]
pub struct Load {
    /// Processor time of the machine's calls and jobs.
    pub cpu: Duration,
    /// Bytes of the payloads written, once for each receiver that the message names.
    pub up: u64,
    /// Bytes of the payloads delivered or read.
    pub down: u64,
    /// Messages written.
    pub messages: u64,
}

impl Load {
    /// Adds `other`, `times` over `of`: a sample stands for all.
    pub fn add_scaled(&mut self, other: Load, times: u64, of: u64) {
        let scale = |amount: u64| (u128::from(amount) * u128::from(times) / u128::from(of.max(1))) as u64;
        self.cpu += Duration::from_nanos(scale(other.cpu.as_nanos() as u64));
        self.up += scale(other.up);
        self.down += scale(other.down);
        self.messages += scale(other.messages);
    }
}

/// What all parties of one role took.
#[derive(Clone, Copy, Debug, Default)]
pub struct Tally {
    /// In set-up.
    pub setup: Load,
    /// In the round.
    pub round: Load,
    /// The most bytes that the store of one of them held.
    pub stored: u64,
}

impl Tally {
    /// The load of one phase.
    pub fn phase(&mut self, phase: Phase) -> &mut Load {
        match phase {
            Phase::Setup => &mut self.setup,
            Phase::Round => &mut self.round,
        }
    }

    /// Runs `work` and counts its processor time.
    pub fn run<T>(&mut self, phase: Phase, work: impl FnOnce() -> T) -> T {
        let begun = thread_time();
        let done = work();
        self.phase(phase).cpu += thread_time().saturating_sub(begun);
        done
    }

    /// Counts a message that was written.
    pub fn wrote(&mut self, outgoing: &Outgoing) {
        let load = self.phase(Phase::of(outgoing.address.round));
        load.up += outgoing.payload.len() as u64;
        load.messages += 1;
    }
}

/// How large a party's store is; the records themselves are not kept.
#[derive(Debug, Default)]
pub struct StoreSize {
    /// By a hash of each key: the size of key and value.
    records: HashMap<u64, u32>,
    hasher: RandomState,
    bytes: u64,
    /// The most it ever was.
    pub peak: u64,
}

impl StoreSize {
    /// Takes note of one transaction.
    pub fn commit(&mut self, writes: &[Write]) {
        for write in writes {
            let key = self.hasher.hash_one(&write.key);
            let size = write.value.as_ref().map(|value| (write.key.len() + value.len()) as u32);
            let before = match size {
                Some(size) => self.records.insert(key, size),
                None => self.records.remove(&key),
            };
            self.bytes = self.bytes + u64::from(size.unwrap_or(0)) - u64::from(before.unwrap_or(0));
        }
        self.peak = self.peak.max(self.bytes);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_store_is_as_large_as_what_it_holds() {
        let write = |key: &str, value: Option<usize>| Write {
            key: key.into(),
            value: value.map(|length| vec![0; length].into()),
        };
        let mut size = StoreSize::default();
        size.commit(&[write("a", Some(9)), write("b", Some(19)), write("a", Some(4))]);
        assert_eq!((size.bytes, size.peak), (25, 25));
        size.commit(&[write("b", None), write("c", None)]);
        assert_eq!((size.bytes, size.peak), (5, 25));
    }

    #[test]
    fn a_sample_stands_for_all() {
        let one = Load { cpu: Duration::from_micros(30), up: 3, down: 300, messages: 3 };
        let mut all = Load { up: 1, ..Load::default() };
        all.add_scaled(one, 100, 3);
        assert_eq!((all.cpu, all.up, all.down, all.messages), (Duration::from_millis(1), 101, 10_000, 100));
    }
}

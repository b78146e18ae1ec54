//! A fault from its moment until everything is as it was.

use std::time::{Duration, Instant};

use rustix::process::{Pid, Signal, kill_process};

use super::network::Weather;
use super::process::{Process, fill_disk, free_disk};
use super::report::Happened;
use super::scenario::{Blow, Fault, Whom};
use super::stage::{Life, Stage};

/// How long each piece of a slow way takes.
const DELAY: Duration = Duration::from_millis(15);

/// Something that goes wrong now.
#[derive(Debug)]
pub struct Trouble {
    /// What.
    pub fault: Fault,
    /// As it is counted.
    pub happened: Happened,
    /// With whom.
    pub name: String,
    /// It is to end now.
    pub is_over: bool,
    /// When so many messages are on the board it ends.
    messages: u32,
    began: Instant,
    /// The processes of nats-server, where it strikes them: the scenario did not start them itself.
    nats_servers: Vec<Pid>,
}

impl Trouble {
    /// Lets it go wrong with a party that runs.
    pub fn begin(fault: Fault, happened: Happened, name: String, stage: &mut Stage, seen: u32) -> Self {
        let messages = seen + fault.span.map_or(0, |span| span.messages);
        let began = Instant::now();
        let mut trouble = Self { fault, happened, name, is_over: false, messages, began, nats_servers: Vec::new() };
        trouble.strike(stage);
        trouble
    }

    fn strike(&mut self, stage: &mut Stage) {
        if self.fault.whom == Whom::NatsServer {
            self.nats_servers = stage.nats_servers();
        }
        let Some(party) = stage.parties.get_mut(&self.name) else { return };
        if self.fault.blow.moves_clock() {
            party.clock.iter().for_each(|clock| clock.move_to(self.fault.clock));
        }
        match self.fault.blow {
            Blow::Kill | Blow::Clock => {
                party.life = Life::Dies;
                self.signal(&party.process, Signal::KILL);
            }
            Blow::Jump => {}
            Blow::Pause => self.signal(&party.process, Signal::STOP),
            Blow::Cut => party.turn(Weather::Cut),
            Blow::Slow => party.turn(Weather::Slow(DELAY)),
            Blow::FullDisk => {
                party.had_full_disk = true;
                self.written_by(&party.process).for_each(fill_disk);
            }
        }
    }

    /// Signals nats-server where it strikes that, else the party's own process.
    fn signal(&self, process: &Process, signal: Signal) {
        if self.nats_servers.is_empty() {
            process.signal(signal);
        }
        for pid in &self.nats_servers {
            // One may have ended meanwhile.
            let _ = kill_process(*pid, signal);
        }
    }

    /// Whose files it is about.
    fn written_by(&self, process: &Process) -> impl Iterator<Item = Pid> {
        let own = self.nats_servers.is_empty().then(|| process.pid());
        own.into_iter().chain(self.nats_servers.clone())
    }

    /// Whether who died with this code died of it: who was about to end may have ended by itself before it was killed.
    pub fn killed(&self, code: Option<i32>) -> bool {
        code.is_none() || self.fault.whom == Whom::NatsServer
    }

    /// When it ends at the latest.
    pub fn due(&self) -> Option<Instant> {
        let span = self.fault.span.filter(|_| !self.is_over);
        span.map(|span| self.began + span.most)
    }

    /// Ends it if it has lasted long enough; whether everything is as it was.
    pub fn mend(&mut self, stage: &mut Stage, seen: u32) -> bool {
        let lasted = self.fault.span.is_some() && seen >= self.messages;
        self.is_over |= lasted || self.due().is_some_and(|due| Instant::now() >= due);
        let Some(party) = stage.parties.get_mut(&self.name) else { return true };
        if !self.is_over && party.life != Life::Done {
            return false;
        }
        match self.fault.blow {
            Blow::Kill | Blow::Clock | Blow::FullDisk if party.life == Life::Dies => return false,
            Blow::Kill | Blow::Clock | Blow::FullDisk if party.life == Life::Fallen => stage.start_again(&self.name),
            Blow::Kill | Blow::Clock | Blow::Jump => {}
            Blow::FullDisk => self.written_by(&party.process).for_each(free_disk),
            Blow::Pause => self.signal(&party.process, Signal::CONT),
            Blow::Cut | Blow::Slow => party.turn(Weather::Clear),
        }
        true
    }
}

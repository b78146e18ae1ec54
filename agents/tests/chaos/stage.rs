//! The parties of a scenario, each a process of its own over one home that is nobody else's.

use std::collections::BTreeMap;
use std::fs;
use std::path::PathBuf;
use std::process::Command;
use std::sync::mpsc::{Receiver, Sender, channel};

use super::clock::Clock;
use super::left::strays;
use super::network::{Way, Weather};
use super::process::{News, Process};
use super::scenario::{Blow, JOIN_SECONDS, RETRIES, ROUND_SECONDS, Scenario};
use super::support::Home;

/// The folders that processes may use as they like, beside the home: nothing may stay in them.
const FOLDERS: [(&str, &str); 2] = [("TMPDIR", "temporary"), ("HOME", "user")];

/// Where the files of the clocks are, beside the home.
const CLOCKS: &str = "clocks";

/// How far a party is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Life {
    /// It was started.
    Starts,
    /// It has said that it is ready.
    Ready,
    /// It was killed, and its end is awaited.
    Dies,
    /// It has ended before its time: it is to be started again.
    Fallen,
    /// It has ended as it should.
    Done,
}

/// A party: its command line, and what became of it.
pub struct Party {
    words: Vec<String>,
    /// How it reaches the broker, where it does not find it by itself.
    way: Option<Way>,
    /// Its clock, where one may be moved.
    pub clock: Option<Clock>,
    /// Its process of the moment.
    pub process: Process,
    pub life: Life,
    /// It has a certificate of its study.
    pub is_enrolled: bool,
    /// Its disk was full in this life.
    pub had_full_disk: bool,
    /// What it printed and said, over all its lives.
    pub log: Vec<String>,
}

impl Party {
    /// Whether this can go wrong with it now. By a clock that is ahead a certificate would be made that is not yet valid.
    pub fn can_suffer(&self, blow: Blow) -> bool {
        matches!(self.life, Life::Starts | Life::Ready) && (!blow.moves_clock() || self.is_enrolled)
    }

    /// Changes how its way to the broker is.
    pub fn turn(&self, weather: Weather) {
        self.way.iter().for_each(|way| way.turn(weather));
    }
}

/// All parties.
pub struct Stage {
    pub home: Home,
    pub parties: BTreeMap<String, Party>,
    news: Sender<News>,
    has_ways: bool,
    has_clocks: bool,
}

impl Stage {
    /// An empty one, and what will be told of it.
    pub fn new(scenario: &Scenario) -> (Self, Receiver<News>) {
        let (news, told) = channel();
        let home = Home::new();
        FOLDERS.iter().for_each(|(_, folder)| fs::create_dir(home.file(folder)).unwrap());
        fs::create_dir(home.file(CLOCKS)).unwrap();
        let has_ways = scenario.has(|blow| matches!(blow, Blow::Cut | Blow::Slow));
        let has_clocks = scenario.has(Blow::moves_clock);
        (Self { home, parties: BTreeMap::new(), news, has_ways, has_clocks }, told)
    }

    /// Starts everybody but the hospital.
    pub fn open(&mut self, scenario: &Scenario) {
        self.start("broker", "broker", false);
        self.start("watch", "watch", false);
        scenario.server_names().for_each(|name| self.start(&name, &format!("server --name {name}"), true));
        for (number, name) in scenario.patient_names().enumerate() {
            let value = Scenario::value(number as u8);
            self.start(&name, &format!("patient {name} {value}"), true);
        }
    }

    /// Starts a hospital that asks.
    pub fn ask(&mut self, scenario: &Scenario) {
        let Scenario { patients, committee, threshold, min_cohort, rounds, .. } = scenario;
        let servers: String = scenario.server_names().map(|name| format!(" --server {name}")).collect();
        let words = format!(
            "--json hospital sum --patients {patients} --committee {committee} --threshold {threshold} --min-cohort \
             {min_cohort} --join-seconds {JOIN_SECONDS} --round-seconds {ROUND_SECONDS} --retries {RETRIES} --rounds \
             {rounds}{servers}"
        );
        match self.parties.contains_key("hospital") {
            true => self.start_again("hospital"),
            false => self.start("hospital", &words, true),
        }
    }

    /// Starts a party; one of the study is told the way to the broker and the time as the scenario wants it.
    fn start(&mut self, name: &str, words: &str, of_study: bool) {
        let way = (of_study && self.has_ways).then(|| Way::open(self.home.path().join("broker/address")));
        let clock = (of_study && self.has_clocks).then(|| Clock::new(self.home.file(CLOCKS).join(name)));
        let to_broker = way.iter().flat_map(|way| ["--broker".to_string(), way.address()]);
        let words: Vec<String> = to_broker.chain(words.split(' ').map(Into::into)).collect();
        let process = Process::start(name, self.command(&words, clock.as_ref()), &self.news);
        // A home is made with its hospital.
        let is_enrolled = name == "hospital";
        let (life, log) = (Life::Starts, Vec::new());
        let party = Party { words, way, clock, process, life, is_enrolled, had_full_disk: false, log };
        self.parties.insert(name.into(), party);
    }

    /// Starts a party that has ended, with the command line of before.
    pub fn start_again(&mut self, name: &str) {
        let party = &self.parties[name];
        let command = self.command(&party.words, party.clock.as_ref());
        let process = Process::start(name, command, &self.news);
        if let Some(party) = self.parties.get_mut(name) {
            (party.process, party.life, party.had_full_disk) = (process, Life::Starts, false);
            party.log.push("-- started again".into());
        }
    }

    /// `ward` with these words. It is killed with this process, say by Ctrl-C; and it is not killed where a file may not grow,
    /// but told so, as on a full disk.
    fn command(&self, words: &[String], clock: Option<&Clock>) -> Command {
        let ward = self.home.command_of(&words.iter().map(String::as_str).collect::<Vec<_>>());
        let mut command = Command::new(ward.get_program());
        command.args(["exec-tied", "sh", "-c", r#"trap "" XFSZ; exec "$@""#, "sh"]);
        command.arg(ward.get_program()).args(ward.get_args());
        for (key, value) in ward.get_envs() {
            match value {
                Some(value) => command.env(key, value),
                None => command.env_remove(key),
            };
        }
        command.envs(FOLDERS.map(|(variable, folder)| (variable, self.home.file(folder))));
        command.current_dir(self.home.file("user"));
        clock.iter().for_each(|clock| clock.give(&mut command));
        command
    }

    /// The processes of nats-server.
    pub fn nats_servers(&self) -> Vec<rustix::process::Pid> {
        let all = self.home.processes().into_iter();
        all.filter(|process| process.command_line.contains("nats-server.conf")).map(|process| process.pid).collect()
    }

    /// Once all have ended: no process is left, and with it no socket, and no file but what a home keeps.
    pub fn nothing_is_left(&self) -> Result<(), String> {
        let left: Vec<String> = self.home.processes().into_iter().map(|process| process.command_line).collect();
        if !left.is_empty() {
            return Err(format!("left running: {left:#?}"));
        }
        let of_processes = FOLDERS.iter().flat_map(|(_, folder)| fs::read_dir(self.home.file(folder)).unwrap());
        let files: Vec<PathBuf> =
            of_processes.map(|file| file.unwrap().path()).chain(strays(&self.home.path())).collect();
        if files.is_empty() { Ok(()) } else { Err(format!("left behind: {files:?}")) }
    }

    /// The last lines of everybody's log, at most so many each.
    pub fn last_words(&self, lines: usize) -> String {
        let words = self.parties.iter().map(|(name, party)| {
            let last = &party.log[party.log.len().saturating_sub(lines)..];
            last.iter().map(|line| format!("  {name:9} | {line}\n")).collect::<String>()
        });
        words.collect()
    }

    /// Keeps the folder of a scenario that failed, with everybody's log; where.
    pub fn keep(&mut self) -> PathBuf {
        fs::write(self.home.file("log"), self.last_words(usize::MAX)).unwrap();
        self.home.keep()
    }
}

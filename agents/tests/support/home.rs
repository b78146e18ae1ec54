//! A home, and `ward` over it.

use std::collections::BTreeSet;
use std::fs;
use std::path::PathBuf;
use std::process::Command;

use certs::Credentials;
use nats::Endpoint;

use super::processes::{self, Process};
use super::{Ended, PATIENCE, Party, nats_server};

/// A home of its own for one test.
pub struct Home {
    dir: tempfile::TempDir,
    log: Option<&'static str>,
}

impl Home {
    /// An empty one: nothing is created before `ward` does it.
    pub fn new() -> Self {
        Self::logging(None)
    }

    /// An empty one, whose processes have this for `WARD_LOG`.
    pub fn logging(log: Option<&'static str>) -> Self {
        Self { dir: tempfile::Builder::new().prefix("ward-test-").tempdir().unwrap(), log }
    }

    /// One with a CA, and with a broker that is ready.
    pub fn with_broker() -> (Self, Party) {
        let home = Self::new();
        let broker = home.broker();
        (home, broker)
    }

    /// The home itself; [`Home::file`] names things beside it.
    pub fn path(&self) -> PathBuf {
        self.dir.path().join("home")
    }

    /// A place for a file of the test's own, not in the home.
    pub fn file(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    /// Writes a file of the test's own.
    pub fn write(&self, name: &str, text: &str) -> PathBuf {
        let path = self.file(name);
        fs::write(&path, text).unwrap();
        path
    }

    /// `ward` over this home, with these words.
    pub fn command(&self, words: &str) -> Command {
        self.command_of(&words.split_whitespace().collect::<Vec<_>>())
    }

    /// `ward` over this home, with these arguments.
    pub fn command_of(&self, arguments: &[&str]) -> Command {
        let mut command = Command::new(env!("CARGO_BIN_EXE_ward"));
        command.arg("--home").arg(self.path()).args(arguments);
        command.env_remove("WARD_HOME").env_remove("WARD_LOG").env("WARD_NATS_SERVER", nats_server());
        if let Some(log) = self.log {
            command.env("WARD_LOG", log);
        }
        command
    }

    /// Starts `ward` with these words.
    pub fn start(&self, words: &str) -> Party {
        Party::spawn(words, self.command(words))
    }

    /// Starts `ward` with these arguments.
    pub fn start_of(&self, arguments: &[&str]) -> Party {
        Party::spawn(&arguments.join(" "), self.command_of(arguments))
    }

    /// Starts `ward` with these arguments and says a line on its standard input, which stays open.
    pub fn start_fed(&self, arguments: &[&str], line: &str) -> Party {
        Party::spawn_fed(&arguments.join(" "), self.command_of(arguments), line)
    }

    /// Runs `ward` with these words to its end.
    #[track_caller]
    pub fn run(&self, words: &str) -> Ended {
        self.start(words).ended()
    }

    /// Runs `ward` with these arguments to its end.
    #[track_caller]
    pub fn run_of(&self, arguments: &[&str]) -> Ended {
        self.start_of(arguments).ended()
    }

    /// A broker that is ready.
    pub fn broker(&self) -> Party {
        let mut broker = self.start("broker");
        broker.says("broker ready at");
        broker
    }

    /// A server that is ready.
    pub fn server(&self) -> Party {
        self.ready("server")
    }

    /// A patient that is ready.
    pub fn patient(&self, name: &str, value: &str) -> Party {
        self.ready(&format!("patient {name} {value}"))
    }

    /// A server or patient, started with these words, that is ready.
    pub fn ready(&self, words: &str) -> Party {
        let mut party = self.start(words);
        party.says("is ready");
        party
    }

    /// Asks for the sum and waits for the answer or the refusal.
    pub fn sum(&self, more: &str) -> Ended {
        self.run(&format!("--json hospital sum {more}"))
    }

    /// Hands new data to a patient's running agent.
    pub fn hand_over(&self, words: &str) -> Ended {
        let ended = self.run(&format!("patient {words}"));
        assert_eq!(ended.code, Some(0), "{ended:?}");
        assert!(ended.stderr.contains("runs already and took the data"), "{ended:?}");
        ended
    }

    /// The folder of the party `name`.
    pub fn party_dir(&self, name: &str) -> PathBuf {
        self.path().join("parties").join(name)
    }

    /// The key and certificates of the party `name`.
    pub fn credentials(&self, name: &str) -> Credentials {
        Credentials::load(self.party_dir(name)).unwrap()
    }

    /// Where its broker, which is ready, listens.
    pub fn endpoint(&self) -> Endpoint {
        fs::read_to_string(self.path().join("broker/address")).unwrap().trim().parse().unwrap()
    }

    /// The processes whose command line names this home: Ward's own and nats-server.
    pub fn processes(&self) -> Vec<Process> {
        processes::running(self.dir.path().to_str().unwrap())
    }

    /// Waits until no process of this home is left.
    #[track_caller]
    pub fn is_quiet(&self) {
        self.is_rid_of("");
    }

    /// Waits until no process of this home is left whose command line contains `text`.
    #[track_caller]
    pub fn is_rid_of(&self, text: &str) {
        // One that ends may have started another.
        while let Some(process) = self.processes().into_iter().find(|process| process.command_line.contains(text)) {
            assert!(process.ends_within(PATIENCE), "left running: {}", process.command_line);
        }
    }

    /// The ports from which connections to this home's broker are open: one that was lost and made again has another.
    pub fn connections(&self) -> BTreeSet<u16> {
        let broker = self.endpoint().port;
        let port = |address: &str| u16::from_str_radix(address.split(':').nth(1).unwrap(), 16).unwrap();
        let table = fs::read_to_string("/proc/net/tcp").unwrap();
        let rows = table.lines().skip(1).map(|line| line.split_whitespace().collect::<Vec<_>>());
        // 01 is an open one.
        let ours = rows.filter(|row| port(row[2]) == broker && row[3] == "01");
        ours.map(|row| port(row[1])).collect()
    }

    /// Lets the folder stay when this is dropped; where it is.
    pub fn keep(&mut self) -> PathBuf {
        self.dir.disable_cleanup(true);
        self.dir.path().into()
    }

    /// No process of this home is left, at once.
    #[track_caller]
    pub fn nothing_runs(&self) {
        let left: Vec<String> = self.processes().into_iter().map(|process| process.command_line).collect();
        assert!(left.is_empty(), "left running: {left:#?}");
    }
}

impl Drop for Home {
    fn drop(&mut self) {
        // All are killed before one is waited for; then nobody writes into the folder any more, and it can go.
        let left = self.processes();
        left.iter().for_each(Process::kill);
        left.iter().for_each(|process| {
            process.ends_within(PATIENCE);
        });
    }
}

//! The real `ward`, in processes of their own, over a home that goes away with the test.
//!
//! Nothing here sleeps for a fixed time: one waits for a line, for an end, or for a state, with [`PATIENCE`]. Whatever a
//! test started is killed when its [`Party`] is dropped.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, dead_code, unreachable_pub)]

use std::fs;
use std::io::{BufRead as _, BufReader, Read};
use std::os::unix::process::CommandExt as _;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::{LazyLock, mpsc};
use std::time::{Duration, Instant};

pub use rustix::process::Signal;
use rustix::process::{Pid, kill_process, kill_process_group};
use serde_json::Value;

/// Longer than anything here takes on a slow and busy machine; only a failure waits for it.
pub const PATIENCE: Duration = Duration::from_secs(60);
/// How often a state is looked at that tells nobody when it changes.
const LOOK: Duration = Duration::from_millis(10);

/// A nats-server that is new enough: found, or installed once for all tests as `ward` itself does it.
pub fn nats_server() -> &'static Path {
    static BINARY: LazyLock<PathBuf> = LazyLock::new(|| {
        let cache = Path::new(env!("CARGO_TARGET_TMPDIR")).join("nats-server");
        nats::find_or_install(&cache).unwrap().path
    });
    &BINARY
}

/// A home of its own for one test.
pub struct Home {
    dir: tempfile::TempDir,
}

impl Home {
    /// An empty one: nothing is created before `ward` does it.
    pub fn new() -> Self {
        Self { dir: tempfile::Builder::new().prefix("ward-test-").tempdir().unwrap() }
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
        command
    }

    /// Starts `ward` with these words.
    pub fn start(&self, words: &str) -> Party {
        Party::spawn(words, self.command(words))
    }

    /// Runs `ward` with these words to its end.
    pub fn run(&self, words: &str) -> Ended {
        self.start(words).ended()
    }

    /// Runs `ward` with these arguments to its end.
    pub fn run_of(&self, arguments: &[&str]) -> Ended {
        Party::spawn(&arguments.join(" "), self.command_of(arguments)).ended()
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

    /// The processes whose command line names this home: Ward's own and nats-server.
    pub fn processes(&self) -> Vec<(i32, String)> {
        let home = self.dir.path().to_str().unwrap();
        let mut found = Vec::new();
        for entry in fs::read_dir("/proc").unwrap() {
            let Ok(pid) = entry.unwrap().file_name().to_string_lossy().parse() else { continue };
            // Ended processes that nobody waited for have an empty one.
            let line = fs::read(format!("/proc/{pid}/cmdline")).unwrap_or_default();
            let line = String::from_utf8_lossy(&line).replace('\0', " ");
            if line.contains(home) {
                found.push((pid, line));
            }
        }
        found
    }

    /// Waits until no process of this home is left.
    pub fn is_quiet(&self) {
        let begun = Instant::now();
        while !self.processes().is_empty() {
            assert!(begun.elapsed() < PATIENCE, "left running: {:#?}", self.processes());
            std::thread::sleep(LOOK);
        }
    }

    /// No process of this home is left, at once.
    pub fn nothing_runs(&self) {
        assert!(self.processes().is_empty(), "left running: {:#?}", self.processes());
    }
}

impl Drop for Home {
    fn drop(&mut self) {
        for (pid, _) in self.processes() {
            let _ = kill_process(Pid::from_raw(pid).unwrap(), Signal::KILL);
        }
    }
}

/// How a process ended, and all that it said.
#[derive(Debug)]
pub struct Ended {
    pub what: String,
    pub code: Option<i32>,
    pub stdout: String,
    pub stderr: String,
}

impl Ended {
    /// The last line of its standard output, as JSON.
    pub fn json(&self) -> Value {
        let line = self.stdout.lines().last().unwrap_or_default();
        serde_json::from_str(line).unwrap_or_else(|error| panic!("no JSON ({error}): {self:#?}"))
    }

    /// All lines of its standard output, each as JSON.
    pub fn all_json(&self) -> Vec<Value> {
        self.stdout.lines().map(|line| serde_json::from_str(line).unwrap()).collect()
    }

    /// The sums of its answer, as they are written.
    pub fn sums(&self) -> Vec<String> {
        assert_eq!(self.code, Some(0), "{self:#?}");
        self.json()["sum"].as_array().unwrap_or_else(|| panic!("{self:#?}")).iter().map(Value::to_string).collect()
    }

    /// The one sum of its answer, as it is written.
    pub fn sum(&self) -> String {
        let [sum] = &self.sums()[..] else { panic!("{self:#?}") };
        sum.clone()
    }

    /// The session of its answer or refusal.
    pub fn session(&self) -> String {
        self.json()["session"].as_str().unwrap().to_owned()
    }

    /// The round of its answer or refusal.
    pub fn round(&self) -> u64 {
        self.json()["round"].as_u64().unwrap()
    }

    /// It aborted with this reason; what it said.
    pub fn aborted(&self, reason: &str) -> String {
        assert_eq!(self.code, Some(3), "{self:#?}");
        let report = self.json();
        assert_eq!((&report["outcome"], &report["reason"]), (&"aborted".into(), &reason.into()), "{self:#?}");
        let message = report["message"].as_str().unwrap().to_owned();
        assert!(self.stderr.contains(&message), "{self:#?}");
        message
    }

    /// It was refused as wrong use; what it said.
    pub fn refused(&self) -> &str {
        assert_eq!(self.code, Some(2), "{self:#?}");
        let line = self.stderr.lines().last().unwrap_or_default();
        assert!(self.stderr.contains("error: "), "{self:#?}");
        line
    }
}

/// A process in a group of its own; the whole group is killed when this is dropped.
pub struct Party {
    what: String,
    child: Child,
    stdout: Stream,
    stderr: Stream,
}

impl Party {
    /// Starts `command` with an empty standard input.
    pub fn spawn(what: &str, command: Command) -> Self {
        Self::spawn_with(what, command, Stdio::null())
    }

    /// Starts `command`.
    pub fn spawn_with(what: &str, mut command: Command, stdin: Stdio) -> Self {
        command.stdin(stdin).stdout(Stdio::piped()).stderr(Stdio::piped()).process_group(0);
        let mut child = command.spawn().unwrap();
        let stdout = Stream::read(child.stdout.take().unwrap());
        let stderr = Stream::read(child.stderr.take().unwrap());
        Self { what: what.into(), child, stdout, stderr }
    }

    /// Its process id.
    pub fn pid(&self) -> Pid {
        Pid::from_raw(i32::try_from(self.child.id()).unwrap()).unwrap()
    }

    /// Waits until it says a line on stderr that contains `text`, from where the last wait ended; the line.
    pub fn says(&mut self, text: &str) -> String {
        match self.stderr.wait_for(text) {
            Ok(line) => line,
            Err(why) => panic!("`{}` did not say `{text}` ({why}); it said:\n{}", self.what, self.stderr.text()),
        }
    }

    /// Waits until it prints a line on stdout that contains `text`, from where the last wait ended; the line.
    pub fn prints(&mut self, text: &str) -> String {
        match self.stdout.wait_for(text) {
            Ok(line) => line,
            Err(why) => panic!(
                "`{}` did not print `{text}` ({why}); it printed:\n{}and said:\n{}",
                self.what,
                self.stdout.text(),
                self.stderr.drain()
            ),
        }
    }

    /// What it has said on stderr until now.
    pub fn said(&mut self) -> String {
        self.stderr.drain()
    }

    /// Sends a signal to it alone.
    pub fn signal(&self, signal: Signal) {
        kill_process(self.pid(), signal).unwrap();
    }

    /// Sends a signal to its group, as a terminal does at Ctrl-C.
    pub fn signal_group(&self, signal: Signal) {
        kill_process_group(self.pid(), signal).unwrap();
    }

    /// Stops it in order, as Ctrl-C does, and waits for its end.
    pub fn stop(self) -> Ended {
        self.signal_group(Signal::INT);
        self.ended()
    }

    /// Kills it, which it cannot catch, and waits for its end.
    pub fn kill(self) -> Ended {
        self.signal(Signal::KILL);
        self.ended()
    }

    /// Waits for its end.
    pub fn ended(mut self) -> Ended {
        let begun = Instant::now();
        let status: ExitStatus = loop {
            if let Some(status) = self.child.try_wait().unwrap() {
                break status;
            }
            if begun.elapsed() > PATIENCE {
                panic!("`{}` does not end; it said:\n{}", self.what, self.stderr.drain());
            }
            std::thread::sleep(LOOK);
        };
        Ended { what: self.what.clone(), code: status.code(), stdout: self.stdout.rest(), stderr: self.stderr.rest() }
    }
}

impl Drop for Party {
    fn drop(&mut self) {
        if let Ok(None) = self.child.try_wait() {
            let _ = kill_process_group(self.pid(), Signal::KILL);
        }
        let _ = self.child.wait();
    }
}

/// The lines of one of its streams, read by a thread.
struct Stream {
    lines: mpsc::Receiver<String>,
    seen: Vec<String>,
}

impl Stream {
    fn read(stream: impl Read + Send + 'static) -> Self {
        let (sender, lines) = mpsc::channel();
        std::thread::spawn(move || {
            for line in BufReader::new(stream).lines().map_while(Result::ok) {
                if sender.send(line).is_err() {
                    return;
                }
            }
        });
        Self { lines, seen: Vec::new() }
    }

    fn wait_for(&mut self, text: &str) -> Result<String, mpsc::RecvTimeoutError> {
        let deadline = Instant::now() + PATIENCE;
        loop {
            let line = self.lines.recv_timeout(deadline.saturating_duration_since(Instant::now()))?;
            self.seen.push(line.clone());
            if line.contains(text) {
                return Ok(line);
            }
        }
    }

    /// What is here by now.
    fn drain(&mut self) -> String {
        self.seen.extend(self.lines.try_iter());
        self.text()
    }

    /// All of it, once its process has ended; a grandchild may hold the stream open, so it is not waited for long.
    fn rest(&mut self) -> String {
        while let Ok(line) = self.lines.recv_timeout(Duration::from_secs(5)) {
            self.seen.push(line);
        }
        self.text()
    }

    fn text(&self) -> String {
        self.seen.iter().map(|line| format!("{line}\n")).collect()
    }
}

//! The local broker: nats-server as a child process, its configuration, and its end.

use std::ffi::OsString;
use std::fs::{self, File, OpenOptions};
use std::io::{self, Write};
use std::net::IpAddr;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::time::Duration;

use certs::Study;
use protocol::{Name, Role};
use rustix::process::{Pid, Signal, kill_process};
use tokio::io::{AsyncBufReadExt, AsyncRead, BufReader};
use tokio::process::{Child, Command};
use tokio::sync::mpsc;

use crate::consumers::ConsumerNames;
use crate::endpoint::Endpoint;
use crate::permissions::{BrokerSettings, render};
use crate::quota::Quota;

/// How long nats-server may take to read its board and open its port.
const START: Duration = Duration::from_secs(60);
/// How long a reload may take.
const RELOAD: Duration = Duration::from_secs(15);
/// How long nats-server may take to close its files before it is killed.
const STOP: Duration = Duration::from_secs(5);
/// What nats-server warns of: its log has all of it.
static WARNINGS: Quota = Quota::new(20);
/// Tells [`exec_tied`] which process it belongs to.
const PARENT: &str = "WARD_TIED_TO";

/// Why there is no running [`Broker`].
#[derive(Debug, thiserror::Error)]
pub enum BrokerError {
    /// Something else listens on that port.
    #[error(
        "port {port} of {host} is in use: stop what listens there, or give another port (or none: the system then chooses)"
    )]
    PortInUse {
        /// The address.
        host: String,
        /// The port.
        port: u16,
    },
    /// nats-server ended before it was ready, or while it was asked for something.
    #[error("nats-server ended: {reason}; its log is {}", log.display())]
    Ended {
        /// The last thing that it wrote.
        reason: String,
        /// Where all of it is.
        log: PathBuf,
    },
    /// nats-server can store nothing any more, and will not until it is started again.
    #[error(
        "nats-server cannot write the board: {reason}. Make room on its disk, then start the broker again: what it \
         acknowledged is kept, and parties write again what it did not"
    )]
    CannotStore {
        /// What the system said of which file.
        reason: String,
    },
    /// nats-server does not take the configuration.
    #[error("nats-server keeps its old configuration: {reason}")]
    NotReloaded {
        /// Its reason.
        reason: String,
    },
    /// nats-server says nothing for too long.
    #[error("nats-server did not answer within {} s; its log is {}", after.as_secs(), log.display())]
    Silent {
        /// For how long.
        after: Duration,
        /// Where its log is.
        log: PathBuf,
    },
    /// The program cannot be started.
    #[error("nats-server cannot be started as {program}: {source}")]
    NotStarted {
        /// What was to be run.
        program: String,
        /// What the system said.
        source: io::Error,
    },
    /// A file of the broker's cannot be used.
    #[error("{} cannot be used: {source}", path.display())]
    File {
        /// Which.
        path: PathBuf,
        /// What the system said.
        source: io::Error,
    },
    /// An nats-server of an earlier run does not end.
    #[error("the nats-server of an earlier run (process {pid}) does not end: kill it, and start again")]
    Leftover {
        /// Which process.
        pid: i32,
    },
}

/// A running nats-server. It is killed when this is dropped; [`Broker::stop`] ends it in order.
#[derive(Debug)]
pub struct Broker {
    child: Child,
    notices: mpsc::UnboundedReceiver<Notice>,
    endpoint: Endpoint,
    files: Files,
    settings: BrokerSettings,
    study: Study,
    consumers: ConsumerNames,
}

/// The broker's files in its directory.
#[derive(Clone, Debug)]
struct Files {
    config: PathBuf,
    pid: PathBuf,
    log: PathBuf,
}

/// What nats-server says that somebody waits for.
#[derive(Debug)]
enum Notice {
    Listening(u16),
    Ready,
    Reloaded,
    NotReloaded(String),
    PortInUse,
    CannotStore(String),
    Last(String),
}

impl Broker {
    /// Writes the configuration into `dir`, starts nats-server and returns when it is ready. An nats-server that an
    /// earlier run left behind in `dir` is killed first.
    ///
    /// `command` makes the command that runs the program at `binary`; the arguments are added to it. So that nothing
    /// outlives a killed parent, let it run a subcommand of your own that calls [`exec_tied`]. The system ends a tied
    /// process with the *thread* that started it: call this from a thread that stays, not from a short-lived one.
    pub async fn start(
        binary: &Path,
        command: impl FnOnce(&Path) -> Command,
        dir: &Path,
        settings: BrokerSettings,
        study: &Study,
        parties: &[(Role, Name)],
    ) -> Result<Self, BrokerError> {
        let files = Files::prepare(dir)?;
        end_leftover(&files).await?;
        let consumers = ConsumerNames::open(dir)?;
        write_private(&files.config, render(&settings, parties, study, &consumers).as_bytes())?;
        let (child, notices) = spawn(command(binary), &files)?;
        let endpoint = Endpoint { host: reachable(&settings.host), port: 0 };
        let mut broker = Self { child, notices, endpoint, files, settings, study: study.clone(), consumers };
        match broker.within(START, Self::until_ready).await {
            Ok(port) => {
                broker.endpoint.port = port;
                Ok(broker)
            }
            Err(error) => {
                // Whoever reads the error finds nothing running any more.
                broker.stop().await.ok();
                Err(error)
            }
        }
    }

    /// Where it listens, from this machine.
    pub fn endpoint(&self) -> &Endpoint {
        &self.endpoint
    }

    /// The consumers' names, for the operator.
    pub fn consumers(&self) -> &ConsumerNames {
        &self.consumers
    }

    /// Its process id, while it runs.
    pub fn pid(&self) -> Option<u32> {
        self.child.id()
    }

    /// Where its log is.
    pub fn log(&self) -> &Path {
        &self.files.log
    }

    /// Lists these parties instead, and returns when that is in force. Nobody who stays listed is disconnected; who is listed no
    /// longer is, at once.
    pub async fn reload(&mut self, parties: &[(Role, Name)]) -> Result<(), BrokerError> {
        write_private(&self.files.config, render(&self.settings, parties, &self.study, &self.consumers).as_bytes())?;
        // What was said before does not answer this reload.
        while let Ok(notice) = self.notices.try_recv() {
            self.unless_failed(notice)?;
        }
        self.signal(Signal::HUP);
        self.within(RELOAD, Self::until_reloaded).await
    }

    /// Returns when nats-server serves no longer, with the reason: it has ended, or can store nothing. Cancel safe.
    pub async fn failed(&mut self) -> BrokerError {
        loop {
            let Some(notice) = self.notices.recv().await else { return self.silence() };
            if let Err(error) = self.unless_failed(notice) {
                if matches!(error, BrokerError::Ended { .. }) {
                    // Said before its end: now its port is free too.
                    self.child.wait().await.ok();
                }
                return error;
            }
        }
    }

    /// Lets nats-server close its files, and kills it if it takes too long.
    pub async fn stop(mut self) -> Result<(), BrokerError> {
        self.signal(Signal::TERM);
        let ended = match tokio::time::timeout(STOP, self.child.wait()).await {
            Ok(ended) => ended.map(drop),
            Err(_) => self.child.kill().await,
        };
        ended.map_err(|source| BrokerError::File { path: self.files.pid.clone(), source })?;
        remove(&self.files.pid)
    }

    async fn within<T>(
        &mut self,
        limit: Duration,
        wait: impl AsyncFnOnce(&mut Self) -> Result<T, BrokerError>,
    ) -> Result<T, BrokerError> {
        let log = self.files.log.clone();
        match tokio::time::timeout(limit, wait(self)).await {
            Ok(outcome) => outcome,
            Err(_) => Err(BrokerError::Silent { after: limit, log }),
        }
    }

    async fn until_ready(&mut self) -> Result<u16, BrokerError> {
        let mut port = 0;
        loop {
            match self.notices.recv().await {
                Some(Notice::Listening(found)) => port = found,
                Some(Notice::Ready) => return Ok(port),
                Some(other) => self.unless_failed(other)?,
                None => return Err(self.silence()),
            }
        }
    }

    async fn until_reloaded(&mut self) -> Result<(), BrokerError> {
        loop {
            match self.notices.recv().await {
                Some(Notice::Reloaded) => return Ok(()),
                Some(Notice::NotReloaded(reason)) => return Err(BrokerError::NotReloaded { reason }),
                Some(other) => self.unless_failed(other)?,
                None => return Err(self.silence()),
            }
        }
    }

    fn unless_failed(&self, notice: Notice) -> Result<(), BrokerError> {
        match notice {
            Notice::PortInUse => Err(BrokerError::PortInUse {
                host: self.settings.host.clone(),
                port: self.settings.port.unwrap_or_default(),
            }),
            Notice::CannotStore(reason) => Err(BrokerError::CannotStore { reason }),
            Notice::Last(reason) => Err(BrokerError::Ended { reason, log: self.files.log.clone() }),
            Notice::Listening(_) | Notice::Ready | Notice::Reloaded | Notice::NotReloaded(_) => Ok(()),
        }
    }

    fn silence(&self) -> BrokerError {
        BrokerError::Ended { reason: "it said nothing more".into(), log: self.files.log.clone() }
    }

    /// A process that has ended needs no signal: whoever waits for it finds out.
    fn signal(&self, signal: Signal) {
        let pid = self.child.id().and_then(|id| i32::try_from(id).ok()).and_then(Pid::from_raw);
        if let Some(Err(error)) = pid.map(|pid| kill_process(pid, signal)) {
            tracing::debug!(%error, "nats-server takes no signal");
        }
    }
}

impl Files {
    fn prepare(dir: &Path) -> Result<Self, BrokerError> {
        let wrong = |source| BrokerError::File { path: dir.into(), source };
        fs::DirBuilder::new().recursive(true).mode(0o700).create(dir).map_err(wrong)?;
        // The whole path, so that it tells this broker from others in the list of processes.
        let dir = dir.canonicalize().map_err(wrong)?;
        let at = |name| dir.join(name);
        Ok(Self { config: at("nats-server.conf"), pid: at("nats-server.pid"), log: at("nats-server.log") })
    }
}

/// `binary` takes this process's place and ends when the parent does, however that comes. Returns only on failure.
///
/// For a subcommand of a program that gives [`Broker::start`] a command running itself. Where the system has no
/// parent-death signal (all but Linux), a killed parent leaves nats-server to the next [`Broker::start`], which ends it.
pub fn exec_tied(binary: &Path, args: impl IntoIterator<Item = OsString>) -> io::Error {
    if let Err(error) = tie() {
        return error;
    }
    std::process::Command::new(binary).args(args).env_remove(PARENT).exec()
}

#[cfg(target_os = "linux")]
fn tie() -> io::Result<()> {
    rustix::process::set_parent_process_death_signal(Some(Signal::KILL))?;
    // A parent that died before the line above sends no signal any more.
    let parent = rustix::process::getppid().map(|pid| pid.as_raw_nonzero().to_string());
    match std::env::var(PARENT) {
        Ok(expected) if parent.as_deref() != Some(expected.as_str()) => Err(io::Error::other("the parent has ended")),
        _ => Ok(()),
    }
}

#[cfg(not(target_os = "linux"))]
fn tie() -> io::Result<()> {
    Ok(())
}

fn spawn(mut command: Command, files: &Files) -> Result<(Child, mpsc::UnboundedReceiver<Notice>), BrokerError> {
    let program = command.as_std().get_program().to_string_lossy().into_owned();
    command.arg("-c").arg(&files.config).env(PARENT, std::process::id().to_string());
    // A group of its own: Ctrl-C in a terminal is for the parent, which then stops the broker after its clients.
    command.process_group(0).stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::piped()).kill_on_drop(true);
    let mut child = command.spawn().map_err(|source| BrokerError::NotStarted { program: program.clone(), source })?;
    write_private(&files.pid, child.id().unwrap_or_default().to_string().as_bytes())?;
    let missing = || BrokerError::NotStarted { program: program.clone(), source: io::ErrorKind::BrokenPipe.into() };
    let stderr = child.stderr.take().ok_or_else(missing)?;
    let log = open_log(&files.log)?;
    let (sender, notices) = mpsc::unbounded_channel();
    tokio::spawn(listen(stderr, log, sender));
    Ok((child, notices))
}

/// Keeps one log of an earlier run beside the new one: it tells why that run ended.
fn open_log(path: &Path) -> Result<File, BrokerError> {
    let wrong = |source| BrokerError::File { path: path.into(), source };
    if path.exists() {
        fs::rename(path, path.with_extension("log.old")).map_err(wrong)?;
    }
    OpenOptions::new().create(true).append(true).mode(0o600).open(path).map_err(wrong)
}

/// Reads what nats-server says until it ends: into the log, to whoever waits, and warnings to `tracing`.
async fn listen(stderr: impl AsyncRead + Unpin, mut log: File, notices: mpsc::UnboundedSender<Notice>) {
    let mut lines = BufReader::new(stderr).lines();
    let mut last = String::from("it said nothing");
    while let Ok(Some(line)) = lines.next_line().await {
        // One for each client at every reload: the user is taken from the certificate, as it should be.
        if line.contains("found in connect proto") {
            continue;
        }
        if let Err(error) = writeln!(log, "{line}") {
            tracing::debug!(%error, "nats-server's log cannot be written");
        }
        let text = text_of(&line);
        let warns = ["[WRN]", "[ERR]", "[FTL]"].iter().any(|level| line.contains(level));
        if warns && let Some(note) = WARNINGS.pass() {
            tracing::warn!("nats-server: {text}{note}");
        }
        if let Some(notice) = notice(text) {
            notices.send(notice).ok();
        }
        if !text.trim().is_empty() {
            text.clone_into(&mut last);
        }
    }
    notices.send(Notice::Last(last)).ok();
}

/// A line without process id, date and level: `[77] 2026/11/22 17:20:21.581012 [INF] Server is ready`.
fn text_of(line: &str) -> &str {
    let levels = ["[INF] ", "[WRN] ", "[ERR] ", "[FTL] "];
    levels.iter().find_map(|level| line.split_once(level)).map_or(line, |(_, text)| text)
}

fn notice(text: &str) -> Option<Notice> {
    if let Some(address) = text.strip_prefix("Listening for client connections on ") {
        address.rsplit(':').next()?.parse().ok().map(Notice::Listening)
    } else if text.starts_with("Server is ready") {
        Some(Notice::Ready)
    } else if text.starts_with("Reloaded server configuration") {
        Some(Notice::Reloaded)
    } else if let Some(reason) = text.strip_prefix("Failed to reload server configuration: ") {
        Some(Notice::NotReloaded(reason.into()))
    } else if text.starts_with("Error listening on port") && text.contains("address already in use") {
        Some(Notice::PortInUse)
    } else if let Some((_, reason)) = text.split_once("critical write error: ") {
        Some(Notice::CannotStore(reason.into()))
    } else {
        None
    }
}

/// An address that listens everywhere is reached through the machine's own name for itself.
fn reachable(host: &str) -> String {
    let everywhere = host.parse::<IpAddr>().is_ok_and(|address| address.is_unspecified());
    if everywhere { "localhost".into() } else { host.into() }
}

/// Ends the nats-server that an earlier run left behind, if the process of that number is one with our configuration.
async fn end_leftover(files: &Files) -> Result<(), BrokerError> {
    let Ok(text) = fs::read_to_string(&files.pid) else { return Ok(()) };
    let Some(pid) = text.trim().parse().ok().and_then(Pid::from_raw) else { return remove(&files.pid) };
    let raw = pid.as_raw_nonzero().get();
    let deadline = tokio::time::Instant::now() + STOP;
    while is_ours(raw, &files.config).await {
        if tokio::time::Instant::now() > deadline {
            return Err(BrokerError::Leftover { pid: raw });
        }
        if kill_process(pid, Signal::KILL).is_ok() {
            tracing::info!(pid = raw, "ending the nats-server of an earlier run");
        }
        // It is not our child, so nothing tells when it is gone.
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    remove(&files.pid)
}

/// Whether the process runs with our configuration, by its command line; a zombie has none.
async fn is_ours(pid: i32, config: &Path) -> bool {
    let line = match fs::read(format!("/proc/{pid}/cmdline")) {
        Ok(line) => line,
        Err(_) if Path::new("/proc/self").exists() => return false,
        Err(_) => {
            let ps = Command::new("ps").args(["-o", "args=", "-p", &pid.to_string()]).output().await;
            ps.map(|output| output.stdout).unwrap_or_default()
        }
    };
    let config = config.as_os_str().as_bytes();
    line.windows(config.len()).any(|window| window == config)
}

/// Writes a file of mode 0600 in one step: nats-server never reads half of it.
pub(crate) fn write_private(path: &Path, bytes: &[u8]) -> Result<(), BrokerError> {
    let wrong = |source| BrokerError::File { path: path.into(), source };
    let draft = path.with_extension("new");
    remove(&draft)?;
    let mut file = OpenOptions::new().write(true).create_new(true).mode(0o600).open(&draft).map_err(wrong)?;
    file.write_all(bytes).map_err(wrong)?;
    fs::rename(&draft, path).map_err(wrong)
}

fn remove(path: &Path) -> Result<(), BrokerError> {
    match fs::remove_file(path) {
        Err(source) if source.kind() != io::ErrorKind::NotFound => Err(BrokerError::File { path: path.into(), source }),
        _ => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_log_tells_what_is_waited_for() {
        let line = "[1] 2026/11/22 17:20:21.581012 [INF] Listening for client connections on 127.0.0.1:42741";
        assert!(matches!(notice(text_of(line)), Some(Notice::Listening(42741))));
        let line = "[1] 2026/11/22 17:20:21.5 [FTL] Error listening on port: 127.0.0.1:1, \"listen tcp 127.0.0.1:1: bind: address already in use\"";
        assert!(matches!(notice(text_of(line)), Some(Notice::PortInUse)));
        let line = "[1] 2026/11/22 17:20:21.5 [ERR] JetStream stream '$G > WARD' critical write error: write 1.blk: no space left on device";
        assert!(
            matches!(notice(text_of(line)), Some(Notice::CannotStore(why)) if why == "write 1.blk: no space left on device")
        );
        assert!(notice("Starting nats-server").is_none());
    }

    #[test]
    fn a_broker_that_listens_everywhere_is_reached_here() {
        assert_eq!(reachable("0.0.0.0"), "localhost");
        assert_eq!(reachable("::"), "localhost");
        assert_eq!(reachable("127.0.0.1"), "127.0.0.1");
    }
}

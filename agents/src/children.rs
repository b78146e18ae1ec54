//! The processes that `ward up` starts: each holds a pipe of it and ends when that closes, however `ward up` ends.

use std::fs;
use std::io::{BufRead as _, BufReader};
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::{Path, PathBuf};
use std::process::{ExitStatus, Stdio};
use std::time::Duration;

use anyhow::Context as _;
use tokio::io::AsyncWriteExt as _;
use tokio::process::{Child, ChildStdout, Command};

use crate::home::{Home, make_dir};
use crate::report::note;

/// How long a child may take to end before it is killed.
const PATIENCE: Duration = Duration::from_secs(8);

/// A process of Ward's own.
pub struct Process {
    /// What it is, for people.
    pub what: String,
    child: Child,
    log: PathBuf,
}

impl Process {
    /// Starts `ward` with `args` over `home`; its log goes to a file of the home. `first_line` is what it reads first.
    ///
    /// # Errors
    /// If the system does not let it.
    pub async fn start(home: &Home, what: &str, args: &[String], first_line: Option<&str>) -> anyhow::Result<Self> {
        let logs = home.path().join("logs");
        make_dir(&logs)?;
        let log = logs.join(format!("{what}.log"));
        let file = create_private(&log).with_context(|| format!("the log {}", log.display()))?;
        let mut command = Command::new(std::env::current_exe()?);
        command.arg("--home").arg(home.path()).arg("--tied").args(args);
        command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(file).kill_on_drop(true);
        // A group of its own: Ctrl-C in a terminal is for the parent, which then ends them in order.
        command.process_group(0);
        let child = command.spawn().with_context(|| format!("{what} cannot be started"))?;
        let mut process = Self { what: what.into(), child, log };
        if let Some(line) = first_line {
            process.say(line).await?;
        }
        Ok(process)
    }

    /// Writes `line` to its standard input.
    ///
    /// # Errors
    /// If it has closed it.
    pub async fn say(&mut self, line: &str) -> std::io::Result<()> {
        let Some(stdin) = self.child.stdin.as_mut() else { return Ok(()) };
        stdin.write_all(line.as_bytes()).await?;
        stdin.write_all(b"\n").await
    }

    /// Its number, while it runs.
    pub fn pid(&self) -> Option<u32> {
        self.child.id()
    }

    /// As [`Process::start`], and people see on stderr what it tells, but for how it ends: that is for its parent to say.
    ///
    /// # Errors
    /// If the system does not let it.
    pub async fn narrated(home: &Home, what: &str, args: &[String]) -> anyhow::Result<Self> {
        let process = Self::start(home, what, args, None).await?;
        let log = fs::File::open(&process.log)?;
        tokio::spawn(follow(log));
        Ok(process)
    }

    /// Its standard output, once.
    pub fn stdout(&mut self) -> Option<ChildStdout> {
        self.child.stdout.take()
    }

    /// Returns when it ends. Cancel safe.
    ///
    /// # Errors
    /// If the system cannot say.
    pub async fn ended(&mut self) -> std::io::Result<ExitStatus> {
        // `wait` would close standard input, by which the child hangs.
        loop {
            if let Some(status) = self.child.try_wait()? {
                return Ok(status);
            }
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    }

    /// The last thing that it wrote to its log.
    pub fn last_words(&self) -> String {
        let log = fs::read_to_string(&self.log).unwrap_or_default();
        let last = log.lines().rev().map(str::trim).find(|line| !line.is_empty()).unwrap_or("it said nothing");
        last.strip_prefix("error: ").unwrap_or(last).to_string()
    }

    /// Where its log is.
    pub fn log(&self) -> &Path {
        &self.log
    }

    /// Closes its pipe, waits for its end, and kills it if it takes too long.
    ///
    /// # Errors
    /// If it can neither end nor be killed.
    pub async fn stop(mut self) -> std::io::Result<()> {
        drop(self.child.stdin.take());
        match tokio::time::timeout(PATIENCE, self.child.wait()).await {
            Ok(ended) => ended.map(drop),
            Err(_) => self.child.kill().await,
        }
    }
}

/// An empty file that its owner alone may read.
fn create_private(path: &Path) -> std::io::Result<fs::File> {
    fs::OpenOptions::new().write(true).create(true).truncate(true).mode(0o600).open(path)
}

/// How often a followed log is looked at.
const LOOK: Duration = Duration::from_millis(50);

/// Repeats what is written to `log` on stderr, line by line.
async fn follow(log: fs::File) {
    let mut log = BufReader::new(log);
    let mut line = String::new();
    loop {
        match log.read_line(&mut line) {
            Ok(0) => tokio::time::sleep(LOOK).await,
            Ok(_) if line.ends_with('\n') => {
                if !line.starts_with("error: ") {
                    note!("{}", line.trim_end());
                }
                line.clear();
            }
            // The rest of the line is still to come.
            Ok(_) => {}
            Err(_) => return,
        }
    }
}

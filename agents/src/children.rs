//! The processes that `ward up` starts: each holds a pipe of it and ends when that closes, however `ward up` ends.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{ExitStatus, Stdio};
use std::time::Duration;

use anyhow::Context as _;
use tokio::io::AsyncWriteExt as _;
use tokio::process::{Child, ChildStdout, Command};

use crate::home::Home;

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
        fs::create_dir_all(&logs)?;
        let log = logs.join(format!("{what}.log"));
        let file = fs::File::create(&log).with_context(|| format!("the log {}", log.display()))?;
        let mut command = Command::new(std::env::current_exe()?);
        command.arg("--home").arg(home.path()).arg("--tied").args(args);
        command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(file).kill_on_drop(true);
        let mut child = command.spawn().with_context(|| format!("{what} cannot be started"))?;
        if let (Some(line), Some(stdin)) = (first_line, child.stdin.as_mut()) {
            stdin.write_all(line.as_bytes()).await?;
            stdin.write_all(b"\n").await?;
        }
        Ok(Self { what: what.into(), child, log })
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

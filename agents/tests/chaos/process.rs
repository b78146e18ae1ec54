//! One process of a scenario, and what it says.

use std::io::{BufRead as _, BufReader, Read};
use std::os::fd::OwnedFd;
use std::os::unix::process::CommandExt as _;
use std::process::{Command, Stdio};
use std::sync::mpsc::Sender;
use std::thread;

use rustix::process::{Pid, PidfdFlags, Resource, Rlimit, Signal, getrlimit, pidfd_open, pidfd_send_signal, prlimit};

/// What is told of a process.
#[derive(Debug)]
pub enum News {
    /// It said a line on stderr.
    Said(String, String),
    /// It printed a line on stdout.
    Printed(String, String),
    /// It has ended, and all that it said has been told.
    Ended(String, Option<i32>),
}

/// A process that was started, in a group of its own.
#[derive(Debug)]
pub struct Process {
    pid: Pid,
    /// It stays with the process: a signal never goes to another with the same number.
    descriptor: OwnedFd,
}

impl Process {
    /// Starts it; its lines and its end come as news of `name`.
    pub fn start(name: &str, mut command: Command, news: &Sender<News>) -> Self {
        command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped()).process_group(0);
        let mut child = command.spawn().unwrap();
        let pid = Pid::from_child(&child);
        let descriptor = pidfd_open(pid, PidfdFlags::empty()).unwrap();
        let (stdout, stderr) = (child.stdout.take().unwrap(), child.stderr.take().unwrap());
        let said = tell_lines(name, stderr, News::Said, news);
        let printed = tell_lines(name, stdout, News::Printed, news);
        let (name, news) = (name.to_owned(), news.clone());
        thread::spawn(move || {
            let code = child.wait().unwrap().code();
            said.join().unwrap();
            printed.join().unwrap();
            // Nobody listens any more once a scenario has failed.
            let _ = news.send(News::Ended(name, code));
        });
        Self { pid, descriptor }
    }

    /// Sends it a signal, unless it has ended.
    pub fn signal(&self, signal: Signal) {
        let _ = pidfd_send_signal(&self.descriptor, signal);
    }

    /// Its number.
    pub fn pid(&self) -> Pid {
        self.pid
    }
}

/// From now on a write of this process to any file fails, as on a disk that is full.
pub fn fill_disk(pid: Pid) {
    limit_files(pid, Some(0));
}

/// What it writes is stored again.
pub fn free_disk(pid: Pid) {
    limit_files(pid, None);
}

fn limit_files(pid: Pid, current: Option<u64>) {
    let maximum = getrlimit(Resource::Fsize).maximum;
    // It may just have ended.
    let _ = prlimit(Some(pid), Resource::Fsize, Rlimit { current: current.or(maximum), maximum });
}

/// Tells each line of `source` until it ends.
fn tell_lines(
    name: &str,
    source: impl Read + Send + 'static,
    told: fn(String, String) -> News,
    news: &Sender<News>,
) -> thread::JoinHandle<()> {
    let (name, news) = (name.to_owned(), news.clone());
    thread::spawn(move || {
        let mut source = BufReader::new(source);
        let mut line = Vec::new();
        while source.read_until(b'\n', &mut line).is_ok_and(|read| read > 0) {
            let text = String::from_utf8_lossy(&line).trim_end().to_owned();
            let _ = news.send(told(name.clone(), text));
            line.clear();
        }
    })
}

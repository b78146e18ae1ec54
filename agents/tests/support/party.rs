//! A process of Ward's that a test has started.

use std::fs;
use std::io::Write as _;
use std::os::unix::process::CommandExt as _;
use std::process::{Child, Command, Stdio};

use rustix::process::{Pid, Signal, WaitOptions, kill_process, kill_process_group, waitpid};

use super::stream::{Silent, Stream};
use super::{Ended, PATIENCE, processes};

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

    /// Starts `command` and says a line on its standard input, which stays open.
    pub fn spawn_fed(what: &str, command: Command, line: &str) -> Self {
        let mut party = Self::spawn_with(what, command, Stdio::piped());
        party.child.stdin.as_mut().unwrap().write_all(format!("{line}\n").as_bytes()).unwrap();
        party
    }

    fn spawn_with(what: &str, mut command: Command, stdin: Stdio) -> Self {
        command.stdin(stdin).stdout(Stdio::piped()).stderr(Stdio::piped()).process_group(0);
        let mut child = command.spawn().unwrap();
        let stdout = Stream::listen(child.stdout.take().unwrap());
        let stderr = Stream::listen(child.stderr.take().unwrap());
        Self { what: what.into(), child, stdout, stderr }
    }

    /// Its process id.
    pub fn pid(&self) -> Pid {
        Pid::from_child(&self.child)
    }

    /// Waits until it says a line on stderr that contains `text`, from where the last such wait ended; the line.
    #[track_caller]
    pub fn says(&mut self, text: &str) -> String {
        self.stderr.next_line(text).unwrap_or_else(|why| self.missed("say", text, why))
    }

    /// Waits until it prints a line on stdout that contains `text`, from where the last such wait ended; the line.
    #[track_caller]
    pub fn prints(&mut self, text: &str) -> String {
        self.stdout.next_line(text).unwrap_or_else(|why| self.missed("print", text, why))
    }

    /// Waits until it has said `text` on stderr so many times since its start.
    #[track_caller]
    pub fn has_said(&self, text: &str, times: usize) {
        self.stderr.has(text, times).unwrap_or_else(|why| self.missed("say", text, why));
    }

    /// Waits until it has printed `text` on stdout so many times since its start.
    #[track_caller]
    pub fn has_printed(&self, text: &str, times: usize) {
        self.stdout.has(text, times).unwrap_or_else(|why| self.missed("print", text, why));
    }

    /// All that it has said on stderr until now.
    pub fn said(&self) -> String {
        self.stderr.so_far()
    }

    /// All that it has printed on stdout until now.
    pub fn printed(&self) -> String {
        self.stdout.so_far()
    }

    #[track_caller]
    fn missed(&self, verb: &str, text: &str, why: Silent) -> ! {
        panic!(
            "`{}` did not {verb} `{text}` ({why:?}); it printed:\n{}and said:\n{}",
            self.what,
            self.printed(),
            self.said()
        )
    }

    /// The system's limits on it, as `/proc` shows them: the line that begins with `name`.
    pub fn limit(&self, name: &str) -> String {
        let limits = fs::read_to_string(format!("/proc/{}/limits", self.pid().as_raw_nonzero())).unwrap();
        limits.lines().find(|line| line.starts_with(name)).unwrap().to_owned()
    }

    /// Sends a signal to it alone.
    pub fn signal(&self, signal: Signal) {
        kill_process(self.pid(), signal).unwrap();
    }

    /// Sends a signal to its group, as a terminal does at Ctrl-C.
    pub fn signal_group(&self, signal: Signal) {
        kill_process_group(self.pid(), signal).unwrap();
    }

    /// Does `work` while the process stands still: its files are as they would be had the power failed.
    pub fn while_stopped<T>(&self, work: impl FnOnce() -> T) -> T {
        self.signal(Signal::STOP);
        waitpid(Some(self.pid()), WaitOptions::UNTRACED).unwrap();
        let done = work();
        self.signal(Signal::CONT);
        done
    }

    /// Stops it in order, as Ctrl-C does, and waits for its end.
    #[track_caller]
    pub fn stop(self) -> Ended {
        self.signal_group(Signal::INT);
        self.ended()
    }

    /// Asks it to end, as `kill` does, and waits for its end.
    #[track_caller]
    pub fn terminate(self) -> Ended {
        self.signal(Signal::TERM);
        self.ended()
    }

    /// Kills it, which it cannot catch, and waits for its end.
    #[track_caller]
    pub fn kill(self) -> Ended {
        self.signal(Signal::KILL);
        self.ended()
    }

    /// Waits for its end, and for the end of all that it said.
    #[track_caller]
    pub fn ended(mut self) -> Ended {
        let ends = processes::child_ends_within(self.pid(), PATIENCE);
        assert!(ends, "`{}` does not end; it said:\n{}", self.what, self.said());
        let code = self.child.wait().unwrap().code();
        for stream in [&self.stdout, &self.stderr] {
            stream.ends().unwrap_or_else(|why| self.missed("close", "its streams", why));
        }
        Ended { what: self.what.clone(), code, stdout: self.printed(), stderr: self.said() }
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

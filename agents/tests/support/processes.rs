//! The processes of this machine, by descriptors that stay with their process and say when it ends.

use std::fs;
use std::os::fd::OwnedFd;
use std::time::Duration;

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::io::retry_on_intr;
use rustix::process::{Pid, PidfdFlags, Signal, pidfd_open, pidfd_send_signal};

/// A process that was running when it was looked up.
pub struct Process {
    pub pid: Pid,
    pub command_line: String,
    descriptor: OwnedFd,
}

impl Process {
    /// Kills it, unless it has ended by itself.
    pub fn kill(&self) {
        let _ = pidfd_send_signal(&self.descriptor, Signal::KILL);
    }

    /// Waits for its end; false if it does not come in time.
    pub fn ends_within(&self, patience: Duration) -> bool {
        is_readable(&self.descriptor, patience)
    }
}

/// The processes whose command line contains `text`.
pub fn running(text: &str) -> Vec<Process> {
    let entries = fs::read_dir("/proc").unwrap();
    let pids = entries.filter_map(|entry| Pid::from_raw(entry.unwrap().file_name().to_str()?.parse().ok()?));
    let look_up = |pid: Pid| {
        // In this order: the descriptor is of the process whose command line is read, or the line is empty.
        let descriptor = pidfd_open(pid, PidfdFlags::empty()).ok()?;
        let line = fs::read(format!("/proc/{}/cmdline", pid.as_raw_nonzero())).unwrap_or_default();
        let command_line = String::from_utf8_lossy(&line).replace('\0', " ");
        command_line.contains(text).then_some(Process { pid, command_line, descriptor })
    };
    pids.filter_map(look_up).collect()
}

/// Waits until a child that nobody has waited for ends; false if it does not in time.
pub fn child_ends_within(pid: Pid, patience: Duration) -> bool {
    is_readable(&pidfd_open(pid, PidfdFlags::empty()).unwrap(), patience)
}

fn is_readable(descriptor: &OwnedFd, patience: Duration) -> bool {
    let patience = Timespec::try_from(patience).unwrap();
    let mut ends = [PollFd::new(descriptor, PollFlags::IN)];
    retry_on_intr(|| poll(&mut ends, Some(&patience))).unwrap() == 1
}

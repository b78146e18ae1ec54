//! What processes and this thread spend. What is read under `/proc` is known on Linux only.

use std::fs;
use std::time::Duration;

use rustix::time::{ClockId, clock_gettime};

/// Linux counts processor time in hundredths of a second, whatever its own clock does.
const TICKS: f64 = 100.0;

/// The processor time of a process and of all its threads so far, in seconds.
pub fn cpu(pid: u32) -> f64 {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
    // A program's name may hold anything, so what follows is counted from its end: fields 14 and 15 of proc(5).
    let fields = stat.rsplit_once(')').map(|(_, rest)| rest.split_whitespace().collect()).unwrap_or(Vec::new());
    let ticks = |at: usize| fields.get(at).and_then(|field| field.parse::<f64>().ok()).unwrap_or_default();
    (ticks(11) + ticks(12)) / TICKS
}

/// The processor time of this thread so far: what else runs on the machine does not count.
pub fn thread_time() -> Duration {
    let time = clock_gettime(ClockId::ThreadCPUTime);
    Duration::new(time.tv_sec as u64, time.tv_nsec as u32)
}

/// The most memory that a process held since [`forget_peak`], in bytes; nothing where the system does not say.
pub fn peak(pid: u32) -> Option<u64> {
    let status = fs::read_to_string(format!("/proc/{pid}/status")).ok()?;
    let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:"))?;
    let kib: u64 = line.split_whitespace().next()?.parse().ok()?;
    Some(kib * 1024)
}

/// Starts to look for a new peak. Where the system does not allow it, the peak is that of the process's whole life.
pub fn forget_peak(pid: u32) {
    let _ = fs::write(format!("/proc/{pid}/clear_refs"), "5");
}

/// Bytes as MiB.
pub fn mebibytes(bytes: u64) -> f64 {
    bytes as f64 / f64::from(1 << 20)
}

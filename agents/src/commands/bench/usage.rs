//! What processes use, as Linux counts it; elsewhere nothing is known.

use std::fs;

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

/// The most memory that a process held since [`forget_peak`], in MiB.
pub fn peak(pid: u32) -> f64 {
    let status = fs::read_to_string(format!("/proc/{pid}/status")).unwrap_or_default();
    let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:"));
    let kib = line.and_then(|line| line.split_whitespace().next()?.parse::<f64>().ok());
    kib.unwrap_or_default() / 1024.0
}

/// Starts to look for a new peak. Where the system does not allow it, the peak is that of the process's whole life.
pub fn forget_peak(pid: u32) {
    let _ = fs::write(format!("/proc/{pid}/clear_refs"), "5");
}

//! What a simulation prints.

use std::time::Duration;

use serde_json::{Value, json};

use super::meter::{Load, Part, Tally};
use crate::spent::{self, mebibytes};

/// What was simulated, and what it took.
#[derive(Debug)]
pub struct Report {
    /// n.
    pub patients: u32,
    /// d.
    pub dim: u32,
    /// w, in bits.
    pub ring: u8,
    /// How many percent of the patients dropped.
    pub drop: u32,
    /// c.
    pub committee: u8,
    /// t.
    pub threshold: u8,
    /// How many servers.
    pub servers: u8,
    /// The seed.
    pub seed: u64,
    /// |U|.
    pub cohort: u32,
    /// From beginning to end.
    pub elapsed: Duration,
    /// By role: how many there are, and what they took together.
    pub roles: Vec<(Part, u32, Tally)>,
}

impl Report {
    /// Processor time of all roles in set-up and round, in milliseconds for each patient of the study.
    fn per_patient(&self) -> (f64, f64) {
        let sum = |load: fn(&Tally) -> Load| {
            let cpu: Duration = self.roles.iter().map(|(_, _, tally)| load(tally).cpu).sum();
            cpu.as_secs_f64() * 1000.0 / f64::from(self.patients)
        };
        (sum(|tally| tally.setup), sum(|tally| tally.round))
    }

    /// One object.
    pub fn json(&self) -> Value {
        let (setup, round) = self.per_patient();
        let roles: serde_json::Map<String, Value> = self.roles.iter().map(role_json).collect();
        json!({
            "patients": self.patients,
            "dim": self.dim,
            "ring": self.ring,
            "drop": self.drop,
            "committee": self.committee,
            "threshold": self.threshold,
            "servers": self.servers,
            "seed": self.seed,
            "cohort": self.cohort,
            "correct": true,
            "seconds": self.elapsed.as_secs_f64(),
            "setup_cpu_ms_per_patient": setup,
            "round_cpu_ms_per_patient": round,
            "cpu_ms_per_patient": setup + round,
            "process_peak_bytes": spent::peak(std::process::id()),
            "roles": roles,
        })
    }

    /// A table for people.
    pub fn text(&self) -> String {
        let mut text = format!(
            "{} patients, {} coordinates in a ring of {} bits, committee of {}, threshold {}, {} server(s)\n\
             the sum over {} patients is right; {:.1} s\n\n\
             role      parties  phase        CPU s   ms/patient  MiB up   MiB down  messages\n",
            self.patients,
            self.dim,
            self.ring,
            self.committee,
            self.threshold,
            self.servers,
            self.cohort,
            self.elapsed.as_secs_f64()
        );
        for (part, parties, tally) in &self.roles {
            for (phase, load) in [("set-up", tally.setup), ("round", tally.round)] {
                let (cpu, patients) = (load.cpu.as_secs_f64(), f64::from(self.patients));
                text += &format!(
                    "{:<9} {parties:>7}  {phase:<6} {cpu:>11.3} {:>12.4} {:>7.1} {:>10.1} {:>9}\n",
                    part.as_str(),
                    cpu * 1000.0 / patients,
                    mebibytes(load.up),
                    mebibytes(load.down),
                    load.messages
                );
            }
        }
        let (setup, round) = self.per_patient();
        text += &format!("\nCPU of all roles for each patient: {setup:.4} ms in set-up, {round:.4} ms in the round\n");
        for (part, _, tally) in &self.roles {
            text += &format!("largest store of a {}: {:.1} MiB\n", part.as_str(), mebibytes(tally.stored));
        }
        if let Some(bytes) = spent::peak(std::process::id()) {
            let all = "servers, members, hospital and a few patients";
            text += &format!("peak memory of this process, with {all}: {:.1} MiB\n", mebibytes(bytes));
        }
        text
    }
}

fn role_json((part, parties, tally): &(Part, u32, Tally)) -> (String, Value) {
    let load = |load: Load| {
        json!({
            "cpu_s": load.cpu.as_secs_f64(),
            "bytes_up": load.up,
            "bytes_down": load.down,
            "messages": load.messages,
        })
    };
    let role = json!({
        "parties": parties,
        "setup": load(tally.setup),
        "round": load(tally.round),
        "largest_store_bytes": tally.stored,
    });
    (part.as_str().into(), role)
}

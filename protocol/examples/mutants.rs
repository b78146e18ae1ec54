//! What came of `cargo mutants`, one line for each change in the product's code: the seed that noticed it, and by which
//! rule. Without an argument it reads `target/mutants.out`.
//!
//! It exits with 1 where a change was noticed by no seed: the simulator cannot see that rule, or the change is none, and
//! `.cargo/mutants.toml` says why.

use std::path::{Path, PathBuf};
use std::process::ExitCode;

use serde_json::Value;

/// What the test says that noticed a change (`tests/mutants.rs`).
const NOTICED: &str = "noticed by ";

fn main() -> Result<ExitCode, Box<dyn std::error::Error>> {
    let folder = std::env::args().nth(1).map_or_else(|| PathBuf::from("target/mutants.out"), PathBuf::from);
    let outcomes: Value = serde_json::from_slice(&std::fs::read(folder.join("outcomes.json"))?)?;
    let mut missed = 0;
    for outcome in outcomes["outcomes"].as_array().into_iter().flatten() {
        let Some(name) = outcome["scenario"]["Mutant"]["name"].as_str() else { continue };
        missed += u32::from(outcome["summary"] == "MissedMutant");
        println!("{name}: {}", verdict(outcome, &folder));
    }
    println!("{missed} noticed by no seed");
    Ok(if missed == 0 { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

/// What came of one change, in a few words.
fn verdict(outcome: &Value, folder: &Path) -> String {
    match outcome["summary"].as_str() {
        Some("CaughtMutant") => {
            seed(outcome, folder).unwrap_or_else(|| "noticed, the log does not say by which seed".into())
        }
        Some("MissedMutant") => "NOTICED BY NO SEED".into(),
        Some("Timeout") => "noticed: a run does not end".into(),
        Some("Unviable") => "does not compile".into(),
        _ => "not tried".into(),
    }
}

/// The seed and the rule, as the log of the test says them.
fn seed(outcome: &Value, folder: &Path) -> Option<String> {
    let log = std::fs::read_to_string(folder.join(outcome["log_path"].as_str()?)).ok()?;
    log.lines().find_map(|line| line.strip_prefix(NOTICED)).map(|line| format!("{NOTICED}{line}"))
}

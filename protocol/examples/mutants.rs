//! What came of `cargo mutants`, one line for each change in the product's code: the seed that noticed it, and by which
//! rule; or why no seed does, as `.cargo/survivors.toml` says. Without an argument it reads `target/mutants.out`.
//!
//! It exits with 1 where a change was noticed by no seed and nothing says why, as the simulator cannot see that rule; and
//! where a reason is out of date.

use std::path::{Path, PathBuf};
use std::process::ExitCode;

use serde::Deserialize;

/// What the test says that noticed a change (`tests/mutants.rs`).
const NOTICED: &str = "noticed by ";

/// What `cargo mutants` writes of its run.
#[derive(Deserialize)]
struct Run {
    outcomes: Vec<Outcome>,
}

#[derive(Deserialize)]
struct Outcome {
    scenario: Scenario,
    summary: String,
    log_path: PathBuf,
}

#[derive(Deserialize)]
enum Scenario {
    Baseline,
    Mutant(Mutant),
}

#[derive(Deserialize)]
struct Mutant {
    /// Its place and what is changed.
    name: String,
    file: String,
    span: Span,
}

#[derive(Deserialize)]
struct Span {
    start: Position,
}

#[derive(Deserialize)]
struct Position {
    line: usize,
}

/// `.cargo/survivors.toml`.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Known {
    survivors: Vec<Survivors>,
}

/// Changes that no seed notices for one reason.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Survivors {
    file: String,
    changes: Vec<String>,
    /// A part of the changed line.
    on: Option<String>,
    why: String,
    /// Where and what the test is that fails by each of them, if they do any harm.
    test: Option<String>,
}

fn main() -> Result<ExitCode, Box<dyn std::error::Error>> {
    let workspace = Path::new(env!("CARGO_MANIFEST_DIR")).parent().ok_or("the package has no folder")?;
    let folder = std::env::args().nth(1).map_or_else(|| workspace.join("target/mutants.out"), PathBuf::from);
    let run: Run = serde_json::from_slice(&std::fs::read(folder.join("outcomes.json"))?)?;
    let known: Known = toml::from_str(&std::fs::read_to_string(workspace.join(".cargo/survivors.toml"))?)?;
    let (mut survived, mut unexplained, mut outdated) = (0, 0, 0);
    for outcome in &run.outcomes {
        let Scenario::Mutant(mutant) = &outcome.scenario else { continue };
        let known = known.survivors.iter().find(|known| known.says(mutant, workspace));
        let missed = outcome.summary == "MissedMutant";
        survived += u32::from(missed);
        unexplained += u32::from(missed && known.is_none());
        outdated += u32::from(!missed && known.is_some());
        println!("{}: {}", mutant.name, outcome.verdict(&folder, known));
    }
    println!("{survived} noticed by no seed, {unexplained} of them without a reason; {outdated} reasons out of date");
    Ok(if unexplained + outdated == 0 { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

impl Outcome {
    /// What came of the change, in a few words.
    fn verdict(&self, folder: &Path, known: Option<&Survivors>) -> String {
        match (self.summary.as_str(), known) {
            ("MissedMutant", None) => "NOTICED BY NO SEED, and nothing says why".into(),
            ("MissedMutant", Some(known)) => known.reason(),
            ("CaughtMutant", None) => self.seed(folder),
            ("CaughtMutant", Some(_)) => format!("{}: ITS REASON NOT TO BE IS OUT OF DATE", self.seed(folder)),
            ("Timeout", _) => "noticed: a run does not end".into(),
            ("Unviable", _) => "does not compile".into(),
            _ => "not tried".into(),
        }
    }

    /// The seed and the rule, as the log of the test says them.
    fn seed(&self, folder: &Path) -> String {
        let log = std::fs::read_to_string(folder.join(&self.log_path)).unwrap_or_default();
        let noticed = log.lines().find(|line| line.starts_with(NOTICED));
        noticed.unwrap_or("noticed, the log does not say by which seed").into()
    }
}

impl Survivors {
    /// Whether this is one of them.
    fn says(&self, mutant: &Mutant, workspace: &Path) -> bool {
        let change = mutant.name.split_once(": ").map(|(_, change)| change);
        self.file == mutant.file
            && self.changes.iter().any(|known| Some(known.as_str()) == change)
            && self.on.as_ref().is_none_or(|part| mutant.line(workspace).contains(part))
    }

    fn reason(&self) -> String {
        let test = self.test.as_ref().map_or("no test need fail".into(), |test| format!("`{test}` fails"));
        format!("noticed by no seed: {}; {test}", self.why)
    }
}

impl Mutant {
    /// The line that is changed, or nothing where the file is not as it was.
    fn line(&self, workspace: &Path) -> String {
        let text = std::fs::read_to_string(workspace.join(&self.file)).unwrap_or_default();
        text.lines().nth(self.span.start.line.saturating_sub(1)).unwrap_or_default().into()
    }
}

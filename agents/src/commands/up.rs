//! `ward up`: a whole study on this machine, each party a process of its own.

use std::os::unix::process::ExitStatusExt as _;
use std::time::{Duration, Instant};

use anyhow::Context as _;
use protocol::{Name, Plan, Scale, Snapshot};
use tokio::io::{AsyncBufReadExt as _, BufReader};

use super::hospital::settings;
use super::patient::written_or_flags;
use crate::children::Process;
use crate::cli::{RuleArgs, UpArgs};
use crate::enrol::enrol_many;
use crate::exit::{Aborted, Stopped, usage};
use crate::home::Home;
use crate::input::{self, Assignment, SecretText};
use crate::labels;
use crate::life::Stop;
use crate::lock::{self, Exclusive, Holder};
use crate::profile::Profile;
use crate::prompt;
use crate::report::{Report, note, print};
use crate::table;

/// How often it is looked whether the broker is ready, or what is ending has ended.
const LOOK: Duration = Duration::from_millis(20);
/// How long the parties of a `ward up` that was killed may take to end.
const ENDING: Duration = Duration::from_secs(20);
/// The file of the home whose lock a `ward up` has while it lives.
const LOCK: &str = "up.lock";

/// Runs the study and prints its answer.
///
/// # Errors
/// Bad input before anything is started; [`crate::exit::Aborted`] where the round had no answer; else whatever a party
/// says.
pub async fn run(home: &Home, args: UpArgs, json: bool) -> anyhow::Result<()> {
    let mut stop = Stop::listen(false)?;
    let who = patients(home, &args)?;
    let study = super::study(home)?;
    let plan = Plan::new(settings(study.to_string(), who.count(), args.server_names()?, &args.rules))?;
    super::prepare(home)?;
    let Some(_alone) = Exclusive::attempt(&home.path().join(LOCK))? else {
        usage!("`ward up` runs already in {}: stop it, or use another --home", home.path().display());
    };
    tokio::select! {
        free = nobody_runs(home, &who, args.server_names()?) => free?,
        () = stop.asked() => return Err(Stopped.into()),
    }
    enrol_many(home, who.names())?;
    let snapshot = labels::fresh(home)?;
    labels::note(home, &snapshot)?;
    note!("{} patients", who.count());
    let patients = match &who {
        Who::Named(_) => who.names().iter().map(Name::to_string).collect(),
        Who::Rows { .. } => Vec::new(),
    };
    let mut up = Up { home, args: &args, snapshot, processes: Vec::new(), patients, lost: Vec::new() };
    let outcome = tokio::select! {
        outcome = up.study(&who, plan.min_cohort(), json) => outcome,
        () = stop.asked() => Err(Stopped.into()),
    };
    let outcome = outcome.map_err(|error| up.blame(error));
    if outcome.is_ok() && args.keep {
        up.explain_keep(&who);
        tokio::select! {
            ended = up.any_ended() => ended?,
            () = stop.asked() => {}
        }
    }
    up.stop().await?;
    outcome
}

/// Whose data are summed.
enum Who {
    /// Named on the command line, or asked for.
    Named(Vec<Assignment>),
    /// The rows of a table.
    Rows { names: Vec<Name>, columns: Vec<String>, scale: Scale },
}

impl Who {
    fn count(&self) -> u32 {
        match self {
            Who::Named(patients) => patients.len() as u32,
            Who::Rows { names, .. } => names.len() as u32,
        }
    }

    fn names(&self) -> Vec<Name> {
        match self {
            Who::Named(patients) => patients.iter().map(|patient| patient.name.clone()).collect(),
            Who::Rows { names, .. } => names.clone(),
        }
    }

    fn scale(&self, rules: &RuleArgs) -> Scale {
        match self {
            Who::Named(_) => rules.scale.unwrap_or_default(),
            Who::Rows { scale, .. } => *scale,
        }
    }

    fn columns(&self) -> Vec<String> {
        match self {
            Who::Named(_) => vec!["value".into()],
            Who::Rows { columns, .. } => columns.clone(),
        }
    }
}

/// Who takes part, every value checked: nothing is started for bad input.
fn patients(home: &Home, args: &UpArgs) -> anyhow::Result<Who> {
    if let Some(csv) = &args.csv {
        let rules = &args.rules;
        let (table, scale) = table::read_table_exactly(csv, &args.column, args.limit, rules.scale, rules.bound())?;
        let names = table.rows.into_iter().map(|(name, _)| name).collect();
        return Ok(Who::Rows { names, columns: args.column.clone(), scale });
    }
    let given = match args.patients.as_slice() {
        [] if prompt::can_ask() => ask_three()?,
        [] => ["alice=100", "bob=200", "charlie=300"].map(|text| SecretText::from(text.to_string())).into(),
        given => given.to_vec(),
    };
    let patients = input::assignments(&given)?;
    let study = super::study(home)?;
    for patient in &patients {
        let dir = home.party_dir(&patient.name);
        let profile = written_or_flags(&dir, &study, None, args.rules.bound, args.rules.scale)?;
        input::value_record(patient.value.expose(), &profile.schema)
            .with_context(|| format!("the value of {}", patient.name))?;
    }
    Ok(Who::Named(patients))
}

fn ask_three() -> anyhow::Result<Vec<SecretText>> {
    let mut given = Vec::new();
    for name in ["alice", "bob", "charlie"] {
        let schema = Profile::standard(&certs::Study::default()).schema;
        let value = prompt::value(&name.parse()?, &schema)?;
        given.push(SecretText::from(format!("{name}={}", value.expose())));
    }
    Ok(given)
}

/// A name runs once per home: said before anything is started. What a `ward up` left that was killed ends by itself, as
/// nobody holds its pipes any more: that is waited for.
async fn nobody_runs(home: &Home, who: &Who, servers: Vec<Name>) -> anyhow::Result<()> {
    let parties = servers.into_iter().chain(["hospital".parse()?]).chain(who.names());
    let since = Instant::now();
    for dir in parties.map(|name| home.party_dir(&name)).chain([home.broker_dir()]) {
        loop {
            match lock::holder(&dir)? {
                Holder::Nobody => break,
                Holder::Tied if since.elapsed() < ENDING => tokio::time::sleep(LOOK).await,
                Holder::Tied | Holder::Process => usage!(
                    "{} runs already in {}: stop it, or use another --home",
                    dir.file_name().unwrap_or_default().to_string_lossy(),
                    home.path().display()
                ),
            }
        }
    }
    Ok(())
}

/// A study that is being run.
struct Up<'a> {
    home: &'a Home,
    args: &'a UpArgs,
    snapshot: Snapshot,
    /// The broker first, then the servers, then the patients.
    processes: Vec<Process>,
    /// Which of them are a patient each.
    patients: Vec<String>,
    /// How those of them ended that did.
    lost: Vec<String>,
}

impl Up<'_> {
    /// Starts every party and prints the answer.
    async fn study(&mut self, who: &Who, min_cohort: u32, json: bool) -> anyhow::Result<()> {
        let mut broker = vec!["broker".to_string()];
        broker.extend(self.args.port.map(|port| format!("--port={port}")));
        self.start("broker", broker, None).await?;
        self.wait_for_broker().await?;
        for name in self.args.server_names()? {
            self.start(name.as_str(), vec!["server".into(), format!("--name={name}")], None).await?;
        }
        self.start_patients(who, min_cohort).await?;
        let mut hospital = self.start_hospital(who).await?;
        let answer = tokio::select! {
            answer = last_line(&mut hospital) => answer?,
            ended = self.any_ended() => return Err(ended.err().unwrap_or_else(|| anyhow::anyhow!("a party ended"))),
        };
        let ended = hospital.ended().await?;
        show(&answer, &self.snapshot, &hospital, ended.code(), json)
    }

    async fn start(&mut self, what: &str, args: Vec<String>, first_line: Option<&str>) -> anyhow::Result<()> {
        let process = Process::start(self.home, what, &args, first_line).await?;
        self.processes.push(process);
        Ok(())
    }

    async fn wait_for_broker(&mut self) -> anyhow::Result<()> {
        note!("starting the broker (the first time it may have to be installed)");
        loop {
            if self.home.broker_address()?.is_some() {
                return Ok(());
            }
            tokio::select! {
                ended = self.any_ended() => ended?,
                () = tokio::time::sleep(LOOK) => {}
            }
        }
    }

    async fn start_patients(&mut self, who: &Who, min_cohort: u32) -> anyhow::Result<()> {
        let accept = format!("--min-cohort={}", min_cohort.min(crate::profile::MIN_COHORT));
        let rules = &self.args.rules;
        let snapshot = format!("--snapshot={}", self.snapshot);
        match who {
            Who::Named(patients) => {
                for Assignment { name, value } in patients {
                    let mut args =
                        vec!["patient".to_string(), name.to_string(), "--value-on-stdin".into(), snapshot.clone()];
                    // What a patient wrote down itself nobody lowers for it.
                    if !Profile::is_written(&self.home.party_dir(name)) {
                        args.push(accept.clone());
                        args.extend(rules.bound.map(|bound| format!("--bound={bound}")));
                        args.extend(rules.scale.map(|scale| format!("--scale={}", scale.get())));
                    }
                    self.start(name.as_str(), args, Some(value.expose())).await?;
                }
            }
            Who::Rows { columns, scale, .. } => {
                let mut args = vec!["patients".to_string(), snapshot, accept];
                args.extend([format!("--bound={}", rules.bound()), format!("--scale={}", scale.get())]);
                if let Some(csv) = &self.args.csv {
                    args.push(format!("--csv={}", csv.display()));
                }
                args.extend(columns.iter().map(|column| format!("--column={column}")));
                args.extend(self.args.limit.map(|limit| format!("--limit={limit}")));
                self.start("patients", args, None).await?;
            }
        }
        Ok(())
    }

    async fn start_hospital(&mut self, who: &Who) -> anyhow::Result<Process> {
        let mut args = vec!["--json".to_string(), "hospital".into(), "sum".into(), "--new".into()];
        args.push(format!("--patients={}", who.count()));
        args.push(format!("--snapshot={}", self.snapshot));
        args.push(format!("--retries={}", self.args.retries));
        args.extend(who.columns().iter().map(|column| format!("--column={column}")));
        args.extend(self.args.server_names()?.iter().map(|name| format!("--server={name}")));
        let rules = &self.args.rules;
        args.extend(rules.committee.map(|c| format!("--committee={c}")));
        args.extend(rules.threshold.map(|t| format!("--threshold={t}")));
        args.extend(rules.min_cohort.map(|k| format!("--min-cohort={k}")));
        args.push(format!("--round-seconds={}", rules.round_seconds));
        args.push(format!("--join-seconds={}", rules.join_seconds));
        args.push(format!("--audit={}", rules.audit));
        args.push(format!("--bound={}", rules.bound()));
        args.push(format!("--scale={}", who.scale(rules).get()));
        args.extend((!self.args.keep).then(|| "--last".to_string()));
        Process::narrated(self.home, "hospital", &args).await
    }

    /// Returns when a party ends without which the study cannot go on, with what it said. A patient costs nothing but its
    /// own value, or a round. Cancel safe.
    async fn any_ended(&mut self) -> anyhow::Result<()> {
        loop {
            let ended = self.processes.iter_mut().map(|process| Box::pin(process.ended()));
            let (status, at, _) = futures::future::select_all(ended).await;
            let (status, process) = (status?, self.processes.remove(at));
            let (what, words) = (&process.what, process.last_words());
            let how = match status.signal() {
                Some(signal) => format!("{what} was killed by signal {signal}"),
                None => format!("{what} ended: {words}"),
            };
            match status.code() {
                // Whoever revokes a patient means that one alone.
                Some(2) if !self.is_revoked_patient(what)? => usage!("{what}: {words}"),
                _ if self.patients.contains(what) => {
                    note!("{how}; the others go on");
                    self.lost.push(how);
                }
                _ => anyhow::bail!(how),
            }
        }
    }

    fn is_revoked_patient(&self, what: &String) -> anyhow::Result<bool> {
        let revoked = self.home.register().map(|register| register.revoked()).transpose()?.unwrap_or_default();
        Ok(self.patients.contains(what) && revoked.iter().any(|name| name.as_str() == what))
    }

    /// Why there is no answer, with the patients that ended before: they may be why.
    fn blame(&self, error: anyhow::Error) -> anyhow::Error {
        match error.downcast() {
            Ok(Aborted(why)) if !self.lost.is_empty() => Aborted(format!("{why}. {}", self.lost.join(". "))).into(),
            Ok(aborted) => aborted.into(),
            Err(error) => error,
        }
    }

    fn explain_keep(&self, who: &Who) {
        let home = self.home.path().display();
        note!("everything stays running until Ctrl-C; logs are in {home}/logs");
        note!("watch the board:  ward --home {home} watch");
        let mut more = String::new();
        if let Who::Rows { columns, .. } = who {
            more.extend(columns.iter().map(|column| format!(" --column {}", quoted(column))));
        }
        if who.scale(&self.args.rules) != Scale::default() {
            more += &format!(" --scale {}", who.scale(&self.args.rules).get());
        }
        more.extend(self.args.rules.bound.map(|bound| format!(" --bound {bound}")));
        note!("ask again:        ward --home {home} hospital sum --snapshot {}{more}", self.snapshot);
    }

    /// Stops everything that was started, the broker last.
    async fn stop(self) -> anyhow::Result<()> {
        let mut processes = self.processes.into_iter();
        let broker = processes.next();
        futures::future::try_join_all(processes.map(Process::stop)).await?;
        if let Some(broker) = broker {
            broker.stop().await?;
        }
        Ok(())
    }
}

/// A word of a command line, as a shell takes it.
fn quoted(word: &str) -> String {
    let plain = |c: char| c.is_ascii_alphanumeric() || "_-.".contains(c);
    if word.chars().all(plain) { word.into() } else { format!("'{}'", word.replace('\'', r"'\''")) }
}

/// The last line of the hospital's standard output; empty if it says nothing.
async fn last_line(hospital: &mut Process) -> anyhow::Result<String> {
    let Some(stdout) = hospital.stdout() else { return Ok(String::new()) };
    let mut lines = BufReader::new(stdout).lines();
    let mut last = String::new();
    while let Some(line) = lines.next_line().await? {
        last = line;
    }
    Ok(last)
}

/// Prints the hospital's answer, or ends as it ended.
fn show(answer: &str, snapshot: &Snapshot, hospital: &Process, code: Option<i32>, json: bool) -> anyhow::Result<()> {
    match (Report::parse(answer), code) {
        (Some(report), _) => {
            if json {
                print(answer)?;
            }
            match report {
                Report::Opened(opened) => {
                    if json {
                        Ok(())
                    } else {
                        print(opened.text(snapshot))
                    }
                }
                Report::Aborted(aborted) => Err(Aborted(aborted.message).into()),
            }
        }
        (None, Some(2)) => usage!("hospital: {}", hospital.last_words()),
        (None, _) => anyhow::bail!("hospital ended: {} (log: {})", hospital.last_words(), hospital.log().display()),
    }
}

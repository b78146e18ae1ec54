//! `ward bench`: secure rounds against the same vectors in the clear, over the same broker, with the same window and
//! acknowledgements, in turn.

mod cast;
mod data;
mod hospital;
mod orders;
mod patients;
mod plain;
mod processor;
mod report;
mod server;
mod setting;

use std::path::Path;

use protocol::Role;

use self::cast::{Cast, Sample};
use self::processor::Processor;
use self::report::Report;
use self::setting::Setting;
use crate::cli::{BenchArgs, BenchRole, BenchRoleArgs};
use crate::connect::Way;
use crate::enrol::{enrol, enrol_many};
use crate::exit::{Stopped, usage};
use crate::home::Home;
use crate::life::Stop;
use crate::report::{note, print};

/// Measures, and prints what came out. `given` is the folder to live in, if one was given; it must be new.
///
/// # Errors
/// Wrong use; a wrong sum; whatever ends a process.
pub async fn run(given: Option<&Path>, args: &BenchArgs, json: bool) -> anyhow::Result<()> {
    let mut stop = Stop::listen(false)?;
    let setting = Setting::new(&args.size)?;
    let temporary = tempfile::Builder::new().prefix("ward-bench-").tempdir()?;
    let path = given.unwrap_or(temporary.path());
    if path.read_dir().is_ok_and(|mut entries| entries.next().is_some()) {
        usage!(
            "`{}` is not empty: a bench enrols parties of its own, so give it a new folder as --home",
            path.display()
        );
    }
    let processor = Processor::measure(&setting)?;
    note!("{}", report::processor(&setting, &processor));
    let mut report = Report::new(setting.clone(), processor);
    let home = Home::at(path);
    enrol_all(&home, &setting)?;
    let (mut broker, pids) = tokio::select! {
        broker = cast::start_broker(&home) => broker?,
        () = stop.asked() => return Err(Stopped.into()),
    };
    let outcome = tokio::select! {
        outcome = play_all(&home, args, pids, &mut report) => outcome,
        ended = cast::broker_ended(&mut broker) => ended,
        () = stop.asked() => Err(Stopped.into()),
    };
    broker.stop().await?;
    outcome?;
    if json {
        print(report.json())?;
    } else {
        print(report.text())?;
    }
    Ok(())
}

/// Plays one role, as the bench's child.
///
/// # Errors
/// Whatever ends it.
pub async fn play(home: &Home, way: &Way, args: &BenchRoleArgs) -> anyhow::Result<()> {
    let setting = Setting::new(&args.size)?;
    match args.role {
        BenchRole::Server => server::play(home, way, setting, args.index).await,
        BenchRole::Hospital => hospital::play(home, way, setting).await,
        role @ (BenchRole::Patients | BenchRole::Members) => patients::play(home, way, setting, role).await,
    }
}

fn enrol_all(home: &Home, setting: &Setting) -> anyhow::Result<()> {
    home.init(None)?;
    for server in setting.servers.iter().chain(&setting.adders) {
        enrol(home, server, Some(Role::Server))?;
    }
    enrol(home, &setting.receiver, Some(Role::Hospital))?;
    // The first patients are marked, and there are always fewer members than are marked.
    enrol_many(home, setting.patients.iter().cloned())?;
    Ok(())
}

/// Starts all roles, measures, and ends them.
async fn play_all(home: &Home, args: &BenchArgs, broker: Vec<u32>, report: &mut Report) -> anyhow::Result<()> {
    let mut cast = Cast::start(home, &report.setting, &args.size, broker).await?;
    let outcome = measure(&mut cast, args.rounds, report).await;
    cast.stop().await?;
    outcome
}

/// Measures pairs, after one that warms everything up. Which of the two comes first changes from pair to pair.
async fn measure(cast: &mut Cast, rounds: u32, report: &mut Report) -> anyhow::Result<()> {
    let (plain, secure) = pair(cast, 1).await?;
    note!("first pair, not counted: plain {:.3} s, secure {:.3} s", plain.seconds, secure.seconds);
    for round in 1..=rounds {
        let (plain, secure) = pair(cast, round + 1).await?;
        note!("pair {round} of {rounds}: {}", report.add(plain, secure));
    }
    Ok(())
}

async fn pair(cast: &mut Cast, round: u32) -> anyhow::Result<(Sample, Sample)> {
    if round.is_multiple_of(2) {
        let plain = cast.plain(round).await?;
        Ok((plain, cast.secure(round).await?))
    } else {
        let secure = cast.secure(round).await?;
        Ok((cast.plain(round).await?, secure))
    }
}

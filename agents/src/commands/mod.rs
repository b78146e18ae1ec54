//! One file per command.

pub mod bench;
pub mod broker;
pub mod certs;
pub mod hospital;
pub mod patient;
pub mod server;
pub mod simulate;
pub mod up;
pub mod watch;

use crate::cli::{Cli, Command, HospitalCommand};
use crate::exit::usage;
use crate::home::Home;

/// Runs what the command line says.
///
/// # Errors
/// Whatever ends the command; `exit::code` says how.
pub async fn run(cli: Cli) -> anyhow::Result<()> {
    let home = Home::at(cli.home());
    if cli.broker.is_some() && matches!(cli.command, Command::Up(_) | Command::Broker(_)) {
        usage!(
            "--broker names a broker that runs: `ward up` and `ward broker` start their own; use --port for its port"
        );
    }
    let (way, brief) = (cli.way(), cli.brief_way());
    match cli.command {
        Command::Up(args) => up::run(&home, args, cli.json).await,
        Command::Broker(args) => broker::run(&home, &args, cli.tied).await,
        Command::Server(args) => server::run(&home, &way, &args, cli.tied).await,
        Command::Patient(args) => patient::run(&home, &way, args, cli.tied).await,
        Command::Patients(args) => patient::run_table(&home, &way, &args, cli.tied).await,
        Command::Hospital(HospitalCommand::Sum(args)) => hospital::sum(&home, &brief, &args, cli.json, cli.tied).await,
        Command::Bench(args) => bench::run(cli.home.as_deref(), &args, cli.json).await,
        Command::BenchRole(args) => bench::play(&home, &way, &args).await,
        Command::Simulate(args) => simulate::run(&args, cli.json),
        Command::Watch => watch::run(&home, &brief, cli.json).await,
        Command::Certs(command) => {
            let shown = certs::run(&home, command, cli.json)?;
            if cli.json {
                crate::report::print(shown)?;
            }
            Ok(())
        }
        // Handled before a runtime was made: it gives its process away.
        Command::ExecTied(_) => Ok(()),
    }
}

/// Makes what a home needs, unless it is a party's own machine: its certificate was put there by hand.
fn prepare(home: &Home) -> anyhow::Result<()> {
    if home.has_ca() || !home.parties_dir().exists() {
        home.init(None)?;
    }
    Ok(())
}

/// The study of the home, or of the one that is about to be made.
fn study(home: &Home) -> anyhow::Result<::certs::Study> {
    if home.has_ca() || home.parties_dir().exists() { Ok(home.study()?) } else { Ok(::certs::Study::default()) }
}

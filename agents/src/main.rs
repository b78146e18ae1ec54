//! `ward`: arguments in, exit code out. Each command has a file of its own in `commands`.
//!
//! The way of a value: `commands/patient.rs` takes it, `protocol`'s patient masks it, [`driver`] stores and sends what
//! the machine says, `nats` carries it, and at the other end the same [`driver`] hands it to the server, the members
//! and the hospital.

// Nothing is reachable from outside of a program.
#![allow(unreachable_pub)]

mod children;
mod cli;
mod commands;
mod connect;
mod driver;
mod enrol;
mod exit;
mod faults;
#[cfg(test)]
mod fixtures;
mod home;
mod input;
mod labels;
mod life;
mod lock;
mod offers;
mod profile;
mod prompt;
mod report;
mod store;

use clap::Parser as _;

fn main() {
    let cli = cli::Cli::try_parse().unwrap_or_else(|error| misused(error));
    if let cli::Command::ExecTied(args) = cli.command {
        let error = nats::exec_tied(&args.program, args.arguments);
        eprintln!("error: {} cannot be started: {error}", args.program.display());
        std::process::exit(1);
    }
    report::init();
    let json = cli.json;
    let code = match run(cli) {
        Ok(()) => 0,
        Err(error) => {
            let code = exit::code(&error);
            if let Some(report) = report::failure(&error).filter(|_| json) {
                println!("{report}");
            }
            eprintln!("error: {error:#}");
            code
        }
    };
    // Threads that wait for standard input must not keep the process.
    std::process::exit(code)
}

/// Ends with what is wrong with the command line, or with the help that was asked for. An argument too many may be a
/// value, so it is not repeated.
fn misused(mut error: clap::Error) -> ! {
    use clap::error::{ContextKind, ContextValue};
    if let Some(ContextValue::String(argument)) = error.get(ContextKind::InvalidArg)
        && error.kind() == clap::error::ErrorKind::UnknownArgument
        && !argument.starts_with("--")
    {
        error.insert(ContextKind::InvalidArg, ContextValue::String("..".into()));
        error.remove(ContextKind::Suggested);
    }
    if error.use_stderr() && std::env::args_os().any(|argument| argument == "--json") {
        let message = error.to_string();
        println!("{}", report::error(message.trim_start_matches("error: ").trim_end()));
    }
    error.exit()
}

fn run(cli: cli::Cli) -> anyhow::Result<()> {
    certs::install_provider()?;
    raise_file_limit();
    tokio::runtime::Builder::new_multi_thread().enable_all().build()?.block_on(commands::run(cli))
}

/// Hundreds of patients in one process need more than the usual 1,024 files.
fn raise_file_limit() {
    use rustix::process::{Resource, getrlimit, setrlimit};
    let mut limit = getrlimit(Resource::Nofile);
    limit.current = limit.maximum;
    if let Err(error) = setrlimit(Resource::Nofile, limit) {
        tracing::debug!(%error, "the limit on open files stays as it is");
    }
}

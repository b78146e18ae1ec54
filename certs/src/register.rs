//! What a CA has issued: a name goes to one key and one role in a study, for good.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::{fs, io};

use protocol::{Name, Role};
use time::OffsetDateTime;

use crate::certificate::{Certificate, CertificateError};
use crate::clock::{BACKDATE, show};
use crate::key::fingerprint;
use crate::{Request, files};

/// The folder beside `ca.pem` that keeps each name's newest certificate.
pub const ISSUED: &str = "issued";

/// The certificates that a CA has issued, one file per name: `issued/<name>.pem`.
#[derive(Debug)]
pub struct Register(Kept);

#[derive(Debug)]
enum Kept {
    /// Of a CA that was not saved yet.
    Memory(BTreeMap<Name, Certificate>),
    Folder(PathBuf),
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
        Self(Kept::Folder(dir.as_ref().join(ISSUED)))
    }

    pub(crate) fn in_memory() -> Self {
        Self(Kept::Memory(BTreeMap::new()))
    }

    /// The newest certificate of `name`, if it was ever issued.
    ///
    /// # Errors
    /// [`RegisterError`] if the entry cannot be read or is another's.
    pub fn get(&self, name: &Name) -> Result<Option<Certificate>, RegisterError> {
        match &self.0 {
            Kept::Memory(issued) => Ok(issued.get(name).cloned()),
            Kept::Folder(folder) => read_entry(&entry(folder, name), name),
        }
    }

    /// The newest certificate of every name, sorted by name.
    ///
    /// # Errors
    /// [`RegisterError`] if the folder or an entry cannot be read.
    pub fn all(&self) -> Result<Vec<Certificate>, RegisterError> {
        match &self.0 {
            Kept::Memory(issued) => Ok(issued.values().cloned().collect()),
            Kept::Folder(folder) => {
                let names = names(folder)?;
                let found: Result<Vec<_>, _> = names.iter().map(|name| self.get(name)).collect();
                Ok(found?.into_iter().flatten().collect())
            }
        }
    }

    /// Whether `request` may have its name in `role`: it is new, or a renewal by the same key and role.
    pub(crate) fn admit(&self, request: &Request, role: Role) -> Result<Admission, RegisterError> {
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
            Kept::Memory(issued) => {
                issued.insert(name.clone(), certificate.clone());
                Ok(())
            }
            Kept::Folder(folder) => write_entry(folder, certificate, admission),
        }
    }

    /// Whether the register is in a folder already.
    pub(crate) fn is_kept(&self) -> bool {
        matches!(self.0, Kept::Folder(_))
    }

    /// Puts a register that was in memory into the folder of its CA.
    pub(crate) fn move_to(&mut self, dir: &Path) -> Result<(), RegisterError> {
        let folder = dir.join(ISSUED);
        files::make_folder(&folder).map_err(|cause| RegisterError::File { path: folder.clone(), cause })?;
        for certificate in self.all()? {
            write_entry(&folder, &certificate, Admission::New)?;
        }
        self.0 = Kept::Folder(folder);
        Ok(())
    }
}

/// How a name comes into the register.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Admission {
    New,
    Renewal,
}

fn entry(folder: &Path, name: &Name) -> PathBuf {
    folder.join(format!("{name}.pem"))
}

fn read_entry(path: &Path, name: &Name) -> Result<Option<Certificate>, RegisterError> {
    match Certificate::load(path) {
        Ok(found) if found.subject().name == *name => Ok(Some(found)),
        Ok(_) => Err(RegisterError::Misfiled(path.into())),
        Err(CertificateError::File { cause, .. }) if cause.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(cause) => Err(RegisterError::Entry { path: path.into(), cause }),
    }
}

fn write_entry(folder: &Path, certificate: &Certificate, admission: Admission) -> Result<(), RegisterError> {
    let name = &certificate.subject().name;
    let (path, bytes) = (entry(folder, name), certificate.to_pem().as_bytes());
    let written = match admission {
        Admission::New => files::create(&path, bytes, files::PUBLIC),
        Admission::Renewal => files::replace(&path, bytes, files::PUBLIC),
    };
    written.map_err(|cause| match cause.kind() {
        io::ErrorKind::AlreadyExists => RegisterError::Contended(name.clone()),
        _ => RegisterError::File { path, cause },
    })
}

/// The names that have a file in `folder`; whatever else lies there is not the register's.
fn names(folder: &Path) -> Result<Vec<Name>, RegisterError> {
    let failed = |cause| RegisterError::File { path: folder.into(), cause };
    let mut names = Vec::new();
    for file in fs::read_dir(folder).map_err(failed)? {
        let file = file.map_err(failed)?.file_name();
        names.extend(file.to_str().and_then(|file| file.strip_suffix(".pem")).and_then(|name| name.parse().ok()));
    }
    names.sort();
    Ok(names)
}

//! The layout of a home, the folder (by default `.ward`) in which a study, or one party of it, lives.
//!
//! ```text
//! <home>/ca/                 ca.pem ca.key issued/ revoked/
//! <home>/parties/<name>/     ca.pem cert.pem key.pem patient.toml state.redb lock offers/; `table` for the row of one
//! <home>/patients.redb       the state of all rows of a table
//! <home>/labels              the snapshots that were used
//! <home>/logs/               what the processes of `ward up` say
//! <home>/broker/             address, configuration, log, JetStream's store, lock
//! <home>/nats-server/        the private environment of an installed broker
//! ```
//!
//! A party's own machine needs nothing but its folder with the three `.pem` files.

use std::collections::BTreeSet;
use std::fs::{self, DirBuilder};
use std::io::{self, Write};
use std::os::unix::fs::DirBuilderExt;
use std::path::{Path, PathBuf};

use certs::{
    AnchorError, AuthorityError, CA_FILE, CA_KEY_FILE, CERTIFICATE_FILE, Certificate, CertificateAuthority,
    CertificateError, Credentials, CredentialsError, ISSUED, REVOKED, Register, RegisterError, Study, StudyAuthority,
    Subject,
};
use protocol::{Name, Role};

use crate::drafts::{self, OF_CA, OF_RUNNING, UNDER_LOCK};
use crate::lock::{ClaimError, Exclusive};

/// What the parent of the broker works as.
pub(crate) const OPERATOR: &str = "operator";

/// The parties that every study has, by name; no patient can have one of these names.
pub(crate) const INFRASTRUCTURE: [(&str, Role); 5] = [
    (OPERATOR, Role::Operator),
    ("monitor", Role::Monitor),
    ("broker", Role::Broker),
    ("server", Role::Server),
    ("hospital", Role::Hospital),
];

/// A home directory. The value is its path: nothing is created before something is kept.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Home {
    path: PathBuf,
}

/// Why a home cannot be used.
#[derive(Debug, thiserror::Error)]
pub(crate) enum HomeError {
    /// There is no CA in it.
    #[error(
        "`{}` has no certificate authority: make one with `ward certs init`; if the CA is on another machine, use \
         `ward certs request` here and `ward certs sign` there",
        .0.display()
    )]
    NoCa(PathBuf),
    /// There is no such party in it.
    #[error(
        "there is no certificate of `{name}` in `{}`: `ward certs request {name} ROLE` starts to get one, and in the \
         home of the CA `ward patient {name} VALUE` enrols a patient on the spot",
        .dir.display()
    )]
    NoParty {
        /// Who is missing.
        name: Name,
        /// Where the party's folder would be.
        dir: PathBuf,
    },
    /// A party of another role than the command is for.
    #[error(
        "`{name}` is a {has} of this study and cannot run as a {wanted}: name a {wanted}, whose records the command may \
         change"
    )]
    OtherRole {
        /// Who was named.
        name: Name,
        /// What it is.
        has: Role,
        /// What it was named as.
        wanted: Role,
    },
    /// The folder of one party holds the certificate of another.
    #[error(
        "`{}` holds the certificate of {found}: put it into the folder of that name, and the right one here",
        .dir.display()
    )]
    OtherParty {
        /// The folder.
        dir: PathBuf,
        /// Whom the certificate names.
        found: Subject,
    },
    /// A party's key or certificates.
    #[error(transparent)]
    Credentials(#[from] CredentialsError),
    /// The CA's folder.
    #[error(transparent)]
    Authority(#[from] AuthorityError),
    /// The CA's certificate.
    #[error("in `{}`: {cause}", .path.display())]
    Anchor {
        /// `ca.pem`.
        path: PathBuf,
        /// What is wrong with it.
        cause: AnchorError,
    },
    /// The CA's register.
    #[error(transparent)]
    Register(#[from] RegisterError),
    /// A party's certificate.
    #[error("in `{}`: {cause}", .path.display())]
    Certificate {
        /// `cert.pem`.
        path: PathBuf,
        /// What is wrong with it.
        cause: CertificateError,
    },
    /// The home's lock.
    #[error(transparent)]
    Lock(#[from] ClaimError),
    /// A file or folder cannot be used.
    #[error("cannot use `{}`: {cause}", .path.display())]
    File {
        /// The file or folder.
        path: PathBuf,
        /// What the system said.
        cause: io::Error,
    },
}

impl Home {
    /// The home at `path`.
    pub(crate) fn at(path: impl Into<PathBuf>) -> Self {
        Self { path: path.into() }
    }

    /// The home itself.
    pub(crate) fn path(&self) -> &Path {
        &self.path
    }

    /// The CA's folder.
    pub(crate) fn ca_dir(&self) -> PathBuf {
        self.path.join("ca")
    }

    /// The folder of all parties' folders.
    pub(crate) fn parties_dir(&self) -> PathBuf {
        self.path.join("parties")
    }

    /// A party's folder.
    pub(crate) fn party_dir(&self, name: &Name) -> PathBuf {
        self.parties_dir().join(name.as_str())
    }

    /// The database of a party.
    pub(crate) fn state_path(&self, name: &Name) -> PathBuf {
        self.party_dir(name).join("state.redb")
    }

    /// The broker's folder.
    pub(crate) fn broker_dir(&self) -> PathBuf {
        self.path.join("broker")
    }

    /// The private environment of an installed nats-server.
    pub(crate) fn nats_server_dir(&self) -> PathBuf {
        self.path.join("nats-server")
    }

    /// Whether certificates can be signed here.
    pub(crate) fn has_ca(&self) -> bool {
        self.ca_dir().join(CA_KEY_FILE).exists()
    }

    /// The CA, with its key.
    ///
    /// # Errors
    /// [`HomeError::NoCa`] where there is none, and what a CA's files can have.
    pub(crate) fn authority(&self) -> Result<CertificateAuthority, HomeError> {
        if self.has_ca() {
            Ok(CertificateAuthority::load(self.ca_dir())?)
        } else {
            Err(HomeError::NoCa(self.path.clone()))
        }
    }

    /// The study: the CA's, or that of the first party here.
    ///
    /// # Errors
    /// [`HomeError::NoCa`] if neither is here.
    pub(crate) fn study(&self) -> Result<Study, HomeError> {
        let parties = self.folders()?.into_iter().map(|name| self.party_dir(&name));
        let mut files = std::iter::once(self.ca_dir()).chain(parties).map(|dir| dir.join(CA_FILE));
        let path = files.find(|path| path.exists()).ok_or_else(|| HomeError::NoCa(self.path.clone()))?;
        let authority = StudyAuthority::load(&path).map_err(|cause| HomeError::Anchor { path, cause })?;
        Ok(authority.study().clone())
    }

    /// A party's key and certificates, checked. Only the party's folder is needed; where the CA is, a revoked name is refused.
    ///
    /// # Errors
    /// [`HomeError`] names the file, what is wrong with it, and the remedy.
    pub(crate) fn credentials(&self, name: &Name) -> Result<Credentials, HomeError> {
        if let Some(register) = self.register() {
            register.check_not_revoked(name)?;
        }
        let dir = self.party_dir(name);
        if !dir.join(CERTIFICATE_FILE).exists() {
            return Err(HomeError::NoParty { name: name.clone(), dir });
        }
        let credentials = Credentials::load(&dir)?;
        let found = credentials.certificate().subject();
        if found.name != *name {
            return Err(HomeError::OtherParty { dir, found: found.clone() });
        }
        Ok(credentials)
    }

    /// As [`Home::credentials`], of a party that may run as `wanted`, a patient with or without the mark: a machine takes
    /// what another one's store says of its sessions for damaged, and forgets it.
    ///
    /// # Errors
    /// As [`Home::credentials`], and [`HomeError::OtherRole`].
    pub(crate) fn credentials_as(&self, name: &Name, wanted: Role) -> Result<Credentials, HomeError> {
        let credentials = self.credentials(name)?;
        let has = credentials.identity().role;
        if has == wanted || (has.is_patient() && wanted.is_patient()) {
            Ok(credentials)
        } else {
            Err(HomeError::OtherRole { name: name.clone(), has, wanted })
        }
    }

    /// Every party of the study that this home knows, with its role, sorted by name: all that the CA
    /// has issued and not revoked, or, without a CA, those whose folders are here.
    ///
    /// # Errors
    /// [`HomeError`] if a certificate or a folder cannot be read.
    pub(crate) fn parties(&self) -> Result<Vec<(Name, Role)>, HomeError> {
        let (certificates, revoked) = match self.register() {
            Some(register) => (register.all()?, register.revoked()?),
            None => (self.certificates()?, BTreeSet::new()),
        };
        let subjects = certificates.iter().map(Certificate::subject).filter(|subject| !revoked.contains(&subject.name));
        Ok(subjects.map(|subject| (subject.name.clone(), subject.role)).collect())
    }

    /// The enrolled patients, marked or not, sorted by name.
    ///
    /// # Errors
    /// As [`Home::parties`].
    pub(crate) fn patients(&self) -> Result<Vec<(Name, Role)>, HomeError> {
        let mut parties = self.parties()?;
        parties.retain(|(_, role)| role.is_patient());
        Ok(parties)
    }

    /// What the CA has issued, where its folder is here.
    pub(crate) fn register(&self) -> Option<Register> {
        self.ca_dir().join(CA_FILE).exists().then(|| Register::of(self.ca_dir()))
    }

    /// Where the broker of this home listens, as `host:port`; `None` while none is ready.
    ///
    /// # Errors
    /// [`HomeError::File`].
    pub(crate) fn broker_address(&self) -> Result<Option<String>, HomeError> {
        let path = self.broker_address_path();
        match fs::read_to_string(&path) {
            Ok(text) => Ok(Some(text.trim().to_owned()).filter(|address| !address.is_empty())),
            Err(cause) if cause.kind() == io::ErrorKind::NotFound => Ok(None),
            Err(cause) => Err(HomeError::File { path, cause }),
        }
    }

    /// Says where the broker listens, once it is ready: a reader sees the whole address or none.
    ///
    /// # Errors
    /// [`HomeError::File`].
    pub(crate) fn write_broker_address(&self, address: &str) -> Result<(), HomeError> {
        let dir = self.broker_dir();
        make_dir(&dir)?;
        let path = self.broker_address_path();
        let written = tempfile::Builder::new().prefix(OF_RUNNING).tempfile_in(&dir).and_then(|mut file| {
            writeln!(file, "{address}")?;
            file.persist(&path).map_err(|refused| refused.error)
        });
        written.map(drop).map_err(|cause| HomeError::File { path, cause })
    }

    /// Says that no broker listens any more.
    ///
    /// # Errors
    /// [`HomeError::File`].
    pub(crate) fn remove_broker_address(&self) -> Result<(), HomeError> {
        let path = self.broker_address_path();
        match fs::remove_file(&path) {
            Err(cause) if cause.kind() != io::ErrorKind::NotFound => Err(HomeError::File { path, cause }),
            _ => Ok(()),
        }
    }

    /// The file with the broker's address.
    pub(crate) fn broker_address_path(&self) -> PathBuf {
        self.broker_dir().join("address")
    }

    /// Keeps every other process from enrolling until the value is dropped. What one that was killed had begun beside the CA or in
    /// its folders goes.
    ///
    /// # Errors
    /// [`HomeError`] if the home cannot be written.
    pub(crate) fn lock(&self) -> Result<Exclusive, HomeError> {
        make_dir(&self.path)?;
        let lock = Exclusive::wait(&self.path.join("lock"))?;
        clear(&self.path, OF_CA)?;
        let ca = self.ca_dir();
        [ca.join(ISSUED), ca.join(REVOKED), ca].iter().try_for_each(|dir| clear_drafts(dir))?;
        Ok(lock)
    }

    /// The certificates of the parties whose folders are here; a folder that still waits for one is passed over.
    ///
    /// # Errors
    /// [`HomeError`] if a certificate or a folder cannot be read.
    pub(crate) fn certificates(&self) -> Result<Vec<Certificate>, HomeError> {
        let paths = self.folders()?.into_iter().map(|name| self.party_dir(&name).join(CERTIFICATE_FILE));
        let load = |path: PathBuf| Certificate::load(&path).map_err(|cause| HomeError::Certificate { path, cause });
        paths.filter(|path| path.exists()).map(load).collect()
    }

    /// The names that have a folder, sorted.
    fn folders(&self) -> Result<Vec<Name>, HomeError> {
        let dir = self.parties_dir();
        let failed = |cause| HomeError::File { path: dir.clone(), cause };
        let entries = match fs::read_dir(&dir) {
            Err(cause) if cause.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
            entries => entries.map_err(failed)?,
        };
        let names = entries.map(|entry| Ok(entry?.file_name().to_str().and_then(|name| name.parse().ok())));
        let mut names: Vec<Name> = names.filter_map(Result::transpose).collect::<io::Result<_>>().map_err(failed)?;
        names.sort();
        Ok(names)
    }
}

/// Removes from a folder what was begun under the home's lock and never came into place; for who has the lock.
///
/// # Errors
/// [`HomeError::File`].
pub(crate) fn clear_drafts(dir: &Path) -> Result<(), HomeError> {
    clear(dir, UNDER_LOCK)
}

fn clear(dir: &Path, prefix: &str) -> Result<(), HomeError> {
    drafts::clear(dir, prefix).map_err(|cause| HomeError::File { path: dir.into(), cause })
}

/// Makes a folder and its parents, open to their owner alone where they are new.
pub(crate) fn make_dir(path: &Path) -> Result<(), HomeError> {
    let made = DirBuilder::new().recursive(true).mode(0o700).create(path);
    made.map_err(|cause| HomeError::File { path: path.into(), cause })
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use std::os::unix::fs::PermissionsExt;

    use super::*;
    use crate::enrol::enrol;
    use crate::fixtures::{name, new_home};

    #[test]
    fn naming_a_home_creates_nothing() {
        let dir = tempfile::tempdir().unwrap();
        let home = Home::at(dir.path().join("home"));
        assert_eq!(home.broker_address().unwrap(), None);
        assert!(home.parties().unwrap().is_empty());
        assert!(matches!(home.study(), Err(HomeError::NoCa(_))));
        assert!(matches!(home.authority(), Err(HomeError::NoCa(_))));
        assert!(matches!(home.credentials(&name("alice")), Err(HomeError::NoParty { .. })));
        home.remove_broker_address().unwrap();
        assert!(!home.path().exists());
    }

    #[test]
    fn init_is_idempotent_and_private() {
        let (_dir, home) = new_home();
        home.init(Some(&Study::default())).unwrap();
        assert_eq!(home.study().unwrap(), Study::default());
        assert_eq!(home.parties().unwrap().len(), INFRASTRUCTURE.len());
        assert!(home.patients().unwrap().is_empty());
        for (party, role) in INFRASTRUCTURE {
            assert_eq!(home.credentials(&name(party)).unwrap().identity().role, role);
        }
        let party = home.party_dir(&name("server"));
        for dir in [home.path().into(), home.ca_dir(), home.parties_dir(), party, home.broker_dir()] {
            assert_eq!(fs::metadata(&dir).unwrap().permissions().mode() & 0o777, 0o700, "{}", dir.display());
        }
    }

    #[test]
    fn a_home_keeps_its_study() {
        let (_dir, home) = new_home();
        let refused = home.init(Some(&"heart".parse().unwrap())).unwrap_err().to_string();
        assert!(refused.contains("`ward`") && refused.contains("`heart`"), "{refused}");
    }

    #[test]
    fn the_broker_address_comes_and_goes() {
        let (_dir, home) = new_home();
        home.write_broker_address("127.0.0.1:4333").unwrap();
        assert_eq!(home.broker_address().unwrap().as_deref(), Some("127.0.0.1:4333"));
        home.write_broker_address("[::1]:4334").unwrap();
        assert_eq!(home.broker_address().unwrap().as_deref(), Some("[::1]:4334"));
        home.remove_broker_address().unwrap();
        home.remove_broker_address().unwrap();
        assert_eq!(home.broker_address().unwrap(), None);
    }

    #[test]
    fn a_party_needs_only_its_folder() {
        let (dir, home) = new_home();
        enrol(&home, &name("alice"), None).unwrap();
        let far = Home::at(dir.path().join("far"));
        make_dir(&far.parties_dir()).unwrap();
        fs::rename(home.party_dir(&name("alice")), far.party_dir(&name("alice"))).unwrap();
        assert_eq!(far.credentials(&name("alice")).unwrap().identity().role, Role::Member);
        assert_eq!(far.study().unwrap(), Study::default());
        assert_eq!(far.parties().unwrap(), [(name("alice"), Role::Member)]);
        assert!(enrol(&far, &name("bob"), None).unwrap_err().to_string().contains("ward certs"));
    }

    #[test]
    fn a_folder_of_another_party_is_refused() {
        let (_dir, home) = new_home();
        enrol(&home, &name("alice"), None).unwrap();
        fs::rename(home.party_dir(&name("alice")), home.party_dir(&name("bob"))).unwrap();
        let refused = home.credentials(&name("bob")).unwrap_err().to_string();
        assert!(refused.contains("parties/bob") && refused.contains("/member/alice"), "{refused}");
    }

    #[test]
    fn an_open_key_is_refused() {
        let (_dir, home) = new_home();
        let key = home.party_dir(&name("hospital")).join("key.pem");
        fs::set_permissions(&key, fs::Permissions::from_mode(0o644)).unwrap();
        assert!(home.credentials(&name("hospital")).unwrap_err().to_string().contains("chmod 600"));
    }
}

//! Enrolling: a key made in the party's folder, a request, and a certificate from the home's CA.

use std::collections::{BTreeMap, BTreeSet};
use std::fs::{self, Permissions};
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::thread;

use certs::{
    AnchorError, AuthorityError, CA_FILE, CA_VALIDITY, CERTIFICATE_FILE, Certificate, CertificateAuthority,
    CertificateError, Host, KEY_FILE, KeyError, PARTY_VALIDITY, PrivateKey, Register, RegisterError, Request,
    RequestError, Study,
};
use protocol::{Name, Role};
use time::OffsetDateTime;

use crate::drafts::OF_CA;
use crate::home::{Home, HomeError, INFRASTRUCTURE, clear_drafts, make_dir};

/// How many patients are marked `member` on the spot: enough for every committee, few enough that one
/// can know them.
pub(crate) const MOST_MARKED: usize = 20;

/// How many parties are written at a time: the time goes into waiting for the disk, not into arithmetic.
const WRITERS: usize = 32;

/// A party of this home, enrolled.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Enrolment {
    /// Its name.
    pub(crate) name: Name,
    /// Its role: for a patient, whether the CA marked it.
    pub(crate) role: Role,
    /// Whether it was enrolled now; otherwise it was already.
    pub(crate) new: bool,
}

/// Why a party was not enrolled.
#[derive(Debug, thiserror::Error)]
pub(crate) enum EnrolError {
    /// The home has no CA, or cannot be used.
    #[error(transparent)]
    Home(#[from] HomeError),
    /// Another role has the name.
    #[error(
        "the name `{name}` belongs to the study's {has} and names are issued once: choose another name for a {wanted}"
    )]
    Taken {
        /// The name.
        name: Name,
        /// Who has it.
        has: Role,
        /// What it was wanted for.
        wanted: Role,
    },
    /// The name was issued to a key that is not here.
    #[error(
        "`{name}` is enrolled, but its key is not in `{}`: run it where its key is, or choose another name",
        .dir.display()
    )]
    Elsewhere {
        /// The name.
        name: Name,
        /// Where the key would be.
        dir: PathBuf,
    },
    /// A party's folder holds a certificate of another CA, or of another party.
    #[error(
        "`{}` is not the certificate that the CA of this home issued under that name: move it away, or use the home \
         that it belongs to",
        .0.display()
    )]
    Foreign(PathBuf),
    /// The home is another study's.
    #[error("the home `{}` is of study `{has}`, not `{wanted}`: use another --home for it", .home.display())]
    OtherStudy {
        /// The home.
        home: PathBuf,
        /// Its study.
        has: Study,
        /// The study that was asked for.
        wanted: Study,
    },
    /// The private key.
    #[error(transparent)]
    Key(#[from] KeyError),
    /// The request.
    #[error(transparent)]
    Request(#[from] RequestError),
    /// The CA refuses.
    #[error(transparent)]
    Authority(#[from] AuthorityError),
    /// The CA's register.
    #[error(transparent)]
    Register(#[from] RegisterError),
    /// The copy of the CA's certificate.
    #[error(transparent)]
    Anchor(#[from] AnchorError),
    /// The party's certificate.
    #[error("in `{}`: {cause}", .path.display())]
    Certificate {
        /// The file.
        path: PathBuf,
        /// What is wrong with it.
        cause: CertificateError,
    },
}

impl Home {
    /// Makes what of a study's home is missing: the CA, the parties that every study has, and the broker's folder.
    ///
    /// `study` is that of a new home; `None` means the default, and any study where there is one.
    ///
    /// # Errors
    /// [`EnrolError`], among them a home of another study.
    pub(crate) fn init(&self, study: Option<&Study>) -> Result<(), EnrolError> {
        let _alone = self.lock()?;
        if !self.has_ca() {
            self.create_ca(study.unwrap_or(&Study::default()))?;
        }
        let ca = self.authority()?;
        if let Some(wanted) = study.filter(|wanted| *wanted != ca.study()) {
            let (home, has) = (self.path().into(), ca.study().clone());
            return Err(EnrolError::OtherStudy { home, has, wanted: wanted.clone() });
        }
        make_dir(&self.broker_dir())?;
        let desk = Desk { home: self, ca, register: Register::of(self.ca_dir()) };
        let revoked = desk.register.revoked()?;
        let parties = INFRASTRUCTURE.iter().filter_map(|(name, role)| Some((name.parse().ok()?, *role)));
        // Of a revoked one nothing is needed any more.
        let mut parties = parties.filter(|(name, _)| !revoked.contains(name));
        parties.try_for_each(|(name, role)| desk.complete(&name, role).map(drop))
    }

    /// The CA comes into place as a whole: an end in the middle leaves no half of one.
    fn create_ca(&self, study: &Study) -> Result<(), EnrolError> {
        let dir = self.ca_dir();
        let failed = |cause| HomeError::File { path: dir.clone(), cause };
        let private = Permissions::from_mode(0o700);
        let staged = tempfile::Builder::new().prefix(OF_CA).permissions(private).tempdir_in(self.path());
        let staged = staged.map_err(failed)?;
        CertificateAuthority::create(study, OffsetDateTime::now_utc() + CA_VALIDITY)?.save(staged.path())?;
        fs::rename(staged.path(), &dir).map_err(failed)?;
        // What it named is in place now and no longer its to remove.
        let _ = staged.keep();
        Ok(())
    }
}

/// Enrols `name` in the home of the CA. Without a wish it becomes a patient, marked `member` while
/// fewer than [`MOST_MARKED`] are. Who is enrolled already stays as it is.
///
/// # Errors
/// [`EnrolError::Taken`] says who has the name.
pub(crate) fn enrol(home: &Home, name: &Name, wish: Option<Role>) -> Result<Enrolment, EnrolError> {
    let _alone = home.lock_for_enrolment()?;
    let role = Roles::of(home)?.settle(name, wish)?;
    let new = Desk::open(home)?.complete(name, role)?;
    Ok(Enrolment { name: name.clone(), role, new })
}

/// Enrols many patients at once, the first of them marked as [`enrol`] marks; a name that comes twice counts once.
///
/// # Errors
/// As [`enrol`]. Roles are settled before anything is written.
pub(crate) fn enrol_many(home: &Home, names: impl IntoIterator<Item = Name>) -> Result<Vec<Enrolment>, EnrolError> {
    let _alone = home.lock_for_enrolment()?;
    let mut roles = Roles::of(home)?;
    let mut seen = BTreeSet::new();
    let names = names.into_iter().filter(|name| seen.insert(name.clone()));
    let wanted: Vec<(Name, Role)> =
        names.map(|name| Ok((name.clone(), roles.settle(&name, None)?))).collect::<Result<_, EnrolError>>()?;
    let share = wanted.len().div_ceil(WRITERS).max(1);
    thread::scope(|scope| {
        let writers: Vec<_> = wanted.chunks(share).map(|part| scope.spawn(move || write_all(home, part))).collect();
        let mut done = Vec::with_capacity(wanted.len());
        for writer in writers {
            done.extend(writer.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic))?);
        }
        Ok(done)
    })
}

/// Each writer has a CA of its own: one would make the others wait at its register while it waits for the disk.
/// That is safe because the home's lock is held and no two writers have the same name.
fn write_all(home: &Home, wanted: &[(Name, Role)]) -> Result<Vec<Enrolment>, EnrolError> {
    let desk = Desk::open(home)?;
    let write = |(name, role): &(Name, Role)| {
        Ok(Enrolment { name: name.clone(), role: *role, new: desk.complete(name, *role)? })
    };
    wanted.iter().map(write).collect()
}

/// Gives the broker's certificate the names by which parties reach it; its key stays.
///
/// # Errors
/// [`EnrolError`] if the CA or the broker's folder cannot be used.
pub(crate) fn name_broker(home: &Home, name: &Name, hosts: &[Host]) -> Result<(), EnrolError> {
    let _alone = home.lock_for_enrolment()?;
    Desk::open(home)?.name_broker(name, hosts)
}

impl Home {
    /// The home's lock, where there is a CA to enrol with: a home without one is left untouched.
    fn lock_for_enrolment(&self) -> Result<crate::lock::Exclusive, HomeError> {
        if self.has_ca() { self.lock() } else { Err(HomeError::NoCa(self.path().into())) }
    }
}

/// Who has which role, and how many are marked; and which names nobody gets any more.
struct Roles {
    register: Option<Register>,
    issued: BTreeMap<Name, Role>,
    marked: usize,
}

impl Roles {
    fn of(home: &Home) -> Result<Self, HomeError> {
        let issued: BTreeMap<Name, Role> = home.parties()?.into_iter().collect();
        let marked = issued.values().filter(|role| **role == Role::Member).count();
        Ok(Self { register: home.register(), issued, marked })
    }

    /// The role that `name` has, or that it gets now.
    fn settle(&mut self, name: &Name, wish: Option<Role>) -> Result<Role, EnrolError> {
        if let Some(register) = &self.register {
            register.check_not_revoked(name)?;
        }
        if let Some(&has) = self.issued.get(name) {
            let fits = wish.map_or(has.is_patient(), |wanted| wanted == has);
            let taken = || EnrolError::Taken { name: name.clone(), has, wanted: wish.unwrap_or(Role::Patient) };
            return if fits { Ok(has) } else { Err(taken()) };
        }
        let role = wish.unwrap_or(if self.marked < MOST_MARKED { Role::Member } else { Role::Patient });
        self.marked += usize::from(role == Role::Member);
        self.issued.insert(name.clone(), role);
        Ok(role)
    }
}

/// The CA at work in its home.
struct Desk<'a> {
    home: &'a Home,
    ca: CertificateAuthority,
    register: Register,
}

impl<'a> Desk<'a> {
    fn open(home: &'a Home) -> Result<Self, EnrolError> {
        Ok(Self { home, ca: home.authority()?, register: Register::of(home.ca_dir()) })
    }

    /// Makes what of the party's folder is missing; says whether the party is new. It can be repeated
    /// after an end at any point: the certificate, which the broker watches for, comes last.
    fn complete(&self, name: &Name, role: Role) -> Result<bool, EnrolError> {
        let dir = self.home.party_dir(name);
        clear_drafts(&dir)?;
        let issued = self.register.get(name)?;
        let file = dir.join(CERTIFICATE_FILE);
        if file.exists() {
            return match issued {
                Some(issued) if *issued.public_key() == *load(&file)?.public_key() => Ok(false),
                _ => Err(EnrolError::Foreign(file)),
            };
        }
        let new = issued.is_none();
        let key = own_key(&dir, name, issued.as_ref())?;
        let certificate = match issued {
            Some(issued) => issued,
            None => self.ca.sign(&Request::new(&key, self.ca.study(), role, name)?, role, self.end())?,
        };
        let anchor = dir.join(CA_FILE);
        // A second name for the CA's file costs no wait for the disk; across file systems it takes a copy.
        if !anchor.exists() && fs::hard_link(self.home.ca_dir().join(CA_FILE), &anchor).is_err() {
            self.ca.authority().save(anchor)?;
        }
        certificate.save(&file).map_err(|cause| EnrolError::Certificate { path: file, cause })?;
        Ok(new)
    }

    /// Renews the broker's certificate, unless it has these names.
    fn name_broker(&self, name: &Name, hosts: &[Host]) -> Result<(), EnrolError> {
        let dir = self.home.party_dir(name);
        let file = dir.join(CERTIFICATE_FILE);
        let certificate = load(&file)?;
        if hosts.iter().all(|host| certificate.names(host)) {
            return Ok(());
        }
        let key = own_key(&dir, name, Some(&certificate))?;
        let request = Request::new(&key, self.ca.study(), Role::Broker, name)?;
        let renewed = self.ca.sign_broker(&request, hosts, self.end())?;
        renewed.save(&file).map_err(|cause| EnrolError::Certificate { path: file, cause })
    }

    /// No certificate outlives the CA.
    fn end(&self) -> OffsetDateTime {
        (OffsetDateTime::now_utc() + PARTY_VALIDITY).min(self.ca.not_after())
    }
}

/// The key in the party's folder: a new one, unless the name was issued; then it must be the one it was issued to.
fn own_key(dir: &Path, name: &Name, issued: Option<&Certificate>) -> Result<PrivateKey, EnrolError> {
    let file = dir.join(KEY_FILE);
    let elsewhere = || EnrolError::Elsewhere { name: name.clone(), dir: dir.into() };
    if file.exists() {
        let key = PrivateKey::load(&file)?;
        let fits = issued.is_none_or(|issued| *issued.public_key() == key.public_key());
        return if fits { Ok(key) } else { Err(elsewhere()) };
    }
    if issued.is_some() {
        return Err(elsewhere());
    }
    make_dir(dir)?;
    let key = PrivateKey::generate()?;
    key.save(&file)?;
    Ok(key)
}

fn load(path: &Path) -> Result<Certificate, EnrolError> {
    Certificate::load(path).map_err(|cause| EnrolError::Certificate { path: path.into(), cause })
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use super::*;
    use crate::fixtures::{name, new_home};

    #[test]
    fn a_patient_is_enrolled_once() {
        let (_dir, home) = new_home();
        let first = enrol(&home, &name("dave"), None).unwrap();
        assert_eq!(first, Enrolment { name: name("dave"), role: Role::Member, new: true });
        let key = home.credentials(&name("dave")).unwrap().identity().key;
        assert_eq!(enrol(&home, &name("dave"), None).unwrap(), Enrolment { new: false, ..first });
        assert_eq!(home.credentials(&name("dave")).unwrap().identity().key, key);
        assert_eq!(home.patients().unwrap(), [(name("dave"), Role::Member)]);
    }

    #[test]
    fn twenty_are_marked() {
        let (_dir, home) = new_home();
        let names = (1..=23).map(|at| name(&format!("p{at:03}")));
        let enrolled = enrol_many(&home, names.clone()).unwrap();
        assert!(enrolled.iter().map(|enrolment| enrolment.name.clone()).eq(names.clone()));
        assert!(enrolled.iter().enumerate().all(|(at, e)| e.new && (e.role == Role::Member) == (at < MOST_MARKED)));
        assert_eq!(enrol(&home, &name("dave"), None).unwrap().role, Role::Patient);
        assert_eq!(enrol(&home, &name("erin"), Some(Role::Member)).unwrap().role, Role::Member);
        let again = enrol_many(&home, names.chain([name("p001")])).unwrap();
        assert!(again.len() == 23 && again.iter().all(|enrolment| !enrolment.new));
        assert!(home.credentials(&name("p023")).is_ok());
    }

    #[test]
    fn a_revoked_patient_is_none_any_more_and_leaves_its_mark_to_another() {
        let (_dir, home) = new_home();
        enrol_many(&home, (1..=MOST_MARKED).map(|at| name(&format!("p{at:03}")))).unwrap();
        home.authority().unwrap().revoke(&name("p001")).unwrap();
        let revoked = |refused: EnrolError| assert!(matches!(refused, EnrolError::Register(_)), "{refused}");
        revoked(enrol(&home, &name("p001"), None).unwrap_err());
        revoked(enrol_many(&home, [name("dave"), name("p001")]).unwrap_err());
        assert!(!home.party_dir(&name("dave")).exists(), "nothing is written before all are looked at");
        assert!(matches!(home.credentials(&name("p001")), Err(HomeError::Register(_))));
        assert_eq!(home.patients().unwrap().len(), MOST_MARKED - 1);
        assert_eq!(enrol(&home, &name("dave"), None).unwrap().role, Role::Member);
        assert_eq!(enrol(&home, &name("erin"), None).unwrap().role, Role::Patient);
    }

    #[test]
    fn a_home_does_without_the_folders_of_what_is_revoked() {
        let (_dir, home) = new_home();
        for party in ["hospital", "server", "monitor"] {
            home.authority().unwrap().revoke(&name(party)).unwrap();
            fs::remove_dir_all(home.party_dir(&name(party))).unwrap();
        }
        home.init(None).unwrap();
        assert_eq!(home.parties().unwrap(), [(name("broker"), Role::Broker), (name("operator"), Role::Operator)]);
        assert!(!home.party_dir(&name("hospital")).exists());
        fs::remove_dir_all(home.party_dir(&name("operator"))).unwrap();
        assert!(matches!(home.init(None), Err(EnrolError::Elsewhere { .. })));
    }

    #[test]
    fn a_name_of_another_role_is_refused() {
        let (_dir, home) = new_home();
        let refused = enrol(&home, &name("server"), None).unwrap_err().to_string();
        assert!(refused.contains("belongs to the study's server") && refused.contains("for a patient"), "{refused}");
        enrol(&home, &name("dave"), Some(Role::Patient)).unwrap();
        assert!(matches!(enrol(&home, &name("dave"), Some(Role::Hospital)), Err(EnrolError::Taken { .. })));
        assert!(enrol_many(&home, [name("erin"), name("hospital")]).is_err());
        assert!(!home.party_dir(&name("erin")).exists(), "roles are settled before anything is written");
    }

    #[test]
    fn an_interrupted_enrolment_is_completed() {
        let (_dir, home) = new_home();
        enrol(&home, &name("dave"), None).unwrap();
        let dir = home.party_dir(&name("dave"));
        fs::remove_file(dir.join(CERTIFICATE_FILE)).unwrap();
        fs::remove_file(dir.join(CA_FILE)).unwrap();
        assert!(!enrol(&home, &name("dave"), None).unwrap().new);
        assert!(home.credentials(&name("dave")).is_ok());
        make_dir(&home.party_dir(&name("erin"))).unwrap();
        PrivateKey::generate().unwrap().save(home.party_dir(&name("erin")).join(KEY_FILE)).unwrap();
        assert!(enrol(&home, &name("erin"), None).unwrap().new);
        assert!(home.credentials(&name("erin")).is_ok());
    }

    #[test]
    fn what_was_begun_when_an_enrolment_was_killed_goes_with_the_next() {
        let (_dir, home) = new_home();
        let (dir, ca) = (home.party_dir(&name("dave")), home.ca_dir());
        make_dir(&dir).unwrap();
        make_dir(&ca.join(certs::REVOKED)).unwrap();
        let folders = [ca.clone(), ca.join(certs::ISSUED), ca.join(certs::REVOKED), dir];
        let drafts = folders.map(|folder| folder.join(format!("{}AbCdEf", certs::DRAFT)));
        drafts.iter().for_each(|draft| fs::write(draft, "").unwrap());
        let half = home.path().join(format!("{OF_CA}AbCdEf"));
        fs::create_dir(&half).unwrap();
        enrol(&home, &name("dave"), None).unwrap();
        assert!(drafts.iter().all(|draft| !draft.exists()) && !half.exists());
    }

    #[test]
    fn a_lost_key_is_not_replaced() {
        let (_dir, home) = new_home();
        enrol(&home, &name("dave"), None).unwrap();
        fs::remove_dir_all(home.party_dir(&name("dave"))).unwrap();
        assert!(matches!(enrol(&home, &name("dave"), None), Err(EnrolError::Elsewhere { .. })));
        assert!(!home.party_dir(&name("dave")).exists());
    }

    #[test]
    fn a_folder_of_another_ca_is_refused() {
        let ((_one, home), (_two, other)) = (new_home(), new_home());
        enrol(&other, &name("dave"), None).unwrap();
        fs::rename(other.party_dir(&name("dave")), home.party_dir(&name("dave"))).unwrap();
        assert!(matches!(enrol(&home, &name("dave"), None), Err(EnrolError::Foreign(_))));
    }

    #[test]
    fn a_home_without_a_ca_enrols_nobody() {
        let dir = tempfile::tempdir().unwrap();
        let home = Home::at(dir.path().join("home"));
        assert!(matches!(enrol(&home, &name("dave"), None), Err(EnrolError::Home(HomeError::NoCa(_)))));
        assert!(!home.path().exists());
    }

    #[test]
    fn processes_that_enrol_at_once_wait_for_each_other() {
        let (_dir, home) = new_home();
        thread::scope(|scope| {
            let enrol = |at: usize| enrol(&home, &name(&format!("p{at}")), None).unwrap();
            let threads: Vec<_> = (0..25).map(|at| scope.spawn(move || enrol(at))).collect();
            threads.into_iter().for_each(|thread| assert!(thread.join().unwrap().new));
        });
        let marked = home.patients().unwrap().iter().filter(|(_, role)| *role == Role::Member).count();
        assert_eq!((home.patients().unwrap().len(), marked), (25, MOST_MARKED));
    }
}

//! The study's CA: it names parties, marks members, and issues each name once.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::path::{Path, PathBuf};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::{fmt, io};

use protocol::{Name, Role};
use rcgen::string::Ia5String;
use rcgen::{
    BasicConstraints, CertificateParams, DistinguishedName, DnType, ExtendedKeyUsagePurpose, IsCa, Issuer,
    KeyUsagePurpose, SanType, SerialNumber,
};
use time::OffsetDateTime;

use crate::anchor::{Anchor, AnchorError};
use crate::certificate::Certificate;
use crate::clock::{BACKDATE, show};
use crate::host::Host;
use crate::identify::StudyAuthority;
use crate::key::{KeyError, PrivateKey, RcgenPublic, RcgenSigner, fill_random};
use crate::register::{Register, RegisterError};
use crate::request::{Request, named};
use crate::study::{Study, Subject, study_uri};
use crate::{CA_FILE, files};

/// The CA's private key in its folder.
pub const CA_KEY_FILE: &str = "ca.key";

/// A study's certificate authority, with the register of what it has issued.
///
/// Keep it apart from the hospital where you can: who holds it can name a second "alice".
pub struct CertificateAuthority {
    key: PrivateKey,
    anchor: Anchor,
    register: Mutex<Register>,
}

/// Why the CA cannot be made, kept or loaded, or refuses to sign.
#[derive(Debug, thiserror::Error)]
pub enum AuthorityError {
    /// The CA's key.
    #[error(transparent)]
    Key(#[from] KeyError),
    /// The CA's own certificate.
    #[error("{}", .cause.at(.path))]
    Anchor {
        /// `ca.pem`.
        path: PathBuf,
        /// What is wrong with it.
        cause: AnchorError,
    },
    /// The register refuses, or cannot be used.
    #[error(transparent)]
    Register(#[from] RegisterError),
    /// A folder or file of the CA cannot be written.
    #[error("cannot keep the CA in `{}`: {cause}", .path.display())]
    File {
        /// The file or folder.
        path: PathBuf,
        /// What the system said.
        cause: io::Error,
    },
    /// There is a CA in that folder.
    #[error("`{}` exists: a CA is never overwritten; use it, or choose another folder", .0.display())]
    Exists(PathBuf),
    /// A second copy would have a second register.
    #[error("this CA is kept in a folder already: with a second one a name could be issued twice")]
    Kept,
    /// A creation was interrupted, or a file was lost.
    #[error(
        "`{}` is missing beside `ca.key`: restore it; if the study was never used, remove `ca.key` and create it again",
        .0.display()
    )]
    Incomplete(PathBuf),
    /// Key and certificate of different CAs.
    #[error("`ca.key` and `ca.pem` in `{}` belong to different CAs: restore both from one backup", .0.display())]
    Mismatch(PathBuf),
    /// A request for another study.
    #[error(
        "the request of `{name}` is for study `{found}`, this CA names study `{study}`: make a request for this one"
    )]
    ForeignStudy {
        /// Who asks.
        name: Name,
        /// The request's study.
        found: Study,
        /// The CA's study.
        study: Study,
    },
    /// The CA gives a role that the request did not ask for.
    #[error(
        "`{name}` asks to be {asked}, not {given}: a CA may give or refuse a patient the mark `member` and change \
         no other role; have it make a request for {given}"
    )]
    Role {
        /// Who asks.
        name: Name,
        /// The role that it asks for.
        asked: Role,
        /// The role that was to be given.
        given: Role,
    },
    /// The certificate would be over before it begins.
    #[error("a certificate until {} would be over already: choose a later date", show(*.0))]
    Past(OffsetDateTime),
    /// The certificate would outlive the CA's.
    #[error("a certificate until {} would outlive the CA, which ends on {}: choose an earlier date", show(*.asked), show(*.ca))]
    Outlives {
        /// The end that was asked for.
        asked: OffsetDateTime,
        /// The CA's own end.
        ca: OffsetDateTime,
    },
    /// The X.509 library refused to write it.
    #[error("the X.509 library cannot write the certificate")]
    Encode(#[from] rcgen::Error),
    /// What was signed is no certificate of Ward: a flaw of this crate, and nothing is issued.
    #[error("the certificate that was made cannot be read back, so it was not issued: {0}")]
    Made(String),
}

impl CertificateAuthority {
    /// A new CA for `study`, valid until `not_after`; it is on disk only after [`save`](Self::save).
    ///
    /// # Errors
    /// No randomness, or an end that is past.
    pub fn create(study: &Study, not_after: OffsetDateTime) -> Result<Self, AuthorityError> {
        check_end(not_after, None)?;
        let key = PrivateKey::generate()?;
        let certificate = ca_params(study, not_after)?.self_signed(&RcgenSigner::from(&key))?;
        let anchor = Anchor::from_pem(&certificate.pem()).map_err(|error| AuthorityError::Made(error.to_string()))?;
        Ok(Self { key, anchor, register: Mutex::new(Register::in_memory()) })
    }

    /// Keeps the CA in `dir`: `ca.key` (0600), `ca.pem` and `issued/`, and from then on what it issues.
    ///
    /// # Errors
    /// A CA that is there already, or that this one is kept elsewhere.
    pub fn save(&self, dir: impl AsRef<Path>) -> Result<(), AuthorityError> {
        let dir = dir.as_ref();
        let mut register = self.register();
        if register.is_kept() {
            return Err(AuthorityError::Kept);
        }
        let (key, certificate) = (dir.join(CA_KEY_FILE), dir.join(CA_FILE));
        if let Some(there) = [&key, &certificate].into_iter().find(|path| path.exists()) {
            return Err(AuthorityError::Exists(there.clone()));
        }
        files::make_folder(dir).map_err(|cause| AuthorityError::File { path: dir.into(), cause })?;
        // `ca.pem` comes last: while it is missing, nobody can have used the CA.
        register.move_to(dir)?;
        self.key.save(key)?;
        files::create(&certificate, self.anchor.pem.as_bytes(), files::PUBLIC)
            .map_err(|cause| AuthorityError::File { path: certificate, cause })
    }

    /// The CA that is kept in `dir`.
    ///
    /// # Errors
    /// A key that others may read, a missing file, or files that do not belong together.
    pub fn load(dir: impl AsRef<Path>) -> Result<Self, AuthorityError> {
        let dir = dir.as_ref();
        let key = PrivateKey::load(dir.join(CA_KEY_FILE))?;
        let path = dir.join(CA_FILE);
        let anchor = match Anchor::load(&path) {
            Ok(anchor) => anchor,
            Err(AnchorError::File { cause, .. }) if cause.kind() == io::ErrorKind::NotFound => {
                return Err(AuthorityError::Incomplete(path));
            }
            Err(cause) => return Err(AuthorityError::Anchor { path, cause }),
        };
        if key.public_key() != anchor.key {
            return Err(AuthorityError::Mismatch(dir.into()));
        }
        Ok(Self { key, anchor, register: Mutex::new(Register::of(dir)) })
    }

    /// Issues a certificate until `not_after` for who made `request`, and enters it in the register.
    ///
    /// The CA decides the role: it may give a patient the mark ([`Role::Member`]) or refuse it.
    /// The same key may have its name again, in the same role: that is a renewal.
    ///
    /// # Errors
    /// [`RegisterError::Taken`] if the name went to another key or role, [`RegisterError::Revoked`] if it was revoked; a
    /// request for another study or another role; an end that is past or beyond the CA's own.
    pub fn sign(
        &self,
        request: &Request,
        role: Role,
        not_after: OffsetDateTime,
    ) -> Result<Certificate, AuthorityError> {
        self.admit(request, role, &[], not_after)
    }

    fn admit(
        &self,
        request: &Request,
        role: Role,
        hosts: &[Host],
        not_after: OffsetDateTime,
    ) -> Result<Certificate, AuthorityError> {
        self.check_study(request)?;
        check_role(request, role)?;
        check_end(not_after, Some(self.anchor.not_after))?;
        let mut register = self.register();
        let admission = register.admit(request, role)?;
        let certificate = self.issue(request, role, hosts, not_after)?;
        register.enter(&certificate, admission)?;
        Ok(certificate)
    }

    /// Issues a broker's certificate as [`CertificateAuthority::sign`] does, which names these hosts too: parties go to
    /// no broker under a name that its certificate does not have.
    ///
    /// # Errors
    /// As [`CertificateAuthority::sign`].
    pub fn sign_broker(
        &self,
        request: &Request,
        hosts: &[Host],
        not_after: OffsetDateTime,
    ) -> Result<Certificate, AuthorityError> {
        self.admit(request, Role::Broker, hosts, not_after)
    }

    /// Revokes `name` for good, and enters that in the register; the certificate that was its last.
    ///
    /// The CA says so to nobody: whoever keeps a list of those who may come in leaves out
    /// [`Register::revoked`], as Ward's broker does. Certificates as such go on to verify until they expire.
    ///
    /// # Errors
    /// [`RegisterError::NeverIssued`], or [`RegisterError::Revoked`] if it was revoked already.
    pub fn revoke(&self, name: &Name) -> Result<Certificate, AuthorityError> {
        Ok(self.register().revoke(name, OffsetDateTime::now_utc())?)
    }

    /// Everything that the CA has issued and that names stand for now, sorted by name; also what was revoked.
    ///
    /// # Errors
    /// [`AuthorityError::Register`] if the register cannot be read.
    pub fn issued(&self) -> Result<Vec<Certificate>, AuthorityError> {
        Ok(self.register().all()?)
    }

    /// The CA's study.
    pub fn study(&self) -> &Study {
        &self.anchor.study
    }

    /// The CA's certificate as PEM: `ca.pem` of every party.
    pub fn to_pem(&self) -> &str {
        &self.anchor.pem
    }

    /// The last second in which the CA is valid.
    pub fn not_after(&self) -> OffsetDateTime {
        self.anchor.not_after
    }

    /// What a party of the study needs to tell the others apart.
    pub fn authority(&self) -> StudyAuthority {
        StudyAuthority::new(self.anchor.clone())
    }

    fn register(&self) -> MutexGuard<'_, Register> {
        self.register.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn check_study(&self, request: &Request) -> Result<(), AuthorityError> {
        if *request.study() == self.anchor.study {
            return Ok(());
        }
        Err(AuthorityError::ForeignStudy {
            name: request.name().clone(),
            found: request.study().clone(),
            study: self.anchor.study.clone(),
        })
    }

    /// The certificate is made from the checked name, role and key: nothing else of a request gets in.
    fn issue(
        &self,
        request: &Request,
        role: Role,
        hosts: &[Host],
        not_after: OffsetDateTime,
    ) -> Result<Certificate, AuthorityError> {
        let subject = Subject { study: request.study().clone(), role, name: request.name().clone() };
        let issuer = Issuer::from_ca_cert_der(&self.anchor.der, RcgenSigner::from(&self.key))?;
        let holder = RcgenPublic(request.public_key().to_bytes());
        let signed = party_params(&subject, hosts, not_after)?.signed_by(&holder, &issuer)?;
        Certificate::from_pem(&signed.pem()).map_err(|error| AuthorityError::Made(error.to_string()))
    }
}

impl fmt::Debug for CertificateAuthority {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "CertificateAuthority({})", self.anchor.study)
    }
}

fn check_role(request: &Request, given: Role) -> Result<(), AuthorityError> {
    let asked = request.role();
    if asked == given || (asked.is_patient() && given.is_patient()) {
        return Ok(());
    }
    Err(AuthorityError::Role { name: request.name().clone(), asked, given })
}

/// Certificates count whole seconds, so ends are compared in them.
fn check_end(end: OffsetDateTime, ca: Option<OffsetDateTime>) -> Result<(), AuthorityError> {
    let beyond = |ca: &OffsetDateTime| end.unix_timestamp() > ca.unix_timestamp();
    if end <= OffsetDateTime::now_utc() {
        Err(AuthorityError::Past(end))
    } else if let Some(ca) = ca.filter(beyond) {
        Err(AuthorityError::Outlives { asked: end, ca })
    } else {
        Ok(())
    }
}

fn ca_params(study: &Study, not_after: OffsetDateTime) -> Result<CertificateParams, AuthorityError> {
    // No party can have this name: party names have no capitals.
    let mut distinguished_name = DistinguishedName::new();
    distinguished_name.push(DnType::OrganizationName, study.as_str());
    distinguished_name.push(DnType::CommonName, "Study CA");
    let mut params = dated(CertificateParams::default(), not_after)?;
    params.distinguished_name = distinguished_name;
    params.subject_alt_names = vec![SanType::URI(Ia5String::try_from(study_uri(study))?)];
    params.is_ca = IsCa::Ca(BasicConstraints::Constrained(0));
    params.key_usages = vec![KeyUsagePurpose::KeyCertSign];
    Ok(params)
}

fn party_params(
    subject: &Subject,
    hosts: &[Host],
    not_after: OffsetDateTime,
) -> Result<CertificateParams, AuthorityError> {
    let mut params = dated(named(subject)?, not_after)?;
    params.is_ca = IsCa::ExplicitNoCa;
    params.use_authority_key_identifier_extension = true;
    params.key_usages = vec![KeyUsagePurpose::DigitalSignature];
    params.extended_key_usages = match subject.role {
        Role::Broker => vec![ExtendedKeyUsagePurpose::ServerAuth],
        _ => vec![ExtendedKeyUsagePurpose::ClientAuth],
    };
    if subject.role == Role::Broker {
        params.subject_alt_names.extend([
            SanType::DnsName(Ia5String::try_from("localhost")?),
            SanType::IpAddress(IpAddr::V4(Ipv4Addr::LOCALHOST)),
            SanType::IpAddress(IpAddr::V6(Ipv6Addr::LOCALHOST)),
        ]);
    }
    for host in hosts {
        params.subject_alt_names.push(alternative(host)?);
    }
    Ok(params)
}

fn alternative(host: &Host) -> Result<SanType, AuthorityError> {
    Ok(match host.address() {
        Some(address) => SanType::IpAddress(address),
        None => SanType::DnsName(Ia5String::try_from(host.to_string())?),
    })
}

/// Adds the validity and a serial number; rcgen's own would repeat when a key is renewed.
fn dated(mut params: CertificateParams, not_after: OffsetDateTime) -> Result<CertificateParams, AuthorityError> {
    let mut serial = [0; 16];
    fill_random(&mut serial)?;
    // A serial number is positive and of one length: the first bit is clear, the second set.
    serial[0] = serial[0] & 0x7f | 0x40;
    params.not_before = OffsetDateTime::now_utc() - BACKDATE;
    params.not_after = not_after;
    params.serial_number = Some(SerialNumber::from(serial.to_vec()));
    Ok(params)
}

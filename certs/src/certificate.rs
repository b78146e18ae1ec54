//! A party's certificate: what travels with its messages, and what it claims.

use std::fmt;
use std::io;
use std::path::{Path, PathBuf};

use ed25519_dalek::VerifyingKey;
use protocol::{Chain, Dates, Identity, Role, Time};
use rustls_pki_types::CertificateDer;
use rustls_pki_types::pem::PemObject;
use time::OffsetDateTime;
use x509_parser::certificate::X509Certificate;
use x509_parser::prelude::FromDer;

use crate::files;
use crate::host::Host;
use crate::identify::{IdentifyError, StudyAuthority};
use crate::shape::{self, ShapeError};
use crate::study::Subject;

const WHAT: &str = "certificate";

/// A party's certificate, of the right shape but not verified: [`Certificate::identity`] does that.
#[derive(Clone)]
pub struct Certificate {
    der: CertificateDer<'static>,
    pem: String,
    claims: Claims,
}

/// Why a certificate could not be read or kept.
#[derive(Debug, thiserror::Error)]
pub enum CertificateError {
    /// It is not of the shape that Ward's certificates have.
    #[error(transparent)]
    Shape(#[from] ShapeError),
    /// The PEM holds no certificate, or several.
    #[error("the text holds {0} certificates in PEM: it must hold exactly one, the party's own")]
    Count(usize),
    /// The file cannot be read or written.
    #[error("cannot use the certificate file `{}`: {cause}", .path.display())]
    File {
        /// The file.
        path: PathBuf,
        /// What the system said.
        cause: io::Error,
    },
}

impl CertificateError {
    /// The sentence for an error that came up with the file at `path`.
    pub(crate) fn at(&self, path: &Path) -> String {
        match self {
            Self::File { .. } => self.to_string(),
            _ => format!("in `{}`: {self}", path.display()),
        }
    }
}

impl Certificate {
    /// Reads the one certificate in `text`.
    ///
    /// # Errors
    /// No certificate, several, or one that is not of Ward's shape.
    pub fn from_pem(text: &str) -> Result<Self, CertificateError> {
        let der = one_certificate(text)?;
        Ok(Self { claims: Claims::from_der(&der)?, der, pem: text.into() })
    }

    /// Reads a file made by [`Certificate::save`].
    ///
    /// # Errors
    /// As [`Certificate::from_pem`], and what files can do.
    pub fn load(path: impl AsRef<Path>) -> Result<Self, CertificateError> {
        let path = path.as_ref();
        let text = files::read(path).map_err(|cause| CertificateError::File { path: path.into(), cause })?;
        Self::from_pem(&text)
    }

    /// Writes the PEM in place of what stands at `path`, whole or not at all.
    ///
    /// # Errors
    /// [`CertificateError::File`].
    pub fn save(&self, path: impl AsRef<Path>) -> Result<(), CertificateError> {
        let path = path.as_ref();
        files::replace(path, self.pem.as_bytes(), files::PUBLIC)
            .map_err(|cause| CertificateError::File { path: path.into(), cause })
    }

    /// Whether it names `host`, as a broker's does by which it is reached.
    pub fn names(&self, host: &Host) -> bool {
        webpki::EndEntityCert::try_from(&self.der)
            .is_ok_and(|end| end.verify_is_valid_for_subject_name(host.server_name()).is_ok())
    }

    /// The certificate as PEM.
    pub fn to_pem(&self) -> &str {
        &self.pem
    }

    /// The certificate as DER.
    pub fn der(&self) -> &CertificateDer<'static> {
        &self.der
    }

    /// The certificate as it travels in messages: alone, since every party has the CA's.
    pub fn chain(&self) -> Chain {
        Chain(vec![self.der.to_vec().into()])
    }

    /// Who the certificate says its holder is.
    pub fn subject(&self) -> &Subject {
        &self.claims.subject
    }

    /// The holder's key.
    pub fn public_key(&self) -> &VerifyingKey {
        &self.claims.key
    }

    /// The first moment at which it is valid.
    pub fn not_before(&self) -> OffsetDateTime {
        self.claims.not_before
    }

    /// The last second in which it is valid.
    pub fn not_after(&self) -> OffsetDateTime {
        self.claims.not_after
    }

    /// Whom the certificate proves its holder to be at `now`.
    ///
    /// # Errors
    /// [`IdentifyError`], one variant for each thing that can be wrong.
    pub fn identity(&self, authority: &StudyAuthority, now: Time) -> Result<Identity, IdentifyError> {
        authority.verify(&self.chain(), Dates::At(now))
    }
}

impl fmt::Debug for Certificate {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Certificate({})", self.claims.subject)
    }
}

/// What a certificate says, before anyone asked who signed it.
#[derive(Clone, Debug)]
pub(crate) struct Claims {
    pub(crate) subject: Subject,
    pub(crate) key: VerifyingKey,
    pub(crate) not_before: OffsetDateTime,
    pub(crate) not_after: OffsetDateTime,
}

impl Claims {
    /// Reads a certificate and checks all that does not need the CA or a clock.
    pub(crate) fn from_der(der: &[u8]) -> Result<Self, ShapeError> {
        let malformed = || ShapeError::Malformed(WHAT);
        let (rest, x509) = X509Certificate::from_der(der).map_err(|_| malformed())?;
        if !rest.is_empty() {
            return Err(malformed());
        }
        let key = shape::ed25519_key(x509.public_key()).ok_or(ShapeError::KeyType(WHAT))?;
        let names = x509.subject_alternative_name().map_err(|_| malformed())?;
        let names = names.map(|extension| extension.value.general_names.as_slice()).unwrap_or_default();
        let subject = shape::subject(WHAT, names)?;
        if subject.role != Role::Broker && names.len() > 1 {
            return Err(ShapeError::OtherNames(subject.name));
        }
        check_usage(&x509, &subject)?;
        let validity = x509.validity();
        let (not_before, not_after) = (validity.not_before.to_datetime(), validity.not_after.to_datetime());
        Ok(Self { subject, key, not_before, not_after })
    }
}

/// The only certificate in a PEM text.
pub(crate) fn one_certificate(text: &str) -> Result<CertificateDer<'static>, CertificateError> {
    let found: Result<Vec<_>, _> = CertificateDer::pem_slice_iter(text.as_bytes()).collect();
    let mut found = found.map_err(|_| ShapeError::Malformed(WHAT))?;
    match (found.len(), found.pop()) {
        (1, Some(der)) => Ok(der),
        (count, _) => Err(CertificateError::Count(count)),
    }
}

/// A client's certificate must not serve as the broker's, nor the broker's as a client's.
fn check_usage(x509: &X509Certificate<'_>, subject: &Subject) -> Result<(), ShapeError> {
    let found = x509.extended_key_usage().map_err(|_| ShapeError::Malformed(WHAT))?;
    let (server, client) = found.map_or((false, false), |usage| (usage.value.server_auth, usage.value.client_auth));
    let (fits, usage) = match subject.role {
        Role::Broker => (server && !client, "serverAuth"),
        _ => (client && !server, "clientAuth"),
    };
    if fits { Ok(()) } else { Err(ShapeError::Usage { name: subject.name.clone(), role: subject.role, usage }) }
}

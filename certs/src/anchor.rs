//! The CA's own certificate, `ca.pem`: the one thing that a party of the study trusts.

use std::io;
use std::path::{Path, PathBuf};

use ed25519_dalek::VerifyingKey;
use rustls_pki_types::{CertificateDer, TrustAnchor};
use time::OffsetDateTime;
use x509_parser::certificate::X509Certificate;
use x509_parser::prelude::FromDer;

use crate::certificate::{CertificateError, one_certificate};
use crate::study::{Study, parse_study_uri};
use crate::{files, shape};

/// Why a text is not the certificate of a study's CA.
#[derive(Debug, thiserror::Error)]
pub enum AnchorError {
    /// Not one whole X.509 certificate.
    #[error("this is not one whole certificate of a study's CA: fetch `ca.pem` from the CA again")]
    Malformed,
    /// A certificate that may not sign others, for instance a party's.
    #[error("this certificate may not sign others, so it is not a CA's: fetch `ca.pem` from the CA of the study")]
    NoCa,
    /// The CA of something else.
    #[error(
        "this is the certificate of a CA, but of no Ward study: it needs an Ed25519 key and one URI, spiffe://<study>"
    )]
    ForeignCa,
    /// The file cannot be read or written.
    #[error("cannot use the CA's certificate file `{}`: {cause}", .path.display())]
    File {
        /// The file.
        path: PathBuf,
        /// What the system said.
        cause: io::Error,
    },
}

impl AnchorError {
    /// The sentence for an error that came up with the file at `path`.
    pub(crate) fn at(&self, path: &Path) -> String {
        match self {
            Self::File { .. } => self.to_string(),
            _ => format!("in `{}`: {self}", path.display()),
        }
    }
}

/// The CA's certificate, checked once: a CA of a Ward study.
#[derive(Clone, Debug)]
pub(crate) struct Anchor {
    pub(crate) study: Study,
    pub(crate) key: VerifyingKey,
    pub(crate) der: CertificateDer<'static>,
    pub(crate) pem: String,
    pub(crate) trust: TrustAnchor<'static>,
    pub(crate) not_before: OffsetDateTime,
    pub(crate) not_after: OffsetDateTime,
}

impl Anchor {
    pub(crate) fn from_pem(text: &str) -> Result<Self, AnchorError> {
        let der = one_certificate(text).map_err(|_: CertificateError| AnchorError::Malformed)?;
        let (rest, x509) = X509Certificate::from_der(&der).map_err(|_| AnchorError::Malformed)?;
        if !rest.is_empty() {
            return Err(AnchorError::Malformed);
        }
        if !may_sign(&x509)? {
            return Err(AnchorError::NoCa);
        }
        let (study, key) = study_and_key(&x509).ok_or(AnchorError::ForeignCa)?;
        let (not_before, not_after) =
            (x509.validity().not_before.to_datetime(), x509.validity().not_after.to_datetime());
        let trust = webpki::anchor_from_trusted_cert(&der).map_err(|_| AnchorError::Malformed)?.to_owned();
        Ok(Self { study, key, pem: text.into(), trust, not_before, not_after, der })
    }

    pub(crate) fn load(path: &Path) -> Result<Self, AnchorError> {
        let text = files::read(path).map_err(|cause| AnchorError::File { path: path.into(), cause })?;
        Self::from_pem(&text)
    }
}

fn may_sign(x509: &X509Certificate<'_>) -> Result<bool, AnchorError> {
    let usage = x509.key_usage().map_err(|_| AnchorError::Malformed)?;
    Ok(x509.is_ca() && usage.is_some_and(|usage| usage.value.key_cert_sign()))
}

fn study_and_key(x509: &X509Certificate<'_>) -> Option<(Study, VerifyingKey)> {
    let names = x509.subject_alternative_name().ok()??;
    let [uri] = shape::uris(&names.value.general_names)[..] else { return None };
    Some((parse_study_uri(uri)?, shape::ed25519_key(x509.public_key())?))
}

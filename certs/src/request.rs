//! A certificate request: what a party sends to the CA in place of its key.

use std::fmt;

use ed25519_dalek::{Signature, VerifyingKey};
use protocol::{Name, Role};
use rcgen::string::Ia5String;
use rcgen::{CertificateParams, DistinguishedName, DnType, SanType};
use rustls_pki_types::CertificateSigningRequestDer;
use rustls_pki_types::pem::PemObject;
use x509_parser::certification_request::X509CertificationRequest;
use x509_parser::extensions::{GeneralName, ParsedExtension};
use x509_parser::oid_registry::OID_SIG_ED25519;
use x509_parser::prelude::FromDer;

use crate::key::{PrivateKey, RcgenSigner};
use crate::shape::{self, ShapeError};
use crate::study::{Study, Subject};

const WHAT: &str = "certificate request";

/// A request (PKCS#10) whose self-signature holds: its sender has the private key.
///
/// The role is what the sender asks for; the CA decides.
#[derive(Clone)]
pub struct Request {
    subject: Subject,
    key: VerifyingKey,
    pem: String,
}

/// Why a request was refused or could not be made.
#[derive(Debug, thiserror::Error)]
pub enum RequestError {
    /// Malformed, another key type, or not exactly one name of Ward.
    #[error(transparent)]
    Shape(#[from] ShapeError),
    /// The self-signature does not hold.
    #[error("the certificate request is not signed by its own key: it was altered; ask its sender for a new one")]
    Signature,
    /// The X.509 library refused to write it.
    #[error("the X.509 library cannot write the certificate request")]
    Encode(#[from] rcgen::Error),
}

impl Request {
    /// Asks, with a proof of owning `key`, to be `name` in the role `role`.
    ///
    /// # Errors
    /// [`RequestError::Encode`] if the X.509 library fails.
    pub fn new(key: &PrivateKey, study: &Study, role: Role, name: &Name) -> Result<Self, RequestError> {
        let subject = Subject { study: study.clone(), role, name: name.clone() };
        let pem = named(&subject)?.serialize_request(&RcgenSigner::from(key))?.pem()?;
        Ok(Self { subject, key: key.public_key(), pem })
    }

    /// Reads a request and verifies its self-signature.
    ///
    /// # Errors
    /// Each [`RequestError`] but `Encode`.
    pub fn from_pem(text: &str) -> Result<Self, RequestError> {
        let malformed = || ShapeError::Malformed(WHAT);
        let der = CertificateSigningRequestDer::from_pem_slice(text.as_bytes()).map_err(|_| malformed())?;
        let (rest, csr) = X509CertificationRequest::from_der(&der).map_err(|_| malformed())?;
        if !rest.is_empty() {
            return Err(malformed().into());
        }
        let key = shape::ed25519_key(&csr.certification_request_info.subject_pki).ok_or(ShapeError::KeyType(WHAT))?;
        verify(&csr, &key)?;
        Ok(Self { subject: shape::subject(WHAT, &names(&csr))?, key, pem: text.into() })
    }

    /// The request as PEM.
    pub fn to_pem(&self) -> &str {
        &self.pem
    }

    /// Which role it asks for.
    pub fn role(&self) -> Role {
        self.subject.role
    }

    /// Which name it asks for.
    pub fn name(&self) -> &Name {
        &self.subject.name
    }

    /// Which study it is for.
    pub fn study(&self) -> &Study {
        &self.subject.study
    }

    /// The key that the certificate will be for.
    pub fn public_key(&self) -> &VerifyingKey {
        &self.key
    }
}

impl fmt::Debug for Request {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Request({})", self.subject)
    }
}

/// What a request and a certificate for `subject` have in common.
pub(crate) fn named(subject: &Subject) -> Result<CertificateParams, rcgen::Error> {
    let mut distinguished_name = DistinguishedName::new();
    distinguished_name.push(DnType::CommonName, subject.name.as_str());
    let uri = SanType::URI(Ia5String::try_from(subject.to_string())?);
    let mut params = CertificateParams::default();
    params.distinguished_name = distinguished_name;
    params.subject_alt_names = vec![uri];
    Ok(params)
}

/// All names that the request asks for; the CA takes over the URI and nothing else.
fn names<'a>(csr: &'a X509CertificationRequest<'a>) -> Vec<GeneralName<'a>> {
    let names = |extension: &'a ParsedExtension<'a>| match extension {
        ParsedExtension::SubjectAlternativeName(names) => Some(names.general_names.clone()),
        _ => None,
    };
    csr.requested_extensions().into_iter().flatten().filter_map(names).flatten().collect()
}

fn verify(csr: &X509CertificationRequest<'_>, key: &VerifyingKey) -> Result<(), RequestError> {
    if csr.signature_algorithm.algorithm != OID_SIG_ED25519 || csr.signature_value.unused_bits != 0 {
        return Err(RequestError::Signature);
    }
    let signature = Signature::from_slice(&csr.signature_value.data).map_err(|_| RequestError::Signature)?;
    key.verify_strict(csr.certification_request_info.raw, &signature).map_err(|_| RequestError::Signature)
}

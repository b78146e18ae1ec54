//! From a chain to an identity: the CA's certificate as a [`protocol::Authority`].

use std::collections::HashMap;
use std::fmt;
use std::path::Path;
use std::slice;
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use protocol::{Authority, Chain, Dates, Digest, Identity, Name};
use rustls_pki_types::{CertificateDer, TrustAnchor, UnixTime};
use time::OffsetDateTime;
use webpki::{EndEntityCert, KeyUsage};

use crate::anchor::{Anchor, AnchorError};
use crate::certificate::Claims;
use crate::clock::{date, show};
use crate::files;
use crate::shape::ShapeError;
use crate::study::Study;

/// Tells who a chain belongs to, with the study's CA as the only anchor of trust.
///
/// It remembers what it has verified, since one process may hold hundreds of patients that all
/// verify the same few chains. Dates are checked at every call that asks for it.
pub struct StudyAuthority {
    anchor: Anchor,
    verified: Mutex<HashMap<Digest, Claims>>,
}

/// How many verified chains are remembered; beyond that the memory starts afresh.
const REMEMBERED: usize = 4096;
/// A certificate of Ward has about 500 bytes.
const LONGEST_CERTIFICATE: usize = 8192;

/// Why a chain proves no identity.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum IdentifyError {
    /// Not one certificate: the CA signs every party's itself.
    #[error("the chain has {0} certificates: a party of Ward sends its own and no other")]
    Length(usize),
    /// Malformed, another key type, not exactly one name of Ward, or the wrong usage.
    #[error(transparent)]
    Shape(#[from] ShapeError),
    /// Another CA, or an altered certificate.
    #[error(
        "the certificate of `{name}` was not signed by the CA of study `{study}`: check that both sides have the same `ca.pem`"
    )]
    OtherCa {
        /// Who it claims to be from.
        name: Name,
        /// The study of this CA.
        study: Study,
    },
    /// The CA signed it, but the path has another flaw.
    #[error("the certificate of `{name}` fails path validation ({reason}): ask the CA for a new one")]
    Path {
        /// Who it claims to be from.
        name: Name,
        /// What the validator said.
        reason: webpki::Error,
    },
    /// Of this CA, but for another study.
    #[error("the certificate of `{name}` is for study `{found}`, this is study `{study}`: ask for one of this study")]
    ForeignStudy {
        /// The holder.
        name: Name,
        /// The study in its URI.
        found: Study,
        /// The study of this CA.
        study: Study,
    },
    /// Its time is over.
    #[error("the certificate of `{name}` expired on {}: renew it at the CA with the same key", show(*.since))]
    Expired {
        /// The holder.
        name: Name,
        /// Its last valid second.
        since: OffsetDateTime,
    },
    /// Its time has not come.
    #[error("the certificate of `{name}` is not valid before {}: check the clocks of this machine and of the CA", show(*.from))]
    NotYetValid {
        /// The holder.
        name: Name,
        /// Its first valid second.
        from: OffsetDateTime,
    },
    /// The CA's own time is over.
    #[error("the CA of study `{study}` expired on {}: the study needs a new CA", show(*.since))]
    CaExpired {
        /// The study.
        study: Study,
        /// The CA's last valid second.
        since: OffsetDateTime,
    },
    /// The CA's own time has not come.
    #[error("the CA of study `{study}` is not valid before {}: check the clock of this machine", show(*.from))]
    CaNotYetValid {
        /// The study.
        study: Study,
        /// The CA's first valid second.
        from: OffsetDateTime,
    },
}

impl StudyAuthority {
    /// An authority over the text of `ca.pem`.
    ///
    /// # Errors
    /// [`AnchorError`] if that is not the certificate of a study's CA.
    pub fn from_pem(text: &str) -> Result<Self, AnchorError> {
        Anchor::from_pem(text).map(Self::new)
    }

    /// An authority over the file `ca.pem`.
    ///
    /// # Errors
    /// As [`StudyAuthority::from_pem`], and what files can do.
    pub fn load(path: impl AsRef<Path>) -> Result<Self, AnchorError> {
        Anchor::load(path.as_ref()).map(Self::new)
    }

    pub(crate) fn new(anchor: Anchor) -> Self {
        Self { anchor, verified: Mutex::default() }
    }

    /// Writes the CA's certificate in place of what stands at `path`, whole or not at all.
    ///
    /// # Errors
    /// [`AnchorError::File`].
    pub fn save(&self, path: impl AsRef<Path>) -> Result<(), AnchorError> {
        let path = path.as_ref();
        files::replace(path, self.anchor.pem.as_bytes(), files::PUBLIC)
            .map_err(|cause| AnchorError::File { path: path.into(), cause })
    }

    /// The study whose parties it tells apart.
    pub fn study(&self) -> &Study {
        &self.anchor.study
    }

    /// The CA's certificate as PEM.
    pub fn to_pem(&self) -> &str {
        &self.anchor.pem
    }

    /// The CA's certificate as DER.
    pub fn der(&self) -> &CertificateDer<'static> {
        &self.anchor.der
    }

    /// The last second in which the CA is valid.
    pub fn not_after(&self) -> OffsetDateTime {
        self.anchor.not_after
    }

    /// The CA in the form that rustls trusts.
    pub(crate) fn trust_anchor(&self) -> TrustAnchor<'static> {
        self.anchor.trust.clone()
    }

    /// [`Authority::identify`] with a typed error.
    ///
    /// # Errors
    /// One [`IdentifyError`] for each thing that can be wrong.
    pub fn verify(&self, chain: &Chain, dates: Dates) -> Result<Identity, IdentifyError> {
        let [der] = &chain.0[..] else { return Err(IdentifyError::Length(chain.0.len())) };
        if der.len() > LONGEST_CERTIFICATE {
            return Err(ShapeError::Malformed("certificate").into());
        }
        let certificate = protocol::digest_certificate(der);
        let claims = match self.remembered(&certificate) {
            Some(claims) => claims,
            None => self.remember(certificate, self.check_path(der)?),
        };
        if let Dates::At(now) = dates {
            self.check_dates(&claims, date(now))?;
        }
        Ok(Identity { name: claims.subject.name, role: claims.subject.role, key: claims.key, certificate })
    }

    fn remembered(&self, certificate: &Digest) -> Option<Claims> {
        self.verified.lock().unwrap_or_else(PoisonError::into_inner).get(certificate).cloned()
    }

    fn remember(&self, certificate: Digest, claims: Claims) -> Claims {
        let mut verified = self.verified.lock().unwrap_or_else(PoisonError::into_inner);
        if verified.len() >= REMEMBERED {
            verified.clear();
        }
        verified.insert(certificate, claims.clone());
        claims
    }

    /// All that stays true of a certificate whatever the time.
    fn check_path(&self, der: &[u8]) -> Result<Claims, IdentifyError> {
        let claims = Claims::from_der(der)?;
        self.check_signature(der, &claims)?;
        if claims.subject.study != self.anchor.study {
            let (name, found) = (claims.subject.name, claims.subject.study);
            return Err(IdentifyError::ForeignStudy { name, found, study: self.anchor.study.clone() });
        }
        Ok(claims)
    }

    /// Path validation at the certificate's first second, so that dates have one place: `check_dates`.
    fn check_signature(&self, der: &[u8], claims: &Claims) -> Result<(), IdentifyError> {
        let der = CertificateDer::from(der);
        let start = u64::try_from(claims.not_before.unix_timestamp()).unwrap_or_default();
        let start = UnixTime::since_unix_epoch(Duration::from_secs(start));
        let usage = match claims.subject.role {
            protocol::Role::Broker => KeyUsage::server_auth(),
            _ => KeyUsage::client_auth(),
        };
        let algorithms = [webpki::aws_lc_rs::ED25519];
        let anchors = slice::from_ref(&self.anchor.trust);
        EndEntityCert::try_from(&der)
            .and_then(|leaf| leaf.verify_for_usage(&algorithms, anchors, &[], start, usage, None, None).map(|_path| ()))
            .map_err(|reason| self.path_error(reason, claims))
    }

    fn path_error(&self, reason: webpki::Error, claims: &Claims) -> IdentifyError {
        let name = claims.subject.name.clone();
        match reason {
            webpki::Error::UnknownIssuer
            | webpki::Error::InvalidSignatureForPublicKey
            | webpki::Error::UnsupportedSignatureAlgorithmContext(_)
            | webpki::Error::UnsupportedSignatureAlgorithmForPublicKeyContext(_) => {
                IdentifyError::OtherCa { name, study: self.anchor.study.clone() }
            }
            reason => IdentifyError::Path { name, reason },
        }
    }

    /// Path validation does not look at an anchor's dates, so the CA's are checked here too.
    fn check_dates(&self, claims: &Claims, now: OffsetDateTime) -> Result<(), IdentifyError> {
        let (anchor, name) = (&self.anchor, || claims.subject.name.clone());
        if now > anchor.not_after {
            Err(IdentifyError::CaExpired { study: anchor.study.clone(), since: anchor.not_after })
        } else if now < anchor.not_before {
            Err(IdentifyError::CaNotYetValid { study: anchor.study.clone(), from: anchor.not_before })
        } else if now > claims.not_after {
            Err(IdentifyError::Expired { name: name(), since: claims.not_after })
        } else if now < claims.not_before {
            Err(IdentifyError::NotYetValid { name: name(), from: claims.not_before })
        } else {
            Ok(())
        }
    }
}

impl Authority for StudyAuthority {
    fn identify(&self, chain: &Chain, dates: Dates) -> Result<Identity, String> {
        self.verify(chain, dates).map_err(|error| error.to_string())
    }
}

impl fmt::Debug for StudyAuthority {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "StudyAuthority({})", self.anchor.study)
    }
}

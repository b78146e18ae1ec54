//! What a party needs to take part: its key, its certificate and the CA's, from one folder.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use ed25519_dalek::SigningKey;
use protocol::{Chain, Identity, Me, Time};

use crate::anchor::AnchorError;
use crate::certificate::{Certificate, CertificateError};
use crate::clock::now;
use crate::identify::{IdentifyError, StudyAuthority};
use crate::key::{KeyError, PrivateKey};

/// The CA's certificate, in the CA's folder and in each party's.
pub const CA_FILE: &str = "ca.pem";
/// A party's certificate in its folder.
pub const CERTIFICATE_FILE: &str = "cert.pem";
/// A party's private key in its folder.
pub const KEY_FILE: &str = "key.pem";

/// A party's key, certificate and CA, checked against each other and against the clock.
#[derive(Debug)]
pub struct Credentials {
    dir: PathBuf,
    key: PrivateKey,
    certificate: Certificate,
    authority: Arc<StudyAuthority>,
    identity: Identity,
}

/// Why a folder holds no credentials that can be used now.
#[derive(Debug, thiserror::Error)]
pub enum CredentialsError {
    /// The key is missing, open to others, or malformed.
    #[error(transparent)]
    Key(#[from] KeyError),
    /// The CA's certificate is missing or is none.
    #[error("{}", .cause.at(.path))]
    Ca {
        /// `ca.pem`.
        path: PathBuf,
        /// What is wrong with it.
        cause: AnchorError,
    },
    /// The party's certificate is missing or is none of Ward.
    #[error("{}", .cause.at(.path))]
    Certificate {
        /// `cert.pem`.
        path: PathBuf,
        /// What is wrong with it.
        cause: CertificateError,
    },
    /// Two files of different parties, or a key that was made anew.
    #[error(
        "`{}` is the certificate of `{name}` for another key than `{}`: put back the key that its request was made \
         with, or make a new request",
        .certificate.display(), .key.display()
    )]
    Mismatch {
        /// `cert.pem`.
        certificate: PathBuf,
        /// `key.pem`.
        key: PathBuf,
        /// Whom the certificate names.
        name: protocol::Name,
    },
    /// The CA did not sign it, or its time is over or has not come.
    #[error("in `{}`: {cause}", .path.display())]
    Identify {
        /// `cert.pem`.
        path: PathBuf,
        /// What is wrong with it.
        cause: IdentifyError,
    },
}

impl Credentials {
    /// Loads `ca.pem`, `cert.pem` and `key.pem` from `dir`, for use now.
    ///
    /// # Errors
    /// One [`CredentialsError`] for each thing that can be wrong; its text names the file and the remedy.
    pub fn load(dir: impl AsRef<Path>) -> Result<Self, CredentialsError> {
        Self::load_at(dir, now())
    }

    /// [`Credentials::load`] for use at `moment`.
    ///
    /// # Errors
    /// As [`Credentials::load`].
    pub fn load_at(dir: impl AsRef<Path>, moment: Time) -> Result<Self, CredentialsError> {
        let dir = dir.as_ref().to_path_buf();
        let (ca, cert, key_file) = (dir.join(CA_FILE), dir.join(CERTIFICATE_FILE), dir.join(KEY_FILE));
        let key = PrivateKey::load(&key_file)?;
        let authority = StudyAuthority::load(&ca).map_err(|cause| CredentialsError::Ca { path: ca, cause })?;
        let certificate = match Certificate::load(&cert) {
            Ok(certificate) => certificate,
            Err(cause) => return Err(CredentialsError::Certificate { path: cert, cause }),
        };
        if *certificate.public_key() != key.public_key() {
            let name = certificate.subject().name.clone();
            return Err(CredentialsError::Mismatch { certificate: cert, key: key_file, name });
        }
        let identity = certificate
            .identity(&authority, moment)
            .map_err(|cause| CredentialsError::Identify { path: cert, cause })?;
        Ok(Self { dir, key, certificate, authority: Arc::new(authority), identity })
    }

    /// Who this party is in the study.
    pub fn identity(&self) -> &Identity {
        &self.identity
    }

    /// The party's certificate.
    pub fn certificate(&self) -> &Certificate {
        &self.certificate
    }

    /// The certificate as it travels in messages.
    pub fn chain(&self) -> Chain {
        self.certificate.chain()
    }

    /// The key that signs this party's messages; wiped on drop.
    pub fn signing_key(&self) -> SigningKey {
        self.key.signing_key()
    }

    /// The party as its machine knows it.
    pub fn me(&self) -> Me {
        Me {
            name: self.identity().name.clone(),
            role: self.identity().role,
            signing: self.signing_key(),
            chain: self.chain(),
            authority: self.authority(),
        }
    }

    /// What tells the other parties' identities.
    pub fn authority(&self) -> Arc<StudyAuthority> {
        Arc::clone(&self.authority)
    }

    /// The folder.
    pub fn dir(&self) -> &Path {
        &self.dir
    }

    /// The CA's certificate.
    pub fn ca_path(&self) -> PathBuf {
        self.dir.join(CA_FILE)
    }

    /// The party's certificate.
    pub fn certificate_path(&self) -> PathBuf {
        self.dir.join(CERTIFICATE_FILE)
    }

    /// The party's private key.
    pub fn key_path(&self) -> PathBuf {
        self.dir.join(KEY_FILE)
    }

    pub(crate) fn key(&self) -> &PrivateKey {
        &self.key
    }
}

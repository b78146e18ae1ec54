//! A party's private key: made where it is used, kept in a file that only its owner can read.

use std::fmt;
use std::fs::File;
use std::io::{self, Read};
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};

use ed25519_dalek::pkcs8::spki::der::pem::LineEnding;
use ed25519_dalek::pkcs8::{DecodePrivateKey, EncodePrivateKey, KeypairBytes};
use ed25519_dalek::{Signer, SigningKey, VerifyingKey};
use rustls_pki_types::{PrivateKeyDer, PrivatePkcs8KeyDer};
use zeroize::{Zeroize, Zeroizing};

use crate::files;

/// An Ed25519 private key. It is wiped on drop and never travels: only requests and certificates do.
pub struct PrivateKey(SigningKey);

/// Why a private key could not be made, kept or read.
#[derive(Debug, thiserror::Error)]
pub enum KeyError {
    /// The system gave no randomness.
    #[error("no key was made: the system's random generator failed")]
    Random,
    /// The key has no PKCS#8 form.
    #[error("the key cannot be written as PKCS#8")]
    Encode,
    /// There is a file already.
    #[error("`{}` exists and a key is never overwritten: use it, or move it away first", .0.display())]
    Exists(PathBuf),
    /// The file cannot be written.
    #[error("cannot write the key to `{}`: {cause}", .path.display())]
    Write {
        /// The file.
        path: PathBuf,
        /// What the system said.
        cause: io::Error,
    },
    /// The file cannot be read.
    #[error("cannot read the key in `{}`: {cause}", .path.display())]
    Read {
        /// The file.
        path: PathBuf,
        /// What the system said.
        cause: io::Error,
    },
    /// Others than the owner have some permission.
    #[error("`{}` has mode {mode:04o}, but a private key is for its owner alone: run `chmod 600 {}`", .path.display(), .path.display())]
    Permissions {
        /// The file.
        path: PathBuf,
        /// Its permission bits.
        mode: u32,
    },
    /// The file holds something else.
    #[error("`{}` holds no Ed25519 private key in PKCS#8 PEM: restore it, or make a new key and request", .0.display())]
    Malformed(PathBuf),
}

impl PrivateKey {
    /// A new key from the system's randomness.
    ///
    /// # Errors
    /// [`KeyError::Random`] if the system has none.
    pub fn generate() -> Result<Self, KeyError> {
        let mut seed = Zeroizing::new([0; 32]);
        fill_random(&mut *seed)?;
        Ok(Self(SigningKey::from_bytes(&seed)))
    }

    /// Writes the key to a new file of mode 0600, as PKCS#8 PEM; it is on disk on return.
    ///
    /// # Errors
    /// [`KeyError::Exists`] if there is a file: a key is never overwritten.
    pub fn save(&self, path: impl AsRef<Path>) -> Result<(), KeyError> {
        let path = path.as_ref();
        let pem = self.with_pkcs8(|key| key.to_pkcs8_pem(LineEnding::LF))?;
        files::create(path, pem.as_bytes(), files::SECRET).map_err(|cause| match cause.kind() {
            io::ErrorKind::AlreadyExists => KeyError::Exists(path.into()),
            _ => KeyError::Write { path: path.into(), cause },
        })
    }

    /// Reads a key that its owner alone may read.
    ///
    /// # Errors
    /// [`KeyError::Permissions`] if group or others have any permission, and what files can do.
    pub fn load(path: impl AsRef<Path>) -> Result<Self, KeyError> {
        let path = path.as_ref();
        let text = read_secret(path)?;
        let malformed = || KeyError::Malformed(path.into());
        let mut pair = KeypairBytes::from_pkcs8_pem(&text).map_err(|_| malformed())?;
        let key = SigningKey::try_from(&pair).map_err(|_| malformed());
        pair.secret_key.zeroize();
        key.map(Self)
    }

    /// The key in the form that signs messages; wiped on drop like this one.
    pub fn signing_key(&self) -> SigningKey {
        self.0.clone()
    }

    /// The public half.
    pub fn public_key(&self) -> VerifyingKey {
        self.0.verifying_key()
    }

    /// The key in the form that rustls reads.
    pub(crate) fn to_rustls(&self) -> Result<PrivateKeyDer<'static>, KeyError> {
        let der = self.with_pkcs8(|key| key.to_pkcs8_der())?;
        Ok(PrivatePkcs8KeyDer::from(der.as_bytes().to_vec()).into())
    }

    /// Encodes version 1 of PKCS#8, without the public half: OpenSSL cannot read the other one.
    fn with_pkcs8<T, E>(&self, encode: impl FnOnce(&KeypairBytes) -> Result<T, E>) -> Result<T, KeyError> {
        let mut pair = KeypairBytes { secret_key: self.0.to_bytes(), public_key: None };
        let encoded = encode(&pair).map_err(|_| KeyError::Encode);
        pair.secret_key.zeroize();
        encoded
    }
}

impl fmt::Debug for PrivateKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("PrivateKey(..)")
    }
}

/// A key as rcgen wants it for signing requests and certificates.
pub(crate) struct RcgenSigner<'a> {
    key: &'a SigningKey,
    public: RcgenPublic,
}

impl<'a> From<&'a PrivateKey> for RcgenSigner<'a> {
    fn from(key: &'a PrivateKey) -> Self {
        Self { key: &key.0, public: RcgenPublic(key.public_key().to_bytes()) }
    }
}

impl rcgen::PublicKeyData for RcgenSigner<'_> {
    fn der_bytes(&self) -> &[u8] {
        self.public.der_bytes()
    }

    fn algorithm(&self) -> &'static rcgen::SignatureAlgorithm {
        self.public.algorithm()
    }
}

impl rcgen::SigningKey for RcgenSigner<'_> {
    fn sign(&self, message: &[u8]) -> Result<Vec<u8>, rcgen::Error> {
        Ok(self.key.sign(message).to_vec())
    }
}

/// A public key as rcgen wants it for the holder of a certificate.
pub(crate) struct RcgenPublic(pub(crate) [u8; 32]);

impl rcgen::PublicKeyData for RcgenPublic {
    fn der_bytes(&self) -> &[u8] {
        &self.0
    }

    fn algorithm(&self) -> &'static rcgen::SignatureAlgorithm {
        &rcgen::PKCS_ED25519
    }
}

/// The first 16 hex digits of a public key, for messages.
pub(crate) fn fingerprint(key: &VerifyingKey) -> String {
    hex::encode(&key.as_bytes()[..8])
}

/// Fills `bytes` from the random generator of the TLS library.
pub(crate) fn fill_random(bytes: &mut [u8]) -> Result<(), KeyError> {
    rustls::crypto::aws_lc_rs::default_provider().secure_random.fill(bytes).map_err(|_| KeyError::Random)
}

/// The text of a file whose open handle shows that no one but its owner may read it.
fn read_secret(path: &Path) -> Result<Zeroizing<String>, KeyError> {
    let failed = |cause| KeyError::Read { path: path.into(), cause };
    let file = File::open(path).map_err(failed)?;
    let mode = file.metadata().map_err(failed)?.permissions().mode() & 0o7777;
    if mode & 0o077 != 0 {
        return Err(KeyError::Permissions { path: path.into(), mode });
    }
    // Room for all of it at once: a buffer that grows leaves copies behind.
    let mut text = Zeroizing::new(String::with_capacity(LONGEST_KEY));
    file.take(LONGEST_KEY as u64 / 2).read_to_string(&mut text).map_err(failed)?;
    Ok(text)
}

const LONGEST_KEY: usize = 4096;

//! A stand-in for `ed25519.rs` with which the simulator plays many more seeds (`just simulate-stub`).
//!
//! **It protects nothing**: whoever knows a public key signs with it. It keeps what the machines rely on: every length, the
//! same bytes for the same text, and a signature that holds for one key and one text. It is compiled with
//! `--cfg ward_stub_crypto` only, with which the crates of the product do not build.

use crate::kdf;

/// The public half of a key.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct VerifyingKey([u8; 32]);

/// A key: all that is kept of it is its public half.
#[derive(Clone, Debug)]
pub struct SigningKey(VerifyingKey);

impl SigningKey {
    /// The key of a secret.
    pub(crate) fn from_bytes(secret: &[u8; 32]) -> Self {
        Self(VerifyingKey(kdf::derive("ward/1 stub signing key", secret, &[])))
    }

    /// Its public half.
    pub(crate) fn verifying_key(&self) -> VerifyingKey {
        self.0
    }
}

/// A digest under the public key, and that key.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Signature([u8; 64]);

impl Signature {
    /// Any 64 bytes.
    pub(crate) fn from_slice(bytes: &[u8]) -> Result<Self, std::array::TryFromSliceError> {
        bytes.try_into().map(Self)
    }

    /// Its bytes.
    pub(crate) fn to_bytes(&self) -> [u8; 64] {
        self.0
    }
}

/// Signs `text`.
pub(crate) fn sign(key: &SigningKey, text: &[u8]) -> Signature {
    signature(&key.0, text)
}

/// Whether `key` signed `text`.
pub(crate) fn verify(key: &VerifyingKey, text: &[u8], of: &Signature) -> bool {
    signature(key, text) == *of
}

fn signature(key: &VerifyingKey, text: &[u8]) -> Signature {
    let mut bytes = [0; 64];
    let (digest, public) = bytes.split_at_mut(32);
    digest.copy_from_slice(blake3::keyed_hash(&key.0, text).as_bytes());
    public.copy_from_slice(&key.0);
    Signature(bytes)
}

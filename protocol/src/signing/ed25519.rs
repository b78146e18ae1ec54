//! Ed25519 by `ed25519-dalek`.

use ed25519_dalek::Signer as _;
pub(crate) use ed25519_dalek::{Signature, SigningKey, VerifyingKey};

/// Signs `text`. Ed25519 is deterministic: the same text gives the same bytes.
pub(crate) fn sign(key: &SigningKey, text: &[u8]) -> Signature {
    key.sign(text)
}

/// Whether `key` signed `text`.
pub(crate) fn verify(key: &VerifyingKey, text: &[u8], signature: &Signature) -> bool {
    // Strict and one by one: what passes in a batch may not pass alone (PROTOCOL.md, *Trust*).
    key.verify_strict(text, signature).is_ok()
}

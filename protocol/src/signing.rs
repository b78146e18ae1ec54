//! Signatures: Ed25519, strict and one by one (PROTOCOL.md, *Trust*).

#[cfg(not(ward_stub_crypto))]
mod ed25519;
#[cfg(ward_stub_crypto)]
mod stub;

#[cfg(not(ward_stub_crypto))]
pub(crate) use ed25519::{Signature, SigningKey, VerifyingKey, sign, verify};
#[cfg(ward_stub_crypto)]
pub(crate) use stub::{Signature, SigningKey, VerifyingKey, sign, verify};

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use super::*;

    fn key(byte: u8) -> SigningKey {
        SigningKey::from_bytes(&[byte; 32])
    }

    #[test]
    fn a_signature_is_of_one_key_and_one_text() {
        let signature = sign(&key(1), b"text");
        assert_eq!(signature.to_bytes(), sign(&key(1), b"text").to_bytes(), "the same bytes again");
        let public = key(1).verifying_key();
        assert!(verify(&public, b"text", &signature));
        assert!(!verify(&public, b"tex", &signature));
        assert!(!verify(&key(2).verifying_key(), b"text", &signature));
        assert_ne!(public, key(2).verifying_key());
        assert_ne!(signature.to_bytes(), sign(&key(2), b"text").to_bytes());
    }

    #[test]
    fn every_byte_of_a_signature_counts() {
        let bytes = sign(&key(1), b"text").to_bytes();
        for at in 0..bytes.len() {
            let mut altered = bytes;
            altered[at] ^= 1;
            let signature = Signature::from_slice(&altered).unwrap();
            assert!(!verify(&key(1).verifying_key(), b"text", &signature), "byte {at}");
        }
        assert!(Signature::from_slice(&bytes[..63]).is_err());
    }
}

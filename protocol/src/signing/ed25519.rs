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

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use ed25519_dalek::Verifier as _;

    use super::*;

    /// The compressed base point: what 1 times it gives.
    const BASE: &str = "5866666666666666666666666666666666666666666666666666666666666666";

    fn signature(hex: &str) -> Signature {
        Signature::from_slice(&hex::decode(hex).unwrap()).unwrap()
    }

    // The flaws are some of those in Chalkias, Garillot and Nikolaenko, "Taming the many EdDSAs" (2020). The signatures of
    // `text` by the key of 32 bytes 7 are from a separate Python implementation of RFC 8032, which knows the secret scalar.

    #[test]
    fn a_key_of_small_order_signs_nothing() {
        let neutral = VerifyingKey::from_bytes(&std::array::from_fn(|at| u8::from(at == 0))).unwrap();
        let one = format!("{BASE}01{}", "00".repeat(31));
        for text in [b"text".as_slice(), b"any other"] {
            assert!(neutral.verify(text, &signature(&one)).is_ok(), "it would be by everybody, of everything");
            assert!(!verify(&neutral, text, &signature(&one)));
        }
    }

    #[test]
    fn a_signature_of_small_order_is_none() {
        let key = SigningKey::from_bytes(&[7; 32]).verifying_key();
        let small =
            format!("01{}{}", "00".repeat(31), "387642649daed08eef18b3e95c46aafbd542afac07334dbc6a1b4f81e494bd05");
        assert!(key.verify(b"text", &signature(&small)).is_ok());
        assert!(!verify(&key, b"text", &signature(&small)));
    }

    /// With a point of order 8 added to R, and with the group's order added to s.
    #[test]
    fn what_may_pass_in_a_batch_and_what_says_the_same_in_other_bytes_is_refused() {
        let key = SigningKey::from_bytes(&[7; 32]);
        let good = "3c130cb3700142a3b36f924c951d0af0d6287af64288cb7c476e380154c04243\
                    0c214f71f8b0ad8dd15a94ac860a6769b28335c217a5bf0a4751d6d88ee00804";
        let mixed = "26ab5c5e24ae964a17d197c2604eb42296a4ca1f5728e9f3aabd3087a878dd8a\
                     b84363f596e49f3c2a653592cd7a24b11a4ead6306eeb017d87029074f1d3609";
        let beyond = "3c130cb3700142a3b36f924c951d0af0d6287af64288cb7c476e380154c04243\
                      f9f444ce1214c0e5a7f78b4f6504467eb28335c217a5bf0a4751d6d88ee00814";
        assert_eq!(hex::encode(sign(&key, b"text").to_bytes()), good);
        for (signed, holds) in [(good, true), (mixed, false), (beyond, false)] {
            assert_eq!(verify(&key.verifying_key(), b"text", &signature(signed)), holds, "{signed}");
        }
    }
}

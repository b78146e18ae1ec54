//! The export of a key by HPKE: base mode, X-Wing, HKDF-SHA256, AES-256-GCM (RFC 9180).

use hpke::aead::{AeadCtxR, AeadCtxS, AesGcm256};
use hpke::kdf::HkdfSha256;
use hpke::kem::XWing;
use hpke::{Deserializable, Kem, OpModeR, OpModeS, Serializable};

use super::SealError;
use crate::kdf::Stream;

type PublicKey = <XWing as Kem>::PublicKey;
type EncappedKey = <XWing as Kem>::EncappedKey;

/// The public half of a secret. The pair is made anew each time (RFC 9180, DeriveKeyPair).
pub(super) fn public(secret: &[u8; 32]) -> Vec<u8> {
    let (_, public) = XWing::derive_keypair(secret);
    public.to_bytes().to_vec()
}

fn decode(key: &[u8]) -> Result<PublicKey, SealError> {
    PublicKey::from_bytes(key).map_err(|_| SealError::Key(key.len()))
}

/// Refuses what is no public key.
pub(super) fn check(key: &[u8]) -> Result<(), SealError> {
    decode(key).map(drop)
}

/// The bytes to send to the holder of `to`, and the key exported under `label`.
pub(super) fn send(to: &[u8], info: &[u8], mut rng: Stream, label: &[u8]) -> Result<(Vec<u8>, [u8; 32]), SealError> {
    let (encapsulation, context): (EncappedKey, AeadCtxS<AesGcm256, HkdfSha256, XWing>) =
        hpke::setup_sender_with_rng(&OpModeS::Base, &decode(to)?, info, &mut rng).map_err(|_| SealError::Suite)?;
    let mut key = [0; 32];
    context.export(label, &mut key).map_err(|_| SealError::Suite)?;
    Ok((encapsulation.to_bytes().to_vec(), key))
}

/// The other end of [`send`].
pub(super) fn receive(
    secret: &[u8; 32],
    encapsulation: &[u8],
    info: &[u8],
    label: &[u8],
) -> Result<[u8; 32], SealError> {
    let encapsulation =
        EncappedKey::from_bytes(encapsulation).map_err(|_| SealError::Encapsulation(encapsulation.len()))?;
    let (private, _) = XWing::derive_keypair(secret);
    let context: AeadCtxR<AesGcm256, HkdfSha256, XWing> =
        hpke::setup_receiver(&OpModeR::Base, &private, &encapsulation, info).map_err(|_| SealError::Open)?;
    let mut key = [0; 32];
    context.export(label, &mut key).map_err(|_| SealError::Suite)?;
    Ok(key)
}

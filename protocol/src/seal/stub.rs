//! A stand-in for `xwing.rs` with which the simulator plays many more seeds (`just simulate-stub`).
//!
//! **It protects nothing**: whoever knows a public key opens what was sealed to it. It keeps what the machines rely on: every
//! length, the same bytes from the same randomness, a key that follows from receiver, info, label and each byte sent, and
//! the errors for what is no key and no encapsulation. It is compiled with `--cfg ward_stub_crypto` only, with which
//! the crates of the product do not build.

use rand_core::Rng as _;

use super::{ENCAPSULATION_BYTES, SEAL_KEY_BYTES, SealError};
use crate::kdf::{Stream, derive};

/// How many bytes of a key or an encapsulation are not zero.
const USED: usize = 32;

/// The public half of a secret.
pub(super) fn public(secret: &[u8; 32]) -> Vec<u8> {
    let mut key = derive("ward/1 stub seal key", secret, &[]).to_vec();
    key.resize(SEAL_KEY_BYTES, 0);
    key
}

/// Refuses what is no public key.
pub(super) fn check(key: &[u8]) -> Result<(), SealError> {
    let is_key = key.len() == SEAL_KEY_BYTES && key.iter().skip(USED).all(|byte| *byte == 0);
    if is_key { Ok(()) } else { Err(SealError::Key(key.len())) }
}

/// The bytes to send to the holder of `to`, and the key exported under `label`.
pub(super) fn send(to: &[u8], info: &[u8], mut rng: Stream, label: &[u8]) -> Result<(Vec<u8>, [u8; 32]), SealError> {
    check(to)?;
    let mut encapsulation = vec![0; USED];
    rng.fill_bytes(&mut encapsulation);
    encapsulation.resize(ENCAPSULATION_BYTES, 0);
    let key = export(to, &encapsulation, info, label);
    Ok((encapsulation, key))
}

/// The other end of [`send`].
pub(super) fn receive(
    secret: &[u8; 32],
    encapsulation: &[u8],
    info: &[u8],
    label: &[u8],
) -> Result<[u8; 32], SealError> {
    if encapsulation.len() != ENCAPSULATION_BYTES {
        return Err(SealError::Encapsulation(encapsulation.len()));
    }
    Ok(export(&public(secret), encapsulation, info, label))
}

/// Of one length each, what differs differs also without the zeros at its end: there are a thousand of them to hash.
fn export(to: &[u8], encapsulation: &[u8], info: &[u8], label: &[u8]) -> [u8; 32] {
    derive("ward/1 stub export", without_zeros(to), &[without_zeros(encapsulation), info, label])
}

fn without_zeros(bytes: &[u8]) -> &[u8] {
    let end = bytes.iter().rposition(|byte| *byte != 0).map_or(0, |last| last + 1);
    bytes.get(..end).unwrap_or_default()
}

//! Seals: who may read what the broker carries (PROTOCOL.md, *A session* and *Trust*).
//!
//! Two shapes. A patient encapsulates once per session and member; both sides then hold a chain of
//! keys, one a round, and the patient's *boxes* with seeds are sealed under it. A member's sum is
//! sealed to the hospital as a whole: one encapsulation, one key for each piece.
//!
//! HPKE (RFC 9180) in base mode proves no sender: the signature over the message does.

#[cfg(ward_stub_crypto)]
mod stub;
#[cfg(not(ward_stub_crypto))]
mod xwing;

use std::fmt;

use aes_gcm::aead::{Aead, KeyInit, Payload};
use aes_gcm::{Aes256Gcm, Nonce};
use serde::{Deserialize, Serialize};
use serde_bytes::ByteBuf;
use zeroize::{Zeroize, Zeroizing};

use crate::id::{Digest, Name};
use crate::kdf::{Stream, derive};
pub(crate) use crate::secret::SealSecret;
use crate::secret::{ChainKey, SecretBytes, SessionRandomness, SumKey};
#[cfg(ward_stub_crypto)]
use stub as kem;
#[cfg(not(ward_stub_crypto))]
use xwing as kem;

/// What a message says of its seals: HPKE base mode, X-Wing (KEM 0x647a), HKDF-SHA256,
/// AES-256-GCM. A change of any of them is another number.
pub const SUITE: u16 = 1;

/// Bytes of a [`SealKey`].
pub const SEAL_KEY_BYTES: usize = 1216;

/// Bytes of an encapsulation.
pub const ENCAPSULATION_BYTES: usize = 1120;

/// Bytes that sealing a sum's piece adds.
pub const TAG_BYTES: usize = 16;

/// Bytes that sealing a box adds: salt and tag.
pub const BOX_OVERHEAD: usize = SALT_BYTES + TAG_BYTES;

const SALT_BYTES: usize = 32;

/// Why something cannot be sealed or opened. None of the texts says what is inside.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum SealError {
    /// Not a public key of X-Wing.
    #[error("{0} bytes are no seal key: it must be a valid X-Wing public key of 1216 bytes; its owner must join again")]
    Key(usize),
    /// An encapsulation of another length.
    #[error("an encapsulation of {0} bytes: it must have 1120; the sender's message was cut or is of another suite")]
    Encapsulation(usize),
    /// Shorter than what sealing adds.
    #[error("a seal of {0} bytes is cut short: ask for the message again")]
    Short(usize),
    /// The suite failed, which it does for no input that passed the checks above.
    #[error("the seal could not be made: report it with the versions of both parties")]
    Suite,
    /// The tag does not fit.
    #[error("the seal does not open: it was altered, or made for another receiver, run or message")]
    Open,
}

/// The public key that others seal to: X-Wing (X25519 and ML-KEM-768), 1216 bytes.
///
/// Decoding refuses bytes that are no valid key.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(try_from = "ByteBuf", into = "ByteBuf")]
pub struct SealKey(Vec<u8>);

impl SealKey {
    /// The key's bytes.
    pub fn as_bytes(&self) -> &[u8] {
        &self.0
    }
}

impl TryFrom<&[u8]> for SealKey {
    type Error = SealError;

    fn try_from(bytes: &[u8]) -> Result<Self, SealError> {
        kem::check(bytes).map(|()| Self(bytes.to_vec()))
    }
}

impl TryFrom<ByteBuf> for SealKey {
    type Error = SealError;

    fn try_from(bytes: ByteBuf) -> Result<Self, SealError> {
        bytes.as_slice().try_into()
    }
}

impl From<SealKey> for ByteBuf {
    fn from(key: SealKey) -> ByteBuf {
        ByteBuf::from(key.0)
    }
}

impl fmt::Debug for SealKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "SealKey({}..)", hex::encode(&self.0[..4]))
    }
}

impl SealSecret {
    /// The secret of a session, derived from its randomness and whatever it is to be bound to, such
    /// as the owner's name and the message continued.
    pub fn from_randomness(randomness: &SessionRandomness, context: &[&[u8]]) -> Self {
        Self::new(derive("ward/1 seal secret", randomness.expose(), context))
    }

    /// The public half; it is derived anew each time.
    pub fn public(&self) -> SealKey {
        SealKey(kem::public(self.expose()))
    }
}

/// Makes the chain that a patient shares with one member: the bytes to send, and `chain_0`.
///
/// `info` names all that the chain is bound to. The same inputs give the same bytes; `randomness`
/// must be secret and derived for this receiver and this message.
pub fn encapsulate(to: &SealKey, info: &[u8], randomness: [u8; 32]) -> Result<(Vec<u8>, ChainKey), SealError> {
    let (encapsulation, key) = send(to, info, randomness, CHAIN)?;
    Ok((encapsulation, ChainKey::new(key)))
}

/// The other end of [`encapsulate`]. Bytes altered, or meant for another, yield another chain and
/// no error: the first box shows it.
pub fn decapsulate(secret: &SealSecret, encapsulation: &[u8], info: &[u8]) -> Result<ChainKey, SealError> {
    receive(secret, encapsulation, info, CHAIN).map(ChainKey::new)
}

const CHAIN: &[u8] = b"ward/1 chain";
const SUM: &[u8] = b"ward/1 sum";

fn send(to: &SealKey, info: &[u8], mut randomness: [u8; 32], label: &[u8]) -> Result<(Vec<u8>, [u8; 32]), SealError> {
    // The label, the receiver and the info go in, so that randomness used twice by mistake still
    // makes two unrelated encapsulations.
    let rng = Stream::new("ward/1 encapsulation", &randomness, &[label, &to.0, info]);
    randomness.zeroize();
    kem::send(&to.0, info, rng, label)
}

fn receive(secret: &SealSecret, encapsulation: &[u8], info: &[u8], label: &[u8]) -> Result<[u8; 32], SealError> {
    kem::receive(secret.expose(), encapsulation, info, label)
}

impl ChainKey {
    /// The next round's key. There is no way back: whoever finds this one cannot open earlier boxes.
    pub fn next(&self) -> ChainKey {
        Self::new(derive("ward/1 chain", self.expose(), &[]))
    }

    /// The key `steps` rounds on: how a party that missed rounds catches up. Takes time in
    /// proportion to `steps`, each a fraction of a microsecond: bound a number that others chose.
    pub fn advance(self, steps: u32) -> ChainKey {
        (0..steps).fold(self, |chain, _| chain.next())
    }
}

/// What a box is bound to.
#[derive(Clone, Copy, Debug)]
pub struct BoxContext<'a> {
    /// The round's Begin.
    pub begin: Digest,
    /// The Share's core: all of it but the digests of its boxes.
    pub core: Digest,
    /// The patient.
    pub sender: &'a Name,
    /// The member.
    pub receiver: &'a Name,
}

impl BoxContext<'_> {
    fn key(&self, chain: &ChainKey, salt: &[u8]) -> Zeroizing<[u8; 32]> {
        Zeroizing::new(derive("ward/1 box", chain.expose(), &[&self.begin.0, salt]))
    }

    /// The associated data. The sender's length stands before it, so that two names never read as
    /// another two.
    fn associated(&self) -> Vec<u8> {
        let (sender, receiver) = (self.sender.as_str().as_bytes(), self.receiver.as_str().as_bytes());
        [&self.core.0, &[sender.len() as u8][..], sender, receiver].concat()
    }
}

/// `salt || AES-256-GCM(KDF(chain; Begin, salt), plaintext)`, with core, sender and receiver as
/// associated data. `salt` is derived for this core: a salt never meets two texts.
pub fn seal_box(
    chain: &ChainKey,
    salt: [u8; 32],
    context: &BoxContext<'_>,
    plaintext: &[u8],
) -> Result<Vec<u8>, SealError> {
    let sealed = encrypt(&context.key(chain, &salt), plaintext, &context.associated())?;
    Ok([&salt[..], &sealed].concat())
}

/// The plaintext of a box, or [`SealError::Open`] if anything that it is bound to differs.
pub fn open_box(chain: &ChainKey, context: &BoxContext<'_>, bytes: &[u8]) -> Result<SecretBytes, SealError> {
    let (salt, sealed) = bytes.split_at_checked(SALT_BYTES).ok_or(SealError::Short(bytes.len()))?;
    if sealed.len() < TAG_BYTES {
        return Err(SealError::Short(bytes.len()));
    }
    decrypt(&context.key(chain, salt), sealed, &context.associated())
}

/// Seals a sum for the hospital, piece by piece.
///
/// A piece's key depends on the randomness, the info and the piece's number: seal one text for each
/// number. So derive the randomness from the digest of all that will be sealed, and a resumed
/// member repeats its bytes while another text gets other keys.
#[derive(Debug)]
pub struct SumSealer(SumKey);

impl SumSealer {
    /// One encapsulation to `to`, bound to `info`; returns the sealer and the bytes to send.
    pub fn new(to: &SealKey, info: &[u8], randomness: [u8; 32]) -> Result<(Self, Vec<u8>), SealError> {
        let (encapsulation, key) = send(to, info, randomness, SUM)?;
        Ok((Self(SumKey::new(key)), encapsulation))
    }

    /// Seals piece number `piece`; 16 bytes longer than the plaintext.
    pub fn seal(&self, piece: u32, plaintext: &[u8]) -> Result<Vec<u8>, SealError> {
        encrypt(&piece_key(&self.0, piece), plaintext, &[])
    }
}

/// Opens what a [`SumSealer`] sealed, in any order.
#[derive(Debug)]
pub struct SumOpener(SumKey);

impl SumOpener {
    /// The other end of [`SumSealer::new`]. Bytes that were altered show when a piece is opened.
    pub fn new(secret: &SealSecret, encapsulation: &[u8], info: &[u8]) -> Result<Self, SealError> {
        receive(secret, encapsulation, info, SUM).map(|key| Self(SumKey::new(key)))
    }

    /// The plaintext of piece number `piece`.
    pub fn open(&self, piece: u32, bytes: &[u8]) -> Result<SecretBytes, SealError> {
        if bytes.len() < TAG_BYTES {
            return Err(SealError::Short(bytes.len()));
        }
        decrypt(&piece_key(&self.0, piece), bytes, &[])
    }
}

fn piece_key(key: &SumKey, piece: u32) -> Zeroizing<[u8; 32]> {
    Zeroizing::new(derive("ward/1 piece", key.expose(), &[&piece.to_le_bytes()]))
}

/// The nonce is zero: every key here is derived for one text and encrypts once, so there is no
/// second nonce to tell apart.
fn encrypt(key: &[u8; 32], plaintext: &[u8], associated: &[u8]) -> Result<Vec<u8>, SealError> {
    let payload = Payload { msg: plaintext, aad: associated };
    Aes256Gcm::new(key.into()).encrypt(&Nonce::default(), payload).map_err(|_| SealError::Suite)
}

fn decrypt(key: &[u8; 32], sealed: &[u8], associated: &[u8]) -> Result<SecretBytes, SealError> {
    let payload = Payload { msg: sealed, aad: associated };
    let opened = Aes256Gcm::new(key.into()).decrypt(&Nonce::default(), payload);
    opened.map(SecretBytes::from).map_err(|_| SealError::Open)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use super::*;

    fn secret(byte: u8) -> SealSecret {
        SealSecret::from_randomness(&SessionRandomness::new([byte; 32]), &[b"alice", b"announce"])
    }

    fn name(text: &str) -> Name {
        text.parse().unwrap()
    }

    #[test]
    fn key_pairs_repeat_and_depend_on_all_inputs() {
        assert_eq!(secret(1).public(), secret(1).public());
        assert_ne!(secret(1).public(), secret(2).public());
        let other = SealSecret::from_randomness(&SessionRandomness::new([1; 32]), &[b"alic", b"eannounce"]);
        assert_ne!(secret(1).public(), other.public());
        assert_eq!(SealSecret::new(*secret(1).expose()).public(), secret(1).public());
    }

    #[test]
    fn a_seal_key_is_checked_when_decoded() {
        let key = secret(1).public();
        assert_eq!(key.as_bytes().len(), SEAL_KEY_BYTES);
        let encoded = rmp_serde::to_vec(&key).unwrap();
        assert_eq!(rmp_serde::from_slice::<SealKey>(&encoded).unwrap(), key);
        assert_eq!(encoded.len(), SEAL_KEY_BYTES + 3);
        assert!(format!("{key:?}").len() < 30);
        for len in [0, 32, SEAL_KEY_BYTES - 1, SEAL_KEY_BYTES + 1] {
            let bytes = vec![0; len];
            assert_eq!(SealKey::try_from(&bytes[..]), Err(SealError::Key(len)));
            assert!(rmp_serde::from_slice::<SealKey>(&rmp_serde::to_vec(&ByteBuf::from(bytes)).unwrap()).is_err());
        }
        // Coefficients of 4095 are not below ML-KEM's modulus.
        assert_eq!(SealKey::try_from(&[0xff; SEAL_KEY_BYTES][..]), Err(SealError::Key(SEAL_KEY_BYTES)));
    }

    #[test]
    fn both_ends_hold_the_same_chain_and_the_bytes_repeat() {
        let secret = secret(1);
        let (bytes, chain) = encapsulate(&secret.public(), b"info", [7; 32]).unwrap();
        assert_eq!(bytes.len(), ENCAPSULATION_BYTES);
        assert_eq!(decapsulate(&secret, &bytes, b"info").unwrap().expose(), chain.expose());
        let (again, same) = encapsulate(&secret.public(), b"info", [7; 32]).unwrap();
        assert_eq!((&bytes, chain.expose()), (&again, same.expose()));
        for (other, another) in [
            encapsulate(&secret.public(), b"info", [8; 32]).unwrap(),
            encapsulate(&secret.public(), b"inf", [7; 32]).unwrap(),
            encapsulate(&self::secret(2).public(), b"info", [7; 32]).unwrap(),
        ] {
            assert!(other != bytes && other[..32] != bytes[..32] && another.expose() != chain.expose());
        }
    }

    #[test]
    fn a_wrong_receiver_info_or_byte_gives_another_chain() {
        let secret = secret(1);
        let (bytes, chain) = encapsulate(&secret.public(), b"info", [7; 32]).unwrap();
        let differs = |chain: ChainKey, other: Result<ChainKey, SealError>| chain.expose() != other.unwrap().expose();
        assert!(differs(chain.duplicate(), decapsulate(&self::secret(2), &bytes, b"info")));
        assert!(differs(chain.duplicate(), decapsulate(&secret, &bytes, b"inf")));
        for place in [0, 1087, 1088, 1118] {
            let mut altered = bytes.clone();
            altered[place] ^= 1;
            assert!(differs(chain.duplicate(), decapsulate(&secret, &altered, b"info")), "byte {place}");
        }
        for len in (0..ENCAPSULATION_BYTES).chain([ENCAPSULATION_BYTES + 1]) {
            let mut cut = bytes.clone();
            cut.resize(len, 0);
            assert_eq!(decapsulate(&secret, &cut, b"info").unwrap_err(), SealError::Encapsulation(len));
        }
    }

    #[test]
    fn the_chain_moves_on() {
        let start = ChainKey::new([3; 32]);
        assert_eq!(start.duplicate().advance(0).expose(), start.expose());
        assert_eq!(start.duplicate().advance(3).expose(), start.next().next().next().expose());
        assert_ne!(start.next().expose(), start.expose());
    }

    #[test]
    fn a_box_opens_only_as_it_was_sealed() {
        let (alice, bob, eve) = (name("alice"), name("bob"), name("eve"));
        let chain = ChainKey::new([3; 32]);
        let context = BoxContext { begin: Digest([1; 32]), core: Digest([2; 32]), sender: &alice, receiver: &bob };
        let sealed = seal_box(&chain, [9; 32], &context, b"seeds").unwrap();
        assert_eq!(sealed, seal_box(&chain, [9; 32], &context, b"seeds").unwrap());
        assert_eq!(sealed.len(), 5 + BOX_OVERHEAD);
        assert_eq!(sealed[..32], [9; 32]);
        assert_eq!(*open_box(&chain, &context, &sealed).unwrap(), *b"seeds");

        let wrong = [
            BoxContext { begin: Digest([0; 32]), ..context },
            BoxContext { core: Digest([0; 32]), ..context },
            BoxContext { sender: &eve, ..context },
            BoxContext { receiver: &eve, ..context },
            BoxContext { sender: &bob, receiver: &alice, ..context },
        ];
        assert!(wrong.iter().all(|wrong| open_box(&chain, wrong, &sealed) == Err(SealError::Open)));
        assert_eq!(open_box(&chain.next(), &context, &sealed), Err(SealError::Open));
        for place in 0..sealed.len() {
            let mut altered = sealed.clone();
            altered[place] ^= 1;
            assert_eq!(open_box(&chain, &context, &altered), Err(SealError::Open), "byte {place}");
        }
        for len in 0..sealed.len() {
            let expected = if len < BOX_OVERHEAD { SealError::Short(len) } else { SealError::Open };
            assert_eq!(open_box(&chain, &context, &sealed[..len]), Err(expected));
        }
    }

    #[test]
    fn names_do_not_run_into_each_other() {
        let names = [name("ab"), name("c"), name("a"), name("bc")];
        let context = |sender, receiver| BoxContext { begin: Digest([1; 32]), core: Digest([2; 32]), sender, receiver };
        let (one, other) = (context(&names[0], &names[1]), context(&names[2], &names[3]));
        assert_ne!(one.associated(), other.associated());
    }

    #[test]
    fn sums_open_piece_by_piece() {
        let secret = secret(1);
        let (sealer, encapsulation) = SumSealer::new(&secret.public(), b"info", [7; 32]).unwrap();
        let opener = SumOpener::new(&secret, &encapsulation, b"info").unwrap();
        let pieces: Vec<_> = (0..3).map(|piece| sealer.seal(piece, b"same text").unwrap()).collect();
        for (piece, sealed) in (0..3).zip(&pieces).rev() {
            assert_eq!(*opener.open(piece, sealed).unwrap(), *b"same text");
            assert_eq!(opener.open(piece + 1, sealed), Err(SealError::Open));
        }
        assert!(pieces[0] != pieces[1] && pieces[1] != pieces[2]);
        assert!(opener.open(9, &sealer.seal(9, b"").unwrap()).unwrap().is_empty());

        let (again, same) = SumSealer::new(&secret.public(), b"info", [7; 32]).unwrap();
        assert_eq!((same, again.seal(1, b"same text").unwrap()), (encapsulation.clone(), pieces[1].clone()));
        for place in 0..pieces[0].len() {
            let mut altered = pieces[0].clone();
            altered[place] ^= 1;
            assert_eq!(opener.open(0, &altered), Err(SealError::Open));
            let short = opener.open(0, &pieces[0][..place]).unwrap_err();
            assert_eq!(short, if place < TAG_BYTES { SealError::Short(place) } else { SealError::Open });
        }
        let refused = |secret: &SealSecret, encapsulation: &[u8], info: &[u8]| {
            SumOpener::new(secret, encapsulation, info).unwrap().open(0, &pieces[0]) == Err(SealError::Open)
        };
        assert!(refused(&self::secret(2), &encapsulation, b"info"));
        assert!(refused(&secret, &encapsulation, b"inf"));
        let mut altered = encapsulation.clone();
        altered[500] ^= 1;
        assert!(refused(&secret, &altered, b"info"));
    }

    #[test]
    fn a_chain_and_a_sum_with_the_same_inputs_are_unrelated() {
        let secret = secret(1);
        let (_, chain) = encapsulate(&secret.public(), b"info", [7; 32]).unwrap();
        let (sealer, encapsulation) = SumSealer::new(&secret.public(), b"info", [7; 32]).unwrap();
        assert_ne!(sealer.0.expose(), chain.expose());
        let crossed = decapsulate(&secret, &encapsulation, b"info").unwrap();
        assert_ne!(sealer.0.expose(), crossed.expose());
        assert_eq!(format!("{sealer:?}"), "SumSealer(SumKey(..))");
    }
}

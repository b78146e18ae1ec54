//! How a message looks on the wire: `[m, signature, attachment]` in MessagePack (PROTOCOL.md, *Messages*).
//!
//! `m` is the MessagePack of an [`Envelope`]; signature and digest are over its bytes exactly as sent. An
//! attachment is not signed: it counts only by a digest that stands in some signed `m`.

use bytes::Bytes;
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};
use serde_bytes::ByteBuf;

use crate::form;
use crate::id::{Digest, Identity, Kind, MessageName, Name, RoundNo, SessionId, To};
use crate::kdf;
use crate::signing::{self, Signature, SigningKey};

/// The version that stands first in every message.
pub const VERSION: u8 = 1;

/// The largest message in bytes: the broker's default limit, headers included.
pub const MAX_MESSAGE: usize = 1 << 20;

/// The largest `m` in bytes: an Open, a Roster or a Share stay far below it.
pub const MAX_M: usize = 512 << 10;

/// Why bytes are not a message, or not one from whom it says.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum WireError {
    /// Over the limit, before anything was decoded.
    #[error("message of {got} bytes is over the limit of {limit}")]
    TooLarge {
        /// Its size in bytes.
        got: usize,
        /// The limit in bytes.
        limit: usize,
    },
    /// Not MessagePack of the expected shape, or not in its one encoding.
    #[error("not a well-formed {0}")]
    Malformed(&'static str),
    /// Another version of the protocol.
    #[error("protocol version {0}, this is version {VERSION}: run the same release everywhere")]
    Version(u8),
    /// The signature does not verify under the key that the sender's certificate names.
    #[error("the signature is not by the key of {0}")]
    Signature(Name),
}

/// Encodes a message part; its types cannot fail to encode.
pub(crate) fn encode<T: Serialize>(value: &T) -> Vec<u8> {
    rmp_serde::to_vec(value).unwrap_or_default()
}

/// Decodes a message part: no trailing bytes, no unknown fields, one encoding only. It takes less memory than four times
/// the bytes and 256 KiB, whatever these claim.
///
/// # Errors
/// [`WireError::Malformed`] with `what` for anything else.
pub(crate) fn decode<T: DeserializeOwned + Serialize>(bytes: &[u8], what: &'static str) -> Result<T, WireError> {
    if form::is_sound(bytes) { decode_own(bytes, what) } else { Err(WireError::Malformed(what)) }
}

/// [`decode`] of what this party wrote itself: its texts may be of any length.
///
/// # Errors
/// As [`decode`].
pub(crate) fn decode_own<T: DeserializeOwned + Serialize>(bytes: &[u8], what: &'static str) -> Result<T, WireError> {
    let value: T = rmp_serde::from_slice(bytes).map_err(|_| WireError::Malformed(what))?;
    if encodes_to(&value, bytes) { Ok(value) } else { Err(WireError::Malformed(what)) }
}

/// Whether `value` has these bytes: this catches trailing bytes, maps for structs and padded integers in one check.
fn encodes_to<T: Serialize>(value: &T, bytes: &[u8]) -> bool {
    let mut same = Same(bytes);
    rmp_serde::encode::write(&mut same, value).is_ok() && same.0.is_empty()
}

/// Takes these bytes, and fails at the first other one: a comparison without a copy.
struct Same<'a>(&'a [u8]);

impl std::io::Write for Same<'_> {
    fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
        self.0 = self.0.strip_prefix(bytes).ok_or(std::io::ErrorKind::InvalidData)?;
        Ok(bytes.len())
    }

    fn flush(&mut self) -> std::io::Result<()> {
        Ok(())
    }
}

/// What is signed: who says what to whom, and which message it continues.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Envelope {
    /// [`VERSION`].
    pub version: u8,
    /// The session; zero in an Announce, whose digest names the session.
    pub session: SessionId,
    /// The round; 0 in set-up.
    pub round: RoundNo,
    /// The signer.
    pub from: Name,
    /// The receiver; `all` also where one `m` goes to several named receivers.
    pub to: To,
    /// What the body is.
    pub kind: Kind,
    /// The digest of the message that this one continues; zero in an Announce.
    pub after: Digest,
    /// The MessagePack of the body.
    pub body: ByteBuf,
}

impl Envelope {
    /// The body, decoded as `T`.
    ///
    /// # Errors
    /// [`WireError::Malformed`] where it is anything else.
    pub fn body<T: DeserializeOwned + Serialize>(&self) -> Result<T, WireError> {
        decode(&self.body, self.kind.as_str())
    }
}

/// A signed `m` without its attachment, as it stands inside other messages.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Signed {
    m: ByteBuf,
    #[serde(with = "serde_bytes")]
    signature: [u8; 64],
}

impl Signed {
    /// Encodes and signs `envelope`. Signing is deterministic: the same envelope gives the same bytes.
    pub fn new(envelope: &Envelope, key: &SigningKey) -> Self {
        let m = encode(envelope);
        let signature = signing::sign(key, &signed_text(envelope.kind, &m)).to_bytes();
        Self { m: ByteBuf::from(m), signature }
    }

    /// The digest that later messages name this one by.
    pub fn digest(&self) -> Digest {
        message_digest(&self.m)
    }

    /// The frame's bytes with `attachment`.
    pub fn frame(&self, attachment: &[u8]) -> Bytes {
        Bytes::from(encode(&(&self.m, serde_bytes::Bytes::new(&self.signature), serde_bytes::Bytes::new(attachment))))
    }

    /// Opens the envelope without checking who signed it.
    ///
    /// # Errors
    /// As [`Frame::decode`].
    pub fn open(&self) -> Result<Frame, WireError> {
        Frame::new(Bytes::copy_from_slice(&self.m), &self.signature, Bytes::new())
    }
}

/// A decoded frame whose signature is not checked yet.
#[derive(Clone, Debug)]
pub struct Frame {
    /// What is signed.
    pub envelope: Envelope,
    /// The digest of `m`.
    pub digest: Digest,
    /// Bytes that count only by a digest in a signed `m`.
    pub attachment: Bytes,
    m: Bytes,
    signature: Signature,
}

impl Frame {
    /// Decodes a message; the attachment shares the payload's memory.
    ///
    /// # Errors
    /// [`WireError::TooLarge`], [`WireError::Malformed`] or [`WireError::Version`].
    pub fn decode(payload: &Bytes) -> Result<Self, WireError> {
        if payload.len() > MAX_MESSAGE {
            return Err(WireError::TooLarge { got: payload.len(), limit: MAX_MESSAGE });
        }
        if !form::is_sound(payload) {
            return Err(WireError::Malformed("frame"));
        }
        let parts: (&serde_bytes::Bytes, &serde_bytes::Bytes, &serde_bytes::Bytes) =
            rmp_serde::from_slice(payload).map_err(|_| WireError::Malformed("frame"))?;
        if !encodes_to(&parts, payload) {
            return Err(WireError::Malformed("frame"));
        }
        let (m, signature, attachment) = parts;
        Self::new(payload.slice_ref(m), signature, payload.slice_ref(attachment))
    }

    fn new(m: Bytes, signature: &[u8], attachment: Bytes) -> Result<Self, WireError> {
        if m.len() > MAX_M {
            return Err(WireError::TooLarge { got: m.len(), limit: MAX_M });
        }
        let signature = Signature::from_slice(signature).map_err(|_| WireError::Malformed("signature"))?;
        let envelope: Envelope = decode(&m, "envelope")?;
        if envelope.version != VERSION {
            return Err(WireError::Version(envelope.version));
        }
        Ok(Self { digest: message_digest(&m), envelope, attachment, m, signature })
    }

    /// Checks that `identity` signed this frame and is its sender.
    ///
    /// # Errors
    /// [`WireError::Signature`] otherwise.
    pub fn verify(&self, identity: &Identity) -> Result<(), WireError> {
        if self.envelope.from != identity.name {
            return Err(WireError::Signature(identity.name.clone()));
        }
        let text = signed_text(self.envelope.kind, &self.m);
        if signing::verify(&identity.key, &text, &self.signature) {
            Ok(())
        } else {
            Err(WireError::Signature(identity.name.clone()))
        }
    }

    /// The signed part alone, to stand inside another message or in a store.
    pub fn signed(&self) -> Signed {
        Signed { m: ByteBuf::from(self.m.to_vec()), signature: self.signature.to_bytes() }
    }
}

/// The digest of `m` as sent.
fn message_digest(m: &[u8]) -> Digest {
    kdf::digest("ward/1 message", &[m])
}

/// The digest of an attachment or a box.
pub(crate) fn attachment_digest(bytes: &[u8]) -> Digest {
    kdf::digest("ward/1 attachment", &[bytes])
}

/// The digest that stands for an end-entity certificate in DER.
pub fn digest_certificate(der: &[u8]) -> Digest {
    kdf::digest("ward/1 certificate", &[der])
}

/// `ward/1 <kind>`, a zero byte and `m`: the prefix keeps Ward's signatures apart from those of TLS and of requests.
fn signed_text(kind: Kind, m: &[u8]) -> Vec<u8> {
    let mut text = Vec::with_capacity(24 + m.len());
    text.extend_from_slice(b"ward/1 ");
    text.extend_from_slice(kind.as_str().as_bytes());
    text.push(0);
    text.extend_from_slice(m);
    text
}

/// A message's own name on the board (PROTOCOL.md, *The board*): nobody without `secret` can foretell it, and a resumed
/// party repeats it.
pub(crate) fn message_name(secret: &[u8; 32], content: Digest, attachment: Digest, to: &To) -> MessageName {
    let key = kdf::derive("ward/1 name", secret, &[&content.0, &attachment.0, to.to_string().as_bytes()]);
    let mut name = [0; 16];
    name.copy_from_slice(&key[..16]);
    MessageName(name)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    fn envelope() -> Envelope {
        Envelope {
            version: VERSION,
            session: Digest([1; 32]),
            round: RoundNo(2),
            from: "alice".parse().unwrap(),
            to: To::All,
            kind: Kind::Share,
            after: Digest([2; 32]),
            body: ByteBuf::from(vec![0x90]),
        }
    }

    fn identity(key: &SigningKey, name: &str) -> Identity {
        Identity {
            name: name.parse().unwrap(),
            role: crate::Role::Patient,
            key: key.verifying_key(),
            certificate: Digest::default(),
        }
    }

    #[test]
    fn a_frame_survives_the_wire_and_names_its_signer() {
        let key = SigningKey::from_bytes(&[7; 32]);
        let signed = Signed::new(&envelope(), &key);
        let frame = Frame::decode(&signed.frame(b"box")).unwrap();
        assert_eq!(frame.envelope, envelope());
        assert_eq!(frame.attachment.as_ref(), b"box");
        assert_eq!(frame.digest, signed.digest());
        assert_eq!(frame.signed(), signed);
        frame.verify(&identity(&key, "alice")).unwrap();
        assert!(frame.verify(&identity(&key, "bob")).is_err());
        assert!(frame.verify(&identity(&SigningKey::from_bytes(&[8; 32]), "alice")).is_err());
    }

    #[test]
    fn every_cut_and_every_trailing_byte_is_refused() {
        let bytes = Signed::new(&envelope(), &SigningKey::from_bytes(&[7; 32])).frame(b"box");
        for cut in 0..bytes.len() {
            assert!(Frame::decode(&bytes.slice(..cut)).is_err(), "cut at {cut}");
        }
        let longer = [&bytes[..], &[0xc0]].concat();
        assert!(Frame::decode(&Bytes::from(longer)).is_err());
    }

    #[test]
    fn an_altered_m_never_verifies() {
        let key = SigningKey::from_bytes(&[7; 32]);
        let bytes = Signed::new(&envelope(), &key).frame(b"");
        for at in 0..bytes.len() {
            let mut altered = bytes.to_vec();
            altered[at] ^= 1;
            let accepted =
                Frame::decode(&Bytes::from(altered)).is_ok_and(|f| f.verify(&identity(&key, "alice")).is_ok());
            assert!(!accepted, "byte {at}");
        }
    }

    #[test]
    fn another_version_is_refused_by_name() {
        let mut other = envelope();
        other.version = 2;
        let bytes = Signed::new(&other, &SigningKey::from_bytes(&[7; 32])).frame(b"");
        assert_eq!(Frame::decode(&bytes).unwrap_err(), WireError::Version(2));
    }

    #[test]
    fn a_name_depends_on_its_senders_secret_and_on_all_that_is_written() {
        let (one, two) = (Digest([1; 32]), Digest([2; 32]));
        let to = |text: &str| -> To { text.parse().unwrap() };
        let name = message_name(&[7; 32], one, two, &to("bob"));
        assert_eq!(name, message_name(&[7; 32], one, two, &to("bob")), "a resumed party repeats it");
        for (what, other) in [
            ("secret", message_name(&[8; 32], one, two, &to("bob"))),
            ("content", message_name(&[7; 32], two, two, &to("bob"))),
            ("attachment", message_name(&[7; 32], one, one, &to("bob"))),
            ("receiver", message_name(&[7; 32], one, two, &to("charlie"))),
            ("receiver", message_name(&[7; 32], one, two, &To::All)),
        ] {
            assert_ne!(name, other, "another {what}, the same name");
        }
    }

    #[test]
    fn a_frozen_encoding_does_not_change() {
        let m = encode(&envelope());
        assert_eq!(
            hex::encode(m),
            format!("9801c420{}02a5616c696365a3616c6ca57368617265c420{}c40190", "01".repeat(32), "02".repeat(32))
        );
    }
}

//! What requests and certificates have in common: an Ed25519 key and one URI that names a party.

use ed25519_dalek::VerifyingKey;
use protocol::{Name, Role};
use x509_parser::extensions::GeneralName;
use x509_parser::oid_registry::OID_SIG_ED25519;
use x509_parser::x509::SubjectPublicKeyInfo;

use crate::study::{Subject, UriError};

/// What is wrong with a request or a certificate before anyone asks who signed it.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ShapeError {
    /// Truncated, garbage, or followed by something else.
    #[error("the {0} is malformed: it was cut short or altered; ask its sender for a whole copy")]
    Malformed(&'static str),
    /// RSA, ECDSA, or an Ed25519 key of small order.
    #[error("the {0} is not for a sound Ed25519 key: Ward uses no other; make a new key and request")]
    KeyType(&'static str),
    /// None, or more than one.
    #[error("the {what} has {count} URI names: a Ward {what} has exactly one, spiffe://<study>/<role>/<name>")]
    UriCount {
        /// Request or certificate.
        what: &'static str,
        /// How many there are.
        count: usize,
    },
    /// A certificate for a client that also names a host or a mailbox, which the broker would take for a user.
    #[error("the certificate of `{0}` has more names than its URI: ask the CA of the study for a new one")]
    OtherNames(Name),
    /// The extended key usage is not the one of its role.
    #[error("the certificate of `{name}` is not for the use of a {role}: {usage} is needed; ask the CA for a new one")]
    Usage {
        /// The holder.
        name: Name,
        /// Its role.
        role: Role,
        /// The extended key usage that the role needs.
        usage: &'static str,
    },
    /// Not a name of Ward.
    #[error(transparent)]
    Uri(#[from] UriError),
}

/// The key, where it is a sound Ed25519 key.
pub(crate) fn ed25519_key(info: &SubjectPublicKeyInfo<'_>) -> Option<VerifyingKey> {
    if info.algorithm.algorithm != OID_SIG_ED25519 || info.algorithm.parameters.is_some() {
        return None;
    }
    if info.subject_public_key.unused_bits != 0 {
        return None;
    }
    let bytes = info.subject_public_key.data.as_ref().try_into().ok()?;
    VerifyingKey::from_bytes(bytes).ok().filter(|key| !key.is_weak())
}

/// The party that the only URI among `names` names.
pub(crate) fn subject(what: &'static str, names: &[GeneralName<'_>]) -> Result<Subject, ShapeError> {
    let uris = uris(names);
    match uris[..] {
        [uri] => Ok(uri.parse()?),
        _ => Err(ShapeError::UriCount { what, count: uris.len() }),
    }
}

/// All URIs among `names`.
pub(crate) fn uris<'a>(names: &[GeneralName<'a>]) -> Vec<&'a str> {
    let uri = |name: &GeneralName<'a>| match name {
        GeneralName::URI(uri) => Some(*uri),
        _ => None,
    };
    names.iter().filter_map(uri).collect()
}

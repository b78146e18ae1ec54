//! The names of the board's consumers, which nobody can tell but their owner.
//!
//! nats-server does not check reply subjects: a party can have it deliver bytes of that party's choice to any subject
//! inside the account. Requests of the JetStream API do not get through that way, but whatever a consumer itself listens
//! to does, by its name: `RESET` moves it past what was not delivered, and `MSG.NEXT` hands its messages to nobody (both
//! run on 2.15.1). Either makes the owner deaf for some of what is addressed to it. The owner cannot tell for certain:
//! the two together set the counters that the broker reports, and that are in each delivery, to any value one would expect.
//!
//! So the consumer of `alice` is called `alice-<32 hex digits>`: a keyed hash under a secret of the board's, which only the
//! broker's configuration and the operator know. What is called `alice` is a **signpost**, a consumer that delivers nothing
//! and bears the name in its metadata. Only alice (and the operator) may ask about it, and what moves it moves nobody.
//! A server and the hospital have a second consumer, of chunks, that is called the same in its own stream; the signpost says so.
//! Nobody else ever sees a subject with the name in it: deliveries bear it as their reply subject, to alice's inbox alone.
//!
//! The secret stays the same over restarts, so that a party which was connected before pulls from the same name again.
//! The broker's own bookkeeping stays what a party goes by; that is sound where it can be touched by nobody else: the
//! consumer is made anew, from the first message, whenever the broker starts, so neither a restart nor a sequence number
//! given out twice skips anything that its party has not acknowledged.

use std::fmt;
use std::io;
use std::path::Path;

use rand::TryRng as _;
use zeroize::Zeroizing;

use crate::broker::{BrokerError, write_private};

/// The secret's file in the broker's directory: 32 bytes, private.
const FILE: &str = "consumers.secret";
/// Hex digits of a name's hash: 128 bits.
const DIGITS: usize = 32;

/// Knows the consumers' names: the broker's and the operator's knowledge. See the module for why they are secret.
#[derive(Clone)]
pub struct ConsumerNames {
    secret: Zeroizing<[u8; 32]>,
}

impl ConsumerNames {
    /// Of the board in `dir`; a new board gets a new secret.
    pub fn open(dir: &Path) -> Result<Self, BrokerError> {
        let path = dir.join(FILE);
        let wrong = |source| BrokerError::File { path: path.clone(), source };
        match std::fs::read(&path).map(Zeroizing::new) {
            Ok(bytes) => match <[u8; 32]>::try_from(bytes.as_slice()) {
                Ok(secret) => Ok(Self { secret: Zeroizing::new(secret) }),
                Err(_) => Err(wrong(io::Error::other("it has not 32 bytes; delete it, and a new one is made"))),
            },
            Err(error) if error.kind() == io::ErrorKind::NotFound => {
                let mut secret = Zeroizing::new([0; 32]);
                rand::rngs::SysRng
                    .try_fill_bytes(secret.as_mut_slice())
                    .map_err(|error| wrong(io::Error::other(error)))?;
                write_private(&path, secret.as_slice())?;
                Ok(Self { secret })
            }
            Err(error) => Err(wrong(error)),
        }
    }

    /// The name of the consumer that belongs to `owner`.
    pub fn of(&self, owner: &str) -> String {
        let hash = blake3::keyed_hash(&self.secret, owner.as_bytes()).to_hex();
        format!("{owner}-{:.DIGITS$}", hash.as_str())
    }
}

impl fmt::Debug for ConsumerNames {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("ConsumerNames(..)")
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use std::os::unix::fs::PermissionsExt as _;

    use super::*;

    #[test]
    fn names_stay_over_restarts_and_differ_between_owners_and_boards() {
        let (dir, other) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
        let names = ConsumerNames::open(dir.path()).unwrap();
        let alice = names.of("alice");
        assert!(alice.starts_with("alice-") && alice.len() == "alice-".len() + DIGITS, "{alice}");
        assert_eq!(ConsumerNames::open(dir.path()).unwrap().of("alice"), alice);
        assert_ne!(names.of("bob")[4..], alice[6..]);
        assert_ne!(ConsumerNames::open(other.path()).unwrap().of("alice"), alice);
        let mode = dir.path().join(FILE).metadata().unwrap().permissions().mode();
        assert_eq!(mode & 0o777, 0o600);
        std::fs::write(dir.path().join(FILE), "short").unwrap();
        assert!(ConsumerNames::open(dir.path()).unwrap_err().to_string().contains("delete it"));
    }
}

//! Who is who in a study: Ward's certificate authority, and what turns a certificate chain into an identity.
//!
//! Every party makes its private key where it will use it and sends a [`Request`]; the study's
//! [`CertificateAuthority`] answers with a [`Certificate`] that carries one URI name,
//! `spiffe://<study>/<role>/<name>`. Keys never travel. With [`Credentials`] a party opens its TLS link
//! ([`client_config`]) and signs its messages; with a [`StudyAuthority`] it tells from a chain that came
//! with a message who the sender is. The `protocol` crate sees nothing of X.509: it gets an `Identity`.
//!
//! ```
//! use certs::{CertificateAuthority, Credentials, PARTY_VALIDITY, CA_VALIDITY, PrivateKey, Request, Study};
//! use protocol::{Authority, Role};
//! use time::OffsetDateTime;
//!
//! # fn main() -> Result<(), Box<dyn std::error::Error>> {
//! # let home = tempfile::tempdir()?;
//! # let (ca_home, alice_home) = (home.path().join("ca"), home.path().join("alice"));
//! # std::fs::create_dir(&alice_home)?;
//! // Once, on the CA's machine.
//! let now = OffsetDateTime::now_utc();
//! let ca = CertificateAuthority::create(&Study::default(), now + CA_VALIDITY)?;
//! ca.save(&ca_home)?;
//!
//! // Alice makes her key at home and asks for a name.
//! let key = PrivateKey::generate()?;
//! key.save(alice_home.join("key.pem"))?;
//! let asked = Request::new(&key, &Study::default(), Role::Patient, &"alice".parse()?)?.to_pem().to_owned();
//!
//! // The CA reads the request and marks her: she may sit on the committee.
//! let ca = CertificateAuthority::load(&ca_home)?;
//! let certificate = ca.sign(&Request::from_pem(&asked)?, Role::Member, now + PARTY_VALIDITY)?;
//!
//! // Her folder is complete when both certificates are in it.
//! certificate.save(alice_home.join("cert.pem"))?;
//! ca.authority().save(alice_home.join("ca.pem"))?;
//! let alice = Credentials::load(&alice_home)?;
//!
//! // Whoever has `ca.pem` can now tell from her chain who she is.
//! let identity = ca.authority().identify(&alice.chain(), protocol::Dates::At(certs::now()))?;
//! assert_eq!(identity.name.as_str(), "alice");
//! assert_eq!(identity.role, Role::Member);
//! assert_eq!(identity.key, alice.signing_key().verifying_key());
//! # Ok(())
//! # }
//! ```
//!
//! | file | what it holds |
//! |---|---|
//! | `study` | a study's name and the URI names of its parties |
//! | `key`, `request`, `certificate` | what is made at home, what is sent, what comes back |
//! | `authority`, `register` | the CA, and the names that it has issued and revoked |
//! | `anchor`, `identify` | the CA's certificate, and verification of others against it |
//! | `credentials`, `tls` | one party's files, and rustls with them |
//! | `host` | by which names a broker is reached |
//! | `shape`, `files`, `clock` | X.509 that both sides check, files that are whole or absent, dates |

// Whatever speaks to a network is built on this crate.
#[cfg(ward_stub_crypto)]
compile_error!(
    "`ward_stub_crypto` is for the simulator in `protocol` alone (`just simulate-stub`): it protects nothing"
);

mod anchor;
mod authority;
mod certificate;
mod clock;
mod credentials;
mod files;
mod host;
mod identify;
mod key;
mod register;
mod request;
mod shape;
mod study;
mod tls;

pub use anchor::AnchorError;
pub use authority::{AuthorityError, CA_KEY_FILE, CertificateAuthority};
pub use certificate::{Certificate, CertificateError};
pub use clock::{BACKDATE, CA_VALIDITY, PARTY_VALIDITY, now};
pub use credentials::{CA_FILE, CERTIFICATE_FILE, Credentials, CredentialsError, KEY_FILE};
pub use files::DRAFT;
pub use host::{Host, HostError};
pub use identify::{IdentifyError, StudyAuthority};
pub use key::{KeyError, PrivateKey};
pub use register::{ISSUED, REVOKED, Register, RegisterError};
pub use request::{Request, RequestError};
pub use shape::ShapeError;
pub use study::{Study, StudyError, Subject, UriError, parse_uri, uri};
pub use tls::{TlsError, client_config, install_provider, provider};

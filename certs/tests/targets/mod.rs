//! What certificates, requests and keys from outside go through, as a function of bytes; tests run it over its corpus and
//! over mutations, libFuzzer for hours (`just fuzz certificate`). The first byte says as what the others are read.

// libFuzzer has corpora of its own.
#![allow(dead_code, unused_imports)]

mod made;

use std::sync::LazyLock;

use certs::{Certificate, PrivateKey, Request, StudyAuthority, parse_uri, uri};
use protocol::{Chain, Dates, Time};

pub use made::corpus;

/// As what bytes are read: this is the first of them.
pub const USES: [&str; 6] = ["certificate", "authority", "request", "chain", "key", "uri"];

/// 2030, in which the certificates of the corpus are valid.
const NOW: Time = Time(1_900_000_000_000);

static AUTHORITY: LazyLock<StudyAuthority> = LazyLock::new(|| StudyAuthority::from_pem(&made::authority()).unwrap());

/// Reads the bytes; whether they are accepted. What is accepted once is accepted again, and says the same.
pub fn run(bytes: &[u8]) -> bool {
    let Some((which, bytes)) = bytes.split_first() else { return false };
    let text = std::str::from_utf8(bytes);
    match (USES[usize::from(*which) % USES.len()], text) {
        ("certificate", Ok(text)) => certificate(text),
        ("authority", Ok(text)) => StudyAuthority::from_pem(text)
            .is_ok_and(|authority| authority.to_pem() == text && StudyAuthority::from_pem(text).is_ok()),
        ("request", Ok(text)) => request(text),
        ("chain", _) => chain(&[bytes]),
        ("key", _) => key(bytes),
        ("uri", Ok(text)) => parse_uri(text).is_ok_and(|named| uri(&named.study, named.role, &named.name) == text),
        _ => false,
    }
}

fn certificate(text: &str) -> bool {
    let Ok(certificate) = Certificate::from_pem(text) else { return false };
    let again = Certificate::from_pem(certificate.to_pem()).unwrap();
    assert_eq!((again.subject(), again.public_key()), (certificate.subject(), certificate.public_key()));
    chain(&[certificate.der()])
}

fn chain(certificates: &[&[u8]]) -> bool {
    let chain = Chain(certificates.iter().map(|der| der.to_vec().into()).collect());
    let (once, again) = [(); 2].map(|()| AUTHORITY.verify(&chain, Dates::At(NOW))).into();
    assert_eq!(once, again);
    once.is_ok_and(|identity| identity.certificate == protocol::digest_certificate(certificates[0]))
}

fn request(text: &str) -> bool {
    let Ok(request) = Request::from_pem(text) else { return false };
    Request::from_pem(request.to_pem()).unwrap().public_key() == request.public_key()
}

fn key(bytes: &[u8]) -> bool {
    let home = tempfile::tempdir().unwrap();
    let (given, saved) = (home.path().join("given"), home.path().join("saved"));
    std::fs::write(&given, bytes).unwrap();
    std::fs::set_permissions(&given, std::os::unix::fs::PermissionsExt::from_mode(0o600)).unwrap();
    let Ok(key) = PrivateKey::load(&given) else { return false };
    key.save(&saved).unwrap();
    PrivateKey::load(&saved).unwrap().public_key() == key.public_key()
}

//! One key signs messages, requests and TLS handshakes: none of them can pass for another.

use std::fmt;
use std::sync::{Arc, Mutex};

use protocol::Role;
use rustls::client::ResolvesClientCert;
use rustls::sign::{CertifiedKey, Signer, SigningKey};
use rustls::{Error, SignatureAlgorithm, SignatureScheme};
use rustls_pki_types::CertificateSigningRequestDer;
use rustls_pki_types::pem::PemObject;
use x509_parser::certification_request::X509CertificationRequest;
use x509_parser::prelude::FromDer;

use crate::support::{new_ca, party, request};
use crate::tls::{client, server, shake};

/// What every message signature of Ward is over begins with this.
const MESSAGE: &[u8] = b"ward/1 ";

#[test]
fn a_request_never_looks_like_a_message() {
    let made = request(&certs::PrivateKey::generate().unwrap(), Role::Patient, "alice");
    let der = CertificateSigningRequestDer::from_pem_slice(made.to_pem().as_bytes()).unwrap();
    let (_, csr) = X509CertificationRequest::from_der(&der).unwrap();
    let certificate = party(&new_ca(), Role::Patient, "alice").1;
    for signed in [&der[..], csr.certification_request_info.raw, certificate.der()] {
        assert_eq!(signed[0], 0x30, "DER begins with the tag of a sequence");
        assert!(!signed.starts_with(MESSAGE));
    }
}

#[test]
fn a_handshake_never_looks_like_a_message() {
    let ca = new_ca();
    let mut client = client(&ca);
    let seen = Arc::new(Mutex::new(Vec::new()));
    client.client_auth_cert_resolver =
        Arc::new(Recorder { inner: client.client_auth_cert_resolver.clone(), seen: seen.clone() });
    shake(client, server(&ca, Role::Broker, certs::provider()), "localhost").unwrap();
    let seen = seen.lock().unwrap();
    assert_eq!(seen.len(), 1, "a client signs once in a handshake");
    assert!(seen[0].starts_with(&[b' '; 64]), "RFC 8446, section 4.4.3");
    assert!(!seen[0].starts_with(MESSAGE));
}

/// Notes what the client's key is made to sign.
#[derive(Clone)]
struct Recorder<T: ?Sized> {
    seen: Arc<Mutex<Vec<Vec<u8>>>>,
    inner: Arc<T>,
}

impl<T: ?Sized> fmt::Debug for Recorder<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Recorder")
    }
}

impl ResolvesClientCert for Recorder<dyn ResolvesClientCert> {
    fn resolve(&self, hints: &[&[u8]], schemes: &[SignatureScheme]) -> Option<Arc<CertifiedKey>> {
        let found = self.inner.resolve(hints, schemes)?;
        let key = Recorder { inner: found.key.clone(), seen: self.seen.clone() };
        Some(Arc::new(CertifiedKey::new(found.cert.clone(), Arc::new(key))))
    }

    fn has_certs(&self) -> bool {
        true
    }
}

impl SigningKey for Recorder<dyn SigningKey> {
    fn choose_scheme(&self, offered: &[SignatureScheme]) -> Option<Box<dyn Signer>> {
        let inner: Arc<dyn Signer> = self.inner.choose_scheme(offered)?.into();
        Some(Box::new(Recorder { inner, seen: self.seen.clone() }))
    }

    fn algorithm(&self) -> SignatureAlgorithm {
        self.inner.algorithm()
    }
}

impl Signer for Recorder<dyn Signer> {
    fn sign(&self, message: &[u8]) -> Result<Vec<u8>, Error> {
        self.seen.lock().unwrap().push(message.to_vec());
        self.inner.sign(message)
    }

    fn scheme(&self) -> SignatureScheme {
        self.inner.scheme()
    }
}

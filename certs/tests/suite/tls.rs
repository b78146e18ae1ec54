//! TLS in memory, between Ward's client and a server that holds the broker's certificate.

use std::sync::Arc;

use certs::{CertificateAuthority, Credentials};
use protocol::Role;
use rustls::crypto::CryptoProvider;
use rustls::crypto::aws_lc_rs::kx_group;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName};
use rustls::server::WebPkiClientVerifier;
use rustls::{
    ClientConfig, ClientConnection, Error, NamedGroup, ProtocolVersion, RootCertStore, ServerConfig, ServerConnection,
};

use crate::support::{folder, new_ca};

pub(crate) fn client(ca: &CertificateAuthority) -> ClientConfig {
    let home = folder(ca, Role::Patient, "alice");
    certs::client_config(&Credentials::load(home.path()).unwrap()).unwrap()
}

/// A server with the certificate of a party in `role`, that wants a certificate of `ca` from its clients.
pub(crate) fn server(ca: &CertificateAuthority, role: Role, provider: CryptoProvider) -> ServerConfig {
    let home = folder(ca, role, "nats");
    let provider = Arc::new(provider);
    let mut roots = RootCertStore::empty();
    roots.add(CertificateDer::from_pem_slice(ca.to_pem().as_bytes()).unwrap()).unwrap();
    let verifier = WebPkiClientVerifier::builder_with_provider(roots.into(), provider.clone()).build().unwrap();
    ServerConfig::builder_with_provider(provider)
        .with_protocol_versions(&[&rustls::version::TLS13])
        .unwrap()
        .with_client_cert_verifier(verifier)
        .with_single_cert(
            vec![CertificateDer::from_pem_file(home.path().join("cert.pem")).unwrap()],
            PrivateKeyDer::from_pem_file(home.path().join("key.pem")).unwrap(),
        )
        .unwrap()
}

/// Carries bytes to and fro until both sides are content or one is not.
pub(crate) fn shake(
    client: ClientConfig,
    server: ServerConfig,
    host: &'static str,
) -> Result<(ClientConnection, ServerConnection), Error> {
    let host = ServerName::try_from(host).unwrap();
    let mut client = ClientConnection::new(Arc::new(client), host)?;
    let mut server = ServerConnection::new(Arc::new(server))?;
    while client.is_handshaking() || server.is_handshaking() || client.wants_write() || server.wants_write() {
        let mut wire = Vec::new();
        while client.wants_write() {
            client.write_tls(&mut wire).unwrap();
        }
        server.read_tls(&mut wire.as_slice()).unwrap();
        server.process_new_packets()?;
        let mut wire = Vec::new();
        while server.wants_write() {
            server.write_tls(&mut wire).unwrap();
        }
        let mut wire = wire.as_slice();
        while !wire.is_empty() {
            client.read_tls(&mut wire).unwrap();
            client.process_new_packets()?;
        }
    }
    Ok((client, server))
}

fn classical_only() -> CryptoProvider {
    CryptoProvider { kx_groups: vec![kx_group::X25519], ..certs::provider() }
}

fn with_provider(config: &ClientConfig, provider: CryptoProvider, ca: &CertificateAuthority) -> ClientConfig {
    let mut roots = RootCertStore::empty();
    roots.add(CertificateDer::from_pem_slice(ca.to_pem().as_bytes()).unwrap()).unwrap();
    ClientConfig::builder_with_provider(Arc::new(provider))
        .with_protocol_versions(&[&rustls::version::TLS13])
        .unwrap()
        .with_root_certificates(roots)
        .with_client_cert_resolver(config.client_auth_cert_resolver.clone())
}

#[test]
fn the_link_is_tls_1_3_with_the_hybrid_exchange() {
    for host in ["localhost", "127.0.0.1", "::1"] {
        let ca = new_ca();
        let server = server(&ca, Role::Broker, certs::provider());
        let (client, server) = shake(client(&ca), server, host).unwrap();
        assert_eq!(client.protocol_version(), Some(ProtocolVersion::TLSv1_3));
        for group in [client.negotiated_key_exchange_group(), server.negotiated_key_exchange_group()] {
            assert_eq!(group.unwrap().name(), NamedGroup::X25519MLKEM768);
        }
        assert_eq!(server.peer_certificates().unwrap().len(), 1);
    }
}

#[test]
fn a_client_that_offers_only_x25519_is_refused() {
    let ca = new_ca();
    let classical = with_provider(&client(&ca), classical_only(), &ca);
    let refused = shake(classical, server(&ca, Role::Broker, certs::provider()), "localhost").unwrap_err();
    assert!(matches!(refused, Error::PeerIncompatible(_)), "{refused}");
}

#[test]
fn a_broker_that_offers_only_x25519_is_refused() {
    let ca = new_ca();
    assert!(shake(client(&ca), server(&ca, Role::Broker, classical_only()), "localhost").is_err());
}

#[test]
fn a_party_cannot_pass_for_the_broker() {
    let ca = new_ca();
    let refused = shake(client(&ca), server(&ca, Role::Server, certs::provider()), "localhost").unwrap_err();
    assert!(matches!(refused, Error::InvalidCertificate(_)), "{refused}");
}

#[test]
fn the_broker_cannot_pass_for_a_party() {
    let ca = new_ca();
    let home = folder(&ca, Role::Broker, "broker");
    let client = certs::client_config(&Credentials::load(home.path()).unwrap()).unwrap();
    let refused = shake(client, server(&ca, Role::Broker, certs::provider()), "localhost").unwrap_err();
    assert!(matches!(refused, Error::InvalidCertificate(_)), "{refused}");
}

#[test]
fn neither_side_takes_another_ca() {
    let (ca, other) = (new_ca(), new_ca());
    let refused = shake(client(&ca), server(&other, Role::Broker, certs::provider()), "localhost").unwrap_err();
    assert!(matches!(refused, Error::InvalidCertificate(_)), "{refused}");
    let trusting = with_provider(&client(&other), certs::provider(), &ca);
    let refused = shake(trusting, server(&ca, Role::Broker, certs::provider()), "localhost").unwrap_err();
    assert!(matches!(refused, Error::InvalidCertificate(_)), "{refused}");
}

#[test]
fn another_host_is_refused() {
    let ca = new_ca();
    let server = server(&ca, Role::Broker, certs::provider());
    assert!(matches!(shake(client(&ca), server, "example.org"), Err(Error::InvalidCertificate(_))));
}

#[test]
fn the_provider_can_be_installed_again_and_again() {
    certs::install_provider().unwrap();
    certs::install_provider().unwrap();
    let installed = CryptoProvider::get_default().unwrap();
    assert_eq!(installed.kx_groups.len(), 1);
    assert!(installed.cipher_suites.iter().all(|suite| suite.tls13().is_some()));
}

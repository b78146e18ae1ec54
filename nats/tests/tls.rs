//! Who gets through the broker's door, and what those hear who do not.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

mod support;

use std::io::{Read, Write};
use std::net::{TcpListener, TcpStream};
use std::sync::Arc;

use certs::{Credentials, client_config};
use nats::{Endpoint, Link, LinkError};
use protocol::Role;
use rustls::crypto::{CryptoProvider, aws_lc_rs::kx_group};
use rustls::{
    ClientConfig, ClientConnection, NamedGroup, ProtocolVersion, RootCertStore, ServerConfig, ServerConnection,
};
use rustls_pki_types::pem::PemObject;
use rustls_pki_types::{CertificateDer, PrivateKeyDer};
use support::{Home, PATIENCE};
use time::OffsetDateTime;

async fn refusal(endpoint: &Endpoint, credentials: &Credentials) -> LinkError {
    tokio::time::timeout(PATIENCE, Link::connect(endpoint, credentials)).await.unwrap().unwrap_err()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_broker_of_another_study_is_told_apart() {
    let (home, other) = (Home::new(), Home::new());
    let broker = other.start(None).await;
    let error = refusal(broker.endpoint(), &home.credentials("alice")).await;
    assert!(matches!(error, LinkError::AnotherStudy { .. }), "{error:?}");
    assert!(error.to_string().contains("ward broker"), "{error}");
}

#[tokio::test(flavor = "multi_thread")]
async fn wrong_certificates_are_refused_in_words() {
    let home = Home::new();
    let broker = home.start(None).await;
    let here = broker.endpoint();

    home.issue(Role::Patient, "mallory");
    let error = refusal(here, &home.credentials("mallory")).await;
    assert!(matches!(&error, LinkError::NotListed { name, .. } if name.as_str() == "mallory"), "{error:?}");

    // A certificate for servers only.
    let error = refusal(here, &home.credentials("broker")).await;
    assert!(matches!(error, LinkError::CertificateRefused { .. }), "{error:?}");

    for (start, end) in [(-30, -1), (30, 60)] {
        let error = refusal(here, &valid(&home, start, end)).await;
        assert!(matches!(&error, LinkError::Expired { name } if name.as_str() == "alice"), "{error:?}");
        assert!(error.to_string().contains("has expired or is not valid yet: compare the clocks"), "{error}");
    }
}

/// Alice's credentials with a certificate that is valid from `start` to `end`, in minutes from now, as her agent loaded them
/// meanwhile.
fn valid(home: &Home, start: i32, end: i32) -> Credentials {
    let ca_key = rcgen::KeyPair::from_pem(&std::fs::read_to_string(home.of("ca").join("ca.key")).unwrap()).unwrap();
    let issuer = rcgen::Issuer::from_ca_cert_pem(home.ca.to_pem(), ca_key).unwrap();
    let key = rcgen::KeyPair::from_pem(&std::fs::read_to_string(home.of("alice").join("key.pem")).unwrap()).unwrap();
    let mut params = rcgen::CertificateParams::default();
    params.distinguished_name = rcgen::DistinguishedName::new();
    let uri = certs::uri(home.ca.study(), Role::Patient, &support::name("alice"));
    params.subject_alt_names = vec![rcgen::SanType::URI(uri.try_into().unwrap())];
    params.extended_key_usages = vec![rcgen::ExtendedKeyUsagePurpose::ClientAuth];
    params.key_usages = vec![rcgen::KeyUsagePurpose::DigitalSignature];
    params.use_authority_key_identifier_extension = true;
    let minute = time::Duration::MINUTE;
    let now: OffsetDateTime = OffsetDateTime::now_utc();
    (params.not_before, params.not_after) = (now + minute * start, now + minute * end);
    let dir = home.of(&format!("valid{start}"));
    std::fs::create_dir(&dir).unwrap();
    std::fs::copy(home.of("alice").join("ca.pem"), dir.join("ca.pem")).unwrap();
    std::fs::copy(home.of("alice").join("key.pem"), dir.join("key.pem")).unwrap();
    std::fs::write(dir.join("cert.pem"), params.signed_by(&key, &issuer).unwrap().pem()).unwrap();
    let while_valid: OffsetDateTime = now + minute * ((start + end) / 2);
    let moment = protocol::Time(u64::try_from(while_valid.unix_timestamp()).unwrap() * 1000);
    Credentials::load_at(&dir, moment).unwrap()
}

#[tokio::test(flavor = "multi_thread")]
async fn the_key_exchange_is_hybrid_and_nothing_else_is_taken() {
    let home = Home::new();
    let broker = home.start(None).await;
    let alice = home.credentials("alice");

    let (connection, outcome) = handshake(broker.endpoint(), client_config(&alice).unwrap());
    outcome.unwrap();
    assert_eq!(connection.negotiated_key_exchange_group().unwrap().name(), NamedGroup::X25519MLKEM768);
    assert_eq!(connection.protocol_version(), Some(ProtocolVersion::TLSv1_3));

    let classical = CryptoProvider { kx_groups: vec![kx_group::X25519], ..certs::provider() };
    let (_, outcome) = handshake(broker.endpoint(), bare_config(&home, classical));
    assert!(outcome.unwrap_err().to_string().contains("HandshakeFailure"));
}

fn bare_config(home: &Home, provider: CryptoProvider) -> ClientConfig {
    let mut roots = RootCertStore::empty();
    roots.add(home.ca.authority().der().clone()).unwrap();
    ClientConfig::builder_with_provider(Arc::new(provider))
        .with_protocol_versions(&[&rustls::version::TLS13])
        .unwrap()
        .with_root_certificates(roots)
        .with_no_client_auth()
}

fn handshake(endpoint: &Endpoint, config: ClientConfig) -> (ClientConnection, std::io::Result<()>) {
    let mut socket = TcpStream::connect((endpoint.host.as_str(), endpoint.port)).unwrap();
    let server = endpoint.host.clone().try_into().unwrap();
    let mut connection = ClientConnection::new(Arc::new(config), server).unwrap();
    let outcome = connection.complete_io(&mut socket).map(drop);
    (connection, outcome)
}

#[tokio::test(flavor = "multi_thread")]
async fn tls_1_2_is_refused() {
    let home = Home::new();
    let broker = home.start(None).await;
    let mut socket = TcpStream::connect((broker.endpoint().host.as_str(), broker.endpoint().port)).unwrap();
    socket.write_all(&client_hello_1_2()).unwrap();
    let mut answer = [0; 7];
    socket.read_exact(&mut answer).unwrap();
    let (alert, fatal, protocol_version) = (21, 2, 70);
    assert_eq!([answer[0], answer[5], answer[6]], [alert, fatal, protocol_version]);
}

/// The greeting of a client that knows TLS 1.2 at most (RFC 5246, section 7.4.1.2): this workspace has no such client.
fn client_hello_1_2() -> Vec<u8> {
    let suites = [0xc0, 0x2b, 0xc0, 0x2f];
    let extensions: [&[u8]; 3] = [
        // supported_groups: x25519, secp256r1
        &[0, 10, 0, 6, 0, 4, 0, 0x1d, 0, 0x17],
        // ec_point_formats: uncompressed
        &[0, 11, 0, 2, 1, 0],
        // signature_algorithms: ed25519, ecdsa_secp256r1_sha256, rsa_pss_rsae_sha256
        &[0, 13, 0, 8, 0, 6, 8, 7, 4, 3, 8, 4],
    ];
    let extensions = extensions.concat();
    let mut body = vec![3, 3];
    body.extend([7; 32]);
    body.extend([0, 0, 4]);
    body.extend(suites);
    body.extend([1, 0, 0, u8::try_from(extensions.len()).unwrap()]);
    body.extend(extensions);
    let length = u8::try_from(body.len()).unwrap();
    [vec![22, 3, 1, 0, length + 4, 1, 0, 0, length], body].concat()
}

#[tokio::test(flavor = "multi_thread")]
async fn no_broker_and_no_tls_are_told_apart() {
    let home = Home::new();
    let alice = home.credentials("alice");
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let endpoint = Endpoint { host: "127.0.0.1".into(), port: listener.local_addr().unwrap().port() };

    // An nats-server without TLS first greets in the clear.
    let server = std::thread::spawn(move || {
        let (mut socket, _) = listener.accept().unwrap();
        socket.write_all(b"INFO {\"version\":\"2.9.10\"} \r\n").unwrap();
        // Until the client hangs up.
        socket.read_to_end(&mut Vec::new()).ok();
    });
    let error = refusal(&endpoint, &alice).await;
    assert!(matches!(error, LinkError::NoTls { .. }), "{error:?}");
    assert!(!error.may_pass());
    server.join().unwrap();

    let error = refusal(&endpoint, &alice).await;
    assert!(matches!(error, LinkError::NoBroker { .. }), "{error:?}");
    assert!(error.may_pass());
    assert!(error.to_string().contains("ward broker"), "{error}");
}

#[tokio::test(flavor = "multi_thread")]
async fn an_old_broker_is_refused() {
    let home = Home::new();
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let endpoint = Endpoint { host: "127.0.0.1".into(), port: listener.local_addr().unwrap().port() };
    let config = server_config(&home);
    std::thread::spawn(move || greet_as_2_9(&listener, config));
    let error = refusal(&endpoint, &home.credentials("alice")).await;
    assert!(matches!(&error, LinkError::TooOld { version, .. } if version == "2.9.10"), "{error:?}");
    assert!(error.to_string().contains("2.14"), "{error}");
}

fn server_config(home: &Home) -> Arc<ServerConfig> {
    let dir = home.of("broker");
    let chain = vec![CertificateDer::from_pem_file(dir.join("cert.pem")).unwrap()];
    let key = PrivateKeyDer::from_pem_file(dir.join("key.pem")).unwrap();
    let config = ServerConfig::builder_with_provider(Arc::new(certs::provider()))
        .with_protocol_versions(&[&rustls::version::TLS13])
        .unwrap()
        .with_no_client_auth()
        .with_single_cert(chain, key)
        .unwrap();
    Arc::new(config)
}

/// As much of an nats-server as a client sees while it connects.
fn greet_as_2_9(listener: &TcpListener, config: Arc<ServerConfig>) {
    let (mut socket, _) = listener.accept().unwrap();
    let mut connection = ServerConnection::new(config).unwrap();
    let mut stream = rustls::Stream::new(&mut connection, &mut socket);
    let info = r#"{"server_id":"x","server_name":"x","version":"2.9.10","go":"go1.19","host":"127.0.0.1","port":4222,"headers":true,"max_payload":1048576,"proto":1,"client_id":1,"auth_required":true,"tls_required":true,"jetstream":true}"#;
    write!(stream, "INFO {info} \r\n").unwrap();
    stream.flush().unwrap();
    let mut heard = Vec::new();
    while !String::from_utf8_lossy(&heard).contains("PING\r\n") {
        let mut piece = [0; 1024];
        let read = stream.read(&mut piece).unwrap();
        heard.extend(&piece[..read]);
    }
    stream.write_all(b"PONG\r\n").unwrap();
    stream.flush().unwrap();
    // Until the client hangs up.
    stream.read_to_end(&mut Vec::new()).ok();
}

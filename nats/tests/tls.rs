//! Who gets through the broker's door, and what those hear who do not.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

mod support;

use std::io::{ErrorKind, Read, Write};
use std::net::{TcpListener, TcpStream};
use std::sync::Arc;

use certs::{Credentials, client_config};
use nats::{Endpoint, Link, LinkError};
use protocol::Role;
use rcgen::{CertificateParams, CustomExtension, ExtendedKeyUsagePurpose, Issuer, KeyPair, SanType};
use rustls::crypto::{CryptoProvider, aws_lc_rs::kx_group};
use rustls::sign::{CertifiedKey, SingleCertAndKey};
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
    let certificate = params(home, (start, end)).signed_by(&key(home, "alice"), &issuer(home)).unwrap();
    let dir = home.of(&format!("valid{start}"));
    std::fs::create_dir(&dir).unwrap();
    std::fs::copy(home.of("alice").join("ca.pem"), dir.join("ca.pem")).unwrap();
    std::fs::copy(home.of("alice").join("key.pem"), dir.join("key.pem")).unwrap();
    std::fs::write(dir.join("cert.pem"), certificate.pem()).unwrap();
    let while_valid: OffsetDateTime = OffsetDateTime::now_utc() + time::Duration::MINUTE * ((start + end) / 2);
    let moment = protocol::Time(u64::try_from(while_valid.unix_timestamp()).unwrap() * 1000);
    Credentials::load_at(&dir, moment).unwrap()
}

/// What stands in a certificate of alice's that is valid from `start` to `end`, in minutes from now.
fn params(home: &Home, (start, end): (i32, i32)) -> CertificateParams {
    let mut params = CertificateParams::default();
    params.distinguished_name = rcgen::DistinguishedName::new();
    params.subject_alt_names = vec![uri(&certs::uri(home.ca.study(), Role::Patient, &support::name("alice")))];
    params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ClientAuth];
    params.key_usages = vec![rcgen::KeyUsagePurpose::DigitalSignature];
    params.use_authority_key_identifier_extension = true;
    let (now, minute): (OffsetDateTime, _) = (OffsetDateTime::now_utc(), time::Duration::MINUTE);
    (params.not_before, params.not_after) = (now + minute * start, now + minute * end);
    params
}

fn uri(text: &str) -> SanType {
    SanType::URI(text.try_into().unwrap())
}

fn dns(text: &str) -> SanType {
    SanType::DnsName(text.try_into().unwrap())
}

fn key(home: &Home, name: &str) -> KeyPair {
    KeyPair::from_pem(&std::fs::read_to_string(home.of(name).join("key.pem")).unwrap()).unwrap()
}

/// The study's authority, without any of its checks.
fn issuer(home: &Home) -> Issuer<'static, KeyPair> {
    let key = KeyPair::from_pem(&std::fs::read_to_string(home.of("ca").join("ca.key")).unwrap()).unwrap();
    Issuer::from_ca_cert_pem(home.ca.to_pem(), key).unwrap()
}

/// DER with something wrong.
fn broken(whole: &[u8]) -> Vec<(&'static str, Vec<u8>)> {
    let flipped = |at: usize| {
        let mut bytes = whole.to_vec();
        bytes[at] ^= 1;
        bytes
    };
    vec![
        ("of nothing", vec![]),
        ("cut in half", whole[..whole.len() / 2].to_vec()),
        ("cut before its last byte", whole[..whole.len() - 1].to_vec()),
        ("with a byte too many", [whole, &[0]].concat()),
        ("with a bit flipped at its end", flipped(whole.len() - 1)),
        ("with a bit flipped in its middle", flipped(whole.len() / 2)),
        ("of 4 GiB", [&[0x30, 0x84, 0xff, 0xff, 0xff, 0xff], &whole[4..]].concat()),
        ("nested 400 deep", [0x30, 0x80].repeat(400)),
        ("of zeros", vec![0; 300]),
    ]
}

/// A certificate chain and a key, whether they belong together or not.
fn shown(chain: Vec<Vec<u8>>, key: &KeyPair) -> Arc<SingleCertAndKey> {
    let key = PrivateKeyDer::Pkcs8(key.serialize_der().into());
    let key = certs::provider().key_provider.load_private_key(key).unwrap();
    Arc::new(SingleCertAndKey::from(CertifiedKey::new(chain.into_iter().map(CertificateDer::from).collect(), key)))
}

/// Certificates that are not alice's to come with, by what is wrong with them. What only the authority itself could add to a
/// certificate of alice's, say a second name or use, nats-server does not look at: the authority never signs it, and parties
/// refuse it (`certs/tests/suite`).
fn bad_clients(home: &Home, other: &Home) -> Vec<(String, Vec<Vec<u8>>)> {
    let (issuer, alice) = (issuer(home), key(home, "alice"));
    let now = (-30, 30);
    let signed = |change: &dyn Fn(&mut CertificateParams)| {
        let mut params = params(home, now);
        change(&mut params);
        params.signed_by(&alice, &issuer).unwrap().der().to_vec()
    };
    let whole = signed(&|_| ());
    let named = |names: Vec<SanType>| signed(&move |params| params.subject_alt_names = names.clone());
    let usage =
        |usage: ExtendedKeyUsagePurpose| signed(&move |params| params.extended_key_usages = vec![usage.clone()]);
    let dated = |dates| params(home, dates).signed_by(&alice, &issuer).unwrap().der().to_vec();
    let by_alice = Issuer::from_ca_cert_der(&CertificateDer::from(whole.clone()), key(home, "alice")).unwrap();
    let below = params(home, now).signed_by(&alice, &by_alice).unwrap().der().to_vec();
    let critical = |params: &mut CertificateParams| {
        let mut unknown = CustomExtension::from_oid_content(&[1, 3, 6, 1, 4, 1, 99999], vec![5, 0]);
        unknown.set_criticality(true);
        params.custom_extensions.push(unknown);
    };
    let mut bad: Vec<(String, Vec<Vec<u8>>)> = vec![
        (
            "of another authority".into(),
            vec![params(other, now).signed_by(&alice, &self::issuer(other)).unwrap().der().to_vec()],
        ),
        ("signed by itself".into(), vec![params(home, now).self_signed(&alice).unwrap().der().to_vec()]),
        ("signed by a party".into(), vec![below.clone(), whole.clone()]),
        ("signed by a party, alone".into(), vec![below]),
        ("that expired".into(), vec![dated((-30, -1))]),
        ("whose time has not come".into(), vec![dated((30, 60))]),
        ("that ends before it begins".into(), vec![dated((10, -10))]),
        ("for a server".into(), vec![usage(ExtendedKeyUsagePurpose::ServerAuth)]),
        ("for code".into(), vec![usage(ExtendedKeyUsagePurpose::CodeSigning)]),
        ("with an unknown critical extension".into(), vec![signed(&critical)]),
        ("without a name".into(), vec![named(vec![])]),
        ("of a host".into(), vec![named(vec![dns("alice")])]),
        ("that is the broker's".into(), vec![pem(home, "broker")]),
        ("that is bob's".into(), vec![pem(home, "bob")]),
        ("that is none".into(), vec![]),
    ];
    for name in [
        "spiffe://other/patient/alice",
        "spiffe://ward/doctor/alice",
        "spiffe://ward/hospital/alice",
        "spiffe://ward/patient/mallory",
        "spiffe://ward/patient/Alice",
        "spiffe://ward/patient/all",
        "spiffe://ward/patient/*",
        "spiffe://ward/patient/",
        "spiffe://ward/patient/../hospital/hospital",
        "spiffe://ward/patient/alice/hospital",
        "https://ward/patient/alice",
        "ward/patient/alice",
    ] {
        bad.push((format!("of the name {name}"), vec![named(vec![uri(name)])]));
    }
    bad.extend(broken(&whole).into_iter().map(|(what, der)| (what.into(), vec![der])));
    bad
}

fn pem(home: &Home, name: &str) -> Vec<u8> {
    CertificateDer::from_pem_file(home.of(name).join("cert.pem")).unwrap().to_vec()
}

#[tokio::test(flavor = "multi_thread")]
async fn the_running_broker_lets_nobody_in_by_a_certificate_that_is_not_a_partys_own() {
    let (home, other) = (Home::new(), Home::new());
    let broker = home.start(None).await;
    let let_in = |chain: Vec<Vec<u8>>| {
        let mut config = bare_config(&home, certs::provider());
        config.client_auth_cert_resolver = shown(chain, &key(&home, "alice"));
        is_let_in(broker.endpoint(), config)
    };
    let own = || vec![params(&home, (-30, 30)).signed_by(&key(&home, "alice"), &issuer(&home)).unwrap().der().to_vec()];
    assert!(
        let_in(vec![pem(&home, "alice")]) && let_in(own()),
        "with her own, also by the hand that makes the bad ones"
    );
    let bad = bad_clients(&home, &other);
    let taken: Vec<_> = bad.into_iter().filter(|(_, chain)| let_in(chain.clone())).map(|(what, _)| what).collect();
    assert!(taken.is_empty(), "let in with a certificate {taken:?}");
    assert!(let_in(own()), "and nobody is shut out by those");
}

/// Whether the broker answers this client's first word.
fn is_let_in(endpoint: &Endpoint, config: ClientConfig) -> bool {
    let mut socket = TcpStream::connect((endpoint.host.as_str(), endpoint.port)).unwrap();
    socket.set_read_timeout(Some(PATIENCE)).unwrap();
    let server = endpoint.host.clone().try_into().unwrap();
    let mut connection = ClientConnection::new(Arc::new(config), server).unwrap();
    let mut stream = rustls::Stream::new(&mut connection, &mut socket);
    if stream.write_all(b"CONNECT {\"verbose\":false,\"tls_required\":true}\r\nPING\r\n").is_err() {
        return false;
    }
    let mut heard = String::new();
    loop {
        let mut piece = [0; 1024];
        match stream.read(&mut piece) {
            Ok(read) if read > 0 => heard += &String::from_utf8_lossy(&piece[..read]),
            Err(error) if error.kind() == ErrorKind::WouldBlock => panic!("the broker neither answers nor hangs up"),
            _ => return false,
        }
        if heard.contains("PONG\r\n") || heard.contains("-ERR") {
            return heard.contains("PONG\r\n");
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_party_talks_to_no_broker_by_a_certificate_that_is_not_its_studys() {
    let (home, other) = (Home::new(), Home::new());
    let (of_broker, alice) = (key(&home, "broker"), home.credentials("alice"));
    let params = |dates, hosts: &[&str], usage: ExtendedKeyUsagePurpose| {
        let mut params = params(&home, dates);
        params.subject_alt_names = vec![uri(&certs::uri(home.ca.study(), Role::Broker, &support::name("broker")))];
        params.subject_alt_names.extend(hosts.iter().map(|host| dns(host)));
        params.extended_key_usages = vec![usage];
        params
    };
    let (client, server) = (ExtendedKeyUsagePurpose::ClientAuth, ExtendedKeyUsagePurpose::ServerAuth);
    let (now, here) = ((-30, 30), ["localhost"]);
    let by = |issuer: &Issuer<'static, KeyPair>, params: CertificateParams| {
        params.signed_by(&of_broker, issuer).unwrap().der().to_vec()
    };
    let own = issuer(&home);
    let whole = by(&own, params(now, &here, server.clone()));
    let mut bad = vec![
        ("of another authority", by(&issuer(&other), params(now, &here, server.clone()))),
        ("signed by itself", params(now, &here, server.clone()).self_signed(&of_broker).unwrap().der().to_vec()),
        ("that expired", by(&own, params((-30, -1), &here, server.clone()))),
        ("whose time has not come", by(&own, params((30, 60), &here, server.clone()))),
        ("of another host", by(&own, params(now, &["example.org"], server.clone()))),
        ("of no host", by(&own, params(now, &[], server.clone()))),
        ("for a client", by(&own, params(now, &here, client))),
        ("for code", by(&own, params(now, &here, ExtendedKeyUsagePurpose::CodeSigning))),
        ("that is a party's", pem(&home, "bob")),
        ("that is of another home's broker", pem(&other, "broker")),
    ];
    bad.extend(broken(&whole));
    let met = async |der: Vec<u8>| {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let endpoint = Endpoint { host: "localhost".into(), port: listener.local_addr().unwrap().port() };
        let config = server_config(shown(vec![der], &of_broker));
        std::thread::spawn(move || greet(&listener, config, "2.9.10", true));
        refusal(&endpoint, &alice).await
    };
    // By what it says next she has taken the certificate.
    let error = met(whole).await;
    assert!(matches!(error, LinkError::TooOld { .. }), "{error:?}");
    for (what, der) in bad {
        let error = met(der).await;
        assert!(!matches!(error, LinkError::TooOld { .. }), "talked to a broker with a certificate {what}");
        assert!(!matches!(error, LinkError::NoBroker { .. }), "{what}: {error:?}");
    }
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
    let config = server_config(shown(vec![pem(&home, "broker")], &key(&home, "broker")));
    std::thread::spawn(move || greet(&listener, config, "2.9.10", true));
    let error = refusal(&endpoint, &home.credentials("alice")).await;
    assert!(matches!(&error, LinkError::TooOld { version, .. } if version == "2.9.10"), "{error:?}");
    assert!(error.to_string().contains("2.14"), "{error}");
}

/// A broker that dies, say as its disk is full, may be back: who knocks meanwhile is not told to correct the address.
#[tokio::test(flavor = "multi_thread")]
async fn a_broker_that_goes_away_while_it_greets_may_come_back() {
    let home = Home::new();
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let endpoint = Endpoint { host: "127.0.0.1".into(), port: listener.local_addr().unwrap().port() };
    let config = server_config(shown(vec![pem(&home, "broker")], &key(&home, "broker")));
    let server = std::thread::spawn(move || greet(&listener, config, "2.14.0", false));
    let error = refusal(&endpoint, &home.credentials("alice")).await;
    assert!(matches!(&error, LinkError::NoBroker { reason, .. } if reason == "broken pipe"), "{error:?}");
    assert!(error.may_pass());
    server.join().unwrap().unwrap();
}

fn server_config(shown: Arc<SingleCertAndKey>) -> Arc<ServerConfig> {
    let config = ServerConfig::builder_with_provider(Arc::new(certs::provider()))
        .with_protocol_versions(&[&rustls::version::TLS13])
        .unwrap()
        .with_no_client_auth()
        .with_cert_resolver(shown);
    Arc::new(config)
}

/// As much of an nats-server as a client sees while it connects, to the end or all but that; an error if the client goes away.
fn greet(listener: &TcpListener, config: Arc<ServerConfig>, version: &str, to_the_end: bool) -> std::io::Result<()> {
    let (mut socket, _) = listener.accept()?;
    let mut connection = ServerConnection::new(config).unwrap();
    let mut stream = rustls::Stream::new(&mut connection, &mut socket);
    let info = r#""server_id":"x","server_name":"x","go":"go1.19","host":"127.0.0.1","port":4222,"headers":true,"max_payload":1048576,"proto":1,"client_id":1,"auth_required":true,"tls_required":true,"jetstream":true"#;
    write!(stream, "INFO {{\"version\":\"{version}\",{info}}} \r\n")?;
    stream.flush()?;
    let mut heard = Vec::new();
    while !String::from_utf8_lossy(&heard).contains("PING\r\n") {
        let mut piece = [0; 1024];
        match stream.read(&mut piece)? {
            0 => return Ok(()),
            read => heard.extend(&piece[..read]),
        }
    }
    if !to_the_end {
        stream.conn.send_close_notify();
        return stream.flush();
    }
    stream.write_all(b"PONG\r\n")?;
    stream.flush()?;
    // Until the client hangs up.
    stream.read_to_end(&mut Vec::new()).map(drop)
}

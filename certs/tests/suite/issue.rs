//! Requests, the CA's decisions, and its register of names.

use std::fs;
use std::sync::Barrier;
use std::thread;

use certs::{
    AuthorityError, CA_FILE, CA_KEY_FILE, CertificateAuthority, KeyError, PrivateKey, Register, RegisterError, Request,
    RequestError, ShapeError, Study,
};
use protocol::Role;
use rcgen::{CertificateParams, KeyPair, SanType};
use rustls_pki_types::CertificateSigningRequestDer;
use rustls_pki_types::pem::PemObject;
use time::{Duration, OffsetDateTime};
use x509_parser::certificate::X509Certificate;
use x509_parser::prelude::FromDer;

use crate::support::{chmod, dns, ed25519, mode, name, new_ca, party, request, saved_ca, soon, uri};

const ALICE: &str = "spiffe://ward/patient/alice";

fn foreign_request(names: Vec<SanType>, key: &KeyPair) -> String {
    let mut params = CertificateParams::default();
    params.subject_alt_names = names;
    params.serialize_request(key).unwrap().pem().unwrap()
}

fn taken(result: Result<certs::Certificate, AuthorityError>) -> RegisterError {
    match result {
        Err(AuthorityError::Register(error @ RegisterError::Taken { .. })) => error,
        other => panic!("{other:?}"),
    }
}

#[test]
fn a_request_travels_as_pem() {
    let key = PrivateKey::generate().unwrap();
    let made = Request::new(&key, &"heart.example".parse().unwrap(), Role::Member, &name("alice")).unwrap();
    let read = Request::from_pem(made.to_pem()).unwrap();
    assert_eq!((read.name().as_str(), read.role(), read.study().as_str()), ("alice", Role::Member, "heart.example"));
    assert_eq!(*read.public_key(), key.public_key());
}

#[test]
fn a_request_of_another_shape_is_refused() {
    let shape = |text: &str| match Request::from_pem(text) {
        Err(RequestError::Shape(error)) => error,
        other => panic!("{other:?}"),
    };
    let ecdsa = foreign_request(vec![uri(ALICE)], &KeyPair::generate().unwrap());
    assert!(matches!(shape(&ecdsa), ShapeError::KeyType(_)));
    let two = foreign_request(vec![uri(ALICE), uri("spiffe://ward/hospital/alice")], &ed25519());
    assert!(matches!(shape(&two), ShapeError::UriCount { count: 2, .. }));
    let none = foreign_request(vec![dns("alice")], &ed25519());
    assert!(matches!(shape(&none), ShapeError::UriCount { count: 0, .. }));
    let role = foreign_request(vec![uri("spiffe://ward/nurse/alice")], &ed25519());
    assert!(matches!(shape(&role), ShapeError::Uri(_)));
    for text in ["", "garbage", &ecdsa[..ecdsa.len() / 2], new_ca().to_pem()] {
        assert!(matches!(shape(text), ShapeError::Malformed(_)), "{text}");
    }
}

#[test]
fn a_request_that_was_cut_is_refused_and_an_altered_one_says_nothing_new() {
    let made = request(&PrivateKey::generate().unwrap(), Role::Patient, "alice");
    let der = CertificateSigningRequestDer::from_pem_slice(made.to_pem().as_bytes()).unwrap().to_vec();
    let read = |der: &[u8]| Request::from_pem(&pem("CERTIFICATE REQUEST", der));
    let says = |read: &Request| (read.name().clone(), read.role(), read.study().clone(), *read.public_key());
    // The parser overlooks a wrong tag around the name of the algorithm, which is not signed.
    let mut overlooked = 0;
    for at in 0..der.len() {
        assert!(read(&der[..at]).is_err(), "cut at {at}");
        let mut altered = der.clone();
        altered[at] ^= 1;
        if let Ok(read) = read(&altered) {
            assert_eq!(says(&read), says(&made), "altered at {at}");
            overlooked += 1;
        }
    }
    assert!(overlooked <= 1);
    assert!(read(&[der.clone(), vec![0]].concat()).is_err());
    assert_eq!(says(&read(&der).unwrap()), says(&made));
}

fn pem(label: &str, der: &[u8]) -> String {
    use ed25519_dalek::pkcs8::spki::der::pem::{LineEnding, encode_string};
    encode_string(label, LineEnding::LF, der).unwrap()
}

#[test]
fn nothing_but_the_uri_and_the_key_of_a_request_is_taken_over() {
    let mut wanted = CertificateParams::default();
    wanted.subject_alt_names = vec![uri(ALICE), dns("hospital")];
    wanted.is_ca = rcgen::IsCa::Ca(rcgen::BasicConstraints::Unconstrained);
    let text = wanted.serialize_request(&ed25519()).unwrap().pem().unwrap();
    let ca = new_ca();
    let certificate = ca.sign(&Request::from_pem(&text).unwrap(), Role::Patient, soon()).unwrap();
    certificate.identity(&ca.authority(), certs::now()).unwrap();
    let (_, x509) = X509Certificate::from_der(certificate.der()).unwrap();
    assert!(!x509.is_ca());
    assert_eq!(x509.subject().to_string(), "CN=alice");
}

#[test]
fn certificates_say_what_they_are_for() {
    let ca = new_ca();
    let (_, root) = x509_parser::pem::parse_x509_pem(ca.to_pem().as_bytes()).unwrap();
    let root = root.parse_x509().unwrap();
    let constraints = root.basic_constraints().unwrap().unwrap().value;
    assert_eq!((constraints.ca, constraints.path_len_constraint), (true, Some(0)));
    assert_eq!(root.key_usage().unwrap().unwrap().value.flags, 1 << 5, "keyCertSign and nothing else");

    for (role, serves) in [(Role::Broker, true), (Role::Hospital, false)] {
        let certificate = party(&ca, role, role.as_str()).1;
        let (_, x509) = X509Certificate::from_der(certificate.der()).unwrap();
        let usage = x509.extended_key_usage().unwrap().unwrap().value;
        assert_eq!((usage.server_auth, usage.client_auth), (serves, !serves));
        assert_eq!(x509.key_usage().unwrap().unwrap().value.flags, 1, "digitalSignature and nothing else");
        assert_eq!(
            x509.subject_alternative_name().unwrap().unwrap().value.general_names.len(),
            if serves { 4 } else { 1 }
        );
        assert!(
            x509.iter_extensions().any(|e| e.oid == x509_parser::oid_registry::OID_X509_EXT_AUTHORITY_KEY_IDENTIFIER)
        );
    }
}

#[test]
fn a_name_is_issued_once_whatever_the_role() {
    let (home, ca) = saved_ca();
    let (key, _) = party(&ca, Role::Patient, "alice");
    let other = PrivateKey::generate().unwrap();
    for ca in [ca, CertificateAuthority::load(home.path()).unwrap()] {
        let refused = taken(ca.sign(&request(&other, Role::Patient, "alice"), Role::Patient, soon()));
        let today = OffsetDateTime::now_utc().date().to_string();
        let text = refused.to_string();
        let fingerprint: String = key.public_key().as_bytes()[..8].iter().map(|byte| format!("{byte:02x}")).collect();
        assert!([today.as_str(), "alice", "patient", &fingerprint].iter().all(|part| text.contains(part)), "{text}");
        taken(ca.sign(&request(&other, Role::Hospital, "alice"), Role::Hospital, soon()));
        taken(ca.sign(&request(&key, Role::Monitor, "alice"), Role::Monitor, soon()));
        taken(ca.sign(&request(&key, Role::Patient, "alice"), Role::Member, soon()));
    }
}

#[test]
fn the_same_key_may_renew() {
    let (home, ca) = saved_ca();
    let (key, first) = party(&ca, Role::Patient, "alice");
    let later = soon() + Duration::days(30);
    let again = ca.sign(&request(&key, Role::Patient, "alice"), Role::Patient, later).unwrap();
    assert!(again.not_after() > first.not_after());
    let serial = |der| X509Certificate::from_der(der).unwrap().1.raw_serial().to_vec();
    assert_ne!(serial(first.der()), serial(again.der()));
    for certificate in [&first, &again] {
        certificate.identity(&ca.authority(), certs::now()).unwrap();
    }
    let kept = Register::of(home.path()).get(&name("alice")).unwrap().unwrap();
    assert_eq!(kept.to_pem(), again.to_pem());
}

#[test]
fn a_ca_that_was_not_saved_keeps_a_register_too() {
    let (home, ca) = (tempfile::tempdir().unwrap(), new_ca());
    party(&ca, Role::Patient, "alice");
    taken(ca.sign(&request(&PrivateKey::generate().unwrap(), Role::Patient, "alice"), Role::Patient, soon()));
    ca.save(home.path()).unwrap();
    party(&ca, Role::Server, "bob");
    let names = |ca: &CertificateAuthority| -> Vec<String> {
        ca.issued().unwrap().iter().map(|one| one.subject().to_string()).collect()
    };
    assert_eq!(names(&ca), [ALICE, "spiffe://ward/server/bob"]);
    assert_eq!(names(&CertificateAuthority::load(home.path()).unwrap()), names(&ca));
}

#[test]
fn of_two_processes_one_issues_a_name() {
    let (home, _) = saved_ca();
    let start = Barrier::new(4);
    let issue = || {
        let ca = CertificateAuthority::load(home.path()).unwrap();
        let asked = request(&PrivateKey::generate().unwrap(), Role::Patient, "alice");
        start.wait();
        ca.sign(&asked, Role::Patient, soon())
    };
    let issued: Vec<_> = thread::scope(|scope| {
        let threads: Vec<_> = (0..4).map(|_| scope.spawn(issue)).collect();
        threads.into_iter().filter_map(|thread| thread.join().unwrap().ok()).collect()
    });
    assert_eq!(issued.len(), 1);
    let kept = Register::of(home.path()).get(&name("alice")).unwrap().unwrap();
    assert_eq!(kept.to_pem(), issued[0].to_pem());
}

#[test]
fn the_ca_decides_on_the_mark_and_on_no_other_role() {
    let ca = new_ca();
    let sign = |who, asked, given| ca.sign(&request(&PrivateKey::generate().unwrap(), asked, who), given, soon());
    assert_eq!(sign("alice", Role::Patient, Role::Member).unwrap().subject().role, Role::Member);
    assert_eq!(sign("bob", Role::Member, Role::Patient).unwrap().subject().role, Role::Patient);
    for (asked, given) in
        [(Role::Patient, Role::Hospital), (Role::Server, Role::Member), (Role::Monitor, Role::Operator)]
    {
        assert!(matches!(sign("carol", asked, given), Err(AuthorityError::Role { .. })));
    }
    assert!(ca.issued().unwrap().iter().all(|one| one.subject().name != name("carol")), "a refusal spends no name");
}

#[test]
fn another_study_and_impossible_ends_are_refused() {
    let ca = new_ca();
    let key = PrivateKey::generate().unwrap();
    let foreign = Request::new(&key, &"other".parse().unwrap(), Role::Patient, &name("alice")).unwrap();
    assert!(matches!(ca.sign(&foreign, Role::Patient, soon()), Err(AuthorityError::ForeignStudy { .. })));
    let asked = request(&key, Role::Patient, "alice");
    let past = OffsetDateTime::now_utc() - Duration::SECOND;
    assert!(matches!(ca.sign(&asked, Role::Patient, past), Err(AuthorityError::Past(_))));
    let late = ca.not_after() + Duration::SECOND;
    assert!(matches!(ca.sign(&asked, Role::Patient, late), Err(AuthorityError::Outlives { .. })));
    ca.sign(&asked, Role::Patient, ca.not_after()).unwrap();
    assert!(matches!(CertificateAuthority::create(&Study::default(), past), Err(AuthorityError::Past(_))));
}

#[test]
fn a_ca_is_kept_once_and_never_overwritten() {
    let (home, ca) = saved_ca();
    assert_eq!(mode(&home.path().join(CA_KEY_FILE)), 0o600);
    let elsewhere = tempfile::tempdir().unwrap();
    assert!(matches!(ca.save(elsewhere.path()), Err(AuthorityError::Kept)));
    assert!(matches!(new_ca().save(home.path()), Err(AuthorityError::Exists(_))));
    assert_eq!(CertificateAuthority::load(home.path()).unwrap().to_pem(), ca.to_pem());
}

#[test]
fn a_damaged_ca_is_not_used() {
    let (home, _ca) = saved_ca();
    let (key, certificate) = (home.path().join(CA_KEY_FILE), home.path().join(CA_FILE));
    chmod(&key, 0o644);
    let refused = CertificateAuthority::load(home.path()).unwrap_err();
    assert!(matches!(refused, AuthorityError::Key(KeyError::Permissions { .. })), "{refused}");
    chmod(&key, 0o600);
    new_ca().authority().save(&certificate).unwrap();
    assert!(matches!(CertificateAuthority::load(home.path()), Err(AuthorityError::Mismatch(_))));
    fs::remove_file(&certificate).unwrap();
    assert!(matches!(CertificateAuthority::load(home.path()), Err(AuthorityError::Incomplete(_))));
    fs::write(&certificate, "garbage").unwrap();
    assert!(matches!(CertificateAuthority::load(home.path()), Err(AuthorityError::Anchor { .. })));
}

#[test]
fn a_damaged_register_issues_nothing() {
    let (home, ca) = saved_ca();
    let issued = home.path().join("issued");
    let (key, certificate) = party(&ca, Role::Patient, "alice");
    let sign = |who: &str| ca.sign(&request(&key, Role::Patient, who), Role::Patient, soon());

    fs::write(issued.join(".ward-left-by-a-crash"), "half").unwrap();
    fs::write(issued.join("README"), "mine").unwrap();
    assert_eq!(ca.issued().unwrap().len(), 1);

    fs::write(issued.join("bob.pem"), certificate.to_pem()).unwrap();
    assert!(matches!(sign("bob"), Err(AuthorityError::Register(RegisterError::Misfiled(_)))));
    fs::write(issued.join("alice.pem"), &certificate.to_pem()[..100]).unwrap();
    assert!(matches!(sign("alice"), Err(AuthorityError::Register(RegisterError::Entry { .. }))));
    fs::remove_dir_all(&issued).unwrap();
    assert!(matches!(sign("carol"), Err(AuthorityError::Register(RegisterError::File { .. }))));
}

//! From a chain to an identity: what holds, and one refusal for each thing that can be wrong.

use certs::{CertificateAuthority, IdentifyError, PARTY_VALIDITY, ShapeError, Study, StudyAuthority, UriError};
use protocol::{Authority, Chain, Dates, Role};
use rcgen::{ExtendedKeyUsagePurpose, IsCa, Issuer, KeyPair};
use time::{Duration, OffsetDateTime};

use crate::support::{Forger, at, dns, ed25519, in_days, name, new_ca, params, party, request, saved_ca, soon, uri};

const ALICE: &str = "spiffe://ward/patient/alice";

/// What the CA of a study says of a certificate that its own key signed over anything.
fn forged(make: impl FnOnce(&Forger) -> Chain) -> IdentifyError {
    let (home, ca) = saved_ca();
    let chain = make(&Forger::of(home.path(), &ca));
    let refused = ca.authority().verify(&chain, Dates::At(certs::now())).unwrap_err();
    assert_eq!(ca.authority().identify(&chain, Dates::At(certs::now())), Err(refused.to_string()));
    refused
}

#[test]
fn every_role_is_identified() {
    let ca = new_ca();
    let authority = StudyAuthority::from_pem(ca.to_pem()).unwrap();
    for role in Role::ALL {
        let (key, certificate) = party(&ca, role, role.as_str());
        let identity = certificate.identity(&authority, certs::now()).unwrap();
        assert_eq!((identity.name, identity.role), (name(role.as_str()), role));
        assert_eq!(identity.key, key.public_key());
        assert_eq!(identity.certificate, protocol::digest_certificate(certificate.der()));
        assert_eq!(authority.verify(&certificate.chain(), Dates::At(certs::now())).unwrap().role, role, "from memory");
    }
}

#[test]
fn the_forger_can_make_what_holds() {
    let (home, ca) = saved_ca();
    let chain = Forger::of(home.path(), &ca).chain(&params([uri(ALICE)]), &ed25519());
    ca.authority().verify(&chain, Dates::At(certs::now())).unwrap();
}

#[test]
fn another_ca_of_the_same_study_is_refused() {
    let (_, certificate) = party(&new_ca(), Role::Patient, "alice");
    let refused = certificate.identity(&new_ca().authority(), certs::now()).unwrap_err();
    assert!(matches!(refused, IdentifyError::OtherCa { .. }), "{refused}");
}

#[test]
fn a_party_cannot_sign_for_another() {
    let ca = new_ca();
    let (home, alice_key) = (tempfile::tempdir().unwrap(), party(&ca, Role::Member, "alice"));
    alice_key.0.save(home.path().join("key.pem")).unwrap();
    let key = KeyPair::from_pem(&std::fs::read_to_string(home.path().join("key.pem")).unwrap()).unwrap();
    let alice = Issuer::from_ca_cert_pem(alice_key.1.to_pem(), key).unwrap();
    let mallory = params([uri("spiffe://ward/hospital/mallory")]).signed_by(&ed25519(), &alice).unwrap();
    let alone = Chain(vec![mallory.der().to_vec().into()]);
    let refused = ca.authority().verify(&alone, Dates::At(certs::now())).unwrap_err();
    assert!(matches!(refused, IdentifyError::OtherCa { .. }), "{refused}");
    let longer = Chain([alone.0, alice_key.1.chain().0].concat());
    assert_eq!(ca.authority().verify(&longer, Dates::At(certs::now())), Err(IdentifyError::Length(2)));
    assert_eq!(ca.authority().verify(&Chain(vec![]), Dates::At(certs::now())), Err(IdentifyError::Length(0)));
}

#[test]
fn dates_are_checked_at_every_call() {
    let ca = new_ca();
    let authority = ca.authority();
    let (_, certificate) = party(&ca, Role::Patient, "alice");
    let chain = certificate.chain();
    let last = at(certificate.not_after());
    authority.verify(&chain, Dates::At(at(certificate.not_before()))).unwrap();
    authority.verify(&chain, Dates::At(last)).unwrap();
    let since = certificate.not_after();
    let expired = authority.verify(&chain, Dates::At(last.plus_seconds(1))).unwrap_err();
    assert_eq!(expired, IdentifyError::Expired { name: name("alice"), since });
    assert!(expired.to_string().contains(&since.date().to_string()) && expired.to_string().contains("renew"));
}

#[test]
fn a_certificate_whose_time_has_not_come_is_refused() {
    let (home, ca) = saved_ca();
    let (mut params, authority) = (params([uri(ALICE)]), ca.authority());
    params.not_before = OffsetDateTime::now_utc().replace_nanosecond(0).unwrap() + Duration::days(2);
    let chain = Forger::of(home.path(), &ca).chain(&params, &ed25519());
    let early = IdentifyError::NotYetValid { name: name("alice"), from: params.not_before };
    assert!(early.to_string().contains("clock"));
    assert_eq!(authority.verify(&chain, Dates::At(certs::now())), Err(early.clone()));
    authority.verify(&chain, Dates::At(in_days(3))).unwrap();
    assert_eq!(authority.verify(&chain, Dates::At(in_days(1))), Err(early));
}

#[test]
fn dates_are_checked_at_the_first_call() {
    let ca = new_ca();
    let (_, certificate) = party(&ca, Role::Patient, "alice");
    let expired = certificate.identity(&ca.authority(), in_days(366)).unwrap_err();
    assert!(matches!(expired, IdentifyError::Expired { .. }), "{expired}");
    let early = certificate.identity(&ca.authority(), in_days(-1)).unwrap_err();
    assert!(matches!(early, IdentifyError::CaNotYetValid { .. }), "{early}");
    let beyond = certificate.identity(&ca.authority(), protocol::Time(u64::MAX)).unwrap_err();
    assert!(matches!(beyond, IdentifyError::CaExpired { .. }), "{beyond}");
}

#[test]
fn an_expired_ca_vouches_for_nobody() {
    let end = OffsetDateTime::now_utc() + Duration::days(10);
    let ca = CertificateAuthority::create(&Study::default(), end).unwrap();
    let key = certs::PrivateKey::generate().unwrap();
    let certificate = ca.sign(&request(&key, Role::Patient, "alice"), Role::Patient, end).unwrap();
    certificate.identity(&ca.authority(), in_days(9)).unwrap();
    let refused = certificate.identity(&ca.authority(), in_days(11)).unwrap_err();
    assert!(matches!(refused, IdentifyError::CaExpired { .. }), "{refused}");
}

#[test]
fn not_exactly_one_uri_is_refused() {
    let two = || [uri(ALICE), uri("spiffe://ward/hospital/alice")];
    let refused = forged(|ca| ca.chain(&params(two()), &ed25519()));
    assert!(matches!(refused, IdentifyError::Shape(ShapeError::UriCount { count: 2, .. })), "{refused}");
    for names in [vec![], vec![dns("alice")]] {
        let refused = forged(|ca| ca.chain(&params(names), &ed25519()));
        assert!(matches!(refused, IdentifyError::Shape(ShapeError::UriCount { count: 0, .. })), "{refused}");
    }
}

#[test]
fn a_client_with_a_second_name_is_refused() {
    let refused = forged(|ca| ca.chain(&params([uri(ALICE), dns("hospital")]), &ed25519()));
    assert_eq!(refused, IdentifyError::Shape(ShapeError::OtherNames(name("alice"))));
}

#[test]
fn another_study_under_this_ca_is_refused() {
    let refused = forged(|ca| ca.chain(&params([uri("spiffe://other/patient/alice")]), &ed25519()));
    assert!(matches!(refused, IdentifyError::ForeignStudy { .. }), "{refused}");
}

#[test]
fn a_uri_that_is_no_name_of_ward_is_refused() {
    let error = |text: &str| match forged(|ca| ca.chain(&params([uri(text)]), &ed25519())) {
        IdentifyError::Shape(ShapeError::Uri(error)) => error,
        other => panic!("{text}: {other}"),
    };
    assert!(matches!(error("spiffe://ward/nurse/alice"), UriError::Role(_)));
    assert!(matches!(error("spiffe://ward/Patient/alice"), UriError::Role(_)));
    assert!(matches!(error("spiffe://ward/patient/all"), UriError::Name(_)));
    assert!(matches!(error("spiffe://ward/patient/"), UriError::Name(_)));
    assert!(matches!(error("spiffe://WARD/patient/alice"), UriError::Study(_)));
    for form in
        ["https://ward/patient/alice", "spiffe://ward/patient", "spiffe://ward/patient/alice/x", "spiffe://ward"]
    {
        assert!(matches!(error(form), UriError::Form(_)), "{form}");
    }
}

#[test]
fn another_key_type_is_refused() {
    let refused = forged(|ca| ca.chain(&params([uri(ALICE)]), &KeyPair::generate().unwrap()));
    assert!(matches!(refused, IdentifyError::Shape(ShapeError::KeyType(_))), "{refused}");
}

#[test]
fn a_usage_that_is_not_the_roles_is_refused() {
    use ExtendedKeyUsagePurpose::{ClientAuth, ServerAuth};
    let usages = [vec![], vec![ServerAuth], vec![ClientAuth, ServerAuth]];
    for usage in usages {
        let mut params = params([uri(ALICE)]);
        params.extended_key_usages = usage;
        let refused = forged(|ca| ca.chain(&params, &ed25519()));
        assert!(matches!(refused, IdentifyError::Shape(ShapeError::Usage { .. })), "{refused}");
    }
    let refused = forged(|ca| ca.chain(&params([uri("spiffe://ward/broker/nats")]), &ed25519()));
    assert!(matches!(refused, IdentifyError::Shape(ShapeError::Usage { role: Role::Broker, .. })), "{refused}");
}

#[test]
fn a_ca_below_the_ca_is_no_party() {
    let mut params = params([uri(ALICE)]);
    params.is_ca = IsCa::Ca(rcgen::BasicConstraints::Unconstrained);
    let refused = forged(|ca| ca.chain(&params, &ed25519()));
    assert!(matches!(refused, IdentifyError::Path { .. }), "{refused}");
}

#[test]
fn a_certificate_that_ends_before_it_begins_is_refused() {
    let mut params = params([uri(ALICE)]);
    params.not_after = params.not_before - Duration::days(1);
    let refused = forged(|ca| ca.chain(&params, &ed25519()));
    assert!(matches!(refused, IdentifyError::Path { .. }), "{refused}");
}

#[test]
fn a_key_of_small_order_is_refused() {
    struct Weak;
    impl rcgen::PublicKeyData for Weak {
        fn der_bytes(&self) -> &[u8] {
            // The neutral element: every signature of zeros would verify under it.
            &[1, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0]
        }
        fn algorithm(&self) -> &'static rcgen::SignatureAlgorithm {
            &rcgen::PKCS_ED25519
        }
    }
    let refused = forged(|ca| ca.chain(&params([uri(ALICE)]), &Weak));
    assert!(matches!(refused, IdentifyError::Shape(ShapeError::KeyType(_))), "{refused}");
}

#[test]
fn what_was_cut_or_altered_anywhere_is_refused() {
    let ca = new_ca();
    let authority = ca.authority();
    let whole = party(&ca, Role::Patient, "alice").1.der().to_vec();
    let refused = |der: Vec<u8>| authority.verify(&Chain(vec![der.into()]), Dates::At(certs::now())).is_err();
    for at in 0..whole.len() {
        assert!(refused(whole[..at].to_vec()), "cut at {at}");
        let mut altered = whole.clone();
        altered[at] ^= 1;
        assert!(refused(altered), "altered at {at}");
    }
    assert!(refused([whole.clone(), vec![0]].concat()));
    assert!(refused(vec![0x30; 8000]));
    assert!(refused(vec![0; 1 << 20]));
}

#[test]
fn a_partys_certificate_is_no_anchor() {
    let (_, certificate) = party(&new_ca(), Role::Patient, "alice");
    let refused = StudyAuthority::from_pem(certificate.to_pem()).unwrap_err();
    assert!(matches!(refused, certs::AnchorError::NoCa), "{refused}");
    let both = format!("{}{}", new_ca().to_pem(), new_ca().to_pem());
    for text in ["", "garbage", &both, &new_ca().to_pem()[..200]] {
        assert!(matches!(StudyAuthority::from_pem(text), Err(certs::AnchorError::Malformed)));
    }
}

#[test]
fn the_ca_of_something_else_is_no_anchor() {
    let mut params = params([dns("example.org")]);
    params.is_ca = IsCa::Ca(rcgen::BasicConstraints::Constrained(0));
    params.key_usages = vec![rcgen::KeyUsagePurpose::KeyCertSign];
    let foreign = params.self_signed(&ed25519()).unwrap().pem();
    assert!(matches!(StudyAuthority::from_pem(&foreign), Err(certs::AnchorError::ForeignCa)));
}

#[test]
fn the_validity_is_what_was_asked_for() {
    let before = OffsetDateTime::now_utc();
    let (_, certificate) = party(&new_ca(), Role::Patient, "alice");
    assert!(certificate.not_before() <= before - certs::BACKDATE);
    assert!((certificate.not_after() - soon()).abs() < Duration::minutes(1));
    assert!(certificate.not_after() - before <= PARTY_VALIDITY + Duration::minutes(1));
}

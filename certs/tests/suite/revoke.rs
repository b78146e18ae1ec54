//! Revocations: who is revoked stays so, whatever ends, races or breaks.

use std::fs;
use std::sync::Barrier;
use std::thread;

use certs::{AuthorityError, Certificate, CertificateAuthority, PrivateKey, Register, RegisterError};
use protocol::Role;
use time::{Duration, OffsetDateTime};

use crate::support::{name, new_ca, party, request, saved_ca, soon};

/// Why it was not done.
fn why<T: std::fmt::Debug>(result: Result<T, AuthorityError>) -> RegisterError {
    match result {
        Err(AuthorityError::Register(error)) => error,
        other => panic!("{other:?}"),
    }
}

fn sign(ca: &CertificateAuthority, key: &PrivateKey, who: &str) -> Result<Certificate, AuthorityError> {
    ca.sign(&request(key, Role::Patient, who), Role::Patient, soon())
}

#[test]
fn a_revoked_name_is_never_issued_again() {
    let (home, ca) = saved_ca();
    let (key, certificate) = party(&ca, Role::Patient, "alice");
    party(&ca, Role::Patient, "bob");
    assert_eq!(ca.revoke(&name("alice")).unwrap().to_pem(), certificate.to_pem());
    for ca in [ca, CertificateAuthority::load(home.path()).unwrap()] {
        for key in [&key, &PrivateKey::generate().unwrap()] {
            let refused = why(sign(&ca, key, "alice"));
            let RegisterError::Revoked { since, .. } = refused else { panic!("{refused}") };
            assert!(OffsetDateTime::now_utc() - since < Duration::minutes(10), "{since}");
            let text = refused.to_string();
            assert!(text.contains("alice") && text.contains(&since.date().to_string()), "{text}");
        }
    }
    let register = Register::of(home.path());
    assert!(register.revoked().unwrap().iter().eq([&name("alice")]));
    assert_eq!(register.revoked_since(&name("bob")).unwrap(), None);
    assert_eq!(
        register.get(&name("alice")).unwrap().unwrap().to_pem(),
        certificate.to_pem(),
        "what it was stays known"
    );
}

#[test]
fn only_a_name_that_was_issued_is_revoked_and_only_once() {
    let (home, ca) = saved_ca();
    party(&ca, Role::Patient, "alice");
    assert!(matches!(why(ca.revoke(&name("bob"))), RegisterError::NeverIssued(who) if who == name("bob")));
    assert!(!home.path().join("revoked").exists(), "a refusal writes nothing");
    sign(&ca, &PrivateKey::generate().unwrap(), "bob").unwrap();
    ca.revoke(&name("alice")).unwrap();
    let first = Register::of(home.path()).revoked_since(&name("alice")).unwrap().unwrap();
    assert!(matches!(why(ca.revoke(&name("alice"))), RegisterError::Revoked { since, .. } if since == first));
    assert_eq!(Register::of(home.path()).revoked_since(&name("alice")).unwrap(), Some(first));
}

#[test]
fn of_several_processes_one_revokes_and_a_renewal_beside_it_changes_nothing() {
    let (home, ca) = saved_ca();
    let (key, _) = party(&ca, Role::Patient, "alice");
    let start = Barrier::new(5);
    let revoke = || {
        let ca = CertificateAuthority::load(home.path()).unwrap();
        start.wait();
        ca.revoke(&name("alice")).is_ok()
    };
    let renew = || {
        let ca = CertificateAuthority::load(home.path()).unwrap();
        start.wait();
        (0..20).take_while(|_| sign(&ca, &key, "alice").is_ok()).count()
    };
    let revoked = thread::scope(|scope| {
        let renewing = scope.spawn(renew);
        let threads: Vec<_> = (0..4).map(|_| scope.spawn(revoke)).collect();
        renewing.join().unwrap();
        threads.into_iter().map(|thread| thread.join().unwrap()).filter(|done| *done).count()
    });
    assert_eq!(revoked, 1);
    assert!(matches!(why(sign(&ca, &key, "alice")), RegisterError::Revoked { .. }));
}

/// What a process leaves that is killed before its file has its name is no revocation, and is in nobody's way.
#[test]
fn a_revocation_is_there_whole_or_not_at_all() {
    let (home, ca) = saved_ca();
    let (key, _) = party(&ca, Role::Patient, "alice");
    let revoked = home.path().join("revoked");
    fs::create_dir(&revoked).unwrap();
    fs::write(revoked.join(".ward-left-by-a-crash"), "2026-").unwrap();
    assert!(Register::of(home.path()).revoked().unwrap().is_empty());
    sign(&ca, &key, "alice").unwrap();
    ca.revoke(&name("alice")).unwrap();
    assert_eq!(Register::of(home.path()).revoked().unwrap().len(), 1);
}

#[test]
fn a_damaged_revocation_still_revokes() {
    let (home, ca) = saved_ca();
    let (key, _) = party(&ca, Role::Patient, "alice");
    ca.revoke(&name("alice")).unwrap();
    let file = home.path().join("revoked/alice");
    for text in ["", "2026-13-45", "\u{0}\u{0}"] {
        fs::write(&file, text).unwrap();
        assert!(matches!(why(sign(&ca, &key, "alice")), RegisterError::Undated(path) if path == file));
        assert!(matches!(why(ca.revoke(&name("alice"))), RegisterError::Undated(_)));
        assert!(Register::of(home.path()).revoked().unwrap().contains(&name("alice")));
    }
    fs::remove_dir_all(home.path().join("revoked")).unwrap();
    fs::write(home.path().join("revoked"), "no folder").unwrap();
    assert!(matches!(Register::of(home.path()).revoked(), Err(RegisterError::File { .. })));
    assert!(matches!(why(sign(&ca, &key, "alice")), RegisterError::File { .. }));
}

#[test]
fn a_ca_that_was_not_saved_revokes_too() {
    let (home, ca) = (tempfile::tempdir().unwrap(), new_ca());
    let (key, _) = party(&ca, Role::Patient, "alice");
    ca.revoke(&name("alice")).unwrap();
    assert!(matches!(why(sign(&ca, &key, "alice")), RegisterError::Revoked { .. }));
    assert!(matches!(why(ca.revoke(&name("alice"))), RegisterError::Revoked { .. }));
    ca.save(home.path()).unwrap();
    let kept = CertificateAuthority::load(home.path()).unwrap();
    assert!(matches!(why(sign(&kept, &key, "alice")), RegisterError::Revoked { .. }));
}

//! Private keys on disk.

use std::fs;

use certs::{KeyError, PrivateKey};

use crate::support::{chmod, mode};

#[test]
fn a_saved_key_is_the_same_key_and_its_owners_alone() {
    let home = tempfile::tempdir().unwrap();
    let path = home.path().join("key.pem");
    let key = PrivateKey::generate().unwrap();
    key.save(&path).unwrap();
    assert_eq!(mode(&path), 0o600);
    assert!(fs::read_to_string(&path).unwrap().starts_with("-----BEGIN PRIVATE KEY-----"));
    assert_eq!(PrivateKey::load(&path).unwrap().signing_key(), key.signing_key());
    assert_eq!(fs::read_dir(home.path()).unwrap().count(), 1, "no temporary file stays behind");
}

#[test]
fn a_key_is_never_overwritten() {
    let home = tempfile::tempdir().unwrap();
    let path = home.path().join("key.pem");
    let first = PrivateKey::generate().unwrap();
    first.save(&path).unwrap();
    let refused = PrivateKey::generate().unwrap().save(&path).unwrap_err();
    assert!(matches!(refused, KeyError::Exists(_)), "{refused}");
    assert_eq!(PrivateKey::load(&path).unwrap().public_key(), first.public_key());
}

#[test]
fn a_key_that_others_may_touch_is_refused() {
    let home = tempfile::tempdir().unwrap();
    let path = home.path().join("key.pem");
    PrivateKey::generate().unwrap().save(&path).unwrap();
    for open in [0o644, 0o640, 0o604, 0o620, 0o601] {
        chmod(&path, open);
        let refused = PrivateKey::load(&path).unwrap_err();
        assert!(matches!(refused, KeyError::Permissions { mode, .. } if mode == open), "{refused}");
        let text = refused.to_string();
        assert!(
            text.contains(&format!("chmod 600 {}", path.display())) && text.contains(&format!("{open:04o}")),
            "{text}"
        );
    }
    chmod(&path, 0o400);
    PrivateKey::load(&path).unwrap();
}

#[test]
fn what_is_no_key_is_refused_without_being_shown() {
    let home = tempfile::tempdir().unwrap();
    let path = home.path().join("key.pem");
    PrivateKey::generate().unwrap().save(&path).unwrap();
    let whole = fs::read_to_string(&path).unwrap();
    let ecdsa = rcgen::KeyPair::generate().unwrap().serialize_pem();
    for text in [&whole[..whole.len() / 2], "", "secret", &whole.replace("PRIVATE KEY", "KEY"), &ecdsa] {
        fs::write(&path, text).unwrap();
        let refused = PrivateKey::load(&path).unwrap_err();
        assert!(matches!(refused, KeyError::Malformed(_)), "{refused}");
        assert!(!refused.to_string().contains("secret"));
    }
}

#[test]
fn a_key_prints_as_nothing() {
    assert_eq!(format!("{:?}", PrivateKey::generate().unwrap()), "PrivateKey(..)");
}

//! A party's folder: complete, or refused with the file and the remedy.

use std::fs;

use certs::{Certificate, CertificateError, Credentials, CredentialsError, IdentifyError, KeyError};
use protocol::{Authority, Dates, Role};

use crate::support::{chmod, folder, in_days, name, new_ca, party};

#[test]
fn a_complete_folder_is_loaded() {
    let ca = new_ca();
    let home = folder(&ca, Role::Hospital, "charite");
    let credentials = Credentials::load(home.path()).unwrap();
    assert_eq!(credentials.identity().name, name("charite"));
    assert_eq!(credentials.identity().key, credentials.signing_key().verifying_key());
    let told = credentials.authority().identify(&credentials.chain(), Dates::At(certs::now())).unwrap();
    assert_eq!(told, *credentials.identity());
    for path in [credentials.ca_path(), credentials.certificate_path(), credentials.key_path()] {
        assert!(path.starts_with(credentials.dir()) && path.is_file());
    }
    assert!(format!("{credentials:?}").contains("PrivateKey(..)"));
}

#[test]
fn an_open_key_is_refused() {
    let home = folder(&new_ca(), Role::Patient, "alice");
    chmod(&home.path().join("key.pem"), 0o644);
    let refused = Credentials::load(home.path()).unwrap_err();
    assert!(matches!(refused, CredentialsError::Key(KeyError::Permissions { mode: 0o644, .. })), "{refused}");
    assert!(refused.to_string().contains("chmod 600"), "{refused}");
}

#[test]
fn a_certificate_for_another_key_is_refused() {
    let ca = new_ca();
    let home = folder(&ca, Role::Patient, "alice");
    party(&ca, Role::Patient, "bob").1.save(home.path().join("cert.pem")).unwrap();
    let refused = Credentials::load(home.path()).unwrap_err();
    assert!(matches!(&refused, CredentialsError::Mismatch { name, .. } if name.as_str() == "bob"), "{refused}");
    assert!(refused.to_string().contains("cert.pem") && refused.to_string().contains("key.pem"), "{refused}");
}

#[test]
fn the_certificate_of_another_ca_is_refused() {
    let home = folder(&new_ca(), Role::Patient, "alice");
    new_ca().authority().save(home.path().join("ca.pem")).unwrap();
    let refused = Credentials::load(home.path()).unwrap_err();
    let cause = matches!(&refused, CredentialsError::Identify { cause: IdentifyError::OtherCa { .. }, .. });
    assert!(cause, "{refused}");
}

#[test]
fn a_certificate_out_of_its_time_is_refused() {
    let home = folder(&new_ca(), Role::Patient, "alice");
    let refused = Credentials::load_at(home.path(), in_days(400)).unwrap_err();
    assert!(matches!(&refused, CredentialsError::Identify { cause: IdentifyError::Expired { .. }, .. }), "{refused}");
    assert!(refused.to_string().contains("renew"), "{refused}");
    assert!(matches!(Credentials::load_at(home.path(), in_days(-2)), Err(CredentialsError::Identify { .. })));
}

#[test]
fn what_is_missing_or_garbage_is_named() {
    for file in ["ca.pem", "cert.pem", "key.pem"] {
        let home = folder(&new_ca(), Role::Patient, "alice");
        let path = home.path().join(file);
        let whole = fs::read_to_string(&path).unwrap();
        let refused_naming_it = || Credentials::load(home.path()).unwrap_err().to_string().contains(file);
        for text in [&whole[..whole.len() / 2], "", "garbage", &whole.replace('M', "%")] {
            fs::write(&path, text).unwrap();
            assert!(refused_naming_it(), "{file}: {text}");
        }
        fs::remove_file(&path).unwrap();
        assert!(refused_naming_it(), "{file} is missing");
    }
}

#[test]
fn a_file_of_several_certificates_or_of_any_length_is_refused() {
    let ca = new_ca();
    let home = folder(&ca, Role::Patient, "alice");
    let path = home.path().join("cert.pem");
    let one = fs::read_to_string(&path).unwrap();
    fs::write(&path, format!("{one}{}", ca.to_pem())).unwrap();
    assert!(matches!(Certificate::load(&path), Err(CertificateError::Count(2))));
    fs::write(&path, " ".repeat(100_000)).unwrap();
    assert!(matches!(Certificate::load(&path), Err(CertificateError::File { .. })));
}

//! A CA in a folder of its own, parties, and a forger that has the CA's key but none of its checks.

use std::fs::{self, Permissions};
use std::os::unix::fs::PermissionsExt;
use std::path::Path;

use certs::{CA_KEY_FILE, CA_VALIDITY, Certificate, CertificateAuthority, PARTY_VALIDITY, PrivateKey, Request, Study};
use protocol::{Chain, Name, Role, Time};
use rcgen::{CertificateParams, DistinguishedName, ExtendedKeyUsagePurpose, Issuer, KeyPair, PublicKeyData, SanType};
use tempfile::TempDir;
use time::{Duration, OffsetDateTime};

pub(crate) fn name(text: &str) -> Name {
    text.parse().unwrap()
}

pub(crate) fn soon() -> OffsetDateTime {
    OffsetDateTime::now_utc() + PARTY_VALIDITY
}

/// A date in the protocol's count.
pub(crate) fn at(date: OffsetDateTime) -> Time {
    Time(u64::try_from(date.unix_timestamp()).unwrap() * 1000)
}

pub(crate) fn in_days(days: i64) -> Time {
    at(OffsetDateTime::now_utc() + Duration::days(days))
}

pub(crate) fn new_ca() -> CertificateAuthority {
    CertificateAuthority::create(&Study::default(), OffsetDateTime::now_utc() + CA_VALIDITY).unwrap()
}

pub(crate) fn saved_ca() -> (TempDir, CertificateAuthority) {
    let (home, ca) = (tempfile::tempdir().unwrap(), new_ca());
    ca.save(home.path()).unwrap();
    (home, ca)
}

pub(crate) fn request(key: &PrivateKey, role: Role, who: &str) -> Request {
    Request::new(key, &Study::default(), role, &name(who)).unwrap()
}

pub(crate) fn party(ca: &CertificateAuthority, role: Role, who: &str) -> (PrivateKey, Certificate) {
    let key = PrivateKey::generate().unwrap();
    let certificate = ca.sign(&request(&key, role, who), role, soon()).unwrap();
    (key, certificate)
}

/// A party's folder, complete.
pub(crate) fn folder(ca: &CertificateAuthority, role: Role, who: &str) -> TempDir {
    let home = tempfile::tempdir().unwrap();
    let (key, certificate) = party(ca, role, who);
    key.save(home.path().join("key.pem")).unwrap();
    certificate.save(home.path().join("cert.pem")).unwrap();
    ca.authority().save(home.path().join("ca.pem")).unwrap();
    home
}

pub(crate) fn chmod(path: &Path, mode: u32) {
    fs::set_permissions(path, Permissions::from_mode(mode)).unwrap();
}

pub(crate) fn mode(path: &Path) -> u32 {
    fs::metadata(path).unwrap().permissions().mode() & 0o7777
}

pub(crate) fn uri(text: &str) -> SanType {
    SanType::URI(text.try_into().unwrap())
}

pub(crate) fn dns(text: &str) -> SanType {
    SanType::DnsName(text.try_into().unwrap())
}

/// What a client's certificate holds, with the names of one's choice.
pub(crate) fn params(names: impl IntoIterator<Item = SanType>) -> CertificateParams {
    let mut params = CertificateParams::default();
    params.distinguished_name = DistinguishedName::new();
    params.subject_alt_names = names.into_iter().collect();
    params.not_before = OffsetDateTime::now_utc() - Duration::hours(1);
    params.not_after = soon();
    params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ClientAuth];
    params
}

pub(crate) fn ed25519() -> KeyPair {
    KeyPair::generate_for(&rcgen::PKCS_ED25519).unwrap()
}

/// Who holds the CA's key and signs whatever is wanted.
pub(crate) struct Forger(Issuer<'static, KeyPair>);

impl Forger {
    pub(crate) fn of(home: &Path, ca: &CertificateAuthority) -> Self {
        let key = KeyPair::from_pem(&fs::read_to_string(home.join(CA_KEY_FILE)).unwrap()).unwrap();
        Self(Issuer::from_ca_cert_pem(ca.to_pem(), key).unwrap())
    }

    pub(crate) fn chain(&self, params: &CertificateParams, key: &impl PublicKeyData) -> Chain {
        Chain(vec![params.signed_by(key, &self.0).unwrap().der().to_vec().into()])
    }
}

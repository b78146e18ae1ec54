//! What parties keep in files.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};

use rcgen::{CertificateParams, DistinguishedName, ExtendedKeyUsagePurpose, Issuer, KeyPair, KeyUsagePurpose, SanType};
use redb::{Database, ReadableDatabase as _, ReadableTable as _, TableDefinition};
use time::{Duration, OffsetDateTime};

use super::Home;

/// The records of the party `name` in the database at `path`.
pub fn records(path: &Path, name: &str) -> BTreeMap<String, Vec<u8>> {
    const RECORDS: TableDefinition<'_, (&str, &str), &[u8]> = TableDefinition::new("records");
    let database = Database::create(path).unwrap();
    let table = database.begin_read().unwrap().open_table(RECORDS).unwrap();
    let entries = table.iter().unwrap().map(|entry| {
        let (key, value) = entry.unwrap();
        let (party, key) = key.value();
        (party.to_string(), key.to_string(), value.value().to_vec())
    });
    entries.filter(|(party, ..)| party == name).map(|(_, key, value)| (key, value)).collect()
}

/// Every file below `dir`.
pub fn files(dir: &Path) -> Vec<PathBuf> {
    let mut found = Vec::new();
    for entry in fs::read_dir(dir).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() { found.extend(files(&path)) } else { found.push(path) }
    }
    found
}

/// A certificate of the party `name`, for the key that it has, that was valid from half an hour ago until a minute ago.
pub fn expired_certificate(home: &Home, name: &str) -> String {
    let read = |path: PathBuf| fs::read_to_string(path).unwrap();
    let (ca, own) = (home.path().join("ca"), home.party_dir(name));
    let issuer_key = KeyPair::from_pem(&read(ca.join("ca.key"))).unwrap();
    let issuer = Issuer::from_ca_cert_pem(&read(ca.join("ca.pem")), issuer_key).unwrap();
    let key = KeyPair::from_pem(&read(own.join("key.pem"))).unwrap();
    let mut params = CertificateParams::default();
    params.distinguished_name = DistinguishedName::new();
    let uri = home.credentials(name).certificate().subject().to_string();
    params.subject_alt_names = vec![SanType::URI(uri.try_into().unwrap())];
    params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ClientAuth];
    params.key_usages = vec![KeyUsagePurpose::DigitalSignature];
    params.use_authority_key_identifier_extension = true;
    let now = OffsetDateTime::now_utc();
    (params.not_before, params.not_after) = (now - Duration::MINUTE * 30, now - Duration::MINUTE);
    params.signed_by(&key, &issuer).unwrap().pem()
}

//! The corpus of certificates: made from fixed keys, numbers and dates, so that it is the same each time.

use std::collections::BTreeMap;

use ed25519_dalek::SigningKey;
use ed25519_dalek::pkcs8::spki::der::pem::{self, LineEnding};
use ed25519_dalek::pkcs8::{EncodePrivateKey, KeypairBytes};
use rcgen::{
    BasicConstraints, CertificateParams, CustomExtension, DistinguishedName, ExtendedKeyUsagePurpose, IsCa, Issuer,
    KeyPair, KeyUsagePurpose, PublicKeyData, SanType, SerialNumber, SignatureAlgorithm, date_time_ymd,
};

use super::USES;

const ALICE: &str = "spiffe://ward/patient/alice";

fn key(seed: u8) -> String {
    let secret_key = SigningKey::from_bytes(&[seed; 32]).to_bytes();
    KeypairBytes { secret_key, public_key: None }.to_pkcs8_pem(LineEnding::LF).unwrap().to_string()
}

fn pair(seed: u8) -> KeyPair {
    KeyPair::from_pem(&key(seed)).unwrap()
}

fn uri(text: &str) -> SanType {
    SanType::URI(text.try_into().unwrap())
}

/// A client's certificate to be, with these names.
fn params(names: &[&str]) -> CertificateParams {
    let mut params = CertificateParams::default();
    params.distinguished_name = DistinguishedName::new();
    params.serial_number = Some(SerialNumber::from(vec![1; 16]));
    params.subject_alt_names = names.iter().map(|name| uri(name)).collect();
    (params.not_before, params.not_after) = (date_time_ymd(2026, 1, 1), date_time_ymd(2040, 1, 1));
    params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ClientAuth];
    params
}

fn ca_params(study: &str) -> CertificateParams {
    let mut params = params(&[study]);
    params.is_ca = IsCa::Ca(BasicConstraints::Constrained(0));
    params.key_usages = vec![KeyUsagePurpose::KeyCertSign];
    params.extended_key_usages.clear();
    params
}

fn issuer(seed: u8) -> Issuer<'static, KeyPair> {
    Issuer::new(ca_params("spiffe://ward"), pair(seed))
}

/// The CA whose parties the corpus has.
pub(super) fn authority() -> String {
    ca_params("spiffe://ward").self_signed(&pair(1)).unwrap().pem()
}

/// A public key that is none of Ward.
struct Odd(Vec<u8>, &'static SignatureAlgorithm);

impl PublicKeyData for Odd {
    fn der_bytes(&self) -> &[u8] {
        &self.0
    }

    fn algorithm(&self) -> &'static SignatureAlgorithm {
        self.1
    }
}

/// Certificates in DER, by what is wrong with them.
fn certificates() -> Vec<(String, Vec<u8>)> {
    let signed = |change: &dyn Fn(&mut CertificateParams)| {
        let mut params = params(&[ALICE]);
        change(&mut params);
        params.signed_by(&pair(2), &issuer(1)).unwrap().der().to_vec()
    };
    let named = |names: &[&str]| params(names).signed_by(&pair(2), &issuer(1)).unwrap().der().to_vec();
    let of = |key: &Odd| params(&[ALICE]).signed_by(key, &issuer(1)).unwrap().der().to_vec();
    let point = [&[4][..], &[0x6b; 64]].concat();
    let unknown = CustomExtension::from_oid_content(&[1, 3, 6, 1, 4, 1, 99999], vec![5, 0]);
    let critical = |params: &mut CertificateParams| {
        let mut unknown = unknown.clone();
        unknown.set_criticality(true);
        params.custom_extensions.push(unknown);
    };
    let usages = |usages: &'static [ExtendedKeyUsagePurpose]| {
        signed(&move |params| params.extended_key_usages = usages.to_vec())
    };
    let made = vec![
        ("whole", named(&[ALICE])),
        ("that-expired", signed(&|params| params.not_after = date_time_ymd(2027, 1, 1))),
        ("whose-time-has-not-come", signed(&|params| params.not_before = date_time_ymd(2039, 1, 1))),
        ("that-ends-before-it-begins", signed(&|params| params.not_after = date_time_ymd(2025, 1, 1))),
        ("of-the-year-1950", signed(&|params| params.not_before = date_time_ymd(1950, 1, 1))),
        ("of-another-authority", params(&[ALICE]).signed_by(&pair(2), &issuer(9)).unwrap().der().to_vec()),
        ("signed-by-itself", params(&[ALICE]).self_signed(&pair(2)).unwrap().der().to_vec()),
        ("of-an-authority", ca_params("spiffe://ward").self_signed(&pair(1)).unwrap().der().to_vec()),
        ("without-a-name", named(&[])),
        ("of-two-names", named(&[ALICE, "spiffe://ward/patient/bob"])),
        ("of-another-study", named(&["spiffe://other/patient/alice"])),
        ("of-an-unknown-role", named(&["spiffe://ward/doctor/alice"])),
        ("of-a-name-with-a-capital", named(&["spiffe://ward/patient/Alice"])),
        ("of-the-name-of-everybody", named(&["spiffe://ward/patient/all"])),
        ("of-a-folder-above", named(&["spiffe://ward/patient/../hospital/alice"])),
        ("of-a-name-with-a-wildcard", named(&["spiffe://ward/patient/*"])),
        ("of-a-name-of-nothing", named(&["spiffe://ward/patient/"])),
        ("of-a-role-more", named(&["spiffe://ward/patient/alice/hospital"])),
        ("of-a-web-address", named(&["https://ward/patient/alice"])),
        ("of-a-name-without-a-scheme", named(&["ward/patient/alice"])),
        ("with-a-host", signed(&|params| params.subject_alt_names.push(SanType::DnsName("alice".try_into().unwrap())))),
        (
            "with-a-mailbox",
            signed(&|params| params.subject_alt_names.push(SanType::Rfc822Name("a@b".try_into().unwrap()))),
        ),
        ("for-a-server", usages(&[ExtendedKeyUsagePurpose::ServerAuth])),
        ("for-code", usages(&[ExtendedKeyUsagePurpose::CodeSigning])),
        ("for-both-ends", usages(&[ExtendedKeyUsagePurpose::ServerAuth, ExtendedKeyUsagePurpose::ClientAuth])),
        ("for-no-use", usages(&[])),
        ("of-a-broker-that-is-a-client", named(&["spiffe://ward/broker/alice"])),
        ("with-an-unknown-critical-extension", signed(&critical)),
        ("of-a-point-of-p-256", of(&Odd(point, &rcgen::PKCS_ECDSA_P256_SHA256))),
        ("of-an-rsa-key", of(&Odd(vec![0x30, 6, 2, 1, 3, 2, 1, 3], &rcgen::PKCS_RSA_SHA256))),
        ("of-a-key-of-small-order", of(&Odd([&[1][..], &[0; 31]].concat(), &rcgen::PKCS_ED25519))),
        ("of-a-key-that-is-no-point", of(&Odd([&[2][..], &[0; 31]].concat(), &rcgen::PKCS_ED25519))),
        ("of-a-key-of-31-bytes", of(&Odd(vec![7; 31], &rcgen::PKCS_ED25519))),
        ("of-no-key", of(&Odd(vec![], &rcgen::PKCS_ED25519))),
    ];
    let whole = made[0].1.clone();
    let made = made.into_iter().map(|(what, der)| (what.to_owned(), der));
    made.chain(broken(&whole).into_iter().filter(|(what, _)| what != "whole")).collect()
}

/// DER with something wrong.
fn broken(whole: &[u8]) -> Vec<(String, Vec<u8>)> {
    let (half, last) = (whole.len() / 2, whole.len() - 1);
    let flipped = |at: usize| {
        let mut bytes = whole.to_vec();
        bytes[at] ^= 1;
        bytes
    };
    // A long form of the length takes two bytes more behind the first two, a middle one a byte.
    let head = if whole[1] < 0x80 { 2 } else { 2 + usize::from(whole[1] & 0x7f) };
    let headed = |header: &[u8]| [header, &whole[head..]].concat();
    let broken = vec![
        ("whole", whole.to_vec()),
        ("nothing", vec![]),
        ("cut-after-its-tag", whole[..1].to_vec()),
        ("cut-in-its-length", whole[..3].to_vec()),
        ("cut-in-half", whole[..half].to_vec()),
        ("cut-before-its-last-byte", whole[..last].to_vec()),
        ("with-a-byte-too-many", [whole, &[0]].concat()),
        ("twice", [whole, whole].concat()),
        ("with-a-bit-flipped-at-its-end", flipped(last)),
        ("with-a-bit-flipped-in-its-middle", flipped(half)),
        ("with-another-tag", flipped(0)),
        ("of-4-gib", headed(&[0x30, 0x84, 0xff, 0xff, 0xff, 0xff])),
        ("of-2-to-the-64-bytes", headed(&[&[0x30, 0x88][..], &[0xff; 8]].concat())),
        ("of-no-end", headed(&[0x30, 0x80])),
        ("of-a-padded-length", headed(&[0x30, 0x84, 0, 0, (whole.len() >> 8) as u8, whole.len() as u8])),
        ("nested-400-deep", [0x30, 0x80].repeat(400)),
        ("of-a-set", headed(&[0x31, 0x82, 1, 0])),
        ("of-zeros", vec![0; 300]),
    ];
    broken.into_iter().map(|(what, bytes)| (what.to_owned(), bytes)).collect()
}

fn text(label: &str, der: &[u8]) -> String {
    pem::encode_string(label, LineEnding::LF, der).unwrap()
}

/// PEM with something wrong.
fn miswritten(whole: &str) -> Vec<(String, Vec<u8>)> {
    let lines: Vec<&str> = whole.lines().collect();
    let (first, rest) = (lines[0], lines[1..].join("\n"));
    let written = vec![
        ("with-windows-lines-whole", whole.replace('\n', "\r\n").into_bytes()),
        ("behind-other-text-whole", format!("subject: alice\n\n{whole}").into_bytes()),
        ("two-of-them", format!("{whole}{whole}").into_bytes()),
        ("without-its-first-line", rest.clone().into_bytes()),
        ("without-its-last-line", lines[..lines.len() - 1].join("\n").into_bytes()),
        ("with-a-line-missing", [&[first], &lines[2..]].concat().join("\n").into_bytes()),
        ("in-small-letters", whole.to_lowercase().into_bytes()),
        ("under-another-label", whole.replace("-----BEGIN ", "-----BEGIN X509 ").into_bytes()),
        ("with-two-labels", whole.replacen("-----BEGIN ", "-----BEGIN OTHER ", 1).into_bytes()),
        ("with-a-letter-that-is-none", whole.replacen("\nM", "\n%", 1).into_bytes()),
        ("with-nul", whole.replacen("\nM", "\n\0", 1).into_bytes()),
        ("that-is-not-utf-8", [&[0xff, 0xfe][..], whole.as_bytes()].concat()),
        ("of-its-label-alone", format!("{first}\n").into_bytes()),
        ("of-no-lines", whole.replace('\n', "").into_bytes()),
        ("of-blanks", vec![b' '; 100]),
        ("of-dashes", vec![b'-'; 100]),
    ];
    written.into_iter().map(|(what, bytes)| (what.to_owned(), bytes)).collect()
}

pub fn corpus() -> BTreeMap<String, Vec<u8>> {
    let ca = ca_params("spiffe://ward").self_signed(&pair(1)).unwrap();
    let mut asked = CertificateParams::default();
    (asked.distinguished_name, asked.subject_alt_names) = (DistinguishedName::new(), vec![uri(ALICE)]);
    let request = asked.serialize_request(&pair(2)).unwrap();
    let alice = params(&[ALICE]).signed_by(&pair(2), &issuer(1)).unwrap();
    let labelled = |label: &'static str| move |(what, der): (String, Vec<u8>)| (what, text(label, &der).into_bytes());
    let ca_of = |study: &str| ca_params(study).self_signed(&pair(1)).unwrap().pem().into_bytes();
    let in_place = |texts: &[(&str, &str)]| -> Vec<(String, Vec<u8>)> {
        texts.iter().map(|(what, text)| (format!("a-{what}-in-its-place"), text.as_bytes().to_vec())).collect()
    };
    let key_der = SigningKey::from_bytes(&[2; 32]).to_pkcs8_der().unwrap();
    let uses: [Vec<(String, Vec<u8>)>; 6] = [
        [
            certificates().into_iter().map(labelled("CERTIFICATE")).collect(),
            miswritten(&alice.pem()),
            in_place(&[("key", &key(2)), ("request", &request.pem().unwrap()), ("word", "alice")]),
        ]
        .concat(),
        [
            broken(ca.der()).into_iter().map(labelled("CERTIFICATE")).collect(),
            vec![("of-no-study".into(), ca_of("https://ward")), ("of-a-party".into(), ca_of(ALICE))],
            in_place(&[("party", &alice.pem()), ("key", &key(1))]),
        ]
        .concat(),
        [
            broken(request.der()).into_iter().map(labelled("CERTIFICATE REQUEST")).collect(),
            in_place(&[("certificate", &alice.pem()), ("key", &key(2))]),
        ]
        .concat(),
        certificates(),
        [
            broken(key_der.as_bytes()).into_iter().map(labelled("PRIVATE KEY")).collect(),
            in_place(&[("certificate", &alice.pem()), ("word", "alice")]),
        ]
        .concat(),
        [
            ALICE,
            "",
            "spiffe://",
            "spiffe:///patient/alice",
            "spiffe://ward/patient",
            "spiffe://ward//alice",
            "SPIFFE://a/b/c",
        ]
        .iter()
        .enumerate()
        .map(|(number, uri)| (format!("{number}{}", if number == 0 { "-whole" } else { "" }), uri.as_bytes().to_vec()))
        .collect(),
    ];
    let named = |(number, variants): (u8, Vec<(String, Vec<u8>)>)| {
        let named = move |(what, bytes): (String, Vec<u8>)| {
            (format!("{}-{what}", USES[usize::from(number)]), [&[number], &bytes[..]].concat())
        };
        variants.into_iter().map(named).collect::<Vec<_>>()
    };
    (0..).zip(uses).flat_map(named).collect()
}
